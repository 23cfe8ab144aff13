"""cpio archives in the format that the kernel unpacks at boot ("newc").

The kernel's Documentation/driver-api/early-userspace/buffer-format.rst describes it, and that archives
may stand one after another: a machine's own files follow the initramfs that all machines share.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

MAGIC = b"070701"
TRAILER = "TRAILER!!!"
ALIGNMENT = 4


@dataclass(frozen=True)
class File:
    """A regular file: its content and permission bits."""

    content: bytes
    mode: int = 0o644


def archive(files: Mapping[str, File], folders: tuple[str, ...] = ()) -> bytes:
    """An archive of files by relative path, with the directories above them, and of empty `folders`."""
    wanted = {str(parent) for path in [*files, *folders] for parent in PurePosixPath(path).parents}
    directories = sorted((wanted | set(folders)) - {"."})
    entries = [
        _entry(number, path, stat.S_IFDIR | 0o755, b"") for number, path in enumerate(directories, start=1)
    ]
    entries += [
        _entry(number, path, stat.S_IFREG | file.mode, file.content)
        for number, (path, file) in enumerate(sorted(files.items()), start=len(directories) + 1)
    ]
    return b"".join([*entries, _entry(0, TRAILER, 0, b"")])


def _entry(number: int, path: str, mode: int, content: bytes) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name), 0)
    header = MAGIC + b"".join(b"%08x" % value for value in fields)
    return _padded(header + name) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % ALIGNMENT)
