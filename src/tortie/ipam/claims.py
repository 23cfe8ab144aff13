"""Claiming blocks for a node, and giving them up.

A claim is three writes: BlockAffinity `pending`, IPAMBlock with our affinity, BlockAffinity `confirmed`. The
block decides: its create succeeds for one node only. An affinity that is not confirmed counts for nothing. So
a claim may end after any of the writes: what is left is an unconfirmed affinity, or a block of ours without a
confirmed one; `reconcile` removes the former and confirms the latter.

A block is given up in the opposite order: BlockAffinity `pendingDeletion`, IPAMBlock deleted by
compare-and-swap on the version that was seen empty, BlockAffinity deleted. Whoever completes a claim of a
block that exists already writes the block, after its affinity is `pending` and before it is confirmed. So of
one who completes a claim and one who gives up the same block, one is refused: no affinity is ever confirmed
without its block.
"""

import logging
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_network
from typing import TypeVar

import msgspec

from tortie.datastore.interface import AlreadyExistsError, ConflictError, Datastore, NotFoundError
from tortie.ipam import block as blocks
from tortie.ipam.block import Network
from tortie.ipam.retries import PASSING, Rounds
from tortie.model.names import affinity_labels, affinity_name, cidr_name
from tortie.model.resources import AffinityState, BlockAffinity, BlockAffinitySpec, IPAMBlock, Metadata

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holdings:
    """All blocks of the cluster by range, and this node's affinities by range."""

    blocks: dict[Network, IPAMBlock]
    affinities: dict[Network, BlockAffinity]

    def own(self, node: str) -> dict[Network, IPAMBlock]:
        """The blocks that belong to `node`."""
        return {cidr: block for cidr, block in self.blocks.items() if blocks.belongs_to(block, node)}


