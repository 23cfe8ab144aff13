"""Routes between blocks, as the kernel of each node has them."""

import json
from typing import Any

from testinfra.host import Host

# rtnetlink.h by number, because names depend on the node's /etc/iproute2
BIRD, TORTIE = "12", "80"


def routes(host: Host, *, to: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(host.check_output(f"ip -N -j route show {to}"))
    return found


def test_each_peers_block_is_routed_to_that_peer(host: Host, cluster: Any, node: Any, link: Any) -> None:
    for peer in cluster.peers(node.name):
        assert peer.blocks, f"{peer.name} has no block"
        gateway, device, writer = {
            "vxlan.calico": (peer.vxlan_address, "vxlan.calico", TORTIE),
            "tunl0": (str(peer.address), "tunl0", BIRD),
            "": (str(peer.address), link["ifname"], BIRD),
        }[cluster.device]
        for block in peer.blocks:
            found = routes(host, to=block)
            assert [(r["dst"], r["gateway"], r["dev"], r["protocol"]) for r in found] == [
                (block, gateway, device, writer)
            ]
            assert ("onlink" in found[0]["flags"]) or not cluster.device


def test_own_block_is_blackholed(host: Host, node: Any) -> None:
    assert node.blocks
    # By name here: with -N the kind is a number, which differs between versions of iproute2.
    holes = json.loads(host.check_output("ip -j route show type blackhole"))
    assert sorted(r["dst"] for r in holes) == sorted(node.blocks)


def test_every_address_of_a_peers_block_leaves_through_the_tunnel(
    host: Host, cluster: Any, node: Any, link: Any
) -> None:
    for peer in cluster.peers(node.name):
        for block in peer.blocks:
            address = block.split("/")[0]
            found = json.loads(host.check_output(f"ip -j route get {address}"))
            assert [r["dev"] for r in found] == [cluster.device or link["ifname"]]


def test_own_traffic_to_a_peers_pods_carries_the_nodes_tunnel_address(
    host: Host, cluster: Any, node: Any
) -> None:
    own = {"vxlan.calico": node.vxlan_address, "tunl0": node.ipip_address, "": str(node.address)}[
        cluster.device
    ]
    for peer in cluster.peers(node.name):
        found = json.loads(host.check_output(f"ip -j route get {peer.blocks[0].split('/')[0]}"))
        assert [r["prefsrc"] for r in found] == [own]
