"""10,000 routes: `Dataplane.apply` against `ip -batch`, in turns, in a network namespace of our own.

`apply` does more than `ip`: it reads the kernel first, compares, and says what it did.
"""

import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Final

from bench.measurement import Measurement
from tortie.dataplane import netns
from tortie.dataplane.apply import Dataplane
from tortie.model.nodeinfo import BGPNode
from tortie.routing.compute import Cluster, compute
from tortie.routing.pools import BlockClaim, Pool
from tortie.routing.state import HostLink, NodeState, Route

ROUTES: Final = 10_000
ROUNDS: Final = 7
DEVICE: Final = "wire0"
GATEWAY: Final = IPv4Address("192.0.2.2")
_FIRST_BLOCK: Final = int(IPv4Address("10.0.0.0"))
_BLOCK_SIZE: Final = 64  # addresses of a /26
_NODES: Final = 1_000


@contextmanager
def _namespace() -> Iterator[str]:
    """A named network namespace with a device that is up; both are gone afterwards."""
    name = f"tG-bench-{threading.get_native_id()}"
    commands = [
        f"link add {DEVICE} type veth peer name {DEVICE}p",
        f"address add 192.0.2.1/24 dev {DEVICE}",
        f"link set {DEVICE} up",
        f"link set {DEVICE}p up",
        "link set lo up",
    ]
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in commands:
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def _inside(name: str, work: Callable[[], None]) -> None:
    """Run `work` in a thread that lives in the namespace; raise what it raises."""
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            with Path(f"/run/netns/{name}").open("rb") as handle:
                netns.setns(handle.fileno())
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def _block(number: int) -> IPv4Network:
    return IPv4Network((_FIRST_BLOCK + number * _BLOCK_SIZE, 26))


def _desired() -> NodeState:
    routes = (Route(_block(number), device=DEVICE, gateway=GATEWAY, onlink=True) for number in range(ROUTES))
    return NodeState(routes=frozenset(routes))


def _batch() -> bytes:
    lines = (
        f"route add {_block(number)} via {GATEWAY} dev {DEVICE} onlink proto 80" for number in range(ROUTES)
    )
    return "\n".join(lines).encode()


@dataclass(slots=True)
class _Samples:
    """Milliseconds of each round."""

    apply: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    check: list[float] = field(default_factory=list)


def _clear(name: str) -> None:
    subprocess.run(["ip", "-n", name, "route", "flush", "proto", "80"], check=True)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def _count(name: str) -> int:
    shown = subprocess.run(
        ["ip", "-n", name, "route", "show", "proto", "80"], check=True, capture_output=True
    )
    return shown.stdout.count(b"\n")


def _rounds(name: str) -> _Samples:
    state, batch, dataplane = _desired(), _batch(), Dataplane()
    samples = _Samples()
    dataplane.apply(NodeState())  # forwarding and tables, once
    for _ in range(ROUNDS):
        _clear(name)
        samples.apply.append(_timed(lambda: dataplane.apply(state)))
        if _count(name) != ROUTES:
            raise AssertionError(f"apply left {_count(name)} routes, not {ROUTES}")
        samples.check.append(_timed(lambda: dataplane.apply(state)))
        _clear(name)
        samples.batch.append(
            _timed(lambda: subprocess.run(["ip", "-n", name, "-batch", "-"], input=batch, check=True))
        )
        if _count(name) != ROUTES:
            raise AssertionError(f"ip -batch left {_count(name)} routes, not {ROUTES}")
    _clear(name)
    return samples


def _compute_milliseconds() -> list[float]:
    """From the parsed cluster to the desired state: 1,000 nodes with ten blocks each."""
    nodes = tuple(
        BGPNode(
            name=f"n{number}",
            ipv4=IPv4Interface((int(IPv4Address("172.16.0.1")) + number, 16)),
            vxlan_tunnel=_block(number * 10).network_address,
            vxlan_mac=f"66:00:00:00:{number // 256:02x}:{number % 256:02x}",
        )
        for number in range(_NODES)
    )
    claims = tuple(BlockClaim(_block(number), f"n{number // 10}") for number in range(ROUTES))
    cluster = Cluster(nodes, (Pool(IPv4Network("10.0.0.0/8"), vxlan="Always"),), claims)
    link = HostLink("eth0", 2, 1500, IPv4Interface("172.16.0.1/16"))
    return [_timed(lambda: compute(nodes[0], link, cluster, 0)) for _ in range(ROUNDS)]


def measure() -> list[Measurement]:
    """Needs root."""
    samples = _Samples()

    def work() -> None:
        nonlocal samples
        samples = _rounds(name)

    with _namespace() as name:
        _inside(name, work)
    return [
        Measurement(
            name="10k routes programmed",
            unit="ms",
            ours=statistics.median(samples.apply),
            peer_name="ip -batch",
            peer=statistics.median(samples.batch),
            wanted=0.5,
            samples=ROUNDS,
        ),
        Measurement(
            name="10k routes read and compared, nothing to do",
            unit="ms",
            ours=statistics.median(samples.check),
            samples=ROUNDS,
        ),
        Measurement(
            name="10k routes computed from 1,000 nodes",
            unit="ms",
            ours=statistics.median(_compute_milliseconds()),
            samples=ROUNDS,
        ),
    ]


def main() -> None:
    """Print the measurements."""
    for item in measure():
        peer = f", {item.peer_name} {item.peer:.0f} {item.unit}, ratio {item.ratio:.2f}" if item.peer else ""
        print(f"{item.name}: {item.ours:.0f} {item.unit}{peer}")


if __name__ == "__main__":
    main()
