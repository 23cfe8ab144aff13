"""Waiting for several things and judging each; blocking calls beside the event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


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
    async with asyncio.TaskGroup() as group:
        one, other = group.create_task(outcome(first)), group.create_task(outcome(second))
    return value(one.result()), value(other.result())


async def in_thread(executor: Executor, call: Callable[[], T]) -> T:
    """Run a blocking call; when cancelled, wait until it is over, so that what it uses may be closed."""
    future = asyncio.get_running_loop().run_in_executor(executor, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
