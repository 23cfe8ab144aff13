"""The Vagrantfile, run by Ruby with a recorder in Vagrant's place, makes the machines of the inventory."""

import ipaddress
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tortie.cluster.plugins.module_utils import kube_versions

ROOT = Path(__file__).parents[3]
PROVIDERS = ["libvirt", "virtualbox"]
SYSTEMS = {"centos", "ubuntu", "debian"}

Call = tuple[str, list[Any], dict[str, Any]]


@dataclass(frozen=True)
class Machine:
    """One `config.vm.define`."""

    name: str
    options: dict[str, Any]
    calls: list[Call]

    def value(self, path: str) -> Any:
        """The value of the only assignment to `path`."""
        values = [positional for called, positional, _ in self.calls if called == f"{path}="]
        assert len(values) == 1, f"{self.name} sets {path} {len(values)} times"
        return values[0][0]

    def call(self, path: str) -> tuple[list[Any], dict[str, Any]]:
        """Arguments of the only call of `path`."""
        found = [(positional, keywords) for called, positional, keywords in self.calls if called == path]
        assert len(found) == 1, f"{self.name} calls {path} {len(found)} times"
        return found[0]

    @property
    def provisioners(self) -> list[Any]:
        return [positional[0] for called, positional, _ in self.calls if called == ".vm.provision"]


@dataclass(frozen=True)
class Recorded:
    """What the whole file asks for."""

    requires: str
    no_parallel: str
    shared: list[Call]
    machines: list[Machine]


def run(provider: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Ruby on the Vagrantfile, with no setting of the caller's environment."""
    ruby = shutil.which("ruby")
    if ruby is None:
        pytest.fail("ruby is not installed; run lab/deps.sh, or install the package ruby.", pytrace=False)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORTIE_")}
    return subprocess.run(
        [ruby, "-w", str(Path(__file__).with_name("record.rb")), str(ROOT / "Vagrantfile"), provider],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def recorded(provider: str, **environment: str) -> Recorded:
    result = run(provider, **environment)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "", "ruby warns about the Vagrantfile"
    document = json.loads(result.stdout)
    return Recorded(
        requires=document["requires"],
        no_parallel=document["no_parallel"],
        shared=[(call[0], call[1], call[2]) for call in document["shared"]],
        machines=[
            Machine(item["name"], item["options"], [(call[0], call[1], call[2]) for call in item["calls"]])
            for item in document["machines"]
        ],
    )


@pytest.fixture(scope="module", params=PROVIDERS)
def vagrantfile(request: pytest.FixtureRequest) -> Recorded:
    return recorded(str(request.param))


@pytest.fixture(scope="module")
def groups() -> dict[str, Any]:
    """The children of `all` in inventory/vagrant."""
    document = yaml.safe_load((ROOT / "inventory/vagrant/hosts.yml").read_text())
    return dict(document["all"]["children"])


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "inventory/vagrant/group_vars/cluster.yml").read_text()))


