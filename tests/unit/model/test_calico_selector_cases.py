"""Selectors, each against every combination of labels: the cases of Calico's parser and tokenizer.
docs/policy-cases.md has the list of cases.
"""

from collections.abc import Callable, Mapping
from itertools import product

import pytest

from tortie.model.selectors import SelectorError, parse, prefixed

Labels = Mapping[str, str]
Predicate = Callable[[Labels], bool]

VALUES = (None, "", "a", "b", "c", "e", "a1", "b1", "ab", "ba", "bab", "'", '"')
LABELS: list[Labels] = [
    {name: value for name, value in zip("ab", values, strict=True) if value is not None}
    for values in product(VALUES, VALUES)
]


def a(found: Labels) -> str | None:
    return found.get("a")


def b(found: Labels) -> str | None:
    return found.get("b")


MATCHES: dict[str, Predicate] = {
    'a == "b"': lambda found: a(found) == "b",
    "a == 'a'": lambda found: a(found) == "a",
    'a != "b"': lambda found: a(found) != "b",
    "a != 'a'": lambda found: a(found) != "a",
    'a == "b" && b == "c"': lambda found: (a(found), b(found)) == ("b", "c"),
    'a == "b" || b == "c"': lambda found: a(found) == "b" or b(found) == "c",
    """a in {"'", '"', "c"}""": lambda found: a(found) in ("'", '"', "c"),
    """a not in {"'", '"', "c"}""": lambda found: a(found) not in ("'", '"', "c"),
    'a in {"a"}': lambda found: a(found) == "a",
    'a in {"a", "b"}': lambda found: a(found) in ("a", "b"),
    'a not in {"a"}': lambda found: a(found) != "a",
    'a not in {"d", "e"}': lambda found: a(found) != "e",
    '!a in {"a"}': lambda found: a(found) != "a",
    'a contains "a"': lambda found: "a" in (a(found) or ""),
    'a starts with "a"': lambda found: (a(found) or "").startswith("a"),
    'a ends with "a"': lambda found: (a(found) or "").endswith("a"),
    "has(a)": lambda found: "a" in found,
    "has(b)": lambda found: "b" in found,
    "!has(a)": lambda found: "a" not in found,
    "! has(a)": lambda found: "a" not in found,
    "!!has(b)": lambda found: "b" in found,
    "!!! has(a)": lambda found: "a" not in found,
    "!!!has(a)": lambda found: "a" not in found,
    "!! ! has(a)": lambda found: "a" not in found,
    "! !!has(a)": lambda found: "a" not in found,
    "": lambda _: True,
    " ": lambda _: True,
    "all()": lambda _: True,
    " all()": lambda _: True,
    "global()": lambda _: True,
    " global()": lambda _: True,
    "a == 'a1' && b == 'b1'": lambda found: a(found) == "a1" and b(found) == "b1",
    "a == 'a1' && b != 'b1'": lambda found: a(found) == "a1" and b(found) != "b1",
    "a != 'a1' && b == 'b1'": lambda found: a(found) != "a1" and b(found) == "b1",
    "a != 'a1' && b != 'b1'": lambda found: a(found) != "a1" and b(found) != "b1",
    "a != 'a1' && !b == 'b1'": lambda found: a(found) != "a1" and b(found) != "b1",
    "!a == 'a1' && b == 'b1'": lambda found: a(found) != "a1" and b(found) == "b1",
    "has(a) && !has(b)": lambda found: "a" in found and "b" not in found,
    "!has(b) && has(a)": lambda found: "a" in found and "b" not in found,
    "!(!has(a) || has(b))": lambda found: "a" in found and "b" not in found,
    "!(has(b) || !has(a))": lambda found: "a" in found and "b" not in found,
    "a == 'a1' || b == 'b1'": lambda found: a(found) == "a1" or b(found) == "b1",
    "a == 'a1' || b != 'b1'": lambda found: a(found) == "a1" or b(found) != "b1",
    "a != 'a1' || b == 'b1'": lambda found: a(found) != "a1" or b(found) == "b1",
    "a != 'a1' || b != 'b1'": lambda found: a(found) != "a1" or b(found) != "b1",
    "! a == 'a1' || ! b == 'b1'": lambda found: a(found) != "a1" or b(found) != "b1",
}


@pytest.mark.parametrize(("text", "predicate"), MATCHES.items(), ids=[repr(text) for text in MATCHES])
def test_a_selector_matches_what_it_says_before_and_after_it_is_written_anew(
    text: str, predicate: Predicate
) -> None:
    selector = parse(text)
    again = parse(selector.text)
    assert again.unique_id == selector.unique_id
    for labels in LABELS:
        assert selector.matches(labels) == again.matches(labels) == predicate(labels), labels


