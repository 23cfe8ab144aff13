"""Both families, certain addresses, reservations, cool-down, blocks that nobody uses, writes in common."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import pytest

from tests.components import ipam_audit as audit
from tortie.datastore.interface import NotFoundError, UnavailableError
from tortie.datastore.memory import Call, Fault, MemoryDatastore
from tortie.ipam.allocator import Allocator
from tortie.ipam.errors import AddressTakenError, BadRequestError, NoAddressError
from tortie.ipam.request import Address, AddressRequest
from tortie.model.resources import (
    BlockAffinity,
    IPAMBlock,
    IPAMConfig,
    IPAMConfigSpec,
    IPAMHandle,
    IPReservation,
    IPReservationSpec,
    Metadata,
)


class Clock:
    """A time that tests move."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


async def store_with(*pools: tuple[str, int]) -> MemoryDatastore:
    store = MemoryDatastore()
    for number, (cidr, size) in enumerate(pools):
        await store.create(audit.pool(cidr, size, f"pool-{number}"))
    return store


def allocator(
    store: MemoryDatastore, node: str = "n1", clock: Clock | None = None, borrowing: bool = True
) -> Allocator:
    return Allocator(store, node, rng=audit.Eager(1), clock=clock or Clock(), borrowing=borrowing)


def both(handle: str, *addresses: str) -> AddressRequest:
    wanted: tuple[Address, ...] = tuple(map(ip_address, addresses))
    return AddressRequest(handle, {}, families=frozenset({4, 6}), addresses=wanted)


def certain(handle: str, *addresses: str) -> AddressRequest:
    wanted: tuple[Address, ...] = tuple(map(ip_address, addresses))
    return AddressRequest(handle, {}, families=frozenset(), addresses=wanted)


async def configure(store: MemoryDatastore, spec: IPAMConfigSpec) -> None:
    await store.create(IPAMConfig(metadata=Metadata(name="default"), spec=spec))


async def reserve(store: MemoryDatastore, *cidrs: str) -> None:
    spec = IPReservationSpec(reserved_cidrs=list(cidrs))
    await store.create(IPReservation(metadata=Metadata(name="r"), spec=spec))


def calls_of(store: MemoryDatastore) -> list[Call]:
    calls: list[Call] = []

    def note(call: Call) -> Fault | None:
        calls.append(call)
        return None

    store.inject = note
    return calls


# --- both families ----------------------------------------------------------------------------------------


async def test_both_families_come_from_a_block_each_and_go_together() -> None:
    store = await store_with(("10.5.0.0/24", 26), ("fd00:5::/64", 122))
    one = allocator(store)
    four, six = await one.assign(both("net.c1"))
    assert (four.version, six.version) == (4, 6)
    sizes = sorted(len(item.spec.allocations) for item in (await store.list(IPAMBlock)).items)
    assert sizes == [64, 64]
    (handle,) = (await store.list(IPAMHandle)).items
    assert {ip_network(cidr).version for cidr in handle.spec.block} == {4, 6}
    labels = {item.metadata.labels["projectcalico.org/ip-version"] for item in await listed_affinities(store)}
    assert labels == {"4", "6"}
    assert await one.assign(both("net.c1")) == (four, six)
    assert await one.release_handle("net.c1") == [four, six]
    assert await audit.holders(store) == {}
    await audit.check(store)


async def listed_affinities(store: MemoryDatastore) -> list[BlockAffinity]:
    return (await store.list(BlockAffinity)).items


async def test_one_family_alone_is_never_left_when_the_other_is_exhausted() -> None:
    store = await store_with(("10.5.0.0/24", 26), ("fd00:5::/128", 128))
    one = allocator(store)
    await one.assign(both("net.c1"))
    with pytest.raises(NoAddressError, match="No IPv6 address"):
        await one.assign(both("net.c2"))
    assert set((await audit.holders(store)).values()) == {"net.c1"}
    assert [item.metadata.name for item in (await store.list(IPAMHandle)).items] == ["net.c1"]


