"""The selector index answers as asking every selector about every item would."""

from collections.abc import Iterator, Mapping

from hypothesis import given
from hypothesis import strategies as st

from tortie.model.selectors import parse
from tortie.policy.index import SelectorIndex, anchors

SELECTORS = [
    parse(text)
    for text in (
        "",
        "a == '1'",
        "a != '1'",
        "!has(a)",
        "a in {'1', '2'} && has(b)",
        "a == '1' || b == '2'",
        "a == '1' || a == '2' && b == '1'",
        "b starts with '1'",
        "a == '1' && a == '2'",
        "projectcalico.org/namespace == '1' && b == '1'",
        "projectcalico.org/namespace == '1' && !has(b)",
    )
]
LABELS = st.dictionaries(
    st.sampled_from(["a", "b", "projectcalico.org/namespace"]), st.sampled_from(["1", "2", "12"])
)
ITEMS = st.integers(0, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("labels"), ITEMS, LABELS),
        st.tuples(st.just("remove"), ITEMS, st.none()),
        st.tuples(st.just("add"), st.sampled_from(SELECTORS), st.none()),
        st.tuples(st.just("discard"), st.sampled_from(SELECTORS), st.none()),
    ),
    max_size=30,
)


@given(STEPS)
def test_matches_and_changes_are_those_of_asking_everybody(steps: list[tuple[str, object, object]]) -> None:
    index: SelectorIndex[int] = SelectorIndex()
    items: dict[int, dict[str, str]] = {}
    known: dict[str, object] = {}
    for name, first, second in steps:
        if name == "labels":
            assert isinstance(first, int)
            assert isinstance(second, dict)
            before = {text for text in known if first in items and parse(text).matches(items[first])}
            items[first] = second
            after = {text for text in known if parse(text).matches(second)}
            assert index.set_labels(first, second) == (after - before, before - after)
        elif name == "remove":
            assert isinstance(first, int)
            labels = items.pop(first, None)
            matched = set() if labels is None else {text for text in known if parse(text).matches(labels)}
            assert index.remove(first) == matched
        elif name == "add":
            known[str(first)] = first
            index.add(parse(str(first)))
        else:
            known.pop(str(first), None)
            index.discard(str(first))
        for text in known:
            assert index.matches(text) == {
                key for key, labels in items.items() if parse(text).matches(labels)
            }
        for key, labels in items.items():
            assert index.matched(key) == {text for text in known if parse(text).matches(labels)}


def test_selector_is_filed_under_its_rarest_label() -> None:
    assert anchors(parse("projectcalico.org/namespace == 'x' && zone in {'1', '2'}")) == (
        ("zone", "1"),
        ("zone", "2"),
    )
    assert anchors(parse("has(a) && projectcalico.org/namespace == 'x'")) == (("a", None),)
    assert anchors(parse("a != 'b'")) == (("", None),)
    assert anchors(parse("a == 'b' && a == 'c'")) == ()


class CountingLabels(Mapping[str, str]):
    """Counts how often a label is looked up."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels
        self.asked = 0

    def __getitem__(self, label: str) -> str:
        self.asked += 1
        return self.labels[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)


def test_label_change_asks_only_selectors_that_could_care() -> None:
    index: SelectorIndex[int] = SelectorIndex()
    for number in range(500):
        index.add(parse(f"app == '{number}' && zone == '1'"))
    index.set_labels(1, {"app": "7", "zone": "1"})
    labels = CountingLabels({"app": "8", "zone": "1"})
    gained, lost = index.set_labels(1, labels)
    assert (len(gained), len(lost)) == (1, 1)
    assert labels.asked < 30
