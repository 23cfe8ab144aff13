"""Random requests of several nodes, with random faults in between: what must never happen, never happens.

Requests of one node run at the same time, in groups; a crash ends all of a node's. Empty blocks are given up
meanwhile, as garbage collection does.
"""

import asyncio
import random
from ipaddress import ip_address

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.components import ipam_audit as audit
from tortie.datastore.interface import DatastoreError
from tortie.datastore.memory import Call, CrashError, Fault, MemoryDatastore
from tortie.ipam import block as blocks
from tortie.ipam.allocator import Allocator
from tortie.ipam.claims import Claims
from tortie.ipam.errors import AddressError
from tortie.ipam.releases import utc_now
from tortie.ipam.request import Address, AddressRequest
from tortie.model.resources import BlockAffinity, IPAMBlock, IPAMHandle

HANDLES = ["net.a", "net.b", "net.c"]
NODES = ["n1", "n2", "n3"]

Group = dict[str, str]  # handle to action
Script = list[Group]

groups = st.dictionaries(
    st.sampled_from(HANDLES), st.sampled_from(["four", "both", "certain", "release"]), min_size=1
)
scripts = st.tuples(*(st.lists(groups, min_size=1, max_size=6) for _ in NODES))
FAULTS = list(Fault)


class Cluster:
    """Nodes over one datastore. A crash replaces a node's allocator, as a restart does."""

    def __init__(self, rate: float, seed: int, late_after: int = 1) -> None:
        self.store = MemoryDatastore(late_after=late_after)
        self.rate = rate
        self.rng = random.Random(seed)
        self.answered: dict[str, tuple[Address, ...]] = {}  # handles whose addresses are known for certain

    def fate(self, _call: Call) -> Fault | None:
        return self.rng.choice(FAULTS) if self.rng.random() < self.rate else None

    def start(self, node: str) -> Allocator:
        return Allocator(self.store, node, rng=audit.Eager(len(node)))

    async def run(self, node: str, script: Script) -> None:
        allocator = await self.restarted(node)
        for group in script:
            tasks = [
                asyncio.create_task(self.act(allocator, action, f"{suffix}-{node}"))
                for suffix, action in group.items()
            ]
            if await self.crashed(tasks):
                allocator = await self.restarted(node)

    @staticmethod
    async def crashed(tasks: list[asyncio.Task[None]]) -> bool:
        """Wait for a node's requests; the first crash ends all."""
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(
                outcome, CrashError | asyncio.CancelledError
            ):
                raise outcome
        return any(isinstance(outcome, CrashError) for outcome in outcomes)

    async def act(self, allocator: Allocator, action: str, handle: str) -> None:
        try:
            if action == "release":
                self.answered.pop(handle, None)
                await allocator.release_handle(handle)
            else:
                await self.assign(allocator, handle, action)
        except (DatastoreError, AddressError):
            return

    async def restarted(self, node: str) -> Allocator:
        while True:
            allocator = self.start(node)
            try:
                await allocator.reconcile_affinities()
            except (CrashError, DatastoreError):
                continue
            return allocator

    async def assign(self, allocator: Allocator, handle: str, action: str) -> None:
        held = self.answered.get(handle, ())
        families = frozenset({4, 6} if action == "both" else {4})
        certain = (ip_address("10.5.0.1"),) if action == "certain" else ()
        try:
            taken = await allocator.assign(
                AddressRequest(handle, {"handle": handle}, families=families, addresses=certain)
            )
        except AddressError:
            # A handle that was new holds nothing now; another one, what it held.
            return
        assert {address.version for address in taken} == families
        assert not certain or certain == taken
        others = {value for key, known in self.answered.items() if key != handle for value in known}
        assert others.isdisjoint(taken), f"{taken} was given to two handles"
        for address in taken:
            before = [known for known in held if known.version == address.version]
            assert before in ([], [address]), "a repeated assign changed the address"
        self.answered[handle] = tuple({*held, *taken})

    async def collect(self, stopped: asyncio.Event) -> None:
        """Give up blocks that are empty, and repair affinities, all the time."""
        claims = Claims(self.store, "", utc_now, audit.Eager(7))
        while not stopped.is_set():
            for kind in (IPAMBlock, BlockAffinity):
                try:
                    for item in (await self.store.list(kind)).items:
                        if isinstance(item, IPAMBlock) and blocks.is_empty(item):
                            await claims.give_up(item)
                        elif isinstance(item, BlockAffinity) and item.spec.state == "pendingDeletion":
                            await claims.repair(item)
                except (CrashError, DatastoreError):
                    continue

    async def run_all(self, script: tuple[Script, ...]) -> None:
        """All nodes at once, with a look at what is stored between their calls."""
        stopped = asyncio.Event()
        collecting = asyncio.create_task(self.collect(stopped))
        running = asyncio.gather(*(self.run(node, part) for node, part in zip(NODES, script, strict=True)))
        while not running.done():
            await audit.check(self.store.snapshot())
            await asyncio.sleep(0)
        stopped.set()
        await running
        await collecting

    async def audit(self) -> None:
        await audit.check(self.store)
        holders = await audit.holders(self.store)
        for handle, addresses in self.answered.items():
            assert [holders.get(address) for address in addresses] == [handle] * len(addresses)

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


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    scripts,
    st.sampled_from([0.02, 0.1, 0.25]),
    st.integers(0, 2**32),
    st.sampled_from([1, 3, 10, 30]),
    st.sampled_from([("10.5.0.0/28", 30), ("10.5.0.0/29", 31), ("10.5.0.0/30", 32)]),
    st.sampled_from([("fd00::/124", 126), ("fd00::/127", 128)]),
)
def test_faults_never_leak_share_or_lose_an_address(
    script: tuple[Script, ...],
    rate: float,
    seed: int,
    late_after: int,
    four: tuple[str, int],
    six: tuple[str, int],
) -> None:
    async def scenario() -> None:
        cluster = Cluster(rate, seed, late_after)
        await cluster.store.create(audit.pool(*four))
        await cluster.store.create(audit.pool(*six, "six"))
        cluster.store.inject = cluster.fate
        await cluster.run_all(script)
        cluster.store.inject = None
        await cluster.audit()
        cluster.store.settle()
        await cluster.audit()
        await cluster.drain()
        await cluster.audit()

    asyncio.run(scenario())


@settings(max_examples=60, deadline=None)
@given(scripts)
def test_without_faults_a_released_pool_is_wholly_usable_again(script: tuple[Script, ...]) -> None:
    async def scenario() -> None:
        cluster = Cluster(0.0, 0)
        await cluster.store.create(audit.pool("10.5.0.0/28", 30))
        await cluster.run_all(script)
        await cluster.audit()
        await cluster.drain()
        allocator = cluster.start("n1")
        addresses = await asyncio.gather(*(audit.assign(allocator, f"net.{n}") for n in range(16)))
        assert len(set(addresses)) == 16

    asyncio.run(scenario())
