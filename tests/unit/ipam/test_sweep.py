"""Handles of containers that are gone are released; all others are not."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import pytest

from tests.components import ipam_audit as audit
from tortie.datastore.memory import Call, CrashError, Fault, MemoryDatastore
from tortie.ipam.allocator import Allocator
from tortie.ipam.request import AddressRequest
from tortie.ipam.sweep import Sweep
from tortie.model.resources import IPAMBlock, IPAMHandle

GRACE = 300.0


class Node:
    """n1 with its containers, and a clock."""

    def __init__(self) -> None:
        self.store = MemoryDatastore()
        self.allocator = Allocator(self.store, "n1", rng=audit.Eager(1))
        self.living: Collection[str] | None = set()
        self.seconds = 0.0
        self.sweep = Sweep(
            self.store,
            self.allocator,
            "n1",
            "net",
            self.look,
            grace=GRACE,
            monotonic=lambda: self.seconds,
            clock=lambda: datetime.now(UTC) + timedelta(seconds=self.seconds),
        )

    async def look(self) -> Collection[str] | None:
        return self.living

    async def attach(self, container: str, node: str = "n1") -> None:
        allocator = self.allocator if node == "n1" else Allocator(self.store, node, rng=audit.Eager(2))
        await allocator.assign(AddressRequest(f"net.{container}", {"node": node}))


@pytest.fixture
async def node() -> Node:
    made = Node()
    await made.store.create(audit.pool("10.5.0.0/24", 28))
    return made


async def test_container_that_is_gone_loses_its_address_after_the_grace_period(node: Node) -> None:
    for container in ("gone", "alive"):
        await node.attach(container)
    node.living = {"alive"}
    assert await node.sweep.run() == []
    node.seconds = GRACE - 1
    assert await node.sweep.run() == []
    node.seconds = GRACE
    assert await node.sweep.run() == ["net.gone"]
    assert set((await audit.holders(node.store)).values()) == {"net.alive"}
    assert await node.sweep.run() == []


async def test_container_that_was_seen_again_starts_over(node: Node) -> None:
    await node.attach("c1")
    await node.sweep.run()
    node.seconds, node.living = GRACE, {"c1"}
    await node.sweep.run()
    node.living = set()
    assert await node.sweep.run() == []
    assert len(await audit.holders(node.store)) == 1


async def test_nothing_is_released_when_containers_cannot_be_told(node: Node) -> None:
    await node.attach("c1")
    await node.sweep.run()
    node.seconds, node.living = GRACE, None
    assert await node.sweep.run() == []
    node.living = set()
    assert await node.sweep.run() == []
    node.seconds = 2 * GRACE
    assert await node.sweep.run() == ["net.c1"]


async def test_container_that_appears_right_before_the_release_keeps_its_address(node: Node) -> None:
    await node.attach("c1")
    await node.sweep.run()
    node.seconds = GRACE
    answers: list[set[str]] = [set(), {"c1"}]

    async def changing() -> set[str]:
        return answers.pop(0)

    node.sweep._living = changing
    assert await node.sweep.run() == []
    assert len(await audit.holders(node.store)) == 1


async def test_other_nodes_networks_and_tunnels_are_left_alone(node: Node) -> None:
    await node.attach("c1", node="n2")
    for handle in ("other.c1", "ipip-tunnel-addr-n1"):
        await node.allocator.assign(AddressRequest(handle, {"node": "n1"}))
    await node.sweep.run()
    node.seconds = GRACE
    assert await node.sweep.run() == []
    assert len(await audit.holders(node.store)) == 3


async def test_handle_of_an_assign_that_was_killed_half_way_is_removed(node: Node) -> None:
    await node.attach("alive")
    node.living = {"alive"}

    def crash_at_block(call: Call) -> Fault | None:
        return Fault.CRASH_BEFORE if call.kind is IPAMBlock and call.verb == "update" else None

    node.store.inject = crash_at_block
    with pytest.raises(CrashError):
        await node.attach("half")
    node.store.inject = None
    assert len((await node.store.list(IPAMHandle)).items) == 2
    node.seconds = GRACE + 2
    await node.sweep.run()
    node.seconds = 2 * GRACE + 2
    assert await node.sweep.run() == ["net.half"]
    assert [item.spec.handle_id for item in (await node.store.list(IPAMHandle)).items] == ["net.alive"]


@pytest.mark.parametrize("step", [timedelta(days=-1), timedelta(days=1)])
async def test_a_clock_that_is_set_by_a_day_does_not_cut_the_grace_period_short(step: timedelta) -> None:
    store = MemoryDatastore()
    await store.create(audit.pool("10.5.0.0/24", 28))
    allocator = Allocator(store, "n1", rng=audit.Eager(1))
    seconds, offset = 0.0, timedelta()

    async def nobody() -> Collection[str] | None:
        return ()

    sweep = Sweep(
        store,
        allocator,
        "n1",
        "net",
        nobody,
        grace=GRACE,
        monotonic=lambda: seconds,
        clock=lambda: datetime.now(UTC) + offset,
    )
    await allocator.assign(AddressRequest("net.c1", {"node": "n1"}))
    assert await sweep.run() == []
    seconds, offset = GRACE - 1, step
    assert await sweep.run() == []
    seconds = GRACE
    assert await sweep.run() == ["net.c1"]
