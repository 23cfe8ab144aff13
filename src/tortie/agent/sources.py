"""Kinds that policy reads, kept in memory; the API server need not serve all of them."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from tortie.datastore.backoff import Backoff
from tortie.datastore.informer import Informer, Key
from tortie.datastore.interface import Datastore, DatastoreError, Event, NotFoundError
from tortie.model.resources import Resource

R = TypeVar("R", bound=Resource)

ASK_AGAIN: Final = 60.0  # seconds until a kind that was not served is asked for again
_MIN_WAIT: Final = 0.2  # seconds before the first new attempt after an error; doubled up to _MAX_WAIT
_MAX_WAIT: Final = 30.0
# Matches no object: only whether the kind is served is of interest.
_NOTHING: Final = "metadata.name=tortie-asks-whether-this-kind-is-served"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Changes(Generic[R]):
    """What changed of a kind, None for what is gone; `complete`: these are all objects that there are."""

    kind: type[R]
    items: Mapping[Key, R | None]
    complete: bool


class _Noting(Informer[R]):
    """Notes which objects its watch changed: there may be many more."""

    def __init__(self, datastore: Datastore, kind: type[R]) -> None:
        super().__init__(datastore, kind)
        self.noted: set[Key] = set()

    def _apply(self, event: Event[R]) -> None:
        super()._apply(event)
        self.noted.add((event.object.metadata.namespace, event.object.metadata.name))


class Source(Generic[R]):
    """All objects of a kind, or of the first of several versions of it that the API server serves.

    `settled` is set once it is known what there is: after the first complete list, or when the server said
    that it serves none of the versions, for then there is no object.
    """

    def __init__(self, datastore: Datastore, *kinds: type[R], ask_again: float = ASK_AGAIN) -> None:
        self.settled = asyncio.Event()
        self._datastore = datastore
        self._kinds = kinds
        self._kind = kinds[0]
        self._ask_again = ask_again
        self._informer: _Noting[R] | None = None
        self._taken: Mapping[Key, R] | None = None  # the informer's objects, when they were last taken
        self._callbacks: list[Callable[[], None]] = []

    @property
    def name(self) -> str:
        """The kind, as people call it."""
        kind = self._kinds[0].resource_type
        return f"{kind.kind}.{kind.api_version}"

    @property
    def kind(self) -> type[R]:
        """The version that is followed; the newest while none is."""
        return self._kind

    @property
    def items(self) -> Mapping[Key, R]:
        """The latest known state."""
        return self._informer.items if self._informer else {}

    def take(self, *, everything: bool) -> Changes[R]:
        """What changed since the last call; all there is when `everything` is wanted, or after another list.
        For one reader, which may keep the answer while the watch goes on."""
        informer = self._informer
        if informer is None:
            return Changes(self._kind, {}, complete=True)
        keys, informer.noted = informer.noted, set()
        if everything or informer.items is not self._taken:  # a list brings a mapping of its own
            self._taken = informer.items
            return Changes(self._kind, dict(informer.items), complete=True)
        return Changes(self._kind, {key: informer.items.get(key) for key in keys}, complete=False)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` when `settled` is set and after each change; it must neither block nor raise."""
        self._callbacks.append(callback)

    async def run(self) -> None:
        """Follow the kind until cancelled."""
        while True:
            kind = await self._served()
            if kind is not None:
                self._kind = kind
                self._informer = _Noting(self._datastore, kind)
                self._informer.on_change(self._notify)
                await self._informer.run()
            if not self.settled.is_set():
                log.info("The API server does not serve %s: there is none", self.name)
                self._notify()
            await asyncio.sleep(self._ask_again)

    async def _served(self) -> type[R] | None:
        """The first version that the API server serves. Errors are logged and retried with back-off."""
        backoff = Backoff(_MIN_WAIT, _MAX_WAIT)
        while True:
            try:
                for kind in self._kinds:
                    if await self._is_served(kind):
                        return kind
            except DatastoreError as error:
                wait = backoff.next()
                log.warning("Cannot ask for %s, trying again in %.1f s: %s", self.name, wait, error)
                await asyncio.sleep(wait)
            else:
                return None

    async def _is_served(self, kind: type[R]) -> bool:
        try:
            await self._datastore.list(kind, field_selector=_NOTHING)
        except NotFoundError:
            return False
        return True

    def _notify(self) -> None:
        self.settled.set()
        for callback in self._callbacks:
            callback()
