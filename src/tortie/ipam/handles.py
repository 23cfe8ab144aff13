"""IPAMHandles: which blocks a container (or a tunnel) holds addresses in."""

import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from ipaddress import ip_network

import msgspec

from tortie.datastore.interface import Datastore, NotFoundError
from tortie.ipam.block import Network
from tortie.ipam.turns import Turns
from tortie.model.names import handle_name
from tortie.model.resources import IPAMHandle, IPAMHandleSpec, Metadata

log = logging.getLogger(__name__)


class Handles:
    """Reads and writes handles, and remembers those that this process wrote, until somebody else did."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._written: dict[str, IPAMHandle] = {}
        self._turns = Turns()

    def turn(self, handle_id: str) -> AbstractAsyncContextManager[None]:
        """Requests of this process for one handle follow each other."""
        return self._turns.of(handle_id)

    def known(self, handle_id: str) -> IPAMHandle | None:
        """The handle as this process wrote it last, if it did. Writing it tells whether that is current."""
        return self._written.get(handle_id)

    def forget(self, handle_id: str) -> None:
        """What is known may be wrong."""
        self._written.pop(handle_id, None)

    async def read(self, handle_id: str) -> IPAMHandle | None:
        """The handle; None when there is none. Raise a DatastoreError."""
        self.forget(handle_id)
        try:
            return await self._datastore.get(IPAMHandle, handle_name(handle_id))
        except NotFoundError:
            return None

    async def create(self, handle_id: str, counts: Mapping[str, int]) -> IPAMHandle:
        """Raise AlreadyExistsError or another DatastoreError. `counts`: addresses by block."""
        spec = IPAMHandleSpec(handle_id=handle_id, block=dict(counts))
        handle = IPAMHandle(metadata=Metadata(name=handle_name(handle_id)), spec=spec)
        self.forget(handle_id)
        return self._remember(await self._datastore.create(handle))

    async def update(self, handle: IPAMHandle, counts: Mapping[str, int]) -> IPAMHandle:
        """Raise ConflictError or another DatastoreError."""
        spec = msgspec.structs.replace(handle.spec, block=dict(counts))
        self.forget(handle.spec.handle_id)
        return self._remember(await self._datastore.update(msgspec.structs.replace(handle, spec=spec)))

    async def delete(self, handle: IPAMHandle) -> None:
        """Raise ConflictError, NotFoundError or another DatastoreError."""
        self.forget(handle.spec.handle_id)
        await self._datastore.delete(handle)

    def _remember(self, handle: IPAMHandle) -> IPAMHandle:
        self._written[handle.spec.handle_id] = handle
        return handle


def block_networks(handle: IPAMHandle) -> list[Network]:
    """The blocks that the handle names; a key that is no CIDR names none."""
    found: list[Network] = []
    for text in handle.spec.block:
        try:
            found.append(ip_network(text))
        except ValueError:
            log.warning("Handle %s names the block %r, which is no CIDR", handle.spec.handle_id, text)
    return found
