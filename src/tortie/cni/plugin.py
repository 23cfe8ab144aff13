"""What the plugin's commands do. ADD: cluster, address, interface; a failed one is taken back.

DEL needs neither the namespace nor the datastore (see removal.py). CHECK, STATUS and GC harm no running pod.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from msgspec.structs import replace

from tortie.cni import check, config, errors, readiness, result, wishes
from tortie.cni.annotations import Annotations, annotations
from tortie.cni.cluster import Cluster, LockedError, Watched
from tortie.cni.config import Request
from tortie.cni.delegate import HOST_ROOT, Delegate, configured_routes, destinations
from tortie.cni.errors import CNIError
from tortie.cni.guard import EndpointPolicy, FloatingAddresses
from tortie.cni.interfaces import Interfaces, WorkloadDataplane
from tortie.cni.journal import Journal
from tortie.cni.removal import Removal
from tortie.cni.result import Assignment
from tortie.cni.shim import version_of
from tortie.cni.unfinished import Unfinished
from tortie.cni.waiting import both, outcome
from tortie.cni.wishes import Wish
from tortie.dataplane import netns
from tortie.dataplane.netlink import DataplaneError
from tortie.dataplane.workload import InterfaceExistsError
from tortie.dataplane.workload_link import DEFAULT_ROUTES, Address, WorkloadEnds, WorkloadLink
from tortie.datastore.interface import (
    ConflictError,
    Datastore,
    DatastoreError,
)
from tortie.ipam.errors import AddressTakenError, BadRequestError, NoAddressError
from tortie.ipam.request import AddressRequest
from tortie.ipam.turns import Turns
from tortie.model.endpoints import WorkloadEndpoint, workload_endpoint
from tortie.model.floating import FloatingError
from tortie.model.resources import Pod, PodIP

log = logging.getLogger(__name__)

REQUEST_SECONDS: Final = 45.0  # with UNDO_SECONDS less than what the shim waits
UNDO_SECONDS: Final = 10.0
POLICY_SECONDS: Final = 30.0  # unless policy_setup_timeout_seconds says otherwise


class AddressAllocator(Protocol):
    """Hands out addresses of the pools. Implemented by tortie.ipam."""

    async def assign(self, wanted: AddressRequest) -> tuple[Address, ...]:
        """The handle's addresses, IPv4 first; new ones unless it has some.

        Raise AddressError or DatastoreError."""

    async def release_handle(self, handle_id: str) -> list[Address]:
        """Release all addresses of `handle_id`; none is fine. Raise DatastoreError."""


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
        policy: EndpointPolicy | None = None,
        floating: FloatingAddresses | None = None,
        watched: Watched | None = None,
        limited: Callable[[], str] | None = None,
        host_root: Path = HOST_ROOT,
    ) -> None:
        self._node = node
        self._datastore = datastore
        self._allocator = allocator
        self._default_mtu = default_mtu
        self._policy = policy
        self._floating = floating
        self._limited = limited
        self._cluster = Cluster(datastore, watched or Watched())
        self._annotations = Annotations(datastore, self._cluster)
        self._delegate = Delegate(datastore, node, host_root)
        self._interfaces = Interfaces(workloads)
        self._journal = Journal(journal_dir)
        self._turns = Turns()
        self._removal = Removal(
            node=node,
            datastore=datastore,
            allocator=allocator,
            cluster=self._cluster,
            annotations=self._annotations,
            delegate=self._delegate,
            interfaces=self._interfaces,
            policy=policy,
            floating=floating,
            turn=self._turns.of,
        )
        self._unfinished = Unfinished(self._journal, self._removal, self._turns, REQUEST_SECONDS)

    async def close(self) -> None:
        """End what goes on beside requests; the journal keeps what is not done. Let the threads end."""
        await self._unfinished.close()
        await self._annotations.settled()
        await self._interfaces.close()

    async def handle(self, payload: bytes, namespace: int | None, process: int) -> tuple[int, bytes]:
        """Exit status and standard output for a request.

        `namespace` is the container's, as a descriptor; `process` the shim's id, which is alive meanwhile.
        """
        try:
            request = config.parse(payload)
            async with asyncio.timeout(REQUEST_SECONDS):
                return 0, await self._serve(request, payload, namespace, process)
        except Exception as error:
            failure = as_cni_error(error)
            log.warning("CNI request failed with code %d: %s", failure.code, failure)
            return 1, errors.answer(failure, version_of(payload.partition(b"\0\0")[2]))

    async def _serve(self, request: Request, payload: bytes, namespace: int | None, process: int) -> bytes:
        match request.command:
            case "STATUS":
                await self._status(request, process)
            case "GC":
                await self._removal.collect(request, process)
            case _:
                async with self._turns.of(request.host_name):
                    if request.command == "ADD":
                        async with self._turns.of(request.handle):  # a DEL of it may be releasing
                            return await self._add(request, payload, namespace, process)
                    if request.command == "DEL":
                        await self._del(request, payload, process)
                    else:
                        await self._check(request, namespace, process)
        return b""

    async def replay_journal(self) -> int:
        """Carry out the DELs that wait; return how many."""
        return await self._unfinished.replay()

    async def retell(self) -> None:
        """Write annotations that an earlier process did not come to. Raise Datastore- or DataplaneError."""
        await self._annotations.retell(self._node, self._interfaces, self._turns)

    def bury(self) -> None:
        """Delete interfaces that an earlier process detached."""
        self._interfaces.bury()

    # --- ADD ---------------------------------------------------------------------------------------------

    async def _add(self, request: Request, payload: bytes, namespace: int | None, process: int) -> bytes:
        self._annotations.put_off()
        self._check_node(request)
        fd = _namespace(request, namespace) if request.makes_interface else -1
        await self._unfinished.precede(request)
        await readiness.wait_for(request.config.readiness_gates)
        with self._removal.protected(request.container_id):
            pod, home = await self._cluster.admit(request)
            asked = pod.metadata.annotations if pod else {}
            wish = wishes.wish(request, asked, home.metadata.annotations if home else {})
            try:
                labels = home.metadata.labels if home else {}
                if not request.makes_interface:
                    assignment = await self._assign(request, wish, labels, process)
                    return result.render(request, assignment, None, 0)
                assignment, _ = await both(
                    self._assign(request, wish, labels, process), self._begin(request, fd, wish)
                )
                wishes.check_floating(wish, assignment.addresses)
                link = self._link(request, fd, assignment, wish)
                ends = await self._connect(request, link, pod)
            except BaseException:
                await self._take_back(request, payload, process)
                raise
        shown = ", ".join(map(str, assignment.addresses))
        log.info("added %s: %s on %s, MTU %d", request, shown, ends.host_name, link.mtu)
        return result.render(request, assignment, ends, link.mtu)

    def _check_node(self, request: Request) -> None:
        for key, node in (("nodename", request.config.nodename), ("hostname", request.config.hostname)):
            if node and node != self._node:
                raise CNIError(
                    errors.BAD_CONFIG,
                    f"{key} is {node!a}, and this node's agent serves {self._node}; correct or remove it",
                )

    async def _assign(self, request: Request, wish: Wish, labels: dict[str, str], process: int) -> Assignment:
        """The container's addresses."""
        dns = request.config.dns
        if wish.without_ipam:
            return Assignment(wish.addresses, DEFAULT_ROUTES, dns)
        if request.config.delegates:
            assigned = await self._delegate.assign(request, process)
            return Assignment(assigned.addresses, assigned.routes, assigned.dns or dns)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")
        attributes = {"node": self._node, "timestamp": now}
        if request.pod is not None:
            attributes |= {"pod": request.pod.name, "namespace": request.pod.namespace}
        # Families that share a list of pools, or have none, are asked for at once.
        groups: dict[tuple[str, ...] | None, set[int]] = {}
        for family in sorted(wish.families):
            groups.setdefault(wish.pools.get(family), set()).add(family)
        given: list[Address] = []
        for pools, families in groups.items():
            wanted = AddressRequest(
                handle_id=request.handle,
                attributes=attributes,
                families=frozenset(families),
                pools=pools,
                addresses=tuple(item for item in wish.addresses if item.version in families),
                namespace_labels=labels,
            )
            given += await self._allocator.assign(wanted)
        return Assignment(result.in_order(given), DEFAULT_ROUTES, dns)

    def _link(self, request: Request, namespace: int, assignment: Assignment, wish: Wish) -> WorkloadLink:
        mtu = request.config.mtu or self._default_mtu()
        if not mtu:
            raise CNIError(
                errors.TRY_LATER, "the MTU of pods is not known yet; wait for the agent, or set mtu"
            )
        return WorkloadLink(
            host_name=request.host_name,
            namespace=namespace,
            ifname=request.ifname,
            addresses=assignment.addresses,
            mtu=mtu,
            owner=request.container_id,
            network=request.config.name,
            mac=wish.mac,
            forward=request.config.container_settings.allow_ip_forwarding,
            routes=assignment.routes,
            queues=request.config.num_queues,
        )

    async def _begin(self, request: Request, namespace: int, wish: Wish) -> None:
        """The interface as far as it can be made while the datastore is being written."""
        await self._interfaces.begin(self._link(request, namespace, Assignment(()), wish))

    async def _connect(self, request: Request, link: WorkloadLink, pod: Pod | None) -> WorkloadEnds:
        """Interface and policy at the same time: the container runs only after the answer.

        With something in the interface's way, one after the other: the policy in force may be that of an
        interface which stays, and then of its addresses.
        """
        if self._interfaces.is_begun(link.host_name):
            made, endpoint = await both(self._interfaces.add(link), self._guard(request, link, pod))
        else:
            made = await self._interfaces.add(link)
            endpoint = await self._guard(request, link, pod)
        if self._floating is not None and endpoint is not None:
            await self._floating.endpoint_ready(endpoint)
        if pod is not None:
            self._annotations.write(request, pod, link.addresses)
        return made

    async def _guard(self, request: Request, link: WorkloadLink, pod: Pod | None) -> WorkloadEndpoint | None:
        """Have the pod's policy in force before anything in it runs; return the pod's endpoint."""
        endpoint = _endpoint(request, link, pod) if pod is not None else None
        if self._policy is None or endpoint is None:
            return endpoint
        seconds = request.config.policy_setup_timeout_seconds or POLICY_SECONDS
        try:
            async with asyncio.timeout(seconds):
                await self._policy.endpoint_ready(endpoint)
        except TimeoutError as error:
            raise CNIError(
                errors.TRY_LATER,
                f"the policy of {request} is not in force after {seconds:g} seconds "
                "(policy_setup_timeout_seconds); a pod is not started without it",
            ) from error
        return endpoint

    async def _take_back(self, request: Request, payload: bytes, process: int) -> None:
        """Undo an ADD; what cannot be undone now is journalled as a DEL."""
        try:
            async with asyncio.timeout(UNDO_SECONDS):
                await self._removal.remove(request, process)
        except BaseException as error:
            log.warning("taking back the ADD of %s is put off: %s", request, error)
            try:
                self._journal.write(self._journal.as_del(payload))
            except OSError as reason:
                log.error("DEL of %s cannot be kept, its address leaks: %s", request, reason)
            if not isinstance(error, Exception):
                raise

    # --- DEL, CHECK, STATUS ------------------------------------------------------------------------------

    async def _del(self, request: Request, payload: bytes, process: int) -> None:
        """The interface now; the address after the answer, when the journal holds the DEL until then."""
        entry = await outcome(self._keep(request, payload))
        kept = await self._removal.detach(request)
        if kept == request.config.name and not isinstance(entry, Exception):
            self._journal.drop(entry)
            return
        if kept is None:
            await self._annotations.drop(request)
        if not isinstance(entry, Exception):
            self._unfinished.finish(request, entry, kept)
            return
        try:
            async with self._turns.of(request.handle):
                await self._removal.release(request, process, kept)
        except (DatastoreError, LockedError, TimeoutError) as error:
            raise CNIError(errors.TRY_LATER, f"{error}; and the DEL cannot be kept: {entry}") from error
        log.info("removed %s", request)

    async def _keep(self, request: Request, payload: bytes) -> Path:
        """Put a DEL into the journal. Raise OSError, or CNIError when it must be carried out at once."""
        if request.config.delegates:
            raise CNIError(errors.TRY_LATER, "the IPAM plugin wants its caller's file system")
        return self._journal.write(payload, durable=False)

    async def _check(self, request: Request, namespace: int | None, process: int) -> None:
        addresses = result.previous_addresses(request)
        problems: list[str] = []
        if request.config.delegates:
            await self._delegate.ask(request, process)
        else:
            problems += await check.address_problems(self._datastore, request, addresses)
        if request.makes_interface:
            routes = DEFAULT_ROUTES
            if request.config.delegates:
                routes = destinations(request, configured_routes(request))
            wish = Wish(request.config.families, mac=check.previous_mac(request))
            link = self._link(request, _namespace(request, namespace), Assignment(addresses, routes), wish)
            problems += await self._interfaces.check(link)
            if self._floating is not None:
                problems += await self._floating.differences(request.host_name)
        if problems:
            raise CNIError(errors.CHECK_FAILED, "; ".join(problems))

    async def _status(self, request: Request, process: int) -> None:
        """Raise CNIError when an ADD would fail now (SPEC, section 2)."""
        limited = self._limited() if self._limited else ""
        if limited:
            raise CNIError(errors.LIMITED, limited)
        try:
            await self._cluster.require_ready()
            if request.config.delegates:
                await self._delegate.ask(request, process)
        except (LockedError, DatastoreError, CNIError) as error:
            raise CNIError(errors.UNAVAILABLE, str(error)) from error


