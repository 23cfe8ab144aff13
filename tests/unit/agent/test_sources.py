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
