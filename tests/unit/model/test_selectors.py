"""The selector language: what it matches, what it refuses, what its canonical form is."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.model.selectors import (
    MAX_DEPTH,
    MAX_LABEL,
    And,
    Equal,
    Everything,
    Has,
    In,
    Node,
    Not,
    Or,
    Part,
    SelectorError,
    all_of,
    equals,
    of_node,
    parse,
    prefixed,
)

Labels = dict[str, str]

# selector, labels, whether it matches
MATCHES: list[tuple[str, Labels, bool]] = [
    ("a == 'b'", {"a": "b"}, True),
    ("a == 'b'", {"a": "b", "c": "d"}, True),
    ("a == 'b'", {}, False),
    ("a == 'b'", {"a": "c"}, False),
    ("a == 'b'", {"c": "b"}, False),
    ("a != 'b'", {"a": "c"}, True),
    ("a != 'b'", {}, True),
    ("a != 'b'", {"a": "b"}, False),
    ("a in {'b', 'c'}", {"a": "c"}, True),
    ("a in {'b', 'c'}", {"a": "d"}, False),
    ("a in {'b', 'c'}", {}, False),
    ("a in {}", {"a": ""}, False),
    ("""a in {"'", '"'}""", {"a": '"'}, True),
    ("""a in {"'", '"'}""", {"a": "'"}, True),
    ("a not in {'b', 'c'}", {"a": "d"}, True),
    ("a not in {'b', 'c'}", {}, True),
    ("a not in {'b', 'c'}", {"a": "b"}, False),
    ("a contains 'b'", {"a": "abc"}, True),
    ("a contains 'b'", {"a": "ac"}, False),
    ("a contains 'b'", {}, False),
    ("a contains ''", {}, False),
    ("a contains ''", {"a": ""}, True),
    ("a starts with 'b'", {"a": "bc"}, True),
    ("a starts with 'b'", {"a": "cb"}, False),
    ("a starts with 'b'", {"c": "b"}, False),
    ("a ends with 'b'", {"a": "cb"}, True),
    ("a ends with 'b'", {"a": "bc"}, False),
    ("has(a)", {"a": ""}, True),
    ("has(a)", {"b": "a"}, False),
    ("!has(a)", {"b": "a"}, True),
    ("!!has(a)", {"b": "a"}, False),
    ("! ! !has(a)", {"a": ""}, False),
    ("!a == 'b'", {"a": "c"}, True),
    ("!a in {'b'}", {"a": "b"}, False),
    ("all()", {}, True),
    ("global()", {"a": "b"}, True),
    ("", {}, True),
    ("  ", {"a": "b"}, True),
    ("a == '1' && b == '2'", {"a": "1", "b": "2"}, True),
    ("a == '1' && b == '2'", {"a": "1"}, False),
    ("a == '1' || b == '2'", {"b": "2"}, True),
    ("a == '1' || b == '2'", {"b": "1"}, False),
    ("!(has(a) || !has(b))", {"b": ""}, True),
    ("has(a) || has(b) && has(c)", {"a": ""}, True),  # && binds closer
    ("(has(a) || has(b)) && has(c)", {"a": ""}, False),
    ("projectcalico.org/name == 'x-y_z.1'", {"projectcalico.org/name": "x-y_z.1"}, True),
    ("contains contains 'contains'", {"contains": "it contains"}, True),
    ("in in {'in'}", {"in": "in"}, True),
    ("has == 'x'", {"has": "x"}, True),
    ("all == 'x'", {"all": "x"}, True),
]


@pytest.mark.parametrize(("text", "labels", "matches"), MATCHES)
def test_matches(text: str, labels: Labels, matches: bool) -> None:
    assert parse(text).matches(labels) is matches
    assert parse(parse(text).text).matches(labels) is matches


# selector, the character (from 0) where it goes wrong, a word of the reason
BAD: list[tuple[str, int, str]] = [
    ("b == b", 5, "string"),
    ("b contains b", 11, "string"),
    ("b starts with b", 14, "string"),
    ("'b1' == b", 0, "label"),
    ("b", 1, "operator"),
    ("a b", 2, "operator"),
    ("a ", 2, "operator"),
    ("a starts foo 'x'", 2, "operator"),
    ("a squiggles 'x'", 2, "operator"),
    ("!", 1, "label"),
    ("foo == 'bar' &", 13, "&&"),
    ("foo == 'bar' |", 13, "||"),
    ("foo == 'bar' && ", 16, "label"),
    ("foo != ||", 7, "string"),
    ('foo in {"", ||', 12, "string"),
    ("foo in ''", 7, "{"),
    ("foo in {'a' 'b'}", 12, ","),
    ("foo == 'bar", 7, "no end"),
    ('foo == "bar', 7, "no end"),
    ("(", 1, "label"),
    ("(a == 'foo'", 11, ")"),
    (")", 0, "label"),
    ("()", 1, "label"),
    ("%", 0, "label"),
    ("a == 'b' && %", 12, "label"),
    ("has(", 4, "label"),
    ("has()", 4, "label"),
    ("has(a", 5, ")"),
    ("all(", 3, "operator"),
    ("all() all()", 6, "&&"),
    ("a = 'b'", 2, "operator"),
    ("a == 'b'\nb == 'c'", 8, "&&"),
    ("ä == 'b'", 0, "label"),
    (f"{'a' * (MAX_LABEL + 1)} == 'b'", 0, "512"),
    (f"has({'a' * (MAX_LABEL + 1)})", 4, "512"),
    ("(" * 10_000, MAX_DEPTH, "inside"),
    ("!" * 10_000 + "has(a)", MAX_DEPTH, "inside"),
]


@pytest.mark.parametrize(("text", "position", "reason"), BAD, ids=[text[:20] for text, _, _ in BAD])
def test_refuses_and_says_where(text: str, position: int, reason: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(text)
    assert caught.value.position == position
    assert reason in caught.value.reason


# selector, its canonical text
CANONICAL = [
    ("", "all()"),
    (" (all() )", "all()"),
    ("! (has( b)||! has(a ))", "!(has(b) || !has(a))"),
    ('! (a == "b"&&! c != "d")', '!(a == "b" && !c != "d")'),
    ("a == '\"'", "a == '\"'"),
    ('a contains "\'"', 'a contains "\'"'),
    ("a startswith 'x'", 'a starts with "x"'),
    ("a ends   with 'x'", 'a ends with "x"'),
    ("a notin{'x'}", 'a not in {"x"}'),
    ('a in {"z", "z", "x", "a",}', 'a in {"a", "x", "z"}'),
    ("a!='x'", 'a != "x"'),
]


@pytest.mark.parametrize(("text", "canonical"), CANONICAL)
def test_canonical_text(text: str, canonical: str) -> None:
    assert parse(text).text == canonical
    assert parse(canonical) == parse(text)


@pytest.mark.parametrize(
    ("text", "unique_id"),
    [  # as Calico computes them
        ("all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
        ("! (has( b)||! has(a ))", "s:Iss0uCleLYv1GSv_pNm7hAO58kE9jAx1NKyG3Q"),
        ('! (a == "b"&&! c != "d")', "s:lh3haoY1ikTRkd4UZu0nWSaIBknYLPJLX16d-w"),
    ],
)
def test_unique_id_is_calicos(text: str, unique_id: str) -> None:
    assert parse(text).unique_id == unique_id


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("all()", {}),
        ("a != 'b'", {}),
        ("!has(a)", {}),
        ("has(a)", {"a": None}),
        ("a starts with 'x'", {"a": None}),
        ("a == 'b'", {"a": frozenset("b")}),
        ("a in {'b', 'c'} && has(a)", {"a": frozenset("bc")}),
        ("a == 'b' && a == 'c'", {"a": frozenset()}),
        ("a == 'b' || a == 'c'", {"a": frozenset("bc")}),
        ("a == 'b' || has(a)", {"a": None}),
        ("a == 'b' || c == 'd'", {}),
        ("(a == 'b' || a == 'c') && d == 'e'", {"a": frozenset("bc"), "d": frozenset("e")}),
    ],
)
def test_needs_are_the_labels_without_which_nothing_matches(
    text: str, needs: Mapping[str, frozenset[str] | None]
) -> None:
    assert parse(text).needs == needs


def test_prefix_goes_before_every_label() -> None:
    selector = parse("!(k == 'v' && has(t)) || x in {'y'} || all()")
    assert prefixed(selector, "p.").text == '(!(p.k == "v" && has(p.t)) || p.x in {"y"} || all())'


def test_all_of_drops_what_matches_everything() -> None:
    assert all_of().text == "all()"
    assert all_of(parse(""), parse("has(a)")).text == "has(a)"
    assert all_of(equals("n", "x"), parse("has(a) && has(b)")).text == '(n == "x" && has(a) && has(b))'


NAMES = st.sampled_from(["a", "b", "in", "has", "projectcalico.org/name"])
VALUES = st.sampled_from(["", "x", "y", "xy", "'", "&& has(a)"])
LEAVES: st.SearchStrategy[Node] = st.one_of(
    st.builds(Everything, st.sampled_from(["all", "global"])),
    st.builds(Has, NAMES),
    st.builds(Equal, NAMES, VALUES, st.booleans()),
    st.builds(In, NAMES, st.frozensets(VALUES, max_size=3), st.booleans()),
    st.builds(Part, NAMES, st.sampled_from(["contains", "starts with", "ends with"]), VALUES),
)
NODES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)
LABELS = st.dictionaries(NAMES, VALUES)


@given(NODES)
def test_canonical_text_is_read_as_the_same_tree(node: Node) -> None:
    selector = parse(str(node))
    assert selector.root == node
    assert selector.text == str(node)


@given(NODES, LABELS)
def test_what_matches_has_what_is_needed(node: Node, labels: Labels) -> None:
    selector = of_node(node)
    if selector.matches(labels):
        for label, values in selector.needs.items():
            assert label in labels
            assert values is None or labels[label] in values


@given(NODES, LABELS, LABELS)
def test_answer_depends_only_on_the_labels_it_mentions(node: Node, labels: Labels, others: Labels) -> None:
    selector = of_node(node)
    changed = {name: value for name, value in others.items() if name not in selector.labels}
    kept = {name: value for name, value in labels.items() if name in selector.labels}
    assert selector.matches(labels) == selector.matches(kept | changed)


@given(st.text(alphabet="ab()!&|='\"{}, in", max_size=30))
def test_any_text_is_read_or_refused_with_a_position(text: str) -> None:
    refusal: SelectorError | None = None
    try:
        selector = parse(text)
    except SelectorError as error:
        refusal = error
    if refusal is None:
        assert parse(selector.text) == selector
    else:
        assert 0 <= refusal.position <= len(text)
