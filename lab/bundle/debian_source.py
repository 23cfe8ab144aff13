"""Fetch a Debian source package without touching the machine's apt configuration.

Sources are rarely enabled, and /etc/apt is the user's. So apt runs with its sources list, indexes and caches
in a directory of ours; the list is the machine's own, with `deb` turned into `deb-src`.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import LabError, aptsources


@dataclass(frozen=True)
class SourcePackage:
    """One version of a source package."""

    name: str
    version: str  # with epoch and Debian revision


def codename(os_release: Path = Path("/etc/os-release")) -> str:
    """The distribution's code name, as in its apt suites. Raises LabError."""
    match = re.search(r'^VERSION_CODENAME="?([\w-]+)"?$', os_release.read_text(), re.MULTILINE)
    if match is None:
        raise LabError(
            f"{os_release} has no VERSION_CODENAME, so the machine's apt suites are unknown; use a bundle"
            " made elsewhere (BUNDLE=directory)."
        )
    return match.group(1)


def source_list(binary_sources: str) -> str:
    """deb822 text for source packages from deb822 text for binary ones."""
    return re.sub(r"^Types:.*$", "Types: deb-src", binary_sources, flags=re.MULTILINE)


def parse_versions(showsrc: str) -> list[str]:
    """The versions in the output of `apt-cache showsrc`, in its order, each once."""
    return list(dict.fromkeys(re.findall(r"^Version: (\S+)$", showsrc, re.MULTILINE)))


def choose_version(versions: list[str], upstream_version: str) -> str | None:
    """The first version whose upstream part is `upstream_version`, or says after `+really` that it is."""
    wanted = re.compile(rf"(?:\d+:)?(?:.*\+really)?{re.escape(upstream_version)}(?!\+really)(?:[-+~].*)?")
    return next((version for version in versions if wanted.fullmatch(version)), None)


class PrivateApt:
    """apt with sources, indexes and caches under `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for name in ("lists/partial", "cache/archives/partial", "sources.d", "source"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        try:
            sources = source_list(aptsources.read(codename()))
        except aptsources.AptSourcesError as error:
            raise LabError(str(error)) from error
        (directory / "sources.d" / "tortie.sources").write_text(sources, encoding="utf-8")
        self._options = [
            f"-oDir::State::Lists={directory}/lists",
            f"-oDir::Cache={directory}/cache",
            f"-oDir::Etc::SourceParts={directory}/sources.d",
            "-oDir::Etc::SourceList=/dev/null",
            "-oAcquire::Languages=none",
            "-oAcquire::Retries=3",
            "-oAPT::Sandbox::User=root",
            "-q",
        ]

    def update(self) -> None:
        """Fetch the indexes of source packages, verified against the archive's signature."""
        self._run("apt-get", "update")

    def find(self, name: str, upstream_version: str) -> SourcePackage:
        """The newest listed version whose upstream part is, or by a `+really` suffix stands for,
        `upstream_version`.

        Raises LabError that names the versions there are.
        """
        answer = self._run("apt-cache", "showsrc", "--only-source", name, check=False)
        versions = parse_versions(answer.stdout)
        version = choose_version(versions, upstream_version)
        if version is not None:
            return SourcePackage(name, version)
        offered = f"has version {', '.join(versions)}" if versions else "does not have it"
        raise LabError(
            f"Kubernetes v{upstream_version} is built from the source package {name} of Debian 12, and this"
            f" machine's archive {offered}; run it on Debian 12 or use a bundle made elsewhere"
            " (BUNDLE=directory)."
        )

    def unpack(self, package: SourcePackage, destination: Path) -> None:
        """Download the package, verified against the index, and unpack it, patched, into `destination`."""
        download = self._directory / "source"
        self._run("apt-get", "source", "--download-only", f"{package.name}={package.version}", cwd=download)
        version_in_filename = package.version.split(":", 1)[-1]
        description = download / f"{package.name}_{version_in_filename}.dsc"
        # apt verified the .dsc's hash; the uploader's key need not be in this machine's keyring.
        self._run("dpkg-source", "--no-check", "-x", str(description), str(destination), cwd=download)

    def _run(
        self, program: str, *arguments: str, cwd: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        options = self._options if program.startswith("apt") else []
        command = [program, *options, *arguments]
        environment = {**os.environ, "LC_ALL": "C"}
        try:
            answer = subprocess.run(
                command, capture_output=True, text=True, env=environment, cwd=cwd, check=False
            )
        except FileNotFoundError as error:
            raise LabError(f"{program} is not installed; install the packages apt and dpkg-dev.") from error
        if check and answer.returncode != 0:
            detail = (answer.stderr or answer.stdout).strip()[-500:]
            raise LabError(
                f"'{program} {' '.join(arguments)}' failed; is the package server reachable? {detail}"
            )
        return answer
