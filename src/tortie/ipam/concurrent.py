"""Several calls at once, judged together."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TypeVar

T = TypeVar("T")


async def all_of(calls: Iterable[Coroutine[object, object, T]]) -> list[T]:
    """The results, in order, when all have ended. Raise the first error, whose call came first.

    One call's error lets the others end by themselves: what they do to the datastore is then known.
    """
    listed = list(calls)
    if len(listed) == 1:
        return [await listed[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_outcome(call)) for call in listed]
    except BaseExceptionGroup as errors:  # none that is an Exception: the process is about to end
        raise errors.exceptions[0] from errors
    results: list[T] = []
    for task in tasks:
        outcome = task.result()
        if isinstance(outcome, _Failure):
            raise outcome.error
        results.append(outcome)
    return results


class _Failure:
    def __init__(self, error: Exception) -> None:
        self.error = error


async def _outcome(call: Coroutine[object, object, T]) -> T | _Failure:
    try:
        return await call
    except Exception as error:
        return _Failure(error)
