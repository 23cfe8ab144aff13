"""Policy in the kernel: loads and changes against iptables doing the same work (bench/policy_workload.py),
and what packets pay (bench/policy_packets.py).

The peer's ipsets are loaded by `ipset restore` before iptables-restore loads the rules that name them; ours
are loaded with the rules. Everything runs in network namespaces of its own.
"""

import resource
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec

from bench.measurement import Measurement
from bench.policy_packets import packets
from bench.policy_workload import (
    MEMBERS,
    PEERS,
    ipsets_text,
    iptables_change,
    iptables_text,
    namespace,
    policy_key,
    policy_rules,
    policy_state,
    restore_sets,
    run,
    workload,
)
from tortie.dataplane import netns
from tortie.dataplane.policy import PolicyDataplane, SyncTimes
from tortie.dataplane.ruleset import Ruleset
from tortie.policy.state import PolicyDelta, PolicyState

P = ParamSpec("P")
FULL_SAMPLES = 9
CHANGE_SAMPLES = 200
ADD_SAMPLES = 40
PEER_SAMPLES = 8


def measure() -> list[Measurement]:
    """All of it: about two minutes."""
    return [*full_load(), *one_policy(), *one_endpoint(), *packets()]


def _milliseconds(action: Callable[P, object], *arguments: P.args, **options: P.kwargs) -> float:
    begin = time.perf_counter()
    action(*arguments, **options)
    return (time.perf_counter() - begin) * 1000


@dataclass(frozen=True, slots=True)
class Load:
    """What one load took, in milliseconds: wall clock, and processor time outside and inside the kernel.
    `rules` is the part of ours in which policy became the rules that the peer gets as finished text."""

    wall: float
    user: float
    kernel: float
    rules: float = 0.0


def _load(action: Callable[[], SyncTimes | None], who: int) -> Load:
    """Time an action; `who` is resource.RUSAGE_THREAD or, when it starts programs, RUSAGE_CHILDREN."""
    before, begin = resource.getrusage(who), time.perf_counter()
    took = action()
    wall, after = time.perf_counter() - begin, resource.getrusage(who)
    user, kernel = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Load(wall * 1000, user * 1000, kernel * 1000, took.rules * 1000 if took else 0.0)


def _middle(loads: list[Load]) -> Load:
    """The median of each."""
    parts = ("wall", "user", "kernel", "rules")
    return Load(*(statistics.median(getattr(item, part) for item in loads) for part in parts))


def full_load() -> list[Measurement]:
    """A table that is there is replaced by 1,000 endpoints and 1,000 policies with a set each."""
    state, sets, text = policy_state(1000, 1000), ipsets_text(1000), iptables_text(1000, 1000)
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
                    ipsets[name].append(_load(partial(restore_sets, sets), resource.RUSAGE_CHILDREN))
                    rules[name].append(_load(partial(run, name, "-w", text=text), resource.RUSAGE_CHILDREN))
    found = []
    for name in PEERS:
        theirs = statistics.median(a.wall + b.wall for a, b in zip(ipsets[name], rules[name], strict=True))
        found += _compared(name, ours, theirs, _work(state, text, ours, ipsets[name], rules[name]))
    return found


def _compared(name: str, ours: list[Load], theirs: float, explanation: str) -> list[Measurement]:
    """One peer's load against ours, once from what the peer begins with, once from policy."""
    what = "full load of 1,000 endpoints and 1,000 policies"
    peer_name = f"ipset restore and {name}"
    finished = statistics.median(item.wall - item.rules for item in ours)
    return [
        Measurement(
            name=f"{what}, from finished rules",
            unit="ms",
            ours=finished,
            peer_name=peer_name,
            peer=theirs,
            wanted=3.0,
            samples=FULL_SAMPLES,
            explanation=explanation,
        ),
        Measurement(
            name=f"{what}, ours from policy",
            unit="ms",
            ours=_middle(ours).wall,
            peer_name=f"{peer_name}, from finished rules",
            peer=theirs,
            samples=FULL_SAMPLES,
            explanation="not equivalent work: ours has to find out and write the rules, which for the peer a "
            "Felix has done before the clock starts",
        ),
    ]


def _work(state: PolicyState, text: str, ours: list[Load], ipsets: list[Load], rules: list[Load]) -> str:
    """What both sides do, and where their time goes."""
    our, (chains, elements) = _middle(ours), _content(state)
    return (
        f"both replace what is there. Ours reads what the table holds, and replaces it by {chains} chains "
        f"and {elements} elements in one transaction; with the rules, which take {our.rules:.0f} ms, it has "
        f"{our.user:.0f} ms of processor time in Python and {our.kernel:.0f} ms in the kernel. The peer "
        f"reads 1,000 ipsets of {MEMBERS} member ({_middle(ipsets).wall:.0f} ms), then 3,000 chains and "
        f"{text.count('-A ')} rules, without the comments that Felix writes ({_middle(rules).wall:.0f} ms; "
        f"processor time of both {_processor(ipsets, rules):.0f} ms). Ours has every endpoint's addresses "
        "beside, against spoofing, where Felix has one rule"
    )


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
    state = policy_state(1000, 1000)
    samples: list[float] = []
    with namespace("change") as room, netns.entered(room):
        dataplane = PolicyDataplane()
        dataplane.sync(state)
        for number in range(CHANGE_SAMPLES):
            delta = PolicyDelta(policies={policy_key(3): policy_rules(3, 1000 + number)})
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
                dataplane.sync(policy_state(count, count))
            with netns.entered(room):
                restore_sets(ipsets_text(count))
                run(legacy, "-w", text=iptables_text(count, count))
            new = workload(count, count)
            come = PolicyDelta(workloads={new.interface: new})
            go = PolicyDelta(gone_workloads=frozenset({new.interface}))
            add, gone = (iptables_change(count, count, add=flag) for flag in (True, False))
            for number in range(ADD_SAMPLES):
                with netns.entered(mine):
                    samples.append(_milliseconds(dataplane.apply, come))
                    dataplane.apply(go)
                if number < PEER_SAMPLES:
                    with netns.entered(room):
                        theirs.append(_milliseconds(run, legacy, "-w", "-n", text=add))
                        run(legacy, "-w", "-n", text=gone)
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


if __name__ == "__main__":
    for line in measure():
        print(line.name, f"{line.ours:.2f} {line.unit}", line.peer_name, line.peer, line.ratio, line.kept)
