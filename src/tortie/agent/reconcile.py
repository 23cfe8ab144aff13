"""The agent's loop: watch, snapshot, compute, apply. Runs per batch of changes and at intervals."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from tortie.agent.bird import Bird
from tortie.agent.floating import FloatingAgent, enabled
from tortie.agent.health import Health, wait_alive
from tortie.agent.metrics import Metrics
from tortie.agent.policy_settings import felix_spec, table_settings
from tortie.agent.settings import Settings
from tortie.agent.startup import (
    Identity,
    StartupError,
    annotate,
    detect_link,
    own_annotations,
    write_host_files,
)
from tortie.agent.tunnels import TunnelAddresses
from tortie.bgp.config import render
from tortie.bgp.control import BirdError
from tortie.bgp.mesh import cluster_settings, mesh_config
from tortie.dataplane.apply import ApplyError, Dataplane
from tortie.dataplane.device_events import DeviceEvents
from tortie.dataplane.netlink import DataplaneError
from tortie.dataplane.ruleset import Settings as TableSettings
from tortie.datastore.informer import Informer, Key
from tortie.datastore.interface import Datastore, DatastoreError
from tortie.ipam.errors import AddressError
from tortie.model.constants import IPIP_DEVICE, VXLAN_DEVICE
from tortie.model.felix import FelixConfiguration
from tortie.model.nodeinfo import BGPNode, parse_node
from tortie.model.resources import BGPConfiguration, BlockAffinity, IPAMBlock, IPPool, Node
from tortie.routing.borrowed import Borrowed, BorrowedIndex
from tortie.routing.compute import Cluster, compute
from tortie.routing.floating import routed_by_agents
from tortie.routing.mtu import MTUError, pod_mtu
from tortie.routing.pools import parse_claims, parse_pools, tunnels_in_use
from tortie.routing.state import NodeState

log = logging.getLogger(__name__)

# Seconds. Changes that come together are handled together.
COALESCE: Final = 0.05
# Seconds before the first new attempt after an error; doubled up to _LONGEST_RETRY.
_FIRST_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 30.0
# Seconds between checks because of a device: our own changes are events, too; no going round in circles.
_DEVICE_PAUSE: Final = 1.0


class NodeMovedError(Exception):
    """The node's address or link is another one now: the agent has to start over."""


