"""Resources to and from the Kubernetes API's JSON."""

import logging
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct, field

from tortie.datastore.interface import InvalidError
from tortie.model.constants import ANNOTATION_METADATA
from tortie.model.resources import CRD_GROUP_VERSION, Metadata, Resource

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

# Metadata keys with these parts are Calico's own: native even on objects with ANNOTATION_METADATA.
_NATIVE_KEY_PARTS: Final = ("projectcalico.org/", "operator.tigera.io/")

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
    says "string"; a None in a list stays (a free ordinal of a block)."""
    kind = resource.resource_type
    body: dict[str, Any] = _without_none(msgspec.to_builtins(resource))
    return {"apiVersion": kind.api_version, "kind": kind.kind, **body}


def encode(resource: Resource) -> bytes:
    """`encode_object` as JSON text."""
    return msgspec.json.encode(encode_object(resource))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
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
    if stored is None or resource.resource_type.api_version != CRD_GROUP_VERSION:
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
    return {key: value for key, value in entries.items() if any(part in key for part in _NATIVE_KEY_PARTS)}
