"""What must hold of the IPAM objects at any time, whatever failed before."""

import itertools
import random
from collections.abc import Mapping, Sequence
from ipaddress import ip_network

from tortie.datastore.interface import Datastore
from tortie.ipam import block as blocks
from tortie.ipam.allocator import Allocator
from tortie.ipam.request import Address, AddressRequest
from tortie.model.names import handle_name, host_affinity
from tortie.model.resources import (
    AllowedUse,
    BlockAffinity,
    IPAMBlock,
    IPAMHandle,
    IPPool,
    IPPoolSpec,
    Metadata,
)


class Eager(random.Random):
    """Chooses at random like any other, but makes every wait between two tries zero."""

    def uniform(self, _low: float, _high: float) -> float:
        return 0.0


def pool(cidr: str, block_size: int, name: str = "default") -> IPPool:
    return IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=cidr, block_size=block_size))


async def assign(
    allocator: Allocator,
    handle_id: str,
    attributes: Mapping[str, str] | None = None,
    use: AllowedUse = "Workload",
    pools: Sequence[str] | None = None,
) -> Address:
    """One IPv4 address for the handle."""
    (address,) = await allocator.assign(AddressRequest(handle_id, attributes or {}, use=use, pools=pools))
    return address


async def holders(datastore: Datastore) -> dict[Address, str]:
    """Which handle holds which address. No address may be in two blocks."""
    result: dict[Address, str] = {}
    for block in (await datastore.list(IPAMBlock)).items:
        for address, attribute in blocks.holders(block).items():
            assert address not in result, f"{address} is in two blocks"
            assert attribute.handle_id is not None
            result[address] = attribute.handle_id
    return result


async def check(datastore: Datastore) -> None:
    """Assert the invariants."""
    stored = {item.spec.cidr: item for item in (await datastore.list(IPAMBlock)).items}
    for one, other in itertools.combinations(map(blocks.network, stored.values()), 2):
        assert one.version != other.version or not one.overlaps(other)
    for block in stored.values():
        free = {n for n, index in enumerate(block.spec.allocations) if index is None}
        assert sorted(block.spec.unallocated) == sorted(free)

    handles = {item.metadata.name: item for item in (await datastore.list(IPAMHandle)).items}
    for address, handle_id in (await holders(datastore)).items():
        handle = handles.get(handle_name(handle_id))
        assert handle is not None, f"{address} cannot be reached: handle {handle_id} is gone"
        named = [cidr for cidr in handle.spec.block if address in ip_network(cidr)]
        assert named, f"{address} cannot be reached: handle {handle_id} names only {handle.spec.block}"

    confirmed: dict[str, str] = {}
    for affinity in (await datastore.list(BlockAffinity)).items:
        cidr, node = affinity.spec.cidr, affinity.spec.node
        if affinity.spec.state == "confirmed":
            assert cidr not in confirmed, f"{cidr} belongs to {confirmed[cidr]} and {node}"
            confirmed[cidr] = node
            assert stored[cidr].spec.affinity == host_affinity(node)
