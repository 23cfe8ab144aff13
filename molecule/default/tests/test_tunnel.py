"""The tunnel device of each node and what it knows of the others."""

import json
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture(name="device")
def _device(host: Host, cluster: Any) -> dict[str, Any]:
    assert cluster.device, "the lab's inventory uses an encapsulation"
    found: list[dict[str, Any]] = json.loads(host.check_output(f"ip -j -d address show dev {cluster.device}"))
    return found[0]


def test_is_up_with_the_nodes_tunnel_address_alone(device: dict[str, Any], cluster: Any, node: Any) -> None:
    wanted = node.vxlan_address if cluster.device == "vxlan.calico" else node.ipip_address
    assert "UP" in device["flags"]
    held = [(a["local"], a["prefixlen"]) for a in device["addr_info"] if a["family"] == "inet"]
    assert held == [(wanted, 32)]


def test_tunnel_address_is_from_the_nodes_own_block(cluster: Any, node: Any) -> None:

    address = node.vxlan_address if cluster.device == "vxlan.calico" else node.ipip_address
    assert any(IPv4Address(address) in IPv4Network(block) for block in node.blocks)


def test_mtu_is_configured_or_what_the_link_leaves(device: dict[str, Any], cluster: Any, link: Any) -> None:
    assert device["mtu"] == cluster.expected_mtu(link["mtu"])


def test_vxlan_has_calicos_numbers_and_learns_nothing(
    device: dict[str, Any], cluster: Any, node: Any, link: Any
) -> None:
    if cluster.device == "vxlan.calico":
        data = device["linkinfo"]["info_data"]
        assert (data["id"], data["port"]) == (4096, 4789)
        assert (data["local"], data["link"]) == (str(node.address), link["ifname"])
        assert data["learning"] is False
        assert device["address"] == node.vxlan_mac


def test_vxlan_peers_are_permanent_neighbours_behind_their_nodes(host: Host, cluster: Any, node: Any) -> None:
    if cluster.device == "vxlan.calico":
        neighbours = json.loads(host.check_output("ip -j neighbour show dev vxlan.calico"))
        fdb = json.loads(host.check_output("bridge -j fdb show dev vxlan.calico"))
        known = {(n["dst"], n["lladdr"], tuple(n["state"])) for n in neighbours}
        behind = {(entry["mac"], entry["dst"]) for entry in fdb if "dst" in entry}
        peers = cluster.peers(node.name)
        assert known == {(p.vxlan_address, p.vxlan_mac, ("PERMANENT",)) for p in peers}
        assert behind == {(p.vxlan_mac, str(p.address)) for p in peers}
