import itertools
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.ipam.pools import (
    Eligible,
    SelectorError,
    candidate_blocks,
    matches,
    needs_labels,
    overlaps,
    select,
)
from tortie.model.resources import AllowedUse, IPPool, IPPoolSpec, Metadata


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
        ({"node_selector": "zone contains 'a'"}, "not understood"),
        ({"cidr": "fd00::/48"}, "not an IPv4 network"),
        ({"cidr": "10.5.0.1/16"}, "not an IPv4 network"),
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
    asked_for = pool(node_selector="zone contains 'a'", assignment_mode="Manual")
    assert eligible_names(asked_for, requested=True) == ["p"]
    assert eligible_names(pool(disabled=True), requested=True) == []
    assert eligible_names(pool(allowed_uses=["Tunnel"]), requested=True) == []


@pytest.mark.parametrize(
    ("selector", "result"),
    [
        ("all()", True),
        ("", True),
        (" all( ) ", True),
        ("has(zone)", True),
        ("has(rack)", False),
        ("!has(zone)", False),
        ("!has(rack)", True),
        ("zone == 'a'", True),
        ('zone == "b"', False),
        ("zone != 'b'", True),
        ("rack != 'b'", True),
        ("rack == 'b'", False),
        ("zone in {'a', 'b'}", True),
        ("zone in {}", False),
        ("zone not in {'a','b'}", False),
        ("rack not in {'a'}", True),
        ("kubernetes.io/os == 'linux'", True),
        ("has(zone) && zone == 'a'", True),
        ("all() && zone == 'b'", False),
    ],
)
def test_selector(selector: str, result: bool) -> None:
    assert matches(selector, {"zone": "a", "kubernetes.io/os": "linux"}) is result


@pytest.mark.parametrize(
    "selector",
    [
        "zone",
        "zone = 'a'",
        "zone == a",
        "has(zone) || has(rack)",
        "(has(zone))",
        "global()",
        "zone == 'b' && what?",
        "zone in {'a' 'b'}",
        "all() all()",
    ],
)
def test_selector_that_is_not_understood_is_an_error_and_never_a_match(selector: str) -> None:
    with pytest.raises(SelectorError):
        matches(selector, {"zone": "a"})


def test_labels_are_needed_only_when_some_pool_selects_by_them() -> None:
    assert not needs_labels([pool(), pool(node_selector="")])
    assert needs_labels([pool(), pool(node_selector="has(zone)")])


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


def test_overlaps_names_each_pair_once() -> None:
    pools = [pool("c", "10.5.128.0/17"), pool("a"), pool("b", "10.6.0.0/16"), pool("bad", "nonsense")]
    assert overlaps(pools) == [("a", "c")]
