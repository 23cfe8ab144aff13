import itertools
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tortie.ipam.errors import BadRequestError
from tortie.ipam.pools import (
    Eligible,
    candidate_blocks,
    is_reserved,
    named,
    needs_labels,
    overlaps,
    pool_with,
    reserved_networks,
    select,
)
from tortie.model.resources import AllowedUse, IPPool, IPPoolSpec, IPReservation, IPReservationSpec, Metadata


def pool(name: str = "p", cidr: str = "10.5.0.0/16", **spec: Any) -> IPPool:
    return IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=cidr, **spec))


def eligible_names(*pools: IPPool, use: AllowedUse = "Workload", requested: bool = False) -> list[str]:
    return [item.name for item in select(pools, use, {"zone": "a"}, requested).eligible]


def test_plain_pool_serves_workloads_and_tunnels_but_no_load_balancer() -> None:
    assert eligible_names(pool()) == ["p"]
    assert eligible_names(pool(), use="Tunnel") == ["p"]
    assert eligible_names(pool(), use="LoadBalancer") == []


def test_pools_are_tried_in_order_of_name() -> None:
    assert eligible_names(pool("b"), pool("a")) == ["a", "b"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"disabled": True}, "disabled"),
        ({"allowed_uses": ["Tunnel"]}, "allowedUses: Tunnel"),
        ({"assignment_mode": "Manual"}, "assignmentMode Manual"),
        ({"node_selector": 'zone == "b"'}, 'zone == "b"'),
        ({"node_selector": "zone ="}, "not understood"),
        ({"namespace_selector": "team =="}, "not understood"),
        ({"cidr": "fd00::/48", "block_size": 115}, "blockSize 115, which must be 116 to 128"),
        ({"cidr": "10.5.0.1/16"}, "not a network"),
        ({"block_size": 19}, "blockSize 19"),
        ({"block_size": 33}, "blockSize 33"),
        ({"cidr": "10.5.0.0/28"}, "blockSize 26, which must be 28 to 32"),
    ],
)
def test_pool_that_may_not_serve_is_rejected_with_its_name_and_the_reason(
    changed: dict[str, Any], reason: str
) -> None:
    selection = select([pool("odd", **changed)], "Workload", {"zone": "a"})
    assert selection.eligible == ()
    (sentence,) = selection.rejected
    assert sentence.startswith("odd ")
    assert reason in sentence


def test_requested_pool_needs_neither_selector_nor_automatic_mode() -> None:
    asked_for = pool(node_selector="has(nothing)", assignment_mode="Manual")
    assert eligible_names(asked_for, requested=True) == ["p"]
    assert eligible_names(pool(disabled=True), requested=True) == []
    assert eligible_names(pool(allowed_uses=["Tunnel"]), requested=True) == []


def test_namespace_selector_is_matched_with_the_namespaces_labels() -> None:
    picky = pool(namespace_selector="team == 'blue'")
    for labels, names in (({"team": "blue"}, ["p"]), ({"team": "red"}, []), (None, [])):
        selection = select([picky], "Workload", {}, namespace_labels=labels)
        assert [item.name for item in selection.eligible] == names
    assert eligible_names(picky, requested=True) == ["p"]


def test_requested_pools_are_found_by_name_or_cidr_and_keep_their_order() -> None:
    pools = [pool("a"), pool("b", "fd00:5::/64")]
    assert [item.metadata.name for item in named(pools, ["fd00:5::/64", "a", "a"])] == ["b", "a"]
    assert eligible_names(*named(pools, ["b", "a"]), requested=True) == ["b", "a"]
    with pytest.raises(BadRequestError, match=r"exactly c; there are: a \(10\.5\.0\.0/16\), b"):
        named(pools, ["a", "c"])


def test_families_are_told_apart() -> None:
    selection = select([pool("a"), pool("b", "fd00:5::/64")], "Workload", {})
    assert [item.name for item in selection.of_family(4)] == ["a"]
    assert [(item.name, item.block_size) for item in selection.of_family(6)] == [("b", 122)]


def test_certain_address_needs_an_enabled_pool_and_nothing_else() -> None:
    manual = pool("m", assignment_mode="Manual", node_selector="has(nothing)")
    assert pool_with([manual], ip_address("10.5.1.1"), "Workload").name == "m"
    with pytest.raises(BadRequestError, match="no pool contains it"):
        pool_with([manual], ip_address("10.6.1.1"), "Workload")
    with pytest.raises(BadRequestError, match="p is disabled"):
        pool_with([pool(disabled=True)], ip_address("10.5.1.1"), "Workload")


def test_reservations_are_read_as_addresses_and_networks_of_both_families() -> None:
    spec = IPReservationSpec(reserved_cidrs=["10.5.0.0/30", "10.5.1.1", "fd00::/120", "nonsense"])
    reserved = reserved_networks([IPReservation(metadata=Metadata(name="r"), spec=spec)])
    assert [str(item) for item in reserved] == ["10.5.0.0/30", "10.5.1.1/32", "fd00::/120"]
    assert is_reserved(IPv4Network("10.5.0.0/31"), reserved)
    assert not is_reserved(IPv4Network("10.5.0.0/29"), reserved)
    assert is_reserved(IPv6Network("fd00::40/122"), reserved)


def test_labels_are_needed_only_when_some_pool_selects_by_them() -> None:
    assert not needs_labels([pool(), pool(node_selector="")])
    assert needs_labels([pool(), pool(node_selector="has(zone)")])


@settings(deadline=None)
@given(st.integers(0, 8), st.integers(0, 4), st.text(min_size=1, max_size=20))
def test_candidates_are_all_blocks_of_the_pool_once_in_a_fixed_order(
    bits: int, extra: int, node: str
) -> None:
    network = IPv4Network((int(IPv4Network("10.64.0.0/16").network_address), 28 - bits))
    item = Eligible("p", network, 28 - bits + min(bits + extra, 4 + bits))
    candidates = list(candidate_blocks(item, node))
    assert sorted(candidates) == list(network.subnets(new_prefix=item.block_size))
    assert candidates == list(candidate_blocks(item, node))


def test_candidates_of_different_nodes_start_at_different_places() -> None:
    item = Eligible("p", IPv4Network("10.0.0.0/8"), 26)
    first = [next(candidate_blocks(item, f"node-{number}")) for number in range(50)]
    assert len(set(first)) > 45


def test_candidates_wrap_around() -> None:
    item = Eligible("p", IPv4Network("10.5.0.0/24"), 26)
    candidates = list(candidate_blocks(item, "some-node"))
    steps = {
        (int(b.network_address) - int(a.network_address)) % 256 for a, b in itertools.pairwise(candidates)
    }
    assert steps == {64}


def test_candidates_of_a_huge_pool_are_made_one_at_a_time() -> None:
    item = Eligible("p", IPv4Network("0.0.0.0/0"), 32)
    assert next(candidate_blocks(item, "n")).prefixlen == 32


def test_candidates_of_an_ipv6_pool_lie_in_it() -> None:
    item = Eligible("p", IPv6Network("fd00:5::/64"), 122)
    first = next(candidate_blocks(item, "n"))
    assert isinstance(first, IPv6Network)
    assert first.subnet_of(IPv6Network("fd00:5::/64"))


def test_overlaps_names_each_pair_once() -> None:
    pools = [pool("c", "10.5.128.0/17"), pool("a"), pool("b", "10.6.0.0/16"), pool("bad", "nonsense")]
    assert overlaps(pools) == [("a", "c")]
