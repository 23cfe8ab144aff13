"""The three patch languages."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tortie.cli.patching import PatchError, PatchType, apply_json_patch, patcher, strategic_merge

BODY: dict[str, Any] = {"spec": {"a": 1, "list": [1, 2, 3], "map": {"x": 1, "y": 2}}, "kind": "K"}


@pytest.mark.parametrize(
    ("patch", "spec"),
    [
        ({"a": 2}, {"a": 2, "list": [1, 2, 3], "map": {"x": 1, "y": 2}}),
        ({"a": None}, {"list": [1, 2, 3], "map": {"x": 1, "y": 2}}),
        ({"list": [9]}, {"a": 1, "list": [9], "map": {"x": 1, "y": 2}}),
        ({"map": {"x": None, "z": 3}}, {"a": 1, "list": [1, 2, 3], "map": {"y": 2, "z": 3}}),
    ],
)
def test_both_merges_agree_where_there_are_no_directives(patch: dict[str, Any], spec: dict[str, Any]) -> None:
    kinds: tuple[PatchType, ...] = ("strategic", "merge")
    for kind in kinds:
        change = patcher(json.dumps({"spec": patch}), kind)
        assert change(BODY) == {"spec": spec, "kind": "K"}
    assert BODY["spec"]["a"] == 1


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ({"map": {"$patch": "replace", "z": 1}}, {"a": 1, "list": [1, 2, 3], "map": {"z": 1}}),
        ({"map": {"$patch": "delete"}}, {"a": 1, "list": [1, 2, 3], "map": {}}),
        ({"map": {"$retainKeys": ["y", "z"], "z": 3}}, {"a": 1, "list": [1, 2, 3], "map": {"y": 2, "z": 3}}),
        ({"$deleteFromPrimitiveList/list": [1, 3]}, {"a": 1, "list": [2], "map": {"x": 1, "y": 2}}),
    ],
)
def test_directives_of_strategic_merge(patch: dict[str, Any], result: dict[str, Any]) -> None:
    assert strategic_merge(BODY["spec"], patch) == result


def test_unknown_directive_is_refused() -> None:
    with pytest.raises(PatchError, match=r"\$setElementOrder/list is not supported"):
        strategic_merge({}, {"$setElementOrder/list": []})


# RFC 6902 appendix A.
@pytest.mark.parametrize(
    ("document", "operations", "result"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
        ({"foo": [1, 3]}, [{"op": "add", "path": "/foo/1", "value": 2}], {"foo": [1, 2, 3]}),
        ({"foo": [1]}, [{"op": "add", "path": "/foo/-", "value": [2]}], {"foo": [1, [2]]}),
        ({"baz": 1, "foo": 2}, [{"op": "remove", "path": "/baz"}], {"foo": 2}),
        ({"foo": [1, 2, 3]}, [{"op": "remove", "path": "/foo/1"}], {"foo": [1, 3]}),
        ({"baz": 1}, [{"op": "replace", "path": "/baz", "value": 2}], {"baz": 2}),
        ({"foo": [1, 2]}, [{"op": "replace", "path": "/foo/0", "value": 3}], {"foo": [3, 2]}),
        (
            {"a": {"b": 1}, "c": {}},
            [{"op": "move", "from": "/a/b", "path": "/c/b"}],
            {"a": {}, "c": {"b": 1}},
        ),
        ({"a": [1, 2, 3]}, [{"op": "move", "from": "/a/0", "path": "/a/2"}], {"a": [2, 3, 1]}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a/b": 1, "m~n": 2}, [{"op": "test", "path": "/a~1b", "value": 1}], {"a/b": 1, "m~n": 2}),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    ],
)
def test_json_patch_follows_the_rfc(
    document: dict[str, Any], operations: list[Any], result: dict[str, Any]
) -> None:
    assert apply_json_patch(document, operations) == result


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ({"op": "test", "path": "/a", "value": 2}, "the test of /a failed"),
        ({"op": "remove", "path": "/b"}, "nothing stands at 'b'"),
        ({"op": "replace", "path": "/b", "value": 1}, "nothing stands at 'b'"),
        ({"op": "add", "path": "/l/5", "value": 1}, "'5' is no place in a list of 2"),
        ({"op": "add", "path": "a", "value": 1}, "is no JSON pointer"),
        ({"op": "add", "path": "/b/c", "value": 1}, "nothing stands at 'b'"),
        ({"op": "add", "path": "/a/c", "value": 1}, "no mapping and no list"),
        ({"op": "add", "path": "/b"}, "value is missing"),
        ({"op": "move", "from": "/m", "path": "/m/n"}, "inside of what is to be moved"),
        ({"op": "merge", "path": "/b"}, "op is 'merge'"),
        ("x", "is no operation"),
    ],
)
def test_json_patch_that_cannot_be_applied_says_which_operation(operation: Any, message: str) -> None:
    document = {"a": 1, "l": [0], "m": {}}
    with pytest.raises(PatchError, match=f"operation 2: .*{message}"):
        apply_json_patch(document, [{"op": "add", "path": "/x", "value": 1}, operation])
    assert document == {"a": 1, "l": [0], "m": {}}


_VALUE = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1, max_size=2), inner),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.dictionaries(st.text("ab", min_size=1, max_size=2), _VALUE), _VALUE)
def test_added_value_is_read_back_by_test_and_goes_with_remove(document: dict[str, Any], value: Any) -> None:
    added = [{"op": "add", "path": "/new", "value": value}, {"op": "test", "path": "/new", "value": value}]
    assert apply_json_patch(document, added) == {**document, "new": value}
    assert apply_json_patch(document, [*added, {"op": "remove", "path": "/new"}]) == document