async def test_handle_with_one_family_gets_the_other_when_asked_for_both() -> None:
    store = await store_with(("10.5.0.0/24", 26), ("fd00:5::/64", 122))
    one = allocator(store)
    four = await audit.assign(one, "net.c1")
    assert (await one.assign(both("net.c1")))[0] == four
    assert len(await one.held("net.c1")) == 2
    await audit.check(store)


async def test_request_without_a_family_is_refused() -> None:
    store = await store_with(("10.5.0.0/24", 26))
    with pytest.raises(BadRequestError, match="families"):
        await allocator(store).assign(AddressRequest("net.c1", {}, families=frozenset()))


# --- certain addresses ------------------------------------------------------------------------------------


async def test_certain_addresses_of_both_families_are_given_and_their_blocks_claimed() -> None:
    store = await store_with(("10.5.0.0/24", 26), ("fd00:5::/64", 122))
    one = allocator(store)
    taken = await one.assign(certain("net.c1", "fd00:5::7", "10.5.0.130"))
    assert list(map(str, taken)) == ["10.5.0.130", "fd00:5::7"]
    assert {item.spec.node for item in await listed_affinities(store)} == {"n1"}
    assert {item.spec.cidr for item in (await store.list(IPAMBlock)).items} == {
        "10.5.0.128/26",
        "fd00:5::/122",
    }
    await audit.check(store)


async def test_certain_address_of_one_family_leaves_the_other_automatic() -> None:
    store = await store_with(("10.5.0.0/24", 26), ("fd00:5::/64", 122))
    four, six = await allocator(store).assign(both("net.c1", "10.5.0.9"))
    assert str(four) == "10.5.0.9"
    assert six.version == 6


async def test_certain_address_that_somebody_holds_is_refused_and_leaves_nothing() -> None:
    store = await store_with(("10.5.0.0/24", 26), ("fd00:5::/64", 122))
    one = allocator(store)
    await one.assign(certain("net.c1", "10.5.0.9"))
    with pytest.raises(AddressTakenError, match=r"10\.5\.0\.9 .*held already, by net\.c1.*net\.c2"):
        await one.assign(both("net.c2", "10.5.0.9"))
    assert set((await audit.holders(store)).values()) == {"net.c1"}
    with pytest.raises(NotFoundError):
        await store.get(IPAMHandle, "net.c2")


async def test_certain_address_outside_every_pool_is_refused() -> None:
    store = await store_with(("10.5.0.0/24", 26))
    with pytest.raises(BadRequestError, match="no pool contains it"):
        await allocator(store).assign(certain("net.c1", "10.9.0.1"))
    assert (await store.list(IPAMHandle)).items == []


async def test_certain_address_differs_from_the_one_held() -> None:
    store = await store_with(("10.5.0.0/24", 26))
    one = allocator(store)
    held = await audit.assign(one, "net.c1")
    other = "10.5.0.77" if str(held) != "10.5.0.77" else "10.5.0.78"
    with pytest.raises(BadRequestError, match=f"asks for {other} but holds {held}"):
        await one.assign(certain("net.c1", other))
    assert await audit.holders(store) == {held: "net.c1"}


async def test_certain_address_of_another_nodes_block_is_borrowed_only_where_that_is_allowed() -> None:
    store = await store_with(("10.5.0.0/24", 26))
    await allocator(store, "n2").assign(certain("net.c1", "10.5.0.1"))
    with pytest.raises(BadRequestError, match=r"block 10\.5\.0\.0/26 of host:n2"):
        await allocator(store, "n1", borrowing=False).assign(certain("net.c2", "10.5.0.2"))
    taken = await allocator(store, "n1").assign(certain("net.c2", "10.5.0.2"))
    assert list(map(str, taken)) == ["10.5.0.2"]
    await audit.check(store)


async def test_two_addresses_of_one_family_are_refused() -> None:
    store = await store_with(("10.5.0.0/24", 26))
    with pytest.raises(BadRequestError, match="one address of a family"):
        await allocator(store).assign(certain("net.c1", "10.5.0.1", "10.5.0.2"))


