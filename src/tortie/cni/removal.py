"""Taking away what ADD made: for DEL, for a failed ADD, and for GC."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Final, Protocol

from tortie.cni import errors
from tortie.cni.annotations import Annotations
from tortie.cni.cluster import Cluster
from tortie.cni.config import Request
from tortie.cni.delegate import Delegate
from tortie.cni.errors import CNIError
from tortie.cni.guard import EndpointPolicy, FloatingAddresses
from tortie.cni.interfaces import Interfaces
from tortie.cni.waiting import all_done
from tortie.dataplane.workload_link import Address, Departure
from tortie.datastore.interface import (
    Datastore,
    DatastoreError,
)
from tortie.ipam import block as blocks
from tortie.model.resources import IPAMBlock

log = logging.getLogger(__name__)

# GC's list may have been made before an ADD that has been answered meanwhile.
GRACE_SECONDS: Final = 60.0
# A plugin that does not know a command says so with one of these.
_DOES_NOT_KNOW: Final = frozenset({errors.INCOMPATIBLE_VERSION, errors.BAD_ENVIRONMENT})


class Releaser(Protocol):
    """Takes addresses back. Implemented by tortie.ipam."""

    async def release_handle(self, handle_id: str) -> list[Address]:
        """Release all addresses of `handle_id`; none is fine. Raise DatastoreError."""


class Removal:
    """Removes containers' networks on one node."""

    def __init__(
        self,
        *,
        node: str,
        datastore: Datastore,
        allocator: Releaser,
        cluster: Cluster,
        annotations: Annotations,
        delegate: Delegate,
        interfaces: Interfaces,
        policy: EndpointPolicy | None,
        floating: FloatingAddresses | None,
        turn: Callable[[str], AbstractAsyncContextManager[None]],
    ) -> None:
        self._node = node
        self._datastore = datastore
        self._allocator = allocator
        self._cluster = cluster
        self._annotations = annotations
        self._delegate = delegate
        self._interfaces = interfaces
        self._policy = policy
        self._floating = floating
        self._turn = turn
        self._added: dict[str, float] = {}  # container id to when its last ADD began or ended

    @contextmanager
    def protected(self, container_id: str) -> Iterator[None]:
        """While an ADD runs, and a while after it, GC spares the container."""
        self._added[container_id] = float("inf")
        try:
            yield
        finally:
            now = time.monotonic()
            self._added[container_id] = now
            if len(self._added) > 1000:
                self._added = {key: at for key, at in self._added.items() if now - at < GRACE_SECONDS}

    async def remove(self, request: Request, process: int | None) -> None:
        """Remove everything that ADD made, in reverse. `process` is the shim's, None when it is gone.

        Raise DataplaneError, DatastoreError, LockedError or CNIError; repeating it continues.
        """
        # The interface first: an address is free for others only when nothing here answers for it.
        kept = await self.detach(request)
        await self.release(request, process, kept)

    async def detach(self, request: Request) -> str | None:
        """Take the interface out of service; return the network of another one that the container keeps.

        It keeps one after the refused ADD of a second one. Raise DataplaneError.
        """
        if not request.makes_interface:
            return None
        name, owner = request.host_name, request.container_id
        if await self._detach(Departure(name, owner, request.ifname, request.config.name)):
            return None
        for departure in await self._interfaces.standing():
            if (departure.host_name, departure.owner) == (name, owner):
                return departure.network
        return None

    async def release(self, request: Request, process: int | None, kept: str | None) -> None:
        """Give the addresses back; the caller has the handle's turn. `kept` is what `detach` returned.

        Raise DatastoreError, LockedError or CNIError.
        """
        if kept == request.config.name:  # addresses are accounted to containers, so they are that interface's
            log.info("the addresses of %s stay with its other interface", request)
            if request.config.delegates:  # that plugin accounts for each interface
                await self._release(request, process)
            return
        if not request.config.delegates:
            await self._cluster.require_unlocked()
        calls = [self._release(request, process)]
        if kept is None:
            calls.append(self._clear_annotations(request))
        await all_done(*calls)

    async def _clear_annotations(self, request: Request) -> None:
        try:
            await self._annotations.clear(request)
        except DatastoreError as error:
            log.warning("annotations of pod %s stay: %s", request.pod, error)

    async def _detach(self, departure: Departure) -> bool:
        """Return whether no container has the host end's name now."""
        free = await self._interfaces.detach(departure)
        if free and self._policy is not None:
            await self._policy.endpoint_gone(departure.host_name)
        if free and self._floating is not None:
            # Before the address can be another pod's.
            await self._floating.endpoint_gone(departure.host_name)
        return free

    async def _release(self, request: Request, process: int | None) -> None:
        if request.config.delegates:
            await self._delegate.release(request, process)
        else:
            await self._allocator.release_handle(request.handle)

    # --- GC ----------------------------------------------------------------------------------------------

    async def collect(self, request: Request, process: int) -> None:
        """Remove what this network holds on this node for containers that the runtime does not know.

        Raise CNIError, DataplaneError or DatastoreError; what could be removed has been.
        """
        await self._cluster.require_ready()
        valid = {(item.container_id, item.ifname) for item in request.config.valid_attachments or []}
        calls = [self._collect_addresses(request, {container for container, _ in valid})]
        if request.config.delegates:
            calls = [self._ask_delegate(request, process)]
        if request.makes_interface:
            await self._collect_interfaces(request, valid)
        await all_done(*calls)

    def _spared(self, container_id: str) -> bool:
        return time.monotonic() - self._added.get(container_id, float("-inf")) < GRACE_SECONDS

    async def _collect_interfaces(self, request: Request, valid: set[tuple[str, str]]) -> None:
        for departure in await self._interfaces.standing():
            known = (departure.owner, departure.ifname) in valid or self._spared(departure.owner)
            if departure.network != request.config.name or known:
                continue
            async with self._turn(departure.host_name):
                await self._detach(departure)
            log.info("GC removed interface %s of container %s", departure.host_name, departure.owner)

    async def _collect_addresses(self, request: Request, valid: set[str]) -> None:
        prefix = f"{request.config.name}."
        for handle in await self._handles():
            container = handle.removeprefix(prefix)
            # A dot in the rest means that it is of another network, whose name begins like ours.
            foreign = container == handle or "." in container
            if foreign or container in valid or self._spared(container):
                continue
            released = await self._allocator.release_handle(handle)
            log.info("GC released %s of container %s", ", ".join(map(str, released)) or "nothing", container)

    async def _handles(self) -> list[str]:
        """Handles that hold an address for a container of this node."""
        found: dict[str, None] = {}
        for block in (await self._datastore.list(IPAMBlock)).items:
            for attribute in blocks.holders(block).values():
                node = (attribute.secondary or {}).get("node")
                if attribute.handle_id and node == self._node:
                    found[attribute.handle_id] = None
        return list(found)

    async def _ask_delegate(self, request: Request, process: int) -> None:
        try:
            await self._delegate.ask(request, process)
        except CNIError as error:
            if error.code not in _DOES_NOT_KNOW:
                raise
            log.warning("GC of the addresses is not possible: %s", error)
