"""Policy in the kernel: loads and changes against iptables doing the same work, and what packets pay.

The peer's rules are written the way Felix writes them for iptables, without the comment that Felix puts on
every rule. Each policy allows the members of one set to one port. The peer's sets are ipsets, as Felix makes
them, which `ipset restore` loads before iptables-restore loads the rules that name them; ours are loaded with
the rules. Everything runs in network namespaces of its own.
"""

import os
import resource
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import ParamSpec

from bench.measurement import Measurement
from tortie.dataplane import netns
from tortie.dataplane.policy import PolicyDataplane
from tortie.dataplane.ruleset import Ruleset
from tortie.policy.state import (
    Action,
    Peer,
    PolicyDelta,
    PolicyKey,
    PolicyRules,
    PolicyState,
    Rule,
    SetID,
    SetKind,
    TierRules,
    WorkloadRules,
)

PROFILE = PolicyKey("Profile", "kns.bench")
SHARED = 20  # policies that each apply to many endpoints
P = ParamSpec("P")
MEMBERS = 1  # addresses per set
TCP = 6
FULL_SAMPLES = 5
CHANGE_SAMPLES = 200
ADD_SAMPLES = 40
PEER_SAMPLES = 8
PACKET_ROUNDS = 12
PACKET_SECONDS = 0.4
ALLOW_ALL = PolicyRules((Rule(Action.ALLOW),), (Rule(Action.ALLOW),))


def measure() -> list[Measurement]:
    """All of it: about two minutes."""
    return [*full_load(), *one_policy(), *one_endpoint(), *packets()]


