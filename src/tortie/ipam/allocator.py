"""Giving out addresses to the containers and tunnels of one node.

Two objects record an address: the IPAMHandle says in which blocks a container holds addresses, the IPAMBlock
which ones. The order of the writes keeps every address reachable from its handle, whatever fails in between:
first the handle (count raised), then the block, each by compare-and-swap. When the block's write fails or its
outcome is unknown, the handle names a block where it may hold nothing: harmless.

Usually a handle is new, and one of the node's own blocks, known since the last write, has room: then an
assign is one create and one update, the latter shared by all that wait (`tortie.ipam.known`). Whoever finds a
handle that exists already fences the blocks that it names before relying on what they say: writes them with
nothing but a new sequence number, so that the write of an earlier assign or release, should it still be on
its way, is refused when it arrives. A failed round is repeated from reading the handle on: an assign whose
answer was lost finds what it did.
"""

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tortie.datastore.interface import AlreadyExistsError, ConflictError, Datastore, DatastoreError
from tortie.ipam import block as blocks
from tortie.ipam.block import AddressInUseError, BlockError, Network
from tortie.ipam.claims import Claims
from tortie.ipam.concurrent import all_of
from tortie.ipam.errors import AddressError, AddressTakenError, BadRequestError
from tortie.ipam.handles import block_networks
from tortie.ipam.releases import Releases, utc_now
from tortie.ipam.request import Address, AddressRequest
from tortie.ipam.retries import PASSING, Rounds
from tortie.ipam.search import BlockSearch, Demand, Place, leave_all
from tortie.ipam.surroundings import ReadSurroundings, Surroundings
from tortie.model.resources import IPAMBlock, IPAMHandle

log = logging.getLogger(__name__)


class BlockFullError(BlockError):
    """The block has no address for an automatic assignment any more."""


@dataclass(slots=True)
class _Held:
    """Addresses that a handle holds, with their blocks."""

    by_address: dict[Address, Network] = field(default_factory=dict)

    def of_family(self, family: int) -> Address | None:
        return min((item for item in self.by_address if item.version == family), default=None, key=int)

    def counts(self) -> dict[str, int]:
        return dict(Counter(str(cidr) for cidr in self.by_address.values()))


@dataclass(slots=True)
class _Task:
    """An assign under way. `untouched`: the handle is probably new, and no round has been tried; `created`:
    the handle did not exist before."""

    demand: Demand
    untouched: bool
    created: bool = False


