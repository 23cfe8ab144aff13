"""Whether the controllers work."""

import time
from collections.abc import Callable
from typing import Final

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

    def not_alive(self) -> list[str]:
        """Why the process counts as stuck; empty when it does not."""
        stuck = self._clock() - self._beat >= LIVENESS_LIMIT
        return [f"no sign of the loop for {LIVENESS_LIMIT:.0f} s"] if stuck else []

    def not_ready(self) -> list[str]:
        """Why nothing is collected yet; empty when it is."""
        return [] if self.ready else ["the cluster has not been listed yet"]

    @property
    def alive(self) -> bool:
        """Whether it did so lately."""
        return self._clock() - self._beat < LIVENESS_LIMIT