REFUSED = [
    "b == b", "b contains b", "b starts with b", "b ends with b", "'b1' == b", "b", "a b", "!",
    'foo == "bar" &', 'foo == "bar" |', "foo != ||", 'foo in {"", ||', 'foo in ""', '"FOO', "\"FOO'", "'FOO",
    "(", '(a == "foo"', ")",
    "()", "%", 'a == "b" && %', 'a == "b" || %', "a ", "has(foo) &&",
    'label starts foo "value"', 'label ends foo "value"', 'label squiggles "value"',
    'a not in "bar"', "b in c",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(SelectorError):
        parse(text)


# Different ways to write a selector, and its canonical text.
SPELLINGS: dict[str, str] = {
    'a=="b"': 'a == "b"',
    'label == "value"': 'label == "value"',
    'label contains "value"': 'label contains "value"',
    'label contains"value"': 'label contains "value"',
    'contains contains "contains"': 'contains contains "contains"',
    "contains contains 'contains'": 'contains contains "contains"',
    'label startswith "value"': 'label starts with "value"',
    'label starts  with "value"': 'label starts with "value"',
    'startswith starts with "value"': 'startswith starts with "value"',
    'label endswith "value"': 'label ends with "value"',
    'label ends  with "value"': 'label ends with "value"',
    'endswith ends with "value"': 'endswith ends with "value"',
    "has(calico/k8s_ns)": "has(calico/k8s_ns)",
    "has(calico/k8s_ns/role)": "has(calico/k8s_ns/role)",
    "has(calico/k8s_NS-.1/role)": "has(calico/k8s_NS-.1/role)",
    'calico/k8s_ns == "kube-system" && k8s-app == "kube-dns"': (
        '(calico/k8s_ns == "kube-system" && k8s-app == "kube-dns")'
    ),
    'a  not  in  {"bar"}  &&  ! has( foo )  ||  b  in  {"c"} ': (
        '((a not in {"bar"} && !has(foo)) || b in {"c"})'
    ),
    'a notin{"bar"}&&!has(foo)||b in{"c"}': '((a not in {"bar"} && !has(foo)) || b in {"c"})',
    "a not in {}": "a not in {}",
    'a not in {"a"}': 'a not in {"a"}',
    'a not in {"a","B"}': 'a not in {"B", "a"}',
    "global()": "global()",
    "all()": "all()",
    "": "all()",
    " (all() )": "all()",
    "a == '\"'": "a == '\"'",
    "a contains '\"'": "a contains '\"'",
    'a endswith "\'"': 'a ends with "\'"',
    "a!='\"'": "a != '\"'",
    'a in {"d"}': 'a in {"d"}',
    'a in {"d", "a", "b"}': 'a in {"a", "b", "d"}',
    'a in {"z", "z", "x", "y", "x", "a"}': 'a in {"a", "x", "y", "z"}',
}


@pytest.mark.parametrize(("text", "canonical"), SPELLINGS.items(), ids=[repr(text) for text in SPELLINGS])
def test_every_spelling_has_one_canonical_text(text: str, canonical: str) -> None:
    assert parse(text).text == canonical
    assert parse(canonical).text == canonical
    assert parse(canonical).unique_id == parse(text).unique_id


PREFIXED: dict[str, str] = {
    "k == 'v'": 'p/k == "v"',
    "k != 'v'": 'p/k != "v"',
    "k contains 'v'": 'p/k contains "v"',
    "k starts with 'v'": 'p/k starts with "v"',
    "k ends with 'v'": 'p/k ends with "v"',
    "k == 'v' && x == 'y'": '(p/k == "v" && p/x == "y")',
    "k == 'v' || has(x)": '(p/k == "v" || has(p/x))',
    "!(k == 'v')": '!p/k == "v"',
    "k in {'v'}": 'p/k in {"v"}',
    "k not in {'v'}": 'p/k not in {"v"}',
    "!(!(k == 'v' && has(t) || all()) && (a in {'b', 'c'}))": (
        '!(!((p/k == "v" && has(p/t)) || all()) && p/a in {"b", "c"})'
    ),
}


@pytest.mark.parametrize(("text", "expected"), PREFIXED.items(), ids=PREFIXED.keys())
def test_a_prefix_goes_before_every_label_and_nothing_else(text: str, expected: str) -> None:
    assert prefixed(parse(text), "p/").text == expected
