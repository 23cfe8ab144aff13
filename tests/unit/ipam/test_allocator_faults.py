"""Random requests of several nodes, with random faults in between: what must never happen, never happens."""

import asyncio
import random
from ipaddress import IPv4Address

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.components import ipam_audit as audit
from tortie.datastore.interface import UnavailableError
from tortie.datastore.memory import Call, CrashError, Fault, MemoryDatastore
from tortie.ipam.allocator import Allocator, NoAddressError
from tortie.model.resources import IPAMHandle

HANDLES = ["net.a", "net.b", "net.c"]
NODES = ["n1", "n2", "n3"]

steps = st.lists(
    st.tuples(st.sampled_from(["assign", "release"]), st.sampled_from(HANDLES)), min_size=1, max_size=10
)
scripts = st.tuples(steps, steps, steps)
FAULTS = list(Fault)


class Cluster:
    """Nodes over one datastore. A crash replaces a node's allocator, as a restart does."""

    def __init__(self, rate: float, seed: int, late_after: int = 1) -> None:
        self.store = MemoryDatastore(late_after=late_after)
        self.rate = rate
        self.rng = random.Random(seed)
        self.allocators: dict[str, Allocator] = {}
        self.answered: dict[str, IPv4Address] = {}  # handles whose address the node knows for certain

    def fate(self, _call: Call) -> Fault | None:
        return self.rng.choice(FAULTS) if self.rng.random() < self.rate else None

    def start(self, node: str) -> Allocator:
        return Allocator(self.store, node, rng=audit.Eager(len(node)))

    async def run(self, node: str, script: list[tuple[str, str]]) -> None:
        allocator = await self.restarted(node)
        for action, suffix in script:
            handle = f"{suffix}-{node}"
            try:
                if action == "assign":
                    await self.assign(allocator, handle)
                else:
                    self.answered.pop(handle, None)
                    await allocator.release_handle(handle)
            except CrashError:
                allocator = await self.restarted(node)
            except (UnavailableError, NoAddressError):
                continue

    async def restarted(self, node: str) -> Allocator:
        while True:
            allocator = self.start(node)
            try:
                await allocator.reconcile_affinities()
            except (CrashError, UnavailableError):
                continue
            return allocator

    async def assign(self, allocator: Allocator, handle: str) -> None:
        address = await allocator.assign(handle_id=handle, attributes={"handle": handle})
        others = {value for key, value in self.answered.items() if key != handle}
        assert address not in others, f"{address} was given to two handles"
        assert self.answered.get(handle, address) == address, "a repeated assign changed the address"
        self.answered[handle] = address

    async def run_all(self, scripts: tuple[list[tuple[str, str]], ...]) -> None:
        """All nodes at once, with a look at what is stored between their calls."""
        running = asyncio.gather(*(self.run(node, part) for node, part in zip(NODES, scripts, strict=True)))
        while not running.done():
            await audit.check(self.store.snapshot())
            await asyncio.sleep(0)
        await running

    async def audit(self) -> None:
        await audit.check(self.store)
        holders = await audit.holders(self.store)
        for handle, address in self.answered.items():
            assert holders.get(address) == handle

    async def drain(self) -> None:
        """Every pod is deleted; nothing may remain."""
        for node in NODES:
            allocator = self.start(node)
            await allocator.reconcile_affinities()
            for handle in HANDLES:
                await allocator.release_handle(f"{handle}-{node}")
        self.answered.clear()
        assert await audit.holders(self.store) == {}
        assert (await self.store.list(IPAMHandle)).items == []


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    scripts,
    st.sampled_from([0.02, 0.1, 0.25]),
    st.integers(0, 2**32),
    st.sampled_from([1, 3, 10, 30]),
    st.sampled_from([("10.5.0.0/28", 30), ("10.5.0.0/29", 31), ("10.5.0.0/30", 32)]),
)
def test_faults_never_leak_share_or_lose_an_address(
    script: tuple[list[tuple[str, str]], ...], rate: float, seed: int, late_after: int, sizes: tuple[str, int]
) -> None:
    async def scenario() -> None:
        cluster = Cluster(rate, seed, late_after)
        await cluster.store.create(audit.pool(*sizes))
        cluster.store.inject = cluster.fate
        await cluster.run_all(script)
        cluster.store.inject = None
        await cluster.audit()
        cluster.store.settle()
        await cluster.audit()
        await cluster.drain()
        await cluster.audit()

    asyncio.run(scenario())


@settings(max_examples=100, deadline=None)
@given(scripts)
def test_without_faults_a_released_pool_is_wholly_usable_again(
    script: tuple[list[tuple[str, str]], ...],
) -> None:
    async def scenario() -> None:
        cluster = Cluster(0.0, 0)
        await cluster.store.create(audit.pool("10.5.0.0/28", 30))
        await cluster.run_all(script)
        await cluster.audit()
        await cluster.drain()
        allocator = cluster.start("n1")
        addresses = [await allocator.assign(handle_id=f"net.{n}", attributes={}) for n in range(16)]
        assert len(set(addresses)) == 16

    asyncio.run(scenario())
