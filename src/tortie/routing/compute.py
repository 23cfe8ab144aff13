"""From the cluster's state to one node's: routes, tunnels, peers, masquerade. Pure.

Who writes which route: docs/architecture.md, "Routes". The agent writes VXLAN routes and the blackholes of
the node's own blocks; routes to blocks of pools with IP-in-IP or without encapsulation are BIRD's. A borrowed
address is routed like a block of one address that belongs to the node that holds it.
"""

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from tortie.model.constants import VXLAN_DEVICE
from tortie.model.nodeinfo import BGPNode
from tortie.routing.borrowed import Borrowed
from tortie.routing.mtu import tunnel_mtu
from tortie.routing.pools import BlockClaim, Pool, pool_of, tunnels_in_use
from tortie.routing.state import HostLink, IPIPTunnel, Masquerade, NodeState, Route, VXLANPeer, VXLANTunnel


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the datastore says, parsed. `claims` holds confirmed ones only."""

    nodes: tuple[BGPNode, ...] = ()
    pools: tuple[Pool, ...] = ()
    claims: tuple[BlockClaim, ...] = ()
    borrowed: frozenset[Borrowed] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The desired state, and one sentence for everything in the cluster's state that had to be left out."""

    state: NodeState
    problems: tuple[str, ...]


def compute(own: BGPNode, link: HostLink, cluster: Cluster, configured_mtu: int) -> Outcome:
    """Desired state of the node `own`, which speaks to its peers through `link`.

    `own` is what the node knows about itself, whatever its object in `cluster.nodes` says meanwhile.
    `configured_mtu` is bytes, 0 for automatic; it was checked with `mtu.pod_mtu`.
    """
    kinds = tunnels_in_use(cluster.pools)
    problems: list[str] = []
    peers = {node.name: node for node in cluster.nodes if node.name != own.name}
    claims = usable_claims(own.name, cluster.claims, problems)
    routes = {
        Route(destination=claim.block, kind="blackhole")
        for claim in claims
        # A block of one address is its pod's own route.
        if claim.node == own.name and claim.block.prefixlen < 32
    }
    vxlan = _vxlan_tunnel(own, link, configured_mtu) if "vxlan" in kinds else None
    vteps = _vteps(peers.values(), own, problems) if vxlan else {}
    for claim in _destinations(own.name, claims, cluster.borrowed, peers.keys(), problems):
        pool = pool_of(claim.block, cluster.pools)
        if pool is None:
            problems.append(f"Block {claim.block} of node {claim.node} is in no IPPool; it gets no route.")
        elif pool.vxlan != "Never":
            route = _vxlan_route(claim, pool, peers.get(claim.node), vteps, link)
            if isinstance(route, Route):
                routes.add(route)
            else:
                problems.append(route)
    return Outcome(
        NodeState(
            ipip=_ipip_tunnel(own, link, configured_mtu) if "ipip" in kinds else None,
            vxlan=vxlan,
            routes=frozenset(routes),
            vxlan_peers=frozenset(vteps.values()),
            masquerade=Masquerade(
                sources=frozenset(pool.cidr for pool in cluster.pools if pool.nat_outgoing),
                pools=frozenset(pool.cidr for pool in cluster.pools),
            ),
        ),
        tuple(problems),
    )


def _destinations(
    own: str,
    claims: Iterable[BlockClaim],
    borrowed: Iterable[Borrowed],
    peers: Iterable[str],
    problems: list[str],
) -> Iterator[BlockClaim]:
    """What other nodes hold: their blocks, and as blocks of one address what they borrowed elsewhere."""
    known = set(peers)
    single: dict[IPv4Network, str] = {}
    lost: dict[str, int] = {}
    for item in sorted(borrowed):
        if item.node == own or item.node in known:
            single[IPv4Network(item.address)] = item.node
        else:
            lost[item.node] = lost.get(item.node, 0) + 1
    for name, count in sorted(lost.items()):
        problems.append(
            f"Node {name}, which does not exist, still holds {count} addresses of other nodes' blocks; they "
            "get no route. `tortiectl ipam check` lists them."
        )
    # A block may be one address, and that one be borrowed: then it is where the borrower is.
    yield from (claim for claim in claims if claim.node != own and claim.block not in single)
    yield from (BlockClaim(address, node) for address, node in single.items() if node != own)


