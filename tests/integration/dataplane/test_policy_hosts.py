"""Host endpoints: the node's own traffic, what it forwards, untracked and before translation."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from tests.integration.dataplane.namespaces import Namespace, namespaces, wire
from tests.integration.dataplane.policy_lab import PORTS, PolicyLab, policy_lab
from tests.integration.dataplane.policy_states import ALLOW_ALL, OPEN, open_state
from tortie.dataplane import netns
from tortie.dataplane.policy import PolicyDataplane
from tortie.dataplane.ruleset import Failsafe, Settings
from tortie.policy.state import (
    Action,
    HostRules,
    Peer,
    PolicyKey,
    PolicyRules,
    Rule,
    TierRules,
)

pytestmark = pytest.mark.root

TCP = 6
NODE, OUTSIDE = "192.0.2.1", "192.0.2.2"
RULES = PolicyKey("GlobalNetworkPolicy", "host")
SERVED, FAILSAFE, OTHER = 7001, 7022, 7003
SETTINGS = Settings(failsafe_inbound=(Failsafe(TCP, FAILSAFE),), failsafe_outbound=())


class Site:
    """A node with one pod, and a machine outside on the node's eth0."""

    def __init__(self, lab: PolicyLab, outside: Namespace, stack: contextlib.ExitStack) -> None:
        self.lab = lab
        self.outside = outside
        for port in (SERVED, FAILSAFE, OTHER):
            stack.enter_context(socket.create_server((NODE, port)))
        with netns.entered(outside.fd):
            stack.enter_context(socket.create_server((OUTSIDE, SERVED)))

    def load(self, normal: tuple[TierRules, ...] = (), forward: tuple[TierRules, ...] = ()) -> None:
        """Host endpoint eth0 with these tiers, and its profile."""
        self.load_hosts(HostRules("eth0", normal=normal, forward=forward, profiles=(OPEN,)))

    def load_hosts(self, *hosts: HostRules, policy: PolicyRules | None = None) -> None:
        state = open_state(self.lab)
        policies = {**state.policies, RULES: policy or ONLY_SERVED}
        named = {host.interface: host for host in hosts}
        dataplane = PolicyDataplane(SETTINGS)
        dataplane.sync(replace(state, policies=policies, hosts=named))
        assert dataplane.check() == []

    def reaches(self, address: str, port: int) -> bool:
        """From outside."""
        with netns.entered(self.outside.fd):
            client = socket.socket()
        return _connects(client, address, port)

    def node_reaches_outside(self) -> bool:
        return _connects(socket.socket(), OUTSIDE, SERVED)

    def pod_reaches_outside(self) -> bool:
        return _connects(self.lab.pods["a"].socket(socket.SOCK_STREAM), OUTSIDE, SERVED)

    def pod_is_reached(self) -> bool:
        return self.reaches(self.lab.pods["a"].address, PORTS[0])


def _connects(client: socket.socket, address: str, port: int) -> bool:
    with client:
        client.settimeout(0.3)
        return client.connect_ex((address, port)) == 0


ONLY_SERVED = PolicyRules(
    ingress=(Rule(Action.ALLOW, protocol=TCP, destination=Peer(ports=((SERVED, SERVED),))),),
)
BOTH = (TierRules("default", (RULES,), (RULES,)),)
INGRESS = (TierRules("default", (RULES,)),)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with (
        policy_lab(("a",)) as lab,
        namespaces(1) as (outside,),
        contextlib.ExitStack() as stack,
        lab.on_node,
    ):
        wire(lab.node, outside)
        outside.ip("route", "add", "10.5.0.0/24", "via", NODE)
        yield Site(lab, outside, stack)


def test_a_host_endpoint_is_closed_but_for_its_policy_and_the_failsafe_ports(site: Site) -> None:
    site.load(normal=INGRESS)
    assert site.reaches(NODE, SERVED)
    assert site.reaches(NODE, FAILSAFE)
    assert not site.reaches(NODE, OTHER)
    assert site.node_reaches_outside()  # no egress policy: the profile allows
    assert site.pod_is_reached()  # forwarded traffic is another matter
    site.load(normal=BOTH)
    assert not site.node_reaches_outside()


def test_a_host_endpoint_without_policy_and_profile_is_closed_but_for_the_failsafe_ports(site: Site) -> None:
    site.load_hosts(HostRules("eth0"))
    assert not site.reaches(NODE, SERVED)
    assert site.reaches(NODE, FAILSAFE)
    assert site.pod_is_reached()


