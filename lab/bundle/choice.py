"""Which provider makes the bundle of which version, and getting it done."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from plugins.module_utils.bundle import BundleError, Manifest, bare_version, load, verify

from lab import LabError, once
from lab.bundle import debian, download, layout, official
from lab.bundle.progress import say

AUTO: Final = "auto"
PROVIDERS: Final = (AUTO, debian.PROVIDER, official.PROVIDER)

# The lab's version when nobody asks for one: the one that can be made with and without the internet.
DEFAULT_VERSION: Final = debian.VERSION

# Seconds. A site that needs longer for a one-line file is not worth waiting for when there is another way.
_SITE_PATIENCE: Final = 3.0


@dataclass(frozen=True)
class Request:
    """What the user asked for; None and auto leave it to us."""

    version: str | None = None
    provider: str = AUTO
    architecture: str | None = None  # Go's name; None: this machine's
    output: Path | None = None  # instead of the cache
    sources: official.Sources = field(default_factory=official.Sources)


@dataclass(frozen=True)
class Choice:
    """A provider that can make the version."""

    provider: str
    version: str  # without v


def choose(version: str | None, provider: str, site_answers: bool) -> Choice:
    """Pick the provider. Pure; raises LabError when the provider cannot make the version.

    `site_answers` says whether the download site is reachable; it only matters where both providers could do
    it.
    """
    if provider not in PROVIDERS:
        raise LabError(f"Provider {provider!r} is unknown; it must be one of {', '.join(PROVIDERS)}.")
    wanted = official.check_version(version or DEFAULT_VERSION)
    if provider == debian.PROVIDER and wanted != debian.VERSION:
        raise LabError(
            f"Provider debian can only make Kubernetes {debian.VERSION}, and kubernetes_version is {wanted};"
            f" choose provider official, version {debian.VERSION}, or a bundle made elsewhere"
            " (BUNDLE=directory)."
        )
    if provider == AUTO:
        only_official = wanted != debian.VERSION
        provider = official.PROVIDER if only_official or site_answers else debian.PROVIDER
    return Choice(provider, wanted)


def current(directory: Path, provider: str) -> Manifest | None:
    """The manifest of a bundle in the cache that need not be made again, or None.

    With provider auto any provider's bundle will do; one that the debian provider made must be of today's
    recipe.
    """
    try:
        manifest = load(directory)
    except BundleError:
        return None
    if provider not in (AUTO, manifest.provider):
        return None
    if manifest.provider == debian.PROVIDER and manifest.recipe != debian.recipe():
        return None
    return manifest


def obtain(request: Request) -> Path:
    """The directory of the bundle that was asked for: out of the cache, or made now. Raises LabError."""
    architecture = request.architecture or layout.machine_architecture()
    wanted = choose(request.version, request.provider, site_answers=False).version
    destination = layout.cached(wanted, architecture)
    if current(destination, request.provider) is None:
        choice = choose(request.version, request.provider, _site_answers(request, wanted))
        _make(choice, request, architecture, destination)
    if request.output is None:
        return destination
    return _copy(destination, request.output.absolute())


def _site_answers(request: Request, wanted: str) -> bool:
    """Ask only when the answer decides something."""
    if request.provider != AUTO or wanted != debian.VERSION:
        return False
    url = f"{request.sources.kubernetes}/v{wanted}/bin/linux/amd64/kubeadm.sha256"
    return download.answers(url, _SITE_PATIENCE)


def _make(choice: Choice, request: Request, architecture: str, destination: Path) -> None:
    if choice.provider == debian.PROVIDER:
        _check_native(architecture)
        debian.build(destination, architecture)
        return
    try:
        official.build(destination, choice.version, architecture, request.sources)
    except LabError as error:
        if request.provider != AUTO or choice.version != debian.VERSION:
            raise
        say(f"the download did not work ({error}); building from Debian's source package instead")
        _check_native(architecture)
        debian.build(destination, architecture)


def _check_native(architecture: str) -> None:
    machine = layout.machine_architecture()
    if architecture != machine:
        raise LabError(
            f"Provider debian builds for the machine that it runs on, {machine}, and architecture is"
            f" {architecture}; run it on a machine with {architecture}, or choose provider official."
        )


def _copy(source: Path, destination: Path) -> Path:
    """Put the bundle at `destination`, replacing only what is a bundle itself. Raises LabError."""
    if destination.exists() and any(destination.iterdir()):
        try:
            present = load(destination)
        except BundleError as error:
            raise LabError(
                f"{destination} is not empty and not a bundle; give another directory as output."
            ) from error
        if present == load(source) and not verify(destination):
            return destination

    def fill(directory: Path) -> None:
        say(f"copying {source} to {destination}")
        shutil.copytree(source, directory, dirs_exist_ok=True)

    return once.make(destination, fill, lambda _: False)


def use(directory: Path, version: str | None, architecture: str | None) -> Path:
    """A bundle made elsewhere: verify it completely. Raises LabError that lists every problem."""
    found = verify(directory, architecture or layout.machine_architecture(), version)
    if found:
        listed = "\n  - ".join(found)
        raise LabError(f"The bundle {directory} cannot be used:\n  - {listed}")
    return directory.absolute()


def describe(directory: Path) -> str:
    """One line about a bundle for people."""
    manifest = load(directory)
    size = sum(artifact.size for artifact in manifest.artifacts)
    return (
        f"Kubernetes v{bare_version(manifest.version)} for {manifest.architecture} by provider"
        f" {manifest.provider}: {len(manifest.artifacts)} files, {len(manifest.images())} images,"
        f" {size / 1e6:.0f} MB"
    )
