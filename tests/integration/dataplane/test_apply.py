"""Dataplane.apply against real kernels in network namespaces."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from tests.integration.dataplane.namespaces import Namespace, namespaces, wire
from tortie.dataplane import netns
from tortie.dataplane.apply import ApplyError, Dataplane
from tortie.dataplane.workload import Workloads
from tortie.dataplane.workload_link import WorkloadLink
from tortie.routing.state import IPIPTunnel, Masquerade, NodeState, Route, VXLANPeer, VXLANTunnel

pytestmark = pytest.mark.root

POOL = IPv4Network("10.5.0.0/16")
BLOCKS = (IPv4Network("10.5.0.0/26"), IPv4Network("10.5.0.64/26"))
VTEPS = (IPv4Address("10.5.0.0"), IPv4Address("10.5.0.64"))
MACS = ("66:00:00:00:00:01", "66:00:00:00:00:02")
NODES = (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"))


@pytest.fixture
def nodes() -> Iterator[list[Namespace]]:
    with namespaces(2) as made:
        wire(made[0], made[1])
        yield made


def vxlan_state(me: int, mtu: int = 1450) -> NodeState:
    """What node `me` (0 or 1) needs to reach the other's pods through VXLAN."""
    other = 1 - me
    return NodeState(
        vxlan=VXLANTunnel(VTEPS[me], MACS[me], mtu, "eth0", NODES[me]),
        routes=frozenset(
            {
                Route(BLOCKS[me], kind="blackhole"),
                Route(BLOCKS[other], "vxlan.calico", VTEPS[other], onlink=True, source=VTEPS[me]),
            }
        ),
        vxlan_peers=frozenset({VXLANPeer(VTEPS[other], MACS[other], NODES[other])}),
        masquerade=Masquerade(frozenset({POOL}), frozenset({POOL})),
    )


def apply(node: Namespace, state: NodeState) -> list[str]:
    with netns.entered(node.fd):
        return Dataplane().apply(state)


def test_pods_of_two_nodes_reach_each_other_through_vxlan_with_the_full_mtu(nodes: list[Namespace]) -> None:
    with namespaces(2) as pods:
        for me, (node, pod) in enumerate(zip(nodes, pods, strict=True)):
            apply(node, vxlan_state(me))
            with netns.entered(node.fd):
                address = VTEPS[me] + 5
                Workloads().add(
                    WorkloadLink("cali0", pod.fd, "eth0", (address,), mtu=1450, owner=f"container-{me}")
                )
        for pod, far in zip(pods, reversed(VTEPS), strict=True):
            assert pod.reaches(str(far + 5))
            assert pod.reaches(str(far + 5), size=1450 - 28)  # IPv4 and ICMP headers
            assert not pod.reaches(str(far + 5), size=1450 - 27)
        # The node's own packets to a remote pod leave with the tunnel address.
        assert nodes[0].reaches(str(VTEPS[1] + 5))
        # An address of the own block that no pod has is a dead end, not a loop through the tunnel.
        assert not pods[1].reaches(str(VTEPS[0] + 9))


def test_a_second_apply_changes_nothing(nodes: list[Namespace]) -> None:
    assert apply(nodes[0], vxlan_state(0))
    assert apply(nodes[0], vxlan_state(0)) == []


