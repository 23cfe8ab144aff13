"""Which objects a list or watch is about, for backends that choose themselves; and JSON merge patches."""

import copy
from typing import Any

from tortie.datastore.interface import InvalidError

Body = dict[str, Any]


def matches(body: Body | None, namespace: str, field_selector: str) -> bool:
    """Whether an object is in the namespace ("": any) and satisfies each `path=value`, `path!=value` term.

    Raise InvalidError for a term that is neither.
    """
    if body is None or (namespace and body["metadata"].get("namespace", "") != namespace):
        return False
    return all(_satisfies(body, term) for term in field_selector.split(",") if term)


def _satisfies(body: Body, term: str) -> bool:
    negated = "!=" in term
    path, separator, wanted = term.partition("!=" if negated else "=")
    if not separator:
        raise InvalidError(f"Field selector term {term!r} has neither = nor !=.")
    value: Any = body
    for part in path.strip().split("."):
        value = value.get(part, {}) if isinstance(value, dict) else {}
    text = "" if value == {} else str(value)
    return (text == wanted.removeprefix("=").strip()) is not negated


def merge_patch(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386 section 2)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result
