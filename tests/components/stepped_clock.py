"""A wall clock that a test steps while the process runs: time.time, time_ns and datetime.now of tortie."""

import datetime
import sys
import time
from pathlib import Path
from typing import Self


def install(file: Path) -> None:
    """From now on the wall clock is off by the seconds in `file`, read at each call; missing or empty is 0.

    The monotonic clock, the kernel's time stamps and other processes keep theirs, as when somebody sets the
    time of one node. Modules of tortie that are imported later are not changed.
    """
    real, real_ns = time.time, time.time_ns

    def offset() -> float:
        try:
            return float(file.read_text() or 0)
        except FileNotFoundError:
            return 0.0

    class Stepped(datetime.datetime):
        """What tortie's modules know as datetime."""

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Self:
            return cls.fromtimestamp(real() + offset(), tz)

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_ns() + int(offset() * 1e9)
    for name, module in list(sys.modules.items()):
        if name.startswith("tortie.") and vars(module).get("datetime") is datetime.datetime:
            vars(module)["datetime"] = Stepped
