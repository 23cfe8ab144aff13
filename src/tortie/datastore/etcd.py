"""The datastore kept in etcd v3, under Calico's keys and in Calico's JSON."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec

from tortie.datastore import codec, deletion, etcd_layout
from tortie.datastore.backoff import Backoff
from tortie.datastore.document import rewritten
from tortie.datastore.etcd_client import EtcdClient, EtcdConfig, decoded, encoded
from tortie.datastore.etcd_layout import Stored
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
Json = dict[str, Any]
Jsons = list[Json]  # named here: inside the class `list` is the method
Found = tuple[list[Stored], int]  # key-values and the revision that they were read at

_PAGE_SIZE: Final = 500
_PATCH_ATTEMPTS: Final = 20  # a patch without a resource version is tried again when somebody was faster
_WATCH_FIRST_WAIT: Final = 0.1  # seconds
_WATCH_LONGEST_WAIT: Final = 30.0

log = logging.getLogger(__name__)


class EtcdDatastore:
    """Implements `interface.Datastore`. Create it inside a running event loop and `close` it there.

    A resource version is the key's mod revision. Reads and deletions are repeated after a failure that may
    pass; a create or update only when it certainly had no effect.
    """

    def __init__(self, config: EtcdConfig) -> None:
        self._client = EtcdClient(config)

    async def __aenter__(self) -> "EtcdDatastore":
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Release connections; running watches end."""
        await self._client.close()

    async def get(self, kind: type[R], name: str, namespace: str = "") -> R:
        """See `Datastore.get`."""
        stored = await self._find(kind, name, namespace)
        resource = _resource(kind, etcd_layout.body_of(kind, stored))
        if deletion.is_marked(resource):
            await self._finish(resource, stored.key)
            raise _not_found(kind, name, namespace)
        return resource

    async def list(self, kind: type[R], namespace: str = "", field_selector: str = "") -> Listing[R]:
        """See `Datastore.list`."""
        found, revision = await self._read(kind, namespace)
        items: list[R] = []
        for stored in found:
            body = _body_or_none(kind, stored)
            if body is None or not matches(body, namespace, field_selector):
                continue
            try:
                resource = _resource(kind, body)
            except InvalidError as error:
                log.error("Ignoring an object: %s", error)
                continue
            if deletion.is_marked(resource):
                await self._finish(resource, stored.key)
            else:
                items.append(resource)
        items.sort(key=lambda item: (item.metadata.namespace, item.metadata.name))
        return Listing(items, str(revision))

    async def create(self, resource: R) -> R:
        """See `Datastore.create`."""
        kind, metadata = type(resource), resource.metadata
        if metadata.resource_version:
            raise InvalidError(f"{metadata.name}: an object to be created must not have a resource version.")
        body = codec.unfolded(resource)
        body["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": _now()}
        key = etcd_layout.key_of(kind, body)
        absent = {"key": encoded(key), "target": "VERSION", "result": "EQUAL", "version": "0"}
        put = _put(key, etcd_layout.value_of(kind, body))
        answer = await self._txn([absent], [put], [_get(key)])
        if not answer.get("succeeded"):
            leftover = _resource(kind, etcd_layout.body_of(kind, _first(answer, key)))
            if not deletion.is_marked(leftover):
                raise AlreadyExistsError(f"{kind.resource_type.plural} {metadata.name!r} already exists")
            await self._finish(leftover, key)
            answer = await self._txn([absent], [put], [_get(key)])
            if not answer.get("succeeded"):
                raise AlreadyExistsError(f"{kind.resource_type.plural} {metadata.name!r} already exists")
        return _written(kind, key, etcd_layout.value_of(kind, body), _revision(answer), _revision(answer))

    async def update(self, resource: R) -> R:
        """See `Datastore.update`. Raise InvalidError when the resource version is missing."""
        kind, metadata = type(resource), resource.metadata
        if not metadata.resource_version:
            raise InvalidError(f"{metadata.name}: an update needs the resource version that it replaces.")
        body = codec.unfolded(resource)
        key = etcd_layout.key_of(kind, body)
        stored = await self._get(key)
        if stored is None:
            message = f"{kind.resource_type.plural} {metadata.name!r} does not exist any more"
            raise ConflictError(message) if metadata.uid else NotFoundError(message)
        was = etcd_layout.body_of(kind, stored)
        _check(was, metadata.uid, metadata.resource_version)
        for name in ("uid", "creationTimestamp"):
            if name in was["metadata"]:
                body["metadata"][name] = was["metadata"][name]
        value = etcd_layout.value_of(kind, body)
        if not resource.document:
            return await self._replace(kind, stored, value)
        return await self._replace(kind, stored, _changed_value(kind, stored, value))

    async def delete(self, resource: Resource) -> None:
        """See `Datastore.delete`."""
        kind, metadata = type(resource), resource.metadata
        stored = await self._find(kind, metadata.name, metadata.namespace)
        _check(etcd_layout.body_of(kind, stored), metadata.uid, metadata.resource_version)
        compared = bool(metadata.uid or metadata.resource_version)
        await self._remove(kind, stored.key, stored.mod_revision if compared else 0)

    async def patch(
        self, kind: type[R], name: str, patch: dict[str, Any], namespace: str = "", subresource: str = ""
    ) -> R:
        """See `Datastore.patch`: read, merge, compare-and-swap, again when somebody was faster."""
        wanted = patch.get("metadata", {})
        for _attempt in range(_PATCH_ATTEMPTS):
            stored = await self._find(kind, name, namespace)
            was = etcd_layout.body_of(kind, stored)
            _check(was, wanted.get("uid", ""), wanted.get("resourceVersion", ""))
            body = merge_patch(was, patch)
            if subresource == "status":
                body["spec"] = was.get("spec", {})
            _resource(kind, body)  # raises when the patch leads to what does not fit the kind
            value = _changed_value(kind, stored, etcd_layout.value_of(kind, body))
            try:
                return await self._replace(kind, stored, value)
            except ConflictError:
                if wanted.get("resourceVersion"):
                    raise
        raise UnavailableError(f"patch {kind.resource_type.plural} {name}: others write it all the time")

    async def watch(
        self, kind: type[R], resource_version: str, namespace: str = "", field_selector: str = ""
    ) -> AsyncGenerator[Event[R], None]:
        """See `Datastore.watch`."""
        seen = int(resource_version)
        backoff = Backoff(_WATCH_FIRST_WAIT, _WATCH_LONGEST_WAIT)
        while True:
            try:
                stream = self._client.stream("watch", _watch_request(kind, namespace, seen + 1))
                async with contextlib.aclosing(stream):
                    async for message in stream:
                        backoff.reset()
                        _check_watch(kind, message)
                        events = message.get("events", [])
                        if not events and not message.get("created"):
                            # A progress report: everything up to its revision has been sent.
                            seen = max(seen, int(message["header"]["revision"]))
                        for item in events:
                            event, revision = _event(kind, item, namespace, field_selector)
                            seen = max(seen, revision)
                            if event is not None:
                                yield event
            except UnavailableError as error:
                log.warning("Watch of %s interrupted, resuming: %s", kind.resource_type.plural, error)
            await asyncio.sleep(backoff.next())

    # --- keys ------------------------------------------------------------------------------------------

    async def _find(self, kind: type[Resource], name: str, namespace: str) -> Stored:
        """The key-value of a named object. Raise NotFoundError."""
        key = etcd_layout.key_of_name(kind, name, namespace)
        stored = await self._get(key) if key else None
        if stored is not None and _body_or_none(kind, stored) is not None:
            return stored
        if not etcd_layout.is_exact(kind):
            for other in (await self._read(kind, namespace))[0]:
                body = _body_or_none(kind, other)
                if body is not None and body["metadata"]["name"] == name:
                    return other
        raise _not_found(kind, name, namespace)

    async def _get(self, key: str) -> Stored | None:
        answer = await self._client.call("kv/range", {"key": encoded(key)}, repeat=True)
        return next((_stored(item) for item in answer.get("kvs", [])), None)

    async def _read(self, kind: type[Resource], namespace: str) -> Found:
        """All key-values of a kind, as they were at one revision, and that revision."""
        try:
            return await self._pages(kind, namespace, _PAGE_SIZE)
        except GoneError:  # compacted between two pages: take all in one answer
            return await self._pages(kind, namespace, 0)

    async def _pages(self, kind: type[Resource], namespace: str, limit: int) -> Found:
        keys = etcd_layout.key_range(kind, namespace)
        found: list[Stored] = []
        start, revision = encoded(keys.start), 0
        while True:
            body: Json = {"key": start, "limit": str(limit), "revision": str(revision)}
            if keys.end:
                body["range_end"] = encoded(keys.end)
            answer = await self._client.call("kv/range", body, repeat=True)
            revision = revision or int(answer["header"]["revision"])
            page = answer.get("kvs", [])
            for item in page:
                try:
                    found.append(_stored(item))
                except InvalidError as error:
                    log.error("Ignoring an object: %s", error)
            if not answer.get("more") or not page:
                return found, revision
            start = encoded(decoded(page[-1]["key"]) + b"\0")

    async def _replace(self, kind: type[R], stored: Stored, value: Body) -> R:
        """Compare-and-swap a key's value. What does not change keeps its revision. Raise ConflictError."""
        if value == stored.value:
            return _resource(kind, etcd_layout.body_of(kind, stored))
        answer = await self._txn([_unchanged(stored.key, stored.mod_revision)], [_put(stored.key, value)], [])
        if not answer.get("succeeded"):
            raise ConflictError(f"etcd's {stored.key} was changed since revision {stored.mod_revision}")
        return _written(kind, stored.key, value, stored.create_revision, _revision(answer))

    async def _remove(self, kind: type[Resource], key: str, mod_revision: int) -> None:
        """Delete a key, if it is still at a revision (0: whatever it is)."""
        compare = [_unchanged(key, mod_revision)] if mod_revision else []
        delete = {"request_delete_range": {"key": encoded(key)}}
        answer = await self._txn(compare, [delete], [_get(key)], repeat=True)
        what = f"{kind.resource_type.plural} {key}"
        if answer.get("succeeded"):
            (result,) = answer["responses"]
            if int(result["response_delete_range"].get("deleted", "0")) == 0:
                raise NotFoundError(f"{what} is not there")
            return
        if not answer["responses"][0]["response_range"].get("kvs"):
            raise NotFoundError(f"{what} is not there any more")
        raise ConflictError(f"{what} was changed since revision {mod_revision}")

    async def _finish(self, resource: Resource, key: str) -> None:
        """Remove what another writer marked. Whatever fails, the next reader tries again."""
        try:
            await self._remove(type(resource), key, int(resource.metadata.resource_version))
        except DatastoreError as error:
            log.info("Cannot finish a deletion: %s", error)

    async def _txn(self, compare: Jsons, success: Jsons, failure: Jsons, repeat: bool = False) -> Json:
        body = {"compare": compare, "success": success, "failure": failure}
        return await self._client.call("kv/txn", body, repeat=repeat)


