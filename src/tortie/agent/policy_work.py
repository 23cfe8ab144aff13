"""The blocking half of policy on a node: engine and kernel, used by one thread at a time."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tortie.dataplane.apply import HostInterface
from tortie.dataplane.netlink import DataplaneError
from tortie.dataplane.policy import PolicyDataplane
from tortie.dataplane.policy_forward import allow_forwarding
from tortie.dataplane.ruleset import Settings
from tortie.datastore.informer import Key
from tortie.model.constants import INTERFACE_PREFIX
from tortie.model.endpoints import WorkloadEndpoint
from tortie.model.resources import Resource
from tortie.policy.engine import PolicyEngine
from tortie.policy.state import Address, PolicyDelta, PolicyState

R = TypeVar("R", bound=Resource)
log = logging.getLogger(__name__)

Interfaces = Mapping[str, frozenset[Address]]


@dataclass(frozen=True, slots=True)
class Registration:
    """What the CNI server said: an endpoint to connect, or with None an interface that it removed."""

    interface: str
    endpoint: WorkloadEndpoint | None


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind, as they are now."""

    kind: type[Resource]
    items: Mapping[Key, Resource]


@dataclass(slots=True)
class Work:
    """What came in since the last round; `check`: compare the kernel with what was put there."""

    listings: list[Listing] = field(default_factory=list)
    registrations: list[Registration] = field(default_factory=list)
    interfaces: Interfaces = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    source_spoofing: bool = False
    check: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """`changed`: the kernel was changed, which took `seconds`. After a check: what somebody else had changed
    there, sentences about objects that are not in force as they are written, and how many staged policies
    select somebody here."""

    changed: bool
    seconds: float
    repaired: Sequence[str] = ()
    problems: Sequence[str] | None = None
    staged: int = 0


class PolicyWorker:
    """Feeds the engine and applies what it answers. Blocking; one call at a time, `cut` apart."""

    def __init__(self, node: str, dataplane: PolicyDataplane) -> None:
        self._node = node
        self._dataplane = dataplane
        self._engine: PolicyEngine | None = None
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
        """End connections that were allowed before the last changes and are not now; return how many. Another
        thread may `do` meanwhile. Raise DataplaneError; what is left is looked at by the next call."""
        return self._dataplane.cut()

    def do(self, work: Work) -> Outcome:
        """Bring the kernel to what the objects say. Raise DataplaneError; the next call makes up for it."""
        engine, start = self._engine, time.perf_counter()
        if engine is None:
            engine = PolicyEngine(self._node)
        for listing in work.listings:
            engine.sync(listing.kind, listing.items)
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
        if self._engine is None:
            self._engine = engine
            self._dataplane.sync(_whole(delta))
        else:
            # An empty one is applied as well: it makes up for one that the kernel refused.
            self._dataplane.apply(delta)
        seconds = time.perf_counter() - start
        if not work.check:
            return Outcome(bool(delta), seconds)
        problems = [str(problem) for problem in engine.problems()] + _forward()
        staged = sum(bool(policy.interfaces) for policy in engine.staged())
        return Outcome(bool(delta), seconds, self._dataplane.repair(), problems, staged)


def _forward() -> list[str]:
    """Let pods' packets pass a FORWARD chain that drops by default; return what stands against it."""
    try:
        said = allow_forwarding()
    except DataplaneError as error:
        return [f"Pods' packets may be dropped by the FORWARD chain of iptables: {error}"]
    for sentence in said:
        if "added" in sentence:
            log.info("%s", sentence)
    return [sentence for sentence in said if "added" not in sentence]


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
