"""The sites that an official bundle comes from, on loopback: a download site and an image registry."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Site:
    """What the server has: path -> (content type, content)."""

    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    address: str = ""  # host:port
    requests: list[str] = field(default_factory=list)

    def add(self, path: str, content: bytes) -> None:
        """A file with its published checksum beside it."""
        self.files[path] = ("application/octet-stream", content)
        self.files[f"{path}.sha256"] = ("text/plain", hashlib.sha256(content).hexdigest().encode())

    def add_image(self, repository: str, tag: str, archive: Path) -> None:
        """Publish a docker-archive with uncompressed layers (distribution-spec, "Pulling")."""
        with tarfile.open(archive) as tar:
            [entry] = json.loads(_read(tar, "manifest.json"))
            config = self._blob(repository, _read(tar, entry["Config"]), "image.config.v1+json")
            layers = [
                self._blob(repository, _read(tar, name), "image.layer.v1.tar") for name in entry["Layers"]
            ]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers}
        content = json.dumps(manifest).encode()
        for reference in (tag, f"sha256:{hashlib.sha256(content).hexdigest()}"):
            self.files[f"/v2/{repository}/manifests/{reference}"] = (MANIFEST_TYPE, content)

    def _blob(self, repository: str, content: bytes, kind: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.files[f"/v2/{repository}/blobs/{digest}"] = ("application/octet-stream", content)
        return {"mediaType": f"application/vnd.oci.{kind}", "digest": digest, "size": len(content)}


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    stream = tar.extractfile(name)
    assert stream is not None
    return stream.read()


def archive_of(programs: dict[str, bytes]) -> bytes:
    """A .tar.gz with programs at its top, as cri-tools and the CNI plugins are published."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in programs.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@contextmanager
def serving() -> Iterator[Site]:
    """Serve a Site on a free loopback port."""
    site = Site(files={"/v2/": ("application/json", b"{}")})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, with_body: bool) -> None:
            site.requests.append(self.path)
            if self.path not in site.files:
                self.send_error(404)
                return
            kind, content = site.files[self.path]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """`Site.requests` is the access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.address = f"127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield site
        server.shutdown()
        thread.join()