def roles(groups: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Hosts by group of the cluster."""
    children: dict[str, Any] = groups["cluster"]["children"]
    return {role: dict(content["hosts"]) for role, content in children.items()}


def constants(provider: str) -> list[dict[str, Any]]:
    """TOPOLOGY, which says what the calls do not: role and operating system."""
    program = (
        "require 'json'; module Vagrant; def self.require_version(*); end; def self.configure(*); end; end;"
        "load ARGV[0]; puts JSON.generate(TOPOLOGY.map { |m| m.merge(box: BOXES[m[:os]][ARGV[1].to_sym]) })"
    )
    result = subprocess.run(
        ["ruby", "-e", program, str(ROOT / "Vagrantfile"), provider],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return list(json.loads(result.stdout))


def test_machines_have_the_names_and_addresses_of_the_inventory(
    vagrantfile: Recorded, groups: dict[str, Any]
) -> None:
    in_inventory = {
        name: (host["ansible_host"], host["kubernetes_node_ip"])
        for hosts in roles(groups).values()
        for name, host in hosts.items()
    }
    in_vagrantfile = {}
    for machine in vagrantfile.machines:
        address = machine.call(".vm.network")[1]["ip"]
        in_vagrantfile[machine.name] = (address, address)
    assert in_vagrantfile == in_inventory
    assert len(vagrantfile.machines) == len(in_inventory)


def test_roles_are_the_groups_of_the_inventory(vagrantfile: Recorded, groups: dict[str, Any]) -> None:
    topology = constants("libvirt")
    assert [machine["name"] for machine in topology] == [machine.name for machine in vagrantfile.machines]
    by_role = {role: {m["name"] for m in topology if m["role"] == role} for role in roles(groups)}
    assert by_role == {role: set(hosts) for role, hosts in roles(groups).items()}
    assert {machine["role"] for machine in topology} == set(roles(groups))


def test_operating_systems_are_the_groups_of_the_inventory(groups: dict[str, Any]) -> None:
    topology = constants("libvirt")
    systems = {system: {m["name"] for m in topology if m["os"] == system} for system in SYSTEMS}
    assert systems == {system: set(groups[system]["hosts"]) for system in SYSTEMS}


def test_default_machines_mix_all_three_operating_systems() -> None:
    assert {machine["os"] for machine in constants("libvirt")} == SYSTEMS


@pytest.mark.parametrize("provider", PROVIDERS)
def test_box_is_the_one_of_system_and_provider(provider: str) -> None:
    expected = {machine["name"]: machine["box"] for machine in constants(provider)}
    assert all(expected.values())
    actual = {machine.name: machine.value(".override.vm.box") for machine in recorded(provider).machines}
    assert actual == expected


def test_machine_is_named_inside_like_outside(vagrantfile: Recorded) -> None:
    for machine in vagrantfile.machines:
        assert machine.value(".vm.hostname") == machine.name


def test_private_network_is_one_subnet_apart_from_pods_and_services(
    vagrantfile: Recorded, settings: dict[str, Any]
) -> None:
    networks = set()
    for machine in vagrantfile.machines:
        kind, options = machine.call(".vm.network")
        assert kind == ["private_network"]
        networks.add(ipaddress.IPv4Network(f"{options['ip']}/{options['netmask']}", strict=False))
    assert len(networks) == 1
    network = networks.pop()
    assert network.prefixlen == 24
    # The networks that VirtualBox allows without a configuration file of its own.
    assert network.subnet_of(ipaddress.IPv4Network("192.168.56.0/21"))
    assert not network.overlaps(ipaddress.IPv4Network(settings["tortie_ipv4pool_cidr"]))
    assert not network.overlaps(ipaddress.IPv4Network(settings["kubernetes_service_cidr"]))
    assert settings["tortie_ip_autodetection_method"] == f"cidr={network}"


def test_every_machine_is_big_enough_for_its_role(vagrantfile: Recorded) -> None:
    limits = yaml.safe_load((ROOT / "roles/preflight/defaults/main.yml").read_text())
    needed = {
        "control_plane": limits["preflight_min_memory_mib_control_plane"],
        "workers": limits["preflight_min_memory_mib_worker"],
    }
    roles_by_name = {machine["name"]: machine["role"] for machine in constants("libvirt")}
    for machine in vagrantfile.machines:
        assert machine.value(".vm.provider.memory") > needed[roles_by_name[machine.name]]
        # kubeadm wants two processors for a control plane.
        assert machine.value(".vm.provider.cpus") >= 2


def test_playbook_runs_once_on_all_machines_from_the_last(vagrantfile: Recorded) -> None:
    *others, last = vagrantfile.machines
    assert [machine.name for machine in others if machine.provisioners] == []
    assert last.provisioners == ["ansible"]
    assert last.value(".vm.provision.compatibility_mode") == "2.0"
    assert last.value(".vm.provision.limit") == "all"
    assert (ROOT / last.value(".vm.provision.playbook")).samefile(ROOT / "site.yml")
    assert (ROOT / last.value(".vm.provision.inventory_path")).samefile(ROOT / "inventory/vagrant")
    assert last.value(".vm.provision.raw_arguments") == []


def test_machines_start_one_after_the_other_so_that_the_last_finds_all(vagrantfile: Recorded) -> None:
    assert vagrantfile.no_parallel == "yes"


def test_checkout_is_not_shared_with_the_machines(vagrantfile: Recorded) -> None:
    assert vagrantfile.shared == [(".vm.synced_folder", [".", "/vagrant"], {"disabled": True})]


def test_old_vagrant_is_refused(vagrantfile: Recorded) -> None:
    assert vagrantfile.requires == ">= 2.3.0"


def test_virtualbox_disks_are_linked_clones() -> None:
    for machine in recorded("virtualbox").machines:
        assert machine.value(".vm.provider.linked_clone") is True


def test_environment_overrides_box_size_driver_and_arguments_of_ansible() -> None:
    machines = recorded(
        "libvirt",
        TORTIE_VAGRANT_BOX_DEBIAN="own/debian",
        TORTIE_VAGRANT_CPUS="3",
        TORTIE_VAGRANT_MEMORY="4096",
        TORTIE_VAGRANT_LIBVIRT_DRIVER="qemu",
        TORTIE_VAGRANT_ANSIBLE_ARGS="--tags node -e 'a=1 b=2'",
    ).machines
    systems = {machine["name"]: machine["os"] for machine in constants("libvirt")}
    for machine in machines:
        assert (machine.value(".override.vm.box") == "own/debian") == (systems[machine.name] == "debian")
        assert machine.value(".vm.provider.cpus") == 3
        assert machine.value(".vm.provider.memory") == 4096
        assert machine.value(".vm.provider.driver") == "qemu"
    assert machines[-1].value(".vm.provision.raw_arguments") == ["--tags", "node", "-e", "a=1 b=2"]


def test_empty_override_is_none() -> None:
    assert recorded("libvirt", TORTIE_VAGRANT_MEMORY="") == recorded("libvirt")


def test_size_that_is_no_number_is_refused_with_its_value() -> None:
    result = run("libvirt", TORTIE_VAGRANT_MEMORY="much")
    assert result.returncode != 0
    assert '"much"' in result.stderr


def test_kubernetes_comes_from_packages_in_a_version_that_the_table_knows_completely(
    settings: dict[str, Any],
) -> None:
    assert settings["kubernetes_install_source"] == "packages"
    assert kube_versions.pause_image(settings["kubernetes_version"])


def playbook(tmp_path: Path, **environment: str) -> str:
    """Output of site.yml on inventory/vagrant. Nobody listens on port 1: every connection is refused."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORTIE_")}
    result = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            *("-i", "inventory/vagrant", "site.yml", "--check"),
            *("-e", json.dumps({"ansible_host": "127.0.0.1", "ansible_port": 1})),
            *("-e", json.dumps({"ansible_control_path_dir": str(tmp_path / "cp")})),
        ],
        cwd=ROOT,
        env={
            **inherited,
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "COLUMNS": "400",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode != 0
    return result.stdout


def test_inventory_is_accepted_and_only_the_missing_machines_are_complained_about(tmp_path: Path) -> None:
    output = playbook(tmp_path, TORTIE_IMAGE_ARCHIVE="/image.tar")
    for name in ("master-01", "worker-01", "worker-02"):
        assert f"host '{name}' (127.0.0.1) cannot be reached" in output
    assert "cannot be evaluated" not in output


def test_missing_image_archive_is_said_with_the_command_that_makes_it(tmp_path: Path) -> None:
    output = playbook(tmp_path)
    assert "TORTIE_IMAGE_ARCHIVE is not set; run: export TORTIE_IMAGE_ARCHIVE=" in output
    assert "cannot be reached" not in output


@pytest.mark.parametrize("provider", PROVIDERS)
def test_key_is_the_one_that_vagrant_made_with_whatever_provider(tmp_path: Path, provider: str) -> None:
    key = tmp_path / "machines" / "worker-01" / provider / "private_key"
    key.parent.mkdir(parents=True)
    key.write_text("a key\n")
    result = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible"),
            *("-i", "inventory/vagrant", "worker-01", "-c", "local", "-m", "ansible.builtin.debug"),
            *("-a", "var=ansible_ssh_private_key_file"),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "VAGRANT_DOTFILE_PATH": str(tmp_path),
            "ANSIBLE_FORCE_COLOR": "0",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert str(key) in result.stdout, result.stdout + result.stderr
