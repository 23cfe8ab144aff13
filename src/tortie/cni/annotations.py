"""The pod's annotations, which tell its address until kubelet reports it.

They are written after the answer, when no ADD is being served: the node's own policy knows the address
already, other nodes learn it a moment later, and what pods wait for goes first. What a killed agent did not
come to is written by the next one. For one container writes stay in order: what DEL takes away, a late write
of its ADD cannot bring back.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from tortie.cni.cluster import Cluster
from tortie.cni.config import Request
from tortie.cni.interfaces import Interfaces
from tortie.cni.result import host_prefix
from tortie.dataplane.workload_link import Address
from tortie.datastore.interface import ConflictError, Datastore, DatastoreError, NotFoundError
from tortie.ipam.turns import Turns
from tortie.model.constants import ANNOTATION_CONTAINER_ID, ANNOTATION_POD_IP, ANNOTATION_POD_IPS
from tortie.model.names import veth_name
from tortie.model.resources import Pod

log = logging.getLogger(__name__)

WRITERS: Final = 4  # at the same time
# A write waits until there was no ADD for the former, but no longer than the latter. A container takes longer
# to start than either.
QUIET_SECONDS: Final = 0.1
LONGEST_SECONDS: Final = 1.0
CLOSING_SECONDS: Final = 5.0  # of the time that a pod has to stop (30 s unless it says otherwise)
CLEAR_ATTEMPTS: Final = 6  # when somebody else writes the pod at the same time


def annotations(container_id: str, addresses: Sequence[Address]) -> dict[str, str]:
    """What a container's pod tells; addresses as /32 and /128."""
    prefixes = [host_prefix(address) for address in addresses]
    return {
        ANNOTATION_POD_IP: prefixes[0],
        ANNOTATION_POD_IPS: ",".join(prefixes),
        ANNOTATION_CONTAINER_ID: container_id,
    }


