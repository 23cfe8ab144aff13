"""The CNI server of one node: open once pods would have a network and their policy; and who cleans up."""

import asyncio
import logging
from collections.abc import Collection
from ipaddress import ip_interface
from typing import Final

from tortie.agent.floating import FloatingAgent
from tortie.agent.health import Health, Layer
from tortie.agent.policy import PolicyAgent, PolicySources
from tortie.agent.reconcile import Reconciler
from tortie.agent.settings import Settings
from tortie.agent.sources import Source
from tortie.cni.cluster import Watched
from tortie.cni.server import CNIServer
from tortie.dataplane.netlink import DataplaneError
from tortie.dataplane.workload import Workloads
from tortie.dataplane.workload_routes import AttachedPod, restore
from tortie.datastore.interface import Datastore, DatastoreError
from tortie.ipam.allocator import Allocator
from tortie.ipam.sweep import Sweep
from tortie.model.constants import ANNOTATION_CONTAINER_ID
from tortie.model.endpoints import is_finished, workload_endpoint
from tortie.model.resources import ClusterInformation, Pod

log = logging.getLogger(__name__)

CNI_NETWORK: Final = "k8s-pod-network"  # the name in 10-calico.conflist, with which handles begin
SWEEP: Final = 60.0  # seconds between looks for addresses whose container is gone
CHECK: Final = 5.0  # seconds between looks for pods' routes that somebody took away
# Layers that connectivity of pods that run depends on.
_CONNECTIVITY: Final[frozenset[Layer]] = frozenset({"tunnels", "mtu", "dataplane", "policy", "bgp"})


class Attachment:
    """What connects containers to the network, and what the CNI plugin is told."""

    def __init__(
        self,
        *,
        settings: Settings,
        node: str,
        datastore: Datastore,
        allocator: Allocator,
        sources: PolicySources,
        reconciler: Reconciler,
        policy: PolicyAgent,
        floating: FloatingAgent,
        health: Health,
    ) -> None:
        self._node = node
        self._sources = sources
        self._reconciler = reconciler
        self._policy = policy
        self._health = health
        self._workloads = Workloads()
        self._information = Source(datastore, ClusterInformation)
        self._sweep = Sweep(datastore, allocator, node, CNI_NETWORK, self._living)
        self._server = CNIServer(
            socket_path=settings.paths.cni_socket,
            journal_dir=settings.paths.cni_journal,
            node=node,
            datastore=datastore,
            allocator=allocator,
            default_mtu=lambda: reconciler.pod_mtu,
            workloads=self._workloads,
            policy=policy,
            floating=floating,
            watched=Watched(
                pod=self._pod,
                namespace=lambda name: sources.namespaces.items.get(("", name)),
                information=lambda: self._information.items.get(("", "default")),
            ),
            limited=lambda: " ".join(health.problems(_CONNECTIVITY)),
        )

    async def prepare(self) -> None:
        """Tell the API the addresses that a killed agent did not come to. To be called before anybody
        reads the pods: the first policy would not know them otherwise, and cut the pods off."""
        await self._server.retell()

    async def run(self) -> None:
        """Serve until cancelled, from the moment on that pods would have a network and their policy."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._information.run())
            await self._reconciler.applied_once.wait()
            await self._policy.in_force.wait()
            tasks.create_task(self._server.serve())
            await self._server.listening.wait()
            self._health.pass_("cni")
            tasks.create_task(self._keep_routes())
            await self._sweep_forever()

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            try:
                await self._sweep.run()
            except (DatastoreError, DataplaneError) as error:
                log.warning("Addresses of containers that are gone stay for now: %s", error)

    async def _keep_routes(self) -> None:
        while True:
            await asyncio.sleep(CHECK)
            try:
                restored = await asyncio.to_thread(restore, self._attached())
            except DataplaneError as error:
                log.warning("Routes to pods cannot be repaired now: %s", error)
            else:
                for sentence in restored:
                    log.warning("A pod's route was taken away by somebody else and is repaired: %s", sentence)

    def _attached(self) -> list[AttachedPod]:
        """Pods of this node whose container the API says: without it an address may be an earlier one."""
        own = (pod for pod in self._sources.pods.items.values() if pod.spec.node_name == self._node)
        specs = (endpoint.spec for endpoint in map(workload_endpoint, own) if endpoint is not None)
        return [
            AttachedPod(
                spec.interface_name,
                spec.container_id,
                tuple(ip_interface(text).ip for text in spec.ip_networks),
            )
            for spec in specs
            if spec.container_id
        ]

    async def _living(self) -> Collection[str]:
        """Containers that have an interface here, or a pod that says so: an interface may be of Calico's."""
        standing = await asyncio.to_thread(self._workloads.standing)
        annotated = (
            pod.metadata.annotations.get(ANNOTATION_CONTAINER_ID, "")
            for pod in self._sources.pods.items.values()
            if pod.spec.node_name == self._node and not is_finished(pod)
        )
        return {departure.owner for departure in standing} | set(annotated)

    def _pod(self, namespace: str, name: str) -> Pod | None:
        pod = self._sources.pods.items.get((namespace, name))
        return pod if pod and pod.spec.node_name == self._node else None
