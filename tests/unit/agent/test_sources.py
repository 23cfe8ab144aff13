"""Kinds that are served, late, in another version or not at all."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from tortie.agent.sources import Source
from tortie.datastore.interface import Listing, NotFoundError, UnavailableError
from tortie.datastore.memory import MemoryDatastore
from tortie.model.policy_natives import EndpointSlice, EndpointSliceV1Beta1
from tortie.model.resources import Metadata, Node


class OldServer(MemoryDatastore):
    """Does not serve some kinds; fails `failures` times before it answers."""

    def __init__(self, *absent: type[Any], failures: int = 0) -> None:
        super().__init__()
        self.absent = set(absent)
        self.failures = failures

    async def list(self, kind: type[Any], namespace: str = "", field_selector: str = "") -> Listing[Any]:
        if self.failures:
            self.failures -= 1
            raise UnavailableError("away for a moment")
        if kind in self.absent:
            raise NotFoundError(f"no such path for {kind.__name__}")
        listing = await super().list(kind, namespace)
        items = [item for item in listing.items if not field_selector]
        return Listing(items, listing.resource_version)

    def watch(
        self, kind: type[Any], resource_version: str, namespace: str = "", field_selector: str = ""
    ) -> AsyncGenerator[Any, None]:
        return super().watch(kind, resource_version, namespace)


async def settled(source: Source[Any]) -> None:
    async with asyncio.timeout(30):
        await source.settled.wait()


async def test_older_version_is_followed_where_the_newer_is_not_served() -> None:
    store = OldServer(EndpointSlice)
    await store.create(EndpointSliceV1Beta1(metadata=Metadata(name="web-1", namespace="shop")))
    source = Source(store, EndpointSlice, EndpointSliceV1Beta1)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(source.run())
        await settled(source)
        assert list(source.items) == [("shop", "web-1")]
        task.cancel()


async def test_kind_that_is_not_served_settles_without_objects_and_is_found_when_it_appears() -> None:
    store = OldServer(Node)
    await store.create(Node(metadata=Metadata(name="n1")))
    source = Source(store, Node, ask_again=0.01)
    changed = asyncio.Event()
    source.on_change(changed.set)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(source.run())
        await settled(source)
        assert source.items == {}
        assert changed.is_set()
        changed.clear()
        store.absent.clear()
        async with asyncio.timeout(30):
            await changed.wait()
        assert list(source.items) == [("", "n1")]
        task.cancel()


async def test_server_that_is_away_does_not_count_as_a_server_without_the_kind() -> None:
    store = OldServer(failures=2)
    await store.create(Node(metadata=Metadata(name="n1")))
    source = Source(store, Node)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(source.run())
        await settled(source)
        assert list(source.items) == [("", "n1")]
        task.cancel()


async def test_reader_is_told_of_what_changed_since_it_last_asked() -> None:
    store = MemoryDatastore()
    for name in ("one", "two", "three"):
        await store.create(Node(metadata=Metadata(name=name)))
    source = Source(store, Node)
    changed = asyncio.Event()
    source.on_change(changed.set)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(source.run())
        await settled(source)
        first = source.take(everything=False)
        assert (first.complete, sorted(first.items)) == (True, [("", "one"), ("", "three"), ("", "two")])
        assert source.take(everything=False).items == {}
        changed.clear()
        await store.delete(await store.get(Node, "one"))
        await store.create(Node(metadata=Metadata(name="four")))
        async with asyncio.timeout(30):
            while ("", "four") not in source.items:
                await changed.wait()
                changed.clear()
        later = source.take(everything=False)
        assert not later.complete
        assert later.items == {("", "one"): None, ("", "four"): source.items["", "four"]}
        again = source.take(everything=True)
        assert (again.complete, len(again.items)) == (True, 3)
        task.cancel()


async def test_reader_gets_everything_after_the_kind_was_listed_again() -> None:
    store = MemoryDatastore()
    await store.create(Node(metadata=Metadata(name="one")))
    source = Source(store, Node)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(source.run())
        await settled(source)
        source.take(everything=False)
        changed = asyncio.Event()
        source.on_change(changed.set)
        store.put(Node(metadata=Metadata(name="two")))
        store.compact()  # before the watch saw it: too old now
        async with asyncio.timeout(30):
            await changed.wait()
        taken = source.take(everything=False)
        assert (taken.complete, sorted(taken.items)) == (True, [("", "one"), ("", "two")])
        task.cancel()
