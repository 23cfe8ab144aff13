"""Objects of the v3 API as people write them, and their stored form, whatever fields they have.

A kind is read and written here without its typed struct: what a newer Calico has put into a spec is shown and
kept, and an object that does not fit its kind can still be seen, repaired and deleted.
"""

from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import Struct, field

from tortie.datastore.interface import InvalidError
from tortie.model.constants import ANNOTATION_METADATA
from tortie.model.resources import Metadata, Resource, ResourceType

R = TypeVar("R", bound=Resource)

API_VERSION: Final = "projectcalico.org/v3"
Document = dict[str, Any]

# What the server says about an object; a document that is carried to another cluster must not have it.
SERVER_FIELDS: Final = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")
# Fields of metav1.ObjectMeta.
METADATA_FIELDS: Final = (
    "name",
    "namespace",
    "labels",
    "annotations",
    *SERVER_FIELDS,
    "deletionGracePeriodSeconds",
    "finalizers",
    "generateName",
    "managedFields",
    "ownerReferences",
    "selfLink",
)


class Stored(Resource, kw_only=True):
    """An object of any kind with its spec as it stands in the datastore."""

    spec: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] | None = None


_STORED_KINDS: dict[ResourceType, type[Stored]] = {}


def stored_kind(where: ResourceType) -> type[Stored]:
    """The untyped kind that is stored at `where`."""
    kind = _STORED_KINDS.get(where)
    if kind is None:
        made = msgspec.defstruct(
            f"Stored{where.kind}", [], bases=(Stored,), namespace={"resource_type": where}, kw_only=True
        )
        kind = _STORED_KINDS[where] = cast(type[Stored], made)
    return kind


def spec_of(resource: Resource) -> Document:
    """The spec of a stored object as a mapping, typed or not."""
    spec: Any = getattr(resource, "spec", None)
    return explicit(spec) if isinstance(spec, Struct) else dict(spec or {})


def with_content(resource: R, metadata: Metadata, spec: Document) -> R:
    """A copy with other metadata and another spec. Raise InvalidError when the spec does not fit."""
    old: Any = getattr(resource, "spec", None)
    try:
        new = msgspec.convert(spec, type(old)) if isinstance(old, Struct) else spec
    except msgspec.ValidationError as error:
        kind = resource.resource_type.kind
        raise InvalidError(f"{kind} {metadata.name}: spec does not fit: {error}.") from error
    return msgspec.structs.replace(resource, metadata=metadata, spec=new)


def explicit(struct: Struct) -> Document:
    """A struct under its wire names, defaults included; None, empty collections and strings are left out."""
    values = {
        item.encode_name: msgspec.to_builtins(getattr(struct, item.name))
        for item in msgspec.structs.fields(struct)
    }
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}


def metadata_document(metadata: Metadata) -> Document:
    """Metadata in the v3 API: without the annotation that holds it in storage."""
    body = explicit(metadata)
    annotations = {key: value for key, value in metadata.annotations.items() if key != ANNOTATION_METADATA}
    body.pop("annotations", None)
    return body | ({"annotations": annotations} if annotations else {})


def with_metadata_of(metadata: Metadata, body: Document) -> Metadata:
    """Stored metadata with the labels and annotations of a document."""
    given = _metadata(body)
    kept = {key: value for key, value in metadata.annotations.items() if key == ANNOTATION_METADATA}
    return msgspec.structs.replace(
        metadata,
        labels=dict(given.get("labels") or {}),
        annotations=dict(given.get("annotations") or {}) | kept,
    )


def document(kind: str, metadata: Metadata, spec: Document, status: Document | None = None) -> Document:
    """An object in the v3 API."""
    body = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata_document(metadata), "spec": spec}
    if status:
        body["status"] = status
    return body


def name_of(body: Document) -> str:
    """`metadata.name`, or nothing."""
    return str(_metadata(body).get("name") or "")


def namespace_of(body: Document) -> str:
    """`metadata.namespace`, or nothing."""
    return str(_metadata(body).get("namespace") or "")


def version_of(body: Document) -> str:
    """`metadata.resourceVersion`, or nothing."""
    return str(_metadata(body).get("resourceVersion") or "")


def _metadata(body: Document) -> Document:
    metadata = body.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def exported(body: Document, with_namespace: bool) -> Document:
    """A document without what belongs to this cluster only."""
    dropped = {*SERVER_FIELDS, *(() if with_namespace else ("namespace",))}
    metadata = {key: value for key, value in _metadata(body).items() if key not in dropped}
    return {key: value for key, value in {**body, "metadata": metadata}.items() if key != "status"}
