"""Downloads keep only what has the right checksum."""

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from lab import LabError
from lab.bundle import download

CONTENT = b"a program" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[bytes, int]]] = {
        "/program": (CONTENT, len(CONTENT)),
        "/program.sha256": (DIGEST.encode(), 64),
        "/named.sha256": (f"{DIGEST}  program\n".encode(), 74),
        "/page.sha256": (b"<html>not found</html>", 22),
        "/cut": (CONTENT[:100], len(CONTENT)),
    }

    def do_GET(self) -> None:
        if self.path not in self.answers:
            self.send_error(404)
            return
        body, announced = self.answers[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The tests' output is not the place for an access log."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_right_checksum_gives_the_file(site: str, tmp_path: Path) -> None:
    path = download.fetch(f"{site}/program", tmp_path / "bin/program", DIGEST)
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["program"]


def test_wrong_checksum_leaves_nothing(site: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=f"has SHA-256 {DIGEST}, and {'0' * 64} was expected"):
        download.fetch(f"{site}/program", tmp_path / "program", "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_cut_download_leaves_nothing(site: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=f"ended after 100 of {len(CONTENT)} bytes"):
        download.fetch(f"{site}/cut", tmp_path / "program", DIGEST)
    assert list(tmp_path.iterdir()) == []


def test_missing_file_asks_about_the_version(site: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="does not exist; is the version right"):
        download.fetch(f"{site}/nothing", tmp_path / "program", DIGEST)


@pytest.mark.parametrize("name", ["program.sha256", "named.sha256"])
def test_published_checksum_is_found(site: str, name: str) -> None:
    assert download.published_checksum(f"{site}/{name}") == DIGEST


def test_page_instead_of_a_checksum_is_refused(site: str) -> None:
    with pytest.raises(LabError, match="holds no SHA-256"):
        download.published_checksum(f"{site}/page.sha256")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/etc/passwd"])
def test_other_schemes_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="must begin with https://"):
        download.fetch(url, tmp_path / "x", DIGEST)


def test_site_answers_only_with_the_file(site: str) -> None:
    assert download.answers(f"{site}/program", 5)
    assert not download.answers(f"{site}/nothing", 5)
    assert not download.answers("http://127.0.0.1:1/program", 5)
