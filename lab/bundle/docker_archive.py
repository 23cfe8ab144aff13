"""Write a container image as a docker-archive from a directory: one layer, one configuration, one name.

No registry and no container tool is involved. The bytes depend on nothing but the files, so the image ID does
too.
"""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Seconds since the epoch for every file and the image: 2021-01-13, the day of Kubernetes v1.20.2. Fixed, so
# that the same files give the same image.
_CREATED = 1610540400
_CREATED_TEXT = "2021-01-13T12:20:00Z"


@dataclass(frozen=True)
class ImageConfig:
    """What a container of the image runs with (OCI image-spec, config.md)."""

    architecture: str
    path: str  # PATH
    entrypoint: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)

    def document(self, layer_digest: str) -> dict[str, Any]:
        config: dict[str, Any] = {"Env": [f"PATH={self.path}"], "WorkingDir": "/"}
        if self.entrypoint:
            config["Entrypoint"] = list(self.entrypoint)
        if self.labels:
            config["Labels"] = self.labels
        return {
            "architecture": self.architecture,
            "os": "linux",
            "created": _CREATED_TEXT,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created": _CREATED_TEXT, "created_by": "lab.bundle"}],
        }


def write(archive: Path, reference: str, root: Path, config: ImageConfig) -> str:
    """Write the files under `root` as image `reference` (with tag); returns the ID, `sha256:...`."""
    layer = archive.with_name(f".{archive.name}.layer")
    try:
        with tarfile.open(layer, "w", format=tarfile.GNU_FORMAT) as tar:
            _add_tree(tar, root)
        with layer.open("rb") as stream:
            layer_digest = hashlib.file_digest(stream, "sha256").hexdigest()
        config_bytes = json.dumps(config.document(layer_digest), sort_keys=True).encode()
        config_digest = hashlib.sha256(config_bytes).hexdigest()
        index = [
            {
                "Config": f"{config_digest}.json",
                "RepoTags": [reference],
                "Layers": [f"{layer_digest}/layer.tar"],
            }
        ]
        with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
            _add_bytes(tar, f"{config_digest}.json", config_bytes)
            member = _plain(f"{layer_digest}/layer.tar")
            member.size = layer.stat().st_size
            with layer.open("rb") as stream:
                tar.addfile(member, stream)
            _add_bytes(tar, "manifest.json", json.dumps(index).encode())
    finally:
        layer.unlink(missing_ok=True)
    return f"sha256:{config_digest}"


def _plain(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode = 0o644
    member.mtime = _CREATED
    return member


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = _plain(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _add_tree(tar: tarfile.TarFile, root: Path) -> None:
    """Every directory, file and link under `root`, sorted, owned by root."""
    for path in sorted(root.rglob("*")):
        member = _plain(str(path.relative_to(root)))
        status = path.lstat()
        member.mode = status.st_mode & 0o7777
        if path.is_symlink():
            member.type = tarfile.SYMTYPE
            member.linkname = str(path.readlink())
            tar.addfile(member)
        elif path.is_dir():
            member.type = tarfile.DIRTYPE
            tar.addfile(member)
        elif path.is_file():
            member.size = status.st_size
            with path.open("rb") as stream:
                tar.addfile(member, stream)
        else:
            raise ValueError(f"{path} is neither file, directory nor link, and does not belong into an image")
