"""From policy to the content of the kernel's table: chains, rules, sets. Pure: no kernel, no root.

`Ruleset` holds what the table should be. `load` takes a whole state, `change` a delta and answers with what
the delta changes in the table: its cost is that of what changed, not that of the table. Only what an endpoint
refers to is in the table: a policy's chain appears with the first endpoint that it applies to, a set with the
first rule that names it, and both go with the last.
"""

from collections.abc import Iterable, Mapping
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
    Ways,
    host_parts,
    workload_parts,
)
from tortie.dataplane.ruleset_names import TABLE, Tags, interface_key
from tortie.dataplane.ruleset_rules import Rendering, Verdicts, log, set_mark
from tortie.dataplane.ruleset_sets import (
    FAMILIES,
    KernelSet,
    Members,
    OwnSet,
    RangeSet,
    SharedSet,
    elements,
    member_set,
)
from tortie.dataplane.ruleset_update import Update, passing_purposes, sets_of
from tortie.policy.state import (
    HostRules,
    Member,
    PolicyDelta,
    PolicyKey,
    PolicyRules,
    PolicyState,
    SetChange,
    SetID,
    SetKind,
    WorkloadRules,
)

__all__ = ["TABLE", "Failsafe", "Ruleset", "Settings", "Update"]

_BASE = "the base chains"  # owner of the sets that base chains name; no chain is called so
_NO_RULES = PolicyRules()

