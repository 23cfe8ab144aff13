"""Finding a block for an address: the node's own, a new one, one that nobody uses, another node's."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from tortie.ipam import block as blocks
from tortie.ipam.block import Network
from tortie.ipam.claims import Claims, Holdings
from tortie.ipam.errors import AddressTakenError, BadRequestError, NoAddressError
from tortie.ipam.known import KnownBlock, KnownBlocks
from tortie.ipam.pools import Eligible, Selection, candidate_blocks, is_reserved, named, pool_with, select
from tortie.ipam.request import Address, AddressRequest
from tortie.ipam.surroundings import Setting, Surroundings
from tortie.model.resources import AllowedUse, IPAMBlock

DEFAULT_MAX_BLOCKS: Final = 20  # of each family; Calico's, when maxBlocksPerHost is not set
# An empty block of another node is taken only when it is older: its node may have just claimed it.
RECLAIM_AGE: Final = timedelta(minutes=1)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Demand:
    """A request, checked: `families` in order, `certain` addresses by family."""

    handle_id: str
    attributes: Mapping[str, str]
    families: tuple[int, ...]
    certain: Mapping[int, Address]
    use: AllowedUse
    pools: tuple[str, ...] | None
    namespace_labels: Mapping[str, str]

    @classmethod
    def of(cls, request: AddressRequest) -> "Demand":
        """Raise BadRequestError when the request contradicts itself."""
        certain: dict[int, Address] = {address.version: address for address in request.addresses}
        if len(certain) != len(request.addresses):
            listed = ", ".join(map(str, request.addresses))
            raise BadRequestError(f"{request.handle_id} asks for {listed}; ask for one address of a family.")
        families = tuple(sorted(request.families | set(certain)))
        if not families or not set(families) <= {4, 6}:
            raise BadRequestError(
                f"{request.handle_id} asks for the families {families}; 4, 6 or both exist."
            )
        return cls(
            handle_id=request.handle_id,
            attributes=dict(request.attributes),
            families=families,
            certain=certain,
            use=request.use,
            pools=None if request.pools is None else tuple(request.pools),
            namespace_labels=request.namespace_labels,
        )

    def without(self, families: set[int]) -> "Demand":
        """The same for the other families."""
        return replace(self, families=tuple(item for item in self.families if item not in families))

    def selection(self, setting: Setting) -> Selection:
        """Which pools may serve it. Raise BadRequestError."""
        pools = setting.pools if self.pools is None else named(setting.pools, self.pools)
        return select(pools, self.use, setting.labels, self.pools is not None, self.namespace_labels)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address is to be taken: any of a block, or a certain one. Others see it promised until
    `leave`."""

    known: KnownBlock
    address: Address | None = None

    @classmethod
    def promise(cls, known: KnownBlock, address: Address | None = None) -> "Place":
        """A place that others leave alone."""
        if address is None:
            known.promise()
        return cls(known, address)

    def leave(self) -> None:
        """It was taken, or will not be."""
        if self.address is None:
            self.known.keep()


def leave_all(places: Iterable[Place]) -> None:
    """See `Place.leave`."""
    for place in places:
        place.leave()


