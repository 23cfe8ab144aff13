"""A lab of one virtual machine, really booted: kernel, network, retries, and what is left afterwards."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.lab.test_lab_lifecycle import host_links, wait_until

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
NAME = "vmtest"
NODE = "solo-01"
ADDRESS = "10.30.200.9"
INVENTORY = f"""\
all:
  children:
    cluster:
      children:
        control_plane:
          hosts:
            {NODE}: {{kubernetes_node_ip: {ADDRESS}, lab_vm_cpus: 1, lab_vm_memory_mib: 768}}
"""


@dataclass(frozen=True)
class Lab:
    """The lab under test."""

    directory: Path
    inventory: Path

    def play(self, playbook: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook."""
        return subprocess.run(
            [
                str(Path(sys.executable).parent / "ansible-playbook"),
                "-i",
                str(self.inventory),
                playbook,
                *options,
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "LAB": "vms",
                "LAB_NAME": NAME,
                "LAB_DIR": str(self.directory),
                "LAB_API_PORT": "16449",
                "ANSIBLE_NOCOLOR": "1",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    def changes(self, playbook: str, *options: str, **environment: str) -> int:
        """Run a playbook that must succeed; the number of changes."""
        result = self.play(playbook, *options, **environment)
        assert result.returncode == 0, result.stdout + result.stderr
        changed = re.search(r"changed=(\d+)", result.stdout)
        assert changed is not None
        return int(changed[1])

    def ssh(self, command: str) -> str:
        """Standard output of a command on the machine."""
        return subprocess.run(
            ["ssh", "-F", str(self.directory / "ssh_config"), NODE, command],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout.strip()

    def processes(self) -> list[int]:
        """Process ids of QEMU with files in the lab's folder."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(self.directory / "nodes" / NODE / "pid").encode() in command:
                found.append(int(folder.name))
        return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab that runs; the tests below find it running and leave it so."""
    subprocess.run([str(ROOT / "lab" / "deps.sh")], env={**os.environ, "LAB": "vms"}, check=True)
    folder = tmp_path_factory.mktemp(f"{NAME}-lab")
    inventory = folder / "hosts.yml"
    inventory.write_text(INVENTORY)
    made = Lab(folder / "state", inventory)
    made.changes("lab/create.yml")
    yield made
    made.changes("lab/destroy.yml")


def test_machine_runs_debians_own_kernel_with_ipip(lab: Lab) -> None:
    kernel = lab.ssh("uname -r")
    assert kernel.endswith("-cloud-amd64")
    assert kernel != os.uname().release
    lab.ssh("modprobe ipip")
    assert json.loads(lab.ssh("ip -j link show tunl0"))[0]["link_type"] == "ipip"
    lab.ssh("modprobe -r ipip")


def test_machine_has_its_address_and_systemd_has_booted(lab: Lab) -> None:
    link = json.loads(lab.ssh("ip -j address show dev eth0"))[0]
    assert (link["mtu"], link["address"]) == (1500, "52:54:00:1e:c8:09")
    assert [a["local"] for a in link["addr_info"]] == [ADDRESS]
    assert lab.ssh("hostname") == NODE
    assert lab.ssh("systemctl is-system-running") == "running"


def test_images_of_the_bundle_are_in_containerds_store(lab: Lab) -> None:
    lab.ssh("systemctl start containerd")
    names = lab.ssh("ctr -n k8s.io images ls -q")
    assert "/kube-apiserver:" in names
    assert "tortie-node:" in names
    assert not re.search(r"^\S+.*incomplete", lab.ssh("ctr -n k8s.io images check"), re.MULTILINE)
    lab.ssh("systemctl stop containerd")


def test_second_create_changes_nothing(lab: Lab) -> None:
    assert lab.changes("lab/create.yml") == 0
    assert lab.changes("lab/create.yml", "--check") == 0


def test_machines_own_network_is_untouched(lab: Lab) -> None:
    assert lab.processes()
    assert not any(name.startswith(("tap", "br", "p0a1e")) for name in host_links())


def test_lab_of_containers_in_the_same_folder_is_refused(lab: Lab) -> None:
    result = lab.play("lab/create.yml", LAB="containers")
    assert result.returncode != 0
    assert "is one of vms, and LAB is containers" in " ".join(result.stdout.split())


def test_machine_that_reboots_comes_back_by_itself(lab: Lab) -> None:
    before = lab.ssh("cat /proc/sys/kernel/random/boot_id")
    lab.ssh("echo kept > /root/kept; sync; systemd-run --on-active=1 systemctl reboot")

    def rebooted() -> bool:
        try:
            return lab.ssh("cat /proc/sys/kernel/random/boot_id") != before
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return False

    wait_until(rebooted, "the machine to come back", timeout=300)
    assert lab.ssh("cat /root/kept") == "kept"


def test_killed_machine_is_started_again_with_its_disk(lab: Lab) -> None:
    lab.ssh("echo kept > /root/kept; sync")
    os.kill(lab.processes()[0], signal.SIGKILL)
    wait_until(lambda: not lab.processes(), "the machine to end")
    assert lab.changes("lab/create.yml") == 1
    assert lab.ssh("cat /root/kept") == "kept"


def test_machine_that_does_not_answer_is_killed_and_booted_again_and_the_output_says_so(lab: Lab) -> None:
    (hanging,) = lab.processes()
    os.kill(hanging, signal.SIGSTOP)
    result = lab.play("lab/create.yml", LAB_BOOT_TIMEOUT="45")
    assert result.returncode == 0, result.stdout + result.stderr
    said = " ".join((result.stdout + result.stderr).split())
    assert f"{NODE} did not answer by ssh within 45 s" in said
    assert "Killed and booted again, try 2 of 4." in said
    assert lab.processes() != [hanging]
    assert lab.ssh("hostname") == NODE


def test_machine_too_large_for_this_one_is_a_sentence_and_the_next_create_recovers(lab: Lab) -> None:
    os.kill(lab.processes()[0], signal.SIGKILL)
    wait_until(lambda: not lab.processes(), "the machine to end")
    result = lab.play("lab/create.yml", "--extra-vars", "lab_vm_memory_mib=99999999 lab_vm_cpus=9999")
    said = " ".join(result.stdout.split())
    assert result.returncode != 0
    assert f"lab_vm_cpus of {NODE} is 9999, but this machine lets the lab use" in said
    assert "MiB available" in said
    assert lab.changes("lab/create.yml") == 1
    assert lab.ssh("hostname") == NODE


def test_destroy_leaves_nothing_and_no_other_process_is_ended(lab: Lab) -> None:
    with subprocess.Popen(["sleep", "600"]) as bystander:
        # As if a machine of long ago had had this number.
        (lab.directory / "nodes" / NODE / "pid").write_text(f"{bystander.pid}\n")
        assert lab.changes("lab/destroy.yml") == 4  # forwarder, machine, network, folder
        assert bystander.poll() is None
        bystander.kill()
    assert not lab.processes()
    assert not Path(f"/run/netns/{NAME}-sw").exists()
    assert not Path("/run/tortie-lab", NAME).exists()
    assert not lab.directory.exists()
    assert lab.changes("lab/destroy.yml") == 0
