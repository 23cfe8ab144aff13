"""Whether the node's datapath works, layer by layer, and the HTTP server that says so."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from typing import Final, Literal

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

log = logging.getLogger(__name__)

Layer = Literal["start-up", "datastore", "tunnels", "mtu", "dataplane", "policy", "bgp", "cni"]
Loop = Literal["routes", "policy"]

# Seconds without a sign of a loop after which the process counts as stuck; a loop with nothing to do gives
# one every BEAT seconds.
LIVENESS_LIMIT: Final = 300.0
BEAT: Final = 60.0


class Health:
    """One sentence for each layer that is not ready; a layer without one is. Each change is logged once."""

    def __init__(self, layers: Iterable[Layer], clock: Callable[[], float] = time.monotonic) -> None:
        self._problems: dict[Layer, str] = dict.fromkeys(layers, "not started yet")
        self._clock = clock
        self._beats: dict[Loop, float] = {"routes": clock()}
        self.ready = asyncio.Event()

    def fail(self, layer: Layer, sentence: str) -> None:
        """The layer does not work (any more)."""
        if self._problems.get(layer) != sentence:
            log.warning("Not ready, %s: %s", layer, sentence)
        self._problems[layer] = sentence
        self.ready.clear()

    def pass_(self, layer: Layer) -> None:
        """The layer works."""
        if self._problems.pop(layer, None) is not None:
            log.info("Ready: %s", layer)
        if not self._problems:
            self.ready.set()

    def problems(self, layers: Collection[Layer] | None = None) -> list[str]:
        """What keeps the node, or these layers of it, from being ready; empty when nothing does."""
        return [
            f"{layer}: {sentence}"
            for layer, sentence in self._problems.items()
            if layers is None or layer in layers
        ]

    def beat(self, loop: Loop = "routes") -> None:
        """The loop (start-up, which retries, counts for routes) finished a round or waits for one."""
        self._beats[loop] = self._clock()

    def alive(self) -> bool:
        """Whether every loop that has begun still turns."""
        return all(self._clock() - beat < LIVENESS_LIMIT for beat in self._beats.values())


async def wait_alive(event: asyncio.Event, seconds: float, beat: Callable[[], None]) -> bool:
    """Wait for `event` for at most `seconds`, with a beat every BEAT seconds; return whether it is set."""
    end = time.monotonic() + seconds
    while not event.is_set() and (left := end - time.monotonic()) > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left, BEAT)):
                await event.wait()
        beat()
    return event.is_set()


def _health_application(health: Health) -> web.Application:
    async def liveness(_request: web.Request) -> web.Response:
        if health.alive():
            return web.Response(text="alive\n")
        return web.Response(status=503, text=f"no round finished in {LIVENESS_LIMIT:.0f} s\n")

    async def readiness(_request: web.Request) -> web.Response:
        problems = health.problems()
        if not problems:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="".join(f"{problem}\n" for problem in problems))

    application = web.Application()
    application.router.add_get("/liveness", liveness)
    application.router.add_get("/readiness", readiness)
    return application


def _metrics_application(registry: CollectorRegistry) -> web.Application:
    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    return application


@contextlib.asynccontextmanager
async def _serving(application: web.Application, host: str | None, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_address=True).start()
        yield
    finally:
        await runner.cleanup()


def serve_health(health: Health, port: int) -> contextlib.AbstractAsyncContextManager[None]:
    """/liveness and /readiness on the loopback address, as Calico's probes expect them."""
    return _serving(_health_application(health), "127.0.0.1", port)


def serve_metrics(
    registry: CollectorRegistry, host: str, port: int
) -> contextlib.AbstractAsyncContextManager[None]:
    """/metrics on `host`, or on every address when it is empty."""
    return _serving(_metrics_application(registry), host or None, port)