def _put(key: str, value: Body) -> Json:
    return {"request_put": {"key": encoded(key), "value": encoded(msgspec.json.encode(value))}}


def _get(key: str) -> Json:
    return {"request_range": {"key": encoded(key)}}


def _unchanged(key: str, mod_revision: int) -> Json:
    return {"key": encoded(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(mod_revision)}


def _revision(answer: Json) -> int:
    return int(answer["header"]["revision"])


def _first(answer: Json, key: str) -> Stored:
    """The key-value that a failed transaction read. Raise ConflictError when it is gone already."""
    found = answer["responses"][0]["response_range"].get("kvs", [])
    if not found:
        raise ConflictError(f"etcd's {key} was there and is gone: try again")
    return _stored(found[0])


def _stored(item: Json) -> Stored:
    """A key-value as the gateway gives it. Raise InvalidError when the value is no JSON object."""
    key = decoded(item["key"]).decode(errors="replace")
    try:
        value = msgspec.json.decode(decoded(item.get("value", "")), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise InvalidError(f"etcd's value of {key} is no JSON object: {error}.") from error
    return Stored(key, value, int(item.get("create_revision", "0")), int(item.get("mod_revision", "0")))


def _body_or_none(kind: type[Resource], stored: Stored) -> Body | None:
    try:
        return etcd_layout.body_of(kind, stored)
    except InvalidError as error:
        log.error("Ignoring a key: %s", error)
        return None


def _resource(kind: type[R], body: Body) -> R:
    return codec.decode(kind, msgspec.json.encode(body))


def _written(kind: type[R], key: str, value: Body, create_revision: int, mod_revision: int) -> R:
    return _resource(kind, etcd_layout.body_of(kind, Stored(key, value, create_revision, mod_revision)))


def _changed_value(kind: type[Resource], stored: Stored, value: Body) -> Body:
    """`value` with what stands in etcd and does not survive the way to an object and back."""
    known = etcd_layout.value_of(kind, etcd_layout.body_of(kind, stored))
    return rewritten(stored.value, known, value)


def _check(body: Body, uid: str, version: str) -> None:
    metadata = body["metadata"]
    if (uid and uid != metadata["uid"]) or (version and version != metadata["resourceVersion"]):
        raise ConflictError(
            f"{body['kind']} {metadata['name']}: resource version or uid {version} {uid} is not current "
            f"({metadata['resourceVersion']} {metadata['uid']})"
        )


def _not_found(kind: type[Resource], name: str, namespace: str) -> NotFoundError:
    place = f" in namespace {namespace}" if namespace else ""
    return NotFoundError(f"{kind.resource_type.plural} {name!r} not found{place}")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _watch_request(kind: type[Resource], namespace: str, start: int) -> Json:
    keys = etcd_layout.key_range(kind, namespace)
    request: Json = {
        "key": encoded(keys.start),
        "start_revision": str(start),
        "prev_kv": True,
        "progress_notify": True,
    }
    if keys.end:
        request["range_end"] = encoded(keys.end)
    return {"create_request": request}


def _check_watch(kind: type[Resource], message: Json) -> None:
    """Raise GoneError when the start was compacted away, UnavailableError when the watch was cancelled."""
    what = f"watch of {kind.resource_type.plural}"
    if int(message.get("compact_revision", "0")):
        raise GoneError(f"{what}: etcd forgot everything before revision {message['compact_revision']}")
    if message.get("canceled"):
        raise UnavailableError(f"{what}: cancelled: {message.get('cancel_reason', 'no reason given')}")


def _event(kind: type[R], item: Json, namespace: str, field_selector: str) -> tuple[Event[R] | None, int]:
    """A change as a watcher with this selection sees it, and its revision."""
    revision = int(item["kv"]["mod_revision"])
    try:
        before = _side(kind, item.get("prev_kv"), namespace, field_selector)
        if item.get("type") == "DELETE" and "prev_kv" not in item:
            raise GoneError("etcd forgot the last state of a deleted object")
        after = None
        if item.get("type") != "DELETE":
            after = _side(kind, item["kv"], namespace, field_selector)
        event = _transition(kind, before, after, revision)
    except InvalidError as error:
        log.error("Ignoring a change: %s", error)
        event = None
    return event, revision


def _transition(kind: type[R], before: Stored | None, after: Stored | None, revision: int) -> Event[R] | None:
    version = str(revision)
    if after is not None:
        found = _resource(kind, etcd_layout.body_of(kind, after))
        if deletion.is_marked(found):  # the mark is the deletion; the removal says nothing new
            return Event("deleted", found, version) if before is not None else None
        return Event("modified" if before is not None else "added", found, version)
    if before is None:
        return None
    # As in Kubernetes, the last state comes with the version of the deletion.
    last = _resource(kind, etcd_layout.body_of(kind, replace(before, mod_revision=revision)))
    return None if deletion.is_marked(last) else Event("deleted", last, version)


def _side(kind: type[Resource], item: Json | None, namespace: str, field_selector: str) -> Stored | None:
    """The key-value before or after a change, if it is selected."""
    if item is None:
        return None
    stored = _stored(item)
    return stored if matches(etcd_layout.body_of(kind, stored), namespace, field_selector) else None
