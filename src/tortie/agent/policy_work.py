"""The blocking half of policy on a node: engine and kernel, used by one thread at a time."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tortie.agent.sources import Changes
from tortie.dataplane.apply import HostInterface
from tortie.dataplane.netlink import DataplaneError
from tortie.dataplane.policy import PolicyDataplane
from tortie.dataplane.ruleset import Settings
from tortie.datastore.informer import Key
from tortie.model.constants import INTERFACE_PREFIX
from tortie.model.endpoints import WorkloadEndpoint
from tortie.model.resources import Resource
from tortie.policy.engine import PolicyEngine
from tortie.policy.state import Address, PolicyDelta, PolicyState

log = logging.getLogger(__name__)

Interfaces = Mapping[str, frozenset[Address]]


@dataclass(frozen=True, slots=True)
class Registration:
    """What the CNI server said: an endpoint to connect, or with None an interface that it removed."""

    interface: str
    endpoint: WorkloadEndpoint | None


@dataclass(slots=True)
class Work:
    """What came in since the last round."""

    changes: list[Changes[Any]] = field(default_factory=list)
    registrations: list[Registration] = field(default_factory=list)
    interfaces: Interfaces = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    source_spoofing: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """`changed`: the kernel was changed. Seconds on the clock of time.monotonic: when the work `began`, the
    change was `computed`, and the kernel had it (`ended`)."""

    changed: bool
    began: float
    computed: float
    ended: float


@dataclass(frozen=True, slots=True)
class Findings:
    """Sentences about objects that are not in force as they are written, and how many staged policies select
    somebody here."""

    problems: Sequence[str]
    staged: int


class PolicyWorker:
    """Feeds the engine and applies what it answers. Blocking; one call at a time, but for `cut` and `verify`,
    which another thread may call meanwhile."""

    def __init__(self, node: str, dataplane: PolicyDataplane) -> None:
        self._node = node
        self._dataplane = dataplane
        self._engine: PolicyEngine | None = None
        self._fed: dict[type[Resource], dict[Key, Resource]] = {}  # what the engine knows
        self._interfaces: Interfaces = {}

    @property
    def needs_everything(self) -> bool:
        """Whether the next work has to contain every kind: at the start, and after `forget`."""
        return self._engine is None

    def guard(self) -> None:
        """Close the pods' interfaces unless policy of an earlier agent is in force. Raise DataplaneError."""
        if self._dataplane.guard():
            log.warning("No policy of an earlier agent is in force: pods are cut off until it is known")

    def forget(self) -> Sequence[WorkloadEndpoint]:
        """Start over with the next work; return endpoints that the CNI server told of and the API has not
        shown yet, to be registered again."""
        engine, self._engine = self._engine, None
        return engine.registered if engine else ()

    def cut(self) -> int:
        """End connections that were allowed before the last changes and are not now; return how many. Raise
        DataplaneError; what is left is looked at by the next call."""
        return self._dataplane.cut()

    def verify(self) -> tuple[list[str], list[str]]:
        """Compare the kernel with what was put there, and repair it; return what differed, and what stands
        against the pods' packets outside our table. Raise DataplaneError."""
        return self._dataplane.repair(), self._forward()

    def findings(self) -> Findings | None:
        """What the engine has to say about the objects; None while it knows none."""
        if self._engine is None:
            return None
        staged = sum(bool(policy.interfaces) for policy in self._engine.staged())
        return Findings([str(problem) for problem in self._engine.problems()], staged)

    def do(self, work: Work) -> Outcome:
        """Bring the kernel to what the objects say. Raise DataplaneError; the next call makes up for it."""
        began, engine = time.monotonic(), self._engine
        if engine is None:
            engine = PolicyEngine(self._node)
            self._fed.clear()
        for change in work.changes:
            feed(engine, self._fed.setdefault(change.kind, {}), change)
        for registration in work.registrations:
            if registration.endpoint is not None:
                engine.update_endpoint(registration.endpoint)
            else:
                engine.remove_endpoint(registration.interface)
        if self._engine is None or work.interfaces != self._interfaces:
            engine.set_interfaces(work.interfaces)
            self._interfaces = work.interfaces
        engine.allow_source_spoofing(work.source_spoofing)
        self._dataplane.configure(work.settings)
        delta = engine.flush()
        computed = time.monotonic()
        if self._engine is None:
            self._engine = engine
            took = self._dataplane.sync(_whole(delta))
            log.info("Policy: rules %.0f ms, kernel %.0f ms", took.rules * 1e3, took.kernel * 1e3)
        else:
            # An empty one is applied as well: it makes up for one that the kernel refused.
            self._dataplane.apply(delta)
        return Outcome(bool(delta), began, computed, time.monotonic())

    def _forward(self) -> list[str]:
        """Let pods' packets pass a FORWARD chain that drops by default; return what stands against it."""
        try:
            said = self._dataplane.allow_forwarding()
        except DataplaneError as error:
            return [f"Pods' packets may be dropped by the FORWARD chain of iptables: {error}"]
        for sentence in said:
            if "added" in sentence:
                log.info("%s", sentence)
        return [sentence for sentence in said if "added" not in sentence]


def feed(engine: PolicyEngine, fed: dict[Key, Any], change: Changes[Any]) -> None:
    """Tell the engine of objects that are others than last time, and of what is gone; `fed`, which is kept
    current, is what it knows of this kind."""
    gone = [key for key, resource in change.items.items() if resource is None]
    if change.complete:
        gone += fed.keys() - change.items.keys()
    for key in gone:
        if fed.pop(key, None) is not None:
            engine.remove(change.kind, *key)
    for key, resource in change.items.items():
        if resource is not None and fed.get(key) is not resource:
            fed[key] = resource
            engine.update(resource)


def own_interfaces(links: Iterable[HostInterface]) -> Interfaces:
    """Addresses of the node's own interfaces, those of pods left out."""
    return {
        link.name: frozenset(address.ip for address in link.addresses)
        for link in links
        if not link.name.startswith(INTERFACE_PREFIX)
    }


def _whole(delta: PolicyDelta) -> PolicyState:
    """What a new engine's first delta amounts to."""
    return PolicyState(
        sets=delta.new_sets, policies=delta.policies, workloads=delta.workloads, hosts=delta.hosts
    )
