"""The real playbook with inventories that cannot be used ends before any host is touched, with sentences."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]


def site(folder: Path, hosts: dict[str, dict[str, Any]], **shared: Any) -> subprocess.CompletedProcess[str]:
    """Run site.yml in check mode; the first host is the control plane node."""
    first, *others = hosts
    inventory = {
        "all": {
            "children": {
                "cluster": {
                    "children": {
                        "control_plane": {"hosts": {first: hosts[first]}},
                        "workers": {"hosts": {name: hosts[name] for name in others}},
                    },
                    "vars": {
                        "kubernetes_version": "1.31.4",
                        # Nobody listens on port 1: the connection is refused at once.
                        "ansible_host": "127.0.0.1",
                        "ansible_port": 1,
                        "ansible_control_path_dir": str(folder / "cp"),
                        **shared,
                    },
                }
            }
        }
    }
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump(inventory))
    return subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(path), "site.yml", "--check"],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "COLUMNS": "400",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_every_mistake_is_said_and_no_connection_is_opened(tmp_path: Path) -> None:
    result = site(
        tmp_path,
        {"a": {"kubernetes_node_ip": "10.0.0.1"}, "b": {"kubernetes_node_ip": "10.0.0.1"}},
        tortie_ipv4pool_cidr="10.96.0.0/16",
        tortie_encapsulaton="vxlan",
    )
    assert result.returncode != 0
    assert "kubernetes_node_ip is 10.0.0.1 on both 'a' and 'b'" in result.stdout
    assert "tortie_ipv4pool_cidr 10.96.0.0/16 overlaps kubernetes_service_cidr 10.96.0.0/12" in result.stdout
    assert "did you mean tortie_encapsulation?" in result.stdout
    assert "UNREACHABLE" not in result.stdout


def test_expression_that_cannot_be_evaluated_is_said_with_its_variable(tmp_path: Path) -> None:
    result = site(
        tmp_path, {"a": {"kubernetes_node_ip": "10.0.0.1"}}, tortie_mtu="{{ no_such_variable + 1 }}"
    )
    assert result.returncode != 0
    assert "tortie_mtu of host 'a' cannot be evaluated" in result.stdout
    assert "no_such_variable" in result.stdout


def test_unreachable_hosts_are_all_named_and_nothing_goes_on(tmp_path: Path) -> None:
    result = site(
        tmp_path, {"a": {"kubernetes_node_ip": "10.0.0.1"}, "b": {"kubernetes_node_ip": "10.0.0.2"}}
    )
    assert result.returncode != 0
    assert "host 'a' (127.0.0.1) cannot be reached" in result.stdout
    assert "host 'b' (127.0.0.1) cannot be reached" in result.stdout
    assert "Prepare the machine" not in result.stdout


@pytest.mark.parametrize("name", ["lab", "sample"])
def test_inventories_that_we_ship_have_the_groups_and_addresses(name: str) -> None:
    document = yaml.safe_load((ROOT / "inventory" / name / "hosts.yml").read_text())
    children = document["all"]["children"]["cluster"]["children"]
    assert set(children) == {"control_plane", "workers"}
    for group in children.values():
        for host in group["hosts"].values():
            assert host["kubernetes_node_ip"]
