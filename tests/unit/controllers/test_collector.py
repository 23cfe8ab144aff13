"""The collector at work on a datastore: leaks, deleted nodes, last-moment changes, random faults."""

import asyncio
import random
from collections.abc import Awaitable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.components import ipam_audit as audit
from tests.unit.controllers.scene import POOL, Scene
from tortie.controllers.collector import Collector, Sources
from tortie.controllers.counting import Metrics
from tortie.datastore.interface import DatastoreError
from tortie.datastore.memory import Call, CrashError, Fault, MemoryDatastore
from tortie.ipam.errors import AddressError
from tortie.ipam.request import Address, AddressRequest
from tortie.model.resources import BlockAffinity, IPAMBlock, IPAMHandle, Metadata, Node, Pod, PodSpec

GRACE = 900.0


class Time:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def scene(*nodes: str) -> tuple[Scene, MemoryDatastore]:
    store = MemoryDatastore()
    await store.create(audit.pool(*POOL))
    made = Scene(store)
    for node in nodes:
        await made.add_node(node)
    return made, store


def collector(store: MemoryDatastore, time: Time, metrics: Metrics | None = None) -> Collector:
    return Collector(store, Sources.of(store), GRACE, metrics or Metrics(), monotonic=time)


async def test_leaked_address_is_released_after_the_grace_period_and_counted() -> None:
    cluster, store = await scene("n1")
    time, metrics = Time(), Metrics()
    gc = collector(store, time, metrics)
    kept = await cluster.start_pod("n1", "kept")
    leaked = await cluster.start_pod("n1", "leaked")
    await cluster.delete_pod("leaked")
    await gc.scan()
    place = {"ippool": "default", "node": "n1"}
    assert metrics.registry.get_sample_value("ipam_allocations_gc_candidates", place) == 1
    time.seconds = GRACE - 1
    await gc.scan()
    assert leaked in await cluster.holders()
    time.seconds = GRACE
    await gc.scan()
    assert list(await cluster.holders()) == [kept]
    assert [item.metadata.name for item in (await store.list(IPAMHandle)).items] == ["net.kept-c1"]
    assert metrics.registry.get_sample_value("ipam_allocations_gc_reclamations_total", place) == 1
    await audit.check(store)


async def test_sandbox_that_was_replaced_loses_its_address_and_the_new_one_keeps_its_own() -> None:
    cluster, store = await scene("n1")
    time = Time()
    gc = collector(store, time)
    await cluster.start_pod("n1", "web")
    second = await cluster.attach("n1", "web", "c2")
    await cluster.report("web", second)
    for time.seconds in (0, GRACE):
        await gc.scan()
    assert await cluster.holders() == {second: "net.web-c2"}


async def test_owner_that_appears_at_the_last_moment_keeps_its_address() -> None:
    cluster, store = await scene("n1")
    time = Time()
    gc = collector(store, time)
    address = await cluster.start_pod("n1", "web")
    await cluster.delete_pod("web")
    await gc.scan()
    time.seconds = GRACE

    def pod_comes_back_after_the_pods_were_listed(call: Call) -> Fault | None:
        if call.verb == "get" and call.kind is Pod:
            store.inject = None
            store.put(Pod(metadata=Metadata(name="web", namespace="default"), spec=PodSpec(node_name="n1")))
        return None

    store.inject = pod_comes_back_after_the_pods_were_listed
    await gc.scan()
    assert await cluster.holders() == {address: "net.web-c1"}


async def test_everything_of_a_deleted_node_is_released_at_once() -> None:
    cluster, store = await scene("n1", "n2")
    kept = await cluster.start_pod("n2", "kept")
    for number in range(20):  # two blocks
        await cluster.start_pod("n1", f"p{number}")
    attributes = {"node": "n1", "type": "vxlanTunnelAddress"}
    request = AddressRequest("vxlan-tunnel-addr-n1", attributes, use="Tunnel")
    await cluster.allocators["n1"].assign(request)
    await cluster.delete_node("n1")
    for number in range(20):
        await cluster.delete_pod(f"p{number}")
    await collector(store, Time()).scan()
    assert list(await cluster.holders()) == [kept]
    assert {item.spec.affinity for item in (await store.list(IPAMBlock)).items} == {"host:n2"}
    assert {item.spec.node for item in (await store.list(BlockAffinity)).items} == {"n2"}
    assert [item.metadata.name for item in (await store.list(IPAMHandle)).items] == ["net.kept-c1"]


