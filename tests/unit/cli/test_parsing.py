"""YAML and JSON with line numbers."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tortie.cli.parsing import ParseError, parse, parse_path, render_path

TEXT = """\
# a comment
kind: IPPool
spec:
  cidr: 10.5.0.0/16
  nets:
    - a
    - b: 1
      c:
        d
---

---
kind: Second
"""


def test_each_value_has_the_line_of_its_key() -> None:
    first, second = parse(TEXT)
    assert first.value == {
        "kind": "IPPool",
        "spec": {"cidr": "10.5.0.0/16", "nets": ["a", {"b": 1, "c": "d"}]},
    }
    assert first.line(("kind",)) == 2
    assert first.line(("spec", "cidr")) == 4
    assert first.line(("spec", "nets", 1, "b")) == 7
    assert first.line(("spec", "nets", 1, "c")) == 8
    assert (second.number, second.line(("kind",))) == (3, 13)


def test_missing_field_has_the_line_of_what_surrounds_it() -> None:
    (document,) = parse("a:\n  b:\n    c: 1\n")
    assert document.line(("a", "b", "d", 3)) == 2
    assert document.line(("x",)) == 1


def test_empty_documents_are_passed_over() -> None:
    assert list(parse("---\n---\n# nothing\n")) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10:20", "10:20"),  # a port range, in YAML 1.1 a number to base 60
        ("1:30.5", "1:30.5"),
        ("2026-11-22T10:48:29Z", "2026-11-22T10:48:29Z"),
        ("2026-11-22", "2026-11-22"),
        ("'80'", "80"),
        ("80", 80),
        ("1.5", 1.5),
        ("true", True),
        ("~", None),
    ],
)
def test_scalar_is_read_as_calicos_programs_read_it(text: str, value: object) -> None:
    (document,) = parse(f"a: {text}\n")
    assert document.value == {"a": value}


def test_json_with_tabs_is_read() -> None:
    (document,) = parse('{\n\t"a": [\n\t\t1,\n\t\t2\n\t]\n}\n')
    assert document.value == {"a": [1, 2]}
    assert document.line(("a", 1)) == 4


def test_merged_mapping_yields_to_the_own_keys() -> None:
    (document,) = parse("base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  y: 3\n")
    assert document.value["own"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "has the key 'a' twice"),
        ("a: [1,\nb: }", 2, "is no YAML"),
        ("a:\n  b: !!python/object:os.system x\n", 2, "has the tag"),
        ("a: 1\nb: &x\n  - *x\n", 2, "contains itself"),
        ("a: 1\nb: .inf\n", 2, "no number in JSON"),
        ("a: 1\nb: \x01\n", 2, "character #x0001"),
        ("? [1]\n: 2\n", 1, "key that is no text"),
        ("[" * 1500, 1, "nested too deeply"),
    ],
)
def test_what_is_no_plain_document_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(ParseError, match=message) as caught:
        list(parse(text))
    assert caught.value.line == line


def test_aliases_cannot_make_a_small_text_huge() -> None:
    levels = "".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
    )
    with pytest.raises(ParseError, match="more than 200000 values"):
        list(parse("a0: &a0 [1]\n" + levels))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text("abc:/ \"'#-\n", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc./-", max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(_JSON)
def test_what_yaml_and_json_write_is_read_back(value: object) -> None:
    body = {"a": value}
    assert [item.value for item in parse(yaml.safe_dump(body))] == [body]
    assert [item.value for item in parse(json.dumps(body, indent="\t"))] == [body]


@settings(deadline=None)
@given(st.lists(st.text('ab.[]"\\ -/$', min_size=1, max_size=5) | st.integers(0, 99), max_size=5))
def test_rendered_path_can_be_read_again(parts: list[str | int]) -> None:
    path = ("spec", *parts)
    assert parse_path(render_path(path)) == path


def test_path_is_written_as_people_do() -> None:
    path = ("spec", "ingress", 0, "source", "ports", 1)
    assert render_path(path) == "spec.ingress[0].source.ports[1]"
    assert render_path(("metadata", "labels", "a.b/c")) == 'metadata.labels["a.b/c"]'
