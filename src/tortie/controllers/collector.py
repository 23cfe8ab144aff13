"""Garbage collection of IPAM objects: pictures of the cluster to `garbage.decide`, its decisions carried out.

A decision is taken again, on what the API server says at that moment, right before anything is released; and
a release says which allocation it means (by sequence number), a deletion which version. So a picture that is
out of date, or a second collector, cannot take an address from anybody.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tortie.controllers.counting import Metrics, count, places_of, show_places
from tortie.controllers.garbage import Decision, Leak, Memory, decide
from tortie.controllers.picture import Allocation, Picture, PodFacts, by_network, judge
from tortie.datastore.informer import Informer
from tortie.datastore.interface import ConflictError, Datastore, DatastoreError, NotFoundError
from tortie.ipam import block as blocks
from tortie.ipam.block import BlockError
from tortie.ipam.claims import Claims
from tortie.ipam.concurrent import all_of
from tortie.ipam.pools import reserved_networks
from tortie.ipam.releases import SYSTEM_RANDOM, Releases, utc_now
from tortie.ipam.surroundings import ReadSurroundings
from tortie.model.resources import (
    BlockAffinity,
    IPAMBlock,
    IPAMHandle,
    IPPool,
    IPReservation,
    Node,
    Pod,
)

METRICS_PERIOD: Final = 10.0  # seconds between looks at the watched objects
_AT_ONCE: Final = 16  # releases under way at the same time
_REPEATED: Final = 3  # scans in a row, while each finds something of a node that is gone
_SHORTEST_PERIOD: Final = 1.0  # seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sources:
    """What is watched; pods, handles and affinities are listed when they are needed."""

    nodes: Informer[Node]
    blocks: Informer[IPAMBlock]
    pools: Informer[IPPool]
    reservations: Informer[IPReservation]

    @classmethod
    def of(cls, datastore: Datastore) -> "Sources":
        """Informers, not running yet."""
        return cls(
            Informer(datastore, Node),
            Informer(datastore, IPAMBlock),
            Informer(datastore, IPPool),
            Informer(datastore, IPReservation),
        )

    def runs(self) -> list[Coroutine[object, object, None]]:
        """Their loops."""
        return [self.nodes.run(), self.blocks.run(), self.pools.run(), self.reservations.run()]

    async def synced(self) -> None:
        """Return when everything has been listed once."""
        for informer in (self.nodes, self.blocks, self.pools, self.reservations):
            await informer.synced.wait()

    def picture(self) -> Picture:
        """What is watched, without the rest."""
        return Picture(
            nodes=frozenset(name for _namespace, name in self.nodes.items),
            pods={},
            blocks=by_network(self.blocks.items.values()),
            pools=tuple(self.pools.items.values()),
            reserved=reserved_networks(self.reservations.items.values()),
        )


class Collector:
    """One for the process' lifetime."""

    def __init__(
        self,
        datastore: Datastore,
        sources: Sources,
        grace: float,
        metrics: Metrics,
        *,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """`grace`: for how many seconds an address must have no owner. `beat` is called after each scan."""
        self._datastore = datastore
        self._sources = sources
        self._grace = grace
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._beat = beat
        self._surroundings = ReadSurroundings(datastore)
        self._claims = Claims(datastore, "", clock, SYSTEM_RANDOM)
        self._memory = Memory()
        self._node_gone = asyncio.Event()
        self._nodes: frozenset[str] = frozenset()
        sources.nodes.on_change(self._look_at_nodes)

    async def run(self) -> None:
        """Scan twice in each grace period, and when a node is deleted. Run until cancelled."""
        await self._sources.synced()
        period = max(self._grace / 2, _SHORTEST_PERIOD)
        while True:
            self._node_gone.clear()
            try:
                await self.scan()
            except DatastoreError as error:
                log.warning("The scan for garbage is given up until the next one: %s", error)
            self._beat()
            await self._wait(period)

    async def show_metrics(self) -> None:
        """Keep the gauges current. Run until cancelled."""
        await self._sources.synced()
        while True:
            self._metrics.show(count(self._sources.picture()))
            await asyncio.sleep(METRICS_PERIOD)

    async def scan(self) -> None:
        """Find garbage and remove it. Raise a DatastoreError when the cluster cannot be seen."""
        for _ in range(_REPEATED):
            picture = await self._look()
            cooldown = (await self._surroundings.current()).cooldown
            decision, self._memory = decide(
                picture, self._memory, self._clock(), self._monotonic(), self._grace, cooldown
            )
            show_places(self._metrics.candidates, places_of(picture, decision.suspects))
            await self._carry_out(decision, picture)
            if not any(leak.orphaned for leak in decision.leaks):
                break
        self._metrics.scans.inc()

    async def _wait(self, period: float) -> None:
        deadline = asyncio.get_running_loop().time() + period
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, METRICS_PERIOD)):
                    await self._node_gone.wait()
                    return
            self._beat()

    def _look_at_nodes(self) -> None:
        nodes = frozenset(name for _namespace, name in self._sources.nodes.items)
        if self._nodes - nodes:
            log.info("Nodes that are gone: %s", ", ".join(sorted(self._nodes - nodes)))
            self._node_gone.set()
        self._nodes = nodes

    async def _look(self) -> Picture:
        """Blocks before pods: a pod that the picture lacks did not exist when the address was held."""
        nodes = frozenset(node.metadata.name for node in (await self._datastore.list(Node)).items)
        affinities = (await self._datastore.list(BlockAffinity)).items
        handles = (await self._datastore.list(IPAMHandle)).items
        stored = (await self._datastore.list(IPAMBlock)).items
        pods = (await self._datastore.list(Pod)).items
        return Picture(
            nodes=nodes,
            pods={(pod.metadata.namespace, pod.metadata.name): PodFacts.of(pod) for pod in pods},
            blocks=by_network(stored),
            affinities=tuple(affinities),
            handles=tuple(handles),
            pools=tuple((await self._datastore.list(IPPool)).items),
        )

    # --- carrying out ---------------------------------------------------------------------------------------

    async def _carry_out(self, decision: Decision, picture: Picture) -> None:
        # A new one for each scan: it reads every block that it writes.
        releases = Releases(self._datastore, surroundings=self._surroundings, clock=self._clock)
        await self._each(
            (self._release(releases, leak, picture), f"releasing {leak.handle_id}") for leak in decision.leaks
        )
        await self._each(
            (releases.thaw(cidr), f"freeing cooled-down addresses of {cidr}") for cidr in decision.cooled
        )
        await self._each(
            (releases.tidy(handle.spec.handle_id), f"removing the handle {handle.spec.handle_id}")
            for handle in decision.idle_handles
        )
        await self._each(
            (self._give_up(block, picture), f"giving up block {block.spec.cidr}")
            for block in decision.empty_blocks
        )
        await self._each(
            (self._repair(affinity, picture), f"repairing {affinity.metadata.name}")
            for affinity in decision.affinities
        )

    async def _each(self, actions: Iterable[tuple[Coroutine[object, object, object], str]]) -> None:
        """Carry out some at a time. What fails is logged and found again by the next scan."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def attempt(action: Coroutine[object, object, object], what: str) -> None:
            async with slots:
                try:
                    await action
                except (ConflictError, BlockError) as error:
                    log.info("Garbage collection leaves off %s: %s", what, error)
                except DatastoreError as error:
                    log.warning("Garbage collection fails at %s: %s", what, error)

        await all_of([attempt(action, what) for action, what in actions])

    async def _release(self, releases: Releases, leak: Leak, picture: Picture) -> None:
        for allocation in leak.allocations:
            if await self._judge_again(allocation) == "valid":
                log.info("Address %s has an owner after all", allocation.address)
                return
        for cidr, sequences in leak.sequences().items():
            released = await releases.release(cidr, sequences)
            freed = [item for item in leak.allocations if item.address in released]
            for (pool, node), number in places_of(picture, freed).items():
                self._metrics.reclamations.labels(pool, node).inc(number)
            for item in freed:
                log.warning(
                    "Released %s, which nobody used: handle %s, node %s, pod %s, %s",
                    item.address,
                    item.handle_id or "none",
                    item.node,
                    "/".join(item.pod) if item.pod else "none",
                    "the node is gone" if leak.orphaned else f"for {self._grace:.0f} s",
                )

    async def _judge_again(self, allocation: Allocation) -> str:
        exists = await self._node_exists(allocation.node)
        pod: PodFacts | None = None
        if allocation.pod is not None:
            namespace, name = allocation.pod
            with suppress(NotFoundError):
                pod = PodFacts.of(await self._datastore.get(Pod, name, namespace))
        return judge(allocation, exists, pod)

    async def _node_exists(self, name: str | None) -> bool:
        if not name:
            return False
        try:
            await self._datastore.get(Node, name)
        except NotFoundError:
            return False
        return True

    async def _give_up(self, block: IPAMBlock, picture: Picture) -> None:
        node = blocks.owner(block)
        if node not in picture.nodes and await self._node_exists(node):
            return
        await self._claims.give_up(block)

    async def _repair(self, affinity: BlockAffinity, picture: Picture) -> None:
        node = affinity.spec.node
        if node not in picture.nodes and await self._node_exists(node):
            return
        await self._claims.repair(affinity)
