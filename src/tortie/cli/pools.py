"""Taking a pool out of use before it is deleted: no new addresses, no block without a pool."""

import logging
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, TypeVar

import msgspec

from tortie.cli.documents import spec_of, with_content
from tortie.datastore.interface import ConflictError, Datastore, NotFoundError
from tortie.model.names import cidr_name
from tortie.model.resources import BlockAffinity, IPAMBlock, Resource

R = TypeVar("R", bound=Resource)

_ATTEMPTS: Final = 10

log = logging.getLogger(__name__)


async def retire(store: Datastore, pool: R) -> R:
    """Disable the pool and give up the claims on its blocks; the pool as it is stored then.

    Disabling comes first, so that nobody claims a block meanwhile. An empty block goes away; one with
    addresses in use stays without an owner until they are released. Raise ConflictError when somebody else
    changes the pool, InvalidError and UnavailableError.
    """
    spec = spec_of(pool)
    if not spec.get("disabled"):
        pool = await store.update(with_content(pool, pool.metadata, spec | {"disabled": True}))
    try:
        cidr = ip_network(spec.get("cidr", ""), strict=False)
    except ValueError:
        return pool  # nobody can have taken a block of what is no range
    for affinity in (await store.list(BlockAffinity)).items:
        if _inside(affinity.spec.cidr, cidr):
            await _release(store, affinity)
    return pool


async def addresses_in_use(store: Datastore, pool: Resource) -> int:
    """How many addresses of the pool are allocated."""
    try:
        cidr = ip_network(spec_of(pool).get("cidr", ""), strict=False)
    except ValueError:
        return 0
    return sum(
        index is not None
        for block in (await store.list(IPAMBlock)).items
        if _inside(block.spec.cidr, cidr)
        for index in block.spec.allocations
    )


def _inside(text: str, pool: IPv4Network | IPv6Network) -> bool:
    block = ip_network(text, strict=False)
    return block.version == pool.version and block.network_address in pool


async def _release(store: Datastore, affinity: BlockAffinity) -> None:
    """Give up one claim: mark it, take the block's owner away or the block itself, remove the claim. A crash
    in between leaves a claim that is not confirmed, which counts for nothing."""
    name = affinity.metadata.name
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            if affinity.spec.state != "pendingDeletion":
                leaving = msgspec.structs.replace(affinity.spec, state="pendingDeletion")
                affinity = await store.update(msgspec.structs.replace(affinity, spec=leaving))
            await _disown(store, affinity)
            await store.delete(affinity)
        except NotFoundError:
            return
        except ConflictError:
            if attempt == _ATTEMPTS:
                raise
            try:
                affinity = await store.get(BlockAffinity, name)
            except NotFoundError:
                return
        else:
            log.info("Block %s of node %s given up", affinity.spec.cidr, affinity.spec.node)
            return


async def _disown(store: Datastore, affinity: BlockAffinity) -> None:
    try:
        block = await store.get(IPAMBlock, cidr_name(affinity.spec.cidr))
    except NotFoundError:
        return
    owner = f"{affinity.spec.type}:{affinity.spec.node}"
    if block.spec.affinity not in (owner, None):
        return
    if all(index is None for index in block.spec.allocations):
        await store.delete(block)
        return
    ownerless = msgspec.structs.replace(
        block.spec, affinity=None, sequence_number=block.spec.sequence_number + 1
    )
    await store.update(msgspec.structs.replace(block, spec=ownerless))
