"""Connections hammered through the moments in which rules come and go: what policy closes, nothing passes.

Two programs in one pod knock without a pause, by TCP and by UDP, at another pod that policy closes. What
arrives there is counted. Each test also opens the pod at its end and sees that the hammering arrives then.
"""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.integration.dataplane.namespaces import Namespace
from tests.integration.dataplane.policy_lab import PORTS, TCP, UDP, LabPod, PolicyLab, plug, policy_lab
from tests.integration.dataplane.policy_states import CLOSED, FRIENDS, closed_state, open_state, workload
from tortie.dataplane.policy import PolicyDataplane
from tortie.policy.state import (
    Action,
    PolicyDelta,
    PolicyKey,
    PolicyRules,
    Rule,
)

pytestmark = pytest.mark.root

# New sockets all the time: each packet is the first of a connection.
KNOCK_UDP = """
import socket, sys
target = (sys.argv[1], int(sys.argv[2]))
while True:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as knock:
        try:
            knock.sendto(b"0 0", target)
        except OSError:
            pass
"""
KNOCK_TCP = """
import socket, struct, sys
target = (sys.argv[1], int(sys.argv[2]))
while True:
    knocks = []
    for _ in range(20):
        knock = socket.socket()
        knock.setblocking(False)
        knock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        knock.connect_ex(target)
        knocks.append(knock)
    for knock in knocks:
        knock.close()
"""
REPETITIONS = 40


@pytest.fixture
def lab() -> Iterator[PolicyLab]:
    with policy_lab(("knocker", "closed", "other")) as made, made.on_node:
        yield made


@contextlib.contextmanager
def hammering(source: Namespace, address: str) -> Iterator[None]:
    """Knock at the address without a pause, from two processes."""
    programs = []
    try:
        for script in (KNOCK_UDP, KNOCK_TCP):
            inside = ("ip", "netns", "exec", source.name)
            command = (*inside, sys.executable, "-c", script, address, str(PORTS[0]))
            programs.append(subprocess.Popen(command))
        yield
        assert [program.poll() for program in programs] == [None, None]
    finally:
        for program in programs:
            program.send_signal(signal.SIGKILL)
            program.wait()


def arrived(pod: LabPod) -> int:
    """How many knocks came through since the last call."""
    count = 0
    for protocol in (TCP, UDP):
        listener = pod.listeners[protocol, PORTS[0]]
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                if protocol == TCP:
                    listener.accept()[0].close()
                else:
                    listener.recv(64)
                count += 1
    return count


def arrives(pod: LabPod, seconds: float = 20) -> bool:
    """Whether knocks of both protocols come through, sooner or later."""
    wanted = {TCP, UDP}
    deadline = time.monotonic() + seconds
    while wanted and time.monotonic() < deadline:
        for protocol in tuple(wanted):
            listener = pod.listeners[protocol, PORTS[0]]
            listener.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                if protocol == TCP:
                    listener.accept()[0].close()
                else:
                    listener.recv(64)
                wanted.discard(protocol)
    arrived(pod)
    return not wanted


def test_nothing_passes_while_agents_restart_and_load_the_whole_ruleset(lab: PolicyLab) -> None:
    closed = lab.pods["closed"]
    state = closed_state(lab, "closed", friends=["other"])
    PolicyDataplane().sync(state)
    with hammering(lab.pods["knocker"].namespace, closed.address):
        for _ in range(REPETITIONS):
            restarted = PolicyDataplane()
            restarted.guard()
            restarted.sync(state)
            assert arrived(closed) == 0
        restarted.sync(open_state(lab))
        assert arrives(closed)


def test_nothing_passes_while_rules_and_sets_change_around_the_policy(lab: PolicyLab) -> None:
    closed = lab.pods["closed"]
    state = closed_state(lab, "closed", friends=["other"])
    dataplane = PolicyDataplane()
    dataplane.sync(state)
    second = PolicyKey("NetworkPolicy", "second", "ns")
    with hammering(lab.pods["knocker"].namespace, closed.address):
        for number in range(REPETITIONS):
            rules = PolicyRules(
                (Rule(Action.DENY, protocol=TCP), *state.policies[CLOSED].ingress) * (1 + number % 3)
            )
            dataplane.apply(PolicyDelta(policies={CLOSED: rules, second: rules}))
            both = workload(closed, *((CLOSED, second) if number % 2 else (second,)))
            dataplane.apply(PolicyDelta(workloads={closed.interface: both}))
            kind, members = state.sets[FRIENDS]
            dataplane.apply(PolicyDelta(new_sets={FRIENDS: (kind, members if number % 2 else frozenset())}))
            assert arrived(closed) == 0
        dataplane.sync(open_state(lab))
        assert arrives(closed)


def test_nothing_passes_to_a_new_pod_before_its_policy(lab: PolicyLab) -> None:
    state = closed_state(lab, "closed")
    dataplane = PolicyDataplane()
    dataplane.sync(state)
    pod = lab.pods["closed"]
    with hammering(lab.pods["knocker"].namespace, pod.address):
        for _ in range(REPETITIONS // 4):
            dataplane.apply(PolicyDelta(gone_workloads=frozenset({pod.interface})))
            lab.node.ip("link", "del", pod.interface)
            plug(lab.node, pod)  # the interface is up and routed, nobody told the dataplane yet
            assert arrived(pod) == 0
            dataplane.apply(PolicyDelta(workloads={pod.interface: state.workloads[pod.interface]}))
            assert arrived(pod) == 0
        dataplane.sync(open_state(lab))
        assert arrives(pod)


def test_nothing_passes_after_a_boot_before_policy_is_known(lab: PolicyLab) -> None:
    pod = lab.pods["closed"]
    with hammering(lab.pods["knocker"].namespace, pod.address):
        for _ in range(REPETITIONS // 4):
            lab.node.ip("link", "del", pod.interface)  # no pod, no table: as a node comes up
            lab.node.exec("nft", "flush", "ruleset")
            lab.node.exec("conntrack", "-F")
            arrived(pod)  # what came while the table was missing and the pod was there
            agent = PolicyDataplane()
            assert agent.guard()
            plug(lab.node, pod)
            assert arrived(pod) == 0
            agent.sync(closed_state(lab, "closed"))
            assert arrived(pod) == 0
        agent.sync(open_state(lab))
        assert arrives(pod)


def test_a_policy_in_force_outlives_the_agent_that_loaded_it(lab: PolicyLab) -> None:
    pod = lab.pods["closed"]
    program = (
        "import sys; from pathlib import Path; from ipaddress import IPv4Network\n"
        "from tortie.dataplane.policy import PolicyDataplane\n"
        "from tortie.policy.state import PolicyState, WorkloadRules\n"
        f"names = {[item.interface for item in lab.pods.values()]!r}\n"
        "PolicyDataplane().sync(PolicyState(workloads={name: WorkloadRules(name) for name in names}))\n"
    )
    lab.node.exec("env", "PYTHONPATH=src", sys.executable, "-c", program)
    with hammering(lab.pods["knocker"].namespace, pod.address):
        assert not arrives(pod, seconds=1)
        PolicyDataplane().remove()
        assert arrives(pod)
