"""The node's own endpoints: which policies select them, and the rules that follow."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from tortie.model.problems import Problem
from tortie.policy.compile import CompiledPolicy
from tortie.policy.hosts import Assignment, assign
from tortie.policy.index import SelectorIndex
from tortie.policy.items import (
    DEFAULT_ALLOW,
    KIND_HOST,
    KIND_WORKLOAD,
    Item,
    ItemID,
    Profile,
)
from tortie.policy.state import (
    Address,
    HostRules,
    PolicyKey,
    PolicyRules,
    TierRules,
    WorkloadRules,
)
from tortie.policy.tiers import TierPlace, host_layers, workload_tiers

_NO_RULES = PolicyRules()


@dataclass(slots=True)
class EndpointChange:
    """What a flush of the endpoints changed."""

    workloads: dict[str, WorkloadRules] = field(default_factory=dict)
    gone_workloads: set[str] = field(default_factory=set)
    hosts: dict[str, HostRules] = field(default_factory=dict)
    gone_hosts: set[str] = field(default_factory=set)
    profiles: dict[PolicyKey, PolicyRules] = field(default_factory=dict)
    gone_profiles: set[PolicyKey] = field(default_factory=set)


class LocalEndpoints:
    """Workloads and host endpoints of one node. `workloads` and `hosts` (by interface) are as of the last
    flush."""

    def __init__(self) -> None:
        self.profiles: dict[str, Profile] = {DEFAULT_ALLOW.name: DEFAULT_ALLOW}
        self.tiers: dict[str, TierPlace] = {}
        self.workloads: dict[str, WorkloadRules] = {}
        self.hosts: dict[str, HostRules] = {}
        self._items: dict[ItemID, Item] = {}
        self._hosts: dict[ItemID, Item] = {}
        self._indexes: dict[str, SelectorIndex[ItemID]] = {
            KIND_WORKLOAD: SelectorIndex(),
            KIND_HOST: SelectorIndex(),
        }
        self._by_selector: defaultdict[str, set[PolicyKey]] = defaultdict(set)
        self._by_tier: defaultdict[str, dict[PolicyKey, CompiledPolicy]] = defaultdict(dict)
        self._interfaces: dict[str, frozenset[Address]] = {}
        self._source_spoofing = False
        self._interface_of: dict[ItemID, str] = {}  # of the workloads, as of the last flush
        self._assignment = Assignment({})
        self._profile_uses: defaultdict[PolicyKey, int] = defaultdict(int)
        self._used_profiles: dict[PolicyKey, PolicyRules] = {}
        # Since the last flush:
        self._dirty: set[ItemID] = set()
        self._hosts_dirty = False
        self._affected: set[PolicyKey] = set()
        self._touched_profiles: set[PolicyKey] = set()

    @property
    def host_problems(self) -> tuple[tuple[str, Problem], ...]:
        """Host endpoints, by name, that got no interface."""
        return self._assignment.problems

    # --- endpoints ---------------------------------------------------------------------------------------

    def put(self, item: Item, labels: Mapping[str, str]) -> None:
        """An endpoint is new or changed."""
        self._items[item.id] = item
        if item.id[0] == KIND_HOST:
            self._hosts[item.id] = item
        self.relabel(item, labels, dirty=True)

    def relabel(self, item: Item, labels: Mapping[str, str], *, dirty: bool) -> None:
        """The labels in effect may be others now; `dirty`: so may other things."""
        gained, lost = self._indexes[item.id[0]].set_labels(item.id, labels)
        self._affect(gained)
        self._affect(lost)
        if dirty or gained or lost:
            self._mark((item.id,))

    def remove(self, item: Item) -> None:
        """An endpoint is gone."""
        del self._items[item.id]
        self._hosts.pop(item.id, None)
        self._affect(self._indexes[item.id[0]].remove(item.id))
        self._mark((item.id,))

    def set_interfaces(self, interfaces: Mapping[str, Iterable[Address]]) -> None:
        """The node's own interfaces."""
        self._interfaces = {name: frozenset(addresses) for name, addresses in interfaces.items()}
        self._hosts_dirty = True

    def allow_source_spoofing(self, allowed: bool) -> None:
        """Whether the sources that pods ask for are allowed."""
        if self._source_spoofing != allowed:
            self._source_spoofing = allowed
            self._mark(item_id for item_id, item in self._items.items() if item.allowed_sources)

    def _affect(self, selectors: Iterable[str]) -> None:
        for text in selectors:
            self._affected |= self._by_selector[text]

    def _mark(self, items: Iterable[ItemID]) -> None:
        for item_id in items:
            if item_id[0] == KIND_HOST:
                self._hosts_dirty = True
            else:
                self._dirty.add(item_id)

    # --- policies, tiers, profiles -----------------------------------------------------------------------

    def replace_policy(self, before: CompiledPolicy | None, after: CompiledPolicy | None) -> None:
        """A policy is new, changed or gone."""
        if before is not None and after is not None and before.placement == after.placement:
            return  # at most its rules are others: no endpoint's list of policies changes
        for policy in (before, after):
            if policy is not None:
                self._by_tier[policy.tier].pop(policy.key, None)
        if after is not None:
            self._by_selector[after.selector.text].add(after.key)
            self._by_tier[after.tier][after.key] = after
            for index in self._indexes.values():
                self._mark(index.add(after.selector))
        if before is not None and (after is None or after.selector.text != before.selector.text):
            self._detach(before)

    def _detach(self, policy: CompiledPolicy) -> None:
        self._mark_selected(policy)
        text = policy.selector.text
        self._by_selector[text].discard(policy.key)
        if not self._by_selector[text]:
            del self._by_selector[text]
            for index in self._indexes.values():
                index.discard(text)

    def _mark_selected(self, policy: CompiledPolicy) -> None:
        for index in self._indexes.values():
            self._mark(index.matches(policy.selector.text))

    def selects(self, policy: CompiledPolicy) -> bool:
        """Whether the policy concerns any endpoint of the node."""
        text = policy.selector.text
        if not policy.host_only and self._indexes[KIND_WORKLOAD].matches(text):
            return True
        return bool(self._indexes[KIND_HOST].matches(text))

    def interfaces_of(self, policy: CompiledPolicy) -> tuple[str, ...]:
        """The interfaces of the endpoints that the policy selects."""
        text = policy.selector.text
        found = set() if policy.host_only else set(self._indexes[KIND_WORKLOAD].matches(text))
        found |= self._indexes[KIND_HOST].matches(text)
        return tuple(sorted(self._items[item_id].interface for item_id in found))

    def take_affected_policies(self) -> set[PolicyKey]:
        """The policies that began or ceased to select an endpoint since the last call."""
        affected, self._affected = self._affected, set()
        return affected

    def put_tier(self, name: str, place: TierPlace) -> None:
        """A tier is new or changed."""
        if self.tiers.get(name) != place:
            self.tiers[name] = place
            self._mark_tier(name)

    def remove_tier(self, name: str) -> None:
        """A tier is gone."""
        if self.tiers.pop(name, None) is not None:
            self._mark_tier(name)

    def _mark_tier(self, name: str) -> None:
        for policy in self._by_tier.get(name, {}).values():
            self._mark_selected(policy)

    def put_profile(self, profile: Profile) -> None:
        """A profile is new or changed; its endpoints are to be relabelled."""
        self.profiles[profile.name] = profile
        self._touched_profiles.add(profile.key)

    def remove_profile(self, name: str) -> bool:
        """A profile is gone; whether it was there."""
        return self.profiles.pop(name, None) is not None

    # --- what follows ------------------------------------------------------------------------------------

    def flush(self, policies: Mapping[PolicyKey, CompiledPolicy]) -> EndpointChange:
        """Assemble the endpoints that something touched since the last call."""
        change = EndpointChange()
        # Endpoints that the same policies select have the same tiers: these are made, and kept, once.
        assembled: dict[frozenset[str], tuple[TierRules, ...]] = {}
        index = self._indexes[KIND_WORKLOAD]
        present: list[Item] = []
        for item_id in self._dirty:
            item = self._items.get(item_id)
            interface = self._interface_of.pop(item_id, None)
            if interface is not None and (item is None or item.interface != interface):
                self._count(self.workloads.pop(interface).profiles, -1)
                change.gone_workloads.add(interface)
            if item is not None:
                self._interface_of[item_id] = item.interface
                present.append(item)
        for item in present:
            selectors = frozenset(index.matched(item.id))
            tiers = assembled.get(selectors)
            if tiers is None:
                tiers = assembled[selectors] = workload_tiers(
                    self._selecting(selectors, policies), self.tiers
                )
            self._publish_workload(item, tiers, change)
        change.gone_workloads -= change.workloads.keys()
        self._dirty.clear()
        if self._hosts_dirty:
            self._flush_hosts(policies, change)
            self._hosts_dirty = False
        self._flush_profiles(change)
        return change

    def profile_rules(self) -> dict[PolicyKey, PolicyRules]:
        """The rules of the profiles in use, as of the last flush."""
        return dict(self._used_profiles)

    def _selecting(
        self, selectors: Set[str], policies: Mapping[PolicyKey, CompiledPolicy]
    ) -> list[CompiledPolicy]:
        return [policies[name] for text in selectors for name in self._by_selector[text]]

    def _publish_workload(self, item: Item, tiers: tuple[TierRules, ...], change: EndpointChange) -> None:
        rules = WorkloadRules(
            interface=item.interface,
            addresses=item.networks,
            allowed_sources=item.allowed_sources if self._source_spoofing else (),
            tiers=tiers,
            profiles=self._profiles_of(item),
        )
        before = self.workloads.get(item.interface)
        if before == rules:
            return
        if before is None or before.profiles != rules.profiles:
            self._count(rules.profiles, 1)
            self._count(before.profiles if before is not None else (), -1)
        self.workloads[item.interface] = change.workloads[item.interface] = rules

    def _flush_hosts(
        self,
        policies: Mapping[PolicyKey, CompiledPolicy],
        change: EndpointChange,
    ) -> None:
        self._assignment = assign(self._hosts.values(), self._interfaces)
        index = self._indexes[KIND_HOST]
        hosts: dict[str, HostRules] = {}
        for interface, item in self._assignment.endpoints.items():
            layers = host_layers(self._selecting(index.matched(item.id), policies), self.tiers)
            hosts[interface] = HostRules(
                interface=interface,
                addresses=item.networks,
                normal=layers.normal,
                forward=layers.forward,
                untracked=layers.untracked,
                pre_dnat=layers.pre_dnat,
                profiles=self._profiles_of(item),
            )
        for interface, rules in hosts.items():
            if self.hosts.get(interface) != rules:
                change.hosts[interface] = rules
        change.gone_hosts |= self.hosts.keys() - hosts.keys()
        for rules in hosts.values():
            self._count(rules.profiles, 1)
        for rules in self.hosts.values():
            self._count(rules.profiles, -1)
        self.hosts = hosts

    def _profiles_of(self, item: Item) -> tuple[PolicyKey, ...]:
        """The profiles that decide anything; one that is not there allows nothing."""
        found = (self.profiles.get(name) for name in item.profiles)
        return tuple(profile.key for profile in found if profile is not None and profile.rules != _NO_RULES)

    def _count(self, profiles: Iterable[PolicyKey], step: int) -> None:
        for key in profiles:
            self._profile_uses[key] += step
            self._touched_profiles.add(key)

    def _flush_profiles(self, change: EndpointChange) -> None:
        for key in self._touched_profiles:
            if self._profile_uses[key]:
                rules = self.profiles[key.name].rules
                if self._used_profiles.get(key) != rules:
                    self._used_profiles[key] = change.profiles[key] = rules
                continue
            del self._profile_uses[key]
            if self._used_profiles.pop(key, None) is not None:
                change.gone_profiles.add(key)
        self._touched_profiles.clear()
