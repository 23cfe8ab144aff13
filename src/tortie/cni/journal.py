"""DELs that wait: written by the shim when no agent answers, or by the agent when the datastore does not.

A file `<container>.<interface>.<plugin>.del` holds a request as the shim sends it. It is there in full or not
at all, and it is removed once the DEL has been carried out.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tortie.cni.config import decode

log = logging.getLogger(__name__)

DRAFT_SECONDS: Final = 60.0  # nobody takes so long to write one


class Journal:
    """The journal in one directory."""

    def __init__(self, directory: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._monotonic = monotonic
        # Drafts, by name, inode and change (ns), to when they were first seen: the wall clock may jump.
        self._seen: dict[tuple[str, int, int], float] = {}

    def entries(self) -> list[Path]:
        """Waiting requests, oldest first. A directory that does not exist holds none."""
        with contextlib.suppress(FileNotFoundError):
            files = [path for path in self._directory.iterdir() if path.suffix == ".del"]
            return sorted(files, key=lambda path: path.stat().st_mtime_ns)
        return []

    def find(self, environment: Mapping[str, str]) -> Path | None:
        """The entry of the container, interface and plugin that a request's environment names."""
        path = self._directory / f"{_name(environment)}.del"
        return path if path.exists() else None

    def write(self, payload: bytes, *, durable: bool = True) -> Path:
        """Keep a request. Raise OSError when it cannot be kept.

        What is not durable survives this process, but not the node: with the node the container goes, and the
        garbage collection of addresses finds what it held.
        """
        environment, _config = decode(payload)
        name = _name(environment)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path, draft = self._directory / f"{name}.del", self._directory / f".{name}.{os.getpid()}"
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(payload)
                file.flush()
                if durable:
                    os.fsync(descriptor)
            draft.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        return path

    def sweep(self) -> None:
        """Remove drafts of writers that were killed: those that did not change for DRAFT_SECONDS.

        It has to be called again and again; a draft's age counts from the first call that sees it.
        """
        now, seen = self._monotonic(), self._seen
        self._seen = {}
        drafts: list[Path] = []
        with contextlib.suppress(OSError):
            drafts += self._directory.glob(".*")
        for draft in drafts:
            with contextlib.suppress(OSError):
                status = draft.stat()
                key = (draft.name, status.st_ino, status.st_mtime_ns)
                since = seen.get(key, now)
                if now - since > DRAFT_SECONDS:
                    draft.unlink()
                else:
                    self._seen[key] = since

    def drop(self, entry: Path) -> None:
        """The DEL is done. One that stays because it cannot be removed does no harm."""
        try:
            entry.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed, and will be carried out again: %s", entry, error)

    def as_del(self, payload: bytes) -> bytes:
        """The DEL that takes back the ADD in `payload`."""
        environment, config = decode(payload)
        environment["CNI_COMMAND"] = "DEL"
        items = [f"{key}={value}".encode("utf-8", "surrogateescape") for key, value in environment.items()]
        return b"\0".join(items) + b"\0\0" + config


def _name(environment: Mapping[str, str]) -> str:
    """An entry's name without suffix, as the shim makes it, too."""
    parts = (environment["CNI_CONTAINERID"], environment["CNI_IFNAME"], environment.get("CNI_TYPE", ""))
    return ".".join(parts).replace("/", "_")[:200]
