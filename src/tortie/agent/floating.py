"""Floating addresses of one node's pods: from the pods' annotations into the kernel, and kept there.

The API tells which pods ask for which addresses; the CNI server tells a pod's own address before the API
does, and when its interface is gone. An annotation that changes counts at once, as in Calico. Nothing is
touched before the pods and FelixConfiguration are known: what an earlier agent left stays in force meanwhile.

Other nodes' floating addresses are told to the loop of routes: see `elsewhere`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, ip_address, ip_interface
from typing import Final

from tortie.agent.sources import Source
from tortie.dataplane.floating import FloatingDataplane
from tortie.dataplane.netlink import DataplaneError
from tortie.model.constants import ANNOTATION_FLOATING
from tortie.model.endpoints import WorkloadEndpoint, is_finished, workload_endpoint
from tortie.model.felix import FelixConfigurationSpec
from tortie.model.floating import Address, FloatingError, parse_floating
from tortie.model.names import veth_name
from tortie.model.resources import Pod
from tortie.policy.local import endpoint_of
from tortie.routing.borrowed import Borrowed
from tortie.routing.floating import FloatingDemand, FloatingPod, FloatingState

log = logging.getLogger(__name__)

# Seconds. Pods change all the time and hardly ever because of a floating address; an ADD does not wait.
COALESCE: Final = 0.25
CHECK: Final = 5.0  # seconds between comparisons of the kernel with what was put there
_FIRST_RETRY: Final = 0.5  # seconds before the first new attempt after an error; doubled up to _LONGEST_RETRY
_LONGEST_RETRY: Final = 30.0


def enabled(felix: FelixConfigurationSpec) -> bool:
    """FelixConfiguration floatingIPs; Calico's default is Disabled."""
    return felix.floating_ips.lower() == "enabled"


