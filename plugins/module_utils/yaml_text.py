# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Write plain data as YAML that people can read. The nodes' Python has no YAML library, and only writing is
needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

# Strings that every YAML version reads as the same string without quotes. Anything that might be a
# number, a truth value, null, a date or an indicator is quoted as JSON quotes it, which YAML understands.
_PLAIN = re.compile(r"[A-Za-z/][-A-Za-z0-9_./]*")
# Outside YAML 1.2's c-printable, or a line break or byte order mark to some reader.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_RESERVED = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null", "none"})


def documents(items: Sequence[Mapping[str, Any]]) -> str:
    """Several documents with `---` between them."""
    return "---\n".join(dump(item) for item in items)


def dump(value: Any) -> str:
    """One document in block style, ending with a newline; keys keep their order."""
    return "".join(f"{line}\n" for line in _lines(value))


def scalar(value: Any) -> str:
    """A string, number, truth value, None, or an empty collection, on one line."""
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _RESERVED
        return str(value) if plain else _quoted(str(value))
    return json.dumps(value)


def _quoted(value: str) -> str:
    """A double-quoted scalar. JSON's escapes are YAML's, which has more characters to escape."""
    text = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping) and value:
        lines = []
        for key, item in value.items():
            if _nested(item):
                lines.append(f"{scalar(str(key))}:")
                lines += [f"  {line}" for line in _lines(item)]
            else:
                lines.append(f"{scalar(str(key))}: {scalar(item)}")
        return lines
    if isinstance(value, (list, tuple)) and value:
        lines = []
        for item in value:
            first, *rest = _lines(item) if _nested(item) else [scalar(item)]
            lines.append(f"- {first}")
            lines += [f"  {line}" for line in rest]
        return lines
    return [scalar(value)]


def _nested(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple)) and bool(value)
