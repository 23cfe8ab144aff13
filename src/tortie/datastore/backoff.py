"""Waiting before another try: exponential, with jitter, so that nodes do not come back in step."""

import random
from typing import Final

# SystemRandom: needs no seed, and forked processes do not share its state.
_RANDOM: Final = random.SystemRandom()


class Backoff:
    """A sequence of waits in seconds: `first`, doubled up to `most`, each cut by up to half at random."""

    def __init__(self, first: float, most: float, rng: random.Random = _RANDOM) -> None:
        self._first = first
        self._most = most
        self._next = first
        self._rng = rng

    def next(self) -> float:
        """The next wait."""
        wait = self._next * self._rng.uniform(0.5, 1.0)
        self._next = min(self._next * 2, self._most)
        return wait

    def reset(self) -> None:
        """Start over: something worked."""
        self._next = self._first
