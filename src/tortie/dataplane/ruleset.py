"""From policy to the content of the kernel's table: chains, rules, sets. Pure: no kernel, no root.

`Ruleset` holds what the table should be. `load` takes a whole state, `change` a delta and answers with what
the delta changes in the table: its cost is that of what changed, not that of the table. Only what an endpoint
refers to is in the table: a policy's chain appears with the first endpoint that it applies to, a set with the
first rule that names it, and both go with the last.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tortie.dataplane import nfnetlink_expressions as nft
from tortie.dataplane import ruleset_base as base
from tortie.dataplane.nfnetlink_objects import Element, Hook, SetType
from tortie.dataplane.ruleset_endpoints import (
    WILDCARD,
    EndpointParts,
    Failsafe,
    PolicyUse,
    Purpose,
    Settings,
    host_parts,
    workload_parts,
)
from tortie.dataplane.ruleset_names import TABLE, interface_key, policy_chain
from tortie.dataplane.ruleset_rules import Rendering, Verdicts, log, set_mark
from tortie.dataplane.ruleset_sets import KernelSet, Members, MemberSet, elements
from tortie.policy.state import (
    Action,
    HostRules,
    Member,
    PolicyDelta,
    PolicyKey,
    PolicyRules,
    PolicyState,
    Rule,
    SetChange,
    SetID,
    SetKind,
    WorkloadRules,
)

__all__ = ["TABLE", "Failsafe", "Ruleset", "Settings", "Update"]

_BASE = "the base chains"  # owner of the sets that base chains name; no chain is called so
_NO_RULES = PolicyRules()


@dataclass(slots=True)
class Update:
    """What to change in the table. `chains` has the new content of chains that are new or changed;
    an element that is in `removed` and in `added` gets another verdict."""

    new_sets: dict[str, SetType] = field(default_factory=dict)
    chains: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    new_chains: set[str] = field(default_factory=set)
    removed: dict[str, set[Element]] = field(default_factory=dict)
    added: dict[str, set[Element]] = field(default_factory=dict)
    gone_chains: set[str] = field(default_factory=set)
    gone_sets: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(
            self.new_sets or self.chains or self.removed or self.added or self.gone_chains or self.gone_sets
        )


class Ruleset:
    """The table as it should be. `chains`, `sets` and `members` are by name."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.load(PolicyState())

    def load(self, state: PolicyState) -> None:
        """Forget everything and take this state. Raise ValueError for names no interface can have, before
        anything is forgotten."""
        delta = PolicyDelta(
            new_sets=state.sets, policies=state.policies, workloads=state.workloads, hosts=state.hosts
        )
        self._named_endpoints(delta)
        self._clear()
        self.change(delta)

    def _clear(self) -> None:
        self.chains: dict[str, tuple[bytes, ...]] = {}
        self.sets: dict[str, SetType] = dict(base.SETS)
        self.members: dict[str, set[Element]] = {name: set() for name in base.SETS}
        self._policies: dict[PolicyKey, PolicyRules] = {}
        self._sources: dict[SetID, Members] = {}
        self._workloads: dict[str, WorkloadRules] = {}
        self._hosts: dict[str, HostRules] = {}
        self._parts: dict[tuple[str, str], EndpointParts] = {}
        self._users: dict[PolicyUse, set[tuple[str, str]]] = {}
        self._chain_sets: dict[str, frozenset[KernelSet]] = {}
        self._set_refs: Counter[KernelSet] = Counter()
        self._set_users: dict[SetID, set[PolicyUse]] = {}
        self._named: dict[PolicyUse, frozenset[SetID]] = {}
        self._touched: set[KernelSet] = set()
        self._base_key: tuple[bool, bool] | None = None
        self._base_chains: frozenset[str] = frozenset()
        pass_bit, accepted = self.settings.passed, self.settings.accepted
        accept, leave = nft.verdict(nft.NF_ACCEPT), set_mark(pass_bit) + nft.verdict(nft.NFT_RETURN)
        note = log(self.settings.log_prefix)
        marked = set_mark(accepted)
        normal = Verdicts(accept, leave, note)
        untracked = Verdicts(marked + nft.notrack() + accept, leave, note)
        self._verdicts = {
            Purpose.INGRESS: normal,
            Purpose.EGRESS: normal,
            Purpose.UNTRACKED_INGRESS: untracked,
            Purpose.UNTRACKED_EGRESS: untracked,
            Purpose.PRE_DNAT: Verdicts(marked + accept, leave, note),
        }

    def configure(self, settings: Settings) -> Update:
        """Take other settings; return what they change in the table: the base chains. Raise ValueError for
        other marks or another log prefix, which stand in every policy's rules."""
        if not settings.same_in_policies(self.settings):
            raise ValueError("mark_mask and log_prefix stand in every policy's rules: load the state anew")
        self.settings = settings
        self._base_key = None
        update = Update()
        self._write_base(update)
        self._settle_sets(update)
        return update

    @property
    def base_chains(self) -> Mapping[str, Hook]:
        """Base chains by name, and where they are attached."""
        return MappingProxyType(base.BASE_CHAINS)

    @property
    def workloads(self) -> Mapping[str, WorkloadRules]:
        """Workloads by interface."""
        return MappingProxyType(self._workloads)

    @property
    def policies(self) -> Mapping[PolicyKey, PolicyRules]:
        """Policies and profiles, with their rules as they are now."""
        return MappingProxyType(self._policies)

    def set_members(self, identity: SetID) -> frozenset[Member] | set[Member]:
        """Members of a set of policy; an unknown one is empty."""
        found = self._sources.get(identity)
        return found.members if found else frozenset()

    def state(self) -> PolicyState:
        """Everything that was loaded and changed, as one state."""
        return PolicyState(
            sets={name: (item.kind, frozenset(item.members)) for name, item in self._sources.items()},
            policies=dict(self._policies),
            workloads=dict(self._workloads),
            hosts=dict(self._hosts),
        )

    def workloads_using(self, sets: Iterable[SetID], policies: Iterable[PolicyKey]) -> set[str]:
        """Interfaces of workloads to which a policy of these applies, or one with a rule that names a set."""
        uses = {use for identity in sets for use in self._set_users.get(identity, ())}
        uses |= {(purpose, key) for key in policies for purpose in (Purpose.INGRESS, Purpose.EGRESS)}
        return {
            interface for use in uses for kind, interface in self._users.get(use, ()) if kind == "workload"
        }

    def change(self, delta: PolicyDelta) -> Update:
        """Take a delta; return what it changes in the table. Raise ValueError as `load` does, before
        anything is changed."""
        update = Update()
        parts = self._named_endpoints(delta)
        rewrite: set[PolicyUse] = set()
        self._change_sets(delta, update, rewrite)
        passing = self._change_policies(delta, rewrite)
        for use in passing:
            parts |= {endpoint: None for endpoint in self._users.get(use, ()) if endpoint not in parts}
        needed_before: dict[PolicyUse, bool] = {}
        for endpoint in parts:
            self._change_endpoint(endpoint, delta, update, needed_before)
        for use, was_needed in needed_before.items():
            if not self._users.get(use):
                self._users.pop(use, None)
                rewrite.discard(use)
                if was_needed:
                    self._drop_chain(policy_chain(*use), update, use)
            elif not was_needed:
                rewrite.add(use)
        for use in rewrite:
            if use in self._users:
                self._write_policy(use, update)
        self._forget_sets(delta.gone_sets, update, rewrite)
        self._write_base(update)
        self._settle_sets(update)
        return update

    def _named_endpoints(self, delta: PolicyDelta) -> dict[tuple[str, str], None]:
        """Endpoints that the delta names; their names are checked here, while nothing is changed yet."""
        for interface in (*delta.workloads, *(name for name in delta.hosts if name != WILDCARD)):
            interface_key(interface)
        named = [("workload", name) for name in (*delta.gone_workloads, *delta.workloads)]
        return dict.fromkeys([*named, *(("host", name) for name in (*delta.gone_hosts, *delta.hosts))])

    def _change_sets(self, delta: PolicyDelta, update: Update, rewrite: set[PolicyUse]) -> None:
        changes: dict[SetID, SetChange] = dict(delta.changed_sets)
        for identity, (kind, members) in delta.new_sets.items():
            known = self._sources.get(identity)
            if known is None or known.kind is not kind:
                self._sources[identity] = Members(kind, members)
                rewrite |= self._set_users.get(identity, set())  # rules that named it before it was there
            else:
                changes[identity] = SetChange(members - known.members, frozenset(known.members - members))
        for identity, change in changes.items():
            self._change_members(identity, change, update, rewrite)

    def _change_members(
        self, identity: SetID, change: SetChange, update: Update, rewrite: set[PolicyUse]
    ) -> None:
        known = self._sources.setdefault(identity, Members(SetKind.NETWORKS, ()))
        old_shape = known.shape
        known.change(change.added, change.removed)
        if known.shape != old_shape:
            rewrite |= self._set_users.get(identity, set())
        for family, ranges in old_shape:
            kernel_set = MemberSet(identity, known.kind, family, ranges)
            if (family, ranges) not in known.shape or kernel_set not in self._set_refs:
                continue  # rules name another set from now on, or none
            if ranges:
                # Ranges merge with their neighbours, so a member is no element of its own.
                new, old = known.elements(family), self.members[kernel_set.name]
                self._change_elements(kernel_set.name, new - old, old - new, update)
            else:
                joining = elements(change.added, family, ranges=False)
                leaving = elements(change.removed - change.added, family, ranges=False)
                self._change_elements(kernel_set.name, joining, leaving, update)

    def _forget_sets(self, gone: Iterable[SetID], update: Update, rewrite: set[PolicyUse]) -> None:
        for identity in gone:
            if identity in self._set_users:  # a rule names it all the same: it is empty now
                self._change_members(
                    identity, SetChange(removed=frozenset(self.set_members(identity))), update, rewrite
                )
            self._sources.pop(identity, None)

    def _change_elements(
        self, name: str, added: Iterable[Element], removed: Iterable[Element], update: Update
    ) -> None:
        """Note elements that really join and leave a set, and keep `members`."""
        members = self.members[name]
        leaving = members.intersection(removed)
        joining = set(added) - members
        members -= leaving
        members |= joining
        if leaving:
            update.removed.setdefault(name, set()).update(leaving)
        if joining:
            update.added.setdefault(name, set()).update(joining)

    def _change_policies(self, delta: PolicyDelta, rewrite: set[PolicyUse]) -> set[PolicyUse]:
        """Take new rules; return the uses of policies that began or ceased to pass."""
        flipped = set()
        for key, rules in delta.policies.items():
            for purpose in Purpose:
                use = (purpose, key)
                if use in self._users:
                    rewrite.add(use)
                    if self._passes(use) != _can_pass(rules, purpose):
                        flipped.add(use)
            self._policies[key] = rules
        for key in delta.gone_policies:
            self._policies.pop(key, None)
            rewrite |= {(purpose, key) for purpose in Purpose if (purpose, key) in self._users}
        return flipped

    def _passes(self, use: PolicyUse) -> bool:
        return _can_pass(self._policies.get(use[1], _NO_RULES), use[0])

    def _change_endpoint(
        self,
        endpoint: tuple[str, str],
        delta: PolicyDelta,
        update: Update,
        needed_before: dict[PolicyUse, bool],
    ) -> None:
        kind, interface = endpoint
        old = self._parts.pop(endpoint, None)
        new: EndpointParts | None = None
        if kind == "workload":
            workload = delta.workloads.get(interface)
            if workload is None and interface not in delta.gone_workloads:
                workload = self._workloads.get(interface)
            self._workloads.pop(interface, None)
            if workload is not None:
                self._workloads[interface] = workload
                new = workload_parts(workload, self.settings, self._passes)
        else:
            host = delta.hosts.get(interface)
            if host is None and interface not in delta.gone_hosts:
                host = self._hosts.get(interface)
            self._hosts.pop(interface, None)
            if host is not None:
                self._hosts[interface] = host
                new = host_parts(host, self.settings, self._passes)
        if new is not None:
            self._parts[endpoint] = new
        old_uses = old.policies if old else frozenset()
        new_uses = new.policies if new else frozenset()
        for use in old_uses ^ new_uses:
            needed_before.setdefault(use, bool(self._users.get(use)))
            users = self._users.setdefault(use, set())
            if use in new_uses:
                users.add(endpoint)
            else:
                users.discard(endpoint)
        self._replace_parts(old, new, update)

    def _replace_parts(self, old: EndpointParts | None, new: EndpointParts | None, update: Update) -> None:
        old_chains, new_chains = (old.chains if old else {}), (new.chains if new else {})
        for name, rules in new_chains.items():
            self._put_chain(name, rules, update)
        for name in old_chains.keys() - new_chains.keys():
            self._drop_chain(name, update)
        old_elements, new_elements = (old.elements if old else {}), (new.elements if new else {})
        for name in {**old_elements, **new_elements}:
            before, after = old_elements.get(name, set()), new_elements.get(name, set())
            self._change_elements(name, after - before, before - after, update)

    def _put_chain(self, name: str, rules: tuple[bytes, ...], update: Update) -> None:
        old = self.chains.get(name)
        if old == rules:
            return
        if old is None:
            update.new_chains.add(name)
        self.chains[name] = rules
        update.chains[name] = rules

    def _drop_chain(self, name: str, update: Update, use: PolicyUse | None = None) -> None:
        if self.chains.pop(name, None) is not None:
            update.gone_chains.add(name)
        self._use_sets(name, frozenset(), use)

    def _write_policy(self, use: PolicyUse, update: Update) -> None:
        purpose, key = use
        policy = self._policies.get(key, _NO_RULES)
        rendering = Rendering(self._verdicts[purpose], self._find_set)
        rules = rendering.rules(policy.ingress if purpose.ingress else policy.egress)
        name = policy_chain(purpose, key)
        self._put_chain(name, rules, update)
        self._use_sets(name, frozenset(rendering.used), use, policy)

    def _find_set(self, identity: SetID, kind: SetKind, family: int) -> KernelSet | None:
        known = self._sources.get(identity)
        if known is None or known.kind is not kind:
            # Named before it is there: an empty set, until a delta brings it and the rule is written again.
            return MemberSet(identity, kind, family, ranges=False) if family == 4 else None
        return known.kernel_set(identity, family)

    def _use_sets(
        self,
        owner: str,
        used: frozenset[KernelSet],
        use: PolicyUse | None = None,
        policy: PolicyRules = _NO_RULES,
    ) -> None:
        """Note which of the kernel's sets a chain names now, and which sets of policy its policy names."""
        old = self._chain_sets.pop(owner, frozenset())
        if used:
            self._chain_sets[owner] = used
        self._set_refs.update(used)
        self._set_refs.subtract(old)
        self._touched |= old ^ used
        if use is None:
            return
        for identity in self._named.pop(use, ()):
            users = self._set_users[identity]
            users.discard(use)
            if not users:
                del self._set_users[identity]
        named = _sets_of(policy.ingress if use[0].ingress else policy.egress)
        if named:
            self._named[use] = named
            for identity in named:
                self._set_users.setdefault(identity, set()).add(use)

    def _write_base(self, update: Update) -> None:
        """The base chains depend on whether there are host endpoints, and a wildcard among them."""
        key = (bool(self._hosts), WILDCARD in self._hosts)
        if key == self._base_key:
            return
        parts = base.base_parts(self.settings, frozenset(self._hosts))
        for name, rules in parts.chains.items():
            self._put_chain(name, rules, update)
        for name in self._base_chains - parts.chains.keys():
            self._drop_chain(name, update)
        self._use_sets(_BASE, parts.used)
        self._base_chains = frozenset(parts.chains)
        self._base_key = key

    def _settle_sets(self, update: Update) -> None:
        """Sets that are named for the first time appear; those that nothing names any more go."""
        for kernel_set in self._touched:
            name = kernel_set.name
            if self._set_refs[kernel_set] > 0:
                if name not in self.sets:
                    content = self._content(kernel_set)
                    self.sets[name] = update.new_sets[name] = kernel_set.type
                    self.members[name] = content
                    if content:
                        update.added[name] = set(content)
                continue
            del self._set_refs[kernel_set]
            if self.sets.pop(name, None) is not None:
                del self.members[name]
                update.gone_sets.add(name)
                update.added.pop(name, None)
                update.removed.pop(name, None)
        self._touched.clear()

    def _content(self, kernel_set: KernelSet) -> set[Element]:
        if not isinstance(kernel_set, MemberSet):
            return kernel_set.elements()
        known = self._sources.get(kernel_set.id)
        return known.elements(kernel_set.family) if known and known.kind is kernel_set.kind else set()


def _can_pass(rules: PolicyRules, purpose: Purpose) -> bool:
    """Whether a rule of that direction leaves the tier."""
    return any(
        rule.action is Action.NEXT_TIER for rule in (rules.ingress if purpose.ingress else rules.egress)
    )


def _sets_of(rules: Iterable[Rule]) -> frozenset[SetID]:
    """Every set that the rules name."""
    return frozenset(
        identity
        for rule in rules
        for peer in (rule.source, rule.destination)
        for identity in (
            *peer.sets,
            *peer.not_sets,
            *peer.named_ports,
            *peer.not_named_ports,
            *peer.service_ports,
        )
    )
