"""Arithmetic of one IPAMBlock. Pure: every function returns a new block and leaves its argument alone.

An address stands at an ordinal, its distance from the block's first address. All addresses are given out, the
first and the last too: pods have /32 addresses, so there is neither a network nor a broadcast address.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network

import msgspec

from tortie.model.names import cidr_name, host_affinity
from tortie.model.resources import AllocationAttribute, IPAMBlock, IPAMBlockSpec, Metadata


class BlockError(Exception):
    """The block cannot be changed as asked."""


class AddressInUseError(BlockError):
    """The address is held already."""


class StaleReleaseError(BlockError):
    """The address was released and given out again since the caller looked (the sequence number differs)."""


def new_block(cidr: IPv4Network, node: str, now: datetime, sequence: int) -> IPAMBlock:
    """An empty block that belongs to `node` since `now`.

    `sequence` must exceed that of any earlier block of the same name (nanoseconds since 1970 do), so that a
    release meant for an earlier one is recognised as stale.
    """
    size = cidr.num_addresses
    return IPAMBlock(
        metadata=Metadata(name=cidr_name(cidr)),
        spec=IPAMBlockSpec(
            cidr=str(cidr),
            affinity=host_affinity(node),
            affinity_claim_time=now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            allocations=[None] * size,
            unallocated=list(range(size)),
            attributes=[],
            sequence_number=sequence,
        ),
    )


def network(block: IPAMBlock) -> IPv4Network:
    """The block's range."""
    return IPv4Network(block.spec.cidr)


def free_count(block: IPAMBlock) -> int:
    """How many addresses can be assigned."""
    return len(block.spec.unallocated)


def is_empty(block: IPAMBlock) -> bool:
    """Whether nobody holds an address of it."""
    return all(index is None for index in block.spec.allocations)


def belongs_to(block: IPAMBlock, node: str) -> bool:
    """Whether the block is affine to `node`."""
    return block.spec.affinity == host_affinity(node)


def addresses_of(block: IPAMBlock, handle: str) -> list[IPv4Address]:
    """The addresses that `handle` holds, in order."""
    first = network(block).network_address
    held = _indices_of(block.spec, handle)
    return [first + ordinal for ordinal, index in enumerate(block.spec.allocations) if index in held]


def holders(block: IPAMBlock) -> dict[IPv4Address, AllocationAttribute]:
    """Who holds which address."""
    first = network(block).network_address
    attributes = block.spec.attributes
    return {
        first + ordinal: attributes[index]
        for ordinal, index in enumerate(block.spec.allocations)
        if index is not None
    }


def assign(
    block: IPAMBlock, count: int, handle: str, attributes: Mapping[str, str]
) -> tuple[IPAMBlock, list[IPv4Address]]:
    """Give `handle` up to `count` addresses: those that have been free for longest."""
    ordinals = block.spec.unallocated[:count]
    first = network(block).network_address
    return _allocate(block, ordinals, handle, attributes), [first + ordinal for ordinal in ordinals]


def assign_address(
    block: IPAMBlock, address: IPv4Address, handle: str, attributes: Mapping[str, str]
) -> IPAMBlock:
    """Give `handle` a certain address. Raise AddressInUseError, or BlockError when it is not in the block."""
    ordinal = _ordinal(block, address)
    if ordinal not in block.spec.unallocated:
        raise AddressInUseError(f"Address {address} of block {block.spec.cidr} is held already.")
    return _allocate(block, [ordinal], handle, attributes)


def release(block: IPAMBlock, sequences: Mapping[IPv4Address, int | None]) -> IPAMBlock:
    """Free addresses, all or none; one that is free already is no error. The values are the sequence numbers
    that the caller saw for the allocations, None not to check. Raise StaleReleaseError, BlockError."""
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
    return _free(block, ordinals)


def release_handle(block: IPAMBlock, handle: str) -> tuple[IPAMBlock, list[IPv4Address]]:
    """Free everything that `handle` holds."""
    addresses = addresses_of(block, handle)
    return _free(block, [_ordinal(block, address) for address in addresses]), addresses


def touch(block: IPAMBlock) -> IPAMBlock:
    """The same block with the next sequence number. Writing it makes writes that are still under way fail."""
    return _with_spec(block, msgspec.structs.replace(block.spec))


def sequence_of(block: IPAMBlock, address: IPv4Address) -> int | None:
    """The sequence number that the address was allocated at; None when it is free."""
    return block.spec.sequence_number_for_allocation.get(str(_ordinal(block, address)))


def _ordinal(block: IPAMBlock, address: IPv4Address) -> int:
    ordinal = int(address) - int(network(block).network_address)
    if not 0 <= ordinal < len(block.spec.allocations):
        raise BlockError(f"Address {address} is not in block {block.spec.cidr}.")
    return ordinal


def _indices_of(spec: IPAMBlockSpec, handle: str) -> set[int]:
    return {index for index, attribute in enumerate(spec.attributes) if attribute.handle_id == handle}


def _with_spec(block: IPAMBlock, spec: IPAMBlockSpec) -> IPAMBlock:
    """A write of the block: its sequence number grows."""
    spec.sequence_number = block.spec.sequence_number + 1
    return msgspec.structs.replace(block, spec=spec)


def _allocate(
    block: IPAMBlock, ordinals: Iterable[int], handle: str, attributes: Mapping[str, str]
) -> IPAMBlock:
    spec = block.spec
    holder = AllocationAttribute(handle_id=handle, secondary=dict(attributes))
    all_attributes = list(spec.attributes)
    if holder not in all_attributes:
        all_attributes.append(holder)
    index = all_attributes.index(holder)
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


def _free(block: IPAMBlock, ordinals: list[int]) -> IPAMBlock:
    spec = block.spec
    freed = set(ordinals)
    allocations = [None if ordinal in freed else index for ordinal, index in enumerate(spec.allocations)]
    used = sorted({index for index in allocations if index is not None})
    moved = {old: new for new, old in enumerate(used)}
    sequences = spec.sequence_number_for_allocation
    return _with_spec(
        block,
        msgspec.structs.replace(
            spec,
            allocations=[None if index is None else moved[index] for index in allocations],
            unallocated=[*spec.unallocated, *ordinals],  # at the tail: reused last
            attributes=[spec.attributes[index] for index in used],
            sequence_number_for_allocation={
                key: value for key, value in sequences.items() if int(key) not in freed
            },
        ),
    )
