"""What ADD, DEL and CHECK do: datastore, address, interface, annotations, in that order and back.

A failed ADD is taken back before it is answered. DEL needs neither the namespace nor the datastore: what
cannot be released now is kept in the journal, and DEL succeeds.
"""

import asyncio
import functools
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from tortie.cni import config, errors
from tortie.cni.config import PodReference, Request
from tortie.cni.errors import CNIError
from tortie.cni.journal import Journal
from tortie.cni.shim import version_of
from tortie.dataplane import netns
from tortie.dataplane.netlink import DataplaneError
from tortie.dataplane.workload import Departure, InterfaceExistsError, WorkloadEnds, WorkloadLink
from tortie.datastore.interface import (
    ConflictError,
    Datastore,
    DatastoreError,
    InvalidError,
    NotFoundError,
)
from tortie.ipam.allocator import NoAddressError
from tortie.model import names
from tortie.model.constants import ANNOTATION_CONTAINER_ID, ANNOTATION_POD_IP, ANNOTATION_POD_IPS
from tortie.model.resources import AllowedUse, ClusterInformation, IPAMHandle, IPPool, Pod

T = TypeVar("T")
log = logging.getLogger(__name__)

REQUEST_SECONDS: Final = 45.0  # with UNDO_SECONDS less than what the shim waits
UNDO_SECONDS: Final = 10.0
CLEAR_ATTEMPTS: Final = 6  # of a pod's annotations, when somebody else writes the pod at the same time
ANNOTATION_POOLS: Final = "cni.projectcalico.org/ipv4pools"
# kubelet's own pod behind a mirror pod has another uid than the mirror, and the runtime passes the former.
ANNOTATION_MIRROR: Final = "kubernetes.io/config.mirror"


class AddressAllocator(Protocol):
    """Hands out addresses of the pools. Implemented by tortie.ipam."""

    async def assign(
        self,
        *,
        handle_id: str,
        attributes: dict[str, str],
        use: AllowedUse = "Workload",
        pools: Sequence[IPPool] | None = None,
    ) -> IPv4Address:
        """The address of `handle_id`, a new one unless it has one. Raise NoAddressError or DatastoreError."""

    async def release_handle(self, handle_id: str) -> list[IPv4Address]:
        """Release all addresses of `handle_id`; none is fine. Raise DatastoreError."""


class WorkloadDataplane(Protocol):
    """Makes and removes pods' interfaces, blocking. Implemented by tortie.dataplane.workload."""

    def add(self, link: WorkloadLink) -> WorkloadEnds:
        """Make the interface as a whole or not at all. Raise DataplaneError."""

    def delete(self, departures: Sequence[Departure]) -> None:
        """Remove interfaces; absent ones are fine. Raise DataplaneError."""

    def check(self, link: WorkloadLink) -> list[str]:
        """What differs, one sentence each. Raise DataplaneError."""


