"""A kind's objects in memory, kept current: list, then watch, and list again when the watch is too old."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from tortie.datastore.backoff import Backoff
from tortie.datastore.interface import Datastore, DatastoreError, Event, GoneError
from tortie.model.resources import Resource

R = TypeVar("R", bound=Resource)
Key = tuple[str, str]  # namespace ("" for a cluster-wide kind), name

_MIN_WAIT: Final = 0.2  # seconds before the first new list after an error; doubled up to _MAX_WAIT
_MAX_WAIT: Final = 30.0

log = logging.getLogger(__name__)


class Informer(Generic[R]):
    """`items` is the latest known state. It stays as it is while the server is away, and `synced` is set from
    the first complete list on, for good: stale knowledge is kept, absent knowledge never taken for "none".

    Reading `items` needs no lock: it changes only between two awaits of the event loop that runs `run`.
    """

    def __init__(
        self, datastore: Datastore, kind: type[R], namespace: str = "", field_selector: str = ""
    ) -> None:
        self.items: dict[Key, R] = {}
        self.synced = asyncio.Event()
        self._datastore = datastore
        self._kind = kind
        self._namespace = namespace
        self._field_selector = field_selector
        self._callbacks: list[Callable[[], None]] = []

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` (typically some asyncio.Event's `set`) after the first sync and after each change.

        It is called in the event loop and must neither block nor raise; many changes may come with one call.
        """
        self._callbacks.append(callback)

    async def run(self) -> None:
        """List and watch until cancelled. Errors of the datastore are logged and retried with back-off."""
        backoff = Backoff(_MIN_WAIT, _MAX_WAIT)
        while True:
            try:
                version = await self._relist()
                backoff.reset()
                await self._follow(version)
            except GoneError:
                log.info("Watch of %s is too old: listing again", self._plural)
            except DatastoreError as error:
                wait = backoff.next()
                log.warning("Cannot follow %s, listing again in %.1f s: %s", self._plural, wait, error)
                await asyncio.sleep(wait)

    @property
    def _plural(self) -> str:
        return self._kind.resource_type.plural

    async def _relist(self) -> str:
        listing = await self._datastore.list(self._kind, self._namespace, self._field_selector)
        items = {(item.metadata.namespace, item.metadata.name): item for item in listing.items}
        changed = items != self.items or not self.synced.is_set()
        self.items = items
        self.synced.set()
        if changed:
            self._notify()
        return listing.resource_version

    async def _follow(self, version: str) -> None:
        stream = self._datastore.watch(self._kind, version, self._namespace, self._field_selector)
        async with contextlib.aclosing(stream):
            async for event in stream:
                self._apply(event)
                self._notify()

    def _apply(self, event: Event[R]) -> None:
        key = (event.object.metadata.namespace, event.object.metadata.name)
        if event.type == "deleted":
            self.items.pop(key, None)
        else:
            self.items[key] = event.object

    def _notify(self) -> None:
        for callback in self._callbacks:
            callback()
