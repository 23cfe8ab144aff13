"""The scenario's machines over ssh: scripts, captures of their uplink, pings that go on meanwhile."""

import json
import os
import re
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster_fixtures import PROBE_PORT

LAB_DIR = Path(os.environ["LAB_DIR"])
LAB_NAME = os.environ["LAB_NAME"]
LINK = "eth0"
# Seconds; everything that is waited for has come within a tenth of it on an idle machine.
PATIENCE = 300.0
# Connections of their own: one that is kept and shared does not survive a reboot.
SSH = ["ssh", "-F", str(LAB_DIR / "ssh_config"), "-o", "ControlMaster=no", "-o", "ControlPath=none"]
SSH += ["-o", "ConnectTimeout=10"]
PROGRAM = Path(__file__).with_name("capture_program.py")


def ssh(node: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script on a node."""
    return subprocess.run(
        [*SSH, node, script],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def ask(node: str, script: str) -> str:
    """Standard output of a script that must succeed."""
    done = ssh(node, script)
    assert done.returncode == 0, f"{script} on {node}: {done.stderr}"
    return done.stdout.strip()


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> float:
    """Poll; return the seconds that it took. Fail with `what` when the time is over."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + seconds, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.5)
    return time.monotonic() - start


def probe(node: str, address: str, path: str) -> dict[str, Any]:
    """Ask the pod with that address, which runs on the node; an empty answer when it does not answer."""
    done = ssh(node, f"curl -sS --max-time 20 'http://{address}:{PROBE_PORT}{path}'")
    answer: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    return answer


def exchange(pods: dict[str, str]) -> bool:
    """Whether ICMP and TCP work between the pods of all nodes, in both directions and without translation."""
    return all(
        probe(node, address, f"/icmp?host={other}&seconds=5").get("outcome") == "reply"
        and probe(node, address, f"/fetch?host={other}&port={PROBE_PORT}&seconds=5")
        .get("answer", {})
        .get("client")
        == address
        for node, address in pods.items()
        for other in pods.values()
        if other != address
    )


def namespace_of(node: str, address: str) -> str:
    """Name of the network namespace (under /run/netns) of the pod with that address."""
    holds = f"ip -n $name -o -4 address show | grep -qF ' {address}/'"
    found = ask(node, f"for name in $(ls /run/netns); do {holds} && echo $name; done; true").split()
    assert len(found) == 1, f"{address} on {node}: {found}"
    return found[0]


def boot_id(node: str) -> str:
    """Changes with every boot; empty when the node does not answer."""
    return ssh(node, "cat /proc/sys/kernel/random/boot_id").stdout.strip()


def cable(node: str, state: str) -> None:
    """Plug the machine's cable in (`on`) or out (`off`): QEMU's monitor takes the carrier from its link."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as monitor:
        monitor.settimeout(30)
        monitor.connect(f"/run/tortie-lab/{LAB_NAME}/monitor-{node}")
        _prompt(monitor)
        monitor.sendall(f"set_link link {state}\n".encode())
        said = _prompt(monitor)
        assert "Error" not in said, said


def _prompt(monitor: socket.socket) -> str:
    said = b""
    while not said.endswith(b"(qemu) "):
        chunk = monitor.recv(4096)
        assert chunk, f"QEMU's monitor ended: {said!r}"
        said += chunk
    return said.decode(errors="replace")


class Remote:
    """A program on a node that runs until its standard input ends; its lines are handed to `read`."""

    def __init__(self, node: str, script: str, read: Callable[[str], None]) -> None:
        self._command = [*SSH, node, script]
        self._read = read

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read_all)
        self._reader.start()
        return self

    def _read_all(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._read(line)

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            # The machine is away: only the end here is left to end.
            self._process.kill()
            self._process.wait()
        self._reader.join()


class Capture(Remote):
    """IPv4 packets on a node's uplink that carry one of some addresses: their headers, outermost first."""

    def __init__(self, node: str, addresses: list[str]) -> None:
        arguments = ["python3", "-u", "-c", PROGRAM.read_text(), LINK, *addresses]
        super().__init__(node, shlex.join(arguments), self._take)
        self.packets: list[list[dict[str, Any]]] = []
        self._said: list[str] = []

    def _take(self, line: str) -> None:
        try:
            value = json.loads(line)
        except ValueError:
            value = line
        if isinstance(value, list):
            self.packets.append(value)
        else:
            self._said.append(value)

    def __enter__(self) -> Self:
        super().__enter__()
        until(lambda: bool(self._said), "the capture's first line", 60)
        assert self._said[0] == "ready", "".join(self._said)
        return self

    def paths(self) -> set[tuple[tuple[str, str, int], ...]]:
        """Source, destination and protocol by layer; 0 for the innermost protocol, which is the pods' own."""
        return {
            tuple(
                (layer["source"], layer["destination"], layer["protocol"] if layer is not packet[-1] else 0)
                for layer in packet
            )
            for packet in list(self.packets)
        }


class Ping(Remote):
    """A ping from a pod, five packets a second, until the context ends."""

    INTERVAL = 0.2  # seconds: the least that ping allows everybody

    def __init__(self, node: str, namespace: str, address: str) -> None:
        ping = f"ip netns exec {namespace} ping -n -i {self.INTERVAL} {address}"
        super().__init__(node, f"{ping} & p=$!; cat > /dev/null; kill -INT $p; wait $p", self._take)
        self._answered: set[int] = set()

    def _take(self, line: str) -> None:
        reply = re.search(r"bytes from .* icmp_seq=(\d+) ", line)
        if reply:
            self._answered.add(int(reply[1]))

    @property
    def last(self) -> int:
        """Number of the last packet that was answered."""
        return max(self._answered.copy(), default=0)

    @property
    def lost(self) -> int:
        """Packets without an answer, among those sent before the last one that was answered."""
        return self.last - len(self._answered)

    def goes_on(self, packets: int = 10) -> float:
        """Wait until further packets are answered; the seconds that it took."""
        wanted = self.last + packets
        return until(lambda: self.last >= wanted, f"the ping's packet {wanted}")