@dataclass(slots=True)
class _Turn:
    """Who waits for one interface name."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Plugin:
    """Serves requests of one node. Requests for one pod follow each other, others run at the same time."""

    def __init__(
        self,
        *,
        node: str,
        datastore: Datastore,
        allocator: AddressAllocator,
        workloads: WorkloadDataplane,
        journal_dir: Path,
        default_mtu: Callable[[], int],
    ) -> None:
        self._node = node
        self._datastore = datastore
        self._allocator = allocator
        self._workloads = workloads
        self._journal = Journal(journal_dir)
        self._default_mtu = default_mtu
        self._turns: dict[str, _Turn] = {}
        # One thread makes interfaces (1.5 ms each) and one removes them: a removal waits 28 ms for the
        # kernel, and those that come meanwhile are removed together.
        self._adding = ThreadPoolExecutor(1, "cni-add")
        self._removing = ThreadPoolExecutor(1, "cni-remove")
        self._departures: list[tuple[Departure, asyncio.Future[None]]] = []
        self._removal: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Let the threads end."""
        self._adding.shutdown(wait=False)
        self._removing.shutdown(wait=False)

    async def handle(self, payload: bytes, namespace: int | None) -> tuple[int, bytes]:
        """Exit status and standard output for a request; `namespace` is the container's, as a descriptor."""
        try:
            request = config.parse(payload)
            async with asyncio.timeout(REQUEST_SECONDS), self._turn(request):
                match request.command:
                    case "ADD":
                        return 0, await self._add(request, payload, namespace)
                    case "DEL":
                        await self._del(request, payload)
                    case "CHECK":
                        await self._check(request, namespace)
                return 0, b""
        except Exception as error:
            failure = _as_cni_error(error)
            log.warning("CNI request failed with code %d: %s", failure.code, failure)
            return 1, errors.answer(failure, version_of(payload))

    async def replay_journal(self) -> int:
        """Carry out the DELs that wait; return how many. Stop at the first that fails."""
        done = 0
        for path in self._journal.entries():
            payload = path.read_bytes()
            try:
                request = config.parse(payload)
            except CNIError as error:
                log.warning("%s is not a DEL that can be carried out, dropped: %s", path, error)
                path.unlink(missing_ok=True)
                continue
            try:
                async with asyncio.timeout(REQUEST_SECONDS), self._turn(request):
                    await self._remove(request)
            except (DatastoreError, DataplaneError, TimeoutError) as error:
                log.warning("DEL of container %s waits on: %s", request.container_id, error)
                return done
            path.unlink(missing_ok=True)
            done += 1
        return done

    @asynccontextmanager
    async def _turn(self, request: Request) -> AsyncGenerator[None, None]:
        key = _host_name(request)
        turn = self._turns.setdefault(key, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[key]

    # --- ADD ---------------------------------------------------------------------------------------------

    async def _add(self, request: Request, payload: bytes, namespace: int | None) -> bytes:
        interface = request.plugin == config.PLUGIN
        fd = _namespace(request, namespace) if interface else -1
        pod = await self._admit(request)
        pools = await self._requested_pools(request, pod)
        try:
            address = await self._allocator.assign(
                handle_id=_handle(request), attributes=self._attributes(request), pools=pools
            )
            if not interface:
                return config.result(request, address, [])
            link = self._link(request, fd, address, request.config.mtu or self._default_mtu())
            ends = await _in_thread(self._adding, lambda: self._workloads.add(link))
            if pod is not None:
                await self._annotate(request, pod, address)
        except BaseException:
            await self._take_back(request, payload)
            raise
        log.info("added %s: %s on %s, MTU %d", _who(request), address, ends.host_name, link.mtu)
        interfaces = [
            {"name": ends.host_name, "mac": ends.host_mac},
            {"name": request.ifname, "mac": ends.mac, "sandbox": request.netns},
        ]
        return config.result(request, address, interfaces)

    async def _admit(self, request: Request) -> Pod | None:
        """The pod that the container belongs to. Raise when the datastore is locked or the pod is gone."""
        async with asyncio.TaskGroup() as group:
            information = group.create_task(_outcome(self._datastore.get(ClusterInformation, "default")))
            found = group.create_task(_outcome(self._get_pod(request.pod)))
        if isinstance(information.result(), NotFoundError):
            raise CNIError(
                errors.TRY_LATER,
                "the cluster's network is not set up yet: there is no ClusterInformation default",
            )
        if not _value(information.result()).spec.datastore_ready:
            raise CNIError(
                errors.TRY_LATER,
                "the network's datastore is locked: ClusterInformation default says datastoreReady false; "
                "wait for the migration that locked it, or set it to true",
            )
        if isinstance(found.result(), NotFoundError):
            raise CNIError(errors.POD_NOT_FOUND, f"pod {request.pod} does not exist (any more)")
        pod = _value(found.result())
        self._check_uid(request.pod, pod)
        return pod

    async def _get_pod(self, reference: PodReference | None) -> Pod | None:
        if reference is None:
            return None
        return await self._datastore.get(Pod, reference.name, reference.namespace)

    @staticmethod
    def _check_uid(reference: PodReference | None, pod: Pod | None) -> None:
        if (
            reference is None
            or pod is None
            or not reference.uid
            or ANNOTATION_MIRROR in pod.metadata.annotations
        ):
            return
        if reference.uid != pod.metadata.uid:
            raise CNIError(
                errors.POD_NOT_FOUND,
                f"pod {reference} with uid {reference.uid} was replaced by one with uid {pod.metadata.uid}",
            )

    async def _requested_pools(self, request: Request, pod: Pod | None) -> list[IPPool] | None:
        """The pools that the pod's annotation or else the configuration names (by name or CIDR), if any."""
        annotation = pod.metadata.annotations.get(ANNOTATION_POOLS) if pod else None
        wanted = _pool_names(annotation) if annotation else request.config.ipam.ipv4_pools
        if not wanted:
            return None
        pools = (await self._datastore.list(IPPool)).items
        by_name = {key: pool for pool in pools for key in (pool.metadata.name, pool.spec.cidr)}
        unknown = [name for name in wanted if name not in by_name]
        if unknown:
            raise CNIError(
                errors.BAD_CONFIG,
                f"no address pool is named or covers exactly {', '.join(unknown)}; there are "
                + (", ".join(f"{pool.metadata.name} ({pool.spec.cidr})" for pool in pools) or "none"),
            )
        return [by_name[name] for name in wanted]

    def _attributes(self, request: Request) -> dict[str, str]:
        attributes = {"node": self._node, "timestamp": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")}
        if request.pod is not None:
            attributes |= {"pod": request.pod.name, "namespace": request.pod.namespace}
        return attributes

    @staticmethod
    def _link(request: Request, namespace: int, address: IPv4Address, mtu: int) -> WorkloadLink:
        return WorkloadLink(
            host_name=_host_name(request),
            namespace=namespace,
            ifname=request.ifname,
            address=address,
            mtu=mtu,
            owner=request.container_id,
            forward=request.config.container_settings.allow_ip_forwarding,
        )

    async def _annotate(self, request: Request, pod: Pod, address: IPv4Address) -> None:
        annotations = {
            ANNOTATION_POD_IP: f"{address}/32",
            ANNOTATION_POD_IPS: f"{address}/32",
            ANNOTATION_CONTAINER_ID: request.container_id,
        }
        patch: dict[str, Any] = {"metadata": {"uid": pod.metadata.uid, "annotations": annotations}}
        try:
            await self._datastore.patch(Pod, pod.metadata.name, patch, pod.metadata.namespace, "status")
        except (NotFoundError, ConflictError, InvalidError) as error:
            raise CNIError(
                errors.POD_NOT_FOUND,
                f"pod {request.pod} was deleted or replaced while it got its network: {error}",
            ) from error

    async def _take_back(self, request: Request, payload: bytes) -> None:
        """Undo an ADD; what cannot be undone now is journalled as a DEL."""
        try:
            async with asyncio.timeout(UNDO_SECONDS):
                await self._remove(request)
        except BaseException as error:
            log.warning("taking back the ADD of %s is put off: %s", _who(request), error)
            try:
                self._journal.write(self._journal.as_del(payload))
            except OSError as reason:
                log.error("DEL of %s cannot be kept, its address leaks: %s", _who(request), reason)
            if not isinstance(error, Exception):
                raise

    # --- DEL ---------------------------------------------------------------------------------------------

    async def _del(self, request: Request, payload: bytes) -> None:
        try:
            await self._remove(request)
        except DatastoreError as error:
            try:
                path = self._journal.write(payload)
            except OSError as reason:
                raise CNIError(errors.TRY_LATER, f"{error}; and the DEL cannot be kept: {reason}") from error
            log.warning("DEL of %s is kept in %s: %s", _who(request), path, error)
        else:
            log.info("removed %s", _who(request))

    async def _remove(self, request: Request) -> None:
        """Remove everything that ADD made, in reverse. Raise DataplaneError or DatastoreError."""
        if request.plugin == config.PLUGIN:
            # The interface first: an address is free for others only when nothing here answers for it.
            await self._depart(Departure(_host_name(request), request.container_id, request.ifname))
        async with asyncio.TaskGroup() as group:
            released = group.create_task(_outcome(self._allocator.release_handle(_handle(request))))
            cleared = group.create_task(_outcome(self._clear_annotations(request)))
        if isinstance(cleared.result(), DatastoreError):
            log.warning("annotations of pod %s stay: %s", request.pod, cleared.result())
        _value(released.result())

    async def _clear_annotations(self, request: Request) -> None:
        """Say that the pod's address is free, unless the pod has a newer sandbox or is gone."""
        if request.pod is None or request.plugin != config.PLUGIN:
            return
        for _ in range(CLEAR_ATTEMPTS):
            try:
                pod = await self._datastore.get(Pod, request.pod.name, request.pod.namespace)
                held = pod.metadata.annotations
                if held.get(ANNOTATION_CONTAINER_ID) != request.container_id or not held.get(
                    ANNOTATION_POD_IP
                ):
                    return
                metadata = {
                    "uid": pod.metadata.uid,
                    "resourceVersion": pod.metadata.resource_version,
                    "annotations": {ANNOTATION_POD_IP: "", ANNOTATION_POD_IPS: ""},
                }
                patch: dict[str, Any] = {"metadata": metadata}
                await self._datastore.patch(Pod, request.pod.name, patch, request.pod.namespace, "status")
            except ConflictError:
                continue
            except NotFoundError:
                return
            return

    async def _depart(self, departure: Departure) -> None:
        """Have an interface removed, together with those that wait already."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._departures.append((departure, done))
        if self._removal is None or self._removal.done():
            self._removal = asyncio.create_task(self._remove_departures())
        await done

    async def _remove_departures(self) -> None:
        while self._departures:
            batch, self._departures = self._departures, []
            departures = [departure for departure, _ in batch]
            removal = functools.partial(self._workloads.delete, departures)
            outcome = await _outcome(_in_thread(self._removing, removal))
            for _, done in batch:
                if not done.done():
                    done.set_exception(outcome) if isinstance(outcome, Exception) else done.set_result(None)

    # --- CHECK -------------------------------------------------------------------------------------------

    async def _check(self, request: Request, namespace: int | None) -> None:
        address = config.previous_address(request)
        problems: list[str] = []
        try:
            await self._datastore.get(IPAMHandle, names.handle_name(_handle(request)))
        except NotFoundError:
            problems.append(
                f"address {address} is not accounted to the container: no handle {_handle(request)}"
            )
        if request.plugin == config.PLUGIN:
            link = self._link(request, _namespace(request, namespace), address, request.config.mtu)
            problems += await _in_thread(self._adding, lambda: self._workloads.check(link))
        if problems:
            raise CNIError(errors.CHECK_FAILED, "; ".join(problems))


def _host_name(request: Request) -> str:
    if request.pod is None:
        return names.veth_name_for_container(request.container_id)
    return names.veth_name(request.pod.namespace, request.pod.name)


def _handle(request: Request) -> str:
    return names.handle_id(request.config.name, request.container_id)


def _who(request: Request) -> str:
    return f"pod {request.pod}" if request.pod else f"container {request.container_id}"


def _namespace(request: Request, namespace: int | None) -> int:
    """The container's namespace, checked: it must be one, and not the node's own."""
    if namespace is None or not netns.is_foreign_namespace(namespace):
        raise CNIError(
            errors.BAD_ENVIRONMENT,
            f"CNI_NETNS is {request.netns}, which is not a container's network namespace; "
            "it must be the path of one, and not the node's own",
        )
    return namespace


def _pool_names(annotation: str) -> list[str]:
    try:
        pools = json.loads(annotation)
    except json.JSONDecodeError:
        pools = None
    if not isinstance(pools, list) or not all(isinstance(name, str) for name in pools):
        raise CNIError(
            errors.BAD_CONFIG,
            f"annotation {ANNOTATION_POOLS} is {annotation}; it must be a JSON list of pools, "
            'for example ["default-ipv4-ippool"]',
        )
    return pools


async def _outcome(call: Awaitable[T]) -> T | Exception:
    """The result of an awaitable, or the Exception that it raised: to wait for several and judge each."""
    try:
        return await call
    except Exception as error:
        return error


def _value(outcome: T | Exception) -> T:
    """The result in an outcome; raise what it raised."""
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def _in_thread(executor: Executor, call: Callable[[], T]) -> T:
    """Run a blocking call; when cancelled, wait until it is over, so that what it uses may be closed."""
    future = asyncio.get_running_loop().run_in_executor(executor, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


def _as_cni_error(error: Exception) -> CNIError:
    """The code and sentence that the runtime gets for an error."""
    match error:
        case CNIError():
            return error
        case NoAddressError() | ConflictError():
            return CNIError(errors.TRY_LATER, str(error))
        case DatastoreError():
            return CNIError(errors.TRY_LATER if error.retryable else errors.DATASTORE_REFUSED, str(error))
        case InterfaceExistsError():
            return CNIError(errors.INTERFACE_EXISTS, str(error))
        case DataplaneError():
            return CNIError(errors.KERNEL_REFUSED, str(error))
        case TimeoutError():
            return CNIError(errors.TRY_LATER, f"not done within {REQUEST_SECONDS:.0f} seconds; try again")
    log.error("unexpected error in a CNI request", exc_info=error)
    return CNIError(
        errors.INTERNAL, f"internal error ({type(error).__name__}); see the agent's log on this node"
    )
