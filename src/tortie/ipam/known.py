"""Blocks as this process saw them last, and the writes to them: edits that wait are written together.

Each edit is a function of the block. While one write is under way, further edits gather; the next write
applies all of them, and waits a moment for assigns that are known to be on their way. So fifty pods that
start at once cost a few writes, not fifty.

A `KnownBlock` stands for an unbroken line of writes: what it says was read at some time, and since then
nobody but this process has written the block. The first write that fails, for whatever reason, breaks it for
good, and every edit that waits is refused with ConflictError. An edit made through it is thus refused
whenever somebody else has written the block after it was read.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from tortie.datastore.interface import ConflictError, Datastore, DatastoreError, NotFoundError
from tortie.ipam import block as blocks
from tortie.ipam.block import BlockError, Network
from tortie.model.names import cidr_name
from tortie.model.resources import IPAMBlock

# A write waits for promised assigns as long as one comes within the former, at most for the latter. A write
# of a full block costs the datastore as much as six handles do.
NEXT_SECONDS: Final = 0.02
GATHER_SECONDS: Final = 0.1

T = TypeVar("T")
Edit = Callable[[IPAMBlock], tuple[IPAMBlock, T]]

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting:
    """One edit in the queue."""

    edit: Edit[Any]
    done: bool = False
    result: Any = None
    error: Exception | None = None

    def fail(self, error: Exception) -> None:
        self.done, self.error = True, error


@dataclass(slots=True, eq=False)
class KnownBlock:
    """See the module. `promised` counts the automatic assignments that are on their way to it."""

    datastore: Datastore
    block: IPAMBlock
    promised: int = 0
    broken: bool = False
    writes: int = 0
    _queue: list[_Waiting] = field(default_factory=list)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def cidr(self) -> Network:
        """The block's range."""
        return blocks.network(self.block)

    @property
    def busy(self) -> bool:
        """Whether edits wait or are being written, or assignments are promised."""
        return bool(self._queue or self.promised or self._lock.locked())

    async def edit(self, edit: Edit[T]) -> T:
        """Have the block written as `edit` changes it; return what `edit` returned beside it.

        A BlockError of `edit` is raised here, and nothing of it is written. Raise ConflictError when the line
        of writes is broken, or the DatastoreError that broke it.
        """
        waiting = _Waiting(edit)
        self._queue.append(waiting)
        self._changed.set()
        try:
            async with self._lock:
                if not waiting.done:
                    await self._gather()
                    await self._write()
        finally:
            if waiting in self._queue:  # cancelled while it waited
                self._queue.remove(waiting)
        if waiting.error is not None:
            raise waiting.error
        result: T = waiting.result
        return result

    def promise(self) -> None:
        """An automatic assignment is on its way."""
        self.promised += 1

    def keep(self) -> None:
        """A promised assignment has been made, or will not be."""
        self.promised -= 1
        self._changed.set()

    async def _gather(self) -> None:
        """Wait for what is promised, a moment at most."""
        latest = asyncio.get_running_loop().time() + GATHER_SECONDS
        with suppress(TimeoutError):
            while self.promised > len(self._queue) and not self.broken:
                self._changed.clear()
                left = latest - asyncio.get_running_loop().time()
                async with asyncio.timeout(min(NEXT_SECONDS, left)):
                    await self._changed.wait()

    async def _write(self) -> None:
        batch, self._queue = self._queue, []
        if self.broken:
            self.break_off(batch)
            return
        changed, applied = self.block, []
        for waiting in batch:
            try:
                changed, waiting.result = waiting.edit(changed)
            except BlockError as error:
                waiting.fail(error)
            else:
                applied.append(waiting)
        if not applied:
            return
        try:
            self.block = await self.datastore.update(changed)
        except DatastoreError as error:
            for waiting in applied:
                waiting.fail(error)
            self.break_off([])
        except BaseException:
            self.break_off(applied)
            raise
        else:
            self.writes += 1
            for waiting in applied:
                waiting.done = True

    def break_off(self, waiting: list[_Waiting] | None = None) -> None:
        """Refuse these edits, those in the queue and all later ones."""
        self.broken = True
        self._changed.set()
        queued, self._queue = self._queue, []
        for item in itertools.chain(waiting or (), queued):
            item.fail(
                ConflictError(f"Block {self.block.spec.cidr} has to be read again before it is written.")
            )


class KnownBlocks:
    """What this process knows. Blocks in `own` are relied on until a write fails; others are read anew each
    time, unless a write to them is under way."""

    def __init__(self, datastore: Datastore) -> None:
        self.own: set[Network] = set()
        self._datastore = datastore
        self._known: dict[Network, KnownBlock] = {}

    def known(self, cidr: Network) -> KnownBlock | None:
        """The block as far as it is known, without asking anybody."""
        found = self._known.get(cidr)
        return None if found is None or found.broken else found

    async def read(self, cidr: Network) -> KnownBlock | None:
        """The block; None when there is none. Raise a DatastoreError."""
        found = self.known(cidr)
        if found is not None and (cidr in self.own or found.busy):
            return found
        try:
            block = await self._datastore.get(IPAMBlock, cidr_name(str(cidr)))
        except NotFoundError:
            self.forget(cidr)
            return None
        return self.adopt(block)

    def adopt(self, block: IPAMBlock) -> KnownBlock:
        """Take note of a block that was just read. What is known stays when it is at least as new."""
        cidr = blocks.network(block)
        found = self.known(cidr)
        if found is not None:
            same = found.block.metadata.uid == block.metadata.uid
            if same and found.block.spec.sequence_number >= block.spec.sequence_number:
                return found
            found.break_off()
        adopted = self._known[cidr] = KnownBlock(self._datastore, block)
        return adopted

    def forget(self, cidr: Network) -> None:
        """The block is gone."""
        self.own.discard(cidr)
        found = self._known.pop(cidr, None)
        if found is not None:
            found.break_off()

    def forget_idle(self) -> None:
        """Drop copies of other nodes' blocks that nobody writes to."""
        self._known = {cidr: known for cidr, known in self._known.items() if cidr in self.own or known.busy}
