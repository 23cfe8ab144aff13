"""Taking addresses back.

The order of the writes: every block that the handle names, then the handle is deleted, each by
compare-and-swap. A block is written even when the handle holds nothing in it, with nothing but a new sequence
number: so the write of an assign that is still on its way is refused when it arrives.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar

from tortie.datastore.interface import Datastore
from tortie.ipam import block as blocks
from tortie.ipam.block import BlockError, Network
from tortie.ipam.concurrent import all_of
from tortie.ipam.handles import Handles, block_networks
from tortie.ipam.known import KnownBlocks
from tortie.ipam.request import Address
from tortie.ipam.retries import PASSING, Rounds
from tortie.ipam.surroundings import ReadSurroundings, Surroundings
from tortie.model.resources import IPAMBlock, IPAMHandle

T = TypeVar("T")
Sequences = Mapping[Address, int | None]

SYSTEM_RANDOM: Final = random.SystemRandom()

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class Releases:
    """Releases of one process, whatever node it stands for."""

    def __init__(
        self,
        datastore: Datastore,
        *,
        surroundings: Surroundings | None = None,
        clock: Callable[[], datetime] = utc_now,
        rng: random.Random = SYSTEM_RANDOM,
    ) -> None:
        self.blocks = KnownBlocks(datastore)
        self.handles = Handles(datastore)
        self.surroundings = surroundings or ReadSurroundings(datastore)
        self._datastore = datastore
        self._clock = clock
        self._rng = rng

    async def release_handle(self, handle_id: str) -> list[Address]:
        """Free everything that the handle holds and forget the handle; an unknown handle holds nothing.

        Raise a DatastoreError; calling again continues where it failed.
        """
        async with self.handles.turn(handle_id):
            return await self.release_in_turn(handle_id)

    async def release_in_turn(self, handle_id: str) -> list[Address]:
        """The same for somebody whose turn it is."""
        released: set[Address] = set()

        async def attempt() -> None:
            handle = self.handles.known(handle_id) or await self.handles.read(handle_id)
            if handle is not None:
                await self._release_everything(handle, released)

        await self._repeat(f"Releasing the addresses of {handle_id}", attempt, handle_id)
        if released:
            log.info("Released %s of %s", _listed(released), handle_id)
        return sorted(released, key=blocks.position)

    async def _release_everything(self, handle: IPAMHandle, released: set[Address]) -> None:
        since = await self._cooling_since()
        handle_id = handle.spec.handle_id

        def free(block: IPAMBlock) -> tuple[IPAMBlock, None]:
            freed, addresses = blocks.release_handle(block, handle_id, since)
            # Before the write: if its answer is lost, the next round no longer sees them.
            released.update(addresses)
            return freed, None

        async def free_in(cidr: Network) -> None:
            known = await self.blocks.read(cidr)
            if known is not None:
                await known.edit(free)

        await all_of(free_in(cidr) for cidr in block_networks(handle))
        await self.handles.delete(handle)

    async def release(self, cidr: Network, sequences: Sequences) -> list[Address]:
        """Free certain addresses of the block `cidr`, whoever holds them, all or none; then delete handles
        that hold nothing any more. One that is free already is no error. The values are the sequence numbers
        that the caller saw, None not to check.

        Raise BlockError (StaleReleaseError: somebody else has an address by now) or a DatastoreError.
        """
        affected: set[str] = set()
        released: set[Address] = set()

        async def attempt() -> None:
            since = await self._cooling_since()

            def free(block: IPAMBlock) -> tuple[IPAMBlock, None]:
                freed = blocks.release(block, sequences, since)
                held = blocks.holders(block)
                released.update(address for address in sequences if address in held)
                affected.update(held[address].handle_id or "" for address in sequences if address in held)
                return freed, None

            known = await self.blocks.read(cidr)
            if known is not None:
                await known.edit(free)

        await self._repeat(f"Releasing {_listed(sequences)}", attempt)
        for handle_id in affected - {""}:
            await self.tidy(handle_id)
        if released:
            log.info("Released %s of %s", _listed(released), ", ".join(sorted(affected)))
        return sorted(released, key=blocks.position)

    async def tidy(self, handle_id: str) -> bool:
        """Make the handle say what it holds; delete one that holds nothing. Return whether it was deleted.

        Raise a DatastoreError.
        """
        async with self.handles.turn(handle_id):
            return await self.tidy_in_turn(handle_id)

    async def tidy_in_turn(self, handle_id: str) -> bool:
        """The same for somebody whose turn it is."""
        deleted = False

        async def count(cidr: Network) -> tuple[str, int]:
            known = await self.blocks.read(cidr)
            if known is None:
                return str(cidr), 0
            return str(cidr), len(
                await known.edit(lambda block: (blocks.touch(block), blocks.addresses_of(block, handle_id)))
            )

        async def attempt() -> None:
            nonlocal deleted
            handle = await self.handles.read(handle_id)
            if handle is None:
                return
            counts = {
                cidr: number for cidr, number in await all_of(map(count, block_networks(handle))) if number
            }
            if not counts:
                await self.handles.delete(handle)
                deleted = True
            elif counts != handle.spec.block:
                await self.handles.update(handle, counts)

        await self._repeat(f"Tidying up handle {handle_id}", attempt, handle_id)
        return deleted

    async def thaw(self, cidr: Network) -> None:
        """Free addresses of the block that have cooled down. Raise a DatastoreError."""
        now, cooldown = self._clock(), (await self.surroundings.current()).cooldown

        def free(block: IPAMBlock) -> tuple[IPAMBlock, None]:
            freed = blocks.thaw(block, now, cooldown)
            if freed is block:
                raise BlockError(f"Nothing has cooled down in block {cidr}.")
            return freed, None

        async def attempt() -> None:
            known = await self.blocks.read(cidr)
            if known is not None and blocks.thaw(known.block, now, cooldown) is not known.block:
                await known.edit(free)

        await self._repeat(f"Freeing cooled-down addresses of block {cidr}", attempt)

    async def _cooling_since(self) -> datetime | None:
        return self._clock() if (await self.surroundings.current()).cooldown else None

    async def _repeat(self, what: str, attempt: Callable[[], Awaitable[T]], handle_id: str = "") -> T:
        rounds = Rounds(what, self._rng)
        while True:
            try:
                return await attempt()
            except PASSING as error:
                self.handles.forget(handle_id)
                await rounds.wait_after(error)


def _listed(addresses: Collection[Address]) -> str:
    return ", ".join(str(address) for address in sorted(addresses, key=blocks.position)) or "nothing"
