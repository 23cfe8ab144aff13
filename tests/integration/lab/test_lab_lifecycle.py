"""A one-node lab, really made: created, created again, damaged, repaired, destroyed."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab import podman

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[3]
NAME = "labtest"
NODE = "solo-01"
ADDRESS = "10.30.200.7"
INVENTORY = f"""\
all:
  children:
    cluster:
      children:
        control_plane:
          hosts:
            {NODE}: {{kubernetes_node_ip: {ADDRESS}}}
"""


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 30.0) -> None:
    """Poll a condition; fails naming it."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"gave up waiting: {what}"
        time.sleep(0.05)


def traces() -> dict[str, list[str]]:
    """Everything on the machine that carries this lab's name."""
    containers = podman.run("ps", "--all", "--format", "{{.Names}}").splitlines()
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"{NAME}-" in command and "pytest" not in command:
            processes.append(command)
    return {
        "namespaces": [path.name for path in Path("/run/netns").glob(f"{NAME}-*")],
        "containers": [name for name in containers if name.startswith(f"{NAME}-")],
        "mounts": [line for line in mounts if f"/{NAME}-" in line],
        "processes": processes,
        "run": [str(path) for path in Path("/run/tortie-lab").glob(NAME)],
    }


def host_links() -> list[str]:
    """Names of the network devices in the machine's own namespace."""
    listing = subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True).stdout
    return [link["ifname"] for link in json.loads(listing)]


