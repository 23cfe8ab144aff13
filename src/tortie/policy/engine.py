"""Policy of one node, kept current: objects in, what changed out.

    engine.update(pod); engine.remove(NetworkPolicy, "default", "web"); delta = engine.flush()

Nothing is computed twice: an update touches the selectors, sets and endpoints that depend on it, and `flush`
assembles the endpoints that were touched. `snapshot` computes the same from scratch.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from tortie.model.endpoints import WorkloadEndpoint
from tortie.model.policies import GlobalNetworkSet, HostEndpoint, NetworkSet, Tier
from tortie.model.policy_natives import EndpointSlice, Namespace, ServiceAccount
from tortie.model.problems import Problem
from tortie.model.resources import Pod, Resource
from tortie.policy.compile import CompiledPolicy
from tortie.policy.endpoints import LocalEndpoints
from tortie.policy.findings import IGNORED, RULE, TIER, PolicyProblem, findings
from tortie.policy.items import (
    KIND_WORKLOAD,
    Item,
    ItemID,
    Profile,
    effective_labels,
    host_item,
    namespace_profile,
    namespace_profile_name,
    network_set_item,
    service_account_profile,
    service_account_profile_name,
    workload_id,
    workload_item,
)
from tortie.policy.local import allowed_sources, endpoint_of, is_another
from tortie.policy.members import MemberSets
from tortie.policy.sources import POLICY_SOURCES, PolicyResource, policy_key, read_policy
from tortie.policy.state import Address, PolicyDelta, PolicyKey, PolicyRules, PolicyState
from tortie.policy.tiers import place_of, tier_place

R = TypeVar("R", bound=Resource)
ResourceKey = tuple[str, str]  # namespace ("" for a cluster-wide kind), name


@dataclass(frozen=True, slots=True)
class StagedPolicy:
    """A policy that is not enforced, with the node's interfaces that it would concern."""

    key: PolicyKey
    action: str
    tier: str
    interfaces: tuple[str, ...]


