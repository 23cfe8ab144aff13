"""The Kubernetes bundle: a directory with programs, images and a manifest that says what each file must be.

Pure: reads files, changes nothing. Runs on the controller and on the nodes (Python 3.9, standard library
only). The format is described in docs/bundle.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
SCHEMA = 1

BINARY = "binary"
CNI_PLUGIN = "cni-plugin"
IMAGE = "image"
KINDS = (BINARY, CNI_PLUGIN, IMAGE)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION = re.compile(r"v?(\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?)")
_READ_BYTES = 1 << 20

# uname -m (also ansible_architecture) to the name that Go, Kubernetes and Debian use.
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


class BundleError(Exception):
    """The directory is not a usable bundle; the message is a sentence for the user."""


@dataclass(frozen=True)
class Artifact:
    """One file of the bundle."""

    path: str  # relative to the bundle, with slashes
    kind: str  # one of KINDS
    name: str  # program name, or for an image the last part of its name, without tag
    size: int  # bytes
    sha256: str  # 64 lower case hexadecimal digits, of the file
    image: str | None = None  # full reference with tag, images only
    image_id: str | None = None  # "sha256:..." of the image's configuration, images only


@dataclass(frozen=True)
class Manifest:
    """Contents of manifest.json."""

    name: str
    version: str  # without a leading v
    architecture: str  # Go's name: amd64, arm64
    provider: str
    artifacts: tuple[Artifact, ...]
    schema: int = SCHEMA
    source: str = ""  # where the provider got it from, for people
    recipe: str = ""  # digest of the provider's inputs, so that a changed recipe builds anew

    def images(self) -> list[str]:
        """Full references of the images, in the manifest's order."""
        return [artifact.image for artifact in self.artifacts if artifact.image is not None]

    def of_kind(self, kind: str) -> list[Artifact]:
        """The artifacts of one kind, in the manifest's order."""
        return [artifact for artifact in self.artifacts if artifact.kind == kind]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; absent fields are left out."""
        document = {"schema": self.schema, **asdict(self)}
        document["artifacts"] = [
            {key: value for key, value in asdict(artifact).items() if value is not None}
            for artifact in self.artifacts
        ]
        return document


def architecture_of(machine: str) -> str:
    """Go's architecture name for what `uname -m` prints; a name that is Go's already stays."""
    return _ARCHITECTURES.get(machine, machine)


def bare_version(version: str) -> str:
    """`v1.20.2` and `1.20.2` are the same version: without the v. Raises BundleError."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise BundleError(f"{version!r} is not a Kubernetes version; write it as 1.20.2.")
    return match.group(1)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def load(directory: str | os.PathLike[str]) -> Manifest:
    """Read and validate `directory`/manifest.json, not the artifacts. Raises BundleError."""
    path = Path(directory) / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BundleError(
            f"{directory} is not a bundle: it has no {MANIFEST}. Make one with 'make bundle', or give the"
            " directory that holds the manifest."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}.") from error
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}); make the bundle again.") from error
    return parse(document, str(path))


def parse(document: Any, where: str) -> Manifest:
    """Validate a manifest as read from JSON. Raises BundleError; `where` names its origin in messages."""
    if not isinstance(document, dict):
        raise BundleError(f"{where} must be a JSON object, not {type(document).__name__}.")
    schema = document.get("schema")
    if schema != SCHEMA:
        raise BundleError(
            f"{where} has schema {schema!r}, and this release reads schema {SCHEMA}; make the bundle again"
            " with the release that installs it."
        )
    fields = {key: _text(document, key, where) for key in ("name", "version", "architecture", "provider")}
    if fields["name"] != "kubernetes":
        raise BundleError(f"{where} is a bundle of {fields['name']!r}, not of kubernetes.")
    artifacts = parse_artifacts(document.get("artifacts"), where)
    return Manifest(
        name=fields["name"],
        version=bare_version(fields["version"]),
        architecture=fields["architecture"],
        provider=fields["provider"],
        artifacts=tuple(artifacts),
        source=str(document.get("source", "")),
        recipe=str(document.get("recipe", "")),
    )


def parse_artifacts(entries: Any, where: str) -> list[Artifact]:
    """Validate a manifest's list of artifacts. Raises BundleError; `where` names its origin in messages."""
    if not isinstance(entries, list) or not entries:
        raise BundleError(f"{where} lists no artifacts; make the bundle again.")
    artifacts = [_artifact(entry, f"{where}, artifact {number}") for number, entry in enumerate(entries, 1)]
    seen: set[str] = set()
    for artifact in artifacts:
        if artifact.path in seen:
            raise BundleError(f"{where} lists {artifact.path} twice.")
        seen.add(artifact.path)
    return artifacts