def test_the_vxlan_device_has_the_settings_that_were_asked_for(nodes: list[Namespace]) -> None:
    apply(nodes[0], vxlan_state(0, mtu=1400))
    (device,) = nodes[0].json("link", "show", "vxlan.calico")
    data = device["linkinfo"]["info_data"]
    assert (device["mtu"], device["address"]) == (1400, MACS[0])
    assert (data["id"], data["port"], data["link"], data["local"]) == (4096, 4789, "eth0", "192.0.2.1")
    assert data["learning"] is False
    assert nodes[0].exec("cat", "/proc/sys/net/ipv4/conf/vxlan.calico/rp_filter") == "2\n"
    assert nodes[0].exec("cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"


def test_a_vxlan_device_that_cannot_be_changed_is_replaced_with_all_that_is_on_it(
    nodes: list[Namespace],
) -> None:
    apply(nodes[0], vxlan_state(0))
    state = vxlan_state(0)
    assert state.vxlan is not None
    moved = replace(state, vxlan=replace(state.vxlan, vni=4097))
    changes = apply(nodes[0], moved)
    assert "delete device vxlan.calico" in changes
    assert apply(nodes[0], moved) == []
    routes = nodes[0].json("route", "show", "proto", "80")
    assert {route["dst"] for route in routes} == {"10.5.0.0/26", "10.5.0.64/26"}


def test_whatever_was_tampered_with_is_repaired(nodes: list[Namespace]) -> None:
    node, state = nodes[0], vxlan_state(0)
    apply(node, state)
    for tampering in (
        ("ip", "link", "set", "vxlan.calico", "down"),
        ("ip", "link", "set", "vxlan.calico", "mtu", "1300"),
        ("ip", "addr", "add", "10.9.9.9/32", "dev", "vxlan.calico"),
        ("ip", "addr", "flush", "dev", "vxlan.calico"),
        ("ip", "route", "del", "10.5.0.64/26"),
        ("ip", "route", "add", "10.9.0.0/16", "dev", "vxlan.calico"),
        ("ip", "route", "add", "blackhole", "10.9.0.0/16", "proto", "80"),
        ("ip", "neigh", "flush", "dev", "vxlan.calico", "nud", "permanent"),
        ("ip", "neigh", "add", "10.5.0.77", "lladdr", "66:00:00:00:00:77", "dev", "vxlan.calico"),
        ("bridge", "fdb", "del", MACS[1], "dev", "vxlan.calico", "dst", "192.0.2.2"),
        ("bridge", "fdb", "replace", MACS[1], "dev", "vxlan.calico", "dst", "192.0.2.9"),
        ("bridge", "fdb", "append", "66:00:00:00:00:77", "dev", "vxlan.calico", "dst", "192.0.2.9"),
        ("sysctl", "-q", "-w", "net.ipv4.conf.vxlan/calico.rp_filter=1"),
        ("sysctl", "-q", "-w", "net.ipv4.ip_forward=0"),
        ("nft", "delete", "element", "ip", "tortie_nat", "pools", "{ 10.5.0.0/16 }"),
        ("nft", "flush", "chain", "ip", "tortie_nat", "postrouting"),
        ("nft", "insert", "rule", "ip", "tortie_nat", "postrouting", "accept"),
        ("nft", "delete", "table", "ip", "tortie_nat"),
        ("ip", "link", "del", "vxlan.calico"),
    ):
        node.exec(*tampering)
        assert apply(node, state), tampering
        assert apply(node, state) == [], tampering


def test_what_is_not_ours_stays(nodes: list[Namespace]) -> None:
    node = nodes[0]
    apply(node, vxlan_state(0))
    node.ip("route", "add", "10.8.0.0/24", "via", "192.0.2.2", "proto", "static")
    node.ip("route", "add", "10.5.1.0/26", "via", "192.0.2.2", "proto", "bird", "metric", "32")
    node.ip("link", "add", "cali1", "type", "veth", "peer", "name", "other")
    node.ip("link", "set", "cali1", "up")
    node.ip("route", "add", "10.5.0.9/32", "dev", "cali1", "proto", "80")
    node.exec("nft", "add", "table", "ip", "theirs")
    apply(node, NodeState())
    routes = {route["dst"]: route["protocol"] for route in node.json("route")}
    assert routes.items() >= {"10.8.0.0/24": "static", "10.5.1.0/26": "bird", "10.5.0.9": "80"}.items()
    assert "10.5.0.64/26" not in routes
    assert node.devices() == ["eth0", "cali1", "other"] or set(node.devices()) == {"eth0", "cali1", "other"}
    assert node.exec("nft", "list", "tables") == "table ip theirs\n"


def test_a_route_in_the_place_of_ours_is_named_and_the_rest_is_applied(nodes: list[Namespace]) -> None:
    node = nodes[0]
    node.ip("route", "add", "10.5.0.64/26", "via", "192.0.2.2", "proto", "static")
    with pytest.raises(ApplyError, match=r"10\.5\.0\.64/26.*via 192\.0\.2\.2 of protocol 4.*not ours"):
        apply(node, vxlan_state(0))
    assert {route["dst"] for route in node.json("route", "show", "type", "blackhole")} == {"10.5.0.0/26"}
    assert "vxlan.calico" in node.devices()


def test_a_missing_parent_is_one_sentence(nodes: list[Namespace]) -> None:
    state = vxlan_state(0)
    assert state.vxlan is not None
    with pytest.raises(ApplyError, match="there is no device eth7 on this node") as caught:
        apply(nodes[0], replace(state, vxlan=replace(state.vxlan, parent="eth7")))
    assert len(caught.value.errors) == 1


def test_another_vxlan_device_with_our_vni_is_named(nodes: list[Namespace]) -> None:
    nodes[0].ip("link", "add", "theirs", "type", "vxlan", "id", "4096", "dstport", "4789", "dev", "eth0")
    with pytest.raises(ApplyError, match="another VXLAN device holds VNI 4096 and UDP port 4789"):
        apply(nodes[0], vxlan_state(0))


def test_an_mtu_that_the_link_cannot_carry_is_refused(nodes: list[Namespace]) -> None:
    with pytest.raises(ApplyError, match=r"vxlan\.calico: mtu 1500"):
        apply(nodes[0], vxlan_state(0, mtu=1500))


def kernel_has_ipip(node: Namespace) -> bool:
    command = ("ip", "-n", node.name, "link", "add", "probe0", "type", "ipip", "local", "192.0.2.2")
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def test_ipip_gives_the_device_or_a_sentence_that_names_the_module(nodes: list[Namespace]) -> None:
    state = NodeState(ipip=IPIPTunnel(VTEPS[0], 1480))
    if not kernel_has_ipip(nodes[1]):
        with pytest.raises(ApplyError, match=r"no IP-in-IP \(module ipip\)") as caught:
            apply(nodes[0], state)
        assert len(caught.value.errors) == 1
    else:
        apply(nodes[0], state)
        (device,) = nodes[0].json("addr", "show", "tunl0")
        assert device["mtu"] == 1480
        assert [item["local"] for item in device["addr_info"]] == [str(VTEPS[0])]
        assert apply(nodes[0], state) == []


def test_only_traffic_that_leaves_the_pools_is_masqueraded(nodes: list[Namespace]) -> None:
    inside, outside = nodes
    apply(inside, NodeState(masquerade=Masquerade(frozenset({POOL}), frozenset({POOL}))))
    inside.ip("addr", "add", "10.5.0.1/32", "dev", "lo")
    outside.ip("addr", "add", "10.5.0.77/32", "dev", "lo")
    inside.ip("route", "add", "10.5.0.77/32", "via", "192.0.2.2", "src", "10.5.0.1")
    # The other node has no route back to 10.5.0.1: an answer from outside the pools needs masquerading.
    assert inside.exec("ping", "-c", "1", "-W", "5", "-I", "10.5.0.1", "192.0.2.2")
    assert not inside.reaches("10.5.0.77")
    outside.ip("route", "add", "10.5.0.1/32", "via", "192.0.2.1")
    assert inside.reaches("10.5.0.77")


def test_host_links_are_in_kernel_order_with_all_their_addresses(nodes: list[Namespace]) -> None:
    node = nodes[0]
    node.ip("addr", "add", "192.0.2.9/24", "dev", "eth0")
    node.ip("addr", "add", "198.51.100.1/32", "dev", "eth0")
    with netns.entered(node.fd):
        found = Dataplane().host_links()
    assert [link.name for link in found] == [item["ifname"] for item in node.json("link")]
    eth0 = next(link for link in found if link.name == "eth0")
    assert (eth0.mtu, eth0.up) == (1500, True)
    assert eth0.addresses == tuple(
        map(IPv4Interface, ("192.0.2.1/24", "198.51.100.1/32", "192.0.2.9/24"))
    ) or eth0.addresses == tuple(map(IPv4Interface, ("192.0.2.1/24", "192.0.2.9/24", "198.51.100.1/32")))
