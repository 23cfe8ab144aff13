"""Each kind of fault is found in its own layer, and a sound cluster has none."""

from collections.abc import Callable

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils.verify_check import LAYERS
from ansible_collections.tortie.cluster.plugins.module_utils.verify_judgement import verdict

from tests.unit.verify.faults import FAULTS, route_missing
from tests.unit.verify.healthy import ADDRESS, BLOCK, TUNNEL, Case, case

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
