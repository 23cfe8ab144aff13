"""Documents against structs: all faults at once, and the same verdict as msgspec."""

from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from tortie.cli.fields import Fault, check
from tortie.cli.parsing import render_path


class Inner(Struct, rename="camel", omit_defaults=True):
    """A nested struct."""

    first_port: int
    name: str = ""


class Outer(Struct, rename="camel", omit_defaults=True):
    """One field of every shape that the models use."""

    mode: Literal["Always", "Never"] = "Never"
    count: int | None = None
    order: int | float | None = None
    flag: bool = False
    ports: list[int | str] = []
    inner: Inner | None = None
    inners: list[Inner] = []
    labels: dict[str, str] = {}
    anything: dict[str, Any] = {}


def faults(value: Any) -> dict[str, str]:
    """Rule by path."""
    return {render_path(fault.path): fault.rule for fault in check(value, Outer, ())}


def test_correct_value_has_no_faults() -> None:
    assert (
        faults(
            {
                "mode": "Always",
                "count": 3,
                "order": 1.5,
                "flag": True,
                "ports": [80, "80:90"],
                "inner": {"firstPort": 1},
                "inners": [{"firstPort": 1, "name": "x"}],
                "labels": {"a": "b"},
                "anything": {"goes": [1, None]},
            }
        )
        == {}
    )


def test_every_fault_is_found_with_its_path() -> None:
    assert faults(
        {
            "mode": "Sometimes",
            "count": "3",
            "order": True,
            "flag": 1,
            "ports": [80, None, 1.5],
            "inner": {"firstPort": "x", "nam": "y"},
            "inners": [{}, 5],
            "labels": {"a": 1},
            "anything": [],
            "cuont": 1,
            "zzz": 1,
        }
    ) == {
        "mode": "must be one of Always, Never",
        "count": "must be a whole number",
        "order": "must be a whole number or a number",
        "flag": "must be true or false",
        "ports[1]": "must be a whole number or text",
        "ports[2]": "must be a whole number or text",
        "inner.firstPort": "must be a whole number",
        "inner.nam": "is an unknown field; did you mean name?",
        "inners[0].firstPort": "is missing; it is required",
        "inners[1]": "must be a mapping",
        "labels.a": "must be text",
        "anything": "must be a mapping",
        "cuont": "is an unknown field; did you mean count?",
        "zzz": "is an unknown field",
    }


def test_field_in_another_case_is_recognised() -> None:
    assert faults({"FLAG": True}) == {"FLAG": "is an unknown field; did you mean flag?"}


def test_long_values_are_cut() -> None:
    (fault,) = check({"count": "x" * 500}, Outer, ("spec",))
    assert fault == Fault(("spec", "count"), "x" * 57 + "...", "must be a whole number")


_SCALAR = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.sampled_from(["Always", "x"])
_KEYS = st.sampled_from(
    ["mode", "count", "order", "flag", "ports", "inner", "inners", "labels", "anything", "firstPort", "name"]
)
_VALUE = st.recursive(
    _SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(_KEYS, _VALUE, max_size=4))
def test_verdict_is_that_of_msgspec_but_for_unknown_fields_and_null(value: dict[str, Any]) -> None:
    """A null is "not set" here: it is left out before an object is written."""
    ours = [fault for fault in check(value, Outer, ()) if not fault.unknown]
    try:
        msgspec.convert(_without_null(value), Outer)
    except msgspec.ValidationError:
        assert ours
    else:
        assert not ours


def _without_null(value: Any) -> Any:
    """As msgspec would have to see it: no null in a mapping that stands for a struct."""
    if isinstance(value, dict):
        return {
            key: item if key == "labels" else _without_null(item)
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    return value


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_what_is_no_mapping_is_one_fault(value: Any) -> None:
    assert faults(value) == {"(document)": "must be a mapping"}
