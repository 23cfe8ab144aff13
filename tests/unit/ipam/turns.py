"""Several actors on one datastore, whose calls happen in an order that a test chooses."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from tortie.datastore.interface import Event, Listing
from tortie.datastore.memory import MemoryDatastore
from tortie.model.resources import Resource

R = TypeVar("R", bound=Resource)
T = TypeVar("T")


# Rounds of the event loop within which a call that may happen has happened, and the next one waits.
_ROUNDS: Final = 12
_MOST_CALLS: Final = 2000


class Actor:
    """A datastore as one actor sees it: each call waits for its turn. An actor may make several at once."""

    def __init__(self, store: MemoryDatastore) -> None:
        self._store = store
        self._turns: list[asyncio.Event] = []

    async def _wait(self) -> None:
        turn = asyncio.Event()
        self._turns.append(turn)
        await turn.wait()

    async def step(self) -> bool:
        """Let the call that has waited for longest happen, if there is one."""
        if self._turns:
            self._turns.pop(0).set()
            await settle()
            return True
        return False

    async def get(self, kind: type[R], name: str, namespace: str = "") -> R:
        await self._wait()
        return await self._store.get(kind, name, namespace)

    async def list(self, kind: type[R], namespace: str = "", field_selector: str = "") -> Listing[R]:
        await self._wait()
        return await self._store.list(kind, namespace, field_selector)

    async def create(self, resource: R) -> R:
        await self._wait()
        return await self._store.create(resource)

    async def update(self, resource: R) -> R:
        await self._wait()
        return await self._store.update(resource)

    async def delete(self, resource: Resource) -> None:
        await self._wait()
        await self._store.delete(resource)

    async def patch(
        self, kind: type[R], name: str, patch: dict[str, Any], namespace: str = "", subresource: str = ""
    ) -> R:
        await self._wait()
        return await self._store.patch(kind, name, patch, namespace, subresource)

    def watch(
        self, kind: type[R], resource_version: str, namespace: str = "", field_selector: str = ""
    ) -> AsyncGenerator[Event[R], None]:
        return self._store.watch(kind, resource_version, namespace, field_selector)

    async def close(self) -> None:
        """Nothing is held."""


async def settle() -> None:
    """Let everything happen that needs no turn."""
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)


Act = Callable[[Actor], Coroutine[Any, Any, object]]


async def play(
    store: MemoryDatastore,
    acts: Sequence[Act],
    order: Sequence[int],
    check: Callable[[], Coroutine[Any, Any, None]],
) -> list[object]:
    """Run the acts; each entry of `order` says whose next call happens (one that has ended is passed over),
    then they take turns. `check` is called after each. Return results and errors."""
    actors = [Actor(store) for _ in acts]
    tasks = [asyncio.create_task(act(actor)) for act, actor in zip(acts, actors, strict=True)]
    await settle()
    for chosen in itertools.chain(order, itertools.islice(itertools.cycle(range(len(acts))), _MOST_CALLS)):
        if all(task.done() for task in tasks):
            break
        if await actors[chosen].step():
            await check()
        else:
            await settle()
    assert all(task.done() for task in tasks), "somebody still waits"
    return await asyncio.gather(*tasks, return_exceptions=True)
