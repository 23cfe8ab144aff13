"""The datastore kept by the Kubernetes API server, spoken to with aiohttp and msgspec."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct

from tortie.datastore import codec, deletion
from tortie.datastore.backoff import Backoff
from tortie.datastore.config import ClusterConfig, from_kubeconfig, in_cluster
from tortie.datastore.http import keep_alive, lines, reason
from tortie.datastore.interface import (
    AlreadyExistsError,
    ConflictError,
    DatastoreError,
    Event,
    ForbiddenError,
    GoneError,
    InvalidError,
    Listing,
    NotFoundError,
    UnavailableError,
)
from tortie.model.resources import IPAMBlock, Resource

R = TypeVar("R", bound=Resource)

_PAGE_SIZE: Final = 500  # objects per list request, as kubectl asks for
_ATTEMPTS: Final = 5
# Requests at the same time, watches not counted. Each has a connection, and to open one costs both ends more
# than a request does: fifty pods that start at once would open fifty.
_CONCURRENT: Final = 16
# Seconds: one attempt; a call with all its attempts; the wait before the second attempt; the longest wait.
_ATTEMPT_TIMEOUT: Final = aiohttp.ClientTimeout(total=10, sock_connect=5)
_CALL_TIMEOUT: Final = 30.0
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 2.0
_LONGEST_RETRY_AFTER: Final = 5.0
# A watch is asked to end after this many seconds, and taken for dead when it is silent for a little longer.
_WATCH_SECONDS: Final = 300
_WATCH_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_WATCH_SECONDS + 30)
_WATCH_FIRST_WAIT: Final = 0.1
_WATCH_LONGEST_WAIT: Final = 30.0

_JSON: Final = "application/json"
# Kubernetes API Concepts, "Metadata-only fetches"; who does not know it sends the whole object.
_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_TYPES: Final[dict[str, Literal["added", "modified", "deleted"]]] = {
    "ADDED": "added",
    "MODIFIED": "modified",
    "DELETED": "deleted",
}

log = logging.getLogger(__name__)


class _TokenStatus(Struct, rename="camel"):
    token: str
    expiration_timestamp: datetime


class _TokenRequest(Struct):
    status: _TokenStatus


class _OnlyMetadata(Struct):
    metadata: dict[str, Any]


async def connect(kubeconfig: Path | None = None) -> "KubernetesDatastore":
    """A client for `kubeconfig`; without it, for the file that KUBECONFIG names or else a pod's own cluster.

    Nothing is sent yet. Raise InvalidError when there is no usable configuration.
    """
    if kubeconfig is None and os.environ.get("KUBECONFIG"):
        kubeconfig = Path(os.environ["KUBECONFIG"])
    config = await asyncio.to_thread(
        in_cluster if kubeconfig is None else lambda: from_kubeconfig(kubeconfig)
    )
    return KubernetesDatastore(config)


class KubernetesDatastore:
    """Implements `interface.Datastore`. Create it inside a running event loop and `close` it there.

    Calls that may be repeated without harm (reads, merge patches, deletions with preconditions) are repeated
    after lost connections, 429 and 5xx. A create or update is repeated only when the server certainly did not
    act on it; otherwise UnavailableError means "outcome unknown": read the object to find out.
    """

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        connector = aiohttp.TCPConnector(ssl=config.tls if config.tls is not None else True)
        self._places = asyncio.Semaphore(_CONCURRENT)
        # Compression costs more than it saves inside a cluster.
        self._session = aiohttp.ClientSession(connector=connector, headers={"Accept-Encoding": "identity"})

    async def __aenter__(self) -> "KubernetesDatastore":
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Release connections; running watches end."""
        await self._session.close()

    async def get(self, kind: type[R], name: str, namespace: str = "") -> R:
        """See `Datastore.get`."""
        path = _path(kind, namespace, name)
        found = codec.decode(kind, await self._request("GET", path))
        if deletion.is_marked(found):
            await self._finish([found])
            raise NotFoundError(f"GET {path}: it is being deleted")
        return found

    async def list(self, kind: type[R], namespace: str = "", field_selector: str = "") -> Listing[R]:
        """See `Datastore.list`."""
        items: list[R] = []
        params = {"limit": str(_PAGE_SIZE)} | _selector(field_selector)
        while True:
            try:
                text = await self._request("GET", _path(kind, namespace), params=params)
            except GoneError:
                if "continue" not in params:
                    raise
                # The list took longer than the server remembers its state: take all in one answer.
                items, params = [], _selector(field_selector)
                continue
            page, version, token = codec.decode_page(kind, text)
            items += page
            if not token:
                leftover = [item for item in items if deletion.is_marked(item)]
                if leftover:
                    await self._finish(leftover)
                    items = [item for item in items if not deletion.is_marked(item)]
                return Listing(items, version)
            params["continue"] = token

    async def create(self, resource: R) -> R:
        """See `Datastore.create`."""
        kind, path = type(resource), _path(type(resource), resource.metadata.namespace)
        if resource.metadata.resource_version:
            raise InvalidError(f"{path}: an object to be created must not have a resource version.")
        body = codec.encode(resource)
        try:
            text = await self._request("POST", path, body=body, repeat=False)
        except AlreadyExistsError:
            if not deletion.may_be_marked(kind):
                raise
            with contextlib.suppress(NotFoundError):  # it was only marked, and is gone now
                await self.get(kind, resource.metadata.name, resource.metadata.namespace)
                raise
            text = await self._request("POST", path, body=body, repeat=False)
        return codec.decode(kind, text)

    async def update(self, resource: R) -> R:
        """See `Datastore.update`. Raise InvalidError when the resource version is missing."""
        kind, metadata = type(resource), resource.metadata
        path = _path(kind, metadata.namespace, metadata.name)
        if not metadata.resource_version:
            raise InvalidError(
                f"{path}: an update needs the resource version of the object that it replaces."
            )
        if isinstance(resource, IPAMBlock):
            return codec.decode(kind, await self._replace_block(resource, path))
        text = await self._request("PUT", path, body=codec.encode(resource), repeat=False)
        return codec.decode(kind, text)

    async def _replace_block(self, block: IPAMBlock, path: str) -> bytes:
        """The document as it is stored now. Every ADD waits for such a write, so it is as cheap as can be.

        The server need not keep account of who owns which of its hundreds of fields, which costs it a fifth
        of the write: one empty entry says so (Kubernetes, "Server-Side Apply", on clearing managedFields).
        And it need not send back what it was sent, only the metadata.
        """
        body = codec.encode_object(block)
        if "managedFields" in body["metadata"]:
            body["metadata"]["managedFields"] = [{}]
        text = await self._request(
            "PUT", path, body=msgspec.json.encode(body), repeat=False, accept=_METADATA_ONLY
        )
        body["metadata"] = codec.decode_any(_OnlyMetadata, text).metadata
        return msgspec.json.encode(body)

    async def delete(self, resource: Resource) -> None:
        """See `Datastore.delete`. Without a resource version nothing is compared, so nothing is marked."""
        if not (deletion.in_two_steps(type(resource)) and resource.metadata.resource_version):
            await self._remove(resource)
            return
        mark = await self.update(deletion.marked(resource))
        with contextlib.suppress(NotFoundError):  # a reader was faster
            await self._remove(mark)

    async def _finish(self, resources: Iterable[Resource]) -> None:
        """Remove objects that somebody has marked. Whatever fails, the next reader tries again."""
        for resource in resources:
            try:
                await self._remove(resource)
            except DatastoreError as error:
                log.info("Cannot finish a deletion: %s", error)

    async def _remove(self, resource: Resource) -> None:
        metadata = resource.metadata
        preconditions = {"uid": metadata.uid, "resourceVersion": metadata.resource_version}
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {key: value for key, value in preconditions.items() if value},
        }
        path = _path(type(resource), metadata.namespace, metadata.name)
        await self._request("DELETE", path, body=msgspec.json.encode(body))

    async def patch(
        self, kind: type[R], name: str, patch: dict[str, Any], namespace: str = "", subresource: str = ""
    ) -> R:
        """See `Datastore.patch`."""
        attempts = _ATTEMPTS if codec.may_fold(kind, patch) else 0
        for attempt in range(1, attempts + 1):
            current = await self.get(kind, name, namespace)
            if not codec.is_folded(current):
                break
            try:
                folded = codec.folded_patch(current, patch)
                return await self._patch(kind, name, folded, namespace, subresource)
            except ConflictError:
                if attempt == attempts or "resourceVersion" in patch["metadata"]:
                    raise
        return await self._patch(kind, name, patch, namespace, subresource)

    async def _patch(
        self, kind: type[R], name: str, patch: dict[str, Any], namespace: str, subresource: str
    ) -> R:
        path = _path(kind, namespace, name, subresource)
        body = msgspec.json.encode(patch)
        return codec.decode(kind, await self._request("PATCH", path, body=body, content_type=_MERGE_PATCH))

    async def create_token(self, namespace: str, service_account: str, seconds: int) -> tuple[str, datetime]:
        """A service account's token and when it expires: after `seconds` (at least 600) or what is granted.

        This is TokenRequest of authentication.k8s.io/v1.
        """
        path = f"/api/v1/namespaces/{quote(namespace)}/serviceaccounts/{quote(service_account)}/token"
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        answer = codec.decode_any(
            _TokenRequest, await self._request("POST", path, body=msgspec.json.encode(body))
        )
        return answer.status.token, answer.status.expiration_timestamp

    async def watch(
        self, kind: type[R], resource_version: str, namespace: str = "", field_selector: str = ""
    ) -> AsyncGenerator[Event[R], None]:
        """See `Datastore.watch`."""
        path = _path(kind, namespace)
        version = resource_version
        backoff = Backoff(_WATCH_FIRST_WAIT, _WATCH_LONGEST_WAIT)
        while True:
            try:
                stream = self._watch_lines(path, version, field_selector)
                async with contextlib.aclosing(stream):
                    async for line in stream:
                        event, version = _read_event(kind, line, version)
                        backoff.reset()
                        if event is not None:
                            yield event
            except UnavailableError as error:
                log.warning("Watch of %s interrupted, resuming: %s", kind.resource_type.plural, error)
            await asyncio.sleep(backoff.next())

    async def _watch_lines(self, path: str, version: str, field_selector: str) -> AsyncGenerator[bytes, None]:
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_SECONDS),
        } | _selector(field_selector)
        async with contextlib.AsyncExitStack() as stack:
            try:
                # Only the answer's first line is waited for here; its body then has as long as it wants.
                async with asyncio.timeout(_CALL_TIMEOUT):
                    response = await stack.enter_async_context(
                        self._session.get(
                            self._config.server + path,
                            params=params,
                            headers=self._config.token.header(),
                            timeout=_WATCH_TIMEOUT,
                        )
                    )
                    if response.status != 200:
                        raise _error(response.status, await response.read(), f"watch {path}")
                keep_alive(response)
                async for line in lines(response.content):
                    yield line
            except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
                raise UnavailableError(f"watch {path}: {reason(error)}") from error

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = _JSON,
        accept: str = "",
        repeat: bool = True,
    ) -> bytes:
        """Send, retry, and return the body of a successful answer. Raise a DatastoreError."""
        what = f"{method} {path}"
        headers = {"Content-Type": content_type} if body is not None else {}
        if accept:
            headers["Accept"] = accept
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        failure = UnavailableError(f"{what}: no answer within {_CALL_TIMEOUT:.0f} s")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CALL_TIMEOUT):
                for attempt in range(1, _ATTEMPTS + 1):
                    try:
                        return await self._attempt(method, path, params, body, headers)
                    except _AttemptError as error:
                        failure, wait = error.reason, error.wait
                        if attempt == _ATTEMPTS or not (repeat or error.untouched):
                            break
                    await asyncio.sleep(backoff.next() if wait is None else wait)
        raise failure

    async def _attempt(
        self,
        method: str,
        path: str,
        params: dict[str, str] | None,
        body: bytes | None,
        headers: dict[str, str],
    ) -> bytes:
        """One try. Raise _AttemptError when another one makes sense, else a DatastoreError."""
        what = f"{method} {path}"
        try:
            async with (
                self._places,
                self._session.request(
                    method,
                    self._config.server + path,
                    params=params,
                    data=body,
                    headers=headers | self._config.token.header(),
                    timeout=_ATTEMPT_TIMEOUT,
                ) as response,
            ):
                text = await response.read()
        except aiohttp.ClientConnectorError as error:
            raise _AttemptError(UnavailableError(f"{what}: {reason(error)}"), untouched=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _AttemptError(UnavailableError(f"{what}: {reason(error)}")) from error
        if response.status < 300:
            return text
        refusal = _error(response.status, text, what)
        if isinstance(refusal, UnavailableError) and response.status != 404:
            # 429: the server turned the request away before doing anything (RFC 6585).
            raise _AttemptError(refusal, untouched=response.status == 429, wait=_retry_after(response))
        raise refusal


class _AttemptError(Exception):
    """An attempt failed in a way that may pass.

    `untouched`: the server certainly did not act; `wait`: the seconds that it asked to wait.
    """

    def __init__(self, reason: UnavailableError, untouched: bool = False, wait: float | None = None) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.untouched = untouched
        self.wait = wait


def _path(kind: type[Resource], namespace: str, name: str = "", subresource: str = "") -> str:
    """`/api/v1/nodes/n`, `/apis/<group>/<version>/namespaces/<namespace>/<plural>`, ..."""
    resource_type = kind.resource_type
    root = "api" if "/" not in resource_type.api_version else "apis"
    scope = ["namespaces", namespace] if namespace and resource_type.namespaced else []
    parts = [root, *resource_type.api_version.split("/"), *scope, resource_type.plural, name, subresource]
    return "".join(f"/{quote(part, safe='')}" for part in parts if part)


def _selector(field_selector: str) -> dict[str, str]:
    return {"fieldSelector": field_selector} if field_selector else {}


def _error(status: int, body: bytes, what: str) -> DatastoreError:
    """The error for an answer that is no success."""
    details = codec.decode_status(body)
    message = f"{what}: {details.message or f'HTTP {status}'}"
    if status == 404 and not details.reason:
        # No object is missing here: the whole resource is unknown, which must not be taken for "none".
        return UnavailableError(
            f"{message}: the API server does not know this resource: are the CRDs installed?"
        )
    if status in (401, 403):
        return ForbiddenError(message)
    if status == 404:
        return NotFoundError(message)
    if status == 409:
        return AlreadyExistsError(message) if details.reason == "AlreadyExists" else ConflictError(message)
    if status == 410:
        return GoneError(message)
    if status == 429 or status >= 500:
        return UnavailableError(message)
    return InvalidError(message)


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Retry-After in seconds (RFC 9110 section 10.2.3; a date is ignored), bounded."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_RETRY_AFTER) if text.isdecimal() else None


def _read_event(kind: type[R], line: bytes, version: str) -> tuple[Event[R] | None, str]:
    """The event in a line, if it concerns the caller, and the version to resume from.

    Raise GoneError, or UnavailableError when the server reports an error or the line is no event.
    """
    try:
        sent, raw = codec.decode_watch_line(line)
    except InvalidError as error:
        raise UnavailableError(str(error)) from error
    if sent == "ERROR":
        status = codec.decode_status(raw)
        if status.code == 410:
            raise GoneError(f"watch of {kind.resource_type.plural}: {status.message}")
        raise UnavailableError(f"the server ended the watch: {status.message}")
    new_version = codec.decode_metadata(raw).resource_version or version
    event_type = _TYPES.get(sent)
    if event_type is None:  # a bookmark: only moves the version
        return None, new_version
    try:
        resource = codec.decode(kind, raw)
    except InvalidError as error:
        log.error("Ignoring a change: %s", error)
        return None, new_version
    if deletion.is_marked(resource):  # the mark is the deletion; the removal says nothing new
        event_type = "deleted"
        if sent != "MODIFIED":
            return None, new_version
    return Event(event_type, resource, new_version), new_version
