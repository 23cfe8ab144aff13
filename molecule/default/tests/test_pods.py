"""Pods: their wiring, seen from inside their namespace and from the node, and traffic between them."""

import json
from typing import Any

from testinfra.host import Host

GATEWAY, GATEWAY_MAC = "169.254.1.1", "ee:ee:ee:ee:ee:ee"


def inside(host: Host, namespace: str, arguments: str) -> Any:
    """`ip -j` in the pod's network namespace."""
    return json.loads(host.check_output(f"ip -n {namespace} -j {arguments}"))


def host_side(host: Host, address: str) -> dict[str, Any]:
    """The node's end of the pod's veth: the device of the pod's route."""
    route = json.loads(host.check_output(f"ip -j route show {address}"))
    link: list[dict[str, Any]] = json.loads(host.check_output(f"ip -j -d link show dev {route[0]['dev']}"))
    return link[0]


def test_eth0_has_one_address_with_prefix_32_and_the_expected_mtu(
    host: Host, namespace: str, pod_address: str, cluster: Any, link: Any
) -> None:
    eth0 = inside(host, namespace, "address show dev eth0")[0]
    held = [(a["local"], a["prefixlen"]) for a in eth0["addr_info"] if a["family"] == "inet"]
    assert held == [(pod_address, 32)]
    assert eth0["mtu"] == cluster.expected_mtu(link["mtu"])
    assert eth0["mtu"] == int(host.check_output("cat /var/lib/calico/mtu"))


def test_everything_goes_to_the_link_local_gateway(host: Host, namespace: str) -> None:
    routes = inside(host, namespace, "route show")
    assert {(r["dst"], r.get("gateway", ""), r["dev"]) for r in routes} == {
        ("default", GATEWAY, "eth0"),
        (GATEWAY, "", "eth0"),
    }


def test_gateway_is_a_permanent_neighbour(host: Host, namespace: str) -> None:
    neighbours = inside(host, namespace, "neighbour show dev eth0 nud permanent")
    assert [(n["dst"], n["lladdr"]) for n in neighbours] == [(GATEWAY, GATEWAY_MAC)]


def test_host_side_is_a_cali_veth_that_answers_arp_for_the_gateway(host: Host, pod_address: str) -> None:
    veth = host_side(host, pod_address)
    assert veth["ifname"].startswith("cali")
    assert len(veth["ifname"]) == len("cali") + 11
    assert veth["linkinfo"]["info_kind"] == "veth"
    assert veth["address"] == GATEWAY_MAC
    assert host.check_output(f"cat /proc/sys/net/ipv4/conf/{veth['ifname']}/proxy_arp") == "1"


def test_pods_route_on_the_node_is_a_host_route_without_gateway(host: Host, pod_address: str) -> None:
    routes = json.loads(host.check_output(f"ip -j route show {pod_address}"))
    assert [(r["dst"], r.get("gateway"), r["scope"]) for r in routes] == [(pod_address, None, "link")]


def test_node_has_no_bridge(host: Host) -> None:
    assert [link for link in json.loads(host.check_output("ip -j link show type bridge")) if link] == []


def test_pod_exchanges_traffic_with_the_pod_of_every_node(
    ask: Any, pods: dict[str, str], pod_address: str, node: Any
) -> None:
    for address in (address for name, address in pods.items() if name != node.name):
        assert ask(f"/icmp?host={address}")["outcome"] == "reply"
        fetched = ask(f"/fetch?host={address}&port=8080")
        assert fetched["connected"], fetched["detail"]
        assert fetched["answer"]["client"] == pod_address, "traffic between pods is not translated"


def test_largest_packet_to_the_pod_of_every_node_is_the_mtu(
    ask: Any, pods: dict[str, str], node: Any, cluster: Any, link: Any
) -> None:
    mtu = cluster.expected_mtu(link["mtu"])
    for address in (address for name, address in pods.items() if name != node.name):
        answer = ask(f"/pmtu?host={address}&high={mtu + 1}&seconds=1")
        assert (answer["largest"], answer["above"]) == (mtu, "emsgsize")
