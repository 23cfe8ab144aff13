"""Put the bundle's programs in place on a node."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.tortie.cluster.plugins.module_utils.bundle import (
    BINARY,
    CNI_PLUGIN,
    Artifact,
    BundleError,
    locate,
    sha256_of,
)

PROGRAM_MODE = 0o755
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Destinations:
    """Where programs go."""

    bin_dir: str
    cni_dir: str
    kubelet_path: str

    def of(self, artifact: Artifact) -> Path:
        """The file that the artifact becomes."""
        if artifact.kind == CNI_PLUGIN:
            return Path(self.cni_dir) / artifact.name
        if artifact.kind == BINARY and artifact.name == "kubelet":
            return Path(self.kubelet_path)
        return Path(self.bin_dir) / artifact.name


def select(artifacts: Iterable[Artifact], kinds: Sequence[str], names: Sequence[str]) -> list[Artifact]:
    """Artifacts of the kinds; of programs only those named, unless no name is given. Raises BundleError."""
    chosen = [artifact for artifact in artifacts if artifact.kind in kinds]
    if not names:
        return chosen
    programs = {artifact.name for artifact in chosen if artifact.kind == BINARY}
    unknown = sorted(set(names) - programs)
    if unknown:
        raise BundleError(
            f"names has {', '.join(unknown)}, and the bundle's programs are"
            f" {', '.join(sorted(programs)) or 'none'}."
        )
    return [artifact for artifact in chosen if artifact.kind != BINARY or artifact.name in names]


def state_of(path: Path, artifact: Artifact) -> str:
    """What is at `path`: `absent`, `sha256:<digest> 0755`, or a size that is not the artifact's."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return "absent"
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path} is in the way of {artifact.name}: it is not a file. Remove it.")
    if status.st_size != artifact.size:
        return f"{status.st_size} bytes"
    return describe(sha256_of(path), status.st_mode)


def wanted_state(artifact: Artifact) -> str:
    """What `state_of` says about an installed artifact."""
    return describe(artifact.sha256, PROGRAM_MODE)


def describe(sha256: str, mode: int) -> str:
    """Content and permissions in one line."""
    return f"sha256:{sha256} {stat.S_IMODE(mode):04o}"


def install(bundle_dir: str, artifact: Artifact, destination: Path) -> None:
    """Copy the artifact to `destination`, which is replaced in one step and only by the right content.

    The digest is of the bytes that were written. A program that runs keeps its old file. Raises BundleError,
    OSError.
    """
    source = locate(bundle_dir, artifact)
    if not source.is_file():
        raise BundleError(
            f"{artifact.path} is missing from {bundle_dir} on this node; copy the artifacts that state query"
            " lists."
        )
    destination.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(prefix=f".{destination.name}.", dir=str(destination.parent))
    try:
        digest = hashlib.sha256()
        with os.fdopen(descriptor, "wb") as output, source.open("rb") as stream:
            while chunk := stream.read(_COPY_BYTES):
                digest.update(chunk)
                output.write(chunk)
            output.flush()
            os.fchmod(output.fileno(), PROGRAM_MODE)
            os.fsync(output.fileno())
        if digest.hexdigest() != artifact.sha256:
            raise BundleError(
                f"{artifact.path} in {bundle_dir} has SHA-256 {digest.hexdigest()}, and the manifest says"
                f" {artifact.sha256}; nothing was installed from it. Copy it again."
            )
        Path(partial).replace(destination)
    finally:
        Path(partial).unlink(missing_ok=True)