class PolicyEngine:
    """Not for several threads. `node` is the node's name in Kubernetes."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._sets = MemberSets()
        self._endpoints = LocalEndpoints()
        self._items: dict[ItemID, Item] = {}
        self._by_profile: defaultdict[str, set[ItemID]] = defaultdict(set)
        self._pods: dict[ResourceKey, Pod] = {}
        self._registered: dict[ItemID, WorkloadEndpoint] = {}
        self._policies: dict[PolicyKey, CompiledPolicy] = {}
        self._in_force: dict[PolicyKey, CompiledPolicy] = {}  # as of the last flush
        self._changed: set[PolicyKey] = set()  # since the last flush
        self._problems: dict[tuple[str, str, str], list[PolicyProblem]] = {}
        self._fed: defaultdict[type[Resource], dict[ResourceKey, Resource]] = defaultdict(dict)

    # --- what comes in -----------------------------------------------------------------------------------

    def update(self, resource: Resource) -> None:
        """An object is new or changed. Raise TypeError for a kind that policy does not read."""
        metadata = resource.metadata
        match resource:
            case Pod():
                self._update_pod(resource)
            case NetworkSet() | GlobalNetworkSet():
                self._note(findings(resource), resource)
                self._put_item(network_set_item(resource))
            case HostEndpoint():
                self._note(findings(resource), resource)
                self._put_item(host_item(resource))
            case EndpointSlice():
                self._sets.put_slice(resource)
            case Namespace():
                self._put_profile(namespace_profile(resource))
            case ServiceAccount():
                self._put_profile(service_account_profile(resource))
            case Tier():
                self._note(findings(resource), resource)
                self._endpoints.put_tier(metadata.name, tier_place(resource))
            case _ if isinstance(resource, PolicyResource):
                self._update_policy(resource)
            case _:
                raise _unknown(type(resource))

    def remove(self, kind: type[Resource], namespace: str, name: str) -> None:
        """An object is gone; nothing happens when it was not known. Raise TypeError as `update`."""
        self._problems.pop((kind.__name__, namespace, name), None)
        if kind in POLICY_SOURCES:
            self._remove_policy(policy_key(kind, namespace, name))
        elif issubclass(kind, Pod):
            self._remove_pod(namespace, name)
        elif issubclass(kind, NetworkSet | GlobalNetworkSet | HostEndpoint):
            self._remove_item((kind.__name__, namespace, name))
        elif issubclass(kind, EndpointSlice):
            self._sets.remove_slice(namespace, name)
        elif issubclass(kind, Namespace):
            self._remove_profile(namespace_profile_name(name))
        elif issubclass(kind, ServiceAccount):
            self._remove_profile(service_account_profile_name(namespace, name))
        elif issubclass(kind, Tier):
            self._endpoints.remove_tier(name)
        else:
            raise _unknown(kind)

    def sync(self, kind: type[R], items: Mapping[ResourceKey, R]) -> None:
        """`items` are all objects of `kind`, as an informer holds them: update what is another object than
        last time, remove what is gone. Not to be mixed with `update` and `remove` of the same kind."""
        fed = self._fed[kind]
        for key in fed.keys() - items.keys():
            del fed[key]
            self.remove(kind, *key)
        for key, resource in items.items():
            if fed.get(key) is not resource:
                fed[key] = resource
                self.update(resource)

    def update_endpoint(self, endpoint: WorkloadEndpoint) -> None:
        """CNI gave `endpoint` its addresses. They count until the pod's object shows them."""
        item_id = workload_id(endpoint)
        self._registered[item_id] = endpoint
        self._refresh_workload(item_id)

    def remove_endpoint(self, interface: str) -> None:
        """CNI removed what `update_endpoint` told of. Once a pod's object shows its addresses, they go when
        that says so."""
        for item_id, endpoint in self._registered.items():
            if endpoint.spec.interface_name == interface:
                del self._registered[item_id]
                self._refresh_workload(item_id)
                break

    @property
    def registered(self) -> tuple[WorkloadEndpoint, ...]:
        """The endpoints whose pods' objects do not show their addresses yet."""
        return tuple(self._registered.values())

    def set_interfaces(self, interfaces: Mapping[str, Iterable[Address]]) -> None:
        """The node's own interfaces with their addresses: host endpoints without interfaceName need them."""
        self._endpoints.set_interfaces(interfaces)

    def allow_source_spoofing(self, allowed: bool) -> None:
        """Whether a pod may send from what its annotation allowedSourcePrefixes names (FelixConfiguration's
        workloadSourceSpoofing is Any); no, unless said."""
        self._endpoints.allow_source_spoofing(allowed)

    # --- what comes out ----------------------------------------------------------------------------------

    def flush(self) -> PolicyDelta:
        """What changed since the last call. Applied to the state of then, it gives the state of now."""
        policies, gone = self._flush_policies()
        change = self._endpoints.flush(self._policies)
        new_sets, changed_sets, gone_sets = self._sets.flush()
        return PolicyDelta(
            new_sets=new_sets,
            changed_sets=changed_sets,
            gone_sets=gone_sets,
            policies=policies | change.profiles,
            gone_policies=frozenset(gone | change.gone_profiles),
            workloads=change.workloads,
            gone_workloads=frozenset(change.gone_workloads),
            hosts=change.hosts,
            gone_hosts=frozenset(change.gone_hosts),
        )

    def state(self) -> PolicyState:
        """The whole, as of the last flush: call that first."""
        rules = {key: policy.rules for key, policy in self._in_force.items()}
        return PolicyState(
            sets=self._sets.current(),
            policies=rules | self._endpoints.profile_rules(),
            workloads=dict(self._endpoints.workloads),
            hosts=dict(self._endpoints.hosts),
        )

    def problems(self) -> list[PolicyProblem]:
        """What is wrong with the objects, and what is done about it; host endpoints as of the last flush."""
        found = [problem for problems in self._problems.values() for problem in problems]
        for key, policy in self._policies.items():
            if not place_of(policy.tier, self._endpoints.tiers).known:
                problem = Problem("spec.tier", policy.tier, "must be the name of a Tier that exists")
                found.append(PolicyProblem(key.kind, key.namespace, key.name, problem, TIER))
        for name, problem in self._endpoints.host_problems:
            found.append(PolicyProblem(HostEndpoint.__name__, "", name, problem))
        return found

    def staged(self) -> list[StagedPolicy]:
        """The staged policies, in the order of their keys."""
        return [
            StagedPolicy(key, policy.staged_action, policy.tier, self._endpoints.interfaces_of(policy))
            for key, policy in sorted(self._policies.items())
            if policy.staged_action
        ]

    # --- policies ----------------------------------------------------------------------------------------

    def _note(self, problems: list[PolicyProblem], resource: Resource) -> None:
        key = (type(resource).__name__, resource.metadata.namespace, resource.metadata.name)
        if problems:
            self._problems[key] = problems
        else:
            self._problems.pop(key, None)

    def _update_policy(self, resource: PolicyResource) -> None:
        policy, unreadable = read_policy(resource)
        self._note(findings(resource, unreadable, IGNORED if policy is None else RULE), resource)
        if policy is None:
            self._remove_policy(
                policy_key(type(resource), resource.metadata.namespace, resource.metadata.name)
            )
            return
        before = self._policies.get(policy.key)
        self._policies[policy.key] = policy
        self._endpoints.replace_policy(before, policy)
        self._changed.add(policy.key)

    def _remove_policy(self, key: PolicyKey) -> None:
        policy = self._policies.pop(key, None)
        if policy is not None:
            self._endpoints.replace_policy(policy, None)
            self._changed.add(key)

    def _flush_policies(self) -> tuple[dict[PolicyKey, PolicyRules], set[PolicyKey]]:
        """Rules that are new or changed, and what is gone: a policy counts if it selects somebody here."""
        rules: dict[PolicyKey, PolicyRules] = {}
        gone: set[PolicyKey] = set()
        for key in self._changed | self._endpoints.take_affected_policies():
            policy = self._policies.get(key)
            if policy is not None and (policy.staged_action or not self._endpoints.selects(policy)):
                policy = None
            before = self._in_force.get(key)
            # First the new sets, then the old ones: a set in both is not built twice.
            for definition in policy.sets.values() if policy is not None else ():
                self._sets.acquire(definition)
            for definition in before.sets.values() if before is not None else ():
                self._sets.release(definition)
            if policy is None:
                if before is not None:
                    del self._in_force[key]
                    gone.add(key)
                continue
            self._in_force[key] = policy
            if before is None or before.rules != policy.rules:
                rules[key] = policy.rules
        self._changed.clear()
        return rules, gone

    # --- pods and other items ----------------------------------------------------------------------------

    def _update_pod(self, pod: Pod) -> None:
        key = (pod.metadata.namespace, pod.metadata.name)
        self._pods[key] = pod
        self._refresh_workload((KIND_WORKLOAD, *key))

    def _remove_pod(self, namespace: str, name: str) -> None:
        pod = self._pods.pop((namespace, name), None)
        item_id = (KIND_WORKLOAD, namespace, name)
        registered = self._registered.get(item_id)
        if registered is not None and pod is not None and not is_another(pod, registered):
            del self._registered[item_id]
        self._refresh_workload(item_id)

    def _refresh_workload(self, item_id: ItemID) -> None:
        pod = self._pods.get(item_id[1:])
        endpoint, registered = endpoint_of(pod, self._registered.get(item_id))
        if registered is None:
            self._registered.pop(item_id, None)
        if endpoint is None:
            self._remove_item(item_id)
        else:
            self._put_item(workload_item(endpoint, allowed_sources(pod) if pod is not None else ()))

    def _put_item(self, item: Item) -> None:
        before = self._items.get(item.id)
        if before == item:
            return  # most of a pod's updates are of no interest here
        if before is None or before.profiles != item.profiles:
            if before is not None:
                self._forget_profiles(before)
            for name in item.profiles:
                self._by_profile[name].add(item.id)
        self._items[item.id] = item
        labels = effective_labels(item, self._endpoints.profiles)
        self._sets.put_item(item, labels)
        if item.node == self._node:
            self._endpoints.put(item, labels)
        elif before is not None and before.node == self._node:
            self._endpoints.remove(before)

    def _remove_item(self, item_id: ItemID) -> None:
        item = self._items.pop(item_id, None)
        if item is None:
            return
        self._forget_profiles(item)
        self._sets.remove_item(item_id)
        if item.node == self._node:
            self._endpoints.remove(item)

    def _forget_profiles(self, item: Item) -> None:
        for name in item.profiles:
            self._by_profile[name].discard(item.id)
            if not self._by_profile[name]:
                del self._by_profile[name]

    def _put_profile(self, profile: Profile) -> None:
        before = self._endpoints.profiles.get(profile.name)
        if before == profile:
            return
        self._endpoints.put_profile(profile)
        self._refresh_profile(profile.name, rules_changed=before is None or before.rules != profile.rules)

    def _remove_profile(self, name: str) -> None:
        if self._endpoints.remove_profile(name):
            self._refresh_profile(name, rules_changed=True)

    def _refresh_profile(self, name: str, *, rules_changed: bool) -> None:
        for item_id in self._by_profile.get(name, ()):
            item = self._items[item_id]
            labels = effective_labels(item, self._endpoints.profiles)
            self._sets.put_item(item, labels)
            if item.node == self._node:
                self._endpoints.relabel(item, labels, dirty=rules_changed)


def _unknown(kind: type[Resource]) -> TypeError:
    return TypeError(
        f"Policy does not read {kind.__name__}: feed it pods, namespaces, service accounts, endpoint slices "
        "and the kinds of tortie.model.policies."
    )
