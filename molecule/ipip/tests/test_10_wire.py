"""IP-in-IP as the inventory asks for it: what stands in the kernel, and what is on the wire."""

import json
from typing import Any

from machines import Capture, exchange, probe
from testinfra.host import Host

# The reference: inventory/reference, tortie_mtu.
MTU = 1440
IPIP_HEADER = 20
IPPROTO_IPIP = 4
ICMP_ECHO = 28  # bytes of an echo request without payload


def lines(host: Host, arguments: str) -> list[str]:
    return [" ".join(line.split()) for line in host.check_output(f"ip {arguments}").splitlines()]


def test_each_peers_block_goes_through_the_tunnel_as_bird_wrote_it(
    host: Host, cluster: Any, node: Any
) -> None:
    for peer in cluster.peers(node.name):
        assert peer.blocks
        for block in peer.blocks:
            assert block.endswith("/26")
            assert lines(host, f"route show {block}") == [
                f"{block} via {peer.address} dev tunl0 proto bird onlink"
            ]


def test_own_block_is_blackholed_by_the_agent(host: Host, node: Any) -> None:
    assert node.blocks
    assert sorted(lines(host, "route show type blackhole")) == sorted(
        f"blackhole {block} proto 80" for block in node.blocks
    )


def test_tunl0_is_up_with_the_tunnel_address_and_the_mtu(host: Host, node: Any) -> None:
    device = json.loads(host.check_output("ip -j -d address show dev tunl0"))[0]
    assert "UP" in device["flags"]
    assert device["mtu"] == MTU
    assert device["linkinfo"]["info_kind"] == "ipip"
    assert [(a["local"], a["prefixlen"]) for a in device["addr_info"]] == [(node.ipip_address, 32)]


def test_only_encapsulated_packets_between_pods_leave_a_node(cluster: Any, pods: dict[str, str]) -> None:
    addresses = list(pods.values())
    (first, here), (second, there) = pods.items()
    with Capture(first, addresses) as near, Capture(second, addresses) as far:
        assert exchange(pods)
    outer = {name: str(cluster.nodes[name].address) for name in pods}
    wanted = {
        ((outer[first], outer[second], IPPROTO_IPIP), (here, there, 0)),
        ((outer[second], outer[first], IPPROTO_IPIP), (there, here, 0)),
    }
    assert near.paths() == wanted
    assert far.paths() == wanted


def test_packet_of_the_mtu_passes_whole_and_one_byte_more_is_refused(pods: dict[str, str]) -> None:
    (first, here), (second, there) = pods.items()
    with Capture(second, [here, there]) as uplink:
        assert probe(first, here, f"/icmp?host={there}&size={MTU}&df=1&seconds=5")["outcome"] == "reply"
        refused = probe(first, here, f"/icmp?host={there}&size={MTU + 1}&df=1&seconds=5")
    assert (refused["outcome"], refused["path_mtu"]) == ("emsgsize", MTU)
    large = [packet for packet in uplink.packets if packet[-1]["length"] > ICMP_ECHO + 100]
    assert {
        (
            layers[0]["length"],
            layers[-1]["length"],
            layers[-1]["df"],
            any(layer["fragment"] for layer in layers),
        )
        for layers in large
        if layers[-1]["source"] == here
    } == {(MTU + IPIP_HEADER, MTU, True, False)}
    # The answer, too: the kernel does not set the flag in it, and need not cut it.
    assert {
        (layers[0]["length"], any(layer["fragment"] for layer in layers))
        for layers in large
        if layers[-1]["source"] == there
    } == {(MTU + IPIP_HEADER, False)}
