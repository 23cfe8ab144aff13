"""Pods' packets where iptables drops forwarded packets by default."""

from collections.abc import Iterator

import pytest

from tests.integration.dataplane.policy_lab import PORTS, TCP, Attempt, PolicyLab, policy_lab
from tests.integration.dataplane.policy_states import closed_state, open_state
from tortie.dataplane.policy import PolicyDataplane
from tortie.dataplane.policy_forward import COMMENT, allow_forwarding, remove_forwarding

pytestmark = pytest.mark.root

BACKENDS = ("iptables-nft", "iptables-legacy")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lab() -> Iterator[PolicyLab]:
    with policy_lab(("a", "b")) as made, made.on_node:
        yield made


def passes(lab: PolicyLab, source: str, destination: str, *, expected: bool) -> bool:
    tried = Attempt(source, destination, TCP, PORTS[0])
    return tried in lab.try_all([tried], frozenset({tried}) if expected else frozenset())


def test_pods_reach_each_other_although_iptables_drops_by_default(lab: PolicyLab, backend: str) -> None:
    node = lab.node
    node.exec(backend, "-P", "FORWARD", "DROP")
    node.exec(backend, "-A", "FORWARD", "-s", "192.0.2.0/24", "-j", "REJECT")
    theirs = node.exec(backend, "-S", "FORWARD")
    PolicyDataplane().sync(open_state(lab))
    assert not passes(lab, "a", "b", expected=False)
    assert len(allow_forwarding()) == 1
    assert passes(lab, "a", "b", expected=True)
    listed = node.exec(backend, "-S", "FORWARD").splitlines()
    assert listed[: len(theirs.splitlines())] == theirs.splitlines()  # ours come after theirs
    added = [line for line in listed if "cali+" in line]
    assert [line.split()[2:4] for line in added] == [["-i", "cali+"], ["-o", "cali+"]]
    assert all(line.endswith("-j ACCEPT") for line in added)
    assert allow_forwarding() == []
    # Policy still decides: what our table drops, no rule of iptables brings back.
    PolicyDataplane().sync(closed_state(lab, "b"))
    assert not passes(lab, "a", "b", expected=False)
    assert len(remove_forwarding()) == 1
    assert node.exec(backend, "-S", "FORWARD") == theirs
    assert remove_forwarding() == []


def test_nothing_is_added_where_nothing_drops(lab: PolicyLab, backend: str) -> None:
    lab.node.exec(backend, "-S", "FORWARD")
    assert allow_forwarding() == []
    lab.node.exec(backend, "-A", "FORWARD", "-s", "192.0.2.0/24", "-j", "ACCEPT")
    assert allow_forwarding() == []
    assert COMMENT not in lab.node.exec(backend, "-S", "FORWARD")
