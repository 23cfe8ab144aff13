"""Each kind of fault is found in its own layer, and a sound cluster has none."""

from collections.abc import Callable

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils.verify_check import LAYERS
from ansible_collections.tortie.cluster.plugins.module_utils.verify_judgement import verdict

from tests.unit.verify.healthy import ADDRESS, BLOCK, MAC, TUNNEL, Case, case

M, W = "master-01", "worker-01"


@pytest.mark.parametrize("mode", ["Always", "CrossSubnet"])
@pytest.mark.parametrize("kind", ["vxlan", "ipip", "none"])
def test_sound_cluster_has_no_failure_in_any_layer(kind: str, mode: str) -> None:
    checks = case(kind, mode).judge()
    assert [check for check in checks if check.status == "failed"] == []
    assert {check.layer for check in checks} == set(LAYERS)
    assert verdict(checks).startswith("All ")


def test_every_layer_makes_checks_on_every_node_or_pair_of_a_vxlan_cluster() -> None:
    made = {(check.layer, check.subject) for check in case().judge() if check.ok}
    pairs = {f"{M} > {W}", f"{W} > {M}"}
    for layer in ("nodes", "address", "tunnel", "block", "mtu", "service", "masquerade"):
        assert {(layer, M), (layer, W)} <= made
    for layer in ("bgp", "route", "neighbour", "pod", "mtu"):
        assert {(layer, pair) for pair in pairs} <= made
    assert {("pod", f"{M} > {M}"), ("pod", f"{W} > {W}")} <= made


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


@pytest.mark.parametrize(
    ("layer", "breaks"),
    [pytest.param(layer, fault, id=fault.__name__) for layer, faults in FAULTS.items() for fault in faults],
)
def test_fault_is_reported_in_its_layer_first(layer: str, breaks: Callable[[Case], None]) -> None:
    broken = case()
    breaks(broken)
    assert broken.failing_layers()[:1] == [layer]
    assert f"First failing layer: {layer}," in verdict(broken.judge())


def test_every_layer_has_a_fault_in_this_table() -> None:
    assert set(FAULTS) == set(LAYERS)


@pytest.mark.parametrize("kind", ["ipip", "none"])
def test_route_not_written_by_bird_is_a_failure_without_vxlan(kind: str) -> None:
    broken = case(kind)
    broken.facts[W]["routes"][-1]["protocol"] = 80
    assert broken.failing_layers() == ["route"]


def test_cross_subnet_route_through_the_tunnel_is_a_failure_on_one_subnet() -> None:
    broken = case("ipip", "CrossSubnet")
    broken.facts[W]["routes"][-1].update({"device": "tunl0", "onlink": True})
    assert broken.failing_layers() == ["route"]


def test_peer_on_another_subnet_is_reached_through_the_tunnel_in_cross_subnet_mode() -> None:
    across = case("ipip", "CrossSubnet")
    for node in across.cluster["nodes"]:
        node["annotations"]["IPv4Address"] = f"{ADDRESS[node['name']]}/32"
    for name in (M, W):
        across.facts[name]["links"]["eth0"]["addresses"] = [f"{ADDRESS[name]}/32"]
        across.facts[name]["routes"][-1].update({"device": "tunl0", "onlink": True})
    assert across.failing_layers() == []


def test_unencapsulated_peer_behind_a_router_is_reached_by_the_kernels_own_path() -> None:
    routed = case("none")
    for node in routed.cluster["nodes"]:
        node["annotations"]["IPv4Address"] = f"{ADDRESS[node['name']]}/32"
    for name, peer in ((M, W), (W, M)):
        routed.facts[name]["links"]["eth0"]["addresses"] = [f"{ADDRESS[name]}/32"]
        routed.facts[name]["paths"] = {ADDRESS[peer]: {"device": "eth0", "gateway": "10.30.200.254"}}
        routed.facts[name]["routes"][-1]["gateway"] = "10.30.200.254"
    assert routed.failing_layers() == []
    routed.facts[W]["routes"][-1]["gateway"] = "10.30.200.253"
    assert routed.failing_layers() == ["route"]


def test_mtu_from_the_inventory_overrides_the_links() -> None:
    explicit = case("ipip")
    explicit.expect["mtu"] = 1440
    assert explicit.failing_layers() == ["tunnel", "mtu"]
    for name in (M, W):
        explicit.facts[name]["mtu_file"] = 1440
        explicit.facts[name]["links"]["tunl0"]["mtu"] = 1440
        for interface in explicit.probes[name]["interfaces"].values():
            interface["mtu"] = 1440
        for peer in explicit.probes[name]["peers"].values():
            peer["largest"] = 1440
    assert explicit.failing_layers() == []


def test_mtu_that_does_not_fit_the_link_is_a_failure_though_it_was_asked_for() -> None:
    explicit = case()
    explicit.expect["mtu"] = 1500
    found = [check for check in explicit.judge() if check.layer == "mtu" and check.what == "fits the link"]
    assert [check.status for check in found] == ["failed", "failed"]
    assert "1450" in found[0].hint


def test_unreachable_node_fails_in_nodes_and_everything_else_of_it_is_listed_as_not_checked() -> None:
    broken = case()
    del broken.facts[W], broken.probes[W]
    checks = broken.judge()
    assert broken.failing_layers() == ["nodes"]
    for layer in (
        "address",
        "tunnel",
        "block",
        "bgp",
        "route",
        "neighbour",
        "pod",
        "mtu",
        "service",
        "masquerade",
    ):
        skipped = [c for c in checks if c.layer == layer and c.node == W and c.status == "not checked"]
        assert skipped, layer
        assert all(check.found for check in skipped)


def test_no_answer_from_the_api_server_fails_in_nodes_and_blames_no_host() -> None:
    broken = case()
    broken.cluster.update(
        {"nodes": [], "affinities": [], "pools": [], "errors": ["the first control plane could not be asked"]}
    )
    assert broken.failing_layers() == ["nodes"]
    assert {check.layer for check in broken.judge() if check.status == "not checked"} == {*LAYERS} - {"nodes"}
    failed = [check for check in broken.judge() if check.layer == "nodes" and check.status == "failed"]
    assert [check.what for check in failed] == ["API server answers"]


def test_check_mode_makes_no_probes_and_says_so() -> None:
    dry = case()
    dry.cluster.update({"unprobed": "probe pods are not created in check mode", "sources": [], "targets": []})
    dry.probes.clear()
    assert dry.failing_layers() == []
    skipped = [check for check in dry.judge() if check.layer in ("pod", "mtu", "service", "dns")]
    assert {check.status for check in skipped} == {"not checked"}
    assert {check.layer for check in skipped} == {"pod", "mtu", "service", "dns"}


def test_host_is_matched_with_its_node_by_nodename_file_whatever_the_inventory_calls_it() -> None:
    renamed = case()
    renamed.expect["hosts"] = {"a": ADDRESS[M], "b": ""}
    renamed.facts = {"a": renamed.facts[M], "b": renamed.facts[W]}
    renamed.probes = {"a": renamed.probes[M], "b": renamed.probes[W]}
    assert renamed.failing_layers() == []


def test_verdict_names_layer_node_peer_expected_found_and_where_to_look() -> None:
    broken = case()
    route_missing(broken)
    sentence = verdict(broken.judge())
    assert f"First failing layer: route, on {W} > {M}." in sentence
    assert f"expected via {TUNNEL[M]} dev vxlan.calico proto 80 onlink, found no route" in sentence
    assert f"ip route show {BLOCK[M]}" in sentence
