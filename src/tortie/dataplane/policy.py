"""Policy in the kernel: one table of nftables, changed by transactions.

The table stays when the agent stops: its last policy remains in force. A starting agent replaces the content
in one transaction and keeps the base chains: there is no moment with neither the old rules nor the new.
Transactions go through `nfnetlink`, as the kernel's own messages: no text to escape, and 1 ms instead of 10.
"""

import gc
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tortie.dataplane import nfnetlink_dumps as dumps
from tortie.dataplane import nfnetlink_objects as objects
from tortie.dataplane import policy_forward
from tortie.dataplane.conntrack_cut import Pending, addresses, cut
from tortie.dataplane.kept_socket import KeptSocket
from tortie.dataplane.netlink import Message, NetlinkError
from tortie.dataplane.nfnetlink import Netfilter, OvertakenError
from tortie.dataplane.nfnetlink_dumps import FoundChain, FoundSet
from tortie.dataplane.nfnetlink_objects import Element, Hook, SetType
from tortie.dataplane.ruleset import TABLE, Ruleset, Settings, Update
from tortie.policy.state import Address, PolicyDelta, PolicyState

log = logging.getLogger(__name__)

SYNC_ATTEMPTS = 3  # somebody else may change our table between reading it and replacing it
CHECK_ATTEMPTS = 3  # a change may come between reading the table and comparing it


@dataclass(frozen=True, slots=True)
class SyncTimes:
    """What a sync took, in seconds: until the table's rules were written, and until the kernel had them."""

    rules: float
    kernel: float