@contextmanager
def namespace(name: str) -> Iterator[int]:
    """A network namespace of ours; the descriptor keeps it alive."""
    full = _full_name(name)
    _run("ip", "netns", "add", full)
    descriptor = os.open(Path("/run/netns") / full, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        _run("ip", "netns", "del", full)


def _full_name(name: str) -> str:
    return f"tE-bench-{os.getpid()}-{name}"


def _run(*command: str, text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")


def _milliseconds(action: Callable[P, object], *arguments: P.args, **options: P.kwargs) -> float:
    begin = time.perf_counter()
    action(*arguments, **options)
    return (time.perf_counter() - begin) * 1000


# --- the same work for both -----------------------------------------------------------------------------


def _policy(number: int) -> PolicyKey:
    return PolicyKey("NetworkPolicy", f"policy-{number}", "bench")


def _address(number: int) -> IPv4Network:
    return IPv4Network(0x0A000000 + 1 + number)


def _chosen(number: int, policies: int) -> list[int]:
    """The policies that apply to an endpoint: one almost of its own, and one of the shared ones."""
    return sorted({number % policies, number % SHARED})


def _workload(number: int, policies: int) -> WorkloadRules:
    tiers = (TierRules("default", tuple(_policy(item) for item in _chosen(number, policies))),)
    return WorkloadRules(f"cali{number:011d}", (_address(number),), tiers=tiers, profiles=(PROFILE,))


def _rules(number: int, port: int = 80) -> PolicyRules:
    peer = Peer(sets=(SetID(f"set-{number}"),))
    return PolicyRules(
        (Rule(Action.ALLOW, protocol=TCP, source=peer, destination=Peer(ports=((port, port),))),)
    )


def _state(endpoints: int, policies: int) -> PolicyState:
    return PolicyState(
        sets={
            SetID(f"set-{number}"): (
                SetKind.NETWORKS,
                frozenset(_address(number * MEMBERS + member) for member in range(MEMBERS)),
            )
            for number in range(policies)
        },
        policies={PROFILE: ALLOW_ALL} | {_policy(number): _rules(number) for number in range(policies)},
        workloads={item.interface: item for item in (_workload(n, policies) for n in range(endpoints))},
    )


def _iptables_endpoint(number: int, policies: int) -> tuple[list[str], list[str]]:
    """Chains and rules of one endpoint as Felix writes them."""
    name = f"{number:011d}"
    chains = [f":cali-tw-{name} - [0:0]", f":cali-fw-{name} - [0:0]"]
    accepted = "-m mark --mark 0x10000/0x10000 -j RETURN"
    head = (
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-m conntrack --ctstate INVALID -j DROP",
        "-j MARK --set-xmark 0x0/0x30000",
    )
    profile = ("-j cali-pri-bench", accepted, "-j DROP")
    tier = [
        line
        for policy in _chosen(number, policies)
        for line in (f"-m mark --mark 0x0/0x20000 -j cali-pi-{policy}", accepted)
    ]
    to = (*head, *tier, "-m mark --mark 0x0/0x20000 -j DROP", *profile)
    out = (*head, "-p udp -m udp --dport 4789 -j DROP", "-p 4 -j DROP", *profile)
    rules = [f"-A cali-tw-{name} {line}" for line in to] + [f"-A cali-fw-{name} {line}" for line in out]
    return chains, [
        *rules,
        f"-A cali-to-wl-dispatch -o cali{name} -g cali-tw-{name}",
        f"-A cali-from-wl-dispatch -i cali{name} -g cali-fw-{name}",
    ]


def _iptables(endpoints: int, policies: int) -> str:
    chains = [":cali-to-wl-dispatch - [0:0]", ":cali-from-wl-dispatch - [0:0]", ":cali-pri-bench - [0:0]"]
    rules = ["-A cali-pri-bench -j MARK --set-xmark 0x10000/0x10000"]
    for number in range(policies):
        chains.append(f":cali-pi-{number} - [0:0]")
        match = f"-p tcp -m set --match-set {_ipset(number)} src -m tcp --dport 80"
        rules.append(f"-A cali-pi-{number} {match} -j MARK --set-xmark 0x10000/0x10000")
        rules.append(f"-A cali-pi-{number} -m mark --mark 0x10000/0x10000 -j RETURN")
    for number in range(endpoints):
        more_chains, more_rules = _iptables_endpoint(number, policies)
        chains += more_chains
        rules += more_rules
    rules += [
        "-A FORWARD -i cali+ -j cali-from-wl-dispatch",
        "-A FORWARD -o cali+ -j cali-to-wl-dispatch",
    ]
    return "\n".join(["*filter", *chains, *rules, "COMMIT", ""])


def _ipset(number: int) -> str:
    return f"cali40s-{number:019d}"


def _ipsets(policies: int) -> str:
    """All sets with their members, as Felix makes them; those of the last load are emptied first."""
    lines = []
    for number in range(policies):
        lines.append(f"create {_ipset(number)} hash:net family inet maxelem 1048576")
        lines.append(f"flush {_ipset(number)}")
        lines += [f"add {_ipset(number)} {_address(number * MEMBERS + item)}" for item in range(MEMBERS)]
    return "\n".join([*lines, ""])


def _restore_sets(sets: str) -> None:
    _run("ipset", "restore", "-exist", text=sets)


def _iptables_change(number: int, policies: int, *, add: bool) -> str:
    chains, rules = _iptables_endpoint(number, policies)
    if add:
        return "\n".join(["*filter", *chains, *rules, "COMMIT", ""])
    gone = [line.replace("-A ", "-D ", 1) for line in rules if "dispatch" in line]
    gone += [f"{command} {line.split()[0][1:]}" for line in chains for command in ("-F", "-X")]
    return "\n".join(["*filter", *gone, "COMMIT", ""])


PEERS = ("iptables-nft-restore", "iptables-legacy-restore")


# --- measurements ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """What one load took, in milliseconds: wall clock, and processor time outside and inside the kernel."""

    wall: float
    user: float
    kernel: float


def _load(action: Callable[[], object], who: int) -> Load:
    """Time an action; `who` is resource.RUSAGE_THREAD or, when it starts programs, RUSAGE_CHILDREN."""
    before = resource.getrusage(who)
    wall = _milliseconds(action)
    after = resource.getrusage(who)
    user, kernel = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Load(wall, user * 1000, kernel * 1000)


def _middle(loads: list[Load]) -> Load:
    """The median of each."""
    parts = ([item.wall for item in loads], [item.user for item in loads], [item.kernel for item in loads])
    return Load(*map(statistics.median, parts))


def full_load() -> list[Measurement]:
    """A table that is there is replaced by 1,000 endpoints and 1,000 policies with a set each."""
    state, sets, text = _state(1000, 1000), _ipsets(1000), _iptables(1000, 1000)
    ours: list[Load] = []
    ipsets: dict[str, list[Load]] = {name: [] for name in PEERS}
    rules: dict[str, list[Load]] = {name: [] for name in PEERS}
    with ExitStack() as stack:
        mine = stack.enter_context(namespace("full"))
        rooms = {name: stack.enter_context(namespace(name)) for name in PEERS}
        for _ in range(FULL_SAMPLES):
            restarted = PolicyDataplane()
            with netns.entered(mine):
                ours.append(_load(partial(restarted.sync, state), resource.RUSAGE_THREAD))
            for name, room in rooms.items():
                with netns.entered(room):
                    ipsets[name].append(_load(partial(_restore_sets, sets), resource.RUSAGE_CHILDREN))
                    rules[name].append(_load(partial(_run, name, "-w", text=text), resource.RUSAGE_CHILDREN))
    our, chains, elements = _middle(ours), *_content(state)
    return [
        Measurement(
            name="full load of 1,000 endpoints and 1,000 policies",
            unit="ms",
            ours=our.wall,
            peer_name=f"ipset restore and {name}",
            peer=statistics.median(a.wall + b.wall for a, b in zip(ipsets[name], rules[name], strict=True)),
            wanted=3.0,
            samples=FULL_SAMPLES,
            explanation="ours computes the rules from policy, reads what the table holds and replaces it by "
            f"{chains} chains and {elements} elements in one transaction: processor time {our.user:.0f} ms "
            f"of Python and {our.kernel:.0f} ms in the kernel. The peer reads finished text, a Felix without "
            f"its computing: 1,000 ipsets of {MEMBERS} member ({_middle(ipsets[name]).wall:.0f} ms), then "
            f"3,000 chains and {text.count('-A ')} rules, without the comments that Felix writes "
            f"({_middle(rules[name]).wall:.0f} ms; processor time of both "
            f"{_processor(ipsets[name], rules[name]):.0f} ms). Ours has every "
            "endpoint's addresses beside, against spoofing, where Felix has one rule",
        )
        for name in PEERS
    ]


def _processor(*parts: list[Load]) -> float:
    return sum(item.user + item.kernel for item in map(_middle, parts))


def _content(state: PolicyState) -> tuple[int, int]:
    """Chains and elements of our table."""
    ruleset = Ruleset()
    ruleset.load(state)
    return len(ruleset.chains), sum(map(len, ruleset.members.values()))


def _percentile(samples: list[float], share: float) -> float:
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * share))]