class Claims:
    """The blocks of one node, as far as the datastore is concerned."""

    def __init__(
        self, datastore: Datastore, node: str, clock: Callable[[], datetime], rng: random.Random
    ) -> None:
        self._datastore = datastore
        self._node = node
        self._clock = clock
        self._rng = rng

    async def read(self) -> Holdings:
        """What stands in the datastore now; what has no network for a CIDR is left out and logged."""
        # Affinities first: an affinity without a block in this picture was then written before its block.
        affinities = await self._datastore.list(BlockAffinity)
        listed = await self._datastore.list(IPAMBlock)
        return Holdings(
            blocks=_by_network(listed.items),
            affinities=_by_network(
                item for item in affinities.items if item.spec.node == self._node and item.spec.type == "host"
            ),
        )

    async def claim(self, cidr: Network) -> IPAMBlock | None:
        """Make `cidr` a block of this node, or complete a claim that was begun.

        Return None when it belongs to another node. Raise UnavailableError.
        """
        rounds = Rounds(f"Claiming block {cidr} for node {self._node}", self._rng)
        while True:
            try:
                return await self._claim_once(cidr)
            except PASSING as error:
                await rounds.wait_after(error)

    async def _claim_once(self, cidr: Network) -> IPAMBlock | None:
        affinity = await self._affinity(cidr)
        now = self._clock()
        sequence = int(now.timestamp() * 1_000_000_000)
        try:
            block = await self._datastore.create(blocks.new_block(cidr, self._node, now, sequence))
        except AlreadyExistsError:
            return await self._complete(affinity, await self._datastore.get(IPAMBlock, cidr_name(str(cidr))))
        await self._confirm(affinity)
        return block

    async def _complete(self, affinity: BlockAffinity, block: IPAMBlock) -> IPAMBlock | None:
        """Confirm an affinity if the block, which exists already, belongs to its node, else drop it."""
        if not blocks.belongs_to(block, affinity.spec.node):
            await self._drop(affinity)
            return None
        if affinity.spec.state != "confirmed":
            block = await self._datastore.update(blocks.touch(block))
            await self._confirm(affinity)
        return block

    async def _confirm(self, affinity: BlockAffinity) -> None:
        if affinity.spec.state != "confirmed":
            await self._datastore.update(_with_state(affinity, "confirmed"))
            log.info("Block %s belongs to node %s now", affinity.spec.cidr, affinity.spec.node)

    async def _affinity(self, cidr: Network) -> BlockAffinity:
        """Our affinity for `cidr`, `pending` at least."""
        name = affinity_name(self._node, str(cidr))
        wanted = BlockAffinity(
            metadata=Metadata(name=name, labels=affinity_labels(self._node, str(cidr))),
            spec=BlockAffinitySpec(node=self._node, cidr=str(cidr), state="pending"),
        )
        try:
            return await self._datastore.create(wanted)
        except AlreadyExistsError:
            affinity = await self._datastore.get(BlockAffinity, name)
        if affinity.spec.state == "pendingDeletion":
            return await self._datastore.update(_with_state(affinity, "pending"))
        return affinity

    async def _drop(self, affinity: BlockAffinity) -> None:
        try:
            await self._datastore.delete(affinity)
        except NotFoundError:
            return

    async def give_up(self, block: IPAMBlock) -> bool:
        """Delete a block as it was seen, empty, whoever owns it. Return False when it has changed since.

        Raise a DatastoreError; the affinity may then be left `pendingDeletion`, see `repair`.
        """
        affinity = await self._affinity_of(block)
        if affinity is not None and affinity.spec.state != "pendingDeletion":
            affinity = await self._datastore.update(_with_state(affinity, "pendingDeletion"))
        try:
            await self._datastore.delete(block)
        except ConflictError:
            if affinity is not None:
                await self.repair(affinity)
            return False
        except NotFoundError:
            log.debug("Block %s was deleted by somebody else", block.spec.cidr)
        if affinity is not None:
            # A conflict: its node claims the block anew, and has made it pending.
            with suppress(NotFoundError, ConflictError):
                await self._datastore.delete(affinity)
        log.info("Block %s of %s is free again", block.spec.cidr, block.spec.affinity or "nobody")
        return True

    async def repair(self, affinity: BlockAffinity) -> None:
        """Bring an affinity of any node, found unconfirmed or without its block, into line with the block.

        Raise a DatastoreError; a conflict means that somebody is at work on it.
        """
        try:
            block = await self._datastore.get(IPAMBlock, cidr_name(affinity.spec.cidr))
        except NotFoundError:
            await self._drop(affinity)
            return
        if affinity.spec.state != "confirmed":
            affinity = await self._datastore.update(_with_state(affinity, "pending"))
        await self._complete(affinity, block)

    async def _affinity_of(self, block: IPAMBlock) -> BlockAffinity | None:
        node = blocks.owner(block)
        if node is None:
            return None
        try:
            return await self._datastore.get(BlockAffinity, affinity_name(node, block.spec.cidr))
        except NotFoundError:
            return None

    async def reconcile(self) -> list[str]:
        """Complete or undo claims that were left half-made. One sentence for each thing done. Raise
        UnavailableError."""
        rounds = Rounds(f"Repairing block claims of node {self._node}", self._rng)
        while True:
            try:
                return await self._reconcile_once()
            except PASSING as error:
                await rounds.wait_after(error)

    async def _reconcile_once(self) -> list[str]:
        done: list[str] = []
        holdings = await self.read()
        own = holdings.own(self._node)
        for cidr in own:
            affinity = holdings.affinities.get(cidr)
            if affinity is None or affinity.spec.state != "confirmed":
                await self.claim(cidr)
                done.append(f"Block {cidr} is ours: affinity confirmed.")
        for cidr, affinity in holdings.affinities.items():
            if cidr not in own:
                await self._drop(affinity)
                owner = holdings.blocks[cidr].spec.affinity if cidr in holdings.blocks else "nobody"
                done.append(f"Block {cidr} belongs to {owner}: our affinity removed.")
        for sentence in done:
            log.info("%s", sentence)
        return done


_Ranged = TypeVar("_Ranged", IPAMBlock, BlockAffinity)


def _by_network(items: Iterable[_Ranged]) -> dict[Network, _Ranged]:
    found: dict[Network, _Ranged] = {}
    for item in items:
        try:
            found[ip_network(item.spec.cidr)] = item
        except ValueError:
            log.warning(
                "%s %s has the CIDR %r, which is no network",
                type(item).__name__,
                item.metadata.name,
                item.spec.cidr,
            )
    return found


def _with_state(affinity: BlockAffinity, state: AffinityState) -> BlockAffinity:
    return msgspec.structs.replace(affinity, spec=msgspec.structs.replace(affinity.spec, state=state))
