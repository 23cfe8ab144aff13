"""Directories that appear complete or not at all.

A cache entry is filled under a temporary name beside its destination and renamed into place, while a lock
file keeps a second process from doing the same work twice.
"""

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock that belongs to `path` (which need not exist); waits for the process that has
    it.

    The kernel drops a flock(2) when its holder dies, so a killed build leaves nothing to clean by hand.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make(
    destination: Path, fill: Callable[[Path], None], is_current: Callable[[Path], bool] = Path.is_dir
) -> Path:
    """Return `destination`, calling `fill(directory)` to make it unless `is_current(destination)`.

    `fill` gets an empty directory on the same file system, which then takes the destination's place. When it
    raises, nothing is left behind and an older destination stays; when the process is killed, the next call
    removes the remains.
    """
    if is_current(destination):
        return destination
    with locked(destination):
        if is_current(destination):
            return destination
        prefix = f".{destination.name}.partial-"
        for remains in destination.parent.glob(f"{glob.escape(prefix)}*"):
            shutil.rmtree(remains)
        partial = Path(tempfile.mkdtemp(prefix=prefix, dir=destination.parent))
        try:
            fill(partial)
            partial.chmod(0o755)
            if destination.exists():
                destination.rename(partial.with_name(f"{partial.name}-replaced"))
            partial.rename(destination)
        finally:
            for leftover in (partial, partial.with_name(f"{partial.name}-replaced")):
                shutil.rmtree(leftover, ignore_errors=True)
    return destination
