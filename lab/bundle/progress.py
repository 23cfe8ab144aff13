"""What the user sees while a bundle is made: one line when a step begins, one with its time when it ends."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def say(text: str) -> None:
    """A line on standard output, at once even when it is a pipe."""
    print(f"[bundle] {text}", flush=True)


@contextmanager
def step(title: str) -> Iterator[Callable[[str], None]]:
    """Announce a step and say how long it took. Gives a function for lines in between."""
    started = time.monotonic()
    say(f"{title} ...")

    def still(text: str) -> None:
        say(f"{title}: {text}, {time.monotonic() - started:.0f} s so far")

    yield still
    say(f"{title}: done in {time.monotonic() - started:.1f} s")