class Allocator:
    """Addresses for one node. Requests run at the same time, those for one handle one after the other;
    allocators of other nodes, and a second one for this node, are kept apart by the datastore.
    """

    def __init__(
        self,
        datastore: Datastore,
        node: str,
        *,
        borrowing: bool = True,
        surroundings: Surroundings | None = None,
        clock: Callable[[], datetime] = utc_now,
        rng: random.Random | None = None,
    ) -> None:
        """`borrowing`: whether an address of another node's block may be taken when no block is left, as far
        as IPAMConfig allows it. `surroundings`: None reads pools and the rest, at most once a second."""
        self._node = node
        self._rng = rng if rng is not None else random.SystemRandom()
        self._clock = clock
        self._surroundings = surroundings or ReadSurroundings(datastore, node)
        self._releases = Releases(datastore, surroundings=self._surroundings, clock=clock, rng=self._rng)
        self._blocks, self._handles = self._releases.blocks, self._releases.handles
        self._claims = Claims(datastore, node, clock, self._rng)
        self._search = BlockSearch(
            node, self._claims, self._blocks, self._surroundings, borrowing, clock, self._rng
        )

    async def assign(self, wanted: AddressRequest) -> tuple[Address, ...]:
        """One address of each family asked for, IPv4 first: what the handle holds already, else new ones.

        Raise AddressError (NoAddressError, AddressTakenError, BadRequestError) or a DatastoreError; after a
        DatastoreError or a cancellation, `release_handle` leaves nothing behind, after an AddressError a
        handle that did not exist before does not exist.
        """
        demand = Demand.of(wanted)
        rounds = Rounds(f"Assigning an address to {wanted.handle_id}", self._rng)
        async with self._handles.turn(wanted.handle_id):
            task = _Task(demand, untouched=self._handles.known(wanted.handle_id) is None)
            while True:
                try:
                    return await self._assign_at_once(task) or await self._assign_with_care(task)
                except PASSING as error:
                    await rounds.wait_after(error)
                except AddressError:
                    await self._undo(task)
                    raise

    async def release_handle(self, handle_id: str) -> list[Address]:
        """Free everything that the handle holds and forget the handle; an unknown handle holds nothing.

        Raise a DatastoreError; calling again continues where it failed.
        """
        return await self._releases.release_handle(handle_id)

    async def release(self, cidr: Network, sequences: Mapping[Address, int | None]) -> list[Address]:
        """See `Releases.release`."""
        return await self._releases.release(cidr, sequences)

    async def held(self, handle_id: str) -> tuple[Address, ...]:
        """What the handle holds, IPv4 first, without changing anything. Raise a DatastoreError."""
        handle = await self._handles.read(handle_id)
        if handle is None:
            return ()
        found = await all_of(self._blocks.read(cidr) for cidr in block_networks(handle))
        held = [
            address for known in found if known for address in blocks.addresses_of(known.block, handle_id)
        ]
        return tuple(sorted(held, key=blocks.position))

    async def reconcile_affinities(self) -> list[str]:
        """Complete or undo claims that an earlier process left half-made; call it before the first assign.

        Return one sentence for each repair. Raise a DatastoreError.
        """
        return await self._claims.reconcile()

    # --- a handle that is new, and blocks of ours with room -------------------------------------------------

    async def _assign_at_once(self, task: _Task) -> tuple[Address, ...] | None:
        """None: it needs more care, and nothing has been done."""
        if not task.untouched:
            return None
        task.untouched = False
        places = self._search.own_places(task.demand, await self._surroundings.current())
        if places is None:
            return None
        try:
            await self._handles.create(task.demand.handle_id, _counts(places))
            task.created = True
            return _in_order(await self._take(task.demand, places))
        except AlreadyExistsError:
            return None
        finally:
            leave_all(places)

    # --- everything else ------------------------------------------------------------------------------------

    async def _assign_with_care(self, task: _Task) -> tuple[Address, ...]:
        demand = task.demand
        handle = await self._handles.read(demand.handle_id)
        held = await self._fence(handle) if handle is not None else _Held()
        kept = _kept(demand, held)
        missing = demand.without({address.version for address in kept})
        if not missing.families:
            return _in_order(kept)
        places = await self._search.places(missing)
        try:
            declared = await self._declare(demand, handle, places)
            task.created = task.created or handle is None
            taken = await self._take(demand, places)
        finally:
            leave_all(places)
        held.by_address |= dict(zip(taken, (place.known.cidr for place in places), strict=True))
        await self._settle(declared, held)
        return _in_order([*kept, *taken])

    async def _undo(self, task: _Task) -> None:
        """Nothing of a refused request may remain. Best effort: `release_handle` does the same."""
        try:
            if task.created:
                await self._releases.release_in_turn(task.demand.handle_id)
            else:
                await self._releases.tidy_in_turn(task.demand.handle_id)
        except DatastoreError as error:
            log.warning("Handle %s may hold addresses: %s", task.demand.handle_id, error)

    async def _fence(self, handle: IPAMHandle) -> _Held:
        """What the handle holds. No write that was sent before can change the answer any more."""
        handle_id = handle.spec.handle_id

        async def look(cidr: Network) -> tuple[Network, list[Address]]:
            known = await self._blocks.read(cidr)
            if known is None:
                return cidr, []
            return cidr, await known.edit(
                lambda block: (blocks.touch(block), blocks.addresses_of(block, handle_id))
            )

        found = await all_of(look(cidr) for cidr in block_networks(handle))
        return _Held({address: cidr for cidr, addresses in found for address in addresses})

    async def _declare(
        self, demand: Demand, handle: IPAMHandle | None, places: Iterable[Place]
    ) -> IPAMHandle:
        """Write the handle in any case: a release that has read it before must not succeed in deleting it."""
        counts = _counts(places)
        if handle is None:
            return await self._handles.create(demand.handle_id, counts)
        total = dict(Counter(handle.spec.block) + Counter(counts))
        return await self._handles.update(handle, total)

    async def _settle(self, handle: IPAMHandle, held: _Held) -> None:
        """Take back what failed rounds added to the handle; its other blocks have been fenced in this round.

        Best effort: a count too high, or a block too many, does no harm.
        """
        counts = held.counts()
        if handle.spec.block == counts:
            return
        try:
            await self._handles.update(handle, counts)
        except DatastoreError as error:
            log.debug("Handle %s keeps a count that is too high: %s", handle.spec.handle_id, error)

    async def _take(self, demand: Demand, places: Iterable[Place]) -> list[Address]:
        """The addresses, in the order of the places. Raise AddressTakenError or a DatastoreError."""
        setting = await self._surroundings.current()
        now, cooldown = self._clock(), setting.cooldown

        def give(block: IPAMBlock, address: Address | None) -> tuple[IPAMBlock, Address]:
            block = blocks.thaw(block, now, cooldown)
            if address is not None:
                return blocks.assign_address(block, address, demand.handle_id, demand.attributes), address
            changed, given = blocks.assign(block, 1, demand.handle_id, demand.attributes, setting.reserved)
            if not given:
                raise BlockFullError(f"Block {block.spec.cidr} is full.")
            return changed, given[0]

        async def take(place: Place) -> Address:
            try:
                address = await place.known.edit(lambda block: give(block, place.address))
            except AddressInUseError as error:
                raise AddressTakenError(f"{error}; it was asked for by {demand.handle_id}.") from error
            except BlockFullError as error:
                raise ConflictError(str(error)) from error
            log.info("Address %s of block %s assigned to %s", address, place.known.cidr, demand.handle_id)
            return address

        return await all_of(take(place) for place in places)


def _counts(places: Iterable[Place]) -> dict[str, int]:
    return dict(Counter(str(place.known.cidr) for place in places))


def _kept(demand: Demand, held: _Held) -> list[Address]:
    """Of what is held, one address for each family asked for. Raise BadRequestError."""
    kept = [address for family in demand.families if (address := held.of_family(family)) is not None]
    for address in kept:
        certain = demand.certain.get(address.version)
        if certain is not None and certain != address:
            raise BadRequestError(
                f"{demand.handle_id} asks for {certain} but holds {address}; "
                "release its addresses before it asks for another one."
            )
    return kept


def _in_order(addresses: Iterable[Address]) -> tuple[Address, ...]:
    return tuple(sorted(addresses, key=blocks.position))
