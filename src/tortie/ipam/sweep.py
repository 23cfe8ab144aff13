"""Taking back what containers of this node left behind: those that ended without a DEL that arrived.

An agent killed in the middle of an ADD, or a runtime that forgot a sandbox, leaves a handle that nobody will
ever release. `Sweep.run` finds handles of this node whose container is gone and releases them, once they have
been without one for the whole grace period, and still are when asked again right before the release.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime, timedelta
from typing import Final

from tortie.datastore.interface import Datastore
from tortie.ipam import block as blocks
from tortie.ipam.allocator import Allocator
from tortie.ipam.releases import utc_now
from tortie.model.resources import IPAMBlock, IPAMHandle

GRACE: Final = 300.0  # seconds: longer than any ADD or DEL, and than a restart of the container runtime

log = logging.getLogger(__name__)

LivingContainers = Callable[[], Awaitable[Collection[str] | None]]


class Sweep:
    """One for the agent's lifetime; call `run` when it starts, after the journal was replayed, and every
    minute or so. Requests of the same `allocator` may run meanwhile."""

    def __init__(
        self,
        datastore: Datastore,
        allocator: Allocator,
        node: str,
        network: str,
        living: LivingContainers,
        *,
        grace: float = GRACE,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """`network`: name of the CNI configuration, with which handles begin (`k8s-pod-network`). `living`:
        ids of all containers (sandboxes) that exist on this node now, or None when that cannot be told."""
        self._datastore = datastore
        self._allocator = allocator
        self._node = node
        self._prefix = f"{network}."
        self._living = living
        self._grace = grace
        self._monotonic = monotonic
        self._clock = clock
        self._missing_since: dict[str, float] = {}

    async def run(self) -> list[str]:
        """Return the handles that were released. Raise a DatastoreError; what is left is found again."""
        held = await self._held_here()
        living = await self._living()
        if living is None:
            self._missing_since.clear()
            return []
        now = self._monotonic()
        missing = {handle for handle in held if self._container(handle) not in living}
        self._missing_since = {handle: self._missing_since.get(handle, now) for handle in missing}
        due = sorted(handle for handle, since in self._missing_since.items() if now - since >= self._grace)
        if not due:
            return []
        still = await self._living()
        released: list[str] = []
        for handle in due if still is not None else []:
            if still is not None and self._container(handle) in still:
                continue
            addresses = await self._allocator.release_handle(handle)
            del self._missing_since[handle]
            log.warning(
                "Container %s is gone and nobody released its addresses: released %s",
                self._container(handle),
                ", ".join(map(str, addresses)) or "none",
            )
            released.append(handle)
        return released

    def _container(self, handle_id: str) -> str:
        return handle_id.removeprefix(self._prefix)

    async def _held_here(self) -> set[str]:
        """Handles of containers of this node: by the addresses that they hold, or by the blocks of this node
        that they name although they hold nothing, for longer than the grace period."""
        listed = (await self._datastore.list(IPAMBlock)).items
        found = {
            attribute.handle_id
            for block in listed
            for attribute in block.spec.attributes
            if attribute.handle_id and (attribute.secondary or {}).get("node") == self._node
        }
        everywhere = {attribute.handle_id for block in listed for attribute in block.spec.attributes}
        own = {block.spec.cidr for block in listed if blocks.belongs_to(block, self._node)}
        oldest = self._clock() - timedelta(seconds=self._grace)
        for handle in (await self._datastore.list(IPAMHandle)).items:
            created = blocks.parse_timestamp(handle.metadata.creation_timestamp)
            if (
                handle.spec.handle_id not in everywhere
                and handle.spec.block
                and own.issuperset(handle.spec.block)
                and created is not None
                and created < oldest
            ):
                found.add(handle.spec.handle_id)
        return {handle for handle in found if handle.startswith(self._prefix)}
