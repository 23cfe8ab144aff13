"""Pools and claims, from the wire to typed values."""

from ipaddress import IPv4Network

from tortie.model.resources import (
    AffinityState,
    BlockAffinity,
    BlockAffinitySpec,
    IPPool,
    IPPoolSpec,
    Metadata,
)
from tortie.routing.pools import BlockClaim, Pool, parse_claims, parse_pools, pool_of, tunnels_in_use


def ippool(name: str, spec: IPPoolSpec) -> IPPool:
    return IPPool(metadata=Metadata(name=name), spec=spec)


def affinity(
    cidr: str, state: AffinityState = "confirmed", deleted: str = "false", kind: str = "host"
) -> BlockAffinity:
    spec = BlockAffinitySpec(node="n1", cidr=cidr, state=state, deleted=deleted, type=kind)
    return BlockAffinity(metadata=Metadata(name="n1-x"), spec=spec)


def test_disabled_pool_still_routes_and_masquerades() -> None:
    pools, problems = parse_pools(
        [ippool("a", IPPoolSpec(cidr="10.5.0.0/16", disabled=True, nat_outgoing=True, vxlan_mode="Always"))]
    )
    assert pools == (Pool(IPv4Network("10.5.0.0/16"), vxlan="Always", nat_outgoing=True),)
    assert problems == ()


def test_pool_with_both_encapsulations_counts_as_vxlan_and_is_reported() -> None:
    pools, problems = parse_pools(
        [ippool("a", IPPoolSpec(cidr="10.5.0.0/16", ipip_mode="Always", vxlan_mode="CrossSubnet"))]
    )
    assert pools == (Pool(IPv4Network("10.5.0.0/16"), ipip="Never", vxlan="CrossSubnet"),)
    assert "IPPool a" in problems[0]
    assert "ipipMode Always" in problems[0]


def test_unreadable_pools_are_left_out_with_a_sentence_each() -> None:
    pools, problems = parse_pools(
        [
            ippool("bad", IPPoolSpec(cidr="10.5.0.1/16")),
            ippool("six", IPPoolSpec(cidr="fd00::/48")),
            ippool("good", IPPoolSpec(cidr="10.6.0.0/16", disable_bgp_export=True)),
        ]
    )
    assert pools == (Pool(IPv4Network("10.6.0.0/16"), bgp_export=False),)
    assert [problem.split(":")[0] for problem in problems] == ["IPPool bad", "IPPool six"]


def test_tunnel_of_an_ipv6_pool_is_reported_and_makes_none() -> None:
    pools, problems = parse_pools([ippool("six", IPPoolSpec(cidr="fd00::/48", vxlan_mode="Always"))])
    assert tunnels_in_use(pools) == frozenset()
    assert problems == (
        "IPPool six: cidr fd00::/48 is IPv6, which is not routed between nodes; its vxlanMode Always has no "
        "effect.",
    )


def test_only_confirmed_live_host_claims_count() -> None:
    claims, problems = parse_claims(
        [
            affinity("10.5.0.0/26"),
            affinity("10.5.0.64/26", state="pending"),
            affinity("10.5.0.128/26", state="pendingDeletion"),
            affinity("10.5.0.192/26", deleted="true"),
            affinity("10.5.1.0/26", kind="virtual"),
            affinity("fd00::/122"),
            affinity("10.5.1.1/26"),
        ]
    )
    assert claims == (BlockClaim(IPv4Network("10.5.0.0/26"), "n1"),)
    assert len(problems) == 1
    assert "10.5.1.1/26" in problems[0]


def test_most_specific_pool_owns_a_block() -> None:
    wide, narrow = Pool(IPv4Network("10.0.0.0/8")), Pool(IPv4Network("10.5.0.0/16"), vxlan="Always")
    assert pool_of(IPv4Network("10.5.1.0/26"), (wide, narrow)) == narrow
    assert pool_of(IPv4Network("10.6.1.0/26"), (wide, narrow)) == wide
    assert pool_of(IPv4Network("192.168.0.0/26"), (wide, narrow)) is None


def test_cross_subnet_needs_the_tunnel_too() -> None:
    pools = [
        Pool(IPv4Network("10.5.0.0/16"), ipip="CrossSubnet"),
        Pool(IPv4Network("10.6.0.0/16"), vxlan="Always"),
        Pool(IPv4Network("10.7.0.0/16")),
    ]
    assert tunnels_in_use(pools) == {"ipip", "vxlan"}
    assert tunnels_in_use(pools[2:]) == frozenset()
