"""Arithmetic of one IPAMBlock. Pure: every function returns a new block and leaves its argument alone.

An address stands at an ordinal, its distance from the block's first address. All addresses are given out, the
first and the last too: a pod has a /32 (/128), so there is neither a network nor a broadcast address.

An address that cools down after its release stays allocated, but to nobody: its attribute has `released_at`
and no handle.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

import msgspec

from tortie.ipam.request import Address
from tortie.model.constants import AFFINITY_TYPE_HOST
from tortie.model.names import cidr_name, host_affinity
from tortie.model.resources import AllocationAttribute, IPAMBlock, IPAMBlockSpec, Metadata

Network = IPv4Network | IPv6Network


class BlockError(Exception):
    """The block cannot be changed as asked."""


class AddressInUseError(BlockError):
    """The address is held already."""


class StaleReleaseError(BlockError):
    """The address was released and given out again since the caller looked (the sequence number differs)."""


def new_block(cidr: Network, node: str, now: datetime, sequence: int) -> IPAMBlock:
    """An empty block that belongs to `node` since `now`.

    `sequence` must exceed that of any earlier block of the same name (nanoseconds since 1970 do), so that a
    release meant for an earlier one is recognised as stale.
    """
    size = cidr.num_addresses
    return IPAMBlock(
        metadata=Metadata(name=cidr_name(str(cidr))),
        spec=IPAMBlockSpec(
            cidr=str(cidr),
            affinity=host_affinity(node),
            affinity_claim_time=timestamp(now),
            allocations=[None] * size,
            unallocated=list(range(size)),
            attributes=[],
            sequence_number=sequence,
        ),
    )


def timestamp(time: datetime) -> str:
    """A time as Kubernetes writes it (RFC 3339, UTC, whole seconds)."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str | None) -> datetime | None:
    """The time of an RFC 3339 text; None for none, or for one that cannot be read."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def network(block: IPAMBlock) -> Network:
    """The block's range. Raise ValueError when its CIDR is no network."""
    return parsed(block.spec.cidr)


@lru_cache(maxsize=1024)
def parsed(cidr: str) -> Network:
    """The network of a CIDR: an ADD asks for the same few again and again. Raise ValueError."""
    return ip_network(cidr)


def within(inner: Network, outer: Network) -> bool:
    """Whether a network lies in another; one of the other family never does."""
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def position(item: Address | Network) -> tuple[int, int]:
    """Sort key: IPv4 before IPv6, then by number."""
    if isinstance(item, IPv4Network | IPv6Network):
        return item.version, int(item.network_address)
    return item.version, int(item)


def free_ordinals(block: IPAMBlock, reserved: Sequence[Network] = ()) -> list[int]:
    """What can be assigned automatically, the ordinal that has been free for longest first."""
    own = network(block)
    touching = [other for other in reserved if other.version == own.version and other.overlaps(own)]
    if not touching:
        return list(block.spec.unallocated)
    first = own.network_address
    return [
        ordinal
        for ordinal in block.spec.unallocated
        if not any(first + ordinal in other for other in touching)
    ]


def free_count(block: IPAMBlock, reserved: Sequence[Network] = ()) -> int:
    """How many addresses can be assigned automatically."""
    return len(free_ordinals(block, reserved)) if reserved else len(block.spec.unallocated)


def is_empty(block: IPAMBlock) -> bool:
    """Whether nobody holds an address of it, and none cools down."""
    return all(index is None for index in block.spec.allocations)


def belongs_to(block: IPAMBlock, node: str) -> bool:
    """Whether the block is affine to `node`."""
    return block.spec.affinity == host_affinity(node)


def owner(block: IPAMBlock) -> str | None:
    """The node that the block is affine to; None when it is none."""
    kind, _, name = (block.spec.affinity or "").partition(":")
    return name if kind == AFFINITY_TYPE_HOST and name else None


def is_cooling(attribute: AllocationAttribute) -> bool:
    """Whether the address was released and only waits to be free again."""
    return attribute.released_at is not None


def addresses_of(block: IPAMBlock, handle: str) -> list[Address]:
    """The addresses that `handle` holds, in order."""
    first = network(block).network_address
    held = _indices_of(block.spec, handle)
    return [first + ordinal for ordinal, index in enumerate(block.spec.allocations) if index in held]


