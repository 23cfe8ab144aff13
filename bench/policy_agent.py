"""Policy through the whole agent: from the watch event's bytes to the kernel's ruleset.

A real API server with 1,000 pods of this node and 1,000 policies, and the agent as it is deployed, in a
process and a network namespace of its own. The clock of a change starts when the bytes of its watch event are
handed to the agent's socket, by a relay between it and the API server; it stops when the kernel says that a
new generation of the rules is in use (NFT_MSG_NEWGEN). Both are seen from outside, by this process; the
agent's own notes only tell how the time in between is shared out. Changes come alone, at varying distances.
"""

import contextlib
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tests.components import apiserver
from tests.components.apiserver import ApiServer
from tests.integration.agent.cluster import (
    CalicoNode,
    agent_kubeconfig,
    install_rights,
    merge_patch,
    register,
)
from tests.integration.bgp.nodes import Machine, eventually, machines

from bench.measurement import Measurement
from bench.policy_agent_node import Note, read_notes
from tortie.cni import shim
from tortie.dataplane import netns
from tortie.dataplane.netlink import SO_RCVBUFFORCE, SOL_NETLINK
from tortie.dataplane.nfnetlink import NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES

ROOT: Final = Path(__file__).parents[1]
# Nodes by name: the one that is measured, and one with as many pods as kubelet takes by default.
BIG, SMALL = "tp-big", "tp-small"
ENDPOINTS: Final = {BIG: 1_000, SMALL: 110}
ADDRESSES: Final = {BIG: "10.30.200.1", SMALL: "10.30.200.2"}
POLICIES: Final = 1_000
CHANGES: Final = 200
WARM_UP: Final = 5
ADDS: Final = 40
STARTS: Final = 3
PAUSE: Final = (0.03, 0.15)  # seconds between changes
_FIRST: Final = int(IPv4Address("10.5.0.0"))
_POLICIES: Final = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
_PODS: Final = "/api/v1/namespaces/default/pods"
_PATIENCE: Final = 60.0  # seconds
_READ: Final = 1 << 18  # bytes
_BUFFER: Final = 64 << 20  # bytes: a start's notifications
# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NFNLGRP_NFTABLES: Final = 7
_NFT_MSG_NEWGEN: Final = 15


class Relay:
    """Carries bytes between the agent and the API server, and notes when it hands some to the agent."""

    def __init__(self, listener: socket.socket, port: int) -> None:
        self.handed: list[float] = []
        self._listener, self._port = listener, port
        self._start(self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                agent, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                for end in (agent, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._start(partial(self._pump, agent, server, note=False))
                self._start(partial(self._pump, server, agent, note=True))

    def _pump(self, source: socket.socket, target: socket.socket, *, note: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_READ):
                if note:
                    self.handed.append(time.monotonic())
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _start(work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True).start()


class Commits:
    """Notes when the kernel of a namespace takes new generations of its rules into use."""

    def __init__(self, room: socket.socket) -> None:
        self.seen: list[float] = []
        self._socket = room
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                data = self._socket.recv(_READ)
                now = time.monotonic()
                offset = 0
                while offset + 16 <= len(data):
                    length = int.from_bytes(data[offset : offset + 4], "little")
                    kind = int.from_bytes(data[offset + 4 : offset + 6], "little")
                    if kind == NFNL_SUBSYS_NFTABLES << 8 | _NFT_MSG_NEWGEN:
                        self.seen.append(now)
                    offset += max(length + -length % 4, 16)


@dataclass
class Node:
    """A node's agent with what watches it."""

    calico: CalicoNode
    relay: Relay
    commits: Commits

    @property
    def times(self) -> Path:
        return self.calico.directory / "times"

    def start(self) -> float:
        """Start the agent's process; seconds until all policy is in force."""
        self.times.unlink(missing_ok=True)
        began = time.monotonic()
        self.calico.start("bench.policy_agent_node")
        note: Note = eventually("policy", lambda: next(iter(read_notes(self.times)), None))
        self.calico.wait_until_ready()
        return note.ended - began

    def stop(self) -> None:
        assert self.calico.process is not None
        self.calico.process.terminate()
        self.calico.process.wait()

    def starved(self) -> float:
        """Milliseconds that the agent's threads were ready to run and had no processor, so far (proc(5):
        schedstat, the second field, nanoseconds)."""
        assert self.calico.process is not None
        total = 0
        for task in Path(f"/proc/{self.calico.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[1])
        return total / 1e6


@dataclass(frozen=True, slots=True)
class Change:
    """Milliseconds of one change of policy: all of it, its stages, the policy thread's processor time, and
    how long the agent's threads waited for a processor meanwhile."""

    total: float
    decode: float
    hand_over: float
    compute: float
    commit: float
    processor: float
    starved: float


@dataclass(frozen=True, slots=True)
class Add:
    """Milliseconds that an ADD waited for policy, and of processor time that its policy took."""

    waited: float
    processor: float


@dataclass(slots=True)
class Samples:
    """Seconds of each start, each change, and by node each ADD."""

    starts: list[float] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    adds: dict[str, list[Add]] = field(default_factory=dict)


# --- what is in the cluster -----------------------------------------------------------------------------


def _pod(node: str, number: int) -> dict[str, Any]:
    address = str(IPv4Address(_FIRST + 0x8000 + number + (ENDPOINTS[BIG] if node == SMALL else 0)))
    return {
        "metadata": {
            "name": f"{node}-{number}",
            "labels": {"app": f"app-{number % 100}"},
            "annotations": {"cni.projectcalico.org/podIP": f"{address}/32"},
        },
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "none"}]},
    }


