"""Whether the node's datapath works, layer by layer, and the HTTP server that says so."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final, Literal

from prometheus_client import CollectorRegistry

from tortie.serving import health_application, metrics_application, serving

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

    def not_alive(self) -> list[str]:
        """A sentence for each loop that has begun and does not turn any more."""
        now = self._clock()
        return [
            f"{loop}: no round finished in {LIVENESS_LIMIT:.0f} s"
            for loop, beat in self._beats.items()
            if now - beat >= LIVENESS_LIMIT
        ]


async def wait_alive(event: asyncio.Event, seconds: float, beat: Callable[[], None]) -> bool:
    """Wait for `event` for at most `seconds`, with a beat every BEAT seconds; return whether it is set."""
    end = time.monotonic() + seconds
    while not event.is_set() and (left := end - time.monotonic()) > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left, BEAT)):
                await event.wait()
        beat()
    return event.is_set()


def serve_health(health: Health, port: int) -> contextlib.AbstractAsyncContextManager[None]:
    """/liveness and /readiness on the loopback address, as Calico's probes expect them."""
    return serving(health_application(health.not_alive, health.problems), "127.0.0.1", port)


def serve_metrics(
    registry: CollectorRegistry, host: str, port: int
) -> contextlib.AbstractAsyncContextManager[None]:
    """/metrics on `host`, or on every address when it is empty."""
    return serving(metrics_application(registry), host, port)
