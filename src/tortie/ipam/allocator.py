"""Giving out and taking back addresses.

Two objects record an address: the IPAMHandle says in which blocks a container holds addresses, the IPAMBlock
which ones. The order of the writes keeps every address reachable from its handle, whatever fails in between:

- assign: read the block, write the handle (count raised), write the block, each by compare-and-swap. When the
  block's write fails or its outcome is unknown, the handle names a block where it may hold nothing: harmless.
- release: write every block that the handle names, then delete the handle, by compare-and-swap too.

Whoever finds a handle that exists already fences the blocks that it names before relying on what they say:
writes them with nothing but a new sequence number, so that the write of an earlier assign or release, should
it still be on its way, is refused when it arrives. A failed round is repeated from reading the handle on: an
assign whose answer was lost finds what it did.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Final

import msgspec

from tortie.datastore.interface import Datastore, DatastoreError, NotFoundError
from tortie.ipam import block as blocks
from tortie.ipam.claims import Claims, Holdings
from tortie.ipam.pools import Selection, candidate_blocks, needs_labels, select
from tortie.ipam.retries import PASSING, Rounds
from tortie.model.names import cidr_name, handle_name
from tortie.model.resources import (
    AllowedUse,
    IPAMBlock,
    IPAMConfig,
    IPAMConfigSpec,
    IPAMHandle,
    IPAMHandleSpec,
    IPPool,
    Metadata,
    Node,
)

DEFAULT_MAX_BLOCKS: Final = 20  # Calico's, when maxBlocksPerHost is not set

log = logging.getLogger(__name__)


class NoAddressError(Exception):
    """No pool has an address for this request. The message says which pools were tried, and the remedy."""


@dataclass(frozen=True, slots=True)
class _Request:
    """One assign."""

    handle_id: str
    attributes: dict[str, str]
    use: AllowedUse
    selection: Selection

    def serves(self, cidr: IPv4Network) -> bool:
        """Whether a block is in a pool that may serve the request."""
        return any(cidr.subnet_of(pool.network) for pool in self.selection.eligible)


def _now() -> datetime:
    return datetime.now(UTC)


class Allocator:
    """Addresses for one node. Calls of one allocator wait for each other, so that they do not conflict;
    allocators of other nodes, and a second one for this node, are kept apart by the datastore.
    """

    def __init__(
        self,
        datastore: Datastore,
        node: str,
        *,
        clock: Callable[[], datetime] = _now,
        rng: random.Random | None = None,
        borrowing: bool = True,
    ) -> None:
        """`borrowing`: whether an address of another node's block may be taken when no block is left, as far
        as IPAMConfig allows it."""
        self._datastore = datastore
        self._node = node
        self._rng = rng if rng is not None else random.SystemRandom()
        self._claims = Claims(datastore, node, clock, self._rng)
        self._lock = asyncio.Lock()
        self._borrowing = borrowing
        # Our blocks as last seen. Nobody has to invalidate them: compare-and-swap finds out.
        self._own: dict[IPv4Network, IPAMBlock] = {}

    async def assign(
        self,
        *,
        handle_id: str,
        attributes: dict[str, str],
        use: AllowedUse = "Workload",
        pools: Sequence[IPPool] | None = None,
    ) -> IPv4Address:
        """An address for `handle_id`: the one that it holds already, else a new one.

        `attributes` are stored with the address (node, pod, namespace, type, ...). `pools`: these were asked
        for by name; None: all pools that select this node. Raise NoAddressError or a DatastoreError; after
        either, `release_handle` leaves nothing behind.
        """
        async with self._lock:
            rounds = Rounds(f"Assigning an address to {handle_id}", self._rng)
            request: _Request | None = None
            while True:
                try:
                    if request is None:
                        selection = await self._select(pools, use)
                        request = _Request(handle_id, attributes, use, selection)
                    return await self._assign_once(request)
                except PASSING as error:
                    self._own.clear()
                    await rounds.wait_after(error)

    async def release_handle(self, handle_id: str) -> list[IPv4Address]:
        """Free everything that the handle holds and forget the handle; an unknown handle holds nothing.

        Raise a DatastoreError; calling again continues where it failed.
        """
        async with self._lock:
            rounds = Rounds(f"Releasing the addresses of {handle_id}", self._rng)
            released: set[IPv4Address] = set()
            while True:
                try:
                    await self._release_once(handle_id, released)
                except PASSING as error:
                    self._own.clear()
                    await rounds.wait_after(error)
                else:
                    return sorted(released)

    async def reconcile_affinities(self) -> list[str]:
        """Complete or undo claims that an earlier process left half-made; call it before the first assign.

        Return one sentence for each repair. Raise a DatastoreError.
        """
        async with self._lock:
            self._own.clear()
            return await self._claims.reconcile()

    # --- assign ---------------------------------------------------------------------------------------------

    async def _select(self, pools: Sequence[IPPool] | None, use: AllowedUse) -> Selection:
        requested = pools is not None
        if pools is None:
            pools = (await self._datastore.list(IPPool)).items
        labels: dict[str, str] = {}
        if not requested and needs_labels(pools):
            labels = (await self._datastore.get(Node, self._node)).metadata.labels
        return select(pools, use, labels, requested)

    async def _assign_once(self, request: _Request) -> IPv4Address:
        handle = await self._handle(request.handle_id)
        if handle is not None:
            held = await self._held(handle)
            if held is not None:
                return held
        block = await self._choose(request)
        return await self._take(request, handle, block)

    async def _handle(self, handle_id: str) -> IPAMHandle | None:
        try:
            handle = await self._datastore.get(IPAMHandle, handle_name(handle_id))
        except NotFoundError:
            return None
        if handle.spec.deleted:  # Calico deletes in two steps; this is between them
            await self._datastore.delete(handle)
            return None
        return handle

    async def _held(self, handle: IPAMHandle) -> IPv4Address | None:
        """An address that the handle holds already. No write still under way can change the answer."""
        for cidr in sorted(handle.spec.block):
            try:
                block = await self._datastore.get(IPAMBlock, cidr_name(cidr))
            except NotFoundError:
                continue
            self._remember(await self._datastore.update(blocks.touch(block)))
            addresses = blocks.addresses_of(block, handle.spec.handle_id)
            if addresses:
                return addresses[0]
        return None

    async def _choose(self, request: _Request) -> IPAMBlock:
        """A block with a free address: ours, else a new one, else another node's. Raise NoAddressError."""
        block = self._free_own(request)
        if block is not None:
            return block
        holdings = await self._refresh()
        config = await self._config()
        limit = config.max_blocks_per_host or DEFAULT_MAX_BLOCKS
        block = self._free_own(request)
        if block is None and config.auto_allocate_blocks and len(self._own) < limit:
            block = await self._claim_new(request, holdings)
        if block is None and self._borrowing and not config.strict_affinity:
            block = self._borrowable(request, holdings)
        if block is None:
            raise NoAddressError(self._explain(request, config, limit))
        return block

    def _free_own(self, request: _Request) -> IPAMBlock | None:
        for cidr, block in sorted(self._own.items()):
            if request.serves(cidr) and blocks.free_count(block) and not block.spec.deleted:
                return block
        return None

    async def _refresh(self) -> Holdings:
        """Read all blocks; ours are known afterwards, and confirmed."""
        holdings = await self._claims.read()
        self._own = {}
        for cidr, block in holdings.own(self._node).items():
            affinity = holdings.affinities.get(cidr)
            confirmed = affinity is not None and affinity.spec.state == "confirmed"
            ours = block if confirmed else await self._claims.claim(cidr)
            if ours is not None:
                self._own[cidr] = ours
        return holdings

    async def _claim_new(self, request: _Request, holdings: Holdings) -> IPAMBlock | None:
        for pool in request.selection.eligible:
            # Blocks of another size remain where a pool was made anew with another block size.
            odd = [cidr for cidr in holdings.blocks if cidr.prefixlen != pool.block_size]
            for cidr in candidate_blocks(pool, self._node):
                if cidr in holdings.blocks or any(cidr.overlaps(other) for other in odd):
                    continue
                block = await self._claims.claim(cidr)
                if block is None:
                    continue
                self._own[cidr] = block
                # It may be an older claim of ours that has come to light only now, and be full.
                if blocks.free_count(block):
                    return block
        return None

    def _borrowable(self, request: _Request, holdings: Holdings) -> IPAMBlock | None:
        candidates = [
            block
            for cidr, block in holdings.blocks.items()
            if cidr not in self._own
            and request.serves(cidr)
            and blocks.free_count(block)
            and not block.spec.strict_affinity
            and not block.spec.deleted
        ]
        # At random, so that nodes that borrow at the same time do not all try the same block.
        return self._rng.choice(candidates) if candidates else None

    async def _take(self, request: _Request, handle: IPAMHandle | None, block: IPAMBlock) -> IPv4Address:
        cidr = block.spec.cidr
        handle = await self._declare(request, handle, cidr)
        changed, addresses = blocks.assign(block, 1, request.handle_id, request.attributes)
        self._remember(await self._datastore.update(changed))
        await self._settle(handle, cidr)
        log.info("Address %s of block %s assigned to %s", addresses[0], cidr, request.handle_id)
        return addresses[0]

    async def _declare(self, request: _Request, handle: IPAMHandle | None, cidr: str) -> IPAMHandle:
        """Write the handle in any case: a release that has read it before must not succeed in deleting it."""
        if handle is None:
            return await self._datastore.create(
                IPAMHandle(
                    metadata=Metadata(name=handle_name(request.handle_id)),
                    spec=IPAMHandleSpec(handle_id=request.handle_id, block={cidr: 1}),
                )
            )
        counts = handle.spec.block | {cidr: handle.spec.block.get(cidr, 0) + 1}
        return await self._datastore.update(_with_counts(handle, counts))

    async def _settle(self, handle: IPAMHandle, cidr: str) -> None:
        """Take back what failed rounds added to the handle; its other blocks have been fenced in this round.

        Best effort: a count too high, or a block too many, does no harm.
        """
        if handle.spec.block == {cidr: 1}:
            return
        try:
            await self._datastore.update(_with_counts(handle, {cidr: 1}))
        except DatastoreError as error:
            log.debug("Handle %s keeps a count that is too high: %s", handle.spec.handle_id, error)

    async def _config(self) -> IPAMConfigSpec:
        try:
            return (await self._datastore.get(IPAMConfig, "default")).spec
        except NotFoundError:
            return IPAMConfigSpec()

    def _explain(self, request: _Request, config: IPAMConfigSpec, limit: int) -> str:
        tried = "; ".join(str(pool) for pool in request.selection.eligible) or "none"
        rejected = "; ".join(request.selection.rejected) or "none"
        if len(self._own) >= limit:
            cause = f"the node has {len(self._own)} blocks, the limit is {limit} (maxBlocksPerHost)"
        elif not config.auto_allocate_blocks:
            cause = "the node's blocks are full, and autoAllocateBlocks is false"
        else:
            cause = f"the node's {len(self._own)} blocks are full and no block of these pools is left"
        if not self._borrowing:
            borrowing = "addresses are not borrowed from other nodes' blocks"
        elif config.strict_affinity:
            borrowing = "borrowing from other nodes is off (strictAffinity true)"
        else:
            borrowing = "no other node's block has an address left"
        return (
            f"No address for {request.use} on node {self._node}: pools that may serve it: {tried}; "
            f"pools that may not: {rejected}; {cause}; {borrowing}. "
            "Add an IPPool or enable one, delete pods, or change the IPAMConfig named default."
        )

    # --- release --------------------------------------------------------------------------------------------

    async def _release_once(self, handle_id: str, released: set[IPv4Address]) -> None:
        try:
            handle = await self._datastore.get(IPAMHandle, handle_name(handle_id))
        except NotFoundError:
            return
        for cidr in sorted(handle.spec.block):
            block = await self._known_block(IPv4Network(cidr))
            if block is None:
                continue
            freed, addresses = blocks.release_handle(block, handle.spec.handle_id)
            # Before the write: if its answer is lost, the next round no longer sees them.
            released.update(addresses)
            self._remember(await self._datastore.update(freed if addresses else blocks.touch(block)))
        await self._datastore.delete(handle)
        if released:
            log.info("Released %s of %s", ", ".join(str(address) for address in sorted(released)), handle_id)

    async def _known_block(self, cidr: IPv4Network) -> IPAMBlock | None:
        if cidr in self._own:
            return self._own[cidr]
        try:
            return await self._datastore.get(IPAMBlock, cidr_name(cidr))
        except NotFoundError:
            return None

    def _remember(self, block: IPAMBlock) -> None:
        cidr = blocks.network(block)
        if cidr in self._own:
            self._own[cidr] = block


def _with_counts(handle: IPAMHandle, counts: dict[str, int]) -> IPAMHandle:
    return msgspec.structs.replace(handle, spec=msgspec.structs.replace(handle.spec, block=counts))
