"""What image a `podman save` archive holds, without unpacking it."""

from __future__ import annotations

import json
import re
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# The configuration's digest is the image's id. Docker's archives name the file <digest>.json, newer ones
# blobs/sha256/<digest> (OCI image layout).
_CONFIG = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?")
_IMAGE_ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


class ArchiveError(ValueError):
    """The archive is missing, or not what it should be."""


@dataclass(frozen=True)
class ImageArchive:
    """`name` with its tag; `image_id` is sha256: and 64 digits; `file` is the archive's absolute path."""

    name: str
    image_id: str
    file: str

    def as_dict(self) -> dict[str, str]:
        """For Ansible."""
        return asdict(self)


def describe(path: Path, variable: str = "tortie_image_archive") -> ImageArchive:
    """From `<archive>.json` beside the archive or else the archive's own manifest. Raise ArchiveError."""
    if not path.is_file():
        raise ArchiveError(
            f"{variable} is {str(path)!r}, which is no file on the controller; build the image, or leave the "
            "variable empty to let the nodes pull tortie_image."
        )
    sidecar = path.with_name(path.name + ".json")
    try:
        if sidecar.is_file():
            return _from_sidecar(json.loads(sidecar.read_text(encoding="utf-8")), path)
        return _from_manifest(path)
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, IndexError) as error:
        source = sidecar if sidecar.is_file() else path
        raise ArchiveError(
            f"{source} ({variable}) does not describe one image: {error}. Make it with `podman save`."
        ) from error


def _from_sidecar(content: Any, path: Path) -> ImageArchive:
    match = _IMAGE_ID.fullmatch(str(content["image_id"]))
    if not match or not isinstance(content["name"], str) or not content["name"]:
        raise ValueError("it needs a name and an image_id of 64 hexadecimal digits")
    return ImageArchive(content["name"], f"sha256:{match[1]}", str(path.absolute()))


def _from_manifest(path: Path) -> ImageArchive:
    with tarfile.open(path) as archive:
        member = archive.extractfile("manifest.json")
        if member is None:
            raise ValueError("manifest.json is no file")
        images = json.loads(member.read())
    if len(images) != 1 or not images[0].get("RepoTags"):
        raise ValueError(f"manifest.json lists {len(images)} images; one image with a tag is needed")
    match = _CONFIG.fullmatch(images[0]["Config"])
    if not match:
        raise ValueError(f"the configuration {images[0]['Config']!r} is not named by its digest")
    return ImageArchive(images[0]["RepoTags"][0], f"sha256:{match[1]}", str(path.absolute()))