async def test_node_that_is_registered_after_the_nodes_were_listed_keeps_its_block() -> None:
    cluster, store = await scene("n1")
    await cluster.add_node("n2")
    await cluster.allocators["n2"].assign(AddressRequest("net.x-c1", {}))
    await cluster.allocators["n2"].release_handle("net.x-c1")
    node = await store.get(Node, "n2")
    await store.delete(node)

    def registered(call: Call) -> Fault | None:
        if call.kind is BlockAffinity:
            store.inject = None
            store.put(node)
        return None

    store.inject = registered
    await collector(store, Time()).scan()
    assert len(await cluster.blocks_of("n2")) == 1


async def test_empty_blocks_go_except_the_last_one() -> None:
    cluster, store = await scene("n1")
    for number in range(40):  # three blocks
        await cluster.start_pod("n1", f"p{number}")
    assert len(await cluster.blocks_of("n1")) == 3
    for number in range(40):
        await cluster.allocators["n1"].release_handle(f"net.p{number}-c1")
        await cluster.delete_pod(f"p{number}")
    gc = collector(store, Time())
    await gc.scan()
    assert len(await cluster.blocks_of("n1")) == 3
    await gc.scan()
    assert len(await cluster.blocks_of("n1")) == 1
    await cluster.start_pod("n1", "again")
    await audit.check(store)


async def test_half_made_claims_and_handles_are_cleaned_up() -> None:
    cluster, store = await scene("n1")
    await cluster.start_pod("n1", "web")
    await cluster.delete_pod("web")

    def crash_at_block(call: Call) -> Fault | None:
        return Fault.CRASH_BEFORE if call.kind is IPAMBlock and call.verb in ("create", "update") else None

    store.inject = crash_at_block
    await cluster.add_node("n2")
    for node in ("n1", "n2"):
        try:
            await cluster.attach(node, "half", node)
        except CrashError:
            continue
    store.inject = None
    assert len((await store.list(BlockAffinity)).items) == 2
    assert len((await store.list(IPAMHandle)).items) == 2
    time = Time()
    gc = collector(store, time)
    for time.seconds in (0, GRACE, GRACE):
        await gc.scan()
    assert [item.spec.node for item in (await store.list(BlockAffinity)).items] == ["n1"]
    assert (await store.list(IPAMHandle)).items == []


async def test_two_collectors_do_no_harm() -> None:
    cluster, store = await scene("n1", "n2")
    kept = [await cluster.start_pod("n1", f"kept{number}") for number in range(3)]
    for number in range(30):
        await cluster.start_pod("n2", f"p{number}")
        await cluster.delete_pod(f"p{number}")
    time = Time()
    both = [collector(store, time) for _ in range(2)]
    for time.seconds in (0, GRACE, GRACE, GRACE):
        await asyncio.gather(*(gc.scan() for gc in both))
        await audit.check(store)
    assert sorted(await cluster.holders(), key=int) == sorted(kept, key=int)
    assert len(await cluster.blocks_of("n2")) == 1


async def test_refused_action_does_not_stop_the_others() -> None:
    cluster, store = await scene("n1")
    for number in range(5):
        await cluster.start_pod("n1", f"p{number}")
        await cluster.delete_pod(f"p{number}")
    time = Time()
    gc = collector(store, time)
    await gc.scan()
    time.seconds = GRACE

    def one_pod_cannot_be_asked_for(call: Call) -> Fault | None:
        return Fault.UNAVAILABLE if call.kind is Pod and call.name == "p2" else None

    store.inject = one_pod_cannot_be_asked_for
    await gc.scan()
    assert list((await cluster.holders()).values()) == ["net.p2-c1"]
    store.inject = None
    await gc.scan()
    assert await cluster.holders() == {}


# --- random faults ------------------------------------------------------------------------------------------