@dataclass(frozen=True)
class Lab:
    """The lab under test."""

    directory: Path
    inventory: Path

    def play(self, playbook: str, *options: str) -> dict[str, int]:
        """Run a playbook; the recap's numbers (changed, failed, ...)."""
        environment = {
            **os.environ,
            "LAB_NAME": NAME,
            "LAB_DIR": str(self.directory),
            "LAB_API_PORT": "16447",
            "ANSIBLE_STDOUT_CALLBACK": "default",
            "ANSIBLE_NOCOLOR": "1",
        }
        result = subprocess.run(
            [
                str(Path(sys.executable).parent / "ansible-playbook"),
                "-i",
                str(self.inventory),
                playbook,
                *options,
            ],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        lines = iter(result.stdout.splitlines())
        recap = next(line for line in lines if line.startswith("PLAY RECAP")) and next(lines)
        return {key: int(value) for key, value in (item.split("=") for item in recap.split(":")[1].split())}

    def create(self, *options: str) -> int:
        """Create; the number of changes."""
        return self.play("lab/create.yml", *options)["changed"]

    def destroy(self, *options: str) -> int:
        """Destroy; the number of changes."""
        return self.play("lab/destroy.yml", *options)["changed"]

    def ssh(self, command: str, host: str = NODE) -> str:
        """Standard output of a command on the node."""
        return subprocess.run(
            ["ssh", "-F", str(self.directory / "ssh_config"), host, command],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout.strip()

    def record(self) -> dict[str, int]:
        """What the forwarder says about itself."""
        answer: dict[str, int] = json.loads((self.directory / "api.json").read_text())
        return answer


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab that runs; the tests below find it running and leave it so."""
    folder = tmp_path_factory.mktemp(f"{NAME}-lab")
    inventory = folder / "hosts.yml"
    inventory.write_text(INVENTORY)
    made = Lab(folder / "state", inventory)
    made.destroy()
    made.create()
    yield made
    made.destroy()


def test_ssh_reaches_the_node_by_name_and_by_address(lab: Lab) -> None:
    assert lab.ssh("hostname") == NODE
    assert lab.ssh("hostname", host=ADDRESS) == NODE


def test_node_is_a_machine_with_systemd_and_its_own_network(lab: Lab) -> None:
    assert lab.ssh("cat /proc/1/comm") == "systemd"
    assert lab.ssh("systemctl is-system-running") == "running"
    link = json.loads(lab.ssh("ip -j address show dev eth0"))[0]
    assert link["mtu"] == 1500
    assert [a["local"] for a in link["addr_info"] if a["family"] == "inet"] == [ADDRESS]
    assert "default via 10.30.200.254 dev eth0" in lab.ssh("ip route")


def test_containers_can_run_in_the_node(lab: Lab) -> None:
    lab.ssh("systemctl start containerd")
    overlay = [line.split() for line in lab.ssh("ctr plugins ls").splitlines() if " overlayfs " in line]
    assert overlay[0][-1] == "ok"
    assert lab.ssh("findmnt -no PROPAGATION /") == "shared"
    assert lab.ssh("findmnt -no FSTYPE -T /var/lib/etcd") != "overlay"


def test_nodes_cgroups_lie_below_its_container(lab: Lab) -> None:
    pid = int(podman.run("inspect", "--format", "{{.State.Pid}}", f"{NAME}-{NODE}"))
    own = f"libpod-{podman.run('inspect', '--format', '{{.Id}}', f'{NAME}-{NODE}')}"
    hierarchies = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    assert hierarchies
    assert [line for line in hierarchies if own not in line] == []
    # The node's own view: its root is its container's cgroup, in every hierarchy that it sees mounted.
    mounted = [line.split() for line in lab.ssh("grep -w cgroup2* /proc/self/mountinfo").splitlines()]
    assert [fields[4] for fields in mounted if fields[3] != "/"] == []


def test_kernel_settings_written_in_the_node_stay_in_the_node(lab: Lab) -> None:
    before = Path("/proc/sys/kernel/panic").read_text()
    lab.ssh("sysctl -w kernel.panic=7 fs.inotify.max_user_watches=600001")
    assert lab.ssh("cat /proc/sys/kernel/panic") == "7"
    assert Path("/proc/sys/kernel/panic").read_text() == before
    refused = lab.ssh("echo 1 > /proc/sys/vm/drop_caches && echo written || echo refused")
    assert refused == "refused"


def test_second_create_changes_nothing(lab: Lab) -> None:
    assert lab.create() == 0
    assert lab.create("--check") == 0


def test_machines_own_network_is_untouched(lab: Lab) -> None:
    assert not any(name.startswith(("veth", "br", "p0a1e")) for name in host_links())


def api_status(port: int) -> int:
    """HTTP status through the forwarder, or 0 when the connection is cut."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def test_forwarder_connects_the_loopback_with_the_api_servers_port(lab: Lab) -> None:
    lab.ssh("systemd-run --unit=web --collect python3 -m http.server 6443 --directory /usr/share")
    port = lab.record()["port"]
    wait_until(lambda: api_status(port) == 200, "an answer through the forwarder")
    lab.ssh("systemctl stop web")
    wait_until(lambda: api_status(port) == 0, "the connection to be cut when nothing listens")


def test_forwarders_worker_is_replaced_when_it_dies(lab: Lab) -> None:
    record = lab.record()
    children = Path(f"/proc/{record['pid']}/task/{record['pid']}/children")
    first = children.read_text().split()
    os.kill(int(first[0]), signal.SIGKILL)
    wait_until(
        lambda: bool(children.read_text().split()) and children.read_text().split() != first, "a new worker"
    )
    assert lab.create() == 0


def test_killed_forwarder_is_started_again(lab: Lab) -> None:
    killed = lab.record()
    os.kill(killed["pid"], signal.SIGKILL)
    assert lab.create() == 1
    assert lab.record()["pid"] != killed["pid"]


def test_stopped_machine_is_started_with_what_it_had(lab: Lab) -> None:
    lab.ssh("echo kept > /root/kept")
    podman.run("kill", f"{NAME}-{NODE}")
    podman.run("wait", f"{NAME}-{NODE}")
    assert lab.create() == 1
    assert lab.ssh("cat /root/kept") == "kept"


def test_lost_namespaces_are_made_again_and_the_machine_gets_the_new_one(lab: Lab) -> None:
    lab.ssh("echo kept > /root/kept")
    for name in (f"{NAME}-{NODE}", f"{NAME}-sw"):
        subprocess.run(["ip", "netns", "delete", name], check=True)
    assert lab.create() == 3  # network, machine, forwarder
    assert lab.ssh("cat /root/kept") == "kept"


def test_half_made_namespace_of_a_killed_run_is_replaced(lab: Lab) -> None:
    podman.run("rm", "--force", "--time", "0", f"{NAME}-{NODE}")
    subprocess.run(["ip", "netns", "delete", f"{NAME}-{NODE}"], check=True)
    # What `ip netns add` leaves when it is killed between making the file and mounting the namespace on it.
    Path(f"/run/netns/{NAME}-{NODE}").touch()
    stale = lab.directory / "nodes" / NODE / "etcd" / "member"
    stale.mkdir(parents=True)
    assert lab.create() == 2  # network, machine
    assert lab.ssh("hostname") == NODE
    assert not stale.exists()


def test_same_name_in_another_folder_is_refused(lab: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path / "other", lab.inventory)
    with pytest.raises(AssertionError, match="is in use by the lab in"):
        other.create()
    other.destroy()
    assert lab.ssh("hostname") == NODE


def test_name_goes_to_another_folder_when_all_of_the_lab_was_killed_long_ago(
    lab: Lab, tmp_path: Path
) -> None:
    lab.create()
    os.kill(lab.record()["pid"], signal.SIGKILL)
    podman.run("kill", f"{NAME}-{NODE}")
    podman.run("wait", f"{NAME}-{NODE}")
    inside = [["ip", "netns", "pids", f"{NAME}-{end}"] for end in (NODE, "sw")]
    wait_until(lambda: not any(subprocess.check_output(command) for command in inside), "processes to end")
    mark = Path("/run/tortie-lab", NAME, "directory")
    other = Lab(tmp_path / "other", lab.inventory)
    with pytest.raises(AssertionError, match="is in use by the lab in"):
        other.create()
    os.utime(mark, (0, 0))
    other.create()
    assert other.ssh("hostname") == NODE
    assert mark.read_text() == str(other.directory)
    os.utime(mark, (0, 0))
    with pytest.raises(AssertionError, match=f"is in use by the lab in {other.directory}"):
        lab.create()
    other.destroy()
    assert lab.create() > 0
    assert lab.ssh("hostname") == NODE


def test_destroy_in_check_mode_keeps_the_lab(lab: Lab) -> None:
    assert lab.destroy("--check") == 4
    assert lab.ssh("hostname") == NODE


def test_destroy_leaves_nothing_and_can_be_repeated(lab: Lab) -> None:
    lab.ssh("true")  # a shared ssh connection is open now
    assert lab.destroy() == 4
    wait_until(lambda: not any(traces().values()), f"traces to go: {traces()}")
    assert not lab.directory.exists()
    assert lab.destroy() == 0


def test_half_created_lab_is_destroyed(lab: Lab) -> None:
    Path("/run/tortie-lab", NAME).mkdir(parents=True, exist_ok=True)
    subprocess.run(["ip", "netns", "add", f"{NAME}-sw"], check=True)
    Path(f"/run/netns/{NAME}-{NODE}").touch()
    assert lab.destroy() == 1
    assert not any(traces().values())
