"""Resources to and from the Kubernetes API's JSON."""

import logging
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct, field

from tortie.datastore.document import is_native_key, rewritten
from tortie.datastore.interface import InvalidError
from tortie.datastore.selection import merge_patch
from tortie.model.constants import ANNOTATION_METADATA
from tortie.model.resources import CALICO_GROUP_VERSION, CRD_GROUP_VERSION, Metadata, Resource

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

# Kinds of these groups are written back whole, so they keep the document that they were read from.
_DOCUMENT_KEPT: Final = frozenset({CRD_GROUP_VERSION, CALICO_GROUP_VERSION})

_DECODERS: dict[type[Any], msgspec.json.Decoder[Any]] = {}

log = logging.getLogger(__name__)


class _ListMetadata(Struct, rename="camel"):
    resource_version: str = ""
    continue_token: str = field(default="", name="continue")


class _Page(Struct):
    items: list[Raw]
    metadata: _ListMetadata


class _WatchLine(Struct):
    type: str
    object: Raw


class _Envelope(Struct):
    metadata: Metadata = field(default_factory=Metadata)


class Status(Struct):
    """metav1.Status: the body of an error answer."""

    message: str = ""
    reason: str = ""
    code: int = 0


def encode_object(resource: Resource) -> dict[str, Any]:
    """JSON-ready object with apiVersion and kind. A None field is left out, for null is not valid where a CRD
    says "string"; a None in a list stays (a free ordinal of a block).

    When the resource was read from a document, that is written back with nothing changed in it but what
    changed in the typed fields.
    """
    new = _typed(resource)
    if not resource.document:
        return new
    stored: dict[str, Any] = msgspec.json.decode(resource.document)
    kind = resource.resource_type
    return rewritten(stored, _typed(decode(type(resource), resource.document)), new) | {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
    }


def is_folded(resource: Resource) -> bool:
    """Whether users' labels and annotations of this object stand in ANNOTATION_METADATA."""
    return bool(resource.document) and ANNOTATION_METADATA in resource.metadata.annotations


def may_fold(kind: type[Resource], patch: dict[str, Any]) -> bool:
    """Whether a merge patch is about what may stand in ANNOTATION_METADATA."""
    if kind.resource_type.api_version != CRD_GROUP_VERSION:
        return False
    return bool(patch.get("metadata", {}).keys() & {"labels", "annotations"})


def folded_patch(resource: Resource, patch: dict[str, Any]) -> dict[str, Any]:
    """The merge patch that does to a folded object, as it is stored, what `patch` says of labels and
    annotations as everybody sees them. It holds for the resource's version only."""
    metadata = resource.metadata
    wanted = patch["metadata"]
    changed = msgspec.structs.replace(
        metadata,
        labels=merge_patch(metadata.labels, wanted.get("labels", {})),
        annotations=merge_patch(metadata.annotations, wanted.get("annotations", {})),
    )
    after = encode_object(msgspec.structs.replace(resource, metadata=changed))["metadata"]
    before = msgspec.json.decode(resource.document)["metadata"]
    native = {
        name: dict.fromkeys(before.get(name, {})) | after.get(name, {}) for name in ("labels", "annotations")
    }
    version = wanted.get("resourceVersion", metadata.resource_version)
    return {**patch, "metadata": {**wanted, **native, "resourceVersion": version}}


def unfolded(resource: Resource) -> dict[str, Any]:
    """`encode_object` with users' labels and annotations natively, whatever way they are stored: etcd and
    exported documents have them so."""
    body = encode_object(resource)
    if not is_folded(resource):
        return body
    annotations = {
        key: value for key, value in resource.metadata.annotations.items() if key != ANNOTATION_METADATA
    }
    own = {"labels": dict(resource.metadata.labels), "annotations": annotations}
    rest = {key: value for key, value in body["metadata"].items() if key not in own}
    body["metadata"] = rest | {key: value for key, value in own.items() if value}
    return body


