"""DELs that were answered and are not finished: the journal keeps each until its addresses are released.

The rest of a DEL may take a while: the datastore does not answer, the agent is killed, or none was there when
the shim was called. An ADD of the same container and interface may come meanwhile (CNI SPEC 1.1.0, section 2,
allows it after a DEL). What is left of the DEL would then take away what that ADD makes: it is done before.
"""

import asyncio
import logging
from pathlib import Path
from typing import Final

from tortie.cni import config
from tortie.cni.cluster import LockedError
from tortie.cni.config import Request
from tortie.cni.errors import CNIError
from tortie.cni.journal import Journal
from tortie.cni.removal import Removal
from tortie.dataplane.netlink import DataplaneError
from tortie.datastore.interface import DatastoreError
from tortie.ipam.turns import Turns

log = logging.getLogger(__name__)

FINISHING: Final = 64  # DELs whose addresses are released at the same time
# The addresses of containers that go together are released together, in one write.
FINISH_AFTER_SECONDS: Final = 0.1


class Unfinished:
    """Finishes DELs, those that this process began and those that it finds."""

    def __init__(self, journal: Journal, removal: Removal, turns: Turns, patience: float) -> None:
        """`patience` is what one attempt may take, in seconds; `turns` are those of host ends and handles."""
        self._journal = journal
        self._removal = removal
        self._turns = turns
        self._patience = patience
        self._tasks: dict[Path, asyncio.Task[None]] = {}  # by entry of the journal
        self._places = asyncio.Semaphore(FINISHING)

    async def close(self) -> None:
        """End what goes on; the journal keeps what is not done."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def finish(self, request: Request, entry: Path, kept: str | None) -> None:
        """Release the addresses of a DEL, which the journal holds as `entry`, beside its answer.

        `kept` is what `Removal.detach` returned.
        """
        task = asyncio.create_task(self._release(request, entry, kept))
        self._tasks[entry] = task
        task.add_done_callback(lambda done: self._forget(entry, done))

    def _forget(self, entry: Path, done: asyncio.Task[None]) -> None:
        if self._tasks.get(entry) is done:
            del self._tasks[entry]

    async def _release(self, request: Request, entry: Path, kept: str | None) -> None:
        """What fails is tried again with the journal."""
        await asyncio.sleep(FINISH_AFTER_SECONDS)
        async with self._places:
            try:
                async with asyncio.timeout(self._patience), self._turns.of(request.handle):
                    await self._removal.release(request, None, kept)
                    self._journal.drop(entry)
            except Exception as error:
                log.warning("DEL of %s is kept in %s: %s", request, entry, str(error) or type(error).__name__)
            else:
                log.info("removed %s", request)

    async def precede(self, request: Request) -> None:
        """Carry out what is left of an earlier DEL of the same container and interface. The caller, an ADD,
        has the turns of its host end and handle.

        Raise DataplaneError, DatastoreError or LockedError; then the DEL waits on. One that its IPAM plugin
        refuses is given up: the plugin decides whether the container may have an address once more.
        """
        entry = self._journal.find(request.environment)
        if entry is None:
            return
        task = self._tasks.get(entry)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        earlier = self._read(entry)
        if earlier is None:
            return
        try:
            await self._removal.remove(earlier, None)
        except CNIError as error:
            log.error("the address of %s, which is added again, may leak: %s", earlier, error)
        else:
            log.info("removed %s, which is added again", earlier)
        self._journal.drop(entry)

    def _read(self, entry: Path) -> Request | None:
        """The DEL in an entry; one that cannot be carried out is dropped."""
        try:
            return config.parse(entry.read_bytes())
        except FileNotFoundError:
            return None
        except (CNIError, OSError) as error:
            log.warning("%s is not a DEL that can be carried out, dropped: %s", entry, error)
            self._journal.drop(entry)
            return None

    async def replay(self) -> int:
        """Carry out the DELs that wait; return how many. One that fails waits on, and others are tried."""
        done = 0
        self._journal.sweep()
        for entry in self._journal.entries():
            request = None if entry in self._tasks else self._read(entry)
            if request is None:
                continue
            try:
                turns = (self._turns.of(request.host_name), self._turns.of(request.handle))
                async with asyncio.timeout(self._patience), turns[0], turns[1]:
                    if entry in self._tasks or not entry.exists():
                        continue  # finished while this waited, and the container may be attached again
                    await self._removal.remove(request, None)
                    self._journal.drop(entry)
            except (DatastoreError, LockedError, TimeoutError) as error:
                log.warning("DEL of container %s waits on: %s", request.container_id, error)
                return done
            except (DataplaneError, CNIError) as error:
                log.warning("DEL of container %s waits on: %s", request.container_id, error)
                continue
            done += 1
        return done
