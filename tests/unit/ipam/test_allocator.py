import asyncio
import contextlib
from ipaddress import IPv4Address

import msgspec
import pytest

from tests.components import ipam_audit as audit
from tortie.datastore.interface import NotFoundError, UnavailableError
from tortie.datastore.memory import Call, CrashError, Fault, MemoryDatastore
from tortie.ipam import block as blocks
from tortie.ipam.allocator import Allocator
from tortie.ipam.errors import NoAddressError
from tortie.model.names import affinity_name
from tortie.model.resources import (
    BlockAffinity,
    BlockAffinitySpec,
    IPAMBlock,
    IPAMConfig,
    IPAMConfigSpec,
    IPAMHandle,
    IPPool,
    Metadata,
    Node,
)


async def store_with(cidr: str = "10.5.0.0/26", block_size: int = 28) -> MemoryDatastore:
    store = MemoryDatastore()
    await store.create(audit.pool(cidr, block_size))
    return store


def allocator(store: MemoryDatastore, node: str = "n1") -> Allocator:
    return Allocator(store, node, rng=audit.Eager(1))


async def test_first_address_claims_a_block_for_the_node() -> None:
    store = await store_with()
    address = await audit.assign(allocator(store), "net.c1", {"node": "n1", "pod": "web"})
    (affinity,) = (await store.list(BlockAffinity)).items
    assert affinity.spec.state == "confirmed"
    assert affinity.spec.node == "n1"
    assert affinity.metadata.name == affinity_name("n1", affinity.spec.cidr)
    assert affinity.metadata.labels["projectcalico.org/affinity-type"] == "host"
    (block,) = (await store.list(IPAMBlock)).items
    assert block.spec.affinity == "host:n1"
    assert blocks.holders(block)[address].secondary == {"node": "n1", "pod": "web"}
    (handle,) = (await store.list(IPAMHandle)).items
    assert handle.spec.handle_id == "net.c1"
    assert handle.spec.block == {block.spec.cidr: 1}


async def test_handle_that_holds_an_address_gets_the_same_again() -> None:
    store = await store_with()
    first = await audit.assign(allocator(store), "net.c1")
    assert await audit.assign(allocator(store), "net.c1") == first
    assert len(await audit.holders(store)) == 1


async def test_addresses_of_one_node_come_from_its_block_until_that_is_full() -> None:
    store = await store_with()
    one = allocator(store)
    addresses = [await audit.assign(one, f"net.{n}") for n in range(17)]
    assert len(set(addresses)) == 17
    assert len((await store.list(IPAMBlock)).items) == 2
    await audit.check(store)


async def test_concurrent_requests_of_one_node_get_different_addresses() -> None:
    store = await store_with()
    one = allocator(store)
    wanted = [audit.assign(one, f"net.{n}") for n in range(16)]
    assert len(set(await asyncio.gather(*wanted))) == 16
    assert len((await store.list(IPAMBlock)).items) == 1


async def test_nodes_claim_different_blocks() -> None:
    store = await store_with()
    nodes = [allocator(store, f"n{number}") for number in range(4)]
    await asyncio.gather(*(audit.assign(node, f"net.{n}") for n, node in enumerate(nodes)))
    owners = {block.spec.affinity for block in (await store.list(IPAMBlock)).items}
    assert owners == {"host:n0", "host:n1", "host:n2", "host:n3"}
    await audit.check(store)


async def test_release_frees_the_address_and_forgets_the_handle() -> None:
    store = await store_with()
    one = allocator(store)
    address = await audit.assign(one, "net.c1")
    assert await one.release_handle("net.c1") == [address]
    assert await audit.holders(store) == {}
    assert (await store.list(IPAMHandle)).items == []


async def test_release_of_an_unknown_handle_does_nothing() -> None:
    store = await store_with()
    assert await allocator(store).release_handle("net.unknown") == []
    assert (await store.list(IPAMBlock)).items == []


async def test_full_pool_is_refused_with_pools_and_remedy_and_leaves_nothing() -> None:
    store = await store_with("10.5.0.0/30", 30)
    one = allocator(store)
    for n in range(4):
        await audit.assign(one, f"net.{n}")
    with pytest.raises(NoAddressError, match=r"default \(10\.5\.0\.0/30, blocks of /30\).*Add an IPPool"):
        await audit.assign(one, "net.more")
    assert len((await store.list(IPAMHandle)).items) == 4