def one_policy() -> list[Measurement]:
    """A policy that applies to 50 of 1,000 endpoints changes, then one member of its set."""
    state = _state(1000, 1000)
    samples: list[float] = []
    with namespace("change") as room, netns.entered(room):
        dataplane = PolicyDataplane()
        dataplane.sync(state)
        for number in range(CHANGE_SAMPLES):
            delta = PolicyDelta(policies={_policy(3): _rules(3, 1000 + number)})
            samples.append(_milliseconds(dataplane.apply, delta))
    return [
        Measurement(
            name="one policy changed with 1,000 endpoints, p99",
            unit="ms",
            ours=_percentile(samples, 0.99),
            limit=20.0,
            samples=len(samples),
            explanation=f"the median is {statistics.median(samples):.1f} ms; the slowest wait "
            "for a processor on a busy machine",
        )
    ]


def one_endpoint() -> list[Measurement]:
    """One endpoint comes (and goes, which is not timed)."""
    found = []
    for count, limit in ((1000, 20.0), (5000, 30.0)):
        samples: list[float] = []
        theirs: list[float] = []
        legacy = "iptables-legacy-restore"
        with namespace("add") as mine, namespace("add-legacy") as room:
            dataplane = PolicyDataplane()
            with netns.entered(mine):
                dataplane.sync(_state(count, count))
            with netns.entered(room):
                _restore_sets(_ipsets(count))
                _run(legacy, "-w", text=_iptables(count, count))
            new = _workload(count, count)
            come = PolicyDelta(workloads={new.interface: new})
            go = PolicyDelta(gone_workloads=frozenset({new.interface}))
            add, gone = (_iptables_change(count, count, add=flag) for flag in (True, False))
            for number in range(ADD_SAMPLES):
                with netns.entered(mine):
                    samples.append(_milliseconds(dataplane.apply, come))
                    dataplane.apply(go)
                if number < PEER_SAMPLES:
                    with netns.entered(room):
                        theirs.append(_milliseconds(_run, legacy, "-w", "-n", text=add))
                        _run(legacy, "-w", "-n", text=gone)
        found.append(
            Measurement(
                name=f"one endpoint added to {count:,}",
                unit="ms",
                ours=statistics.median(samples),
                limit=limit,
                peer_name=legacy,
                peer=statistics.median(theirs),
                wanted=10.0,
                samples=ADD_SAMPLES,
                explanation="the table with its new endpoint is checked for loops of jumps by the kernel, "
                "which walks every chain that a map leads to (nft_table_validate): this grows with the "
                "endpoints, and at 5,000 it is three quarters of what the kernel does",
            )
        )
    return found


# --- packets --------------------------------------------------------------------------------------------


def packets() -> list[Measurement]:
    """Pod to pod through the node: 500 policies on the receiver against one, in turns."""
    rates: dict[int, list[float]] = {1: [], 500: []}
    delays: dict[int, list[float]] = {1: [], 500: []}
    with ExitStack() as stack:
        node, pods = _wire(stack)
        states = {count: _pair_state(count) for count in rates}
        stream = _stream(stack, pods)
        datagrams = _datagrams(stack, pods)
        dataplane = PolicyDataplane()
        for number in range(PACKET_ROUNDS):
            for count in (1, 500) if number % 2 else (500, 1):
                with netns.entered(node):
                    dataplane.sync(states[count])
                rates[count].append(_throughput(*stream))
                delays[count].append(_round_trip(*datagrams))
    return [
        Measurement(
            name="throughput pod to pod with 500 policies",
            unit="Gbit/s",
            better="higher",
            ours=statistics.median(rates[500]),
            peer_name="one policy",
            peer=statistics.median(rates[1]),
            wanted=0.95,
            samples=PACKET_ROUNDS,
        ),
        Measurement(
            name="round trip pod to pod with 500 policies",
            unit="us",
            ours=statistics.median(delays[500]),
            peer_name="one policy",
            peer=statistics.median(delays[1]),
            wanted=0.95,
            samples=PACKET_ROUNDS,
        ),
    ]


