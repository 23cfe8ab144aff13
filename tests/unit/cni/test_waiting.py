"""Blocking calls beside the event loop, and two calls at the same time: what comes back, and when."""

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial

import pytest

from tortie.cni.waiting import AT_ONCE, Errands, both


@pytest.fixture
async def errands() -> AsyncIterator[Errands]:
    """A thread that ends with the test."""
    made = Errands("test")
    yield made
    made.close()


async def test_errands_are_done_in_order_by_one_thread_and_each_gets_its_own_result(errands: Errands) -> None:
    seen: list[tuple[int, int]] = []

    def call(number: int) -> int:
        seen.append((number, threading.get_ident()))
        if number % 3 == 0:
            raise ValueError(str(number))
        return number

    count = 5 * AT_ONCE + 1
    results = await asyncio.gather(
        *(errands.run(partial(call, number)) for number in range(count)), return_exceptions=True
    )
    assert [number for number, _ in seen] == list(range(count))
    assert len({thread for _, thread in seen}) == 1
    assert [str(result) for result in results] == [str(number) for number in range(count)]
    failed = [number for number, result in enumerate(results) if isinstance(result, ValueError)]
    assert failed == list(range(0, count, 3))
    assert await errands.run(lambda: "later") == "later"


async def test_who_gives_up_an_errand_returns_when_it_is_over_and_the_next_is_done(errands: Errands) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        go_on.wait(10)
        ended.set()

    task = asyncio.create_task(errands.run(call))
    waiting = asyncio.create_task(errands.run(ended.is_set))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert await waiting


async def test_both_wait_for_each_other_and_the_first_error_is_raised() -> None:
    over: list[str] = []

    async def call(name: str, seconds: float, error: Exception | None = None) -> str:
        await asyncio.sleep(seconds)
        over.append(name)
        if error is not None:
            raise error
        return name

    assert await both(call("a", 0.02), call("b", 0)) == ("a", "b")
    with pytest.raises(ValueError, match="first"):
        await both(call("c", 0, ValueError("first")), call("d", 0.02))
    with pytest.raises(ValueError, match="first"):
        await both(call("e", 0.02, ValueError("first")), call("f", 0, KeyError("second")))
    with pytest.raises(KeyError, match="second"):
        await both(call("g", 0), call("h", 0.02, KeyError("second")))
    assert sorted(over) == list("abcdefgh")


@pytest.mark.parametrize("first_is_over", [True, False])
async def test_who_gives_up_both_returns_when_both_have_ended(first_is_over: bool) -> None:
    over: list[str] = []

    async def call(name: str, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            raise
        finally:
            over.append(name)

    task = asyncio.create_task(both(call("a", 0 if first_is_over else 10), call("b", 10)))
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(over) == ["a", "b"]
