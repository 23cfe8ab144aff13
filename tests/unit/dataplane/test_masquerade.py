"""The nftables table: what is written, and how what is there is judged."""

from ipaddress import IPv4Network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tortie.dataplane.masquerade import (
    RULES,
    LoadedMasquerade,
    SetMasquerade,
    _mark,
    change,
    normal,
    parse,
    script,
)
from tortie.routing.state import Masquerade

POOL = IPv4Network("10.5.0.0/16")
OTHER = IPv4Network("10.6.0.0/16")
WANTED = Masquerade(frozenset({POOL}), frozenset({POOL, OTHER}))

networks = st.builds(
    lambda number, length: IPv4Network((number << (32 - length), length)),
    st.integers(0, 255),
    st.integers(8, 30),
)


def listing(masquerade: Masquerade, marks: list[str] | None = None, **chain: object) -> list[dict[str, Any]]:
    """What `nft -j list table` shows for our table."""

    def elements(values: frozenset[IPv4Network]) -> list[dict[str, Any]]:
        return [
            {"prefix": {"addr": str(value.network_address), "len": value.prefixlen}}
            for value in sorted(values)
        ]

    shape = {
        "name": "postrouting",
        "type": "nat",
        "hook": "postrouting",
        "prio": 110,
        "policy": "accept",
    } | chain
    rules = [_mark(rule) for rule in RULES] if marks is None else marks
    return [
        {"metainfo": {}},
        {"table": {"name": "tortie_nat"}},
        {"set": {"name": "pools", "elem": elements(masquerade.pools)}},
        {"set": {"name": "sources", "elem": elements(masquerade.sources)}},
        {"chain": shape},
        *({"rule": {"comment": mark}} for mark in rules),
    ]


def test_traffic_to_a_pool_returns_before_anything_is_masqueraded() -> None:
    text = script(WANTED)
    assert text.index("ip daddr @pools return") < text.index("ip saddr @sources masquerade")


def test_the_table_is_replaced_in_one_transaction() -> None:
    assert script(WANTED).startswith(
        "add table ip tortie_nat\ndelete table ip tortie_nat\ntable ip tortie_nat {"
    )


def test_nothing_to_masquerade_removes_the_table() -> None:
    assert (
        script(Masquerade(pools=frozenset({POOL}))) == "add table ip tortie_nat\ndelete table ip tortie_nat\n"
    )
    assert change(LoadedMasquerade(True), Masquerade()) == SetMasquerade(Masquerade())
    assert change(LoadedMasquerade(), Masquerade(pools=frozenset({POOL}))) is None


def test_our_own_table_is_recognised() -> None:
    assert parse(listing(WANTED)) == WANTED
    assert change(LoadedMasquerade(True, parse(listing(WANTED))), WANTED) is None


def test_overlapping_pools_are_the_same_as_the_larger_one() -> None:
    inner = IPv4Network("10.5.3.0/24")
    wanted = Masquerade(frozenset({POOL, inner}), frozenset({POOL, inner, OTHER}))
    assert normal(wanted) == WANTED
    assert "10.5.3.0" not in script(wanted)


def test_ranges_and_single_addresses_are_read() -> None:
    items = listing(WANTED)
    items[2]["set"]["elem"] = [{"range": ["10.5.0.0", "10.6.255.255"]}, "10.7.0.1"]
    found = parse(items)
    assert found is not None
    assert found.pools == {POOL, OTHER, IPv4Network("10.7.0.1/32")}


def test_every_kind_of_tampering_is_drift() -> None:
    first, second = (_mark(rule) for rule in RULES)
    tampered = [
        listing(WANTED, marks=[]),
        listing(WANTED, marks=[second, first]),
        listing(WANTED, marks=[first, second, ""]),
        listing(WANTED, prio=100),
        listing(WANTED, policy="drop"),
        listing(WANTED)[:4],
        [item for item in listing(WANTED) if item.get("set", {}).get("name") != "pools"],
    ]
    for items in tampered:
        assert parse(items) is None
        assert change(LoadedMasquerade(True, parse(items)), WANTED) == SetMasquerade(WANTED)
    fewer = Masquerade(frozenset({POOL}), frozenset({POOL}))
    assert change(LoadedMasquerade(True, parse(listing(fewer))), WANTED) == SetMasquerade(WANTED)


@given(st.frozensets(networks, min_size=1), st.frozensets(networks))
def test_the_normal_form_covers_the_same_addresses_without_overlap(
    sources: frozenset[IPv4Network], pools: frozenset[IPv4Network]
) -> None:
    result = normal(Masquerade(sources, pools))
    for before, after in ((sources, result.sources), (pools, result.pools)):
        assert all(any(network.subnet_of(kept) for kept in after) for network in before)
        assert not any(one != two and one.overlaps(two) for one in after for two in after)
        assert sum(kept.num_addresses for kept in after) <= sum(network.num_addresses for network in before)