POD_ADDRESSES = ("10.0.0.1", "10.0.0.2")
ROUND_TRIPS = 1000
BUFFER_BYTES = 1 << 18


def _wire(stack: ExitStack) -> tuple[int, tuple[int, int]]:
    """A node and two pods, wired as the CNI plugin does."""
    node = stack.enter_context(namespace("node"))
    pods = (stack.enter_context(namespace("pod0")), stack.enter_context(namespace("pod1")))
    mac = "ee:ee:ee:ee:ee:ee"
    with netns.entered(node):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for number, (pod, address) in enumerate(zip(pods, POD_ADDRESSES, strict=True)):
            device = f"cali{number:011d}"
            own = f"02:00:00:00:00:0{number}"
            ends = ("type", "veth", "peer", "name", "eth0", "address", own)
            _run("ip", "link", "add", device, "address", mac, *ends, "netns", _full_name(f"pod{number}"))
            _run("ip", "link", "set", device, "up")
            _run("ip", "neigh", "add", address, "lladdr", own, "dev", device)
            _run("ip", "route", "add", address, "dev", device)
            with netns.entered(pod):
                _run("ip", "addr", "add", f"{address}/32", "dev", "eth0")
                _run("ip", "link", "set", "eth0", "up")
                _run("ip", "neigh", "add", "169.254.1.1", "lladdr", mac, "dev", "eth0")
                _run("ip", "route", "add", "169.254.1.1", "dev", "eth0")
                _run("ip", "route", "add", "default", "via", "169.254.1.1")
    return node, pods


def _pair_state(count: int) -> PolicyState:
    """Both endpoints with so many policies, of which the last allows."""
    state = _state(2, count)
    keys = tuple(_policy(number) for number in range(count))
    last = {keys[-1]: ALLOW_ALL}
    workloads = {
        name: replace(item, tiers=(TierRules("default", keys),)) for name, item in state.workloads.items()
    }
    return replace(state, policies={**state.policies, **last}, workloads=workloads)


def _stream(stack: ExitStack, pods: tuple[int, int]) -> tuple[socket.socket, socket.socket]:
    with netns.entered(pods[1]):
        server = stack.enter_context(socket.create_server((POD_ADDRESSES[1], 80)))
    with netns.entered(pods[0]):
        client = stack.enter_context(socket.create_connection((POD_ADDRESSES[1], 80), timeout=10))
    accepted, _ = server.accept()
    return client, stack.enter_context(accepted)


def _datagrams(stack: ExitStack, pods: tuple[int, int]) -> tuple[socket.socket, socket.socket]:
    ends = []
    for pod, address in zip(pods, POD_ADDRESSES, strict=True):
        with netns.entered(pod):
            end = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        end.settimeout(10)
        end.bind((address, 5000))
        ends.append(end)
    ends[0].connect((POD_ADDRESSES[1], 5000))
    ends[1].connect((POD_ADDRESSES[0], 5000))
    return ends[0], ends[1]


def _throughput(sender: socket.socket, receiver: socket.socket) -> float:
    """Gbit/s over PACKET_SECONDS."""
    stop = threading.Event()
    payload = bytes(BUFFER_BYTES)

    def send() -> None:
        while not stop.is_set():
            sender.sendall(payload)

    thread = threading.Thread(target=send)
    buffer = bytearray(BUFFER_BYTES)
    thread.start()
    begin = time.perf_counter()
    count = 0
    while time.perf_counter() - begin < PACKET_SECONDS:
        count += receiver.recv_into(buffer)
    seconds = time.perf_counter() - begin
    stop.set()
    receiver.settimeout(0.2)  # what is on its way, so that the sender ends
    while thread.is_alive():
        try:
            receiver.recv_into(buffer)
        except TimeoutError:
            continue
    receiver.settimeout(10)
    thread.join()
    return count * 8 / seconds / 1e9


def _round_trip(client: socket.socket, server: socket.socket) -> float:
    """Microseconds, median."""
    samples = []
    for _ in range(ROUND_TRIPS):
        begin = time.perf_counter()
        client.send(b"ping")
        server.send(server.recv(16))
        client.recv(16)
        samples.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(samples)


if __name__ == "__main__":
    for line in measure():
        print(line.name, f"{line.ours:.2f} {line.unit}", line.peer_name, line.peer, line.ratio, line.kept)