class PolicyDataplane:
    """Policy in the kernel of the calling thread's network namespace. Blocking; one call at a time."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._ruleset = Ruleset(settings)
        self._lock = threading.Lock()
        self._commits = KeptSocket()
        self._reads = KeptSocket()  # for what goes on beside transactions
        self._loaded = False
        self._pending = Pending()
        self._intact_at: int | None = None  # generation at which the table was known to be right
        self._version = 0  # of what was put into the kernel

    def _socket(self) -> AbstractContextManager[Netfilter]:
        """The socket for transactions."""
        return self._commits.use()

    def close(self) -> None:
        """Give the socket back; the policy stays in force. The next call opens another."""
        with self._lock:
            self._commits.close()
        self._reads.close()

    def guard(self) -> bool:
        """Close every workload's interface if our table is missing; True when it had to be made.

        For the agent's start, before the datastore is in sync: a table from an earlier run stays as it is.
        """
        with self._lock, self._socket() as kernel:
            if dumps.table_flags(kernel, TABLE) is not None:
                return False
            kernel.transaction(list(_replacement(Ruleset(self._ruleset.settings), _Found([], []))))
            return True

    def configure(self, settings: Settings) -> None:
        """Take other settings; what they change is replaced in one transaction. Raise DataplaneError."""
        with self._lock:
            if settings == self._ruleset.settings:
                return
            if settings.same_in_policies(self._ruleset.settings):
                update = self._ruleset.configure(settings)
                if self._loaded:
                    self._commit_or_replace(update)
                return
            ruleset = Ruleset(settings)
            ruleset.load(self._ruleset.state())
            self._ruleset = ruleset
            if self._loaded:
                self._replace()

    def sync(self, state: PolicyState) -> SyncTimes:
        """Make the table this state, whatever it is now, in one transaction. Raise DataplaneError."""
        with self._lock, _no_collection():
            begin = time.perf_counter()
            before = self._addresses()
            self._ruleset.load(state)
            self._pending.interfaces |= set(state.workloads)
            if before:
                self._pending.gone |= before - self._addresses()
            written = time.perf_counter()
            self._replace()
            return SyncTimes(written - begin, time.perf_counter() - written)

    def apply(self, delta: PolicyDelta) -> None:
        """Change the table in one transaction. When the kernel refuses, because somebody else changed the
        table, it is replaced as a whole. Raise DataplaneError."""
        with self._lock:
            touched = (*delta.workloads, *delta.gone_workloads)
            before = self._addresses(touched)
            update = self._ruleset.change(delta)
            self._pending.interfaces |= set(delta.workloads)
            self._pending.interfaces |= self._ruleset.workloads_using(
                (*delta.new_sets, *delta.changed_sets), delta.policies
            )
            self._pending.gone |= before - self._addresses(touched)
            if not self._loaded:
                self._replace()
            else:
                self._commit_or_replace(update)

    def _addresses(self, interfaces: Iterable[str] | None = None) -> set[Address]:
        """Addresses of these workloads, or of all."""
        workloads = self._ruleset.workloads
        names = workloads.keys() if interfaces is None else interfaces
        return {item for name in names if name in workloads for item in addresses(workloads[name])}

    def cut(self) -> int:
        """End established connections that were allowed and are denied since the last call; how many.

        For after `sync` and `apply`; new connections are judged by the new rules already. Reads the kernel's
        connections of the endpoints that the change concerned, so it takes longer than the change itself; a
        change that comes meanwhile does not wait for it. Raise DataplaneError.
        """
        with self._lock:
            pending, self._pending = self._pending, Pending()
            ruleset = self._ruleset
        if not pending:
            return 0
        try:
            with self._reads.use() as kernel:
                return cut(ruleset, self._lock, pending, kernel)
        except BaseException:
            with self._lock:
                self._pending.merge(pending)
            raise

    def _commit_or_replace(self, update: Update) -> None:
        if not update:
            return
        self._version += 1
        try:
            self._commit(update)
        except NetlinkError as error:
            log.warning("policy table is not as we left it, replacing it: %s", error)
            self._replace()

    def _commit(self, update: Update) -> None:
        with self._socket() as kernel:
            for messages in (list(_change(update)), list(_afterwards(update))):
                if messages:
                    self._intact_at = _commit_onto(kernel, messages, self._intact_at)

    def _replace(self) -> None:
        self._loaded = False
        self._intact_at = None
        self._version += 1
        with self._socket() as kernel:
            for attempt in range(1, SYNC_ATTEMPTS + 1):
                before = dumps.generation(kernel)
                found = _found(kernel)
                anew = attempt == SYNC_ATTEMPTS or any(
                    _misplaced(item, self._ruleset) for item in found.chains
                )
                try:
                    renew = attempt == 1  # which an old kernel may refuse
                    kernel.transaction(list(_replacement(self._ruleset, found, renew=renew, anew=anew)))
                except NetlinkError as error:
                    if attempt == SYNC_ATTEMPTS:
                        raise
                    log.warning("cannot replace the policy table, trying again: %s", error)
                    continue
                if anew:
                    found = _Found([], [])
                gone = sorted(item.name for item in found.sets if item.name not in self._ruleset.sets)
                if gone:
                    kernel.transaction([objects.delete_set(TABLE, name) for name in gone])
                if dumps.generation(kernel) == before + (2 if gone else 1):
                    self._intact_at = before + (2 if gone else 1)
                break
        self._loaded = True

    def check(self) -> list[str]:
        """What differs in the kernel from what we loaded, one sentence each; empty when all is well.

        Costs one message while nobody changed any table in this namespace, else a read of our whole table,
        for which changes do not wait: what they overtook is read again. Raise DataplaneError.
        """
        for _ in range(CHECK_ATTEMPTS - 1):
            with self._lock:
                generation = self._suspicious()
                if generation is None:
                    return []
                version, wanted = self._version, _Wanted.of(self._ruleset)
            with self._reads.use() as kernel:
                try:
                    differences = list(_differences(kernel, wanted))
                except NetlinkError as error:  # it changed all the time, or a set went meanwhile
                    log.info("the policy table cannot be read beside changes, trying again: %s", error)
                    continue
                quiet = dumps.generation(kernel) == generation
            with self._lock:
                if version == self._version:
                    if quiet and not differences:
                        self._intact_at = generation
                    return differences
        with self._lock:
            generation = self._suspicious()
            if generation is None:
                return []
            with self._socket() as kernel:
                differences = list(_differences(kernel, _Wanted.of(self._ruleset)))
                if not differences and dumps.generation(kernel) == generation:
                    self._intact_at = generation
            return differences

    def _suspicious(self) -> int | None:
        """The kernel's generation, when somebody else may have changed our table since it was right."""
        if not self._loaded:
            return None
        with self._socket() as kernel:
            generation = dumps.generation(kernel)
        return None if generation == self._intact_at else generation

    def repair(self) -> list[str]:
        """Check, and replace the table when something differs; return what differed. Raise DataplaneError."""
        differences = self.check()
        if differences:
            with self._lock:
                self._replace()
        return differences

    def allow_forwarding(self) -> list[str]:
        """See `policy_forward.allow_forwarding`."""
        with self._reads.use() as kernel:
            return policy_forward.allow_forwarding(kernel=kernel)

    def generation(self) -> int:
        """The number of the last transaction of anybody in this namespace."""
        with self._lock, self._socket() as kernel:
            return dumps.generation(kernel)

    def remove(self) -> None:
        """Take the table away: nothing is enforced any more."""
        with self._lock, self._socket() as kernel:
            self._loaded = False
            self._intact_at = None
            if dumps.table_flags(kernel, TABLE) is not None:
                kernel.transaction([objects.delete_table(TABLE)])


