"""Bounded repetition of a read-decide-write round."""

import asyncio
import random
from typing import Final

from tortie.datastore.backoff import Backoff
from tortie.datastore.interface import (
    AlreadyExistsError,
    ConflictError,
    DatastoreError,
    NotFoundError,
    UnavailableError,
)

# After these a fresh round may find another picture: somebody else was quicker, or an answer was lost.
PASSING: Final = (ConflictError, AlreadyExistsError, NotFoundError, UnavailableError)

_MAX_ROUNDS: Final = 100
_MAX_UNAVAILABLE: Final = 3  # the datastore itself has retried long before it says so
_FIRST_WAIT: Final = 0.002  # seconds
_LONGEST_WAIT: Final = 0.25


class Rounds:
    """Counts the failed rounds of one operation, and waits between them."""

    def __init__(self, what: str, rng: random.Random) -> None:
        self._what = what
        self._backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT, rng)
        self._failed = 0
        self._unavailable = 0

    async def wait_after(self, error: DatastoreError) -> None:
        """Return when it is time for the next round; raise UnavailableError when there should be none."""
        self._failed += 1
        self._unavailable += isinstance(error, UnavailableError)
        if self._unavailable > _MAX_UNAVAILABLE or self._failed >= _MAX_ROUNDS:
            raise UnavailableError(
                f"{self._what} was given up after {self._failed} rounds; the last one failed with: {error}"
            ) from error
        await asyncio.sleep(self._backoff.next())