class Annotations:
    """Writes and clears annotations of the pods of one node."""

    def __init__(self, datastore: Datastore, cluster: Cluster) -> None:
        self._datastore = datastore
        self._cluster = cluster
        self._writes: dict[tuple[str, str], _Write] = {}  # the last one, by namespace and name of the pod
        self._places = asyncio.Semaphore(WRITERS)
        self._quiet_from = 0.0  # by the event loop's clock
        self._closing = asyncio.Event()

    def put_off(self) -> None:
        """An ADD has come: let it go first."""
        self._quiet_from = asyncio.get_running_loop().time() + QUIET_SECONDS

    def write(self, request: Request, pod: Pod, addresses: tuple[Address, ...]) -> None:
        """Have them written soon. A failure is logged: kubelet's report of the address follows."""
        self.put_off()
        key = (pod.metadata.namespace, pod.metadata.name)
        write = self._writes[key] = _Write(request.container_id, self._writes.get(key))
        write.task = asyncio.create_task(self._write(write, pod, addresses))
        write.task.add_done_callback(lambda _: self._forget(key, write))

    async def drop(self, request: Request) -> None:
        """Do not write what has not been sent: a DEL of the container has come."""
        if request.pod is not None:
            write = self._writes.get((request.pod.namespace, request.pod.name))
            if write is not None and write.container_id == request.container_id and not write.sent:
                await write.given_up()

    async def retell(self, node: str, interfaces: Interfaces, turns: Turns) -> None:
        """Write what an earlier process did not come to. Raise DatastoreError or DataplaneError."""
        standing = {departure.host_name: departure for departure in await interfaces.standing()}
        for pod in (await self._datastore.list(Pod, field_selector=f"spec.nodeName={node}")).items:
            host_name = veth_name(pod.metadata.namespace, pod.metadata.name)
            departure = standing.get(host_name)
            told = pod.metadata.annotations.get(ANNOTATION_CONTAINER_ID)
            if departure is None or told == departure.owner:
                continue
            async with turns.of(host_name):
                addresses = await interfaces.addresses(departure)
                if addresses and (pod.metadata.namespace, pod.metadata.name) not in self._writes:
                    with suppress(ConflictError, NotFoundError):  # it was replaced, or has gone
                        await self._tell(pod, annotations(departure.owner, addresses))
                        log.info("annotations of pod %s, which an earlier agent left out", pod.metadata.name)

    async def settled(self) -> None:
        """Wait no longer for quiet; return when nothing is being written.

        What takes long is given up: the next process writes it.
        """
        self._closing.set()
        tasks = [write.task for write in self._writes.values() if write.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSING_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.wait(tasks)

    async def clear(self, request: Request) -> None:
        """Say that the pod's address is free, unless the pod has a newer sandbox or is gone.

        Raise DatastoreError.
        """
        if request.pod is None or not request.makes_interface:
            return
        write = self._writes.get((request.pod.namespace, request.pod.name))
        if write is not None and write.container_id == request.container_id:
            await write.given_up()
        pod = self._cluster.known_pod(request.pod)
        if pod is not None and not _names(pod, request):
            pod = None  # the watch may not have seen yet what ADD wrote
        for _ in range(CLEAR_ATTEMPTS):
            try:
                if pod is None:
                    pod = await self._datastore.get(Pod, request.pod.name, request.pod.namespace)
                if not _names(pod, request):
                    return
                metadata = {
                    "uid": pod.metadata.uid,
                    "resourceVersion": pod.metadata.resource_version,
                    "annotations": {ANNOTATION_POD_IP: "", ANNOTATION_POD_IPS: ""},
                }
                async with self._places:
                    await self._patch(pod, metadata)
            except ConflictError:
                pod = None
                continue
            except NotFoundError:
                return
            return

    async def _write(self, write: "_Write", pod: Pod, addresses: tuple[Address, ...]) -> None:
        told = annotations(write.container_id, addresses)
        try:
            await write.follow()
            await self._quiet()
            async with self._places:
                write.sent = True
                await self._tell(pod, told)
        except DatastoreError as error:
            log.warning("annotations of pod %s are not written: %s", pod.metadata.name, error)

    async def _tell(self, pod: Pod, told: dict[str, str]) -> None:
        """Write annotations now, if the pod has not been replaced. Raise DatastoreError."""
        await self._patch(pod, {"uid": pod.metadata.uid, "annotations": told})

    async def _quiet(self) -> None:
        loop = asyncio.get_running_loop()
        latest = loop.time() + LONGEST_SECONDS
        while (seconds := min(self._quiet_from, latest) - loop.time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._closing.wait()
                    return

    async def _patch(self, pod: Pod, metadata: dict[str, Any]) -> None:
        patch = {"metadata": metadata}
        await self._datastore.patch(Pod, pod.metadata.name, patch, pod.metadata.namespace, "status")

    def _forget(self, key: tuple[str, str], write: "_Write") -> None:
        if self._writes.get(key) is write:
            del self._writes[key]


@dataclass(slots=True, eq=False)
class _Write:
    """What is being written for a container, after what was written for the pod `before`. `sent`: it may have
    arrived."""

    container_id: str
    before: "_Write | None"
    sent: bool = False
    task: asyncio.Task[None] | None = None

    async def given_up(self) -> None:
        """Return when it is over, and all before it; what has not been sent is dropped."""
        if self.task is not None and not self.task.done():
            if not self.sent:
                self.task.cancel()
            await asyncio.wait([self.task])
        await self.follow()

    async def follow(self) -> None:
        """Return when what was before it is over."""
        if self.before is not None:
            await self.before.given_up()
            self.before = None


def _names(pod: Pod, request: Request) -> bool:
    """Whether the pod's annotations tell an address of this container."""
    held = pod.metadata.annotations
    return held.get(ANNOTATION_CONTAINER_ID) == request.container_id and bool(held.get(ANNOTATION_POD_IP))
