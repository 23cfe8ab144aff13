"""Ways to break a sound cluster, one at a time, by the layer that has to report each."""

from collections.abc import Callable

from tests.unit.verify.healthy import ADDRESS, MAC, TUNNEL, Case

M, W = "master-01", "worker-01"


def node_not_ready(c: Case) -> None:
    c.cluster["nodes"][1]["ready"] = False


def agent_missing(c: Case) -> None:
    c.cluster["agents"].pop()


def agent_not_ready(c: Case) -> None:
    c.cluster["agents"][0]["ready"] = False


def host_never_joined(c: Case) -> None:
    c.expect["hosts"]["worker-02"] = "10.30.200.3"


def api_server_silent(c: Case) -> None:
    c.cluster["errors"].append("connection refused")


def facts_unreadable(c: Case) -> None:
    c.facts[M]["errors"].append("ip: not found")


def pool_other_cidr(c: Case) -> None:
    c.expect["pool_cidr"] = "10.6.0.0/16"


def pool_other_encapsulation(c: Case) -> None:
    c.expect["encapsulation"] = "ipip"


def pool_other_mode(c: Case) -> None:
    c.expect["mode"] = "cross-subnet"


def pool_other_block_size(c: Case) -> None:
    c.expect["block_size"] = 24


def pool_disabled(c: Case) -> None:
    c.cluster["pools"][0]["disabled"] = True


def pool_no_nat(c: Case) -> None:
    c.expect["nat_outgoing"] = False


def address_annotation_missing(c: Case) -> None:
    del c.cluster["nodes"][1]["annotations"]["IPv4Address"]


def address_not_the_inventorys(c: Case) -> None:
    c.expect["hosts"][W] = "192.0.2.9"


def address_on_no_link(c: Case) -> None:
    c.facts[W]["links"]["eth0"]["addresses"] = ["192.0.2.9/24"]


def address_other_prefix_length(c: Case) -> None:
    c.facts[W]["links"]["eth0"]["addresses"] = [f"{ADDRESS[W]}/16"]


def address_on_wrong_interface(c: Case) -> None:
    c.expect["autodetection"] = "interface=ens5"


def address_outside_cidr(c: Case) -> None:
    c.expect["autodetection"] = "cidr=192.0.2.0/24"


def tunnel_missing(c: Case) -> None:
    del c.facts[W]["links"]["vxlan.calico"]


def tunnel_down(c: Case) -> None:
    c.facts[W]["links"]["vxlan.calico"]["up"] = False


def tunnel_without_address(c: Case) -> None:
    c.facts[W]["links"]["vxlan.calico"]["addresses"] = []


def tunnel_second_address(c: Case) -> None:
    c.facts[W]["links"]["vxlan.calico"]["addresses"].append("10.5.0.99/32")


def tunnel_mtu(c: Case) -> None:
    c.facts[W]["links"]["vxlan.calico"]["mtu"] = 1500


def tunnel_vni(c: Case) -> None:
    vxlan = c.facts[W]["links"]["vxlan.calico"]["vxlan"]
    assert vxlan is not None
    vxlan["vni"] = 1


def tunnel_port(c: Case) -> None:
    vxlan = c.facts[W]["links"]["vxlan.calico"]["vxlan"]
    assert vxlan is not None
    vxlan["port"] = 8472


def tunnel_local(c: Case) -> None:
    vxlan = c.facts[W]["links"]["vxlan.calico"]["vxlan"]
    assert vxlan is not None
    vxlan["local"] = "192.0.2.9"


def tunnel_not_vxlan(c: Case) -> None:
    c.facts[W]["links"]["vxlan.calico"]["vxlan"] = None


def tunnel_mac(c: Case) -> None:
    c.facts[W]["links"]["vxlan.calico"]["mac"] = "66:00:00:00:00:77"


def block_pending(c: Case) -> None:
    c.cluster["affinities"][1]["state"] = "pending"


def block_without_blackhole(c: Case) -> None:
    c.facts[W]["routes"] = [route for route in c.facts[W]["routes"] if route["kind"] != "blackhole"]


def block_outside_pools(c: Case) -> None:
    c.cluster["affinities"].append({"node": W, "cidr": "10.9.0.0/26", "state": "confirmed"})


def bird_silent(c: Case) -> None:
    c.facts[W]["bird_error"] = "BIRD does not answer"


def session_missing(c: Case) -> None:
    c.facts[W]["sessions"].clear()


def session_not_established(c: Case) -> None:
    c.facts[W]["sessions"][0]["bgp_state"] = "Connect"


def session_without_block(c: Case) -> None:
    c.facts[W]["sessions"][0]["networks"] = []


def route_missing(c: Case) -> None:
    c.facts[W]["routes"].pop()


def route_wrong_device(c: Case) -> None:
    c.facts[W]["routes"][-1]["device"] = "eth0"


def route_wrong_gateway(c: Case) -> None:
    c.facts[W]["routes"][-1]["gateway"] = ADDRESS[M]


def route_wrong_writer(c: Case) -> None:
    c.facts[W]["routes"][-1]["protocol"] = 12


def route_not_onlink(c: Case) -> None:
    c.facts[W]["routes"][-1]["onlink"] = False


def route_blackholes_peer(c: Case) -> None:
    c.facts[W]["routes"][-1]["kind"] = "blackhole"


def route_doubled(c: Case) -> None:
    c.facts[W]["routes"].append({**c.facts[W]["routes"][-1], "protocol": 3})


def neighbour_missing(c: Case) -> None:
    c.facts[W]["neighbours"].clear()


