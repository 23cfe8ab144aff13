"""etcd v3 through its JSON gateway: requests with bounded retries over all endpoints, and streams.

The gateway (etcd's api/v3 over HTTP, from 3.4 on under /v3/) needs no gRPC library. Keys and values are
base64, 64-bit numbers are text.
"""

import asyncio
import base64
import contextlib
import os
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
from msgspec import Struct, field

from tortie.datastore.backoff import Backoff
from tortie.datastore.config import tls_context
from tortie.datastore.http import keep_alive, lines, reason
from tortie.datastore.interface import (
    DatastoreError,
    ForbiddenError,
    GoneError,
    InvalidError,
    UnavailableError,
)

Json = dict[str, Any]
T = TypeVar("T")

_ATTEMPTS: Final = 5
# Seconds: one attempt; a call with all its attempts; the wait before the second attempt; the longest wait.
_ATTEMPT_TIMEOUT: Final = aiohttp.ClientTimeout(total=10, sock_connect=3)
_CALL_TIMEOUT: Final = 30.0
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 2.0
# A stream that is silent for so many seconds is taken for dead.
_STREAM_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=330)

# grpc/codes: what the gateway says in `code`.
_INVALID_ARGUMENT: Final = 3
_PERMISSION_DENIED: Final = 7
_RESOURCE_EXHAUSTED: Final = 8
_OUT_OF_RANGE: Final = 11
_UNAUTHENTICATED: Final = 16
_TRANSIENT: Final = frozenset({1, 2, 4, 10, 13, 14})  # cancelled, unknown, deadline, aborted, internal, away


class _Refusal(Struct):
    """The gateway's error answer."""

    message: str = ""
    error: str = ""
    code: int = 0


class _Token(Struct):
    token: str = ""


class _StreamLine(Struct):
    result: Json | None = None
    error: _Refusal | None = field(default=None)


@dataclass(frozen=True, slots=True)
class EtcdConfig:
    """`endpoints` are base URLs, tried in turn; `tls` is for those with https."""

    endpoints: tuple[str, ...]
    tls: ssl.SSLContext | None = None
    username: str = ""
    password: str = ""


def etcd_config(environment: Mapping[str, str] = os.environ) -> EtcdConfig:
    """Calico's variables: ETCD_ENDPOINTS (comma-separated), ETCD_CA_CERT_FILE, ETCD_CERT_FILE, ETCD_KEY_FILE,
    ETCD_USERNAME, ETCD_PASSWORD. Raise InvalidError."""
    endpoints = tuple(
        item.strip().rstrip("/") for item in environment.get("ETCD_ENDPOINTS", "").split(",") if item.strip()
    )
    if not endpoints:
        raise InvalidError(
            "ETCD_ENDPOINTS is not set; with DATASTORE_TYPE=etcdv3 it must list etcd's client URLs, such as "
            "https://10.30.200.1:2379."
        )
    for endpoint in endpoints:
        if not endpoint.startswith(("http://", "https://")):
            raise InvalidError(
                f"ETCD_ENDPOINTS has {endpoint!r}; each must be a URL with http:// or https://."
            )
    files = [environment.get(f"ETCD_{name}_FILE", "") for name in ("CA_CERT", "CERT", "KEY")]
    ca, certificate, key = (Path(name) if name else None for name in files)
    if (certificate is None) != (key is None):
        raise InvalidError("ETCD_CERT_FILE and ETCD_KEY_FILE belong together; set both or none.")
    return EtcdConfig(
        endpoints=endpoints,
        tls=tls_context(ca, certificate, key)
        if any(item.startswith("https") for item in endpoints)
        else None,
        username=environment.get("ETCD_USERNAME", ""),
        password=environment.get("ETCD_PASSWORD", ""),
    )


