"""Pods' interfaces, made and removed beside the event loop.

One thread makes and detaches interfaces (1 and 0.5 ms each), another deletes what is detached: a deletion
waits 28 ms for the kernel, nobody waits for it, and what comes meanwhile is deleted together.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from tortie.cni.waiting import Errands, in_thread, outcome
from tortie.dataplane.workload_link import Address, BegunLink, Departure, WorkloadEnds, WorkloadLink

log = logging.getLogger(__name__)

# A deletion holds the kernel's lock on all links: better once for a burst than between its ADDs and DELs.
BURY_AFTER_SECONDS: Final = 0.2


class WorkloadDataplane(Protocol):
    """Makes and removes pods' interfaces, blocking. Implemented by tortie.dataplane.workload."""

    def begin(self, link: WorkloadLink) -> BegunLink | None:
        """Make what needs no address, or nothing (None). Raise DataplaneError."""

    def add(self, link: WorkloadLink, begun: BegunLink | None = None) -> WorkloadEnds:
        """Make the interface, or complete it, as a whole or not at all. Raise DataplaneError."""

    def detach(self, departures: Sequence[Departure]) -> set[str]:
        """Take interfaces out of service; absent ones are fine. Return the names that are another
        container's. Raise DataplaneError."""

    def bury(self) -> None:
        """Delete what was detached. Raise DataplaneError."""

    def standing(self) -> list[Departure]:
        """The interfaces of all pods on this node. Raise DataplaneError."""

    def addresses(self, departure: Departure) -> tuple[Address, ...]:
        """What an interface was made with; nothing when it is another's. Raise DataplaneError."""

    def check(self, link: WorkloadLink) -> list[str]:
        """What differs, one sentence each. Raise DataplaneError."""


class Interfaces:
    """A node's interfaces of pods."""

    def __init__(self, workloads: WorkloadDataplane) -> None:
        self._workloads = workloads
        self._begun: dict[str, BegunLink] = {}  # what `begin` made, by the host end's name
        self._quick = Errands("cni-links")
        self._slow = ThreadPoolExecutor(1, "cni-bury")
        self._burial: asyncio.Task[None] | None = None
        self._more = False

    async def close(self) -> None:
        """Delete what is detached, and let the threads end."""
        if self._burial is not None and not self._burial.done():
            self._burial.cancel()
            await asyncio.wait([self._burial])
            await self._bury_all()
        self._quick.close()
        self._slow.shutdown(wait=False)
        for begun in self._begun.values():
            begun.close()

    async def begin(self, link: WorkloadLink) -> None:
        """Make what needs no address, while addresses are being assigned. Raise DataplaneError.

        `add` completes it, `detach` takes it away."""

        def begin() -> None:
            begun = self._workloads.begin(link)
            if begun is not None:
                self._begun[link.host_name] = begun

        await self._quick.run(begin)

    def is_begun(self, host_name: str) -> bool:
        """Whether `begin` made something, which means that nothing stood in the way."""
        return host_name in self._begun

    async def add(self, link: WorkloadLink) -> WorkloadEnds:
        """Make an interface, or complete it. Raise DataplaneError."""
        begun = self._begun.pop(link.host_name, None)
        return await self._quick.run(lambda: self._workloads.add(link, begun))

    async def check(self, link: WorkloadLink) -> list[str]:
        """What differs, one sentence each. Raise DataplaneError."""
        return await self._quick.run(lambda: self._workloads.check(link))

    async def standing(self) -> list[Departure]:
        """The interfaces of all pods on this node. Raise DataplaneError."""
        return await self._quick.run(self._workloads.standing)

    async def addresses(self, departure: Departure) -> tuple[Address, ...]:
        """What an interface was made with; nothing when it is another's. Raise DataplaneError."""
        return await self._quick.run(lambda: self._workloads.addresses(departure))

    async def detach(self, departure: Departure) -> bool:
        """Take an interface out of service; it is deleted soon. Return whether no container has its name now.

        Raise DataplaneError.
        """
        begun = self._begun.pop(departure.host_name, None)
        if begun is not None:
            begun.close()
        held = await self._quick.run(lambda: self._workloads.detach([departure]))
        self.bury()
        return not held

    def bury(self) -> None:
        """Have what is detached deleted, without waiting for it."""
        self._more = True
        if self._burial is None or self._burial.done():
            self._burial = asyncio.create_task(self._bury())

    async def _bury(self) -> None:
        while self._more:
            await asyncio.sleep(BURY_AFTER_SECONDS)
            self._more = False
            await self._bury_all()

    async def _bury_all(self) -> None:
        result = await outcome(in_thread(self._slow, self._workloads.bury))
        if isinstance(result, Exception):
            log.error("detached interfaces cannot be deleted now, the next DEL tries again: %s", result)
