"""Turns of one key follow each other, those of different keys do not wait, and nothing is kept."""

import asyncio

import pytest

from tortie.ipam.turns import Turns


async def test_one_key_is_served_in_the_order_of_arrival_and_others_at_the_same_time() -> None:
    turns, seen = Turns(), list[str]()
    both_inside = asyncio.Barrier(2)

    async def use(key: str, name: str, *, meet: bool = False) -> None:
        async with turns.of(key):
            seen.append(f"+{name}")
            if meet:
                await both_inside.wait()
            await asyncio.sleep(0)
            seen.append(f"-{name}")

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(use("a", "1", meet=True))
        group.create_task(use("a", "2"))
        group.create_task(use("a", "3"))
        group.create_task(use("b", "other", meet=True))
    assert [item for item in seen if "other" not in item] == ["+1", "-1", "+2", "-2", "+3", "-3"]


async def test_a_turn_that_fails_or_is_given_up_lets_the_next_one_in() -> None:
    turns = Turns()

    async def fail() -> None:
        async with turns.of("a"):
            await asyncio.sleep(0)
            raise ValueError("on purpose")

    first = asyncio.create_task(fail())
    second = asyncio.create_task(fail())
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(ValueError, match="on purpose"):
        await first
    with pytest.raises(asyncio.CancelledError):
        await second
    async with asyncio.timeout(10), turns.of("a"):
        assert list(turns._turns) == ["a"]
    assert not turns._turns
