"""An HTTPS front of a real API server that can be told to misbehave: `async with in_front_of(api) as front:`.

Set `front.fault`; None forwards everything. Requests that are under way keep the fault they came with.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import aiohttp
from aiohttp import web

from tests.components.apiserver import ApiServer

WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_HOP: Final = frozenset({"host", "connection", "transfer-encoding", "content-length"})  # RFC 9110, 7.6.1


@dataclass
class Fault:
    """What happens to requests.

    `refuse`: answered with `status` (429 with Retry-After: 0) and not forwarded; `slow`: forwarded after
    `seconds`, whether or not the caller still waits; `silent`: never answered nor forwarded; `half`:
    forwarded, and the connection is reset in the middle of the answer's body.
    """

    kind: Literal["refuse", "slow", "silent", "half"]
    status: int = 503
    seconds: float = 0.0
    methods: frozenset[str] = WRITES | {"GET"}
    times: int | None = None  # how many requests; None: all


class FaultyApi:
    """Forwards https://127.0.0.1:`port` to the API server. `met` counts requests that a fault struck."""

    def __init__(self, target: str) -> None:
        self.fault: Fault | None = None
        self.port = 0
        self.met = 0
        self._target = target
        self._under_way: set[asyncio.Task[web.StreamResponse]] = set()
        self._over = asyncio.Event()

    async def settled(self) -> None:
        """Wait until the requests that are under way have ended, so that none of them writes later."""
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=30)

    def end(self) -> None:
        """No request waits any longer; for the end of the front."""
        self._over.set()

    def _strikes(self, method: str) -> Fault | None:
        fault = self.fault
        if fault is None or method not in fault.methods or fault.times == 0:
            return None
        if fault.times is not None:
            fault.times -= 1
        self.met += 1
        return fault

    async def serve(self, request: web.Request, session: aiohttp.ClientSession) -> web.StreamResponse:
        """One request."""
        fault = self._strikes(request.method)
        if fault is not None and fault.kind == "refuse":
            headers = {"Retry-After": "0"} if fault.status == 429 else {}
            return web.Response(status=fault.status, text="refused by the front", headers=headers)
        if fault is not None and fault.kind == "silent":
            await self._over.wait()
            return web.Response(status=503)
        task = asyncio.create_task(self._forward(request, session, fault))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)  # a caller who goes away does not stop it

    async def _forward(
        self, request: web.Request, session: aiohttp.ClientSession, fault: Fault | None
    ) -> web.StreamResponse:
        body = await request.read()
        if fault is not None and fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP}
        url = self._target + request.raw_path
        async with session.request(request.method, url, data=body, headers=headers) as answer:
            text = await answer.read()
        if fault is None or fault.kind != "half":
            return web.Response(status=answer.status, body=text, content_type=answer.content_type)
        response = web.StreamResponse(status=answer.status)
        response.content_length = len(text)
        await response.prepare(request)
        await response.write(text[: len(text) // 2])
        if request.transport is not None:
            request.transport.abort()
        return response


@contextlib.asynccontextmanager
async def in_front_of(api: ApiServer, directory: Path) -> AsyncIterator[tuple[FaultyApi, Path]]:
    """The front, and a kubeconfig in `directory` that leads to it."""
    pair = api.authority.issue("faulty-front", ["127.0.0.1"])
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(pair.certificate, pair.key)
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=api.ca), limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        front = FaultyApi(api.url)

        async def handle(request: web.Request) -> web.StreamResponse:
            return await front.serve(request, session)

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=served)
            await site.start()
            front.port = runner.addresses[0][1]
            kubeconfig = directory / "faulty-kubeconfig"
            kubeconfig.touch(mode=0o600)
            text = api.kubeconfig.read_text()
            kubeconfig.write_text(text.replace(api.url, f"https://127.0.0.1:{front.port}"))
            yield front, kubeconfig
        finally:
            front.end()
            await runner.cleanup()
