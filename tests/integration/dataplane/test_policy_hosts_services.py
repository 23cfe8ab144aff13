"""Host endpoints and the node's own connections to services: policy sees where they really leave."""

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import IPv4Network

import pytest

from tests.integration.dataplane.policy_lab import PORTS
from tests.integration.dataplane.policy_states import OPEN
from tests.integration.dataplane.test_policy_hosts import BOTH, OTHER, OUTSIDE, SERVED, Site, site
from tortie.policy.state import Action, HostRules, Peer, PolicyRules, Rule

pytestmark = pytest.mark.root

__all__ = ["site"]
SERVICE = "198.51.100.7"


@pytest.fixture
def service(site: Site) -> Iterator[None]:
    """The node itself reaches pod a by port SERVED of the service, the machine outside by port OTHER."""
    node = site.lab.node
    pod = site.lab.pods["a"].address
    with contextlib.ExitStack() as stack:
        node.ip("route", "add", SERVICE, "via", OUTSIDE)
        stack.callback(node.ip, "route", "del", SERVICE)
        node.exec("nft", "add table ip service")
        stack.callback(node.exec, "nft", "delete table ip service")
        node.exec("nft", "add chain ip service out { type nat hook output priority -100; }")
        node.exec("nft", "add chain ip service post { type nat hook postrouting priority 100; }")
        to = f"add rule ip service out ip daddr {SERVICE} tcp dport"
        node.exec("nft", f"{to} {SERVED} dnat to {pod}:{PORTS[0]}")
        node.exec("nft", f"{to} {OTHER} dnat to {OUTSIDE}:{SERVED}")
        node.exec("nft", "add rule ip service post ct status dnat masquerade")
        yield


def reaches(port: int) -> bool:
    """The node, by the service."""
    with socket.socket() as client:
        client.settimeout(0.3)
        return client.connect_ex((SERVICE, port)) == 0


@pytest.mark.usefixtures("service")
def test_the_node_reaches_its_pods_by_a_service_whatever_the_hosts_policy(site: Site) -> None:
    site.load_hosts(HostRules("eth0", profiles=(OPEN,)))
    assert reaches(SERVED)
    assert reaches(OTHER)
    site.load_hosts(HostRules("eth0"))
    assert not reaches(OTHER)
    assert reaches(SERVED)


@pytest.mark.usefixtures("service")
def test_egress_policy_sees_where_a_service_led(site: Site) -> None:
    def towards(address: str) -> PolicyRules:
        peer = Peer(networks=(IPv4Network(address),), ports=((SERVED, SERVED),))
        return PolicyRules(egress=(Rule(Action.ALLOW, protocol=6, destination=peer),))

    host = HostRules("eth0", normal=BOTH)
    site.load_hosts(host, policy=towards(OUTSIDE))
    assert reaches(OTHER)
    assert site.node_reaches_outside()
    site.load_hosts(host, policy=towards(SERVICE))
    assert not reaches(OTHER)
