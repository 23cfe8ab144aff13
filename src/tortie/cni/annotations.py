"""The pod's annotations, which tell its address until kubelet reports it.

They are written beside the answer, not before it: the node's own policy knows the address already, and
other nodes learn it some milliseconds later. For one container writes stay in order: what DEL takes away, a
late write of its ADD cannot bring back.
"""

import asyncio
import logging
from typing import Any, Final

from tortie.cni.cluster import Cluster
from tortie.cni.config import Request
from tortie.cni.result import host_prefix
from tortie.dataplane.workload_link import Address
from tortie.datastore.interface import ConflictError, Datastore, DatastoreError, NotFoundError
from tortie.model.constants import ANNOTATION_CONTAINER_ID, ANNOTATION_POD_IP, ANNOTATION_POD_IPS
from tortie.model.resources import Pod

log = logging.getLogger(__name__)

WRITERS: Final = 4  # at the same time: what ADDs wait for goes first
CLEAR_ATTEMPTS: Final = 6  # when somebody else writes the pod at the same time


def annotations(request: Request, addresses: tuple[Address, ...]) -> dict[str, str]:
    """What a container's pod tells; addresses as /32 and /128."""
    prefixes = [host_prefix(address) for address in addresses]
    return {
        ANNOTATION_POD_IP: prefixes[0],
        ANNOTATION_POD_IPS: ",".join(prefixes),
        ANNOTATION_CONTAINER_ID: request.container_id,
    }


class Annotations:
    """Writes and clears annotations of the pods of one node."""

    def __init__(self, datastore: Datastore, cluster: Cluster) -> None:
        self._datastore = datastore
        self._cluster = cluster
        self._writes: dict[str, asyncio.Task[None]] = {}  # by container id
        self._places = asyncio.Semaphore(WRITERS)

    def write(self, request: Request, pod: Pod, addresses: tuple[Address, ...]) -> None:
        """Have them written. A failure is logged: kubelet's report of the address follows."""
        task = asyncio.create_task(self._write(request, pod, addresses))
        self._writes[request.container_id] = task
        task.add_done_callback(lambda _: self._forget(request.container_id, task))

    async def settled(self) -> None:
        """Wait until nothing is being written."""
        if self._writes:
            await asyncio.wait(self._writes.values())

    async def clear(self, request: Request) -> None:
        """Say that the pod's address is free, unless the pod has a newer sandbox or is gone.

        Raise DatastoreError.
        """
        if request.pod is None or not request.makes_interface:
            return
        writing = self._writes.get(request.container_id)
        if writing is not None:
            await asyncio.wait([writing])
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

    async def _write(self, request: Request, pod: Pod, addresses: tuple[Address, ...]) -> None:
        try:
            told = annotations(request, addresses)
            async with self._places:
                await self._patch(pod, {"uid": pod.metadata.uid, "annotations": told})
        except DatastoreError as error:
            log.warning("annotations of %s are not written: %s", request, error)

    async def _patch(self, pod: Pod, metadata: dict[str, Any]) -> None:
        patch = {"metadata": metadata}
        await self._datastore.patch(Pod, pod.metadata.name, patch, pod.metadata.namespace, "status")

    def _forget(self, container_id: str, task: asyncio.Task[None]) -> None:
        if self._writes.get(container_id) is task:
            del self._writes[container_id]


def _names(pod: Pod, request: Request) -> bool:
    """Whether the pod's annotations tell an address of this container."""
    held = pod.metadata.annotations
    return held.get(ANNOTATION_CONTAINER_ID) == request.container_id and bool(held.get(ANNOTATION_POD_IP))
