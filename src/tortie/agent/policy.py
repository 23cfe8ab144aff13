"""Policy on one node: watch, feed the engine, put what it says into the kernel, within milliseconds.

Before every kind is known, nothing is changed: what an earlier agent left in the kernel stays in force, and
on a machine that has just booted pods are cut off. Then the whole state is put there in one transaction, and
from then on what changed. Engine and kernel are used by a thread of their own, so that a large change does
not keep the event loop from answering the CNI plugin.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

from tortie.agent.health import Health, wait_alive
from tortie.agent.metrics import Metrics
from tortie.agent.policy_work import Interfaces, Outcome, PolicyWorker, Registration, Work
from tortie.agent.sources import Source
from tortie.dataplane.netlink import DataplaneError
from tortie.dataplane.ruleset import Settings
from tortie.datastore.interface import Datastore
from tortie.model.endpoints import WorkloadEndpoint
from tortie.model.policies import (
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    NetworkPolicy,
    NetworkSet,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    Tier,
)
from tortie.model.policy_natives import (
    EndpointSlice,
    EndpointSliceV1Beta1,
    KubernetesNetworkPolicy,
    Namespace,
    ServiceAccount,
)
from tortie.model.resources import Pod

T = TypeVar("T")
log = logging.getLogger(__name__)

# Seconds. Changes that come in quick succession are applied together: less than _LULL after the last ones,
# they are gathered for so long. One that comes alone is not kept waiting, and an ADD never.
COALESCE: Final = 0.002
_LULL: Final = 0.02
# Seconds between comparisons of the kernel with what was put there. Where nobody touched nftables, one costs
# a single message.
CHECK: Final = 5.0
# Seconds from a change until connections are cut: to read them takes longer than a change, and costs as much
# for many changes as for one.
_CUT_AFTER: Final = 0.05
# Seconds before the first new attempt after an error; doubled up to _LONGEST_RETRY.
_FIRST_RETRY: Final = 0.2
_LONGEST_RETRY: Final = 5.0


class PolicySources:
    """Everything that policy depends on; somebody has to run it."""

    def __init__(self, datastore: Datastore) -> None:
        self.pods = Source(datastore, Pod)
        self.namespaces = Source(datastore, Namespace)
        self.host_endpoints = Source(datastore, HostEndpoint)
        self.all: tuple[Source[Any], ...] = (
            self.namespaces,
            Source(datastore, ServiceAccount),
            Source(datastore, Tier),
            Source(datastore, GlobalNetworkSet),
            Source(datastore, NetworkSet),
            Source(datastore, EndpointSlice, EndpointSliceV1Beta1),
            Source(datastore, KubernetesNetworkPolicy),
            Source(datastore, NetworkPolicy),
            Source(datastore, GlobalNetworkPolicy),
            Source(datastore, StagedKubernetesNetworkPolicy),
            Source(datastore, StagedNetworkPolicy),
            Source(datastore, StagedGlobalNetworkPolicy),
            self.host_endpoints,
            self.pods,
        )


class PolicyAgent:
    """Keeps the node's policy in force. Implements `tortie.cni.guard.EndpointPolicy`.

    `interfaces` reads the node's own interfaces with their addresses; it may block and raise DataplaneError.
    """

    def __init__(
        self,
        *,
        sources: PolicySources,
        worker: PolicyWorker,
        interfaces: Callable[[], Interfaces],
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._sources = sources
        self._worker = worker
        self._read_interfaces = interfaces
        self._health = health
        self._metrics = metrics
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()  # the kernel's policy
        self._urgent = asyncio.Event()  # an ADD waits
        self._woken = 0.0  # time.monotonic() of the first change of the coming round
        self._last_round = 0.0  # time.monotonic() of its end
        self._dirty: set[Source[Any]] = set()
        self._registrations: list[Registration] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._interfaces: Interfaces = {}
        self._settings = Settings()
        self._source_spoofing = False
        self._reported: frozenset[str] = frozenset()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy")
        self.in_force = asyncio.Event()  # set when the kernel held the desired policy for the first time
        for source in sources.all:
            source.on_change(self._marker(source))

    # --- for the CNI server ---------------------------------------------------------------------------------

    async def endpoint_ready(self, endpoint: WorkloadEndpoint) -> None:
        """See `EndpointPolicy`."""
        applied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._registrations.append(Registration(endpoint.spec.interface_name, endpoint))
        self._waiting.append(applied)
        self._urgent.set()
        self._awake()
        await applied

    async def endpoint_gone(self, interface: str) -> None:
        """See `EndpointPolicy`."""
        self._registrations.append(Registration(interface, None))
        self._awake()

    def configure(self, settings: Settings, source_spoofing: bool) -> None:
        """Take other settings of the table; what is in force is replaced in one transaction.

        `source_spoofing`: whether a pod's annotation may allow it other source addresses
        (FelixConfiguration workloadSourceSpoofing)."""
        if (settings, source_spoofing) != (self._settings, self._source_spoofing):
            self._settings, self._source_spoofing = settings, source_spoofing
            self._awake()

    # --- the loop -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep policy in force until cancelled; what is in the kernel then stays."""
        try:
            await self.guard()
            await self._settle()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_in_force())
                tasks.create_task(self._cut_connections())
                tasks.create_task(self._verify())
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def guard(self) -> None:
        """Close the pods' interfaces unless policy of an earlier agent is in force; return once that is so.
        For the agent's first moment: it needs no datastore."""
        wait = _FIRST_RETRY
        while True:
            try:
                await self._in_thread(self._worker.guard)
            except DataplaneError as error:
                self._health.fail("policy", str(error))
                self._health.beat("policy")
                await asyncio.sleep(wait)
                wait = min(wait * 2, _LONGEST_RETRY)
            else:
                return

    async def _settle(self) -> None:
        """Wait until every kind is known; when it takes long, say which are not."""
        while missing := [source.name for source in self._sources.all if not source.settled.is_set()]:
            if not await wait_alive(self._wake, _LONGEST_RETRY, lambda: self._health.beat("policy")):
                self._health.fail("policy", f"waiting for the first complete list of {', '.join(missing)}")
            self._wake.clear()

    async def _keep_in_force(self) -> None:
        retry = _FIRST_RETRY
        while True:
            good = await self._round()
            self._health.beat("policy")
            if good:
                retry = _FIRST_RETRY
                while not await wait_alive(self._wake, CHECK, lambda: self._health.beat("policy")):
                    continue
                await self._gather()
            else:
                await asyncio.sleep(retry)
                retry = min(retry * 2, _LONGEST_RETRY)

    async def _gather(self) -> None:
        """Let changes come that belong to the first one."""
        if time.monotonic() - self._last_round < _LULL:
            with suppress(TimeoutError):
                async with asyncio.timeout(COALESCE):
                    await self._urgent.wait()

    async def _verify(self) -> None:
        """Compare the kernel with what was put there, again and again; changes do not wait for that."""
        await self.in_force.wait()
        while True:
            await self._look_at_interfaces()
            try:
                repaired, forwarding = await asyncio.to_thread(self._worker.verify)
            except DataplaneError as error:
                self._failed(error, str(error), ())
            else:
                self._metrics.policy_repairs.inc(len(repaired))
                for difference in repaired:
                    log.warning(
                        "Policy in the kernel was changed by somebody else and is repaired: %s", difference
                    )
                findings = await self._in_thread(self._worker.findings)
                if findings is not None:
                    self._report(frozenset((*findings.problems, *forwarding)))
                    self._metrics.policy_staged.set(findings.staged)
                self._health.pass_("policy")
            await asyncio.sleep(CHECK)

    async def _cut_connections(self) -> None:
        """End connections that policy has come to deny, apart from the rounds: to read the kernel's
        connections takes longer than a change."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(_CUT_AFTER)
            self._changed.clear()
            try:
                ended = await asyncio.to_thread(self._worker.cut)
            except DataplaneError as error:
                log.warning("Connections that are denied now cannot be ended, trying again: %s", error)
                await asyncio.sleep(_LONGEST_RETRY)
                self._changed.set()
            else:
                self._metrics.policy_cuts.inc(ended)

    async def _round(self) -> bool:
        """Take in what changed, apply it, and answer the ADDs that wait; return whether all went well."""
        since, waiting = self._woken, self._waiting
        self._wake.clear()
        self._urgent.clear()
        self._woken, self._waiting = 0.0, []
        if self._sources.host_endpoints in self._dirty:
            await self._look_at_interfaces()
        work = self._collect()
        try:
            outcome = await self._in_thread(lambda: self._worker.do(work))
        except DataplaneError as error:
            self._failed(error, str(error), waiting)
            return False
        except Exception as error:
            # The engine may be half-way: a new one gets everything again. The kernel keeps what it has.
            log.exception("Policy cannot be computed; it is computed anew")
            self._start_over(work.registrations)
            self._failed(error, f"policy cannot be computed ({type(error).__name__}: {error})", waiting)
            return False
        self._succeeded(outcome, since, waiting)
        self._last_round = time.monotonic()
        return True

    def _collect(self) -> Work:
        everything = self._worker.needs_everything
        dirty = self._sources.all if everything else tuple(self._dirty)
        self._dirty.clear()
        registrations, self._registrations = self._registrations, []
        changes = [source.take(everything=everything) for source in dirty]
        return Work(changes, registrations, self._interfaces, self._settings, self._source_spoofing)

    async def _look_at_interfaces(self) -> None:
        """Host endpoints are found by the addresses of interfaces; without any, nobody asks."""
        if not self._sources.host_endpoints.items:
            return
        try:
            interfaces = await asyncio.to_thread(self._read_interfaces)
        except DataplaneError as error:
            log.warning("The node's interfaces cannot be read, host endpoints stay as they are: %s", error)
            return
        if interfaces != self._interfaces:
            self._interfaces = interfaces
            self._awake()

    def _start_over(self, registrations: Iterable[Registration]) -> None:
        again = [Registration(item.spec.interface_name, item) for item in self._worker.forget()]
        self._registrations = [*again, *registrations, *self._registrations]

    def _failed(self, error: Exception, sentence: str, waiting: Iterable[asyncio.Future[None]]) -> None:
        self._metrics.policy_errors.inc()
        self._health.fail("policy", sentence)
        _answer(waiting, error if isinstance(error, DataplaneError) else DataplaneError(sentence))

    def _succeeded(self, outcome: Outcome, since: float, waiting: Iterable[asyncio.Future[None]]) -> None:
        _answer(waiting, None)
        if outcome.changed:
            self._changed.set()
            self._metrics.policy_apply_seconds.observe(outcome.ended - outcome.began)
            if since:
                self._metrics.policy_change_seconds.observe(outcome.ended - since)
        self._health.pass_("policy")
        if not self.in_force.is_set():
            log.info("Policy is in force, %.0f ms for all of it", (outcome.ended - outcome.began) * 1e3)
            # What the start has loaded stays. To look for garbage among it would stop every thread for 0.1 s
            # per 1,000 endpoints, again and again.
            gc.collect()
            gc.freeze()
            self.in_force.set()

    def _report(self, problems: frozenset[str]) -> None:
        """Log each sentence once, when it comes up."""
        for problem in sorted(problems - self._reported):
            log.warning("%s", problem)
        for problem in sorted(self._reported - problems):
            log.info("No longer: %s", problem)
        self._reported = problems
        self._metrics.policy_problems.set(len(problems))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _marker(self, source: Source[Any]) -> Callable[[], None]:
        def mark() -> None:
            self._dirty.add(source)
            self._awake()

        return mark

    def _awake(self) -> None:
        if not self._woken:
            self._woken = time.monotonic()
        self._wake.set()


def _answer(waiting: Iterable[asyncio.Future[None]], error: Exception | None) -> None:
    """Tell the ADDs that wait; one that gave up is not there any more."""
    for applied in waiting:
        if applied.done():
            continue
        if error is None:
            applied.set_result(None)
        else:
            applied.set_exception(error)
