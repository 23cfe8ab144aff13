"""The bundle directory as the providers write it. Its format is docs/bundle.md's."""

import json
import subprocess
from pathlib import Path

from plugins.module_utils.bundle import (
    BINARY,
    CNI_PLUGIN,
    IMAGE,
    MANIFEST,
    Artifact,
    BundleError,
    Manifest,
    architecture_of,
    load,
    sha256_of,
)

from lab import LabError, cache


def machine_architecture() -> str:
    """The machine's architecture, as Go and Debian name it."""
    answer = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True)
    return architecture_of(answer.stdout.strip())


def cached(version: str, architecture: str) -> Path:
    """Where the cache keeps the bundle of a version, whether it exists or not."""
    return cache.root() / "bundles" / f"kubernetes-v{version}-{architecture}"


def made_by(directory: Path, provider: str, recipe: str) -> bool:
    """Whether `directory` is a bundle that this provider made from the same recipe."""
    try:
        manifest = load(directory)
    except BundleError:
        return False
    return manifest.provider == provider and manifest.recipe == recipe


def image_filename(reference: str) -> str:
    """`k8s.gcr.io/pause:3.2` is kept in images/pause_3.2.tar."""
    name, _, tag = reference.rsplit("/", 1)[-1].partition(":")
    if not tag:
        raise LabError(f"image reference {reference!r} has no tag; write it as registry/name:tag.")
    return f"{name}_{tag}.tar"


def describe_file(directory: Path, path: Path) -> Artifact:
    """The manifest's entry for a program under bin/ or a plugin under bin/cni/."""
    kind = CNI_PLUGIN if path.parent.name == "cni" else BINARY
    return Artifact(str(path.relative_to(directory)), kind, path.name, path.stat().st_size, sha256_of(path))


def describe_image(directory: Path, path: Path, reference: str, image_id: str) -> Artifact:
    """The manifest's entry for an image archive under images/."""
    name = reference.rsplit("/", 1)[-1].partition(":")[0]
    relative = str(path.relative_to(directory))
    return Artifact(relative, IMAGE, name, path.stat().st_size, sha256_of(path), reference, image_id)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write manifest.json: the last step, after which the directory is a bundle."""
    text = json.dumps(manifest.as_dict(), indent=2)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")
