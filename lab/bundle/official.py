"""Provider `official`: the Kubernetes project's own programs and images, for versions of the table.

Programs come from the download site, crictl and the CNI plugins from their projects' releases, each checked
against a pinned SHA-256, or for versions that are not pinned against the checksum published beside it. Images
are pulled with podman into a store of their own and saved as docker-archives.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from plugins.module_utils import kube_versions
from plugins.module_utils.bundle import Artifact, Manifest, bare_version

from lab import LabError, once
from lab.bundle import download, images, layout
from lab.bundle.progress import say, step

PROVIDER: Final = "official"

# Raise it when the steps below change the result in a way that the sources and checksums do not show.
_REVISION: Final = 1
_PINS: Final = Path(__file__).with_name("checksums.json")
_PROGRAMS: Final = ("kubeadm", "kubelet", "kubectl")
_CNI_VERSION: Final = "1.8.0"


@dataclass(frozen=True)
class Sources:
    """Where to download from. A mirror has the same paths below its own base address."""

    kubernetes: str = "https://dl.k8s.io/release"
    crictl: str = "https://github.com/kubernetes-sigs/cri-tools/releases/download"
    cni: str = "https://github.com/containernetworking/plugins/releases/download"
    image_registry: str = "registry.k8s.io"  # images are pulled from here whatever registry their names say
    plain_registry: bool = False  # the registry speaks HTTP, or its certificate is not to be checked


def check_version(version: str) -> str:
    """The version without a leading v, if the table knows its minor. Raises LabError."""
    try:
        kube_versions.parse(version)
    except kube_versions.VersionError as error:
        pinned = ", ".join(sorted(_pins()["kubernetes"]))
        raise LabError(f"{error} Versions with pinned checksums: {pinned}.") from error
    return bare_version(version)


def recipe(version: str, sources: Sources) -> str:
    """Digest of what decides the contents of a bundle."""
    digest = hashlib.sha256()
    digest.update(json.dumps([_REVISION, version, _CNI_VERSION, sources.__dict__]).encode())
    digest.update(_PINS.read_bytes())
    return digest.hexdigest()


def build(destination: Path, version: str, architecture: str, sources: Sources) -> Path:
    """Fetch the bundle unless one of the same recipe is at `destination`. Raises LabError."""
    bare = check_version(version)
    wanted = recipe(bare, sources)

    def fill(directory: Path) -> None:
        say(f"downloading Kubernetes v{bare} for {architecture}")
        with step("programs"):
            artifacts = _programs(directory, bare, architecture, sources)
        with step("crictl"):
            artifacts += _crictl(directory, bare, architecture, sources)
        with step("CNI plugins"):
            artifacts += _cni_plugins(directory, architecture, sources)
        references = _image_references(directory / "bin" / "kubeadm", bare, architecture)
        with step(f"{len(references)} images"):
            artifacts += _images(directory, references, architecture, sources)
        manifest = Manifest(
            name="kubernetes",
            version=bare,
            architecture=architecture,
            provider=PROVIDER,
            artifacts=tuple(artifacts),
            source=f"{sources.kubernetes}/v{bare}, images from {sources.image_registry}",
            recipe=wanted,
        )
        layout.write_manifest(directory, manifest)

    return once.make(destination, fill, lambda path: layout.made_by(path, PROVIDER, wanted))


def _pins() -> dict[str, Any]:
    pins: dict[str, Any] = json.loads(_PINS.read_text())
    return pins


def _pinned(*keys: str) -> str | None:
    """The checksum at a path of the pin table, or None when it has none."""
    node: Any = _pins()
    for key in keys:
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return str(node)


def _fetch(url: str, destination: Path, pin: str | None) -> Path:
    return download.fetch(url, destination, pin or download.published_checksum(f"{url}.sha256"))


def _programs(directory: Path, version: str, architecture: str, sources: Sources) -> list[Artifact]:
    artifacts = []
    for name in _PROGRAMS:
        url = f"{sources.kubernetes}/v{version}/bin/linux/{architecture}/{name}"
        path = _fetch(url, directory / "bin" / name, _pinned("kubernetes", version, architecture, name))
        path.chmod(0o755)
        artifacts.append(layout.describe_file(directory, path))
    return artifacts


def _crictl(directory: Path, version: str, architecture: str, sources: Sources) -> list[Artifact]:
    """cri-tools releases once per minor of Kubernetes, with patch 0."""
    release = f"1.{kube_versions.parse(version)[0]}.0"
    url = f"{sources.crictl}/v{release}/crictl-v{release}-linux-{architecture}.tar.gz"
    archive = _fetch(url, directory / "crictl.tar.gz", _pinned("crictl", release, architecture))
    paths = _unpack_programs(archive, directory / "bin", {"crictl"})
    archive.unlink()
    if not paths:
        raise LabError(f"{url} holds no program crictl; is this address the one of cri-tools' releases?")
    return [layout.describe_file(directory, path) for path in paths]


def _cni_plugins(directory: Path, architecture: str, sources: Sources) -> list[Artifact]:
    url = f"{sources.cni}/v{_CNI_VERSION}/cni-plugins-linux-{architecture}-v{_CNI_VERSION}.tgz"
    archive = _fetch(url, directory / "cni-plugins.tgz", _pinned("cni-plugins", _CNI_VERSION, architecture))
    paths = _unpack_programs(archive, directory / "bin" / "cni", None)
    archive.unlink()
    if not paths:
        raise LabError(f"{url} holds no plugins; is this address the one of the CNI plugins' releases?")
    return [layout.describe_file(directory, path) for path in paths]


def _unpack_programs(archive: Path, directory: Path, names: set[str] | None) -> list[Path]:
    """Executable files at the archive's top, under their own names; None takes all."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            stream = tar.extractfile(member) if member.isreg() else None
            if (
                stream is None
                or "/" in name
                or not member.mode & 0o100
                or (names is not None and name not in names)
            ):
                continue
            path = directory / name
            with path.open("wb") as output:
                shutil.copyfileobj(stream, output)
            path.chmod(0o755)
            paths.append(path)
    return sorted(paths)