def holders(block: IPAMBlock) -> dict[Address, AllocationAttribute]:
    """Who holds which address; addresses that cool down are left out."""
    return {
        address: attribute for address, attribute in allocated(block).items() if not is_cooling(attribute)
    }


def allocated(block: IPAMBlock) -> dict[Address, AllocationAttribute]:
    """What stands at each address that cannot be assigned."""
    first = network(block).network_address
    attributes = block.spec.attributes
    return {
        first + ordinal: attributes[index]
        for ordinal, index in enumerate(block.spec.allocations)
        if index is not None
    }


def assign(
    block: IPAMBlock,
    count: int,
    handle: str,
    attributes: Mapping[str, str],
    reserved: Sequence[Network] = (),
) -> tuple[IPAMBlock, list[Address]]:
    """Give `handle` up to `count` addresses: those that have been free for longest, none of `reserved`."""
    ordinals = free_ordinals(block, reserved)[:count]
    first = network(block).network_address
    return _allocate(block, ordinals, handle, attributes), [first + ordinal for ordinal in ordinals]


def assign_address(
    block: IPAMBlock, address: Address, handle: str, attributes: Mapping[str, str]
) -> IPAMBlock:
    """Give `handle` a certain address, reserved or not. Raise AddressInUseError, or BlockError when it is not
    in the block."""
    ordinal = _ordinal(block, address)
    index = block.spec.allocations[ordinal]
    if index is not None:
        holder = block.spec.attributes[index]
        raise AddressInUseError(
            f"Address {address} of block {block.spec.cidr} is held already, "
            + (f"by {holder.handle_id}" if holder.handle_id else f"since its release at {holder.released_at}")
        )
    return _allocate(block, [ordinal], handle, attributes)


def release(
    block: IPAMBlock, sequences: Mapping[Address, int | None], cooling_since: datetime | None = None
) -> IPAMBlock:
    """Free addresses, all or none; one that is free already is no error. The values are the sequence numbers
    that the caller saw for the allocations, None not to check. With `cooling_since` they stay held until
    `thaw`. Raise StaleReleaseError, BlockError."""
    ordinals = []
    for address, sequence in sequences.items():
        ordinal = _ordinal(block, address)
        if block.spec.allocations[ordinal] is None:
            continue
        current = block.spec.sequence_number_for_allocation.get(str(ordinal))
        if sequence is not None and sequence != current:
            raise StaleReleaseError(
                f"Address {address} was allocated at sequence number {current}, the release is for "
                f"{sequence}: it belongs to somebody else by now."
            )
        ordinals.append(ordinal)
    return _give_back(block, ordinals, cooling_since)


def release_handle(
    block: IPAMBlock, handle: str, cooling_since: datetime | None = None
) -> tuple[IPAMBlock, list[Address]]:
    """Free everything that `handle` holds; with `cooling_since` it stays held by nobody until `thaw`."""
    addresses = addresses_of(block, handle)
    return _give_back(block, [_ordinal(block, address) for address in addresses], cooling_since), addresses


def thaw(block: IPAMBlock, now: datetime, cooldown: timedelta) -> IPAMBlock:
    """Free what was released at least `cooldown` ago, in the order of release; the same block when there is
    nothing. A release that lies in the future (a clock was set back), or at no time, is over, too."""
    due: list[tuple[datetime, int]] = []
    for ordinal, index in enumerate(block.spec.allocations):
        if index is None or not is_cooling(block.spec.attributes[index]):
            continue
        released = parse_timestamp(block.spec.attributes[index].released_at) or now - cooldown
        if released > now or released + cooldown <= now:
            due.append((released, ordinal))
    return _free(block, [ordinal for _released, ordinal in sorted(due)]) if due else block


def touch(block: IPAMBlock) -> IPAMBlock:
    """The same block with the next sequence number. Writing it makes writes that are still under way fail."""
    return _with_spec(block, msgspec.structs.replace(block.spec))


def sequence_of(block: IPAMBlock, address: Address) -> int | None:
    """The sequence number that the address was allocated at; None when it is free."""
    return block.spec.sequence_number_for_allocation.get(str(_ordinal(block, address)))