def _typed(resource: Resource) -> dict[str, Any]:
    kind = resource.resource_type
    body: dict[str, Any] = {"apiVersion": kind.api_version, "kind": kind.kind}
    for item in msgspec.structs.fields(resource):
        if item.name != "document":
            body[item.encode_name] = _without_none(msgspec.to_builtins(getattr(resource, item.name)))
    return {key: value for key, value in body.items() if value is not None}


def encode(resource: Resource) -> bytes:
    """`encode_object` as JSON text."""
    return msgspec.json.encode(encode_object(resource))


def _without_none(value: Any) -> Any:
    # Most of a block are numbers and texts: not to call itself for each of these takes a third of the time.
    if isinstance(value, dict):
        return {
            key: _without_none(item) if isinstance(item, dict | list) else item
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [_without_none(item) if isinstance(item, dict | list) else item for item in value]
    return value


def _decode(shape: type[T], text: bytes | Raw) -> T:
    """Building a decoder costs far more than a decode, hence the cache."""
    decoder = _DECODERS.get(shape)
    if decoder is None:
        decoder = _DECODERS[shape] = msgspec.json.Decoder(shape)
    value: T = decoder.decode(text)
    return value


def decode(kind: type[R], text: bytes | Raw) -> R:
    """One object; unknown fields are ignored. Raise InvalidError when it does not fit `kind`."""
    try:
        resource = _decode(kind, text)
    except msgspec.MsgspecError as error:
        raise InvalidError(f"{_describe(kind, text)} as stored does not fit its kind: {error}.") from error
    if kind.resource_type.api_version in _DOCUMENT_KEPT:
        resource.document = bytes(text)
        _overlay_metadata(resource)
    return resource


def decode_page(kind: type[R], text: bytes) -> tuple[list[R], str, str]:
    """One page of a list: objects, resource version, continue token ("" on the last page).

    Objects that do not fit are logged and left out. Raise InvalidError when the text is no list at all.
    """
    page = decode_any(_Page, text)
    items: list[R] = []
    for raw in page.items:
        try:
            items.append(decode(kind, raw))
        except InvalidError as error:
            log.error("Ignoring an object: %s", error)
    return items, page.metadata.resource_version, page.metadata.continue_token


def decode_watch_line(line: bytes) -> tuple[str, Raw]:
    """One line of a watch: event type as sent (ADDED, BOOKMARK, ERROR, ...), object. Raise InvalidError."""
    event = decode_any(_WatchLine, line)
    return event.type, event.object


def decode_metadata(text: bytes | Raw) -> Metadata:
    """Only the metadata of an object of any kind."""
    return decode_any(_Envelope, text).metadata


def decode_status(text: bytes | Raw) -> Status:
    """An error answer; an empty Status when the text is none (a proxy's HTML page, say)."""
    try:
        return _decode(Status, text)
    except msgspec.MsgspecError:
        return Status()


def decode_any(shape: type[T], text: bytes | Raw) -> T:
    """`text` as `shape`. Raise InvalidError."""
    try:
        return _decode(shape, text)
    except msgspec.MsgspecError as error:
        raise InvalidError(f"The API server's answer is no {shape.__name__}: {error}.") from error


def _describe(kind: type[Resource], text: bytes | Raw) -> str:
    try:
        name = _decode(_Envelope, text).metadata.name
    except msgspec.MsgspecError:
        name = "(without a readable name)"
    return f"{kind.resource_type.kind} {name}"


def _overlay_metadata(resource: Resource) -> None:
    """Calico's clients keep users' labels and annotations in one annotation, and only their own natively."""
    metadata = resource.metadata
    stored = metadata.annotations.get(ANNOTATION_METADATA)
    if stored is None:
        return
    try:
        original = _decode(Metadata, stored.encode())
    except msgspec.MsgspecError as error:
        kind = resource.resource_type.kind
        log.error("%s %s: cannot read annotation %s: %s", kind, metadata.name, ANNOTATION_METADATA, error)
        return
    metadata.labels = _native(metadata.labels) | original.labels
    metadata.annotations = _native(metadata.annotations) | original.annotations


def _native(entries: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in entries.items() if is_native_key(key)}