def neighbour_learned(c: Case) -> None:
    c.facts[W]["neighbours"][0]["permanent"] = False


def neighbour_other_mac(c: Case) -> None:
    c.facts[W]["neighbours"][0]["mac"] = MAC[W]


def fdb_missing(c: Case) -> None:
    c.facts[W]["fdb"].clear()


def fdb_to_another_node(c: Case) -> None:
    c.facts[W]["fdb"][0]["address"] = "192.0.2.9"


def pod_not_ready(c: Case) -> None:
    c.cluster["targets"][0]["ready"] = False


def pod_missing(c: Case) -> None:
    c.cluster["sources"].pop()


def pod_probe_silent(c: Case) -> None:
    c.probes[W]["errors"].append("no answer")


def pod_other_address(c: Case) -> None:
    c.probes[W]["interfaces"]["source"]["address"] = "10.5.0.99/32"


def pod_not_slash_32(c: Case) -> None:
    c.probes[W]["interfaces"]["source"]["address"] = "10.5.0.65/26"


def pod_other_gateway(c: Case) -> None:
    c.probes[W]["interfaces"]["target"]["routes"][0]["gateway"] = "10.5.0.65"


def pod_tcp(c: Case) -> None:
    c.probes[W]["peers"][M].update({"tcp": False, "tcp_detail": "no answer", "seen_as": ""})


def pod_icmp(c: Case) -> None:
    c.probes[W]["peers"][M]["icmp"] = False


def pod_same_node(c: Case) -> None:
    c.probes[W]["peers"][W]["tcp"] = False


def pod_masqueraded(c: Case) -> None:
    c.probes[W]["peers"][M]["seen_as"] = TUNNEL[W]


def mtu_file(c: Case) -> None:
    c.facts[W]["mtu_file"] = 1500


def mtu_of_eth0(c: Case) -> None:
    c.probes[W]["interfaces"]["target"]["mtu"] = 1500


def mtu_smaller_path(c: Case) -> None:
    c.probes[W]["peers"][M]["largest"] = 1400


def mtu_larger_path(c: Case) -> None:
    c.probes[W]["peers"][M]["largest"] = 1451


def mtu_one_more_vanishes(c: Case) -> None:
    c.probes[W]["peers"][M]["above"] = "timeout"


def mtu_fragments(c: Case) -> None:
    c.probes[W]["fragments"] = 2


def service_unreachable(c: Case) -> None:
    c.probes[W]["services"]["kubernetes"] = {"connected": False, "detail": "refused"}


def service_without_endpoint(c: Case) -> None:
    c.cluster["probe_service"] = {"address": "10.96.0.20", "port": 8080, "ready": False}


def dns_without_endpoint(c: Case) -> None:
    c.cluster["dns_service"] = {"address": "10.96.0.10", "port": 53, "ready": False}


def dns_no_answer(c: Case) -> None:
    c.cluster["dns_service"] = {"address": "10.96.0.10", "port": 53, "ready": True}


def dns_wrong_answer(c: Case) -> None:
    c.cluster["dns_service"] = {"address": "10.96.0.10", "port": 53, "ready": True}
    for probe in c.probes.values():
        probe["dns_addresses"] = ["192.0.2.9"]


def masquerade_missing(c: Case) -> None:
    c.facts[W]["masquerade"] = {"tables": [], "masquerades": False, "networks": []}


def masquerade_for_another_pool(c: Case) -> None:
    c.facts[W]["masquerade"] = {"tables": ["ip tortie"], "masquerades": True, "networks": ["10.6.0.0/16"]}


FAULTS: dict[str, list[Callable[[Case], None]]] = {
    "nodes": [
        node_not_ready,
        agent_missing,
        agent_not_ready,
        host_never_joined,
        api_server_silent,
        facts_unreadable,
    ],
    "pool": [
        pool_other_cidr,
        pool_other_encapsulation,
        pool_other_mode,
        pool_other_block_size,
        pool_disabled,
        pool_no_nat,
    ],
    "address": [
        address_annotation_missing,
        address_not_the_inventorys,
        address_on_no_link,
        address_other_prefix_length,
        address_on_wrong_interface,
        address_outside_cidr,
    ],
    "tunnel": [
        tunnel_missing,
        tunnel_down,
        tunnel_without_address,
        tunnel_second_address,
        tunnel_mtu,
        tunnel_vni,
        tunnel_port,
        tunnel_local,
        tunnel_not_vxlan,
        tunnel_mac,
    ],
    "block": [block_pending, block_without_blackhole, block_outside_pools],
    "bgp": [bird_silent, session_missing, session_not_established, session_without_block],
    "route": [
        route_missing,
        route_wrong_device,
        route_wrong_gateway,
        route_wrong_writer,
        route_not_onlink,
        route_blackholes_peer,
        route_doubled,
    ],
    "neighbour": [
        neighbour_missing,
        neighbour_learned,
        neighbour_other_mac,
        fdb_missing,
        fdb_to_another_node,
    ],
    "pod": [
        pod_not_ready,
        pod_missing,
        pod_probe_silent,
        pod_other_address,
        pod_not_slash_32,
        pod_other_gateway,
        pod_tcp,
        pod_icmp,
        pod_same_node,
        pod_masqueraded,
    ],
    "mtu": [
        mtu_file,
        mtu_of_eth0,
        mtu_smaller_path,
        mtu_larger_path,
        mtu_one_more_vanishes,
        mtu_fragments,
    ],
    "service": [service_unreachable, service_without_endpoint],
    "dns": [dns_without_endpoint, dns_no_answer, dns_wrong_answer],
    "masquerade": [masquerade_missing, masquerade_for_another_pool],
}