def block_of(address: Address, block_size: int) -> Network:
    """The block of a certain size (prefix length) that an address lies in."""
    if isinstance(address, IPv4Address):
        return IPv4Network((int(address), block_size), strict=False)
    return IPv6Network((int(address), block_size), strict=False)


def _ordinal(block: IPAMBlock, address: Address) -> int:
    own = network(block)
    ordinal = int(address) - int(own.network_address)
    if address.version != own.version or not 0 <= ordinal < len(block.spec.allocations):
        raise BlockError(f"Address {address} is not in block {block.spec.cidr}.")
    return ordinal


def _indices_of(spec: IPAMBlockSpec, handle: str) -> set[int]:
    return {
        index
        for index, attribute in enumerate(spec.attributes)
        if attribute.handle_id == handle and not is_cooling(attribute)
    }


def _with_spec(block: IPAMBlock, spec: IPAMBlockSpec) -> IPAMBlock:
    """A write of the block: its sequence number grows."""
    spec.sequence_number = block.spec.sequence_number + 1
    return msgspec.structs.replace(block, spec=spec)


def _allocate(
    block: IPAMBlock, ordinals: Iterable[int], handle: str, attributes: Mapping[str, str]
) -> IPAMBlock:
    spec = block.spec
    holder = AllocationAttribute(handle_id=handle, secondary=dict(attributes))
    all_attributes, index = _with_attribute(spec.attributes, holder)
    allocations: list[int | None] = list(spec.allocations)
    sequences = dict(spec.sequence_number_for_allocation)
    taken = set(ordinals)
    for ordinal in taken:
        allocations[ordinal] = index
        sequences[str(ordinal)] = spec.sequence_number
    return _with_spec(
        block,
        msgspec.structs.replace(
            spec,
            allocations=allocations,
            unallocated=[ordinal for ordinal in spec.unallocated if ordinal not in taken],
            attributes=all_attributes if taken else list(spec.attributes),
            sequence_number_for_allocation=sequences,
        ),
    )


def _with_attribute(
    attributes: Sequence[AllocationAttribute], wanted: AllocationAttribute
) -> tuple[list[AllocationAttribute], int]:
    """The attributes with `wanted` among them, and its index."""
    result = list(attributes)
    if wanted not in result:
        result.append(wanted)
    return result, result.index(wanted)


def _give_back(block: IPAMBlock, ordinals: list[int], cooling_since: datetime | None) -> IPAMBlock:
    return _free(block, ordinals) if cooling_since is None else _cool(block, ordinals, cooling_since)


def _cool(block: IPAMBlock, ordinals: Iterable[int], since: datetime) -> IPAMBlock:
    spec = block.spec
    attributes = list(spec.attributes)
    allocations = list(spec.allocations)
    for ordinal in ordinals:
        index = allocations[ordinal]
        if index is None or is_cooling(attributes[index]):
            continue
        resting = msgspec.structs.replace(attributes[index], handle_id=None, released_at=timestamp(since))
        attributes, allocations[ordinal] = _with_attribute(attributes, resting)
    return _with_spec(block, _without_unused(spec, allocations, attributes))


def _free(block: IPAMBlock, ordinals: list[int]) -> IPAMBlock:
    spec = block.spec
    freed = set(ordinals)
    allocations = [None if ordinal in freed else index for ordinal, index in enumerate(spec.allocations)]
    sequences = {
        key: value for key, value in spec.sequence_number_for_allocation.items() if int(key) not in freed
    }
    changed = msgspec.structs.replace(
        _without_unused(spec, allocations, spec.attributes),
        unallocated=[*spec.unallocated, *ordinals],  # at the tail: reused last
        sequence_number_for_allocation=sequences,
    )
    return _with_spec(block, changed)


def _without_unused(
    spec: IPAMBlockSpec, allocations: Sequence[int | None], attributes: Sequence[AllocationAttribute]
) -> IPAMBlockSpec:
    """The spec with these allocations; attributes that nothing refers to are dropped."""
    used = sorted({index for index in allocations if index is not None})
    moved = {old: new for new, old in enumerate(used)}
    return msgspec.structs.replace(
        spec,
        allocations=[None if index is None else moved[index] for index in allocations],
        attributes=[attributes[index] for index in used],
    )