def usable_claims(own: str, claims: Iterable[BlockClaim], problems: list[str]) -> list[BlockClaim]:
    """Claims without those that overlap another one. The node's own win; among others the first by name."""
    accepted: dict[int, BlockClaim] = {}  # by first address; they never overlap
    starts: list[int] = []
    for claim in sorted(set(claims), key=lambda claim: (claim.node != own, claim.node, claim.block)):
        first, last = int(claim.block.network_address), int(claim.block.broadcast_address)
        before = bisect_right(starts, last)
        other = accepted[starts[before - 1]] if before else None
        if other and int(other.block.broadcast_address) >= first:
            problems.append(
                f"Block {claim.block} of node {claim.node} overlaps {other.block} of node {other.node}; "
                "the former is left out. Delete the BlockAffinity that is wrong."
            )
            continue
        accepted[first] = claim
        insort(starts, first)
    return sorted(accepted.values())


def _vxlan_tunnel(own: BGPNode, link: HostLink, configured_mtu: int) -> VXLANTunnel | None:
    if own.vxlan_tunnel is None or own.vxlan_mac is None:
        return None
    return VXLANTunnel(
        address=own.vxlan_tunnel,
        mac=own.vxlan_mac,
        mtu=tunnel_mtu("vxlan", link.mtu, configured_mtu),
        parent=link.name,
        local=link.address.ip,
    )


def _ipip_tunnel(own: BGPNode, link: HostLink, configured_mtu: int) -> IPIPTunnel | None:
    if own.ipip_tunnel is None:
        return None
    return IPIPTunnel(address=own.ipip_tunnel, mtu=tunnel_mtu("ipip", link.mtu, configured_mtu))


def _vxlan_route(
    claim: BlockClaim, pool: Pool, peer: BGPNode | None, vteps: dict[str, VXLANPeer], link: HostLink
) -> Route | str:
    """The route to a peer's block of a VXLAN pool, or a sentence that says why there is none."""
    if peer is None:
        return f"Block {claim.block} belongs to node {claim.node}, which does not exist; it gets no route."
    if peer.ipv4 is None:
        return f"Node {peer.name} has not announced its address yet; its block {claim.block} gets no route."
    if pool.vxlan == "CrossSubnet" and peer.ipv4.ip in link.address.network:
        return Route(destination=claim.block, device=link.name, gateway=peer.ipv4.ip, onlink=True)
    vtep = vteps.get(peer.name)
    if vtep is None:
        return f"Node {peer.name} or this node has no VXLAN tunnel yet; block {claim.block} gets no route."
    return Route(destination=claim.block, device=VXLAN_DEVICE, gateway=vtep.address, onlink=True)


def _vteps(peers: Iterable[BGPNode], own: BGPNode, problems: list[str]) -> dict[str, VXLANPeer]:
    """VTEPs of the other nodes by node name. One whose address or MAC is taken is left out."""
    taken: dict[IPv4Address | str, str] = {}
    for value in (own.vxlan_tunnel, own.vxlan_mac):
        if value is not None:
            taken[value] = own.name
    found: dict[str, VXLANPeer] = {}
    for peer in sorted(peers, key=lambda node: node.name):
        if peer.ipv4 is None or peer.vxlan_tunnel is None or peer.vxlan_mac is None:
            continue
        rival = taken.get(peer.vxlan_tunnel) or taken.get(peer.vxlan_mac)
        if rival:
            problems.append(
                f"Node {peer.name} announces the VXLAN tunnel {peer.vxlan_tunnel} {peer.vxlan_mac}, which "
                f"node {rival} has already; the former is left out. Restart calico-node there."
            )
            continue
        taken[peer.vxlan_tunnel] = taken[peer.vxlan_mac] = peer.name
        found[peer.name] = VXLANPeer(address=peer.vxlan_tunnel, mac=peer.vxlan_mac, node=peer.ipv4.ip)
    return found
