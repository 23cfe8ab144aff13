"""A datastore in this process' memory, with the API server's semantics and faults on demand.

It exists for tests of what stands on the datastore: the same assertions run on it and on a real API server.
Objects pass through their JSON form, so that what would be lost on the wire is lost here too.
"""

import asyncio
import contextlib
import copy
import enum
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeVar

import msgspec

from tortie.datastore import codec, deletion
from tortie.datastore.interface import (
    AlreadyExistsError,
    ConflictError,
    DatastoreError,
    Event,
    GoneError,
    InvalidError,
    Listing,
    NotFoundError,
    UnavailableError,
)
from tortie.datastore.selection import Body, matches, merge_patch
from tortie.model.resources import Resource

R = TypeVar("R", bound=Resource)
T = TypeVar("T")
Key = tuple[str, str, str]  # API version and plural, namespace, name
Verb = Literal["get", "list", "create", "update", "delete", "patch"]

_LATE_AFTER: Final = 3


class Fault(enum.Enum):
    """What may happen to a call."""

    CONFLICT = "answer with ConflictError, do nothing"
    UNAVAILABLE = "answer with UnavailableError, do nothing"
    LOST_RESPONSE = "do it, answer with UnavailableError"
    LATE = "answer with UnavailableError now, do it a few calls later"
    CRASH_BEFORE = "the caller's process ends before the call"
    CRASH_AFTER = "the caller's process ends when the call has been done"


class CrashError(BaseException):
    """The caller's process ended here. No BaseException is handled by code that handles errors."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that a fault may befall; `name` is empty for a list."""

    verb: Verb
    kind: type[Resource]
    name: str


Injector = Callable[[Call], Fault | None]


@dataclass(frozen=True, slots=True)
class _Change:
    version: int
    stem: str  # of the key
    before: Body | None
    after: Body | None


