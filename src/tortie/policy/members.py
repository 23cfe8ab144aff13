"""The sets that rules name, with their members kept current.

A member counts how often it was added (two network sets may list one network), so that it goes with the last.
A set that nobody names any more lives on until the next flush: a policy may be replaced in between.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from tortie.model.policy_natives import LABEL_SERVICE_NAME, EndpointSlice
from tortie.policy.index import SelectorIndex
from tortie.policy.items import Item, ItemID, service_members
from tortie.policy.sets import LabelledSet, ServiceSet, SetDefinition
from tortie.policy.state import Member, SetChange, SetID, SetKind

Service = tuple[str, str]  # namespace, name
NewSets = dict[SetID, tuple[SetKind, frozenset[Member]]]


class _Set:
    """One set. `before` says of each member touched since the last flush whether it was in then."""

    __slots__ = ("before", "definition", "members", "published", "references")

    def __init__(self, definition: SetDefinition) -> None:
        self.definition = definition
        self.references = 0
        self.members: dict[Member, int] = {}
        self.before: dict[Member, bool] = {}
        self.published = False

    def add(self, members: Iterable[Member]) -> None:
        counts = self.members
        for member in members:
            count = counts.get(member, 0)
            if not count and self.published:
                self.before.setdefault(member, False)
            counts[member] = count + 1

    def remove(self, members: Iterable[Member]) -> None:
        counts = self.members
        for member in members:
            count = counts[member]
            if count > 1:
                counts[member] = count - 1
                continue
            del counts[member]
            if self.published:
                self.before.setdefault(member, True)

    def change(self) -> SetChange | None:
        """What changed since the last flush, which this is; None when nothing did."""
        before, members = self.before, self.members
        if not before:
            return None
        added = frozenset(member for member, was_in in before.items() if not was_in and member in members)
        removed = frozenset(member for member, was_in in before.items() if was_in and member not in members)
        self.before = {}
        return SetChange(added, removed) if added or removed else None


class MemberSets:
    """All sets in use, and everything that could be a member of one."""

    def __init__(self) -> None:
        self._index: SelectorIndex[ItemID] = SelectorIndex()
        self._items: dict[ItemID, Item] = {}
        self._sets: dict[SetID, _Set] = {}
        self._by_selector: defaultdict[str, set[SetID]] = defaultdict(set)
        self._by_service: defaultdict[Service, set[SetID]] = defaultdict(set)
        self._slices: defaultdict[Service, dict[str, EndpointSlice]] = defaultdict(dict)
        self._service_of: dict[tuple[str, str], Service] = {}  # by namespace and name of the slice
        self._dirty: set[SetID] = set()
        self._unused: set[SetID] = set()

    # --- what members come from -----------------------------------------------------------------------

    def put_item(self, item: Item, labels: Mapping[str, str]) -> None:
        """`item` is now so, with these labels in effect."""
        before = self._items.get(item.id)
        self._items[item.id] = item
        gained, lost = self._index.set_labels(item.id, labels)
        for text in gained:
            for entry in self._touched(text):
                entry.add(_members(entry, item))
        if before is None:
            return
        for text in lost:
            for entry in self._touched(text):
                entry.remove(_members(entry, before))
        if before.networks == item.networks and before.ports == item.ports:
            return
        for text in self._index.matched(item.id) - gained:
            for entry in self._touched(text):
                entry.add(_members(entry, item))
                entry.remove(_members(entry, before))

    def remove_item(self, item_id: ItemID) -> None:
        """`item_id` is gone."""
        item = self._items.pop(item_id, None)
        if item is None:
            return
        for text in self._index.remove(item_id):
            for entry in self._touched(text):
                entry.remove(_members(entry, item))

    def put_slice(self, piece: EndpointSlice) -> None:
        """A slice is new or changed; it may have moved to another service."""
        metadata = piece.metadata
        self.remove_slice(metadata.namespace, metadata.name)
        name = metadata.labels.get(LABEL_SERVICE_NAME)
        if not name:
            return
        service = (metadata.namespace, name)
        self._service_of[metadata.namespace, metadata.name] = service
        self._slices[service][metadata.name] = piece
        for entry, definition in self._of_service(service):
            entry.add(service_members(piece, with_ports=definition.with_ports))

    def remove_slice(self, namespace: str, name: str) -> None:
        """A slice is gone."""
        service = self._service_of.pop((namespace, name), None)
        if service is None:
            return
        piece = self._slices[service].pop(name)
        if not self._slices[service]:
            del self._slices[service]
        for entry, definition in self._of_service(service):
            entry.remove(service_members(piece, with_ports=definition.with_ports))

    def _touched(self, text: str) -> list[_Set]:
        ids = self._by_selector[text]
        self._dirty |= ids
        return [self._sets[set_id] for set_id in ids]

    def _of_service(self, service: Service) -> list[tuple[_Set, ServiceSet]]:
        found = []
        for set_id in self._by_service.get(service, ()):
            self._dirty.add(set_id)
            entry = self._sets[set_id]
            assert isinstance(entry.definition, ServiceSet)  # _by_service has no other
            found.append((entry, entry.definition))
        return found

    # --- who names them -------------------------------------------------------------------------------

    def acquire(self, definition: SetDefinition) -> None:
        """One rule more names this set."""
        set_id = definition.id
        entry = self._sets.get(set_id)
        if entry is None:
            entry = self._sets[set_id] = _Set(definition)
            self._dirty.add(set_id)
            self._fill(entry)
        entry.references += 1
        self._unused.discard(set_id)

    def release(self, definition: SetDefinition) -> None:
        """One rule less names this set."""
        entry = self._sets[definition.id]
        entry.references -= 1
        if not entry.references:
            self._unused.add(definition.id)

    def _fill(self, entry: _Set) -> None:
        definition = entry.definition
        if isinstance(definition, ServiceSet):
            service = (definition.namespace, definition.name)
            self._by_service[service].add(definition.id)
            for piece in self._slices.get(service, {}).values():
                entry.add(service_members(piece, with_ports=definition.with_ports))
            return
        self._by_selector[definition.selector.text].add(definition.id)
        for item_id in self._index.add(definition.selector):
            entry.add(definition.members(self._items[item_id]))

    def _forget(self, entry: _Set) -> None:
        definition = entry.definition
        if isinstance(definition, ServiceSet):
            service = (definition.namespace, definition.name)
            self._by_service[service].discard(definition.id)
            if not self._by_service[service]:
                del self._by_service[service]
            return
        text = definition.selector.text
        self._by_selector[text].discard(definition.id)
        if not self._by_selector[text]:
            del self._by_selector[text]
            self._index.discard(text)

    # --- what to tell ---------------------------------------------------------------------------------

    def flush(self) -> tuple[NewSets, dict[SetID, SetChange], frozenset[SetID]]:
        """Sets that are new, changed and gone since the last call."""
        gone = set()
        for set_id in self._unused:
            entry = self._sets.pop(set_id)
            self._forget(entry)
            if entry.published:
                gone.add(set_id)
        new: NewSets = {}
        changed: dict[SetID, SetChange] = {}
        for set_id in self._dirty - self._unused:
            entry = self._sets[set_id]
            if not entry.published:
                entry.published = True
                new[set_id] = (entry.definition.kind, frozenset(entry.members))
            elif change := entry.change():
                changed[set_id] = change
        self._unused.clear()
        self._dirty.clear()
        return new, changed, frozenset(gone)

    def current(self) -> NewSets:
        """Every set as the last flush left it, provided that nothing came since."""
        return {
            set_id: (entry.definition.kind, frozenset(entry.members)) for set_id, entry in self._sets.items()
        }


def _members(entry: _Set, item: Item) -> tuple[Member, ...]:
    definition: LabelledSet | ServiceSet = entry.definition
    assert not isinstance(definition, ServiceSet)  # _by_selector has no other
    return definition.members(item)
