"""Read container image archives: docker-archive and OCI layouts in a tar file.

A file of an image is what the last layer says about its path; a whiteout in a later layer removes it (OCI
image-spec, layer.md: `.wh.<name>` hides one entry, `.wh..wh..opq` all that lower layers put into the
directory).
"""

import gzip
import hashlib
import json
import posixpath
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lab import LabError

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"

# What a symbolic link chain may have at most (Linux: MAXSYMLINKS in linux/namei.h).
_MAX_LINKS = 40


@dataclass(frozen=True)
class Image:
    """One image of an archive."""

    references: tuple[str, ...]
    image_id: str  # "sha256:..." of the configuration
    architecture: str
    layers: tuple[str, ...]  # names of members of the archive, lowest first


def read(archive: Path) -> list[Image]:
    """The images of a docker-archive or OCI archive. Raises LabError when it is neither."""
    try:
        with tarfile.open(archive) as tar:
            names = set(tar.getnames())
            if "manifest.json" in names:
                return [_docker_image(tar, entry) for entry in _json(tar, "manifest.json")]
            if "index.json" in names:
                return list(_oci_images(tar, _json(tar, "index.json"), ()))
    except (tarfile.TarError, KeyError, ValueError, OSError) as error:
        raise LabError(f"{archive} cannot be read as an image archive: {error}; make it again.") from error
    raise LabError(f"{archive} is not an image archive: it has neither manifest.json nor index.json.")


def extract_file(archive: Path, inner_path: str, destination: Path) -> Path:
    """Write the file at `inner_path` of the archive's first image to `destination` with its mode; returns
    that.

    Symbolic links inside the image are followed within the image. Raises LabError when the image has no such
    file.
    """
    image = read(archive)[0]
    wanted = _normal(inner_path)
    with tarfile.open(archive) as tar:
        for _ in range(_MAX_LINKS):
            link = _copy_from_layers(tar, image, wanted, destination)
            if link is None:
                return destination
            wanted = link
    raise LabError(f"{inner_path} in {archive} is a chain of more than {_MAX_LINKS} symbolic links.")


def _copy_from_layers(tar: tarfile.TarFile, image: Image, wanted: str, destination: Path) -> str | None:
    """Copy the file, or return the path that it links to."""
    for layer_name in reversed(image.layers):
        with _open_layer(tar, layer_name) as layer:
            member, hidden, redirected = _look_up(layer, wanted)
            if redirected is not None:
                return redirected
            if member is not None:
                if member.issym():
                    return _normal(posixpath.join(posixpath.dirname(wanted), member.linkname))
                if member.islnk():
                    return _normal(member.linkname)
                _copy_member(layer, member, destination)
                return None
            if hidden:
                break
    raise LabError(f"The image {', '.join(image.references) or image.image_id} has no file {wanted!r}.")


def _look_up(layer: tarfile.TarFile, wanted: str) -> tuple[tarfile.TarInfo | None, bool, str | None]:
    """The layer's member for the path, whether it hides lower ones, and where a linked parent leads."""
    parents = [parent for parent in _parents(wanted) if parent]
    member: tarfile.TarInfo | None = None
    hidden = False
    redirected: str | None = None
    hiding = {
        posixpath.join(posixpath.dirname(path), _WHITEOUT + posixpath.basename(path))
        for path in (wanted, *parents)
    }
    hiding |= {posixpath.join(parent, _OPAQUE) for parent in ("", *parents)}
    for candidate in layer:
        name = _normal(candidate.name)
        if name == wanted and (candidate.isreg() or candidate.issym() or candidate.islnk()):
            member = candidate
        elif name in hiding:
            hidden = True
        elif name in parents and candidate.issym():
            target = _normal(posixpath.join(posixpath.dirname(name), candidate.linkname))
            redirected = _normal(posixpath.join(target, posixpath.relpath(wanted, name)))
    return member, hidden, None if member is not None else redirected


def _parents(path: str) -> list[str]:
    parents = []
    while path := posixpath.dirname(path):
        parents.append(path)
    return parents


def _normal(path: str) -> str:
    """Relative to the image's root, without dots; a link above the root stays at the root, as in a chroot."""
    return posixpath.normpath("/" + path).lstrip("/")


def _copy_member(layer: tarfile.TarFile, member: tarfile.TarInfo, destination: Path) -> None:
    source = layer.extractfile(member)
    if source is None:
        raise LabError(f"{member.name} is not a regular file of the image.")
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.partial")
    with partial.open("wb") as stream:
        shutil.copyfileobj(source, stream)
    partial.chmod(member.mode & 0o777)
    partial.rename(destination)


@contextmanager
def _open_layer(tar: tarfile.TarFile, name: str) -> Iterator[tarfile.TarFile]:
    stream = _member(tar, name)
    magic = stream.read(4)
    stream.seek(0)
    if magic[:2] == b"\x1f\x8b":
        # A layer is read twice (directory, then file); tarfile on a gzip stream would unpack it for each
        # seek.
        with tempfile.TemporaryFile() as unpacked, gzip.open(stream) as packed:
            shutil.copyfileobj(packed, unpacked)
            unpacked.seek(0)
            with tarfile.open(fileobj=unpacked) as layer:
                yield layer
        return
    if magic == b"\x28\xb5\x2f\xfd":
        raise LabError(
            f"Layer {name} is compressed with zstd; save the image again with gzip or uncompressed layers."
        )
    with tarfile.open(fileobj=stream) as layer:
        yield layer


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    # Docker writes a layer that two images share once, and links to it.
    stream = tar.extractfile(name)
    if stream is None:
        raise ValueError(f"{name} is not a file")
    return stream


def _json(tar: tarfile.TarFile, name: str) -> Any:
    return json.loads(_member(tar, name).read())


def _docker_image(tar: tarfile.TarFile, entry: dict[str, Any]) -> Image:
    config = _member(tar, entry["Config"]).read()
    return Image(
        references=tuple(entry.get("RepoTags") or ()),
        image_id=f"sha256:{hashlib.sha256(config).hexdigest()}",
        architecture=str(json.loads(config).get("architecture", "")),
        layers=tuple(entry["Layers"]),
    )


def _blob(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def _oci_images(tar: tarfile.TarFile, index: dict[str, Any], inherited: tuple[str, ...]) -> Iterator[Image]:
    for descriptor in index["manifests"]:
        annotations = descriptor.get("annotations") or {}
        name = annotations.get("io.containerd.image.name") or annotations.get(
            "org.opencontainers.image.ref.name"
        )
        references = (name,) if name else inherited
        document = _json(tar, _blob(descriptor["digest"]))
        if "manifests" in document:
            yield from _oci_images(tar, document, references)
            continue
        config = _json(tar, _blob(document["config"]["digest"]))
        yield Image(
            references=references,
            image_id=document["config"]["digest"],
            architecture=str(config.get("architecture", "")),
            layers=tuple(_blob(layer["digest"]) for layer in document["layers"]),
        )
