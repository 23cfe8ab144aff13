"""iproute2's and nft's JSON as facts: the corners that the integration test's kernel does not show."""

from typing import Any

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils.verify_kernel import (
    fragments_created,
    parse_fdb,
    parse_links,
    parse_masquerade,
    parse_neighbours,
    parse_path,
    parse_routes,
)


def test_empty_entries_that_iproute2_prints_for_filtered_links_are_passed_over() -> None:
    assert parse_links([{}]) == {}
    assert parse_routes([{}]) == []
    assert parse_neighbours([{}]) == []
    assert parse_fdb([{}]) == []


def test_default_route_and_host_route_become_cidrs() -> None:
    entries = [{"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"}, {"dst": "10.5.0.1", "dev": "cali1"}]
    assert [route["destination"] for route in parse_routes(entries)] == ["0.0.0.0/0", "10.5.0.1/32"]


@pytest.mark.parametrize("kind", ["blackhole", "6"])
def test_blackhole_is_known_by_name_and_by_number(kind: str) -> None:
    assert parse_routes([{"type": kind, "dst": "10.5.0.0/26", "protocol": "80"}])[0]["kind"] == "blackhole"


def test_route_without_protocol_is_boot() -> None:
    assert parse_routes([{"dst": "10.5.0.0/26", "dev": "eth0"}])[0]["protocol"] == 3


def test_fdb_entries_without_destination_lead_to_no_node() -> None:
    entries = [
        {"mac": "33:33:00:00:00:01", "ifname": "vxlan.calico", "state": "permanent"},
        {"mac": "66:00:00:00:00:01", "ifname": "vxlan.calico", "dst": "10.30.200.2", "state": "permanent"},
    ]
    assert [entry["address"] for entry in parse_fdb(entries)] == ["10.30.200.2"]


def test_path_to_nowhere_has_no_device() -> None:
    assert parse_path([]) == {"device": "", "gateway": ""}


def rule(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"rule": {"family": "ip", "table": "tortie_nat", "chain": "postrouting", "expr": list(statements)}}


def saddr(right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": right}}


PREFIX = {"prefix": {"addr": "10.5.0.0", "len": 16}}
SET = {"set": {"name": "sources", "elem": [PREFIX, {"range": ["10.9.0.0", "10.9.0.9"]}, "192.0.2.7"]}}
OTHER_SET = {"set": {"name": "pools", "elem": [{"prefix": {"addr": "10.6.0.0", "len": 16}}]}}
MASQUERADE = {"masquerade": {"flags": "fully-random"}}


def test_masquerade_is_for_the_networks_of_the_set_that_its_rule_names() -> None:
    ruleset = {"nftables": [SET, OTHER_SET, rule(saddr("@sources"), MASQUERADE)]}
    found = parse_masquerade(["ip tortie_nat"], [ruleset])
    assert found["masquerades"] is True
    assert found["networks"] == ["10.5.0.0/16", "10.9.0.0-10.9.0.9", "192.0.2.7/32"]


def test_masquerade_of_a_prefix_in_the_rule_itself() -> None:
    assert parse_masquerade([], [{"nftables": [rule(saddr(PREFIX), MASQUERADE)]}])["networks"] == [
        "10.5.0.0/16"
    ]


def test_rule_for_everything_but_a_network_is_not_for_that_network() -> None:
    found = parse_masquerade([], [{"nftables": [rule(saddr(PREFIX, "!="), MASQUERADE)]}])
    assert (found["masquerades"], found["networks"]) == (True, [])


def test_rule_that_only_returns_masquerades_nothing() -> None:
    found = parse_masquerade([], [{"nftables": [SET, rule(saddr("@sources"), {"return": None})]}])
    assert (found["masquerades"], found["networks"]) == (False, [])


def test_fragments_are_found_by_name_not_by_place() -> None:
    assert (
        fragments_created("Ip: Forwarding FragCreates InHdrErrors\nIp: 1 42 7\nIcmp: InMsgs\nIcmp: 3\n") == 42
    )


def test_kernel_that_counts_no_fragments_is_an_error() -> None:
    with pytest.raises(ValueError, match="FragCreates"):
        fragments_created("Ip: Forwarding\nIp: 1\n")
