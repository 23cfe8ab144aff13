"""Everything that is wrong with a document, with file, line, field and rule, before anything is sent."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tortie.cli import fields
from tortie.cli.defaults import with_defaults
from tortie.cli.documents import API_VERSION, METADATA_FIELDS, name_of
from tortie.cli.fields import Fault
from tortie.cli.inputs import Source
from tortie.cli.kinds import Kind, UnknownKindError, kind_titled
from tortie.cli.native import NODE_FIELDS
from tortie.cli.parsing import Path, parse_path, render_path
from tortie.model.endpoint_validation import node_problems
from tortie.model.problems import Problem
from tortie.model.registry import CRD_KINDS, ETCD_ONLY_KINDS
from tortie.model.resources import Resource
from tortie.model.validation import problems, without_effect

_TOP_LEVEL: Final = ("apiVersion", "kind", "metadata", "spec", "status")
_STRUCTS: Final[dict[str, type[Resource]]] = {
    kind.resource_type.kind: kind for kind in (*CRD_KINDS, *ETCD_ONLY_KINDS)
}
_NODE_DERIVED: Final = ("addresses", "orchRefs")  # shown, never written


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `warning`: the object may be written, but what it says is not done.
    `unknown`: the field is not one of ours."""

    document: Source
    path: Path
    value: str
    rule: str
    unknown: bool = False
    warning: bool = False

    @property
    def field(self) -> str:
        """The path as text."""
        return render_path(self.path)

    def __str__(self) -> str:
        kind, name = self.document.value.get("kind"), name_of(self.document.value)
        subject = f"{kind} {name}".strip() if isinstance(kind, str) else name
        value = f" {self.value!r}" if self.value else ""
        where = self.document.place(self.path)
        return f"{where}: {subject or 'object'}: {self.field}{value} {self.rule}"


@dataclass(frozen=True, slots=True)
class Checked:
    """A document, its kind when it has one, and what is wrong with it."""

    document: Source
    kind: Kind | None
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that forbid it to be written."""
        return tuple(item for item in self.findings if not item.warning)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The others."""
        return tuple(item for item in self.findings if item.warning)


def struct_of(kind: Kind) -> type[Resource] | None:
    """The struct that types the kind's spec; None for nodes, whose document is put together, and for kinds
    that nobody writes."""
    if kind.refused:
        return None
    return _STRUCTS.get(kind.stored or kind.title)


def check(document: Source) -> Checked:
    """Check one document."""
    value = document.value
    version = value.get("apiVersion")
    if version is not None and version != API_VERSION:
        rule = f"must be {API_VERSION}; other objects are for kubectl"
        fault = Fault(("apiVersion",), fields.shown(version), rule)
        return Checked(document, None, (_finding(document, fault),))
    try:
        kind = kind_titled(str(value.get("kind") or ""))
    except UnknownKindError as error:
        fault = Fault(("kind",), fields.shown(value.get("kind") or ""), str(error))
        return Checked(document, None, (_finding(document, fault),))
    faults = list(_outline(value, kind))
    findings = [_finding(document, fault) for fault in faults]
    if not any(not fault.unknown for fault in faults):
        findings += _rules(document, kind)
    findings.sort(key=lambda finding: document.line(finding.path))
    return Checked(document, kind, tuple(findings))


def _finding(document: Source, fault: Fault, *, warning: bool = False) -> Finding:
    return Finding(document, fault.path, fault.value, fault.rule, fault.unknown, warning)


def _outline(value: dict[str, Any], kind: Kind) -> Iterator[Fault]:
    if value.get("apiVersion") is None:
        yield Fault(("apiVersion",), "", f"is missing; it must be {API_VERSION}")
    yield from fields.unknown_fields(value, _TOP_LEVEL, ())
    yield from _metadata(value.get("metadata"), kind)
    spec = value.get("spec")
    if spec is not None and not isinstance(spec, dict):
        yield Fault(("spec",), fields.shown(spec), "must be a mapping")
        return
    if kind.title == "Node":
        yield from _node(spec or {})
    struct = struct_of(kind)
    if struct is not None:
        shape = next(item.type for item in fields.shape(struct).fields if item.name == "spec")
        assert isinstance(shape, msgspec.inspect.StructType)
        yield from fields.check(spec or {}, shape.cls, ("spec",))


def _node(spec: dict[str, Any]) -> Iterator[Fault]:
    """A misspelt setting would be ignored without a word: the others are written as annotations."""
    path: Path = ("spec",)
    yield from fields.unknown_fields(spec, [*{field[0]: 0 for field in NODE_FIELDS}, *_NODE_DERIVED], path)
    for part in ("bgp", "wireguard"):
        inner = spec.get(part)
        if inner is not None and not isinstance(inner, dict):
            yield Fault((*path, part), fields.shown(inner), "must be a mapping")
        elif inner:
            known = [field[1] for field in NODE_FIELDS if field[0] == part]
            yield from fields.unknown_fields(inner, known, (*path, part))


def _metadata(metadata: Any, kind: Kind) -> Iterator[Fault]:
    path: Path = ("metadata",)
    if not isinstance(metadata, dict):
        yield Fault(path, fields.shown(metadata or ""), "must be a mapping with a name")
        return
    yield from fields.unknown_fields(metadata, METADATA_FIELDS, path)
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        yield Fault((*path, "name"), fields.shown(name or ""), "must be a name: text that is not empty")
    namespace = metadata.get("namespace")
    if namespace and not kind.namespaced:
        rule = f"must be left out: {kind.title} is not namespaced"
        yield Fault((*path, "namespace"), fields.shown(namespace), rule)
    elif namespace is not None and not isinstance(namespace, str):
        yield Fault((*path, "namespace"), fields.shown(namespace), "must be text")
    for field in ("labels", "annotations"):
        entries = metadata.get(field)
        if entries is None:
            continue
        if not isinstance(entries, dict):
            yield Fault((*path, field), fields.shown(entries), "must be a mapping of text to text")
            continue
        for key, entry in entries.items():
            if not isinstance(entry, str):
                rule = "must be text: put it in quotes"
                yield Fault((*path, field, key), fields.shown(entry), rule)


def typed(value: dict[str, Any], kind: Kind) -> Resource | None:
    """The document as its kind's struct; None when the kind has none. Raise msgspec.ValidationError."""
    struct = struct_of(kind)
    if struct is None:
        return None
    metadata = {
        field: value["metadata"].get(field)
        for field in ("name", "namespace", "labels", "annotations")
        if value["metadata"].get(field)
    }
    return msgspec.convert({"metadata": metadata, "spec": value.get("spec") or {}}, struct)


def _rules(document: Source, kind: Kind) -> Iterator[Finding]:
    """What the kind's own validation says."""
    value = document.value
    if kind.title == "Node":
        for problem in node_problems(value.get("spec") or {}):
            yield _finding(document, _fault(problem))
    try:
        resource = typed(with_defaults(kind, value), kind)
    except msgspec.ValidationError as error:
        message, _separator, where = str(error).partition(" - at `$.")
        fault = Fault(parse_path(where.removesuffix("`")), "", f"does not fit: {message}")
        yield _finding(document, fault)
        return
    if resource is not None:
        for problem in problems(resource):
            yield _finding(document, _fault(problem))
        for problem in without_effect(resource):
            yield _finding(document, _fault(problem), warning=True)


def _fault(problem: Problem) -> Fault:
    return Fault(parse_path(problem.field), problem.value, problem.rule)
