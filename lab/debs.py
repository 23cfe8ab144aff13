"""Tools out of Debian packages without installing them.

Packages like etcd-server and bird2 start a daemon when they are installed. The lab only needs their files, so
it downloads the candidate version from the machine's own apt sources and unpacks it into the cache.

    python -m lab.debs etcd-server bird2        prints one directory per package
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lab import LabError, cache, once

# Debian Policy 5.6.7: lower case letters, digits, plus, minus, dot; at least two characters.
_PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")

# Everything is verified by apt against the signed index; running its download step as root needs no other
# user to be able to write into our directory.
_APT_OPTIONS = ("-o", "APT::Sandbox::User=root", "-q")


@dataclass(frozen=True)
class Candidate:
    """The version of a package that apt would install."""

    package: str
    filename: str  # <package>_<version>_<architecture>.deb, an epoch's colon written as %3a

    @property
    def stem(self) -> str:
        """`<package>_<version>_<architecture>`."""
        return self.filename.removesuffix(".deb")


def candidate(package: str) -> Candidate:
    """Ask apt's own indexes, without the network. Raises LabError when there is no such package."""
    if not _PACKAGE_NAME.fullmatch(package):
        raise LabError(f"{package!r} is not a Debian package name; give names like etcd-server.")
    answer = _run(["apt-get", *_APT_OPTIONS, "download", "--print-uris", package])
    filename = _printed_filename(answer.stdout)
    if answer.returncode != 0 or filename is None:
        raise LabError(
            f"apt finds no candidate for package {package} ({_last_line(answer.stderr)}); run 'apt-get"
            " update', and check that the machine's apt sources include Debian's main component."
        )
    return Candidate(package, filename)


def extract(package: str) -> Path:
    """Directory that holds the unpacked files of `package` (as in /: usr/bin/..., usr/sbin/...)."""
    wanted = candidate(package)

    def fill(directory: Path) -> None:
        deb = fetch(wanted, directory)
        unpack(deb, directory)
        deb.unlink()

    return once.make(cache.root() / "debs" / wanted.stem, fill)


def fetch(wanted: Candidate, directory: Path) -> Path:
    """Download the package into `directory`; apt checks its size and hash against the signed index."""
    answer = _run(["apt-get", *_APT_OPTIONS, "download", wanted.package], directory)
    deb = directory / wanted.filename
    if answer.returncode != 0 or not deb.is_file():
        raise LabError(
            f"apt could not download {wanted.filename} ({_last_line(answer.stderr)}); run 'apt-get update' "
            "in case its indexes are older than the archive, and check that the package server is reachable."
        )
    return deb


def unpack(deb: Path, directory: Path) -> None:
    """Put the files of a .deb under `directory`; no maintainer script runs."""
    answer = _run(["dpkg", "-x", str(deb), str(directory)])
    if answer.returncode != 0:
        raise LabError(f"dpkg could not unpack {deb} ({_last_line(answer.stderr)}); is the disk full?")


def unpack_packages(packages: list[str], directory: Path) -> None:
    """Put the files of several packages under one directory, as if they were installed together."""
    for package in packages:
        deb = fetch(candidate(package), directory)
        unpack(deb, directory)
        deb.unlink()


def _run(command: list[str], directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=directory, check=False
        )
    except FileNotFoundError as error:
        raise LabError(f"{command[0]} is not installed; the lab needs a Debian or Ubuntu machine.") from error


def _printed_filename(output: str) -> str | None:
    """The file name in apt's line `'URI' FILENAME SIZE HASH`."""
    match = re.search(r"^'[^']+' (\S+\.deb) \d+", output, re.MULTILINE)
    return match.group(1) if match else None


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line]
    return lines[-1] if lines else "no message"


def main(arguments: list[str]) -> int:
    if not arguments:
        print("usage: python -m lab.debs PACKAGE...", file=sys.stderr)
        return 2
    try:
        for package in arguments:
            print(extract(package))
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
