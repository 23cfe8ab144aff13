"""Requests that concern the same thing follow each other."""

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Turn:
    """Who has its turn, or waits for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Turns:
    """A lock for each key, there as long as somebody has it or waits for it. First come, first served."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}

    def of(self, key: str) -> "_Use":
        """Within it, nobody else has the turn of `key`."""
        return _Use(self._turns, key)


class _Use:
    """One use of a turn. A class, for every ADD needs three: a generator takes three times as long."""

    def __init__(self, turns: dict[str, _Turn], key: str) -> None:
        self._turns = turns
        self._key = key
        self._turn = _Turn()

    async def __aenter__(self) -> None:
        turn = self._turn = self._turns.setdefault(self._key, self._turn)
        turn.users += 1
        try:
            await turn.lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_exception: object) -> None:
        self._turn.lock.release()
        self._leave()

    def _leave(self) -> None:
        self._turn.users -= 1
        if not self._turn.users:
            del self._turns[self._key]
