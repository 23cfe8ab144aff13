"""What a request reads of the cluster: from the agent's watches if they know it, else from the datastore."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from tortie.cni import errors
from tortie.cni.config import PodReference, Request
from tortie.cni.errors import CNIError
from tortie.cni.waiting import all_done
from tortie.datastore.interface import Datastore, NotFoundError
from tortie.model.policy_natives import Namespace
from tortie.model.resources import ClusterInformation, Pod

log = logging.getLogger(__name__)

# kubelet's own pod behind a mirror pod has another uid than the mirror, and the runtime passes the former.
ANNOTATION_MIRROR = "kubernetes.io/config.mirror"


@dataclass(frozen=True, slots=True)
class Watched:
    """What the agent's watches know, each None where there is no watch: pods of this node by namespace and
    name, namespaces by name, and ClusterInformation `default`. An answer of None: it is not known."""

    pod: Callable[[str, str], Pod | None] | None = None
    namespace: Callable[[str], Namespace | None] | None = None
    information: Callable[[], ClusterInformation | None] | None = None


class LockedError(Exception):
    """The datastore must not be written now: a sentence."""


class Cluster:
    """Reads for one node."""

    def __init__(self, datastore: Datastore, watched: Watched) -> None:
        self._datastore = datastore
        self._watched = watched

    async def admit(self, request: Request) -> tuple[Pod | None, Namespace | None]:
        """The pod that the container belongs to, and its namespace.

        Raise LockedError, CNIError when the pod is gone, or DatastoreError.
        """
        reference = request.pod
        if reference is None:
            await self.require_ready()
            return None, None
        if self._is_ready():  # and there is nothing to wait for, usually
            pod, home = self._known(reference), self._known_namespace(reference.namespace)
            if pod is not None and home is not None:
                return pod, home
        pods: list[Pod] = []
        namespaces: list[Namespace] = []

        async def read_pod() -> None:
            pods.append(await self._pod(reference))

        async def read_namespace() -> None:
            namespaces.append(await self._namespace(reference.namespace))

        await all_done(self.require_ready(), read_pod(), read_namespace())
        return pods[0], namespaces[0]

    async def require_ready(self) -> None:
        """Raise LockedError when the network is not set up, or its datastore is locked."""
        # A lock that was lifted just now may not have come through the watch yet: ask.
        if self._is_ready():
            return
        try:
            information = await self._datastore.get(ClusterInformation, "default")
        except NotFoundError as error:
            raise LockedError(
                "the cluster's network is not set up yet: there is no ClusterInformation default"
            ) from error
        if not information.spec.datastore_ready:
            raise LockedError(
                "the network's datastore is locked: ClusterInformation default says datastoreReady false; "
                "wait for the migration that locked it, or set it to true"
            )

    async def require_unlocked(self) -> None:
        """Raise LockedError when the datastore is locked. One that is not set up holds nothing to be kept."""
        if self._is_ready():
            return
        try:
            information = await self._datastore.get(ClusterInformation, "default")
        except NotFoundError:
            return
        if information.spec.datastore_ready is False:
            raise LockedError(
                "the network's datastore is locked: ClusterInformation default says datastoreReady false"
            )

    def known_pod(self, reference: PodReference) -> Pod | None:
        """The pod as the watch knows it."""
        return self._watched.pod(reference.namespace, reference.name) if self._watched.pod else None

    def _is_ready(self) -> bool:
        """Whether the watch says that the datastore may be written."""
        watched = self._watched.information() if self._watched.information else None
        return watched is not None and bool(watched.spec.datastore_ready)

    def _known(self, reference: PodReference) -> Pod | None:
        """The very pod as the watch knows it. Without the uid nobody can tell it from its predecessor of the
        same name."""
        known = self.known_pod(reference)
        certain = known is not None and reference.uid and known.metadata.uid == reference.uid
        return known if certain else None

    def _known_namespace(self, name: str) -> Namespace | None:
        return self._watched.namespace(name) if self._watched.namespace else None

    async def _pod(self, reference: PodReference) -> Pod:
        known = self._known(reference)
        if known is not None:
            return known
        try:
            pod = await self._datastore.get(Pod, reference.name, reference.namespace)
        except NotFoundError as error:
            raise CNIError(errors.POD_NOT_FOUND, f"pod {reference} does not exist (any more)") from error
        same = not reference.uid or reference.uid == pod.metadata.uid
        if not same and ANNOTATION_MIRROR not in pod.metadata.annotations:
            raise CNIError(
                errors.POD_NOT_FOUND,
                f"pod {reference} with uid {reference.uid} was replaced by one with uid {pod.metadata.uid}",
            )
        return pod

    async def _namespace(self, name: str) -> Namespace:
        known = self._known_namespace(name)
        if known is not None:
            return known
        try:
            return await self._datastore.get(Namespace, name)
        except NotFoundError:
            return Namespace()  # it is being deleted; the pod decides
