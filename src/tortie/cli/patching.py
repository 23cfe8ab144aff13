"""The three ways to say what to change in a document: strategic merge, JSON merge (RFC 7386), JSON patch
(RFC 6902)."""

import copy
import json
from collections.abc import Callable
from typing import Any, Final, Literal

from tortie.cli.documents import Document
from tortie.cli.parsing import ParseError, parse
from tortie.datastore.selection import merge_patch

PatchType = Literal["strategic", "merge", "json"]
PATCH_TYPES: Final[tuple[PatchType, ...]] = ("strategic", "merge", "json")

_DIRECTIVE: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_DELETE_VALUES: Final = "$deleteFromPrimitiveList/"


class PatchError(ValueError):
    """The patch cannot be read or applied; the message says where."""


def patcher(text: str, kind: PatchType) -> Callable[[Document], Document]:
    """A function that applies the patch, JSON or YAML, to a document. Raise PatchError."""
    try:
        values = [parsed.value for parsed in parse(text)]
    except ParseError as error:
        raise PatchError(f"the patch, line {error.line}, {error}") from error
    patch = values[0] if len(values) == 1 else None
    if kind == "json":
        if not isinstance(patch, list):
            raise PatchError("a JSON patch must be a list of operations (RFC 6902)")
        return lambda document: _whole(apply_json_patch(document, patch))
    if not isinstance(patch, dict):
        raise PatchError('the patch must be one mapping, such as {"spec": {"natOutgoing": true}}')
    merge = merge_patch if kind == "merge" else strategic_merge
    return lambda document: _whole(merge(document, patch))


def _whole(value: Any) -> Document:
    if not isinstance(value, dict):
        raise PatchError("the patch leaves no object")
    return value


def strategic_merge(target: Any, patch: Any) -> Any:
    """Kubernetes' strategic merge. No list of Calico's kinds has a merge key, so a list replaces the list;
    the directives $patch (replace, delete, merge), $retainKeys and $deleteFromPrimitiveList work. Raise
    PatchError for others."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    directive = patch.get(_DIRECTIVE, "merge")
    if directive == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != _DIRECTIVE}
    if directive == "delete":
        return {}
    if directive != "merge":
        raise PatchError(f"$patch is {directive!r}; it must be merge, replace or delete")
    result = dict(target) if isinstance(target, dict) else {}
    if _RETAIN in patch:
        result = {key: value for key, value in result.items() if key in patch[_RETAIN]}
    for key, value in patch.items():
        if key in (_DIRECTIVE, _RETAIN):
            continue
        if key.startswith(_DELETE_VALUES):
            field = key.removeprefix(_DELETE_VALUES)
            result[field] = [item for item in result.get(field) or [] if item not in value]
        elif key.startswith("$"):
            raise PatchError(f"the directive {key} is not supported; use --type json")
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = strategic_merge(result.get(key), value)
    return result


def apply_json_patch(target: Any, operations: list[Any]) -> Any:
    """JSON patch: add, remove, replace, move, copy, test, in order, all or nothing. Raise PatchError."""
    result = copy.deepcopy(target)
    for number, operation in enumerate(operations, start=1):
        try:
            result = _apply(result, operation)
        except PatchError as error:
            raise PatchError(f"operation {number}: {error}") from error
    return result


def _apply(target: Any, operation: Any) -> Any:
    if not isinstance(operation, dict):
        raise PatchError(f"{json.dumps(operation)} is no operation")
    name, path = operation.get("op"), operation.get("path")
    parts = _pointer(path)
    match name:
        case "add":
            return _add(target, parts, copy.deepcopy(_member(operation, "value")))
        case "remove":
            return _remove(target, parts)
        case "replace":
            return _add(_remove(target, parts), parts, copy.deepcopy(_member(operation, "value")))
        case "test":
            if _read(target, parts) != _member(operation, "value"):
                raise PatchError(f"the test of {path} failed: the document has another value there")
            return target
        case "copy":
            return _add(target, parts, copy.deepcopy(_read(target, _pointer(_member(operation, "from")))))
        case "move":
            source = _pointer(_member(operation, "from"))
            value = _read(target, source)
            if parts[: len(source)] == source and parts != source:
                raise PatchError(f"{path} is inside of what is to be moved")
            return _add(_remove(target, source), parts, value)
    raise PatchError(f"op is {name!r}; it must be add, remove, replace, move, copy or test")


def _member(operation: dict[str, Any], name: str) -> Any:
    if name not in operation:
        raise PatchError(f"{name} is missing")
    return operation[name]


def _pointer(text: Any) -> list[str]:
    """The parts of a JSON pointer (RFC 6901)."""
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise PatchError(f"{text!r} is no JSON pointer; it must begin with a slash")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _index(part: str, length: int) -> int:
    if not part.isdecimal() or int(part) >= length:
        raise PatchError(f"{part!r} is no place in a list of {length}")
    return int(part)


def _step(value: Any, part: str) -> Any:
    if isinstance(value, list):
        return value[_index(part, len(value))]
    if isinstance(value, dict) and part in value:
        return value[part]
    raise PatchError(f"nothing stands at {part!r}")


def _read(value: Any, parts: list[str]) -> Any:
    for part in parts:
        value = _step(value, part)
    return value


def _add(target: Any, parts: list[str], value: Any) -> Any:
    if not parts:
        return value
    holder, last = _read(target, parts[:-1]), parts[-1]
    if isinstance(holder, list):
        holder.insert(len(holder) if last == "-" else _index(last, len(holder) + 1), value)
    elif isinstance(holder, dict):
        holder[last] = value
    else:
        raise PatchError(f"{last!r} cannot be set in a value that is no mapping and no list")
    return target


def _remove(target: Any, parts: list[str]) -> Any:
    if not parts:
        return None
    holder, last = _read(target, parts[:-1]), parts[-1]
    _step(holder, last)
    if isinstance(holder, list):
        holder.pop(int(last))
    else:
        del holder[last]
    return target
