import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from tortie.datastore.informer import Informer
from tortie.datastore.memory import Call, Fault, MemoryDatastore
from tortie.model.resources import IPPool, IPPoolSpec, Metadata, Pod, PodSpec


def pool(name: str, cidr: str = "10.5.0.0/16") -> IPPool:
    return IPPool(metadata=Metadata(name=name), spec=IPPoolSpec(cidr=cidr))


@contextlib.asynccontextmanager
async def started(informer: Informer[IPPool] | Informer[Pod]) -> AsyncIterator[None]:
    task = asyncio.create_task(informer.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(informer: Informer[IPPool] | Informer[Pod], condition: Callable[[], bool]) -> None:
    changed = asyncio.Event()
    informer.on_change(changed.set)
    async with asyncio.timeout(30):
        while not condition():
            await changed.wait()
            changed.clear()


async def test_items_follow_the_datastore() -> None:
    store = MemoryDatastore()
    await store.create(pool("a"))
    informer = Informer(store, IPPool)
    assert not informer.synced.is_set()
    async with started(informer):
        await informer.synced.wait()
        assert set(informer.items) == {("", "a")}
        await store.create(pool("b"))
        await until(informer, lambda: ("", "b") in informer.items)
        await store.patch(IPPool, "a", {"spec": {"disabled": True}})
        await until(informer, lambda: informer.items["", "a"].spec.disabled)
        await store.delete(pool("a"))
        await until(informer, lambda: set(informer.items) == {("", "b")})


async def test_first_sync_and_each_change_are_announced() -> None:
    store = MemoryDatastore()
    changed = asyncio.Event()
    informer = Informer(store, IPPool)
    informer.on_change(changed.set)
    async with started(informer):
        await asyncio.wait_for(changed.wait(), 30)
        assert informer.synced.is_set()
        changed.clear()
        await store.create(pool("a"))
        await asyncio.wait_for(changed.wait(), 30)
        assert ("", "a") in informer.items


async def test_too_old_watch_lists_again_and_notices_what_it_missed() -> None:
    store = MemoryDatastore()
    await store.create(pool("a"))
    informer = Informer(store, IPPool)
    async with started(informer):
        await informer.synced.wait()
        store.put(pool("b"))  # put and compact: no await, so that the watch does not see the change
        store.put(pool("a", "10.6.0.0/16"))
        store.compact()
        await until(informer, lambda: ("", "b") in informer.items)
        assert informer.items["", "a"].spec.cidr == "10.6.0.0/16"


async def test_items_are_kept_while_the_datastore_is_away() -> None:
    store = MemoryDatastore()
    await store.create(pool("a"))
    informer = Informer(store, IPPool)
    async with started(informer):
        await informer.synced.wait()
        refused = asyncio.Event()

        def away(call: Call) -> Fault | None:
            store.inject = None
            refused.set()
            return Fault.UNAVAILABLE if call.verb == "list" else None

        store.inject = away
        store.put(pool("b"))
        store.compact()
        await asyncio.wait_for(refused.wait(), 30)
        assert set(informer.items) == {("", "a")}
        assert informer.synced.is_set()
        await until(informer, lambda: ("", "b") in informer.items)


async def test_namespace_and_field_selector_choose_what_is_kept() -> None:
    store = MemoryDatastore()
    for namespace, node in (("x", "n1"), ("x", "n2"), ("y", "n1")):
        await store.create(
            Pod(metadata=Metadata(name=f"p-{node}", namespace=namespace), spec=PodSpec(node_name=node))
        )
    informer = Informer(store, Pod, "x", "spec.nodeName=n1")
    async with started(informer):
        await informer.synced.wait()
        assert set(informer.items) == {("x", "p-n1")}
        await store.patch(Pod, "p-n1", {"spec": {"nodeName": "n3"}}, "x")
        await until(informer, lambda: informer.items == {})


async def test_cancelling_ends_the_informer() -> None:
    informer = Informer(MemoryDatastore(), IPPool)
    task = asyncio.create_task(informer.run())
    await informer.synced.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
