"""Commands that the lab's modules run on the machine they run on."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


class CommandError(Exception):
    """A command failed; the message carries the command and what it said."""


def run(arguments: Sequence[str], timeout: float = 120.0) -> str:
    """Standard output of a command. CommandError when it fails, is missing, or takes over `timeout` s."""
    shown = " ".join(arguments)
    try:
        result = subprocess.run(
            list(arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise CommandError(
            f"{arguments[0]} is not installed; lab/deps.sh installs what the lab needs."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"`{shown}` did not end within {timeout:.0f} s.") from error
    if result.returncode != 0:
        raise CommandError(f"`{shown}` failed: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout


def is_mount_point(path: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether something is mounted at `path`, bind mounts within one file system (unseen by stat(2)) too."""
    # fstab(5): spaces and the like stand as octal escapes.
    wanted = str(path).encode().replace(b"\\", b"\\134").replace(b" ", b"\\040").replace(b"\t", b"\\011")
    return any(line.split(b" ")[1] == wanted for line in mounts.read_bytes().splitlines())