class FloatingAgent:
    """Keeps floating addresses in force. Implements `tortie.cni.guard.FloatingAddresses`."""

    def __init__(self, *, node: str, pods: Source[Pod], dataplane: FloatingDataplane) -> None:
        self._node = node
        self._pods = pods
        self._dataplane = dataplane
        self._enabled: bool | None = None  # None: FelixConfiguration is not known yet
        self._told: dict[str, WorkloadEndpoint] = {}  # by interface: what ADD said
        self._state = FloatingState()  # in force
        # IPv4 addresses that float on other nodes. One that is in a pool with VXLAN needs a route there.
        self.elsewhere: frozenset[Borrowed] = frozenset()
        self._callbacks: list[Callable[[], None]] = []
        self._reported: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="floating")
        pods.on_change(self._wake.set)

    def configure(self, allowed: bool) -> None:
        """Whether FelixConfiguration wants floating addresses to be in force; `begin` comes first."""
        if allowed != self._enabled:
            self._enabled = allowed
            self._wake.set()

    async def begin(self, allowed: bool) -> None:
        """The first `configure`; when it returns, `elsewhere` is what the API knows."""
        self.configure(allowed)
        if allowed:
            await self._pods.settled.wait()
            self._look_elsewhere()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` when `elsewhere` changed; it must neither block nor raise."""
        self._callbacks.append(callback)

    # --- for the CNI server ---------------------------------------------------------------------------------

    async def endpoint_ready(self, endpoint: WorkloadEndpoint) -> None:
        """See `FloatingAddresses`."""
        interface, translations = endpoint.spec.interface_name, self._state.translations
        self._told[interface] = endpoint
        asked = [ip_address(nat.external) for nat in endpoint.spec.ip_nats]
        in_the_way = bool(translations) and any(address in translations for address in _addresses(endpoint))
        if not asked and not in_the_way:
            return
        if asked and not self._enabled:
            log.warning(
                "Pod %s/%s asks for floating addresses; they lead nowhere until FelixConfiguration default "
                "has floatingIPs Enabled",
                endpoint.metadata.namespace,
                endpoint.spec.pod,
            )
            return
        await self._round()
        for external in asked:
            reason = self._state.refused.get((interface, external))
            if reason:
                raise FloatingError(reason)

    async def endpoint_gone(self, interface: str) -> None:
        """See `FloatingAddresses`."""
        self._told.pop(interface, None)
        if self._concerns(interface):
            await self._round()

    async def differences(self, interface: str) -> list[str]:
        """See `FloatingAddresses`."""
        if not self._concerns(interface):
            return []
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: self._dataplane.differences(interface))

    def _concerns(self, interface: str) -> bool:
        return any(item.interface == interface for item in self._state.translations.values())

    # --- the loop -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep them in force until cancelled; what is in the kernel then stays."""
        retry = _FIRST_RETRY
        try:
            while True:
                self._wake.clear()
                pause = CHECK
                if self._enabled is not None and self._pods.settled.is_set():
                    try:
                        await self._round()
                        retry = _FIRST_RETRY
                    except (DataplaneError, OSError) as error:
                        log.error("Floating addresses are not all in force, trying again: %s", error)
                        pause, retry = retry, min(retry * 2, _LONGEST_RETRY)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                    await asyncio.sleep(COALESCE)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _look_elsewhere(self) -> None:
        found = frozenset(self._on_other_nodes() if self._enabled else ())
        if found:  # what leads to a pod here leads nowhere else
            pods = self._own_pods()
            own = self._taken(pods).keys() | {item for pod in self._asking(pods, []) for item in pod.external}
            found = frozenset(item for item in found if item.address not in own)
        if found != self.elsewhere:
            self.elsewhere = found
            for callback in self._callbacks:
                callback()

    def _on_other_nodes(self) -> Iterator[Borrowed]:
        for pod in self._pods.items.values():
            if pod.spec.node_name == self._node or ANNOTATION_FLOATING not in pod.metadata.annotations:
                continue
            # One that is being attached has no endpoint yet, one that ran to its end has none any more.
            endpoint = workload_endpoint(pod)
            for nat in endpoint.spec.ip_nats if endpoint is not None else ():
                address = ip_address(nat.external)
                if isinstance(address, IPv4Address):
                    yield Borrowed(address, pod.spec.node_name)

    async def _round(self) -> None:
        """Bring the kernel to what is asked for now. Raise DataplaneError.

        Rounds follow each other in one thread, in the order of their looks at the pods."""
        problems, demand = self._demand()
        if demand.pods or self._dataplane.holds_something:
            await asyncio.get_running_loop().run_in_executor(self._thread, lambda: self._apply(demand))
        state = self._state
        self._report({*problems, *state.refused.values(), *state.waiting.values()})
        self._look_elsewhere()

    def _apply(self, demand: FloatingDemand) -> None:
        """In the thread, so that what was done is known also when nobody waits for it any more."""
        applied = self._dataplane.apply(demand)
        self._state = applied.state
        for sentence in applied.repaired:
            log.warning("Floating addresses were changed by somebody else and are repaired: %s", sentence)
        for sentence in applied.changes:
            log.info("Floating addresses: %s", sentence)

    def _demand(self) -> tuple[list[str], FloatingDemand]:
        """What is asked for now, and sentences about annotations that cannot be read."""
        if not self._enabled:
            return [], FloatingDemand()
        problems: list[str] = []
        own = self._own_pods()
        pods = list(self._asking(own, problems))
        return problems, FloatingDemand(tuple(pods), self._taken(own) if pods else {})

    def _own_pods(self) -> list[Pod]:
        return [pod for pod in self._pods.items.values() if pod.spec.node_name == self._node]

    def _asking(self, own: Iterable[Pod], problems: list[str]) -> Iterator[FloatingPod]:
        shown: set[str] = set()
        for pod in own:
            interface = veth_name(pod.metadata.namespace, pod.metadata.name)
            shown.add(interface)
            text = pod.metadata.annotations.get(ANNOTATION_FLOATING)
            if not text:
                continue
            if pod.spec.host_network or is_finished(pod):
                continue
            name = f"{pod.metadata.namespace}/{pod.metadata.name}"
            endpoint, _ = endpoint_of(pod, self._told.get(interface))
            try:
                external = parse_floating(text)
            except FloatingError as error:
                problems.append(f"Pod {name}: {error}; it has no floating addresses until then")
                continue
            yield FloatingPod(name, interface, _addresses(endpoint) if endpoint else (), external)
        for interface, endpoint in self._told.items():
            if endpoint.spec.ip_nats and interface not in shown:
                external = tuple(ip_address(nat.external) for nat in endpoint.spec.ip_nats)
                yield FloatingPod(_name(endpoint), interface, _addresses(endpoint), external)

    def _taken(self, own: Iterable[Pod]) -> dict[Address, str]:
        """Addresses of this node's pods."""
        endpoints = [*self._told.values(), *filter(None, map(workload_endpoint, own))]
        return {
            address: f"pod {_name(endpoint)}" for endpoint in endpoints for address in _addresses(endpoint)
        }

    def _report(self, problems: set[str]) -> None:
        """Log each sentence once, when it comes up."""
        for problem in sorted(problems - self._reported):
            log.warning("%s", problem)
        for problem in sorted(self._reported - problems):
            log.info("No longer: %s", problem)
        self._reported = frozenset(problems)


def _name(endpoint: WorkloadEndpoint) -> str:
    return f"{endpoint.metadata.namespace}/{endpoint.spec.pod}"


def _addresses(endpoint: WorkloadEndpoint) -> tuple[Address, ...]:
    return tuple(ip_interface(text).ip for text in endpoint.spec.ip_networks)
