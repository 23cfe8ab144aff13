"""Network namespaces that stand for machines: two subnets and a router between them.

Nothing of the machine's own network is touched: namespaces have no names, and vanish with the process that
holds them, as do the links within.
"""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.components.carrier import wait_for_carrier
from tests.components.processes import daemon

T = TypeVar("T")

PATIENCE = 60.0  # seconds; generous, for the machine may be busy
_POLL = 0.1


def eventually(what: str, probe: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """The first true answer of `probe`; AssertionError when there is none in time."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        answer = probe()
        if answer:
            return answer
        time.sleep(_POLL)
    raise AssertionError(f"{what}: not within {patience:.0f} s")


@dataclass(frozen=True)
class Namespace:
    """A network namespace, held by a sleeping process."""

    pid: int

    @property
    def path(self) -> str:
        """What CNI_NETNS would be."""
        return f"/proc/{self.pid}/ns/net"

    def command(self, *words: str | Path) -> list[str]:
        """`words` as a command that runs in here."""
        return ["nsenter", f"--net={self.path}", "--", *(str(word) for word in words)]

    def run(self, *words: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in here."""
        command = self.command(*words)
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)
        if check and result.returncode:
            raise AssertionError(f"{' '.join(command)}: {result.stdout}{result.stderr}")
        return result

    def ip(self, *words: str) -> str:
        """Run ip(8)."""
        return self.run("ip", *words).stdout

    def routes(self, *selector: str) -> list[dict[str, Any]]:
        """Routes of the main table as ip(8) shows them."""
        routes: list[dict[str, Any]] = json.loads(self.ip("-j", "route", "show", *selector) or "[]")
        return routes

    def write(self, path: str, content: str) -> None:
        """Write a file of /proc/sys/net as it is in here."""
        self.run("tee", path, input=content)


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """A new namespace with its loopback up."""
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--net", "sleep", "infinity"],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ) as holder:
        try:
            outside = Path("/proc/self/ns/net").readlink()
            # unshare and sleep are the same process: it has left our namespace before it is sleep.
            eventually(
                "a new namespace",
                lambda: _is_sleep(holder.pid) and Path(f"/proc/{holder.pid}/ns/net").readlink() != outside,
            )
            made = Namespace(holder.pid)
            made.ip("link", "set", "lo", "up")
            yield made
        finally:
            holder.kill()


def _is_sleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().strip() == "sleep"


@dataclass(frozen=True)
class Machine:
    """A node: `eth0` with its address, a default route to the router."""

    name: str
    address: str
    net: Namespace


def _plug(machine: Namespace, router: Namespace, bridge: str, port: str, address: str, gateway: str) -> None:
    machine.ip("link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", str(router.pid))
    router.ip("link", "set", port, "master", bridge, "up")
    machine.ip("address", "add", f"{address}/24", "dev", "eth0")
    machine.ip("link", "set", "eth0", "up")
    machine.ip("route", "add", "default", "via", gateway)
    wait_for_carrier(machine.ip, "eth0")
    wait_for_carrier(router.ip, port, bridge)


@contextlib.contextmanager
def machines(addresses: Mapping[str, str]) -> Iterator[dict[str, Machine]]:
    """Machines by name; `addresses` are in 10.30.200.0/24 or 10.30.201.0/24, which a router joins."""
    with contextlib.ExitStack() as stack:
        router = stack.enter_context(namespace())
        for subnet in ("200", "201"):
            router.ip("link", "add", f"br{subnet}", "type", "bridge")
            router.ip("address", "add", f"10.30.{subnet}.254/24", "dev", f"br{subnet}")
            router.ip("link", "set", f"br{subnet}", "up")
        router.write("/proc/sys/net/ipv4/ip_forward", "1")
        made: dict[str, Machine] = {}
        for number, (name, address) in enumerate(addresses.items()):
            net = stack.enter_context(namespace())
            subnet = address.split(".")[2]
            _plug(net, router, f"br{subnet}", f"p{number}", address, f"10.30.{subnet}.254")
            made[name] = Machine(name, address, net)
        yield made


@contextlib.contextmanager
def running(
    machine: Machine, words: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon in a machine. `environment` is added to ours."""
    settings = [f"{key}={value}" for key, value in (environment or {}).items()]
    with daemon(machine.net.command("env", *settings, *words), log) as process:
        yield process
