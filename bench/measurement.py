"""What a benchmark reports."""

from typing import Literal

from msgspec import Struct


class Measurement(Struct, frozen=True, kw_only=True):
    """One line of the table.

    `ours` and `peer` are in `unit` (milliseconds, seconds, MB, per second...). `ratio` says how many times
    better ours is than the peer's (above 1 is better), `wanted` the least that we promise; without a peer,
    `limit` is the most that `ours` may be. `explanation` says where the time goes when a promise is not kept.
    """

    name: str
    unit: str
    ours: float
    better: Literal["lower", "higher"] = "lower"
    peer_name: str = ""
    peer: float | None = None
    wanted: float | None = None
    limit: float | None = None
    samples: int = 0
    explanation: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer; None without one."""
        if self.peer is None or self.ours <= 0 or self.peer <= 0:
            return None
        return self.peer / self.ours if self.better == "lower" else self.ours / self.peer

    @property
    def kept(self) -> bool:
        """Whether the promise is kept."""
        if self.limit is not None and self.ours > self.limit:
            return False
        return self.wanted is None or (self.ratio is not None and self.ratio >= self.wanted)
