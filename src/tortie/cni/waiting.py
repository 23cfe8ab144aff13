"""Waiting for several things and judging each; blocking calls beside the event loop."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

# Blocking calls that a thread makes in one go: to hand over each by itself costs as much as a short one.
AT_ONCE: Final = 8

T = TypeVar("T")
U = TypeVar("U")
_Errand = tuple[Callable[[], Any], asyncio.Future[Any]]


async def outcome(call: Awaitable[T]) -> T | Exception:
    """The result of an awaitable, or the Exception that it raised."""
    try:
        return await call
    except Exception as error:
        return error


def value(result: T | Exception) -> T:
    """The result in an outcome; raise what it raised."""
    if isinstance(result, Exception):
        raise result
    return result


async def all_done(*calls: Awaitable[object]) -> None:
    """Wait until every call is over, also when cancelled; raise what the first of them raised."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(call)) for call in calls]
    for task in tasks:
        value(task.result())


async def both(first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """The results of two calls at the same time; see `all_done` for what is raised."""
    other = asyncio.create_task(outcome(second))
    try:
        one = await outcome(first)
    except BaseException:
        other.cancel()
        while not other.done():
            with suppress(asyncio.CancelledError):  # who is cancelled once more waits on
                await asyncio.wait([other])
        raise
    two = await other
    return value(one), value(two)


async def in_thread(executor: Executor, call: Callable[[], T]) -> T:
    """Run a blocking call; when cancelled, wait until it is over, so that what it uses may be closed."""
    future = asyncio.get_running_loop().run_in_executor(executor, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


class Errands:
    """Blocking calls for one thread, which makes them in the order in which they came."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._waiting: deque[_Errand] = deque()
        self._busy = self._closing = False

    async def run(self, call: Callable[[], T]) -> T:
        """The call's result; when cancelled, wait until it is over, so that what it uses may be closed."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        if not self._busy:
            self._start()
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def close(self) -> None:
        """Let the thread end when everything is done."""
        self._closing = True
        if not self._busy:
            self._thread.shutdown(wait=False)

    def _start(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
        self._busy = True
        under_way = asyncio.get_running_loop().run_in_executor(
            self._thread, _results, [call for call, _ in batch]
        )
        under_way.add_done_callback(lambda done: self._answer(batch, done))

    def _answer(self, batch: list[_Errand], done: asyncio.Future[list[Any]]) -> None:
        self._busy = False
        if self._waiting:
            self._start()
        elif self._closing:
            self._thread.shutdown(wait=False)
        if done.cancelled() or done.exception() is not None:  # the process is about to end
            for _, future in batch:
                future.cancel()
            return
        for (_, future), result in zip(batch, done.result(), strict=True):
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


def _results(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each call returns, or the Exception that it raises."""
    results: list[Any] = []
    for call in calls:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)
    return results
