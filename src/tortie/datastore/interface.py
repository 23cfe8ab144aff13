"""The datastore as the rest of the package sees it.

Semantics are Kubernetes': every stored object carries `metadata.resource_version`; `update` and `delete` are
compare-and-swap on it. Backends raise only the errors below; each message names kind, object and reason.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from tortie.model.resources import Resource

R = TypeVar("R", bound=Resource)
T = TypeVar("T")


class DatastoreError(Exception):
    """Base. `retryable` says whether the same call may succeed later without a change by anybody."""

    retryable = False


class NotFoundError(DatastoreError):
    """The object does not exist (HTTP 404)."""


class ConflictError(DatastoreError):
    """The resource version is stale (HTTP 409): read again, decide again."""


class AlreadyExistsError(DatastoreError):
    """Create found the name taken (HTTP 409 AlreadyExists)."""


class ForbiddenError(DatastoreError):
    """Authentication or authorisation failed (HTTP 401, 403)."""


class InvalidError(DatastoreError):
    """The server refused the object (HTTP 400, 422)."""


class GoneError(DatastoreError):
    """The watch's resource version is too old (HTTP 410): list again."""


class UnavailableError(DatastoreError):
    """No answer, an answer cut short, a time-out, 429 or 5xx, after the bounded retries."""

    retryable = True


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """All objects of one kind, and the resource version to watch from."""

    items: list[T]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Event(Generic[T]):
    """One change. For `deleted`, `object` is the last state. Backends keep bookmarks to themselves."""

    type: Literal["added", "modified", "deleted"]
    object: T
    resource_version: str


class Datastore(Protocol):
    """Async, safe to share between tasks of one event loop. Every call is bounded in time."""

    async def get(self, kind: type[R], name: str, namespace: str = "") -> R:
        """Raise NotFoundError when it is not there."""

    async def list(self, kind: type[R], namespace: str = "", field_selector: str = "") -> Listing[R]:
        """All objects (paged under the hood); an empty namespace means all namespaces. An object that does
        not fit its kind is left out and logged: one bad object must not stop the network of a cluster."""

    async def create(self, resource: R) -> R:
        """Return it as stored. Raise AlreadyExistsError."""

    async def update(self, resource: R) -> R:
        """Replace it if `metadata.resource_version` is still current, else raise ConflictError (also when it
        was deleted since; NotFoundError only when the uid does not say which object was meant)."""

    async def delete(self, resource: Resource) -> None:
        """Delete it if resource version and uid (where set) match. Raise ConflictError or NotFoundError."""

    async def patch(
        self, kind: type[R], name: str, patch: dict[str, Any], namespace: str = "", subresource: str = ""
    ) -> R:
        """JSON merge patch (RFC 7386); subresource is "" or "status"."""

    def watch(
        self, kind: type[R], resource_version: str, namespace: str = "", field_selector: str = ""
    ) -> AsyncGenerator[Event[R], None]:
        """Changes after `resource_version`, without end, resumed over dropped connections with back-off.

        Close it with `aclose`. Raise GoneError on 410, ForbiddenError or InvalidError when it is refused.
        """

    async def close(self) -> None:
        """Release connections."""
