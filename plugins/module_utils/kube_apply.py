"""The reasoning of module kube_apply: which objects change, and how to say it. Plain data, no I/O.

What the API server would make of a definition is asked of the server itself (a server-side apply as a dry
run); an object changes when that answer differs from what is stored, bookkeeping fields aside.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]

# Fields of ObjectMeta that the server writes on its own account.
SERVER_METADATA = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)
CRD = "CustomResourceDefinition"
ABSENT = object()


@dataclass(frozen=True, order=True)
class Key:
    """What makes an object the same object; the API version does not. `namespace` is empty for `default`."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        place = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.kind} {self.name}{place}"


@dataclass
class Plan:
    """The outcome per object, and the texts of Ansible's diff."""

    created: list[Key] = field(default_factory=list)
    updated: list[Key] = field(default_factory=list)
    unchanged: list[Key] = field(default_factory=list)
    differences: list[dict[str, str]] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything has to be written."""
        return bool(self.created or self.updated)

    def extend(self, other: Plan) -> None:
        """Add another plan's objects to this one."""
        self.created += other.created
        self.updated += other.updated
        self.unchanged += other.unchanged
        self.differences += other.differences


@dataclass(frozen=True)
class Patch:
    """Fields that an object must have if it exists.

    `absent_means` gives the value (by dotted path) that a missing field stands for; `immutable` lists the
    paths whose values cannot be changed after creation, `remedy` says what to do about another value.
    `check_only`: another value of those is an error, and nothing is written.
    """

    definition: Document
    absent_means: Mapping[str, Any]
    immutable: Sequence[str]
    remedy: str = "Keep the old value, or remove the object and everything made from it before this change."
    check_only: bool = False


def key_of(document: Mapping[str, Any]) -> Key:
    """The identity of a valid document."""
    metadata = document["metadata"]
    namespace = str(metadata.get("namespace") or "")
    return Key(
        group=group_of(document),
        kind=str(document["kind"]),
        namespace="" if namespace == "default" else namespace,
        name=str(metadata["name"]),
    )


def group_of(document: Mapping[str, Any]) -> str:
    """The API group; empty for the core group."""
    return str(document["apiVersion"]).rpartition("/")[0]


def problems(definitions: Sequence[Any]) -> list[str]:
    """What is wrong with definitions before any server sees them, one sentence each."""
    found = []
    seen: set[Key] = set()
    for index, document in enumerate(definitions):
        where = f"definitions[{index}]"
        if not isinstance(document, Mapping):
            found.append(f"{where} is {type(document).__name__}, not a mapping.")
            continue
        metadata = document.get("metadata")
        missing = [name for name in ("apiVersion", "kind") if not document.get(name)]
        if not isinstance(metadata, Mapping) or not metadata.get("name"):
            missing.append("metadata.name")
        if missing:
            found.append(f"{where} (kind {document.get('kind', 'unknown')}) lacks {', '.join(missing)}.")
            continue
        key = key_of(document)
        if key in seen:
            found.append(f"{where} repeats {key}.")
        seen.add(key)
    return found


