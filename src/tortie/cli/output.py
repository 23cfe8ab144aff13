"""What `get` prints: tables, YAML, JSON, chosen columns."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from tortie.cli import tables
from tortie.cli.documents import Document
from tortie.cli.kinds import Kind, document_list

_CUSTOM = "custom-columns="
_REFUSED = ("go-template", "go-template-file")
FORMATS = ("ps", "wide", "yaml", "json", f"{_CUSTOM}COLUMN,...")


class FormatError(ValueError):
    """The value of -o is none that we have; the message says what to use."""


@dataclass(frozen=True, slots=True)
class Format:
    """How to print. `name` is ps, wide, yaml or json; `columns` replaces the kind's own in a table."""

    name: str
    columns: tuple[str, ...] = ()


def parse_format(text: str) -> Format:
    """The value of -o. Raise FormatError."""
    if text.startswith(_CUSTOM):
        columns = tuple(column.strip().upper() for column in text.removeprefix(_CUSTOM).split(","))
        return Format("ps", columns)
    if text.partition("=")[0] in _REFUSED:
        raise FormatError(
            f"{text.partition('=')[0]} is not supported, because its language is Go's own; use -o json "
            "and a program that reads JSON, or -o custom-columns=COLUMN,..."
        )
    if text not in ("ps", "wide", "yaml", "json"):
        raise FormatError(f"{text!r} is no output format; choose from {', '.join(FORMATS)}")
    return Format(text)


def render(
    kind: Kind, items: Sequence[Document], version: str, form: Format, single: bool, spaces: bool
) -> str:
    """The text for objects of one kind. `version` is the list's; `single`: one object stands for the list;
    `spaces`: the table shows namespaces. Raise FormatError for a column that the kind does not have."""
    if form.name in ("yaml", "json"):
        if single and not items:
            return ""
        body = items[0] if single else document_list(kind, list(items), version)
        return dump(body, form.name)
    return table(kind, items, form, spaces)


def dump(body: Document | list[Document], name: str) -> str:
    """A document as YAML or JSON, keys in order."""
    if name == "json":
        return json.dumps(body, indent=2, sort_keys=True) + "\n"
    return yaml.safe_dump(body, sort_keys=True, allow_unicode=True)


def table(kind: Kind, items: Sequence[Document], form: Format, spaces: bool) -> str:
    """One line for each object under the kind's headings."""
    known = dict.fromkeys(("NAME", *kind.headings, *kind.wide, *(("NAMESPACE",) if kind.namespaced else ())))
    headings = form.columns or (kind.wide if form.name == "wide" else kind.headings)
    for heading in headings:
        if heading not in known:
            raise FormatError(f"{kind.title} has no column {heading!r}; it has: {', '.join(known)}")
    if kind.namespaced and spaces and "NAMESPACE" not in headings:
        headings = ("NAMESPACE", *headings)
    cells = [kind.cells(item) for item in items]
    return tables.columns(headings, [[row.get(heading, "") for heading in headings] for row in cells])