NODES = ["n1", "n2"]
PODS = ["a", "b", "c"]
steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "lose", "end", "scan", "drop-node", "wait"]),
        st.sampled_from(NODES),
        st.sampled_from(PODS),
    ),
    min_size=1,
    max_size=12,
)


class Stage:
    """Runs steps under faults. A pod that lives here has its address for certain."""

    def __init__(self, seed: int, rate: float) -> None:
        self.store = MemoryDatastore(late_after=3)
        self.scene = Scene(self.store)
        self.rng = random.Random(seed)
        self.rate = rate
        self.time = Time()
        self.gc = collector(self.store, self.time)
        self.alive: dict[str, Address] = {}
        self.faults: list[Fault] = list(Fault)

    def fate(self, call: Call) -> Fault | None:
        ours = call.kind in (IPAMBlock, IPAMHandle, BlockAffinity)
        return self.rng.choice(self.faults) if ours and self.rng.random() < self.rate else None

    async def step(self, action: str, node: str, name: str) -> None:
        pod = f"{name}-{node}"
        match action:
            case "start" if pod not in self.alive and node in self.scene.allocators:
                await self.start(node, pod)
            case "lose":
                self.alive.pop(pod, None)
                await self.scene.delete_pod(pod)
            case "end" if node in self.scene.allocators:
                self.alive.pop(pod, None)
                await self.scene.delete_pod(pod)
                await self.faulty(self.scene.allocators[node].release_handle(f"net.{pod}-c1"))
            case "scan":
                await self.faulty(self.gc.scan())
            case "wait":
                self.time.seconds += GRACE
            case "drop-node" if node in self.scene.allocators:
                await self.scene.delete_node(node)
                del self.scene.allocators[node]
                for other in PODS:
                    self.alive.pop(f"{other}-{node}", None)
                    await self.scene.delete_pod(f"{other}-{node}")

    async def start(self, node: str, pod: str) -> None:
        await self.store.create(
            Pod(metadata=Metadata(name=pod, namespace="default"), spec=PodSpec(node_name=node))
        )
        self.store.inject = self.fate
        try:
            address = await self.scene.attach(node, pod, "c1")
        except (CrashError, DatastoreError, AddressError):
            await self.scene.add_allocator(node)
            self.store.inject = None
            await self.scene.delete_pod(pod)
            return
        self.store.inject = None
        await self.scene.report(pod, address)
        assert address not in self.alive.values()
        self.alive[pod] = address

    async def faulty(self, call: Awaitable[object]) -> None:
        self.store.inject = self.fate
        try:
            await call
        except (CrashError, DatastoreError, AddressError):
            return
        finally:
            self.store.inject = None

    async def audit(self) -> None:
        await audit.check(self.store)
        holders = await self.scene.holders()
        for pod, address in self.alive.items():
            assert holders.get(address) == f"net.{pod}-c1"

    async def settled(self) -> None:
        """After garbage collection nothing is left but what living pods hold."""
        self.store.settle()
        for _ in range(4):
            await self.gc.scan()
            self.time.seconds += GRACE
        await self.audit()
        assert set(await self.scene.holders()) == set(self.alive.values())
        handles = {item.spec.handle_id for item in (await self.store.list(IPAMHandle)).items}
        assert handles == {f"net.{pod}-c1" for pod in self.alive}
        nodes = set(self.scene.allocators)
        stored = (await self.store.list(IPAMBlock)).items
        assert {item.spec.affinity for item in stored} <= {f"host:{node}" for node in nodes}
        affinities = (await self.store.list(BlockAffinity)).items
        assert {(item.spec.node, item.spec.cidr, item.spec.state) for item in affinities} == {
            ((item.spec.affinity or "").removeprefix("host:"), item.spec.cidr, "confirmed") for item in stored
        }


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps, st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.3]))
def test_nothing_leaks_and_no_living_pod_loses_its_address(
    script: list[tuple[str, str, str]], seed: int, rate: float
) -> None:
    async def scenario() -> None:
        stage = Stage(seed, rate)
        await stage.store.create(audit.pool("10.5.0.0/28", 30))
        for node in NODES:
            await stage.scene.add_node(node)
        for action, node, pod in script:
            await stage.step(action, node, pod)
            await stage.audit()
        await stage.settled()

    asyncio.run(scenario())