def test_the_wildcard_covers_every_interface_without_an_endpoint_of_its_own(site: Site) -> None:
    site.load_hosts(HostRules("*", normal=INGRESS))
    assert site.reaches(NODE, SERVED)
    assert not site.reaches(NODE, OTHER)
    assert _connects(socket.socket(), NODE, OTHER)  # the node to itself, over lo
    site.load_hosts(HostRules("*", normal=INGRESS), HostRules("eth0", profiles=(OPEN,)))
    assert site.reaches(NODE, OTHER)
    site.load_hosts(HostRules("*", normal=INGRESS), HostRules("eth9", profiles=(OPEN,)))
    assert not site.reaches(NODE, OTHER)


def test_forwarded_traffic_passes_policy_of_host_and_pod(site: Site) -> None:
    site.load(forward=INGRESS)
    assert not site.pod_is_reached()
    assert site.reaches(NODE, OTHER)
    assert site.pod_reaches_outside()  # answers are established
    site.load(forward=BOTH)
    assert not site.pod_reaches_outside()
    site.load_hosts(HostRules("eth0", forward=INGRESS, profiles=(OPEN,)), policy=ALLOW_ALL)
    assert site.pod_is_reached()


def test_untracked_policy_is_stateless_both_ways_and_skips_normal_policy(site: Site) -> None:
    served = Peer(ports=((SERVED, SERVED),))
    policy = PolicyRules(
        ingress=(Rule(Action.ALLOW, protocol=TCP, destination=served), Rule(Action.DENY, protocol=TCP)),
        egress=(Rule(Action.ALLOW, protocol=TCP, source=served), Rule(Action.DENY, protocol=TCP)),
    )
    site.load_hosts(HostRules("eth0", untracked=BOTH), policy=policy)
    site.lab.node.exec("conntrack", "-F")
    assert site.reaches(NODE, SERVED)  # although the endpoint has neither normal policy nor profile
    entries = site.lab.node.exec("conntrack", "-L", "-p", "tcp", "--dport", str(SERVED))
    assert entries == ""
    assert site.reaches(NODE, FAILSAFE)
    assert not site.reaches(NODE, OTHER)
    one_way = replace(policy, egress=(Rule(Action.DENY, protocol=TCP),))
    site.load_hosts(HostRules("eth0", untracked=BOTH), policy=one_way)
    assert not site.reaches(NODE, SERVED)


def test_policy_before_translation_sees_the_address_that_was_dialled(site: Site) -> None:
    node = site.lab.node
    node.exec("nft", "add table ip dialled")
    try:
        node.exec("nft", "add chain ip dialled pre { type nat hook prerouting priority dstnat; }")
        pod = site.lab.pods["a"].address
        node.exec("nft", f"add rule ip dialled pre tcp dport {OTHER} dnat to {pod}:{PORTS[0]}")
        site.load_hosts(HostRules("eth0", profiles=(OPEN,)))
        assert site.reaches(NODE, OTHER)
        dialled = Rule(
            Action.DENY,
            protocol=TCP,
            destination=Peer(networks=(IPv4Network(NODE),), ports=((OTHER, OTHER),)),
        )
        site.load_hosts(HostRules("eth0", pre_dnat=INGRESS, profiles=(OPEN,)), policy=PolicyRules((dialled,)))
        assert not site.reaches(NODE, OTHER)
        assert site.reaches(NODE, SERVED)
        assert site.pod_is_reached()
        # What it allows, normal policy of the host is not asked about.
        site.load_hosts(HostRules("eth0", pre_dnat=INGRESS), policy=ONLY_SERVED)
        assert site.reaches(NODE, SERVED)
        assert not site.reaches(NODE, OTHER + 1)
    finally:
        node.exec("nft", "delete table ip dialled")


def test_tunnels_are_open_to_peers_and_closed_to_others(site: Site) -> None:
    with contextlib.ExitStack() as stack:
        with netns.entered(site.outside.fd):
            sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver.bind((NODE, 4789))
        receiver.settimeout(0.3)
        for peers, open_ in ((frozenset({IPv4Network(OUTSIDE)}), True), (frozenset[IPv4Network](), False)):
            site.lab.node.exec("conntrack", "-F")
            dataplane = PolicyDataplane(replace(SETTINGS, tunnel_peers=peers))
            closed = HostRules("eth0")  # host policy says nothing about tunnels between nodes
            dataplane.sync(replace(open_state(site.lab), hosts={"eth0": closed}))
            sender.sendto(b"inner", (NODE, 4789))
            if open_:
                assert receiver.recv(16) == b"inner"
            else:
                with pytest.raises(TimeoutError):
                    receiver.recv(16)
