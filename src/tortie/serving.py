"""HTTP for people and probes, the same in every daemon: whether it lives, is ready, and what it counts."""

import contextlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Problems = Callable[[], list[str]]


def health_application(not_alive: Problems, not_ready: Problems) -> web.Application:
    """/liveness and /readiness: 200 without a problem, else 503 with a line for each."""

    def answer(problems: list[str], well: str) -> web.Response:
        if not problems:
            return web.Response(text=f"{well}\n")
        return web.Response(status=503, text="".join(f"{problem}\n" for problem in problems))

    async def liveness(_request: web.Request) -> web.Response:
        return answer(not_alive(), "alive")

    async def readiness(_request: web.Request) -> web.Response:
        return answer(not_ready(), "ready")

    application = web.Application()
    application.router.add_get("/liveness", liveness)
    application.router.add_get("/readiness", readiness)
    return application


def metrics_application(registry: CollectorRegistry) -> web.Application:
    """/metrics, in Prometheus' text format."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    return application


@contextlib.asynccontextmanager
async def serving(application: web.Application, host: str | None, port: int) -> AsyncIterator[None]:
    """Serve on `host`, or on every address when it is None or empty; port 0: not at all."""
    if port == 0:
        yield
        return
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host or None, port, reuse_address=True).start()
        yield
    finally:
        await runner.cleanup()
