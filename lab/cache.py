"""The project's cache directory: what is expensive to make, addressed by the content of its inputs."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import LabError

# Hexadecimal digits of SHA-256 that name a cache entry: 48 bits, plenty for a handful of entries.
DIGEST_LENGTH = 12


def root() -> Path:
    """`$TORTIE_CACHE`, or `~/.cache/tortie`; created when missing."""
    path = Path(os.environ.get("TORTIE_CACHE") or Path.home() / ".cache" / "tortie").absolute()
    path.mkdir(parents=True, exist_ok=True)
    return path


def directory(name: str) -> Path:
    """A subdirectory of the cache; created when missing."""
    path = root() / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(parts: Iterable[str | bytes]) -> str:
    """The first digits of SHA-256 over `parts`, each preceded by its length so that their borders count."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()[:DIGEST_LENGTH]


def tree_digest(paths: Iterable[Path], base: Path) -> str:
    """Digest of files and directory trees: names relative to `base`, executable bit, link targets, contents.

    Byte code (`__pycache__`) is left out: it changes without a change of source.
    """
    parts: list[str | bytes] = []
    files: set[Path] = set()
    for path in paths:
        files.update(p for p in path.rglob("*") if not p.is_dir() or p.is_symlink())
        if not path.is_dir():
            files.add(path)
    for file in sorted(files):
        if "__pycache__" in file.parts:
            continue
        executable = "x" if os.access(file, os.X_OK) else "-"
        content = str(file.readlink()).encode() if file.is_symlink() else file.read_bytes()
        parts += [str(file.relative_to(base)), executable, content]
    return digest(parts)


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold the cache-wide lock `name`: two builds of the same thing wait for each other instead of racing."""
    with (directory("locks") / name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def check_space(folder: Path, mebibytes: int, purpose: str) -> None:
    """Raise LabError when `folder` has less space than `purpose` may take."""
    free = shutil.disk_usage(folder).free >> 20
    if free < mebibytes:
        raise LabError(
            f"{purpose} takes up to {mebibytes} MiB in {folder}, where {free} MiB are free; "
            "free some space, or set TORTIE_CACHE to a folder on a larger file system."
        )


def drop_partials(folder: Path, name: str) -> None:
    """Remove what a killed build left of files called `name`*; call it with the lock of that build held."""
    for remains in folder.glob(f"{name}*.partial-*"):
        remains.unlink()


def newest_first(paths: Iterable[Path]) -> list[Path]:
    """Paths by modification time, newest first: the order in which cache entries are worth keeping."""
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)
