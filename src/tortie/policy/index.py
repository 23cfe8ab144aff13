"""Which items match which selectors, kept current at a cost that follows what a change touches.

A selector is filed under its anchor: a label (and value) that it cannot match without. A change of labels
asks only the selectors that mention a changed label and whose anchor the item has, and those that matched.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, Final, Generic, TypeVar

from tortie.model.constants import LABEL_NAMESPACE, LABEL_ORCHESTRATOR
from tortie.model.selectors import Selector

K = TypeVar("K")  # names an item

Anchor = tuple[str, str | None]  # label and value; None stands for any value
_ANYTHING: Final[Anchor] = ("", None)  # of a selector that may match without any label

# Labels that nearly every item has, with few values: the worst anchors, taken when there is nothing better.
_COMMON: Final = {LABEL_ORCHESTRATOR: 2, LABEL_NAMESPACE: 1}
_ANY_VALUE: Final = 1000  # a label of any value is a worse anchor than this many values

_NONE: Final[frozenset[str]] = frozenset()
_NOBODY: Final[frozenset[Any]] = frozenset()


def anchors(selector: Selector) -> tuple[Anchor, ...]:
    """Where to file a selector; empty when it can match nothing at all."""
    best: tuple[int, int, str] | None = None
    needs = selector.needs
    for label, values in needs.items():
        rank = (_COMMON.get(label, 0), _ANY_VALUE if values is None else len(values), label)
        if best is None or rank < best:
            best = rank
    if best is None:
        return (_ANYTHING,)
    label, values = best[2], needs[best[2]]
    return ((label, None),) if values is None else tuple((label, value) for value in sorted(values))


class SelectorIndex(Generic[K]):
    """Selectors are named by their canonical text."""

    def __init__(self) -> None:
        self._labels: dict[K, Mapping[str, str]] = {}
        self._items: defaultdict[Anchor, set[K]] = defaultdict(set)
        self._selectors: dict[str, Selector] = {}
        self._matches: dict[str, set[K]] = {}
        self._matched: dict[K, set[str]] = {}
        self._filed: defaultdict[Anchor, set[str]] = defaultdict(set)
        self._mentions: dict[str, defaultdict[Anchor, set[str]]] = {}  # by label that the selector mentions

    def __contains__(self, text: str) -> bool:
        """Whether the selector is known."""
        return text in self._selectors

    def matches(self, text: str) -> Set[K]:
        """The items that a selector matches. A view: it changes with the index."""
        return self._matches[text]

    def matched(self, item: K) -> Set[str]:
        """The selectors that match an item. A view: it changes with the index."""
        return self._matched.get(item, _NONE)

    def add(self, selector: Selector) -> Set[K]:
        """Know a selector from now on; its matches."""
        text = selector.text
        if text in self._selectors:
            return self._matches[text]
        self._selectors[text] = selector
        for anchor in anchors(selector):
            self._filed[anchor].add(text)
            for label in selector.labels:
                self._mentions.setdefault(label, defaultdict(set))[anchor].add(text)
        matches, labels = selector.matches, self._labels
        found = {item for item in self._possible(selector) if matches(labels[item])}
        for item in found:
            self._matched[item].add(text)
        self._matches[text] = found
        return found

    def _possible(self, selector: Selector) -> Iterable[K]:
        """The items that have every label that the selector needs, found without asking it."""
        pools: list[Set[K]] = []
        for label, values in selector.needs.items():
            wanted = [self._items.get((label, value), _NOBODY) for value in values or ()]
            if values is None:
                wanted = [self._items.get((label, None), _NOBODY)]
            pools.append(wanted[0] if len(wanted) == 1 else _NOBODY.union(*wanted))
        if not pools:
            return self._labels
        pools.sort(key=len)
        smallest = pools[0]
        for pool in pools[1:]:
            smallest = smallest & pool
        return smallest

    def discard(self, text: str) -> None:
        """Forget a selector."""
        selector = self._selectors.pop(text, None)
        if selector is None:
            return
        for item in self._matches.pop(text):
            self._matched[item].discard(text)
        for anchor in anchors(selector):
            _drop(self._filed, anchor, text)
            for label in selector.labels:
                mentions = self._mentions[label]
                _drop(mentions, anchor, text)
                if not mentions:
                    del self._mentions[label]

    def set_labels(self, item: K, labels: Mapping[str, str]) -> tuple[set[str], set[str]]:
        """The item has these labels now. The selectors that match it from now on, and that do no longer."""
        before = self._labels.get(item)
        if before is None:
            self._matched[item] = set()
            changed: Set[str] = labels.keys()
            candidates = self._all_candidates(labels)
        else:
            changed = _changed_labels(before, labels)
            if not changed:
                self._labels[item] = labels
                return set(), set()
            candidates = self._candidates(item, changed, labels)
        self._file(item, before or {}, labels, changed)
        self._labels[item] = labels
        return self._update(item, candidates, lambda selector: selector.matches(labels))

    def remove(self, item: K) -> set[str]:
        """Forget an item; the selectors that matched it."""
        labels = self._labels.pop(item, None)
        if labels is None:
            return set()
        lost = self._matched.pop(item)
        for text in lost:
            self._matches[text].discard(item)
        self._file(item, labels, {}, labels.keys())
        return lost

    def _update(
        self, item: K, candidates: Iterable[str], decide: Callable[[Selector], bool]
    ) -> tuple[set[str], set[str]]:
        gained: set[str] = set()
        lost: set[str] = set()
        matched = self._matched[item]
        for text in candidates:
            if decide(self._selectors[text]):
                if text not in matched:
                    gained.add(text)
                    self._matches[text].add(item)
            elif text in matched:
                lost.add(text)
                self._matches[text].discard(item)
        matched |= gained
        matched -= lost
        return gained, lost

    def _all_candidates(self, labels: Mapping[str, str]) -> set[str]:
        found = set(self._filed.get(_ANYTHING, ()))
        for label, value in labels.items():
            found.update(self._filed.get((label, value), ()), self._filed.get((label, None), ()))
        return found

    def _candidates(self, item: K, changed: Set[str], labels: Mapping[str, str]) -> set[str]:
        found = {text for text in self._matched[item] if not changed.isdisjoint(self._selectors[text].labels)}
        for label in changed:
            mentions = self._mentions.get(label)
            if mentions is None:
                continue
            found.update(mentions.get(_ANYTHING, ()))
            for own, value in labels.items():
                found.update(mentions.get((own, value), ()), mentions.get((own, None), ()))
        return found

    def _file(
        self, item: K, before: Mapping[str, str], after: Mapping[str, str], changed: Iterable[str]
    ) -> None:
        for label in changed:
            if label in before:
                _drop(self._items, (label, before[label]), item)
                if label not in after:
                    _drop(self._items, (label, None), item)
            if label in after:
                self._items[label, after[label]].add(item)
                self._items[label, None].add(item)


def _changed_labels(before: Mapping[str, str], after: Mapping[str, str]) -> Set[str]:
    if before == after:
        return _NONE
    return {label for label in before.keys() | after.keys() if before.get(label) != after.get(label)}


def _drop(filed: dict[Anchor, set[K]], anchor: Anchor, value: K) -> None:
    """An empty entry goes, for labels come and go without end."""
    entry = filed.get(anchor)
    if entry is None:
        return
    entry.discard(value)
    if not entry:
        del filed[anchor]
