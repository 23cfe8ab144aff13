"""Which pools may serve a request, and which blocks a node tries in them. Pure."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from tortie.ipam.block import Network, parsed
from tortie.ipam.errors import BadRequestError
from tortie.ipam.request import Address
from tortie.model.resources import AllowedUse, IPPool, IPReservation
from tortie.model.selectors import SelectorError, parse

# A pool without allowedUses serves these.
_DEFAULT_USES: Final[tuple[AllowedUse, ...]] = ("Workload", "Tunnel")
# Calico's limits for the prefix length of a block: at most 4096 addresses.
_BLOCK_SIZES: Final = {4: (20, 32), 6: (116, 128)}


@dataclass(frozen=True, slots=True)
class Eligible:
    """A pool that may serve the request."""

    name: str
    network: Network
    block_size: int  # prefix length of its blocks

    def __str__(self) -> str:
        return f"{self.name} ({self.network}, blocks of /{self.block_size})"


@dataclass(frozen=True, slots=True)
class Selection:
    """`rejected` says for each other pool, in one clause, why it may not serve the request."""

    eligible: tuple[Eligible, ...]
    rejected: tuple[str, ...]

    def of_family(self, family: int) -> tuple[Eligible, ...]:
        """The eligible pools of one family (4 or 6)."""
        return tuple(pool for pool in self.eligible if pool.network.version == family)


def select(
    pools: Iterable[IPPool],
    use: AllowedUse,
    labels: Mapping[str, str],
    requested: bool = False,
    namespace_labels: Mapping[str, str] | None = None,
) -> Selection:
    """The pools of both families that may give an address for `use` to a node with `labels`.

    `requested`: the pools were asked for (a pod's annotation, the CNI configuration): they keep their order,
    and neither selectors nor assignment mode matter, but a disabled pool stays disabled. Otherwise they are
    in order of name. A namespaceSelector is matched with no labels when there is no namespace.
    """
    eligible: list[Eligible] = []
    rejected: list[str] = []
    for pool in pools if requested else sorted(pools, key=lambda item: item.metadata.name):
        reason = _reason_against(pool, use)
        if not reason and not requested:
            reason = _reason_by_selectors(pool, labels, namespace_labels or {})
        if reason:
            rejected.append(f"{pool.metadata.name} {reason}")
        else:
            eligible.append(_eligible(pool))
    return Selection(tuple(eligible), tuple(rejected))


def named(pools: Sequence[IPPool], wanted: Sequence[str]) -> list[IPPool]:
    """The pools with these names or CIDRs, in the order wished for. Raise BadRequestError."""
    by_name = {key: pool for pool in pools for key in (pool.spec.cidr, pool.metadata.name)}
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        known = ", ".join(f"{pool.metadata.name} ({pool.spec.cidr})" for pool in pools) or "none"
        raise BadRequestError(
            f"No IPPool is named or covers exactly {', '.join(unknown)}; there are: {known}. "
            "Correct the list of pools, or create the pool."
        )
    return list({by_name[name].metadata.name: by_name[name] for name in wanted}.values())


def pool_with(pools: Iterable[IPPool], address: Address, use: AllowedUse) -> Eligible:
    """The pool that a certain address lies in, whatever it selects. Raise BadRequestError."""
    reasons: list[str] = []
    for pool in pools:
        if _range_problem(pool.spec.cidr, pool.spec.block_size) or address not in ip_network(pool.spec.cidr):
            continue
        reason = _reason_against(pool, use)
        if not reason:
            return _eligible(pool)
        reasons.append(f"{pool.metadata.name} {reason}")
    found = "; ".join(reasons) or "no pool contains it"
    raise BadRequestError(
        f"Address {address} cannot be given out for {use}: {found}. Ask for an address of an enabled pool."
    )


def needs_labels(pools: Iterable[IPPool]) -> bool:
    """Whether some pool's node selector asks for more than `all()`."""
    return any(pool.spec.node_selector.replace(" ", "") not in ("", "all()") for pool in pools)


def reserved_networks(reservations: Iterable[IPReservation]) -> tuple[Network, ...]:
    """What automatic assignment leaves alone. Entries that are no CIDR or address count for nothing."""
    found: list[Network] = []
    for text in (text for item in reservations for text in item.spec.reserved_cidrs):
        try:
            found.append(ip_network(text.strip(), strict=False))
        except ValueError:
            continue
    return tuple(found)


def parse_network(text: str) -> Network | None:
    """The network of a CIDR; None when it is none."""
    try:
        return ip_network(text)
    except ValueError:
        return None


def is_reserved(cidr: Network, reserved: Iterable[Network]) -> bool:
    """Whether no address of the block may be given out automatically."""
    first, last = cidr[0], cidr[-1]
    return any(first in other and last in other for other in reserved if other.version == cidr.version)


def _eligible(pool: IPPool) -> Eligible:
    return Eligible(pool.metadata.name, parsed(pool.spec.cidr), pool.spec.block_size)


def _reason_against(pool: IPPool, use: AllowedUse) -> str:
    spec = pool.spec
    if spec.disabled:
        return "is disabled"
    if pool.metadata.deletion_timestamp:
        return "is being deleted"
    uses = spec.allowed_uses or _DEFAULT_USES
    if use not in uses:
        return f"does not allow the use {use} (allowedUses: {', '.join(uses)})"
    return _range_problem(spec.cidr, spec.block_size)


def _reason_by_selectors(pool: IPPool, labels: Mapping[str, str], namespace_labels: Mapping[str, str]) -> str:
    spec = pool.spec
    if spec.assignment_mode == "Manual":
        return "gives addresses only on request (assignmentMode Manual)"
    for field, selector, subject, values in (
        ("nodeSelector", spec.node_selector, "node", labels),
        ("namespaceSelector", spec.namespace_selector, "namespace", namespace_labels),
    ):
        try:
            if not parse(selector).matches(values):
                return f"does not select this {subject} ({field} {selector})"
        except SelectorError as error:
            return f"has a {field} that is not understood: {error}"
    return ""


def _range_problem(cidr: str, block_size: int) -> str:
    try:
        own = parsed(cidr)
    except ValueError:
        return f"has the CIDR {cidr}, which is not a network"
    smallest, largest = _BLOCK_SIZES[own.version]
    least = max(smallest, own.prefixlen)
    if not least <= block_size <= largest:
        return f"has blockSize {block_size}, which must be {least} to {largest} for {cidr}"
    return ""


def candidate_blocks(pool: Eligible, node: str) -> Iterator[Network]:
    """Every block of the pool once, from a place that depends on the node's name on, wrapping around.

    So nodes that start together rarely try the same block, and a node that returns tries its old one first.
    """
    count = 1 << (pool.block_size - pool.network.prefixlen)
    start = int.from_bytes(hashlib.sha256(node.encode()).digest()[:8], "big") % count
    step = 1 << (pool.network.max_prefixlen - pool.block_size)
    first = int(pool.network.network_address)
    for index in _wrapped(start, count):
        place = (first + index * step, pool.block_size)
        yield IPv4Network(place) if pool.network.version == 4 else IPv6Network(place)


def _wrapped(start: int, count: int) -> Iterator[int]:
    return itertools.chain(range(start, count), range(start))


def overlaps(pools: Sequence[IPPool]) -> list[tuple[str, str]]:
    """Names of the pools that have addresses in common, pair by pair. Invalid pools are left out."""
    networks = [
        (pool.metadata.name, ip_network(pool.spec.cidr))
        for pool in pools
        if not _range_problem(pool.spec.cidr, pool.spec.block_size)
    ]
    return [
        (left, right)
        for (left, one), (right, other) in itertools.combinations(
            sorted(networks, key=lambda pair: pair[0]), 2
        )
        if one.version == other.version and one.overlaps(other)
    ]