async def test_unknown_pool_is_refused_with_those_that_exist() -> None:
    store = await store_with(("10.5.0.0/24", 26))
    with pytest.raises(BadRequestError, match=r"covers exactly nope; there are: pool-0 \(10\.5\.0\.0/24\)"):
        await allocator(store).assign(AddressRequest("net.c1", {}, pools=["nope"]))


# --- reservations -----------------------------------------------------------------------------------------


async def test_reserved_addresses_are_given_out_only_when_asked_for() -> None:
    store = await store_with(("10.5.0.0/29", 30))
    await reserve(store, "10.5.0.0/30", "10.5.0.5")
    one = allocator(store)
    given = {str(await audit.assign(one, f"net.{n}")) for n in range(3)}
    assert given == {"10.5.0.4", "10.5.0.6", "10.5.0.7"}
    with pytest.raises(NoAddressError):
        await audit.assign(one, "net.more")
    assert [str(item) for item in await one.assign(certain("net.c", "10.5.0.1"))] == ["10.5.0.1"]
    await audit.check(store)


# --- cool-down --------------------------------------------------------------------------------------------


async def test_released_address_cools_down_before_it_is_given_out_again() -> None:
    store, clock = await store_with(("10.5.0.0/31", 31)), Clock()
    await configure(store, IPAMConfigSpec(ip_cooldown_seconds=60))
    one = allocator(store, clock=clock)
    first, second = [await audit.assign(one, f"net.{n}") for n in range(2)]
    assert await one.release_handle("net.0") == [first]
    assert await audit.holders(store) == {second: "net.1"}
    assert (await store.list(IPAMHandle)).items[0].metadata.name == "net.1"
    clock.now += timedelta(seconds=59)
    with pytest.raises(NoAddressError):
        await audit.assign(one, "net.2")
    with pytest.raises(AddressTakenError, match="since its release at 2030-01-01T00:00:00Z"):
        await one.assign(certain("net.2", str(first)))
    clock.now += timedelta(seconds=1)
    assert await audit.assign(one, "net.2") == first
    await audit.check(store)


# --- blocks that nobody uses ------------------------------------------------------------------------------


async def empty_block_of(store: MemoryDatastore, node: str, clock: Clock) -> None:
    other = allocator(store, node, clock)
    await audit.assign(other, f"net.{node}")
    await other.release_handle(f"net.{node}")


async def test_block_that_another_node_does_not_use_is_taken_over_when_none_is_left() -> None:
    store, clock = await store_with(("10.5.0.0/30", 30)), Clock()
    await empty_block_of(store, "n2", clock)
    clock.now += timedelta(seconds=61)
    await audit.assign(allocator(store, "n1", clock, borrowing=False), "net.1")
    assert [item.spec.node for item in await listed_affinities(store)] == ["n1"]
    await audit.check(store)


async def test_young_or_used_block_of_another_node_is_not_taken_over() -> None:
    store, clock = await store_with(("10.5.0.0/30", 31)), Clock()
    await audit.assign(allocator(store, "n2", clock), "net.2")
    clock.now += timedelta(hours=1)
    await empty_block_of(store, "n3", clock)
    with pytest.raises(NoAddressError):
        await audit.assign(allocator(store, "n1", clock, borrowing=False), "net.1")
    assert {item.spec.node for item in await listed_affinities(store)} == {"n2", "n3"}


async def test_owner_of_a_block_that_was_taken_over_finds_another_one() -> None:
    store, clock = await store_with(("10.5.0.0/29", 30)), Clock()
    first = allocator(store, "n1", clock)
    await audit.assign(first, "net.1")
    await first.release_handle("net.1")
    await audit.assign(allocator(store, "n2", clock), "net.2")
    clock.now += timedelta(seconds=61)
    third = allocator(store, "n3", clock, borrowing=False)
    await audit.assign(third, "net.3")
    assert (await audit.holders(store)).keys() == {
        address for handle in ("net.2", "net.3") for address in await third.held(handle)
    }
    await audit.assign(first, "net.4")
    await audit.check(store)


# --- writes in common -------------------------------------------------------------------------------------