async def test_no_pool_at_all_is_refused_with_the_reason() -> None:
    store = MemoryDatastore()
    manual = audit.pool("10.5.0.0/26", 28, "byhand")
    manual.spec.assignment_mode = "Manual"
    await store.create(manual)
    with pytest.raises(NoAddressError, match=r"may serve it: none; .*byhand gives addresses only on request"):
        await audit.assign(allocator(store), "net.c1")


async def test_address_is_borrowed_when_no_block_is_left() -> None:
    store = await store_with("10.5.0.0/30", 30)
    first, second = allocator(store, "n1"), allocator(store, "n2")
    await audit.assign(first, "net.1")
    borrowed = await audit.assign(second, "net.2")
    assert borrowed in blocks.holders((await store.list(IPAMBlock)).items[0])
    assert await second.release_handle("net.2") == [borrowed]
    await audit.check(store)


async def test_allocator_without_borrowing_says_so_when_no_block_is_left() -> None:
    store = await store_with("10.5.0.0/30", 30)
    await audit.assign(allocator(store, "n1"), "net.1")
    second = Allocator(store, "n2", rng=audit.Eager(2), borrowing=False)
    with pytest.raises(NoAddressError, match="not borrowed from other nodes"):
        await audit.assign(second, "net.2")
    await audit.check(store)


async def test_strict_affinity_forbids_borrowing() -> None:
    store = await store_with("10.5.0.0/30", 30)
    config = IPAMConfigSpec(strict_affinity=True)
    await store.create(IPAMConfig(metadata=Metadata(name="default"), spec=config))
    await audit.assign(allocator(store, "n1"), "net.1")
    with pytest.raises(NoAddressError, match="strictAffinity"):
        await audit.assign(allocator(store, "n2"), "net.2")


async def test_node_claims_no_more_blocks_than_allowed() -> None:
    store = await store_with("10.5.0.0/26", 30)
    config = IPAMConfigSpec(strict_affinity=True, max_blocks_per_host=2)
    await store.create(IPAMConfig(metadata=Metadata(name="default"), spec=config))
    one = allocator(store)
    for n in range(8):
        await audit.assign(one, f"net.{n}")
    with pytest.raises(NoAddressError, match="the limit is 2"):
        await audit.assign(one, "net.8")


async def test_node_claims_no_block_when_that_is_switched_off() -> None:
    store = await store_with()
    config = IPAMConfigSpec(strict_affinity=True, auto_allocate_blocks=False)
    await store.create(IPAMConfig(metadata=Metadata(name="default"), spec=config))
    with pytest.raises(NoAddressError, match="autoAllocateBlocks is false"):
        await audit.assign(allocator(store), "net.1")
    assert (await store.list(BlockAffinity)).items == []


async def test_pool_is_chosen_by_the_nodes_labels() -> None:
    store = MemoryDatastore()
    for zone, cidr in (("a", "10.5.0.0/26"), ("b", "10.6.0.0/26")):
        selecting = audit.pool(cidr, 28, f"pool-{zone}")
        selecting.spec.node_selector = f"zone == '{zone}'"
        await store.create(selecting)
    await store.create(Node(metadata=Metadata(name="n1", labels={"zone": "b"})))
    address = await audit.assign(allocator(store), "net.1")
    assert str(address).startswith("10.6.0.")


async def test_pool_asked_for_is_used_even_if_it_does_not_select_the_node() -> None:
    store = await store_with()
    other = audit.pool("10.6.0.0/26", 28, "other")
    other.spec.node_selector = "has(nothing)"
    await store.create(other)
    address = await audit.assign(allocator(store), "net.1", pools=["other"])
    assert str(address).startswith("10.6.0.")


async def test_block_of_another_size_is_not_overlapped() -> None:
    store = await store_with("10.5.0.0/28", 28)
    await audit.assign(allocator(store, "n1"), "net.1")
    await store.delete((await store.list(type(audit.pool("10.5.0.0/28", 30)))).items[0])
    await store.create(audit.pool("10.5.0.0/28", 30))
    await audit.assign(allocator(store, "n2"), "net.2")
    await audit.check(store)