@dataclass(slots=True)
class Watches:
    """The kinds that routing depends on, kept in memory."""

    nodes: Informer[Node]
    pools: Informer[IPPool]
    affinities: Informer[BlockAffinity]
    bgp: Informer[BGPConfiguration]
    felix: Informer[FelixConfiguration]
    blocks: Informer[IPAMBlock]  # changes with every ADD of the cluster: see `follow_borrowed`

    @classmethod
    def of(cls, datastore: Datastore) -> "Watches":
        """Informers on `datastore`; somebody has to run them."""
        return cls(
            Informer(datastore, Node),
            Informer(datastore, IPPool),
            Informer(datastore, BlockAffinity),
            Informer(datastore, BGPConfiguration),
            Informer(datastore, FelixConfiguration),
            Informer(datastore, IPAMBlock),
        )

    def all(self) -> tuple[Informer[Any], ...]:
        """Every informer."""
        return (self.nodes, self.pools, self.affinities, self.bgp, self.felix, self.blocks)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent look at the watches, parsed; `problems` are sentences about what cannot be used."""

    cluster: Cluster
    raw_pools: tuple[IPPool, ...]
    problems: tuple[str, ...]


def take_snapshot(
    watches: Watches, borrowed: frozenset[Borrowed], floating: frozenset[Borrowed] = frozenset()
) -> Snapshot:
    """Parse everything that is known now. `floating` are addresses that float on other nodes: some are
    routed like borrowed ones."""
    raw_pools = tuple(watches.pools.items.values())
    nodes = tuple(parse_node(node) for node in watches.nodes.items.values())
    pools, pool_problems = parse_pools(raw_pools)
    claims, claim_problems = parse_claims(watches.affinities.items.values())
    node_problems = tuple(problem for node in nodes for problem in node.problems)
    return Snapshot(
        Cluster(nodes, pools, claims, borrowed | routed_by_agents(floating, pools, claims)),
        raw_pools,
        node_problems + pool_problems + claim_problems,
    )


class Reconciler:
    """Brings the kernel and BIRD to what the cluster's state asks for, again and again."""

    def __init__(
        self,
        *,
        settings: Settings,
        identity: Identity,
        datastore: Datastore,
        dataplane: Dataplane,
        watches: Watches,
        tunnels: TunnelAddresses,
        bird: Bird | None,
        configure_policy: Callable[[TableSettings, bool], None],
        floating: FloatingAgent,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._datastore = datastore
        self._dataplane = dataplane
        self._watches = watches
        self._tunnels = tunnels
        self._bird = bird
        self._configure_policy = configure_policy
        self._floating = floating
        self._health = health
        self._metrics = metrics
        self._node_uid = ""  # of the Node when it was last looked at
        self._applied: NodeState | None = None
        self._reported: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self._check_due = 0.0  # time.monotonic(): when to check the kernel even if nothing changed
        self.pod_mtu = 0  # bytes; known once `applied_once` is set
        self.applied_once = asyncio.Event()  # set when the kernel held the desired state for the first time
        self._borrowed = BorrowedIndex[Key]()
        self._blocks_changed = asyncio.Event()
        watches.blocks.on_change(self._blocks_changed.set)
        floating.on_change(self._changed.set)
        for watch in (watches.nodes, watches.pools, watches.affinities, watches.bgp, watches.felix):
            watch.on_change(self._changed.set)

    async def run(self) -> None:
        """Reconcile until cancelled. Nothing is touched before every watch is in sync."""
        for watch in self._watches.all():
            await watch.synced.wait()
        self._health.pass_("datastore")
        self._read_borrowed()
        await self._floating.begin(
            enabled(felix_spec(self._watches.felix.items.values(), self._identity.node.name))
        )
        retry = _FIRST_RETRY
        while True:
            self._changed.clear()
            now = time.monotonic()
            resync = self._node_is_new() or now >= self._check_due
            if resync:  # by the clock: in a large cluster something changes all the time
                self._check_due = now + self._settings.resync
            good = await self._round(resync)
            self._health.beat()
            if good:
                pause, retry = self._check_due - time.monotonic(), _FIRST_RETRY
            else:
                self._check_due, pause, retry = 0.0, retry, min(retry * 2, _LONGEST_RETRY)
            await self._changed_within(max(0.0, pause))

    def _node_is_new(self) -> bool:
        """Whether the Node was registered since the last look: it has none of our annotations then."""
        node = self._watches.nodes.items.get(("", self._identity.node.name))
        if node is None or node.metadata.uid == self._node_uid:
            return False
        self._node_uid = node.metadata.uid
        return True

    async def follow_devices(self) -> None:
        """Check the kernel at once when somebody touched a tunnel's device, until cancelled."""
        loop, touched = asyncio.get_running_loop(), asyncio.Event()
        with DeviceEvents((IPIP_DEVICE, VXLAN_DEVICE)) as events:
            loop.add_reader(events.fileno(), lambda: touched.set() if events.read() else None)
            try:
                while True:
                    await touched.wait()
                    touched.clear()
                    self._check_due = 0.0
                    self._changed.set()
                    await asyncio.sleep(_DEVICE_PAUSE)
            finally:
                loop.remove_reader(events.fileno())

    async def follow_borrowed(self) -> None:
        """Reconcile when a borrowed address comes or goes, until cancelled. Blocks change with every ADD and
        DEL of the cluster, and hardly ever because of one."""
        while True:
            await self._blocks_changed.wait()
            await asyncio.sleep(COALESCE)
            self._blocks_changed.clear()
            if self._read_borrowed():
                self._changed.set()

    def _read_borrowed(self) -> bool:
        """Look at the blocks that changed; return whether another address is borrowed now."""
        changed = self._borrowed.update(self._watches.blocks.items)
        self._metrics.borrowed.set(len(self._borrowed.addresses))
        return changed

    async def _changed_within(self, seconds: float) -> None:
        """Wait for a change and those that come with it, or until the time is up."""
        if await wait_alive(self._changed, seconds, lambda: self._health.beat("routes")):
            await asyncio.sleep(COALESCE)

    async def _round(self, resync: bool) -> bool:
        """One pass; return whether all went well. `resync`: check the kernel even if nothing changed."""
        snapshot = take_snapshot(self._watches, self._borrowed.addresses, self._floating.elsewhere)
        good = await self._keep_tunnels(snapshot, resync)
        if resync:
            good = await self._check_own_node() and good
        link = self._identity.link
        try:
            mtu = pod_mtu(link.mtu, snapshot.cluster.pools, self._settings.mtu)
        except MTUError as error:
            self._health.fail("mtu", str(error))
            return False
        await asyncio.to_thread(write_host_files, self._settings.paths, self._identity.node.name, mtu)
        self.pod_mtu = mtu
        self._health.pass_("mtu")
        own = self._tunnels.own(self._identity.node)
        felix = felix_spec(self._watches.felix.items.values(), own.name)
        bgp = cluster_settings(self._watches.bgp.items.values())
        self._configure_policy(
            table_settings(own, snapshot.cluster, felix, bgp, self._settings.endpoint_to_host),
            felix.workload_source_spoofing == "Any",
        )
        self._floating.configure(enabled(felix))
        outcome = compute(own, link, snapshot.cluster, self._settings.mtu)
        good = await self._apply(outcome.state, resync) and good
        bgp_problems = await self._configure_bird(snapshot)
        self._report((*snapshot.problems, *outcome.problems, *bgp_problems))
        return good

    async def _keep_tunnels(self, snapshot: Snapshot, resync: bool) -> bool:
        kinds = tunnels_in_use(snapshot.cluster.pools)
        # While the Node is gone nothing can be announced. One that was made anew may have lost its addresses.
        if resync and ("", self._identity.node.name) in self._watches.nodes.items:
            self._tunnels.doubt()
        try:
            await self._tunnels.ensure(kinds, snapshot.raw_pools)
        except (DatastoreError, AddressError) as error:
            self._health.fail("tunnels", str(error))
            return False
        self._health.pass_("tunnels")
        return True

    async def _check_own_node(self) -> bool:
        """Repair annotations that somebody changed; raise NodeMovedError when the node's address moved."""
        node = self._watches.nodes.items.get(("", self._identity.node.name))
        if node is None:
            log.warning("Node %s is gone from the cluster", self._identity.node.name)
            return True
        try:
            interfaces = await asyncio.to_thread(self._dataplane.host_links)
            link = detect_link(self._settings, node, interfaces)
        except (DataplaneError, StartupError) as error:
            log.warning("The node's address cannot be checked now, it stays: %s", error)
        else:
            if link != self._identity.link:
                raise NodeMovedError(
                    f"The node's link was {self._identity.link} and is {link} now: starting over"
                )
        wanted = own_annotations(self._settings, self._identity.link) | self._tunnels.annotations()
        try:
            await annotate(self._datastore, node, wanted)
        except DatastoreError as error:
            log.warning("The node's annotations cannot be repaired: %s", error)
            return False
        return True

    async def _apply(self, state: NodeState, resync: bool) -> bool:
        if state == self._applied and not resync:
            return True
        self._applied = None
        try:
            with self._metrics.apply_seconds.time():
                changes = await asyncio.to_thread(self._dataplane.apply, state)
        except DataplaneError as error:
            for change in error.changes if isinstance(error, ApplyError) else ():
                log.info("Dataplane, tried: %s", change)
            self._metrics.apply_errors.inc()
            self._health.fail("dataplane", str(error))
            return False
        for change in changes:
            log.info("Dataplane: %s", change)
        self._metrics.changes.inc(len(changes))
        self._metrics.routes.set(len(state.routes))
        self._applied = state
        self._health.pass_("dataplane")
        self.applied_once.set()
        return True

    async def _configure_bird(self, snapshot: Snapshot) -> tuple[str, ...]:
        """Write BIRD's configuration; return sentences about what had to be left out of it."""
        settings = cluster_settings(self._watches.bgp.items.values())
        outcome = mesh_config(
            self._tunnels.own(self._own_with_as(snapshot.cluster)),
            self._identity.link,
            snapshot.cluster,
            settings,
            debug=self._settings.log_level == "DEBUG",
        )
        self._metrics.blocks.set(len(outcome.config.blocks))
        if self._bird is None:
            return ()
        try:
            if await self._bird.write(render(outcome.config)):
                log.info(
                    "BIRD: %d peers, blocks %s",
                    len(outcome.config.peers),
                    ", ".join(str(block) for block in sorted(outcome.config.blocks)) or "none",
                )
        except BirdError as error:
            log.error("%s", error)
        return outcome.problems

    def _own_with_as(self, cluster: Cluster) -> BGPNode:
        """This node with its AS number: that of the environment, else what its annotation says now."""
        own = self._identity.node
        if self._settings.as_number is not None:
            return own
        return next(
            (replace(own, as_number=node.as_number) for node in cluster.nodes if node.name == own.name), own
        )

    def _report(self, problems: Iterable[str]) -> None:
        """Log each sentence once, when it comes up."""
        current = frozenset(problems)
        for problem in sorted(current - self._reported):
            log.warning("%s", problem)
        for problem in sorted(self._reported - current):
            log.info("No longer: %s", problem)
        self._reported = current
        self._metrics.problems.set(len(current))