class MemoryDatastore:
    """Implements `interface.Datastore`. `inject` decides the fate of each call; None means no faults.

    A write with Fault.LATE is overtaken by `late_after` calls.
    """

    def __init__(self, inject: Injector | None = None, late_after: int = _LATE_AFTER) -> None:
        self.inject = inject
        self.late_after = late_after
        self._objects: dict[Key, Body] = {}
        self._version = 1
        self._history: list[_Change] = []
        self._oldest = 1  # a watch must not start before this version
        self._changed = asyncio.Event()
        self._calls = 0
        self._late: list[tuple[int, Callable[[], object]]] = []

    async def close(self) -> None:
        """Nothing is held."""

    def compact(self) -> None:
        """Forget the history: a watch from an earlier version gets GoneError."""
        self._history.clear()
        self._oldest = self._version
        self._wake()

    def settle(self) -> None:
        """Let every write with Fault.LATE happen now."""
        for _due, write in self._late:
            _attempt(write)
        self._late.clear()

    def put(self, resource: Resource) -> None:
        """Write at once, whatever is stored: no fault befalls it and no task runs in between."""
        kind, metadata = type(resource), resource.metadata
        body = codec.encode_object(resource)
        body["metadata"] |= {"uid": metadata.uid or str(uuid.uuid4()), "creationTimestamp": _timestamp()}
        self._store(_key(kind, metadata.namespace, metadata.name), body)

    def snapshot(self) -> "MemoryDatastore":
        """A copy of the objects as they are, without history, faults and late writes."""
        copied = MemoryDatastore()
        copied._objects = copy.deepcopy(self._objects)
        copied._version = copied._oldest = self._version
        return copied

    async def get(self, kind: type[R], name: str, namespace: str = "") -> R:
        """See `Datastore.get`."""

        def read() -> R:
            found = _decode(kind, self._find(kind, namespace, name))
            if self._finished(found):
                raise NotFoundError(f"{kind.resource_type.plural} {name!r} is being deleted")
            return found

        return await self._call(Call("get", kind, name), read)

    async def list(self, kind: type[R], namespace: str = "", field_selector: str = "") -> Listing[R]:
        """See `Datastore.list`."""

        def read() -> Listing[R]:
            stem = _stem(kind)
            found = sorted(item for item in self._objects.items() if item[0][0] == stem)
            chosen = [_decode(kind, body) for _key, body in found if matches(body, namespace, field_selector)]
            items = [item for item in chosen if not self._finished(item)]
            return Listing(items, str(self._version))

        return await self._call(Call("list", kind, ""), read)

    async def create(self, resource: R) -> R:
        """See `Datastore.create`."""
        kind, name = type(resource), resource.metadata.name
        body = codec.encode_object(resource)

        def write() -> R:
            if resource.metadata.resource_version:
                raise InvalidError(f"{name}: an object to be created must not have a resource version.")
            key = _key(kind, resource.metadata.namespace, name)
            if key in self._objects and not self._finished(_decode(kind, self._objects[key])):
                raise AlreadyExistsError(f"{kind.resource_type.plural} {name!r} already exists")
            body["metadata"]["uid"] = str(uuid.uuid4())
            body["metadata"]["creationTimestamp"] = _timestamp()
            return _decode(kind, self._store(key, body))

        return await self._call(Call("create", kind, name), write)

    async def update(self, resource: R) -> R:
        """See `Datastore.update`."""
        kind, metadata = type(resource), resource.metadata
        body = codec.encode_object(resource)

        def write() -> R:
            if not metadata.resource_version:
                raise InvalidError(f"{metadata.name}: an update needs the resource version that it replaces.")
            if metadata.uid and _key(kind, metadata.namespace, metadata.name) not in self._objects:
                raise ConflictError(f"{metadata.name}: the object with uid {metadata.uid} was deleted.")
            stored = self._find(kind, metadata.namespace, metadata.name)
            _check_preconditions(stored, metadata.uid, metadata.resource_version)
            for field in ("uid", "creationTimestamp"):
                body["metadata"][field] = stored["metadata"][field]
            return _decode(kind, self._store(_key(kind, metadata.namespace, metadata.name), body))

        return await self._call(Call("update", kind, metadata.name), write)

    async def delete(self, resource: Resource) -> None:
        """See `Datastore.delete`."""
        if deletion.in_two_steps(type(resource)) and resource.metadata.resource_version:
            mark = await self.update(deletion.marked(resource))
            with contextlib.suppress(NotFoundError):  # a reader was faster
                await self._remove(mark)
        else:
            await self._remove(resource)

    async def _remove(self, resource: Resource) -> None:
        kind, metadata = type(resource), resource.metadata

        def write() -> None:
            stored = self._find(kind, metadata.namespace, metadata.name)
            _check_preconditions(stored, metadata.uid, metadata.resource_version)
            self._store(_key(kind, metadata.namespace, metadata.name), None)

        await self._call(Call("delete", kind, metadata.name), write)

    async def patch(
        self, kind: type[R], name: str, patch: dict[str, Any], namespace: str = "", subresource: str = ""
    ) -> R:
        """See `Datastore.patch`. A patch of `status` leaves the spec as it is."""

        def write() -> R:
            stored = self._find(kind, namespace, name)
            wanted = patch.get("metadata", {})
            _check_preconditions(stored, wanted.get("uid", ""), wanted.get("resourceVersion", ""))
            current = _decode(kind, stored)
            fold = codec.may_fold(kind, patch) and codec.is_folded(current)
            body = merge_patch(stored, codec.folded_patch(current, patch) if fold else patch)
            if subresource == "status" and "spec" in stored:
                body["spec"] = stored["spec"]
            return _decode(kind, self._store(_key(kind, namespace, name), body))

        return await self._call(Call("patch", kind, name), write)

    async def watch(
        self, kind: type[R], resource_version: str, namespace: str = "", field_selector: str = ""
    ) -> AsyncGenerator[Event[R], None]:
        """See `Datastore.watch`. Faults do not befall it."""
        seen = int(resource_version)
        while True:
            if seen < self._oldest:
                raise GoneError(f"too old resource version: {seen} ({self._oldest})")
            changed = self._changed
            for change in [item for item in self._history if item.version > seen]:
                seen = change.version
                if change.stem == _stem(kind):
                    event = _event(kind, change, namespace, field_selector)
                    if event is not None:
                        yield event
            if changed is self._changed:
                await changed.wait()

    async def _call(self, call: Call, action: Callable[[], T]) -> T:
        await asyncio.sleep(0)  # other tasks run here, as they would during a round trip
        self._calls += 1
        due = [write for at, write in self._late if at <= self._calls]
        self._late = [item for item in self._late if item[0] > self._calls]
        for write in due:
            _attempt(write)
        fault = self.inject(call) if self.inject is not None else None
        what = f"{call.verb} {call.kind.resource_type.plural} {call.name}"
        if fault is Fault.CRASH_BEFORE:
            raise CrashError(what)
        if fault is Fault.CONFLICT:
            raise ConflictError(f"{what}: the object has been modified")
        if fault is Fault.UNAVAILABLE:
            raise UnavailableError(f"{what}: connection refused")
        if fault is Fault.LATE:
            self._late.append((self._calls + self.late_after, action))
            raise UnavailableError(f"{what}: time-out")
        result = action()
        await asyncio.sleep(0)
        if fault is Fault.CRASH_AFTER:
            raise CrashError(what)
        if fault is Fault.LOST_RESPONSE:
            raise UnavailableError(f"{what}: connection reset by peer")
        return result

    def _finished(self, resource: Resource) -> bool:
        """Whether it is marked as deleted; then it is removed."""
        if not deletion.is_marked(resource):
            return False
        metadata = resource.metadata
        self._store(_key(type(resource), metadata.namespace, metadata.name), None)
        return True

    def _find(self, kind: type[Resource], namespace: str, name: str) -> Body:
        body = self._objects.get(_key(kind, namespace, name))
        if body is None:
            raise NotFoundError(f"{kind.resource_type.plural} {name!r} not found")
        return body

    def _store(self, key: Key, body: Body | None) -> Body:
        """Write (None: delete), record the change, return what is stored. An equal object is no change."""
        before = self._objects.get(key)
        if body is not None and before is not None:
            body = copy.deepcopy(body)
            body["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
            if body == before:
                return before
        self._version += 1
        if body is None:
            assert before is not None
            after = _with_version(before, self._version)
            del self._objects[key]
            self._history.append(_Change(self._version, key[0], after, None))
        else:
            after = self._objects[key] = _with_version(body, self._version)
            self._history.append(_Change(self._version, key[0], before, after))
        self._wake()
        return after

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _attempt(write: Callable[[], object]) -> None:
    """A late write whose preconditions no longer hold is refused, and nobody hears of it."""
    try:
        write()
    except DatastoreError:
        return


def _timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _key(kind: type[Resource], namespace: str, name: str) -> Key:
    return _stem(kind), namespace, name


def _stem(kind: type[Resource]) -> str:
    return f"{kind.resource_type.api_version}/{kind.resource_type.plural}"


def _decode(kind: type[R], body: Body) -> R:
    return codec.decode(kind, msgspec.json.encode(body))


def _with_version(body: Body, version: int) -> Body:
    body = copy.deepcopy(body)
    body["metadata"]["resourceVersion"] = str(version)
    return body


def _check_preconditions(stored: Body, uid: str, version: str) -> None:
    metadata = stored["metadata"]
    if (uid and uid != metadata["uid"]) or (version and version != metadata["resourceVersion"]):
        raise ConflictError(
            f"{stored['kind']} {metadata['name']}: resource version or uid {version} {uid} is not current "
            f"({metadata['resourceVersion']} {metadata['uid']})"
        )


def _event(kind: type[R], change: _Change, namespace: str, field_selector: str) -> Event[R] | None:
    """The change as a watcher with this selection sees it: leaving the selection is a deletion."""
    before = matches(change.before, namespace, field_selector)
    after = matches(change.after, namespace, field_selector)
    version = str(change.version)
    if after and change.after is not None:
        found = _decode(kind, change.after)
        if deletion.is_marked(found):  # the mark is the deletion; the removal says nothing new
            return Event("deleted", found, version) if before else None
        return Event("modified" if before else "added", found, version)
    if before and change.before is not None:
        last = _decode(kind, _with_version(change.before, change.version))
        return None if deletion.is_marked(last) else Event("deleted", last, version)
    return None