async def test_block_deleted_by_somebody_is_noticed() -> None:
    store = await store_with()
    one = allocator(store)
    await audit.assign(one, "net.1")
    await one.release_handle("net.1")
    (block,) = (await store.list(IPAMBlock)).items
    (affinity,) = (await store.list(BlockAffinity)).items
    await store.delete(block)
    await store.delete(affinity)
    await audit.assign(one, "net.2")
    assert len((await store.list(BlockAffinity)).items) == 1
    await audit.check(store)


async def test_handle_left_by_a_failed_assign_is_used_by_the_next() -> None:
    store = await store_with()
    one = allocator(store)
    await audit.assign(one, "net.0")

    def crash_at_block(call: Call) -> Fault | None:
        return Fault.CRASH_BEFORE if call.verb == "update" and call.kind is IPAMBlock else None

    store.inject = crash_at_block
    with pytest.raises(CrashError):
        await audit.assign(one, "net.1")
    store.inject = None
    assert (await store.get(IPAMHandle, "net.1")).spec.block
    assert len(await audit.holders(store)) == 1
    address = await audit.assign(allocator(store), "net.1")
    assert await allocator(store).release_handle("net.1") == [address]
    with pytest.raises(NotFoundError):
        await store.get(IPAMHandle, "net.1")


async def test_release_refuses_the_late_write_of_an_assign_that_timed_out() -> None:
    store = await store_with()
    one = allocator(store)
    await audit.assign(one, "net.0")

    seen: list[Call] = []

    def time_out_then_die(call: Call) -> Fault | None:
        seen.append(call)
        if call.verb == "update" and call.kind is IPAMBlock:
            return Fault.LATE
        return Fault.CRASH_BEFORE if any(item.kind is IPAMBlock for item in seen) else None

    store.inject, store.late_after = time_out_then_die, 1000
    with pytest.raises(CrashError):
        await audit.assign(one, "net.1")
    store.inject = None
    assert await allocator(store).release_handle("net.1") == []
    store.settle()
    assert set((await audit.holders(store)).values()) == {"net.0"}
    await audit.check(store)


async def test_late_write_is_refused_when_the_next_try_uses_another_pool() -> None:
    store = await store_with()
    await audit.assign(allocator(store), "net.0")

    def block_write_times_out_then_die(call: Call) -> Fault | None:
        if call.verb == "update" and call.kind is IPAMBlock:
            store.inject = lambda _call: Fault.CRASH_BEFORE
            return Fault.LATE
        return None

    store.inject, store.late_after = block_write_times_out_then_die, 1000
    with pytest.raises(CrashError):
        await audit.assign(allocator(store), "net.1")
    store.inject = None
    await store.patch(IPPool, "default", {"spec": {"disabled": True}})
    await store.create(audit.pool("10.6.0.0/26", 28, "second"))
    second = await audit.assign(allocator(store), "net.1")
    assert str(second).startswith("10.6.0.")
    store.settle()
    await audit.check(store)
    assert (await store.get(IPAMHandle, "net.1")).spec.block == {"10.6.0.16/28": 1}
    assert await allocator(store).release_handle("net.1") == [second]


async def test_late_release_takes_nothing_back_once_the_address_was_answered_again() -> None:
    store = await store_with()
    address = await audit.assign(allocator(store), "net.1")

    def block_write_times_out_then_die(call: Call) -> Fault | None:
        if call.verb == "update" and call.kind is IPAMBlock:
            store.inject = lambda _call: Fault.CRASH_BEFORE
            return Fault.LATE
        return None

    store.inject, store.late_after = block_write_times_out_then_die, 1000
    with pytest.raises(CrashError):
        await allocator(store).release_handle("net.1")
    store.inject = None
    assert await audit.assign(allocator(store), "net.1") == address
    store.settle()
    assert await audit.holders(store) == {address: "net.1"}


