"""The comparison with the kernel goes on beside changes: it takes none of them for somebody else's."""

import threading
from collections.abc import Iterator
from pathlib import Path
from socket import SOCK_DGRAM

import pytest

from tests.integration.dataplane.policy_lab import PORTS, UDP, PolicyLab, policy_lab
from tests.integration.dataplane.policy_states import CLOSED, FRIENDS, closed_state
from tortie.agent.policy_work import PolicyWorker
from tortie.dataplane import netns
from tortie.dataplane.nfnetlink import Netfilter
from tortie.dataplane.nfnetlink_objects import delete_table, new_table
from tortie.dataplane.policy import PolicyDataplane
from tortie.dataplane.ruleset import TABLE
from tortie.policy.state import Action, PolicyDelta, PolicyRules, PolicyState, Rule

pytestmark = pytest.mark.root

CHECKS = 60
NEIGHBOUR = "tp_neighbour"  # somebody else's table, so that the comparison reads ours


@pytest.fixture
def lab() -> Iterator[PolicyLab]:
    with policy_lab(("closed", "other")) as made, made.on_node:
        yield made


class Flapping(threading.Thread):
    """Changes policy without a pause, in the node's namespace."""

    def __init__(self, dataplane: PolicyDataplane, state: PolicyState, namespace: int) -> None:
        super().__init__()
        self._dataplane, self._state, self._namespace = dataplane, state, namespace
        self.enough = threading.Event()
        self.changes = 0

    def run(self) -> None:
        """Until told that it is enough."""
        netns.setns(self._namespace)
        kind, members = self._state.sets[FRIENDS]
        while not self.enough.is_set():
            self.changes += 1
            rules = PolicyRules((Rule(Action.DENY, protocol=6 + self.changes % 2 * 11),))
            content = members if self.changes % 2 else frozenset()
            self._dataplane.apply(PolicyDelta(policies={CLOSED: rules}, new_sets={FRIENDS: (kind, content)}))


def test_changes_are_not_taken_for_tampering_and_tampering_is_found_beside_them(lab: PolicyLab) -> None:
    state = closed_state(lab, "closed", friends=["other"])
    dataplane = PolicyDataplane()
    worker = PolicyWorker("n1", dataplane)
    dataplane.sync(state)
    with Path(netns.OWN).open("rb") as handle, Netfilter() as neighbour:
        flapping = Flapping(dataplane, state, handle.fileno())
        flapping.start()
        try:
            for number in range(CHECKS):
                neighbour.transaction(
                    [new_table(NEIGHBOUR)] if number % 2 == 0 else [delete_table(NEIGHBOUR)]
                )
                assert worker.verify()[0] == []
            lab.node.exec("nft", "add", "chain", "inet", TABLE, "stray")
            assert worker.verify()[0] == ["chain stray is not ours"]
            assert worker.verify()[0] == []
        finally:
            flapping.enough.set()
            flapping.join()
    assert flapping.changes > CHECKS


def test_no_netfilter_socket_is_closed_beside_changes_for_the_kernel_would_make_them_wait(
    lab: PolicyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Netfilter] = []
    state = closed_state(lab, "closed", friends=["other"])
    dataplane = PolicyDataplane()
    worker = PolicyWorker("n1", dataplane)
    dataplane.sync(state)
    monkeypatch.setattr(Netfilter, "close", closed.append)
    ended = 0
    with lab.pods["other"].socket(SOCK_DGRAM) as sender:
        for number in range(3):
            sender.sendto(b"a connection", (lab.pods["closed"].address, PORTS[0]))
            rules = PolicyRules((Rule(Action.DENY, protocol=UDP + number % 2),))
            dataplane.apply(PolicyDelta(policies={CLOSED: rules}))
            ended += worker.cut()
            assert worker.verify()[0] == []
    assert ended
    assert closed == []
