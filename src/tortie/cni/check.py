"""CHECK's look at the address: is it still accounted to the container?"""

from collections.abc import Sequence

from tortie.cni.config import Request
from tortie.dataplane.workload_link import Address
from tortie.datastore.interface import Datastore, NotFoundError
from tortie.ipam import block as blocks
from tortie.model import names
from tortie.model.resources import IPAMBlock, IPAMHandle


async def address_problems(datastore: Datastore, request: Request, addresses: Sequence[Address]) -> list[str]:
    """One sentence for each address that is not the container's. Raise DatastoreError."""
    shown = ", ".join(map(str, addresses))
    try:
        handle = await datastore.get(IPAMHandle, names.handle_name(request.handle))
    except NotFoundError:
        return [f"address {shown} is not accounted to the container: no handle {request.handle}"]
    held: set[Address] = set()
    for cidr in handle.spec.block:
        try:
            block = await datastore.get(IPAMBlock, names.cidr_name(cidr))
        except NotFoundError:
            continue
        held.update(blocks.addresses_of(block, handle.spec.handle_id))
    return [
        f"address {address} is not accounted to the container: handle {request.handle} has "
        + (", ".join(sorted(map(str, held))) or "none")
        for address in addresses
        if address not in held
    ]


def previous_mac(request: Request) -> str | None:
    """The hardware address that ADD answered for the container's interface."""
    previous = request.config.prev_result
    for item in previous.interfaces if previous else []:
        if item.name == request.ifname and item.sandbox and item.mac:
            return item.mac.lower()
    return None
