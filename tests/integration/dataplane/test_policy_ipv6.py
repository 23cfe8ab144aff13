"""The same rules for IPv6: sources, policy by members and networks, discovery."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

import pytest

from tests.integration.dataplane.policy_lab import HOST_MAC, PORTS, PolicyLab, policy_lab
from tests.integration.dataplane.policy_states import CLOSED, FRIENDS, closed_state
from tortie.dataplane import netns
from tortie.dataplane.policy import PolicyDataplane
from tortie.policy.state import Action, PolicyDelta, PolicyRules, PolicyState, Rule, SetChange

pytestmark = pytest.mark.root

GATEWAY = "fe80::ecee:eeff:feee:eeee"


def address(lab: PolicyLab, name: str) -> str:
    return f"fd00:5::{list(lab.pods).index(name) + 1}"


@pytest.fixture(scope="module")
def lab() -> Iterator[PolicyLab]:
    with policy_lab(("a", "b", "c")) as made, made.on_node:
        made.node.exec("sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1")
        for name, pod in made.pods.items():
            own = address(made, name)
            made.node.ip("-6", "addr", "flush", "dev", pod.interface)  # not tentative: without detection
            made.node.ip("-6", "addr", "add", f"{GATEWAY}/64", "dev", pod.interface, "nodad")
            made.node.ip("-6", "route", "add", f"{own}/128", "dev", pod.interface)
            pod.namespace.ip("-6", "addr", "add", f"{own}/128", "dev", "eth0", "nodad")
            pod.namespace.ip("-6", "neigh", "add", GATEWAY, "lladdr", HOST_MAC, "dev", "eth0")
            pod.namespace.ip("-6", "route", "add", "default", "via", GATEWAY, "dev", "eth0")
        yield made


def state(lab: PolicyLab, *friends: str) -> PolicyState:
    """Pod a is open to friends only; every pod has its IPv6 address."""
    closed = closed_state(lab, "a")
    members = frozenset(IPv6Network(address(lab, name)) for name in friends)
    workloads = {
        pod.interface: replace(
            closed.workloads[pod.interface],
            addresses=(IPv4Network(pod.address), IPv6Network(address(lab, name))),
        )
        for name, pod in lab.pods.items()
    }
    kind, _ = closed.sets[FRIENDS]
    return replace(closed, sets={FRIENDS: (kind, members)}, workloads=workloads)


def connects(lab: PolicyLab, source: str, destination: str, sender: str = "") -> bool:
    with netns.entered(lab.pods[destination].namespace.fd):
        server = socket.create_server((address(lab, destination), PORTS[0]), family=socket.AF_INET6)
    with netns.entered(lab.pods[source].namespace.fd):
        client = socket.socket(socket.AF_INET6)
    with server, client:
        client.settimeout(1)  # the node finds the pod by neighbour discovery first
        if sender:
            client.bind((sender, 0))
        return client.connect_ex((address(lab, destination), PORTS[0])) == 0


def test_policy_holds_for_ipv6(lab: PolicyLab) -> None:
    dataplane = PolicyDataplane()
    dataplane.sync(state(lab))
    assert connects(lab, "a", "b")
    assert not connects(lab, "b", "a")
    # The set was one of IPv4 until now; its first IPv6 member makes the policy's rules new.
    dataplane.apply(
        PolicyDelta(changed_sets={FRIENDS: SetChange(frozenset({IPv6Network(address(lab, "b"))}))})
    )
    assert connects(lab, "b", "a")
    assert not connects(lab, "c", "a")
    dataplane.apply(PolicyDelta(changed_sets={FRIENDS: SetChange(frozenset({IPv6Network("fd00:5::/64")}))}))
    assert connects(lab, "c", "a")
    only_ipv4 = PolicyRules(ingress=(Rule(Action.ALLOW, ip_version=4),))
    dataplane.apply(PolicyDelta(policies={CLOSED: only_ipv4}))
    assert not connects(lab, "c", "a")
    assert dataplane.check() == []


def test_a_foreign_ipv6_source_is_dropped(lab: PolicyLab) -> None:
    PolicyDataplane().sync(state(lab, "b", "c"))
    assert connects(lab, "c", "a")
    lab.pods["c"].namespace.ip("-6", "addr", "add", "fd00:5::99/128", "dev", "lo", "nodad")
    lab.node.ip("-6", "route", "add", "fd00:5::99/128", "dev", lab.pods["c"].interface)
    assert not connects(lab, "c", "b", sender="fd00:5::99")