def _namespace(request: Request, namespace: int | None) -> int:
    """The container's namespace, checked: it must be one, and not the node's own."""
    if namespace is None or not netns.is_foreign_namespace(namespace):
        raise CNIError(
            errors.BAD_ENVIRONMENT,
            f"CNI_NETNS is {request.netns!a}, which is not a container's network namespace; "
            "it must be the path of one, and not the node's own",
        )
    return namespace


def _endpoint(request: Request, link: WorkloadLink, pod: Pod) -> WorkloadEndpoint | None:
    """The pod's endpoint as it is from now on."""
    # Its status may still tell the addresses of an earlier sandbox.
    status = replace(
        pod.status,
        pod_ip=str(link.addresses[0]),
        pod_ips=[PodIP(ip=str(address)) for address in link.addresses],
    )
    told = pod.metadata.annotations | annotations(request.container_id, link.addresses)
    return workload_endpoint(replace(pod, status=status, metadata=replace(pod.metadata, annotations=told)))


def as_cni_error(error: Exception) -> CNIError:
    """The code and sentence that the runtime gets for an error."""
    match error:
        case CNIError():
            return error
        case NoAddressError() | AddressTakenError() | ConflictError() | LockedError():
            return CNIError(errors.TRY_LATER, str(error))
        case BadRequestError() | FloatingError():
            return CNIError(errors.BAD_CONFIG, str(error))
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
