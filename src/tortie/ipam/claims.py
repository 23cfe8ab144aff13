"""Claiming blocks for a node.

A claim is three writes: BlockAffinity `pending`, IPAMBlock with our affinity, BlockAffinity `confirmed`. The
block decides: its create succeeds for one node only. An affinity that is not confirmed counts for nothing. So
a claim may end after any of the writes: what is left is an unconfirmed affinity, or a block of ours without a
confirmed one; `reconcile` removes the former and confirms the latter.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network

import msgspec

from tortie.datastore.interface import AlreadyExistsError, Datastore, NotFoundError
from tortie.ipam import block as blocks
from tortie.ipam.retries import PASSING, Rounds
from tortie.model.names import affinity_labels, affinity_name, cidr_name
from tortie.model.resources import AffinityState, BlockAffinity, BlockAffinitySpec, IPAMBlock, Metadata

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holdings:
    """All blocks of the cluster by range, and this node's affinities by range."""

    blocks: dict[IPv4Network, IPAMBlock]
    affinities: dict[IPv4Network, BlockAffinity]

    def own(self, node: str) -> dict[IPv4Network, IPAMBlock]:
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
        """What stands in the datastore now. IPv6 blocks are left out."""
        # Affinities first: an affinity without a block in this picture was then written before its block.
        affinities = await self._datastore.list(BlockAffinity)
        listed = await self._datastore.list(IPAMBlock)
        return Holdings(
            blocks={blocks.network(item): item for item in listed.items if ":" not in item.spec.cidr},
            affinities={
                IPv4Network(item.spec.cidr): item
                for item in affinities.items
                if item.spec.node == self._node and item.spec.type == "host" and ":" not in item.spec.cidr
            },
        )

    async def claim(self, cidr: IPv4Network) -> IPAMBlock | None:
        """Make `cidr` a block of this node, or complete a claim that was begun.

        Return None when it belongs to another node. Raise UnavailableError.
        """
        rounds = Rounds(f"Claiming block {cidr} for node {self._node}", self._rng)
        while True:
            try:
                return await self._claim_once(cidr)
            except PASSING as error:
                await rounds.wait_after(error)

    async def _claim_once(self, cidr: IPv4Network) -> IPAMBlock | None:
        affinity = await self._affinity(cidr)
        block = await self._block(cidr)
        if not blocks.belongs_to(block, self._node):
            await self._drop(affinity)
            return None
        if affinity.spec.state != "confirmed":
            await self._datastore.update(_with_state(affinity, "confirmed"))
            log.info("Block %s belongs to node %s now", cidr, self._node)
        return block

    async def _affinity(self, cidr: IPv4Network) -> BlockAffinity:
        """Our affinity for `cidr`, `pending` at least."""
        name = affinity_name(self._node, cidr)
        wanted = BlockAffinity(
            metadata=Metadata(name=name, labels=affinity_labels(self._node, cidr)),
            spec=BlockAffinitySpec(node=self._node, cidr=str(cidr), state="pending"),
        )
        try:
            return await self._datastore.create(wanted)
        except AlreadyExistsError:
            affinity = await self._datastore.get(BlockAffinity, name)
        if _is_leaving(affinity):
            return await self._datastore.update(_with_state(affinity, "pending"))
        return affinity

    async def _block(self, cidr: IPv4Network) -> IPAMBlock:
        """The block `cidr`, ours if it did not exist."""
        now = self._clock()
        sequence = int(now.timestamp() * 1_000_000_000)
        try:
            return await self._datastore.create(blocks.new_block(cidr, self._node, now, sequence))
        except AlreadyExistsError:
            return await self._datastore.get(IPAMBlock, cidr_name(cidr))

    async def _drop(self, affinity: BlockAffinity) -> None:
        try:
            await self._datastore.delete(affinity)
        except NotFoundError:
            return

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
            if affinity is None or affinity.spec.state != "confirmed" or _is_leaving(affinity):
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


def _is_leaving(affinity: BlockAffinity) -> bool:
    return affinity.spec.state == "pendingDeletion" or affinity.spec.deleted == "true"


def _with_state(affinity: BlockAffinity, state: AffinityState) -> BlockAffinity:
    return msgspec.structs.replace(
        affinity, spec=msgspec.structs.replace(affinity.spec, state=state, deleted="false")
    )