def _commit_onto(kernel: Netfilter, messages: list[Message], intact_at: int | None) -> int | None:
    """Commit; return the generation at which the table is known to be right. It is, if it was so before and
    nobody else's transaction came between, which the kernel itself sees to: that saves to ask for its
    generation before and after."""
    if intact_at is not None:
        try:
            kernel.transaction(messages, generation=intact_at)
        except OvertakenError:
            log.debug("somebody else changed tables of this namespace since generation %d", intact_at)
        else:
            return dumps.next_generation(intact_at)
    kernel.transaction(messages)
    return None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's garbage collector: what a load makes is kept, and looking through it again and again
    costs a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Found:
    """What the kernel's table holds before it is replaced."""

    def __init__(self, chains: list[FoundChain], sets: list[FoundSet]) -> None:
        self.chains = chains
        self.sets = sets


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the table should be at one moment: a copy, for reading while the ruleset changes."""

    chains: Mapping[str, tuple[bytes, ...]]
    base_chains: Mapping[str, Hook]
    sets: Mapping[str, SetType]
    members: Mapping[str, frozenset[Element]]

    @classmethod
    def of(cls, ruleset: Ruleset) -> "_Wanted":
        """The ruleset as it is now."""
        members = {name: frozenset(found) for name, found in ruleset.members.items()}
        return cls(dict(ruleset.chains), ruleset.base_chains, dict(ruleset.sets), members)


def _found(kernel: Netfilter) -> _Found:
    if dumps.table_flags(kernel, TABLE) is None:
        return _Found([], [])
    sets = [item for item in dumps.sets(kernel, TABLE) if not item.flags & objects.NFT_SET_ANONYMOUS]
    return _Found(dumps.chains(kernel, TABLE), sets)


def _change(update: Update) -> Iterator[Message]:
    """A delta as messages: sets before rules that name them, chains before elements that lead to them."""
    for name, kind in update.new_sets.items():
        yield objects.new_set(TABLE, name, kind)
    for name in update.new_chains:
        yield objects.new_chain(TABLE, name)
    for name, members in update.removed.items():
        yield from objects.delete_elements(TABLE, name, members)
    for name, rules in update.chains.items():
        if name not in update.new_chains:
            yield objects.delete_rules(TABLE, name)
        yield from objects.rule_messages(TABLE, name, rules)
    for name, members in update.added.items():
        yield from objects.add_elements(TABLE, name, members)
    for name in update.gone_chains:  # they may jump to one another
        yield objects.delete_rules(TABLE, name)
    for name in update.gone_chains:
        yield objects.delete_chain(TABLE, name)


def _afterwards(update: Update) -> Iterator[Message]:
    """Apart, and later: a packet on its way through the old rules may still ask an old set."""
    for name in sorted(update.gone_sets):
        yield objects.delete_set(TABLE, name)
    for name, members in update.gone_elements.items():
        yield from objects.delete_elements(TABLE, name, members)


def _replacement(
    wanted: Ruleset, found: _Found, *, renew: bool = False, anew: bool = False
) -> Iterator[Message]:
    """The whole table as messages. Base chains that are there stay, so that no packet passes between an old
    one and a new one; sets that are not wanted stay too, emptied of jumps, and are deleted afterwards.
    `renew` puts a new set in the place of an old one instead of emptying it, which the kernel does once and
    not for every element: packets on their way through the old rules ask the old set. Maps are emptied, for
    older kernels keep the chains that a map leads to until it is gone.
    `anew` deletes the table first: a base chain cannot be moved (an upgrade, or tampering)."""
    known = {chain.name: chain for chain in found.chains}
    base = wanted.base_chains
    if anew:
        yield objects.new_table(TABLE)
        yield objects.delete_table(TABLE)
        known, found = {}, _Found([], [])
    yield objects.new_table(TABLE)
    if known or found.sets:
        yield objects.delete_rules(TABLE)
    kept = set()
    for item in found.sets:
        kind = wanted.sets.get(item.name)
        same = kind is not None and (kind.flags, kind.key_length) == (item.flags, item.key_length)
        if item.flags & objects.NFT_SET_MAP or (same and not renew):
            yield objects.flush_set(TABLE, item.name)
            if same:
                kept.add(item.name)
                continue
        if kind is not None:
            yield objects.delete_set(TABLE, item.name)
    for name in known.keys() - wanted.chains.keys():
        yield objects.delete_chain(TABLE, name)
    for name, hook in base.items():
        yield objects.new_base_chain(TABLE, name, hook)
    for name in wanted.chains:
        if name not in known and name not in base:
            yield objects.new_chain(TABLE, name)
    for name, kind in wanted.sets.items():
        if name not in kept:
            yield objects.new_set(TABLE, name, kind)
    for name, rules in wanted.chains.items():
        yield from objects.rule_messages(TABLE, name, rules)
    for name, members in wanted.members.items():
        yield from objects.add_elements(TABLE, name, members)


def _misplaced(chain: FoundChain, wanted: "_Wanted | Ruleset") -> bool:
    """Whether a chain is attached elsewhere than ours of that name. An unknown base chain can just go."""
    if chain.name not in wanted.chains and chain.name not in wanted.base_chains:
        return False
    hook = wanted.base_chains.get(chain.name)
    return chain.hook != hook or (hook is not None and chain.kind != "filter")


def _differences(kernel: Netfilter, wanted: _Wanted) -> Iterator[str]:
    flags = dumps.table_flags(kernel, TABLE)
    if flags is None:
        yield f"table {TABLE} is gone"
        return
    if flags & objects.NFT_TABLE_F_DORMANT:
        yield f"table {TABLE} is dormant: none of its rules is asked"
    yield from _chain_differences(kernel, wanted)
    yield from _set_differences(kernel, wanted)


def _chain_differences(kernel: Netfilter, wanted: _Wanted) -> Iterator[str]:
    chains = {chain.name: chain for chain in dumps.chains(kernel, TABLE)}
    rules = dumps.rules(kernel, TABLE)
    for name, content in wanted.chains.items():
        chain = chains.pop(name, None)
        if chain is None:
            yield f"chain {name} is gone"
            continue
        if _misplaced(chain, wanted):
            yield f"chain {name} is attached elsewhere than we attached it"
        elif chain.hook is not None and chain.policy != objects.POLICY_ACCEPT:
            yield f"chain {name} has another default verdict than accept"
        found = rules.get(name, [])
        if len(found) != len(content):
            yield f"chain {name} has {len(found)} rules instead of {len(content)}"
        else:
            for number, (ours, theirs) in enumerate(zip(content, found, strict=True), 1):
                if not dumps.same_expressions(ours, theirs):
                    yield f"rule {number} of chain {name} was changed"
    for name in chains:
        yield f"chain {name} is not ours"


def _set_differences(kernel: Netfilter, wanted: _Wanted) -> Iterator[str]:
    found = {item.name: item for item in dumps.sets(kernel, TABLE)}
    for name, kind in wanted.sets.items():
        item = found.pop(name, None)
        if item is None:
            yield f"set {name} is gone"
        elif (item.flags, item.key_length) != (kind.flags, kind.key_length):
            yield f"set {name} has another type than ours"
        else:
            members: set[Element] = dumps.elements(kernel, TABLE, name, kind)
            missing, extra = wanted.members[name] - members, members - wanted.members[name]
            if missing or extra:
                yield f"set {name} lacks {len(missing)} elements and has {len(extra)} that are not ours"
    for name in found:
        yield f"set {name} is not ours"
