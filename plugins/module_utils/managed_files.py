# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Files that we write whole and blocks that we keep in other people's files, each with a mark by which we
know our own.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.tortie.cluster.plugins.module_utils import reset_record

MARK = "# Written by Tortie; changes are overwritten."
BLOCK_BEGIN = "# BEGIN Tortie: {name}"
BLOCK_END = "# END Tortie: {name}"
SWAP_MARK = "# Tortie switched this off: "


@dataclass(frozen=True)
class FileChange:
    """What happens to one file: None stands for `not there`."""

    path: str
    before: str | None
    after: str | None
    mode: int = 0o644

    def __bool__(self) -> bool:
        return self.before != self.after

    def diff(self) -> dict[str, str]:
        """The change in the shape that ansible's --diff prints."""
        return {
            "before": self.before or "",
            "after": self.after or "",
            "before_header": self.path if self.before is not None else f"{self.path} (absent)",
            "after_header": self.path if self.after is not None else f"{self.path} (absent)",
        }


def read_text(path: str) -> str | None:
    """The file's text, or None when there is no such file."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def whole_file(path: str, body: str, mode: int = 0o644, mark: str = MARK) -> FileChange:
    """The change that gives the file our mark and this body."""
    text = f"{mark}\n{body}" if mark else body
    return FileChange(path, read_text(path), text if text.endswith("\n") else text + "\n", mode)


def no_file(path: str) -> FileChange:
    """The change that removes the file, if it is ours (bears our mark)."""
    before = read_text(path)
    ours = before is not None and before.startswith(MARK)
    return FileChange(path, before, None if ours else before)


def with_block(text: str, name: str, lines: Sequence[str]) -> str:
    """The text with our block of this name holding exactly these lines; without lines the block goes.

    What stands outside the block is kept. A new block is put at the end. A begin without an end (a file
    cut off by hand) counts as one line, so that nothing of the other owner is swallowed.
    """
    begin, end = BLOCK_BEGIN.format(name=name), BLOCK_END.format(name=name)
    old = text.splitlines()
    block = [begin, *lines, end] if lines else []
    if begin in old:
        first = old.index(begin)
        last = old.index(end, first) if end in old[first:] else first
        new = [*old[:first], *block, *old[last + 1 :]]
    else:
        new = [*old, *block]
    return "".join(f"{line}\n" for line in new) if new else ""


def without_swap(fstab: str) -> str:
    """fstab(5) with its swap lines turned into comments that carry our mark."""
    kept = []
    for line in fstab.splitlines():
        fields = line.split()
        is_swap = len(fields) > 2 and not fields[0].startswith("#") and fields[2] == "swap"
        kept.append(f"{SWAP_MARK}{line}" if is_swap else line)
    return "".join(f"{line}\n" for line in kept)


def apply(change: FileChange) -> None:
    """Carry out the change; readers see the old file or the new one, never a part.

    A file that is a mount point (as /etc/hosts in a container) cannot be replaced; that one is written in
    place.
    """
    path = Path(change.path)
    if change.after is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if change.before is not None and change.after.startswith(MARK) and not change.before.startswith(MARK):
        reset_record.keep_original(change.path)  # somebody else's, which a reset is to give back
    mode = path.stat().st_mode & 0o7777 if change.before is not None and change.mode == 0o644 else change.mode
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(change.after)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        try:
            temporary.replace(path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            path.write_text(change.after, encoding="utf-8", errors="surrogateescape")
    finally:
        temporary.unlink(missing_ok=True)