@pytest.mark.parametrize("late_after", range(1, 12))
async def test_late_write_never_gives_a_handle_two_addresses(late_after: int) -> None:
    store = await store_with()
    one = allocator(store)
    await audit.assign(one, "net.0")

    def first_block_write_is_late(call: Call) -> Fault | None:
        if call.verb == "update" and call.kind is IPAMBlock:
            store.inject = None
            return Fault.LATE
        return None

    store.inject, store.late_after = first_block_write_is_late, late_after
    address = await audit.assign(one, "net.1")
    store.settle()
    held = [key for key, handle in (await audit.holders(store)).items() if handle == "net.1"]
    assert held == [address]


async def test_cancelled_assign_leaves_nothing_after_release() -> None:
    store = await store_with()
    for steps in range(60):
        one = allocator(store)
        task = asyncio.create_task(audit.assign(one, "net.1"))
        for _step in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await audit.check(store)
        await allocator(store).release_handle("net.1")
        assert await audit.holders(store) == {}
        assert (await store.list(IPAMHandle)).items == []


async def test_unavailable_datastore_is_reported_after_a_few_rounds() -> None:
    store = await store_with()
    store.inject = lambda _call: Fault.UNAVAILABLE
    with pytest.raises(UnavailableError, match=r"net\.1 was given up after 4 rounds"):
        await audit.assign(allocator(store), "net.1")


async def test_endless_conflicts_are_given_up() -> None:
    store = await store_with()
    store.inject = lambda call: Fault.CONFLICT if call.verb == "update" else None
    with pytest.raises(UnavailableError, match="was given up after 100 rounds"):
        await audit.assign(allocator(store), "net.1")


async def affinity(store: MemoryDatastore, cidr: str, state: str, node: str = "n1") -> None:
    spec = msgspec.convert({"node": node, "cidr": cidr, "state": state}, BlockAffinitySpec)
    await store.create(BlockAffinity(metadata=Metadata(name=affinity_name(node, cidr)), spec=spec))


@pytest.mark.parametrize("state", ["pending", "confirmed", "pendingDeletion"])
async def test_affinity_without_a_block_is_removed_at_start(state: str) -> None:
    store = await store_with()
    await affinity(store, "10.5.0.0/28", state)
    (sentence,) = await allocator(store).reconcile_affinities()
    assert "10.5.0.0/28" in sentence
    assert (await store.list(BlockAffinity)).items == []


@pytest.mark.parametrize("state", ["pending", "pendingDeletion"])
async def test_unconfirmed_affinity_of_our_block_is_confirmed_at_start(state: str) -> None:
    store = await store_with()
    await audit.assign(allocator(store), "net.1")
    (stored,) = (await store.list(BlockAffinity)).items
    await store.patch(BlockAffinity, stored.metadata.name, {"spec": {"state": state}})
    await allocator(store).reconcile_affinities()
    (stored,) = (await store.list(BlockAffinity)).items
    assert stored.spec.state == "confirmed"


async def test_our_block_without_an_affinity_gets_one_at_start() -> None:
    store = await store_with()
    await audit.assign(allocator(store), "net.1")
    await store.delete((await store.list(BlockAffinity)).items[0])
    await allocator(store).reconcile_affinities()
    assert [item.spec.state for item in (await store.list(BlockAffinity)).items] == ["confirmed"]


async def test_other_nodes_affinities_are_left_alone_at_start() -> None:
    store = await store_with()
    await affinity(store, "10.5.0.0/28", "pending", node="n2")
    assert await allocator(store, "n1").reconcile_affinities() == []
    assert len((await store.list(BlockAffinity)).items) == 1


async def test_claim_of_a_block_that_another_node_has_leaves_no_affinity() -> None:
    store = await store_with("10.5.0.0/28", 28)
    await audit.assign(allocator(store, "n2"), "net.2")
    (block,) = (await store.list(IPAMBlock)).items
    await affinity(store, block.spec.cidr, "pending", node="n1")
    await allocator(store, "n1").reconcile_affinities()
    owners = [item.spec.node for item in (await store.list(BlockAffinity)).items]
    assert owners == ["n2"]


async def test_tunnel_address_stays_the_same_over_restarts() -> None:
    store = await store_with()
    handle = "vxlan-tunnel-addr-n1"
    first = await audit.assign(allocator(store), handle, use="Tunnel")
    assert isinstance(first, IPv4Address)
    assert await audit.assign(allocator(store), handle, use="Tunnel") == first