def split(definitions: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """(first, later): later are objects whose kind or namespace is itself among the definitions."""
    groups = {str(item["spec"]["group"]) for item in definitions if item["kind"] == CRD}
    namespaces = {str(item["metadata"]["name"]) for item in definitions if item["kind"] == "Namespace"}
    first: list[Document] = []
    later: list[Document] = []
    for document in definitions:
        inside = str(document["metadata"].get("namespace") or "") in namespaces
        (later if inside or group_of(document) in groups else first).append(document)
    return first, later


def comparable(document: Mapping[str, Any]) -> Document:
    """The object without what the server keeps for itself: status, versions, managed fields."""
    result = copy.deepcopy(dict(document))
    result.pop("status", None)
    metadata = result["metadata"]
    for name in SERVER_METADATA:
        metadata.pop(name, None)
    annotations = metadata.get("annotations")
    if annotations is not None:
        annotations.pop("deprecated.daemonset.template.generation", None)
        annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
        if not annotations:
            del metadata["annotations"]
    return result


def compare(wanted: Mapping[Key, Document], live: Mapping[Key, Document]) -> Plan:
    """The plan for objects as the server would store them against those it stores now."""
    plan = Plan()
    for key, document in wanted.items():
        if key not in live:
            plan.created.append(key)
            plan.differences.append(difference(key, None, document))
        elif comparable(live[key]) != comparable(document):
            plan.updated.append(key)
            plan.differences.append(difference(key, live[key], document))
        else:
            plan.unchanged.append(key)
    return plan


def difference(key: Key, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, str]:
    """One element of Ansible's diff; a Secret's values are left out."""
    return {
        "before_header": f"{key} (live)",
        "after_header": f"{key} (wanted)",
        "before": "" if before is None else _text(before),
        "after": _text(after),
    }


def _text(document: Mapping[str, Any]) -> str:
    shown = comparable(document)
    if shown.get("kind") == "Secret":
        for name in ("data", "stringData"):
            if name in shown:
                shown[name] = dict.fromkeys(shown[name], "(not shown)")
    return json.dumps(shown, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def leaves(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    """(dotted path, value) of everything in a mapping that is no mapping itself."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}" if path else str(name))
    else:
        yield path, value


def at(document: Mapping[str, Any], path: str, default: Any = ABSENT) -> Any:
    """The value at a dotted path, or `default`."""
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return default
        value = value[name]
    return value


def patch_differences(patch: Patch, live: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(path, stored value, wanted value) of every field in which the live object differs from the patch."""
    found = []
    for path, wanted in leaves(patch.definition):
        if path in ("apiVersion", "kind", "metadata.name", "metadata.namespace"):
            continue
        stored = at(live, path, patch.absent_means.get(path))
        if stored != wanted:
            found.append((path, stored, wanted))
    return found


def immutable_conflicts(patch: Patch, live: Mapping[str, Any]) -> list[str]:
    """One sentence for every wanted change that the object's kind does not allow, then the remedy."""
    conflicts = [
        f"{key_of(patch.definition)} has {path} {json.dumps(stored)}, which cannot be changed to "
        f"{json.dumps(wanted)} once it exists."
        for path, stored, wanted in patch_differences(patch, live)
        if path in patch.immutable
    ]
    return [*conflicts, patch.remedy] if conflicts else []


def unready(objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the given CRDs still wait for, one sentence each; other kinds are ready as soon as they exist."""
    found = []
    for document in objects:
        if document.get("kind") != CRD:
            continue
        conditions = {item["type"]: item for item in document.get("status", {}).get("conditions") or []}
        established = conditions.get("Established", {})
        if established.get("status") != "True":
            reason = conditions.get("NamesAccepted", {}).get("message") or "it is not established yet"
            found.append(f"{key_of(document)} is not served: {reason}.")
    return found


def kinds_of(crd: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(API version, kind) of everything that a CRD makes the server serve."""
    spec = crd["spec"]
    versions = [item["name"] for item in spec.get("versions") or [] if item.get("served", True)]
    return [(f"{spec['group']}/{version}", str(spec["names"]["kind"])) for version in versions]


# By HTTP status, 0 for a server that does not answer: what to do about a refusal.
REMEDIES = {
    0: "See on the control plane whether it runs: crictl ps --name kube-apiserver; journalctl -u kubelet.",
    400: "Correct the definition.",
    401: "Give a kubeconfig that this cluster accepts; see kubeadm certs check-expiration.",
    403: "Give the kubeconfig of an administrator.",
    404: "Create its namespace and its kind first, or put them among the definitions.",
    422: "Correct the definition.",
}
AGAIN = "Run this again when the control plane is well: kubectl get --raw '/readyz?verbose'."


def refusal(action: str, refused: Sequence[tuple[str, int, str]]) -> str:
    """What could not be done and what to do about it. `refused`: object, HTTP status and reason of each."""
    reasons = "; ".join(f"{name}: {reason}" for name, _status, reason in refused)
    remedies = dict.fromkeys(REMEDIES.get(status, AGAIN) for _name, status, _reason in refused)
    return f"Cannot {action}: {reasons}. {' '.join(remedies)}"