class EtcdClient:
    """Create it inside a running event loop and `close` it there."""

    def __init__(self, config: EtcdConfig) -> None:
        self._config = config
        connector = aiohttp.TCPConnector(ssl=config.tls if config.tls is not None else True)
        self._session = aiohttp.ClientSession(connector=connector, headers={"Accept-Encoding": "identity"})
        self._current = 0
        self._token = ""

    async def close(self) -> None:
        """Release connections; running streams end."""
        await self._session.close()

    async def call(self, path: str, body: Json, *, repeat: bool) -> Json:
        """Send a request such as `kv/range`; its answer. Raise a DatastoreError.

        `repeat`: doing it twice harms nothing. Else it is repeated only when it certainly had no effect, and
        UnavailableError means "outcome unknown".
        """
        payload = msgspec.json.encode(body)
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        failure: DatastoreError = UnavailableError(f"etcd {path}: no answer within {_CALL_TIMEOUT:.0f} s")
        attempts = max(_ATTEMPTS, len(self._config.endpoints))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CALL_TIMEOUT):
                for attempt in range(1, attempts + 1):
                    try:
                        return await self._attempt(path, payload)
                    except _AttemptError as error:
                        failure = error.reason
                        if attempt == attempts or not (repeat or error.untouched):
                            break
                        wait = 0.0 if error.at_once else backoff.next()
                    await asyncio.sleep(wait)
        raise failure

    async def stream(self, path: str, body: Json) -> AsyncGenerator[Json, None]:
        """The messages of a streaming request, until the connection ends. Raise a DatastoreError."""
        endpoint = self._config.endpoints[self._current]
        what = f"etcd {endpoint} {path}"
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_CALL_TIMEOUT):
                    headers = await self._headers(endpoint)
                    response = await stack.enter_async_context(
                        self._session.post(
                            f"{endpoint}/v3/{path}",
                            data=msgspec.json.encode(body),
                            headers=headers,
                            timeout=_STREAM_TIMEOUT,
                        )
                    )
                    if response.status != 200:
                        self._turn(endpoint)
                        raise self._refused(_refusal(await response.read()), what).reason
                keep_alive(response)
                async for line in lines(response.content):
                    message = _decode(_StreamLine, line, what)
                    if message.error is not None:
                        raise self._refused(message.error, what).reason
                    yield message.result or {}
            except _AttemptError as error:
                raise error.reason from error
            except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
                self._turn(endpoint)
                raise UnavailableError(f"{what}: {reason(error)}") from error

    def _turn(self, endpoint: str) -> None:
        """Go on to the next endpoint, unless another task did already."""
        if endpoint == self._config.endpoints[self._current]:
            self._current = (self._current + 1) % len(self._config.endpoints)

    async def _attempt(self, path: str, payload: bytes) -> Json:
        endpoint = self._config.endpoints[self._current]
        headers = await self._headers(endpoint)
        status, text = await self._post(endpoint, path, payload, headers)
        if status == 200:
            return _decode(dict[str, Any], text, f"etcd {endpoint} {path}")
        refused = self._refused(_refusal(text), f"etcd {endpoint} {path}")
        if isinstance(refused.reason, UnavailableError):
            self._turn(endpoint)
            raise refused
        raise refused.reason

    async def _post(
        self, endpoint: str, path: str, payload: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        what = f"etcd {endpoint} {path}"
        try:
            async with self._session.post(
                f"{endpoint}/v3/{path}", data=payload, headers=headers, timeout=_ATTEMPT_TIMEOUT
            ) as response:
                return response.status, await response.read()
        except aiohttp.ClientConnectorError as error:
            self._turn(endpoint)
            others = len(self._config.endpoints) > 1
            raise _AttemptError(
                UnavailableError(f"{what}: {reason(error)}"), untouched=True, at_once=others
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            self._turn(endpoint)
            raise _AttemptError(UnavailableError(f"{what}: {reason(error)}")) from error

    async def _headers(self, endpoint: str) -> dict[str, str]:
        """With a token when there is a user; etcd's simple tokens live five minutes after their last use."""
        if not self._config.username:
            return {}
        if not self._token:
            credentials = {"name": self._config.username, "password": self._config.password}
            payload = msgspec.json.encode(credentials)
            status, text = await self._post(endpoint, "auth/authenticate", payload, {})
            if status != 200:
                refusal = _refusal(text)
                if refusal.code == _INVALID_ARGUMENT:  # "authentication failed, invalid user ID or password"
                    raise ForbiddenError(
                        f"etcd {endpoint}: user {self._config.username!r} is refused: "
                        f"{refusal.message or refusal.error}"
                    )
                raise self._refused(refusal, f"etcd {endpoint} auth/authenticate")
            self._token = _decode(_Token, text, f"etcd {endpoint} auth/authenticate").token
        return {"Authorization": self._token}

    def _refused(self, refusal: _Refusal, what: str) -> "_AttemptError":
        message = f"{what}: {refusal.message or refusal.error or 'an answer that is no JSON'}"
        if refusal.code == _UNAUTHENTICATED and self._config.username:
            self._token = ""  # expired, or another endpoint's: get a new one
            return _AttemptError(UnavailableError(message), untouched=True, at_once=True)
        error: DatastoreError
        if refusal.code in (_PERMISSION_DENIED, _UNAUTHENTICATED):
            error = ForbiddenError(message)
        elif refusal.code == _OUT_OF_RANGE:
            error = GoneError(message)
        elif refusal.code == _INVALID_ARGUMENT:
            # "user name is empty": etcd wants a user, and none is configured.
            error = ForbiddenError(message) if "user name is empty" in message else InvalidError(message)
        elif refusal.code in _TRANSIENT or refusal.code in (0, _RESOURCE_EXHAUSTED):
            # Exhausted: "too many requests", before anything was done.
            return _AttemptError(UnavailableError(message), untouched=refusal.code == _RESOURCE_EXHAUSTED)
        else:
            error = InvalidError(message)
        return _AttemptError(error)


class _AttemptError(Exception):
    """An attempt failed with `reason`. `untouched`: it certainly had no effect; `at_once`: try again without
    a wait, for the next attempt is a different one."""

    def __init__(self, reason: DatastoreError, untouched: bool = False, at_once: bool = False) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.untouched = untouched
        self.at_once = at_once


def encoded(text: str | bytes) -> str:
    """A key or value as the gateway wants it."""
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode("ascii")


def decoded(text: str) -> bytes:
    """A key or value as the gateway gives it."""
    return base64.b64decode(text)


def _refusal(text: bytes) -> _Refusal:
    try:
        return msgspec.json.decode(text, type=_Refusal)
    except msgspec.MsgspecError:
        return _Refusal()


def _decode(shape: type[T], text: bytes, what: str) -> T:
    try:
        return msgspec.json.decode(text, type=shape)
    except msgspec.MsgspecError as error:
        raise _AttemptError(UnavailableError(f"{what}: the answer is no such JSON: {error}")) from error
