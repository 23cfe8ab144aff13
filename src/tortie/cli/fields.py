"""A document against the struct of its kind: every field that is unknown, is missing, or has a wrong type.

msgspec stops at the first error and ignores fields that it does not know; people want all of them at once.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import inspect

from tortie.cli.parsing import Path

_LONGEST_VALUE: Final = 60  # characters of a value in a message


@dataclass(frozen=True, slots=True)
class Fault:
    """One finding. `rule` is a sentence without its subject; `unknown`: the field does not exist in our
    version of the kind, which may be older than the document."""

    path: Path
    value: str
    rule: str
    unknown: bool = False


@cache
def shape(struct: type[msgspec.Struct]) -> inspect.StructType:
    """The fields of a struct."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return info


def check(value: Any, struct: type[msgspec.Struct], path: Path) -> Iterator[Fault]:
    """Every fault of `value`, which stands at `path`, as a `struct`."""
    yield from _check(value, shape(struct), path)


def unknown_fields(value: dict[str, Any], known: Sequence[str], path: Path) -> Iterator[Fault]:
    """A fault for each key of `value` that is not in `known`."""
    for key in value:
        if key not in known:
            yield unknown_field(path, key, value[key], known)


def unknown_field(path: Path, key: str, value: Any, known: Sequence[str]) -> Fault:
    """The fault of a field that does not exist, with the nearest one that does."""
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(key.lower(), lower, n=1, cutoff=0.7)
    rule = "is an unknown field" + (f"; did you mean {lower[close[0]]}?" if close else "")
    return Fault((*path, key), shown(value), rule, unknown=True)


def shown(value: Any) -> str:
    """A value for a message: short, on one line."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _check(value: Any, info: inspect.Type, path: Path) -> Iterator[Fault]:
    match info:
        case inspect.StructType():
            yield from _struct(value, info, path)
        case inspect.UnionType(types=types):
            yield from _union(value, types, path)
        case inspect.ListType(item_type=item):
            if not isinstance(value, list):
                yield _wrong(value, info, path)
                return
            for index, element in enumerate(value):
                yield from _check(element, item, (*path, index))
        case inspect.DictType(value_type=item):
            if not isinstance(value, dict):
                yield _wrong(value, info, path)
                return
            for key, element in value.items():
                yield from _check(element, item, (*path, key))
        case _:
            if not _fits(value, info):
                yield _wrong(value, info, path)


def _struct(value: Any, info: inspect.StructType, path: Path) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield _wrong(value, info, path)
        return
    fields = {item.encode_name: item for item in info.fields}
    yield from unknown_fields(value, list(fields), path)
    for name, item in fields.items():
        given = value.get(name)
        if given is None:
            if item.required:
                yield Fault((*path, name), "", "is missing; it is required")
            continue
        yield from _check(given, item.type, (*path, name))


def _union(value: Any, types: tuple[inspect.Type, ...], path: Path) -> Iterator[Fault]:
    """Any of the types will do; the answer of the only one that has the right outline says most."""
    candidates = [item for item in types if not isinstance(item, inspect.NoneType)]
    if value is None and len(candidates) < len(types):
        return
    answers = [list(_check(value, item, path)) for item in candidates]
    if any(not faults for faults in answers):
        return
    deeper = [faults for faults in answers if any(fault.path != path for fault in faults)]
    if len(candidates) == 1:
        yield from answers[0]
    elif len(deeper) == 1:
        yield from deeper[0]
    else:
        expected = " or ".join(_noun(item) for item in candidates)
        yield Fault(path, shown(value), f"must be {expected}")


def _fits(value: Any, info: inspect.Type) -> bool:
    match info:
        case inspect.AnyType():
            return True
        case inspect.NoneType():
            return value is None
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType(ge=least, le=most, gt=above, lt=below):
            return (
                isinstance(value, int)
                and not isinstance(value, bool)
                and (least is None or value >= least)
                and (most is None or value <= most)
                and (above is None or value > above)
                and (below is None or value < below)
            )
        case inspect.FloatType():
            return isinstance(value, int | float) and not isinstance(value, bool)
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.LiteralType(values=values):
            return value in values and not isinstance(value, bool)
        case inspect.EnumType(cls=enum):
            return value in [item.value for item in enum]
    # Anything richer (dates, addresses): msgspec knows how to read it from JSON.
    return True


def _wrong(value: Any, info: inspect.Type, path: Path) -> Fault:
    return Fault(path, shown(value), f"must be {_noun(info)}")


def _noun(info: inspect.Type) -> str:
    match info:
        case inspect.StructType() | inspect.DictType():
            return "a mapping"
        case inspect.ListType():
            return "a list"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=least, le=most):
            if least is not None and most is not None:
                return f"a whole number from {least} to {most}"
            return "a whole number" if least is None else f"a whole number of at least {least}"
        case inspect.FloatType():
            return "a number"
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(str(item) for item in values)
        case inspect.EnumType(cls=enum):
            return "one of " + ", ".join(str(item.value) for item in enum)
    return "text"