def _image_references(kubeadm: Path, version: str, architecture: str) -> list[str]:
    """What this kubeadm wants; for another architecture, where it cannot run, what the table says."""
    if architecture != layout.machine_architecture():
        try:
            return kube_versions.images(version)
        except kube_versions.VersionError as error:
            raise LabError(f"{error} Or make the bundle on a machine with {architecture}.") from error
    command = [str(kubeadm), "config", "images", "list", "--kubernetes-version", f"v{version}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0 or not answer.stdout.split():
        raise LabError(f"The downloaded kubeadm does not run: {answer.stderr.strip()[-300:]}")
    return answer.stdout.split()


def _images(directory: Path, references: list[str], architecture: str, sources: Sources) -> list[Artifact]:
    (directory / "images").mkdir()
    artifacts = []
    with _podman_store(directory / ".store") as store:
        for reference in references:
            archive = directory / "images" / layout.image_filename(reference)
            _pull_and_save(store, reference, archive, architecture, sources)
            image = images.read(archive)[0]
            if image.architecture != architecture:
                raise LabError(
                    f"{reference} from {sources.image_registry} is for {image.architecture!r}, and"
                    f" {architecture} is wanted; is the registry a complete mirror?"
                )
            artifacts.append(layout.describe_image(directory, archive, reference, image.image_id))
    return artifacts


@dataclass(frozen=True)
class _Store:
    """A podman store of our own, so that the user's images stay as they are."""

    root: Path
    run: Path

    def podman(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            "podman",
            f"--root={self.root}",
            f"--runroot={self.run}",
            "--events-backend=none",
            *arguments,
        ]
        environment = {**os.environ, "LC_ALL": "C"}
        try:
            return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        except FileNotFoundError as error:
            raise LabError("podman is not installed; install the package podman.") from error


@contextmanager
def _podman_store(root: Path) -> Iterator[_Store]:
    # podman refuses a runroot of more than 50 characters.
    with tempfile.TemporaryDirectory(prefix="tortie-", ignore_cleanup_errors=True) as run:
        store = _Store(root, Path(run))
        try:
            yield store
        finally:
            # The layers are overlay mounts' directories; podman knows how to let go of them.
            store.podman("system", "reset", "--force")
            shutil.rmtree(root, ignore_errors=True)


def _pull_and_save(store: _Store, reference: str, archive: Path, architecture: str, sources: Sources) -> None:
    repository = reference.split("/", 1)[1]
    origin = f"{sources.image_registry}/{repository}"
    trust = ["--tls-verify=false"] if sources.plain_registry else []
    pulled = store.podman("pull", "--quiet", f"--arch={architecture}", *trust, origin)
    if pulled.returncode != 0:
        raise LabError(
            f"podman could not pull {origin} ({pulled.stderr.strip()[-300:]}); is the registry reachable?"
        )
    store.podman("tag", origin, reference)
    saved = store.podman("save", "--quiet", "--format=docker-archive", "--output", str(archive), reference)
    if saved.returncode != 0:
        raise LabError(f"podman could not save {reference}: {saved.stderr.strip()[-300:]}")