async def test_usual_assign_is_one_create_and_one_update() -> None:
    store = await store_with(("10.5.0.0/24", 26))
    one = allocator(store)
    await audit.assign(one, "net.0")
    calls = calls_of(store)
    await audit.assign(one, "net.1")
    assert [(call.verb, call.kind) for call in calls] == [("create", IPAMHandle), ("update", IPAMBlock)]
    calls.clear()
    await one.release_handle("net.1")
    made = [(call.verb, call.kind) for call in calls]
    assert made.count(("update", IPAMBlock)) == 1
    assert ("delete", IPAMHandle) in made
    assert not {"get", "list"} & {verb for verb, _kind in made}


async def test_many_assigns_at_once_share_writes_of_the_block() -> None:
    store = await store_with(("10.5.0.0/24", 26))
    one = allocator(store)
    await audit.assign(one, "net.0")
    calls = calls_of(store)
    taken = await asyncio.gather(*(audit.assign(one, f"net.{n}") for n in range(1, 51)))
    assert len(set(taken)) == 50
    made = Counter((call.verb, call.kind) for call in calls)
    assert made["create", IPAMHandle] == 50
    assert made["update", IPAMBlock] <= 3
    calls.clear()
    await asyncio.gather(*(one.release_handle(f"net.{n}") for n in range(1, 51)))
    assert Counter((call.verb, call.kind) for call in calls)["update", IPAMBlock] <= 3
    await audit.check(store)


async def test_many_first_assigns_at_once_claim_one_block_after_the_other() -> None:
    store = await store_with(("10.5.0.0/24", 28))
    one = allocator(store)
    taken = await asyncio.gather(*(audit.assign(one, f"net.{n}") for n in range(40)))
    assert len(set(taken)) == 40
    assert len((await store.list(IPAMBlock)).items) == 3
    await audit.check(store)


async def test_one_refused_request_does_not_hold_up_those_written_with_it() -> None:
    store = await store_with(("10.5.0.0/24", 26))
    one = allocator(store)
    await one.assign(certain("net.0", "10.5.0.9"))
    results = await asyncio.gather(
        *(one.assign(certain(f"net.{n}", f"10.5.0.{n}")) for n in range(8, 12)), return_exceptions=True
    )
    assert [type(result) for result in results] == [tuple, AddressTakenError, tuple, tuple]
    await audit.check(store)


async def test_others_go_on_when_the_one_that_writes_for_them_is_cancelled() -> None:
    store = await store_with(("10.5.0.0/24", 26))
    for steps in range(1, 25):
        one = allocator(store)
        await audit.assign(one, "net.0")
        tasks = [asyncio.create_task(audit.assign(one, f"net.{n}")) for n in range(1, 6)]
        for _step in range(steps):
            await asyncio.sleep(0)
        tasks[0].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert len({result for result in results[1:] if not isinstance(result, BaseException)}) == 4
        await audit.check(store)
        for n in range(6):
            await one.release_handle(f"net.{n}")
        assert await audit.holders(store) == {}
        assert (await store.list(IPAMHandle)).items == []


async def test_answer_lost_for_many_is_found_by_each() -> None:
    store = await store_with(("10.5.0.0/24", 26))
    one = allocator(store)
    await audit.assign(one, "net.0")

    def first_block_write_loses_its_answer(call: Call) -> Fault | None:
        if call.verb == "update" and call.kind is IPAMBlock:
            store.inject = None
            return Fault.LOST_RESPONSE
        return None

    store.inject = first_block_write_loses_its_answer
    taken = await asyncio.gather(*(audit.assign(one, f"net.{n}") for n in range(1, 21)))
    assert len(set(taken)) == 20
    assert len(await audit.holders(store)) == 21
    await audit.check(store)


async def test_unavailable_datastore_ends_all_that_wait() -> None:
    store = await store_with(("10.5.0.0/24", 26))
    one = allocator(store)
    await audit.assign(one, "net.0")
    store.inject = lambda _call: Fault.UNAVAILABLE
    results = await asyncio.gather(
        *(audit.assign(one, f"net.{n}") for n in range(1, 4)), return_exceptions=True
    )
    assert {type(result) for result in results} == {UnavailableError}
