"""Policy of one node from scratch: every selector is asked about everything. Slow, short, and the yardstick
that the engine is held against."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tortie.model.endpoints import WorkloadEndpoint
from tortie.model.policies import GlobalNetworkSet, HostEndpoint, NetworkSet, Tier
from tortie.model.policy_natives import LABEL_SERVICE_NAME, EndpointSlice, Namespace, ServiceAccount
from tortie.model.resources import Pod, Resource
from tortie.policy.compile import CompiledPolicy
from tortie.policy.hosts import assign
from tortie.policy.items import (
    DEFAULT_ALLOW,
    KIND_HOST,
    KIND_WORKLOAD,
    Item,
    ItemID,
    Profile,
    effective_labels,
    host_item,
    namespace_profile,
    network_set_item,
    service_account_profile,
    service_members,
    workload_id,
    workload_item,
)
from tortie.policy.local import allowed_sources, endpoint_of
from tortie.policy.sets import ServiceSet, SetDefinition
from tortie.policy.sources import PolicyResource, read_policy
from tortie.policy.state import (
    Address,
    HostRules,
    Member,
    PolicyKey,
    PolicyRules,
    PolicyState,
    WorkloadRules,
)
from tortie.policy.tiers import TierPlace, host_layers, tier_place, workload_tiers


@dataclass(frozen=True, slots=True)
class _World:
    """Everything that was given, read."""

    items: list[tuple[Item, Mapping[str, str]]]  # with the labels in effect
    profiles: Mapping[str, Profile]
    tiers: Mapping[str, TierPlace]
    policies: list[CompiledPolicy]
    slices: list[EndpointSlice]


def snapshot(
    resources: Iterable[Resource],
    node: str,
    *,
    endpoints: Iterable[WorkloadEndpoint] = (),
    interfaces: Mapping[str, Iterable[Address]] | None = None,
    source_spoofing: bool = False,
) -> PolicyState:
    """The state of `node`; `endpoints` are those that CNI registered, `interfaces` the node's own.
    `source_spoofing` as in PolicyEngine.allow_source_spoofing.

    Objects of kinds that policy does not read are skipped.
    """
    world = _read(list(resources), endpoints)
    local = [(item, labels) for item, labels in world.items if item.node == node]
    in_force = [
        policy for policy in world.policies if any(_concerns(policy, item, labels) for item, labels in local)
    ]
    workloads = {
        item.interface: WorkloadRules(
            interface=item.interface,
            addresses=item.networks,
            allowed_sources=item.allowed_sources if source_spoofing else (),
            tiers=workload_tiers(_selecting(world, labels), world.tiers),
            profiles=_profiles_of(world, item),
        )
        for item, labels in local
        if item.id[0] == KIND_WORKLOAD
    }
    hosts = _hosts(world, [entry for entry in local if entry[0].id[0] == KIND_HOST], interfaces or {})
    policies: dict[PolicyKey, PolicyRules] = {policy.key: policy.rules for policy in in_force}
    used = [entry.profiles for entry in workloads.values()] + [entry.profiles for entry in hosts.values()]
    for keys in used:
        policies.update((key, world.profiles[key.name].rules) for key in keys)
    definitions = [definition for policy in in_force for definition in policy.sets.values()]
    return PolicyState(
        sets={definition.id: (definition.kind, _members(world, definition)) for definition in definitions},
        policies=policies,
        workloads=workloads,
        hosts=hosts,
    )


def _read(objects: list[Resource], endpoints: Iterable[WorkloadEndpoint]) -> _World:
    profiles = {DEFAULT_ALLOW.name: DEFAULT_ALLOW}
    tiers: dict[str, TierPlace] = {}
    policies: list[CompiledPolicy] = []
    slices: list[EndpointSlice] = []
    pods: dict[ItemID, Pod] = {}
    items: list[Item] = []
    for resource in objects:
        match resource:
            case Namespace():
                profile = namespace_profile(resource)
                profiles[profile.name] = profile
            case ServiceAccount():
                profile = service_account_profile(resource)
                profiles[profile.name] = profile
            case Tier():
                tiers[resource.metadata.name] = tier_place(resource)
            case EndpointSlice():
                slices.append(resource)
            case Pod():
                pods[KIND_WORKLOAD, resource.metadata.namespace, resource.metadata.name] = resource
            case HostEndpoint():
                items.append(host_item(resource))
            case NetworkSet() | GlobalNetworkSet():
                items.append(network_set_item(resource))
            case _ if isinstance(resource, PolicyResource):
                policy, _ = read_policy(resource)
                if policy is not None and not policy.staged_action:
                    policies.append(policy)
    items += _workloads(pods, {workload_id(endpoint): endpoint for endpoint in endpoints})
    labelled = [(item, effective_labels(item, profiles)) for item in items]
    return _World(labelled, profiles, tiers, policies, slices)


def _workloads(pods: Mapping[ItemID, Pod], registered: Mapping[ItemID, WorkloadEndpoint]) -> Iterator[Item]:
    for item_id in pods.keys() | registered.keys():
        pod = pods.get(item_id)
        endpoint, _ = endpoint_of(pod, registered.get(item_id))
        if endpoint is not None:
            yield workload_item(endpoint, allowed_sources(pod) if pod is not None else ())


def _concerns(policy: CompiledPolicy, item: Item, labels: Mapping[str, str]) -> bool:
    return (item.id[0] == KIND_HOST or not policy.host_only) and policy.selector.matches(labels)


def _selecting(world: _World, labels: Mapping[str, str]) -> list[CompiledPolicy]:
    return [policy for policy in world.policies if policy.selector.matches(labels)]


def _profiles_of(world: _World, item: Item) -> tuple[PolicyKey, ...]:
    found = [world.profiles[name] for name in item.profiles if name in world.profiles]
    return tuple(profile.key for profile in found if profile.rules.ingress or profile.rules.egress)


def _hosts(
    world: _World,
    local: list[tuple[Item, Mapping[str, str]]],
    interfaces: Mapping[str, Iterable[Address]],
) -> dict[str, HostRules]:
    labels = {item.id: labels for item, labels in local}
    known = {name: frozenset(addresses) for name, addresses in interfaces.items()}
    found: dict[str, HostRules] = {}
    for interface, item in assign((item for item, _ in local), known).endpoints.items():
        layers = host_layers(_selecting(world, labels[item.id]), world.tiers)
        found[interface] = HostRules(
            interface=interface,
            addresses=item.networks,
            normal=layers.normal,
            forward=layers.forward,
            untracked=layers.untracked,
            pre_dnat=layers.pre_dnat,
            profiles=_profiles_of(world, item),
        )
    return found


def _members(world: _World, definition: SetDefinition) -> frozenset[Member]:
    if not isinstance(definition, ServiceSet):
        return frozenset(
            member
            for item, labels in world.items
            if definition.selector.matches(labels)
            for member in definition.members(item)
        )
    return frozenset(
        member
        for piece in world.slices
        if piece.metadata.namespace == definition.namespace
        and piece.metadata.labels.get(LABEL_SERVICE_NAME) == definition.name
        for member in service_members(piece, with_ports=definition.with_ports)
    )
