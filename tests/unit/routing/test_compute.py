"""Desired state of a node, for a cluster of three and for arbitrary clusters."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from tortie.model.nodeinfo import BGPNode
from tortie.routing.borrowed import Borrowed
from tortie.routing.compute import Cluster, compute, usable_claims
from tortie.routing.pools import BlockClaim, Pool, pool_of
from tortie.routing.state import HostLink, IPIPTunnel, Masquerade, Route, VXLANPeer, VXLANTunnel

LINK = HostLink("eth0", 2, 1500, IPv4Interface("10.30.200.1/24"))


def node(number: int, subnet: int = 200) -> BGPNode:
    return BGPNode(
        name=f"n{number}",
        ipv4=IPv4Interface(f"10.30.{subnet}.{number}/24"),
        ipip_tunnel=IPv4Address(f"10.5.{number}.1"),
        vxlan_tunnel=IPv4Address(f"10.5.{number}.0"),
        vxlan_mac=f"66:00:00:00:00:{number:02x}",
    )


def claim(block: str, owner: int) -> BlockClaim:
    return BlockClaim(IPv4Network(block), f"n{owner}")


def cluster(pool: Pool, *extra: BlockClaim) -> Cluster:
    """n1 and n2 share a subnet, n3 lives in another; each has one block."""
    claims = (claim("10.5.1.0/26", 1), claim("10.5.2.0/26", 2), claim("10.5.3.0/26", 3), *extra)
    return Cluster(nodes=(node(1), node(2), node(3, subnet=201)), pools=(pool,), claims=claims)


POOL = IPv4Network("10.5.0.0/16")
OWN = Route(IPv4Network("10.5.1.0/26"), kind="blackhole")


def vxlan_route(number: int) -> Route:
    return Route(
        IPv4Network(f"10.5.{number}.0/26"), "vxlan.calico", IPv4Address(f"10.5.{number}.0"), onlink=True
    )


def test_vxlan_routes_every_peer_block_through_its_vtep() -> None:
    outcome = compute(node(1), LINK, cluster(Pool(POOL, vxlan="Always", nat_outgoing=True)), 0)
    assert outcome.problems == ()
    state = outcome.state
    assert state.routes == {OWN, vxlan_route(2), vxlan_route(3)}
    assert state.vxlan == VXLANTunnel(
        IPv4Address("10.5.1.0"), "66:00:00:00:00:01", 1450, "eth0", IPv4Address("10.30.200.1")
    )
    assert state.vxlan_peers == {
        VXLANPeer(IPv4Address("10.5.2.0"), "66:00:00:00:00:02", IPv4Address("10.30.200.2")),
        VXLANPeer(IPv4Address("10.5.3.0"), "66:00:00:00:00:03", IPv4Address("10.30.201.3")),
    }
    assert state.ipip is None
    assert state.masquerade == Masquerade(frozenset({POOL}), frozenset({POOL}))


def test_vxlan_cross_subnet_leaves_the_own_subnet_unencapsulated() -> None:
    state = compute(node(1), LINK, cluster(Pool(POOL, vxlan="CrossSubnet")), 1400).state
    near = Route(IPv4Network("10.5.2.0/26"), "eth0", IPv4Address("10.30.200.2"), onlink=True)
    assert state.routes == {OWN, near, vxlan_route(3)}
    assert state.vxlan is not None
    assert state.vxlan.mtu == 1400
    assert state.masquerade.sources == frozenset()


def test_ipip_makes_the_tunnel_and_leaves_the_routes_to_bird() -> None:
    state = compute(node(1), LINK, cluster(Pool(POOL, ipip="Always")), 0).state
    assert state.ipip == IPIPTunnel(IPv4Address("10.5.1.1"), 1480)
    assert state.routes == {OWN}
    assert state.vxlan is None
    assert state.vxlan_peers == frozenset()


def test_no_encapsulation_has_neither_tunnel_nor_routes_of_ours() -> None:
    state = compute(node(1), LINK, cluster(Pool(POOL)), 0).state
    assert state.ipip is None
    assert state.vxlan is None
    assert state.routes == {OWN}


def test_block_of_a_node_without_vtep_gets_no_route_but_a_sentence() -> None:
    base = cluster(Pool(POOL, vxlan="Always"))
    nodes = (node(1), replace(node(2), vxlan_tunnel=None), replace(node(3), ipv4=None))
    outcome = compute(node(1), LINK, replace(base, nodes=nodes), 0)
    assert outcome.state.routes == {OWN}
    assert outcome.state.vxlan_peers == frozenset()
    assert any("10.5.2.0/26" in problem and "n2" in problem for problem in outcome.problems)
    assert any("10.5.3.0/26" in problem and "address" in problem for problem in outcome.problems)


def test_claim_of_unknown_node_is_left_out_with_a_sentence() -> None:
    outcome = compute(node(1), LINK, cluster(Pool(POOL, vxlan="Always"), claim("10.5.9.0/26", 9)), 0)
    assert outcome.state.routes == {OWN, vxlan_route(2), vxlan_route(3)}
    assert outcome.problems == (
        "Block 10.5.9.0/26 belongs to node n9, which does not exist; it gets no route.",
    )


def test_claim_outside_every_pool_is_left_out_with_a_sentence() -> None:
    outcome = compute(node(1), LINK, cluster(Pool(POOL, vxlan="Always"), claim("10.9.0.0/26", 2)), 0)
    assert outcome.state.routes == {OWN, vxlan_route(2), vxlan_route(3)}
    assert "10.9.0.0/26" in outcome.problems[0]


def test_overlapping_claim_of_a_peer_loses_against_the_own_block() -> None:
    outcome = compute(node(1), LINK, cluster(Pool(POOL, vxlan="Always"), claim("10.5.1.0/24", 2)), 0)
    assert outcome.state.routes == {OWN, vxlan_route(2), vxlan_route(3)}
    assert "10.5.1.0/24" in outcome.problems[0]


def test_second_node_with_the_same_vtep_is_left_out() -> None:
    base = cluster(Pool(POOL, vxlan="Always"))
    nodes = (node(1), node(2), replace(node(3), vxlan_mac=node(2).vxlan_mac))
    outcome = compute(node(1), LINK, replace(base, nodes=nodes), 0)
    assert outcome.state.routes == {OWN, vxlan_route(2)}
    assert len(outcome.state.vxlan_peers) == 1
    assert any("n3" in problem and "n2" in problem for problem in outcome.problems)


def test_block_of_one_address_is_not_blackholed() -> None:
    outcome = compute(node(1), LINK, cluster(Pool(POOL), claim("10.5.7.7/32", 1)), 0)
    assert outcome.state.routes == {OWN}


def borrowed(*pairs: tuple[str, int]) -> frozenset[Borrowed]:
    return frozenset(Borrowed(IPv4Address(address), f"n{number}") for address, number in pairs)


def single(address: str, gateway: str, device: str = "vxlan.calico") -> Route:
    return Route(IPv4Network(address), device, IPv4Address(gateway), onlink=True)


def test_borrowed_address_is_routed_to_the_node_that_holds_it() -> None:
    base = replace(cluster(Pool(POOL, vxlan="Always")), borrowed=borrowed(("10.5.1.9", 2), ("10.5.2.9", 3)))
    outcome = compute(node(1), LINK, base, 0)
    assert outcome.problems == ()
    assert outcome.state.routes - {OWN, vxlan_route(2), vxlan_route(3)} == {
        single("10.5.1.9", "10.5.2.0"),  # of this node's own block: more specific than its blackhole
        single("10.5.2.9", "10.5.3.0"),
    }


def test_borrowed_address_of_a_neighbour_is_reached_without_tunnel_in_cross_subnet_mode() -> None:
    base = replace(cluster(Pool(POOL, vxlan="CrossSubnet")), borrowed=borrowed(("10.5.3.9", 2)))
    state = compute(node(1), LINK, base, 0).state
    assert single("10.5.3.9", "10.30.200.2", "eth0") in state.routes


def test_address_that_this_node_borrowed_gets_no_route_for_its_pod_has_one() -> None:
    base = replace(cluster(Pool(POOL, vxlan="Always")), borrowed=borrowed(("10.5.2.9", 1)))
    assert compute(node(1), LINK, base, 0).state.routes == {OWN, vxlan_route(2), vxlan_route(3)}


def test_borrowed_address_of_a_bgp_pool_is_left_to_bird() -> None:
    base = replace(cluster(Pool(POOL, ipip="Always")), borrowed=borrowed(("10.5.1.9", 2)))
    assert compute(node(1), LINK, base, 0).state.routes == {OWN}


def test_addresses_of_a_vanished_node_are_counted_in_one_sentence() -> None:
    base = replace(cluster(Pool(POOL, vxlan="Always")), borrowed=borrowed(("10.5.1.9", 9), ("10.5.2.9", 9)))
    outcome = compute(node(1), LINK, base, 0)
    assert outcome.state.routes == {OWN, vxlan_route(2), vxlan_route(3)}
    (problem,) = outcome.problems
    assert "n9" in problem
    assert "2 addresses" in problem


def test_borrowed_block_of_one_address_leads_to_the_borrower_alone() -> None:
    base = cluster(Pool(POOL, vxlan="Always"), claim("10.5.7.7/32", 2))
    lent = replace(base, borrowed=borrowed(("10.5.7.7", 3)))
    assert single("10.5.7.7", "10.5.3.0") in compute(node(1), LINK, lent, 0).state.routes
    taken = replace(base, borrowed=borrowed(("10.5.7.7", 1)))
    routes = compute(node(1), LINK, taken, 0).state.routes
    assert IPv4Network("10.5.7.7/32") not in {route.destination for route in routes}


networks = st.builds(
    lambda third, size: IPv4Network((int(IPv4Address("10.5.0.0")) + third * 64, size), strict=False),
    st.integers(0, 40),
    st.integers(22, 30),
)
claims_of_anyone = st.lists(
    st.builds(BlockClaim, networks, st.sampled_from(["n1", "n2", "n3", "n4"])), max_size=20
)
pools_of_any_kind = st.lists(
    st.builds(
        lambda third, ipip, vxlan: Pool(
            IPv4Network((int(IPv4Address("10.5.0.0")) + third * 1024, 22)),
            ipip="Never" if vxlan != "Never" else ipip,
            vxlan=vxlan,
        ),
        st.integers(0, 4),
        st.sampled_from(["Never", "Always", "CrossSubnet"]),
        st.sampled_from(["Never", "Always", "CrossSubnet"]),
    ),
    max_size=4,
    unique_by=lambda pool: pool.cidr,
)


@given(claims_of_anyone)
def test_usable_claims_never_overlap_and_every_other_is_reported(claims: list[BlockClaim]) -> None:
    problems: list[str] = []
    usable = usable_claims("n1", claims, problems)
    for index, one in enumerate(usable):
        assert not any(one.block.overlaps(other.block) for other in usable[index + 1 :])
    assert len(problems) == len(set(claims)) - len(usable)
    for left_out in set(claims) - set(usable):
        assert any(left_out.block.overlaps(winner.block) for winner in usable)


@given(claims_of_anyone)
def test_own_claims_lose_only_against_own_claims(claims: list[BlockClaim]) -> None:
    usable = usable_claims("n1", claims, [])
    own = {claim for claim in claims if claim.node == "n1"}
    for lost in own - set(usable):
        assert any(winner.node == "n1" and winner.block.overlaps(lost.block) for winner in usable)


@given(claims_of_anyone, pools_of_any_kind)
def test_own_blocks_are_blackholed_and_never_sent_through_a_tunnel(
    claims: list[BlockClaim], pools: list[Pool]
) -> None:
    state = compute(
        node(1), LINK, Cluster((node(1), node(2), node(3, 201)), tuple(pools), tuple(claims)), 0
    ).state
    usable = usable_claims("n1", claims, [])
    own = {claim.block for claim in usable if claim.node == "n1"}
    assert {route.destination for route in state.routes if route.kind == "blackhole"} == own
    for route in state.routes:
        if route.kind == "unicast":
            assert not any(route.destination.overlaps(block) for block in own)


@given(claims_of_anyone, pools_of_any_kind)
def test_every_block_of_a_known_peer_in_a_vxlan_pool_has_exactly_one_route(
    claims: list[BlockClaim], pools: list[Pool]
) -> None:
    nodes = (node(1), node(2), node(3, 201))
    state = compute(node(1), LINK, Cluster(nodes, tuple(pools), tuple(claims)), 0).state
    known = {peer.name: peer for peer in nodes[1:]}
    expected = {}
    for item in usable_claims("n1", claims, []):
        pool = pool_of(item.block, pools)
        if item.node in known and pool and pool.vxlan != "Never":
            expected[item.block] = (pool, known[item.node])
    unicast = [route for route in state.routes if route.kind == "unicast"]
    assert sorted(route.destination for route in unicast) == sorted(expected)
    for route in unicast:
        pool, peer = expected[route.destination]
        direct = pool.vxlan == "CrossSubnet" and peer.name == "n2"
        assert peer.ipv4 is not None
        assert route.gateway == (peer.ipv4.ip if direct else peer.vxlan_tunnel)
        assert route.device == ("eth0" if direct else "vxlan.calico")
        assert route.onlink


@given(st.permutations(cluster(Pool(POOL, vxlan="Always"), claim("10.5.1.0/24", 3)).claims))
def test_order_of_the_input_does_not_matter(claims: list[BlockClaim]) -> None:
    base = cluster(Pool(POOL, vxlan="Always"))
    state = compute(node(1), LINK, replace(base, claims=tuple(claims)), 0).state
    assert state.routes == {OWN, vxlan_route(2), vxlan_route(3)}
