"""Debian root file systems as tar archives, made by mmdebstrap and cached by the content of their inputs."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab import LabError, aptsources, cache

# Python 3.11, BIRD 2.0.12 (the first with `onlink`) and containerd 1.6 are bookworm's.
CODENAME = "bookworm"

_OPTIONS = (
    "--variant=minbase",
    "--format=tar",
    "--quiet",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=force-unsafe-io",
    '--aptopt=Acquire::Languages "none"',
    '--aptopt=APT::Install-Recommends "false"',
    '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*',
    # A machine id of its own for every machine: systemd writes it at first boot.
    '--customize-hook=: > "$1"/etc/machine-id',
    '--customize-hook=rm -f "$1"/etc/resolv.conf "$1"/etc/hostname; : > "$1"/etc/resolv.conf',
)


# The largest archive has some 500 MiB; half as much again is left for what grows.
_SPACE_MIB = 768


class RootfsError(LabError):
    """mmdebstrap failed."""


def _proxy_options() -> list[str]:
    """The machine's apt proxy settings: mmdebstrap reads its own apt configuration, not the machine's."""
    options = []
    for name in ("Acquire::http::Proxy", "Acquire::https::Proxy"):
        answer = subprocess.run(
            ["apt-config", "shell", "value", name], capture_output=True, text=True, check=True
        ).stdout.strip()
        if answer:
            value = answer.partition("=")[2].strip("'")
            options.append(f'--aptopt={name} "{value}"')
    return options


def archive_path(name: str, packages: Sequence[str], sources: str) -> Path:
    """Where the archive of these inputs lies in the cache."""
    digest = cache.digest([CODENAME, sources, *_OPTIONS, *sorted(packages)])
    return cache.directory("rootfs") / f"{name}-{digest}.tar"


def expected(name: str, packages: Sequence[str]) -> Path:
    """Where the archive of a minimal Debian with `packages` lies, or would."""
    return archive_path(name, packages, aptsources.read(CODENAME))


def ensure(name: str, packages: Sequence[str]) -> Path:
    """The archive of a minimal Debian with `packages`; built when the cache does not hold it.

    The archive appears under its final name only when complete. RootfsError carries mmdebstrap's last lines.
    """
    sources = aptsources.read(CODENAME)
    archive = archive_path(name, packages, sources)
    with cache.exclusive(f"rootfs-{name}"):
        cache.drop_partials(archive.parent, f"{name}-")
        if not archive.exists():
            _build(archive, packages, sources)
        for old in cache.newest_first(archive.parent.glob(f"{name}-*.tar")):
            if old != archive:
                old.unlink()
    return archive


def _build(archive: Path, packages: Sequence[str], sources: str) -> None:
    cache.check_space(archive.parent, _SPACE_MIB, f"Making {archive.name}")
    with tempfile.TemporaryDirectory(prefix="tortie-rootfs-") as folder:
        listing = Path(folder) / "machine.sources"
        listing.write_text(sources)
        partial = archive.with_suffix(f".partial-{os.getpid()}")
        command = ["mmdebstrap", *_OPTIONS, *_proxy_options(), "--include=" + ",".join(packages)]
        status, said = _run([*command, CODENAME, str(partial), str(listing)])
        if status != 0:
            partial.unlink(missing_ok=True)
            tail = "\n".join(said.splitlines()[-15:])
            raise RootfsError(
                f"mmdebstrap could not make {archive.name} from the machine's apt sources:\n{tail}"
            )
        partial.rename(archive)


def _run(command: Sequence[str]) -> tuple[int, str]:
    """Exit status and standard error of a command in a process group of its own.

    mmdebstrap sends SIGHUP to its whole group when it fails: in ours that would end whoever waits for it, and
    nobody would learn the reason.
    """
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0
    ) as process:
        try:
            _, said = process.communicate()
        except BaseException:  # an interrupt from the terminal does not reach the other group by itself
            os.killpg(process.pid, signal.SIGTERM)
            raise
    return process.returncode, said