def _text(document: Mapping[str, Any], key: str, where: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise BundleError(f"{where}: {key} must be a text that is not empty, and is {value!r}.")
    return value


def _artifact(entry: Any, where: str) -> Artifact:
    if not isinstance(entry, dict):
        raise BundleError(f"{where} must be an object, not {type(entry).__name__}.")
    path = _text(entry, "path", where)
    _refuse_escape(path, where)
    kind = _text(entry, "kind", where)
    if kind not in KINDS:
        raise BundleError(
            f"{where} ({path}): kind {kind!r} is unknown; it must be one of {', '.join(KINDS)}."
        )
    name = _text(entry, "name", where)
    if "/" in name or name in (".", ".."):
        raise BundleError(f"{where} ({path}): name {name!r} must be a plain file name.")
    size = entry.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BundleError(f"{where} ({path}): size must be a number of bytes, and is {size!r}.")
    sha256 = _text(entry, "sha256", where)
    if not _SHA256.fullmatch(sha256):
        raise BundleError(
            f"{where} ({path}): sha256 must be 64 lower case hexadecimal digits, and is {sha256!r}."
        )
    image = entry.get("image")
    image_id = entry.get("image_id")
    if (kind == IMAGE) != isinstance(image, str):
        raise BundleError(
            f"{where} ({path}): image must be a reference for kind image, and absent for others."
        )
    if image_id is not None and not (isinstance(image_id, str) and _IMAGE_ID.fullmatch(image_id)):
        raise BundleError(f"{where} ({path}): image_id must be sha256: and 64 digits, and is {image_id!r}.")
    return Artifact(path, kind, name, size, sha256, image, image_id)


def _refuse_escape(path: str, where: str) -> None:
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise BundleError(f"{where}: path {path!r} must be relative and stay inside the bundle.")


def locate(directory: str | os.PathLike[str], artifact: Artifact) -> Path:
    """Where the artifact's file is. Raises BundleError when a symbolic link leads out of the bundle."""
    root = Path(directory).resolve()
    path = (root / artifact.path).resolve()
    if root not in path.parents:
        raise BundleError(
            f"{artifact.path} leads out of the bundle {directory} to {path}; make the bundle again."
        )
    return path


def problems_of(directory: str | os.PathLike[str], artifact: Artifact) -> list[str]:
    """What is wrong with one artifact's file: nothing, or one sentence."""
    try:
        path = locate(directory, artifact)
        if not path.is_file():
            return [f"{artifact.path} is missing from the bundle {directory}."]
        size = path.stat().st_size
        if size != artifact.size:
            return [f"{artifact.path} has {size} bytes, and the manifest says {artifact.size}."]
        digest = sha256_of(path)
    except BundleError as error:
        return [str(error)]
    except OSError as error:
        return [f"{artifact.path} cannot be read: {error}."]
    if digest != artifact.sha256:
        return [f"{artifact.path} has SHA-256 {digest}, and the manifest says {artifact.sha256}."]
    return []


def mismatches(manifest: Manifest, architecture: str | None = None, version: str | None = None) -> list[str]:
    """What of the manifest is not what the caller wants; None wants nothing in particular."""
    found = []
    if architecture is not None and architecture_of(architecture) != manifest.architecture:
        found.append(
            f"The bundle is for {manifest.architecture}, and {architecture_of(architecture)} is wanted; make"
            " a bundle for that architecture."
        )
    if version is not None and bare_version(version) != manifest.version:
        found.append(
            f"The bundle holds Kubernetes {manifest.version}, and kubernetes_version is"
            f" {bare_version(version)}; set kubernetes_version to {manifest.version} or make a bundle of"
            f" {bare_version(version)}."
        )
    return found


def verify(
    directory: str | os.PathLike[str],
    architecture: str | None = None,
    version: str | None = None,
    artifacts: Iterable[Artifact] | None = None,
) -> list[str]:
    """Every problem of the bundle as a sentence; an empty list means that it may be installed.

    Hashes each file. `artifacts` restricts the check to some of them. A manifest that cannot be used is one
    problem.
    """
    try:
        manifest = load(directory)
        found = mismatches(manifest, architecture, version)
    except BundleError as error:
        return [str(error)]
    for artifact in manifest.artifacts if artifacts is None else artifacts:
        found.extend(problems_of(directory, artifact))
    return found