class BlockSearch:
    """Searches for one node. Blocks that it claims are `own` in `KnownBlocks` from then on."""

    def __init__(
        self,
        node: str,
        claims: Claims,
        known: KnownBlocks,
        surroundings: Surroundings,
        borrowing: bool,
        clock: Callable[[], datetime],
        rng: random.Random,
    ) -> None:
        self._node = node
        self._claims = claims
        self._known = known
        self._surroundings = surroundings
        self._borrowing = borrowing
        self._clock = clock
        self._rng = rng
        self._one_at_a_time = asyncio.Lock()  # or fifty requests would claim fifty blocks

    def own_places(self, demand: Demand, setting: Setting) -> list[Place] | None:
        """Places in blocks that are known to be ours and to have room, without asking anybody; or None."""
        if demand.certain:
            return None
        selection = demand.selection(setting)
        places: list[Place] = []
        for family in demand.families:
            known = next(self._own_with_room(selection.of_family(family), setting), None)
            if known is None:
                leave_all(places)
                return None
            places.append(Place.promise(known))
        return places

    async def places(self, demand: Demand) -> list[Place]:
        """A place for each family. Raise AddressError or a DatastoreError."""
        places: list[Place] = []
        try:
            for family in demand.families:
                places.append(await self._place(demand, family))
        except BaseException:
            leave_all(places)
            raise
        return places

    async def _place(self, demand: Demand, family: int) -> Place:
        async with self._one_at_a_time:
            certain = demand.certain.get(family)
            if certain is not None:
                return Place.promise(await self._block_of(demand, certain), certain)
            setting = await self._surroundings.current()
            pools = demand.selection(setting).of_family(family)
            await self._read_own(family)
            known = next(self._own_with_room(pools, setting), None)
            return Place.promise(known or await self._search(demand, family))

    def _own_with_room(self, pools: tuple[Eligible, ...], setting: Setting) -> Iterator[KnownBlock]:
        own = sorted(self._known.own, key=blocks.position)
        for pool in pools:
            for cidr in own:
                known = self._known.known(cidr) if blocks.within(cidr, pool.network) else None
                if known is not None and self._room(known, setting) > 0:
                    yield known

    def _room(self, known: KnownBlock, setting: Setting) -> int:
        block = known.block
        free = blocks.free_count(block, setting.reserved) - known.promised
        if free > 0:
            return free
        thawed = blocks.thaw(block, self._clock(), setting.cooldown)
        return blocks.free_count(thawed, setting.reserved) - known.promised

    async def _read_own(self, family: int) -> None:
        """Read anew what is ours and no longer known, because a write failed."""
        for cidr in [item for item in self._known.own if item.version == family]:
            if self._known.known(cidr) is None:
                known = await self._known.read(cidr)
                if known is None or not blocks.belongs_to(known.block, self._node):
                    self._known.own.discard(cidr)

    # --- with a look at all blocks --------------------------------------------------------------------------

    async def _search(self, demand: Demand, family: int) -> KnownBlock:
        setting = await self._surroundings.current(fresh=True)
        selection = demand.selection(setting)
        pools = selection.of_family(family)
        holdings = await self.refresh()
        known = next(self._own_with_room(pools, setting), None)
        if known is not None:
            return known
        config = setting.config
        limit = config.max_blocks_per_host or DEFAULT_MAX_BLOCKS
        count = sum(1 for cidr in self._known.own if cidr.version == family)
        if config.auto_allocate_blocks and count < limit:
            known = await self._claim_new(pools, holdings, setting) or await self._reclaim(
                pools, holdings, setting
            )
        if known is None and self._borrowing and not config.strict_affinity:
            known = self._borrowable(pools, holdings, setting)
        if known is None:
            raise NoAddressError(self._explain(demand, family, selection, setting, count, limit))
        return known

    async def refresh(self) -> Holdings:
        """Read all blocks; ours are known afterwards, and confirmed."""
        holdings = await self._claims.read()
        own = holdings.own(self._node)
        self._known.own = set(own)
        for cidr, block in own.items():
            affinity = holdings.affinities.get(cidr)
            confirmed = affinity is not None and affinity.spec.state == "confirmed"
            ours = block if confirmed else await self._claims.claim(cidr)
            if ours is None:
                self._known.own.discard(cidr)
            else:
                self._known.adopt(ours)
        return holdings

    async def _claim_new(
        self, pools: tuple[Eligible, ...], holdings: Holdings, setting: Setting
    ) -> KnownBlock | None:
        for pool in pools:
            # Blocks of another size remain where a pool was made anew with another block size.
            odd = [
                cidr
                for cidr in holdings.blocks
                if cidr.prefixlen != pool.block_size and blocks.within(cidr, pool.network)
            ]
            for cidr in candidate_blocks(pool, self._node):
                if cidr in holdings.blocks or any(cidr.overlaps(other) for other in odd):
                    continue
                if is_reserved(cidr, setting.reserved):
                    continue
                known = await self._claim(cidr)
                # It may be an older claim of ours that has come to light only now, and be full.
                if known is not None and self._room(known, setting) > 0:
                    return known
        return None

    async def _claim(self, cidr: Network) -> KnownBlock | None:
        block = await self._claims.claim(cidr)
        if block is None:
            return None
        self._known.own.add(cidr)
        return self._known.adopt(block)

    async def _reclaim(
        self, pools: tuple[Eligible, ...], holdings: Holdings, setting: Setting
    ) -> KnownBlock | None:
        """Take over a block that another node does not use."""
        for cidr, block in holdings.blocks.items():
            pool = next((pool for pool in pools if blocks.within(cidr, pool.network)), None)
            if pool is None or cidr.prefixlen != pool.block_size or is_reserved(cidr, setting.reserved):
                continue
            if not self._abandoned(block) or not await self._claims.give_up(block):
                continue
            known = await self._claim(cidr)
            if known is not None and self._room(known, setting) > 0:
                log.info("Block %s was taken over from %s, which did not use it", cidr, block.spec.affinity)
                return known
        return None

    def _abandoned(self, block: IPAMBlock) -> bool:
        claimed = blocks.parse_timestamp(block.spec.affinity_claim_time)
        old = claimed is None or self._clock() - claimed > RECLAIM_AGE
        return old and blocks.owner(block) not in (None, self._node) and blocks.is_empty(block)

    def _borrowable(
        self, pools: tuple[Eligible, ...], holdings: Holdings, setting: Setting
    ) -> KnownBlock | None:
        candidates = [
            block
            for cidr, block in holdings.blocks.items()
            if cidr not in self._known.own
            and any(blocks.within(cidr, pool.network) for pool in pools)
            and blocks.free_count(block, setting.reserved)
            and not block.spec.strict_affinity
        ]
        # At random, so that nodes that borrow at the same time do not all try the same block.
        return self._known.adopt(self._rng.choice(candidates)) if candidates else None

    def _explain(
        self, demand: Demand, family: int, selection: Selection, setting: Setting, count: int, limit: int
    ) -> str:
        config = setting.config
        tried = "; ".join(str(pool) for pool in selection.of_family(family)) or "none"
        rejected = "; ".join(selection.rejected) or "none"
        if count >= limit:
            cause = f"the node has {count} blocks, the limit is {limit} (maxBlocksPerHost)"
        elif not config.auto_allocate_blocks:
            cause = "the node's blocks are full, and autoAllocateBlocks is false"
        else:
            cause = f"the node's {count} blocks are full and no block of these pools is left"
        if not self._borrowing:
            borrowing = "addresses are not borrowed from other nodes' blocks"
        elif config.strict_affinity:
            borrowing = "borrowing from other nodes is off (strictAffinity true)"
        else:
            borrowing = "no other node's block has an address left"
        return (
            f"No IPv{family} address for {demand.use} on node {self._node}: "
            f"pools that may serve it: {tried}; pools that may not: {rejected}; {cause}; {borrowing}. "
            "Add an IPPool or enable one, delete pods, or change the IPAMConfig named default."
        )

    # --- for a certain address ------------------------------------------------------------------------------

    async def _block_of(self, demand: Demand, address: Address) -> KnownBlock:
        """The block of a certain address, claimed when there is none yet."""
        setting = await self._surroundings.current(fresh=True)
        pools = setting.pools if demand.pools is None else named(setting.pools, demand.pools)
        pool = pool_with(pools, address, demand.use)
        holdings = await self.refresh()
        block = next((item for cidr, item in holdings.blocks.items() if address in cidr), None)
        if block is None:
            known = await self._claim(blocks.block_of(address, pool.block_size))
            if known is not None:
                return known
            raise AddressTakenError(
                f"Address {address} lies in a block that another node has just claimed; try again."
            )
        known = self._known.adopt(block)
        if known.cidr not in self._known.own and (
            not self._borrowing or setting.config.strict_affinity or block.spec.strict_affinity
        ):
            raise BadRequestError(
                f"Address {address} lies in block {known.cidr} of {block.spec.affinity or 'nobody'}, and "
                f"node {self._node} must not borrow from it. Ask for an address of a block of this node, run "
                "the pod there, or allow borrowing (strictAffinity false in the IPAMConfig named default)."
            )
        return known
