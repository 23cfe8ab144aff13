"""Pools and block claims as typed values, and what they ask of a node: encapsulation and masquerade."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from typing import Literal

from tortie.model.resources import BlockAffinity, EncapsulationMode, IPPool

TunnelKind = Literal["ipip", "vxlan"]


@dataclass(frozen=True, slots=True, order=True)
class Pool:
    """A range of pod addresses. At most one of `ipip` and `vxlan` differs from Never."""

    cidr: IPv4Network
    ipip: EncapsulationMode = "Never"
    vxlan: EncapsulationMode = "Never"
    nat_outgoing: bool = False
    bgp_export: bool = True


@dataclass(frozen=True, slots=True, order=True)
class BlockClaim:
    """A confirmed claim of `node` on `block`."""

    block: IPv4Network
    node: str


def parse_pools(pools: Iterable[IPPool]) -> tuple[tuple[Pool, ...], tuple[str, ...]]:
    """Typed IPv4 pools, and one sentence for each that cannot be used.

    Disabled pools count: their addresses may still be in use.
    """
    parsed: list[Pool] = []
    problems: list[str] = []
    for pool in pools:
        spec, name = pool.spec, pool.metadata.name
        if ":" in spec.cidr:
            tunnel = "" if spec.vxlan_mode == "Never" else f"; its vxlanMode {spec.vxlan_mode} has no effect"
            problems.append(
                f"IPPool {name}: cidr {spec.cidr} is IPv6, which is not routed between nodes{tunnel}."
            )
            continue
        try:
            cidr = IPv4Network(spec.cidr)
        except (AddressValueError, NetmaskValueError, ValueError) as error:
            problems.append(
                f"IPPool {name}: cidr {spec.cidr!r} is not a network ({error}); correct or delete the pool."
            )
            continue
        if spec.ipip_mode != "Never" and spec.vxlan_mode != "Never":
            problems.append(
                f"IPPool {name}: ipipMode {spec.ipip_mode} and vxlanMode {spec.vxlan_mode} exclude each "
                "other; set one of them to Never. Until then the pool counts as VXLAN."
            )
        parsed.append(
            Pool(
                cidr=cidr,
                ipip=spec.ipip_mode if spec.vxlan_mode == "Never" else "Never",
                vxlan=spec.vxlan_mode,
                nat_outgoing=spec.nat_outgoing,
                bgp_export=not spec.disable_bgp_export,
            )
        )
    return tuple(sorted(parsed)), tuple(problems)


def parse_claims(affinities: Iterable[BlockAffinity]) -> tuple[tuple[BlockClaim, ...], tuple[str, ...]]:
    """Confirmed IPv4 claims of hosts, and one sentence for each object that cannot be read."""
    claims: list[BlockClaim] = []
    problems: list[str] = []
    for affinity in affinities:
        spec = affinity.spec
        if spec.state != "confirmed" or spec.deleted == "true" or spec.type != "host" or ":" in spec.cidr:
            continue
        try:
            claims.append(BlockClaim(IPv4Network(spec.cidr), spec.node))
        except (AddressValueError, NetmaskValueError, ValueError) as error:
            problems.append(
                f"BlockAffinity {affinity.metadata.name}: cidr {spec.cidr!r} is not a network ({error})."
            )
    return tuple(sorted(claims)), tuple(problems)


def pool_of(block: IPv4Network, pools: Iterable[Pool]) -> Pool | None:
    """The most specific pool that contains `block`."""
    containing = [pool for pool in pools if block.subnet_of(pool.cidr)]
    return max(containing, key=lambda pool: pool.cidr.prefixlen, default=None)


def tunnels_in_use(pools: Iterable[Pool]) -> frozenset[TunnelKind]:
    """The kinds of tunnel that a node needs, CrossSubnet included: a peer elsewhere may join any time."""
    kinds: set[TunnelKind] = set()
    for pool in pools:
        if pool.ipip != "Never":
            kinds.add("ipip")
        if pool.vxlan != "Never":
            kinds.add("vxlan")
    return frozenset(kinds)
