"""Small but complete bundles and image archives for the tests."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any


def write_bundle(directory: Path, version: str = "1.20.2", architecture: str = "amd64") -> dict[str, Any]:
    """A bundle with a program, a plugin and an image; returns the manifest as written."""
    files = {
        "bin/kubeadm": ("binary", b"#!kubeadm"),
        "bin/kubelet": ("binary", b"#!kubelet"),
        "bin/cni/loopback": ("cni-plugin", b"#!loopback"),
        "images/pause_3.2.tar": ("image", b"pause archive"),
    }
    artifacts = []
    for path, (kind, content) in files.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        entry = {
            "path": path,
            "kind": kind,
            "name": Path(path).name if kind != "image" else "pause",
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        if kind == "image":
            entry |= {"image": "k8s.gcr.io/pause:3.2", "image_id": f"sha256:{'a' * 64}"}
        artifacts.append(entry)
    manifest = {
        "schema": 1,
        "name": "kubernetes",
        "version": version,
        "architecture": architecture,
        "provider": "test",
        "artifacts": artifacts,
    }
    write_manifest(directory, manifest)
    return manifest


def write_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    (directory / "manifest.json").write_text(json.dumps(manifest))


def layer_of(*members: tuple[str, bytes | None] | tuple[str, None, str]) -> bytes:
    """A tar layer: (path, content) is a file, (path, None) a directory, (path, None, target) a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content, *target in members:
            info = tarfile.TarInfo(name)
            if target:
                info.type, info.linkname = tarfile.SYMTYPE, str(target[0])
            elif content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content or b""))
    return buffer.getvalue()


def write_docker_archive(archive: Path, reference: str, layers: list[bytes]) -> None:
    config = json.dumps({"architecture": "amd64", "os": "linux"}).encode()
    names = [f"layer{number}.tar" for number in range(len(layers))]
    index = [{"Config": "config.json", "RepoTags": [reference], "Layers": names}]
    files = {
        "config.json": config,
        **dict(zip(names, layers, strict=True)),
        "manifest.json": json.dumps(index).encode(),
    }
    _write_tar(archive, files)


def write_oci_archive(archive: Path, reference: str, layers: list[bytes]) -> None:
    blobs = {}

    def blob(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"digest": f"sha256:{digest}", "size": len(content)}

    config = blob(json.dumps({"architecture": "amd64", "os": "linux"}).encode())
    manifest = blob(json.dumps({"config": config, "layers": [blob(layer) for layer in layers]}).encode())
    manifest["annotations"] = {"org.opencontainers.image.ref.name": reference}
    files = {**blobs, "index.json": json.dumps({"manifests": [manifest]}).encode()}
    _write_tar(archive, files)


def _write_tar(archive: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(archive, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