def _policy(number: int) -> dict[str, Any]:
    """For the ten pods of one application, from those of another."""
    app = {"matchLabels": {"app": f"app-{number % 100}"}}
    spec = {"podSelector": app, "policyTypes": ["Ingress"], "ingress": [_rule(number // 100 * 7 % 100)]}
    return {"metadata": {"name": f"policy-{number}"}, "spec": spec}


def _rule(app: int) -> dict[str, Any]:
    return {"from": [{"podSelector": {"matchLabels": {"app": f"app-{app}"}}}]}


def _populate(api: ApiServer) -> None:
    objects = [(_PODS, _pod(node, number)) for node, count in ENDPOINTS.items() for number in range(count)]
    objects += [(_POLICIES, _policy(number)) for number in range(POLICIES)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: api.request("POST", *item), objects))


# --- measuring ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _nodes(api: ApiServer, directory: Path) -> Iterator[dict[str, Node]]:
    """Registered nodes, no agent started yet."""
    install_rights(api)
    settings = {
        "CALICO_IPV4POOL_CIDR": "10.5.0.0/16",
        "CALICO_NETWORKING_BACKEND": "none",
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
    }
    with contextlib.ExitStack() as stack:
        made = {}
        for name, machine in stack.enter_context(machines(ADDRESSES)).items():
            home = directory / name
            home.mkdir()
            (home / "calico").write_bytes(Path(shim.__file__).read_bytes())
            agent_kubeconfig(api, home)
            register(api, name, machine.address)
            listener, room = _sockets(machine, api.port)
            for end in (listener, room):
                stack.callback(end.close)
            calico = CalicoNode(machine, home, api, settings | {"BENCH_TIMES": str(home / "times")})
            stack.callback(calico.stack.close)
            made[name] = Node(calico, Relay(listener, api.port), Commits(room))
        yield made


def _sockets(machine: Machine, port: int) -> tuple[socket.socket, socket.socket]:
    """In the machine's namespace: where the agent finds the API server, and where the kernel tells of
    rules."""
    with Path(machine.net.path).open("rb") as handle, netns.entered(handle.fileno()):
        listener = socket.create_server(("127.0.0.1", port))
        room = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        room.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER)
        room.bind((0, 0))
        room.setsockopt(SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
    return listener, room


def _until(what: str, probe: Callable[[], bool]) -> None:
    """Look every millisecond: both ends of a measurement are noted by others."""
    deadline = time.monotonic() + _PATIENCE
    while not probe():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {_PATIENCE:.0f} s")
        time.sleep(0.001)


def _change(api: ApiServer, node: Node, number: int) -> Change:
    """A policy allows another application: ten endpoints are concerned, one set goes and another comes."""
    handed, seen = len(node.relay.handed), len(node.commits.seen)
    starved = node.starved()
    spec = {"spec": {"ingress": [_rule(10 + number * 13 % 90)]}}
    merge_patch(api, f"{_POLICIES}/policy-{number}", spec)
    _until("the change", lambda: len(node.commits.seen) > seen)
    starved = node.starved() - starved
    begin, end = node.relay.handed[handed], node.commits.seen[seen]

    def ours() -> list[Note]:
        return [note for note in read_notes(node.times) if note.noticed >= begin]

    _until("the agent's note", lambda: bool(ours()))
    note = ours()[0]
    return Change(
        total=(end - begin) * 1e3,
        decode=(note.noticed - begin) * 1e3,
        hand_over=(note.began - note.noticed) * 1e3,
        compute=(note.computed - note.began) * 1e3,
        commit=(end - note.computed) * 1e3,
        processor=note.processor * 1e3,
        starved=starved,
    )


def _changes(api: ApiServer, node: Node) -> list[Change]:
    first, last = PAUSE
    found = []
    for number in range(WARM_UP + CHANGES):
        time.sleep(first + (last - first) * (number * 0.618 % 1))  # evenly spread, and out of step with all
        found.append(_change(api, node, number))
    return found[WARM_UP:]


def _adds(node: Node) -> list[Add]:
    """What ADDs by the real plugin wait for: new endpoints that ten policies apply to."""
    with contextlib.ExitStack() as stack:
        for number in range(ADDS):
            labels = {"app": f"app-{number}"}
            stack.enter_context(node.calico.pod(f"{node.calico.machine.name}-new-{number}", labels=labels))
        notes = read_notes(node.times)
    return [
        Add((note.ended - note.noticed) * 1e3, change.processor * 1e3)
        for change, note in pairwise(notes)
        if note.waited and not change.waited
    ]


def _measure(directory: Path) -> Samples:
    samples = Samples()
    (directory / "api").mkdir()
    with apiserver.running(directory / "api") as api, _nodes(api, directory) as nodes:
        _populate(api)
        big, small = nodes[BIG], nodes[SMALL]
        for number in range(STARTS):
            samples.starts.append(big.start())
            if number + 1 < STARTS:
                big.stop()
        samples.changes = _changes(api, big)
        samples.adds[BIG] = _adds(big)
        big.stop()
        small.start()
        samples.adds[SMALL] = _adds(small)
    return samples


# --- what is reported -----------------------------------------------------------------------------------

_STAGES: Final = {
    "decode": "from the bytes to the decoded event",
    "hand_over": "until the policy thread has it",
    "compute": "what it changes, computed",
    "commit": "rules written and committed",
    "processor": "processor time of the policy thread",
    "starved": "the agent's threads ready, without a processor",
}


def _percentile(samples: Sequence[float], hundredth: int) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, len(ordered) * hundredth // 100)]


def _profile(changes: Sequence[Change]) -> str:
    """Where the time goes: of all changes, and of the slowest ones."""
    slow = [item for item in changes if item.total >= _percentile([one.total for one in changes], 99)]
    parts = []
    for name, what in _STAGES.items():
        values = [float(getattr(item, name)) for item in changes]
        worst = statistics.mean(float(getattr(item, name)) for item in slow)
        parts.append(f"{what} {_percentile(values, 50):.1f}, {_percentile(values, 99):.1f}, {worst:.1f}")
    return "ms (p50, p99, mean of the slowest changes): " + "; ".join(parts)


def measure() -> list[Measurement]:
    """Needs root."""
    with tempfile.TemporaryDirectory() as name:
        samples = _measure(Path(name))
    totals = [item.total for item in samples.changes]
    lines = [
        Measurement(
            name="agent: process started to policy in force, 1,000 endpoints and 1,000 policies",
            unit="s",
            ours=statistics.median(samples.starts),
            limit=3.0,
            samples=STARTS,
        ),
        Measurement(
            name="agent: one policy change in force, 1,000 local endpoints, p99",
            unit="ms",
            ours=_percentile(totals, 99),
            limit=20.0,
            samples=CHANGES,
            explanation=_profile(samples.changes),
        ),
        Measurement(
            name="agent: one policy change in force, 1,000 local endpoints, p50",
            unit="ms",
            ours=_percentile(totals, 50),
            samples=CHANGES,
        ),
    ]
    for stage in ("decode", "hand_over", "compute", "commit", "processor"):
        values = [float(getattr(item, stage)) for item in samples.changes]
        lines += [
            Measurement(
                name=f"agent: one policy change, {_STAGES[stage]}, p{hundredth}",
                unit="ms",
                ours=_percentile(values, hundredth),
                samples=CHANGES,
            )
            for hundredth in (50, 99)
        ]
    for node, adds in samples.adds.items():
        waits: list[tuple[str, list[float]]] = [
            ("an ADD's wait for policy", [item.waited for item in adds]),
            ("processor time of an ADD's policy", [item.processor for item in adds]),
        ]
        lines += [
            Measurement(
                name=f"agent: {what}, {ENDPOINTS[node]:,} local endpoints, p50",
                unit="ms",
                ours=statistics.median(values),
                samples=len(values),
            )
            for what, values in waits
        ]
    return lines


def main() -> None:
    """Print the measurements."""
    for item in measure():
        limit = f" (at most {item.limit:g})" if item.limit else ""
        print(f"{item.name}: {item.ours:.2f} {item.unit}{limit}")
        if item.explanation:
            print("   ", item.explanation)


if __name__ == "__main__":
    main()
