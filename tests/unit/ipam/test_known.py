"""Edits of one block are written together, and never over somebody else's write."""

import asyncio
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest

from tortie.datastore.interface import ConflictError, UnavailableError
from tortie.datastore.memory import Call, Fault, MemoryDatastore
from tortie.ipam import block as blocks
from tortie.ipam.block import BlockError
from tortie.ipam.known import Edit, KnownBlock, KnownBlocks
from tortie.ipam.request import Address
from tortie.model.resources import IPAMBlock

CIDR = ip_network("10.5.0.0/28")


async def a_block(store: MemoryDatastore) -> IPAMBlock:
    return await store.create(blocks.new_block(CIDR, "n1", datetime(2030, 1, 1, tzinfo=UTC), 100))


def give(handle: str) -> Edit[list[Address]]:
    return lambda block: blocks.assign(block, 1, handle, {})


async def test_edits_that_wait_are_written_in_the_order_they_came() -> None:
    store = MemoryDatastore()
    known = KnownBlock(store, await a_block(store))
    given = await asyncio.gather(*(known.edit(give(f"h{n}")) for n in range(5)))
    assert [str(address) for (address,) in given] == [f"10.5.0.{n}" for n in range(5)]
    assert known.writes <= 2
    assert (await store.list(IPAMBlock)).items == [known.block]


async def test_all_edits_are_refused_once_somebody_else_wrote_the_block() -> None:
    store = MemoryDatastore()
    known = KnownBlock(store, await a_block(store))
    store.put(blocks.touch(known.block))
    results = await asyncio.gather(*(known.edit(give(f"h{n}")) for n in range(4)), return_exceptions=True)
    assert {type(result) for result in results} == {ConflictError}
    with pytest.raises(ConflictError):
        await known.edit(give("late"))
    (stored,) = (await store.list(IPAMBlock)).items
    assert blocks.is_empty(stored)


async def test_edit_that_came_before_a_fence_is_refused_after_it() -> None:
    """It was declared when its handle still existed; by the time of the fence the handle may be gone."""
    store = MemoryDatastore()
    known = KnownBlocks(store)
    first = known.adopt(await a_block(store))
    store.put(blocks.touch(first.block))
    known.own.add(CIDR)
    with pytest.raises(ConflictError):
        await first.edit(give("h1"))
    anew = await known.read(CIDR)
    assert anew is not None
    assert anew is not first
    with pytest.raises(ConflictError):
        await first.edit(give("h2"))
    assert [str(item) for item in await anew.edit(give("h3"))] == ["10.5.0.0"]


async def test_edit_that_cannot_be_made_fails_alone() -> None:
    store = MemoryDatastore()
    known = KnownBlock(store, await a_block(store))

    def refuse(_block: IPAMBlock) -> tuple[IPAMBlock, None]:
        raise BlockError("no")

    results = await asyncio.gather(known.edit(give("h1")), known.edit(refuse), known.edit(give("h2")),
                                   return_exceptions=True)  # fmt: skip
    assert isinstance(results[1], BlockError)
    assert [handle.handle_id for handle in blocks.holders(known.block).values()] == ["h1", "h2"]
    writes = known.writes
    with pytest.raises(BlockError):
        await known.edit(refuse)
    assert known.writes == writes


async def test_cancelled_edit_that_waits_is_not_written() -> None:
    store = MemoryDatastore()
    known = KnownBlock(store, await a_block(store))
    first = asyncio.create_task(known.edit(give("h1")))
    await asyncio.sleep(0)
    second = asyncio.create_task(known.edit(give("h2")))
    await asyncio.sleep(0)
    second.cancel()
    await first
    assert [item.handle_id for item in blocks.holders(known.block).values()] == ["h1"]
    assert not known.busy


async def test_write_whose_answer_is_lost_breaks_the_line() -> None:
    store = MemoryDatastore()
    known = KnownBlocks(store)
    block = known.adopt(await a_block(store))
    known.own.add(CIDR)

    def lose(call: Call) -> Fault | None:
        return Fault.LOST_RESPONSE if call.verb == "update" else None

    store.inject = lose
    with pytest.raises(UnavailableError):
        await block.edit(give("h1"))
    store.inject = None
    anew = await known.read(CIDR)
    assert anew is not None
    assert blocks.addresses_of(anew.block, "h1")


async def test_older_copy_does_not_replace_what_is_known() -> None:
    store = MemoryDatastore()
    known = KnownBlocks(store)
    old = await a_block(store)
    block = known.adopt(old)
    await block.edit(give("h1"))
    assert known.adopt(old) is block
    newer = blocks.touch(block.block)
    assert known.adopt(newer) is not block
    assert block.broken


async def test_write_waits_for_an_assign_that_is_on_its_way() -> None:
    store = MemoryDatastore()
    known = KnownBlock(store, await a_block(store))
    known.promise()
    known.promise()
    first = asyncio.create_task(known.edit(give("h1")))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not first.done()
    await asyncio.gather(first, known.edit(give("h2")))
    assert known.writes == 1


@pytest.mark.parametrize("given_up", [False, True])
async def test_write_does_not_wait_for_an_assign_that_is_given_up_or_never_comes(given_up: bool) -> None:
    store = MemoryDatastore()
    known = KnownBlock(store, await a_block(store))
    known.promise()
    known.promise()
    first = asyncio.create_task(known.edit(give("h1")))
    await asyncio.sleep(0)
    if given_up:
        known.keep()
    async with asyncio.timeout(10):
        await first
    assert known.writes == 1
