"""HTTP: whether the controllers work, and what they count."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

LIVENESS_LIMIT: Final = 600.0  # seconds without a beat; a scan of a large cluster takes tens of seconds


class Health:
    """Ready from the first complete look at the cluster on; alive while the loop turns."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.ready = False
        self._clock = clock
        self._beat = clock()

    def beat(self) -> None:
        """The loop turns."""
        self._beat = self._clock()

    @property
    def alive(self) -> bool:
        """Whether it did so lately."""
        return self._clock() - self._beat < LIVENESS_LIMIT


def health_application(health: Health) -> web.Application:
    """/liveness and /readiness."""

    async def liveness(_request: web.Request) -> web.Response:
        if health.alive:
            return web.Response(text="alive\n")
        return web.Response(status=503, text=f"no sign of the loop for {LIVENESS_LIMIT:.0f} s\n")

    async def readiness(_request: web.Request) -> web.Response:
        if health.ready:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="the cluster has not been listed yet\n")

    application = web.Application()
    application.router.add_get("/liveness", liveness)
    application.router.add_get("/readiness", readiness)
    return application


def metrics_application(registry: CollectorRegistry) -> web.Application:
    """/metrics."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    return application


@contextlib.asynccontextmanager
async def serving(application: web.Application, port: int, host: str | None = None) -> AsyncIterator[None]:
    """Serve on every address, or on `host`; port 0: not at all."""
    if port == 0:
        yield
        return
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_address=True).start()
        yield
    finally:
        await runner.cleanup()