Endpoint = tuple[str, str]  # "workload" or "host", interface


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
        self._parts: dict[Endpoint, EndpointParts] = {}
        self._users: dict[str, set[Endpoint]] = {}  # by chain of a policy
        self._uses: dict[str, PolicyUse] = {}  # likewise
        self._chains_of: dict[PolicyKey, set[str]] = {}
        self._passing: set[PolicyUse] = set()  # what can leave its tier
        self._chain_sets: dict[str, frozenset[KernelSet]] = {}
        self._set_refs: dict[KernelSet, int] = {}
        self._set_users: dict[SetID, set[str]] = {}  # chains of policies
        self._named: dict[str, frozenset[SetID]] = {}
        self._touched: set[KernelSet] = set()
        self._tags = Tags()
        self._shares: dict[SharedSet, set[Element]] = {}  # what each has in its set of the kernel
        self._chain_users: dict[str, int] = {}  # endpoints by chain
        self._left_chains: set[str] = set()  # chains that an endpoint has left
        self._ways = Ways(self.settings, self._passes)
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
        chains = {chain for identity in sets for chain in self._set_users.get(identity, ())}
        chains |= {chain for key in policies for chain in self._chains_of.get(key, ())}
        return {
            interface
            for chain in chains
            for kind, interface in self._users.get(chain, ())
            if kind == "workload"
        }

    def change(self, delta: PolicyDelta) -> Update:
        """Take a delta; return what it changes in the table. Raise ValueError as `load` does, before
        anything is changed."""
        update = Update()
        parts = self._named_endpoints(delta)
        rewrite: set[str] = set()
        self._change_sets(delta, update, rewrite)
        passing = self._change_policies(delta, rewrite)
        for chain in passing:
            users = self._users.get(chain, ())
            parts |= {endpoint: None for endpoint in users if endpoint not in parts}
            self._ways.forget(name for endpoint in users for name in self._parts[endpoint].chains)
        needed_before: dict[str, bool] = {}
        for endpoint in parts:
            self._change_endpoint(endpoint, delta, update, needed_before)
        self._settle_chains(update)
        for chain, was_needed in needed_before.items():
            if not self._users[chain]:
                del self._users[chain]
                self._forget_use(chain)
                rewrite.discard(chain)
                if was_needed:
                    self._drop_chain(chain, update)
            elif not was_needed:
                rewrite.add(chain)
        for chain in rewrite:
            if chain in self._users:
                self._write_policy(chain, update)
        self._forget_sets(delta.gone_sets, update, rewrite)
        self._write_base(update)
        self._settle_sets(update)
        return update

    def _forget_use(self, chain: str) -> None:
        key = self._uses.pop(chain)[1]
        self._chains_of[key].discard(chain)
        if not self._chains_of[key]:
            del self._chains_of[key]

    def _named_endpoints(self, delta: PolicyDelta) -> dict[Endpoint, None]:
        """Endpoints that the delta names; their names are checked here, while nothing is changed yet."""
        for interface in (*delta.workloads, *(name for name in delta.hosts if name != WILDCARD)):
            interface_key(interface)
        named = [("workload", name) for name in (*delta.gone_workloads, *delta.workloads)]
        return dict.fromkeys([*named, *(("host", name) for name in (*delta.gone_hosts, *delta.hosts))])

    def _change_sets(self, delta: PolicyDelta, update: Update, rewrite: set[str]) -> None:
        changes: dict[SetID, SetChange] = dict(delta.changed_sets)
        for identity, (kind, members) in delta.new_sets.items():
            known = self._sources.get(identity)
            if known is None or known.kind is not kind:
                users = self._set_users.get(identity)
                self._sources[identity] = Members(kind, () if users else members)
                if users:  # rules named it before it was there
                    changes[identity] = SetChange(members)
                    rewrite |= users
            else:
                changes[identity] = SetChange(members - known.members, frozenset(known.members - members))
        for identity, change in changes.items():
            self._change_members(identity, change, update, rewrite)

    def _change_members(self, identity: SetID, change: SetChange, update: Update, rewrite: set[str]) -> None:
        known = self._sources.setdefault(identity, Members(SetKind.NETWORKS, ()))
        old_shape = known.shape
        known.change(change.added, change.removed)
        if known.shape != old_shape:
            rewrite |= self._set_users.get(identity, set())
        for shape in old_shape:
            place = member_set(identity, known.kind, shape)
            if shape not in known.shape or place not in self._set_refs:
                continue  # rules name another set from now on, or none
            if isinstance(place, RangeSet):
                # Ranges merge with their neighbours, so a member is no element of its own.
                new, old = elements(known.members, place), self.members[place.name]
                self._change_elements(place.name, new - old, old - new, update)
            else:
                tag = self._tags.of(identity)
                joining = elements(change.added, place, tag)
                leaving = elements(change.removed - change.added, place, tag)
                self._change_elements(place.name, joining, leaving, update)
                self._shares[place] -= leaving
                self._shares[place] |= joining

    def _forget_sets(self, gone: Iterable[SetID], update: Update, rewrite: set[str]) -> None:
        for identity in gone:
            if identity in self._set_users:  # a rule names it all the same: it is empty now
                self._change_members(
                    identity, SetChange(removed=frozenset(self.set_members(identity))), update, rewrite
                )
            self._sources.pop(identity, None)

    def _change_elements(
        self, name: str, added: set[Element] | None, removed: set[Element] | None, update: Update
    ) -> None:
        """Note elements that really join and leave a set, and keep `members`."""
        members = self.members[name]
        if removed and (leaving := members.intersection(removed)):
            members -= leaving
            _note(update.removed, name, leaving)
        if added and (joining := added - members):
            members |= joining
            _note(update.added, name, joining)

    def _change_policies(self, delta: PolicyDelta, rewrite: set[str]) -> set[str]:
        """Take new rules; return the chains of policies that began or ceased to pass."""
        flipped = set()
        for key, rules in (*delta.policies.items(), *((key, None) for key in delta.gone_policies)):
            passing = {(purpose, key) for purpose in passing_purposes(rules)} if rules else set()
            for chain in self._chains_of.get(key, ()):
                rewrite.add(chain)
                use = self._uses[chain]
                if (use in self._passing) != (use in passing):
                    flipped.add(chain)
            if self._passing:
                self._passing -= {(purpose, key) for purpose in Purpose}
            self._passing |= passing
            if rules is None:
                self._policies.pop(key, None)
            else:
                self._policies[key] = rules
        return flipped

    def _passes(self, use: PolicyUse) -> bool:
        return bool(self._passing) and use in self._passing

    def _change_endpoint(
        self,
        endpoint: Endpoint,
        delta: PolicyDelta,
        update: Update,
        needed_before: dict[str, bool],
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
                new = workload_parts(workload, self._ways)
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
        old_uses = old.policies if old else {}
        new_uses = new.policies if new else {}
        for chain, use in new_uses.items():
            if chain in old_uses:
                continue
            users = self._users.get(chain)
            if users is None:
                users = self._users[chain] = set()
                self._uses[chain] = use
                self._chains_of.setdefault(use[1], set()).add(chain)
            needed_before.setdefault(chain, bool(users))
            users.add(endpoint)
        for chain in old_uses:
            if chain not in new_uses:
                users = self._users[chain]
                needed_before.setdefault(chain, bool(users))
                users.discard(endpoint)
        self._replace_parts(old, new, update)

    def _replace_parts(self, old: EndpointParts | None, new: EndpointParts | None, update: Update) -> None:
        old_chains, new_chains = (old.chains if old else {}), (new.chains if new else {})
        for name, rules in new_chains.items():
            self._put_chain(name, rules, update)
            if name not in old_chains:
                self._chain_users[name] = self._chain_users.get(name, 0) + 1
        for name in old_chains:
            if name not in new_chains:
                self._chain_users[name] -= 1
                self._left_chains.add(name)
        old_elements, new_elements = (old.elements if old else {}), (new.elements if new else {})
        for name, after in new_elements.items():
            before = old_elements.get(name)
            if before is None:
                self._change_elements(name, after, None, update)
            elif before != after:
                self._change_elements(name, after - before, before - after, update)
        for name, before in old_elements.items():
            if name not in new_elements:
                self._change_elements(name, None, before, update)

    def _settle_chains(self, update: Update) -> None:
        """Chains that the last endpoint has left go."""
        gone = [name for name in self._left_chains if not self._chain_users[name]]
        for name in gone:
            del self._chain_users[name]
            self._drop_chain(name, update)
        self._ways.forget(gone)
        self._left_chains.clear()

    def _put_chain(self, name: str, rules: tuple[bytes, ...], update: Update) -> None:
        old = self.chains.get(name)
        if old == rules:
            return
        if old is None:
            update.new_chains.add(name)
        self.chains[name] = rules
        update.chains[name] = rules

    def _drop_chain(self, name: str, update: Update) -> None:
        if self.chains.pop(name, None) is not None:
            update.gone_chains.add(name)
        self._use_sets(name, frozenset(), frozenset())

    def _write_policy(self, name: str, update: Update) -> None:
        purpose, key = self._uses[name]
        policy = self._policies.get(key, _NO_RULES)
        rendering = Rendering(self._verdicts[purpose], self._find_set, self._tags.of)
        rules = policy.ingress if purpose.ingress else policy.egress
        self._put_chain(name, rendering.rules(rules), update)
        self._use_sets(name, frozenset(rendering.used), sets_of(rules))

    def _find_set(self, identity: SetID, kind: SetKind, family: int) -> KernelSet | None:
        known = self._sources.get(identity)
        if known is None or known.kind is not kind:
            # Named before it is there: an empty set, until a delta brings it and the rule is written again.
            return SharedSet(identity, kind, family) if family == 4 else None
        return known.kernel_set(identity, family)

    def _use_sets(self, owner: str, used: frozenset[KernelSet], named: frozenset[SetID]) -> None:
        """Note which of the kernel's sets a chain names now, and which sets of policy its policy names."""
        old = self._chain_sets.pop(owner, frozenset())
        if used:
            self._chain_sets[owner] = used
        if used != old:
            for kernel_set in used - old:
                self._set_refs[kernel_set] = self._set_refs.get(kernel_set, 0) + 1
            for kernel_set in old - used:
                self._set_refs[kernel_set] -= 1
            self._touched |= old ^ used
        for identity in self._named.pop(owner, ()):
            users = self._set_users[identity]
            users.discard(owner)
            if not users:
                del self._set_users[identity]
        if named:
            self._named[owner] = named
            for identity in named:
                self._set_users.setdefault(identity, set()).add(owner)

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
        self._use_sets(_BASE, parts.used, frozenset())
        self._base_chains = frozenset(parts.chains)
        self._base_key = key

    def _settle_sets(self, update: Update) -> None:
        """Sets that are named for the first time appear; those that nothing names any more go."""
        for kernel_set in self._touched:
            needed = self._set_refs.get(kernel_set, 0) > 0
            if not needed:
                self._set_refs.pop(kernel_set, None)
            if isinstance(kernel_set, SharedSet):
                self._settle_share(kernel_set, update, needed=needed)
            else:
                self._settle_own_set(kernel_set, update, needed=needed)
        self._touched.clear()

    def _settle_own_set(self, kernel_set: OwnSet, update: Update, *, needed: bool) -> None:
        name = kernel_set.name
        if needed and name not in self.sets:
            content = self._content(kernel_set)
            self.sets[name] = update.new_sets[name] = kernel_set.type
            self.members[name] = content
            if content:
                update.added[name] = set(content)
        elif not needed and self.sets.pop(name, None) is not None:
            del self.members[name]
            update.gone_sets.add(name)
            update.added.pop(name, None)
            update.removed.pop(name, None)

    def _settle_share(self, share: SharedSet, update: Update, *, needed: bool) -> None:
        name = share.name
        if needed and share not in self._shares:
            content = self._shares[share] = self._content(share)
            if content:
                self.members[name] |= content
                _note(update.added, name, content)
        elif not needed and share in self._shares:
            content = self._shares.pop(share)
            same = (SharedSet(share.id, kind, family) for kind in SetKind for family in FAMILIES)
            if not any(other in self._set_refs for other in same):
                self._tags.release(share.id)
            self.members[name] -= content
            new = update.added.get(name, set()) & content
            if new:  # joined with this change, so they are not there yet
                update.added[name] -= new
                if not update.added[name]:
                    del update.added[name]
            if content != new:
                update.gone_elements.setdefault(name, set()).update(content - new)

    def _content(self, kernel_set: KernelSet) -> set[Element]:
        if not isinstance(kernel_set, (RangeSet, SharedSet)):
            return kernel_set.elements()
        known = self._sources.get(kernel_set.id)
        if known is None or (isinstance(kernel_set, SharedSet) and known.kind is not kernel_set.kind):
            return set()
        tag = self._tags.of(kernel_set.id) if isinstance(kernel_set, SharedSet) else b""
        return elements(known.members, kernel_set, tag)


def _note(noted: dict[str, set[Element]], name: str, found: set[Element]) -> None:
    known = noted.get(name)
    if known is None:
        noted[name] = set(found)
    else:
        known |= found
