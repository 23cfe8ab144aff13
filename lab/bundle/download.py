"""Download files over HTTP(S), and keep only what has the right checksum."""

import hashlib
import re
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from lab import LabError

# Seconds without a byte after which a server counts as gone.
_STALL_SECONDS = 30
_READ_BYTES = 1 << 20
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
# Bytes; a checksum file holds a digest and perhaps a file name.
_CHECKSUM_FILE_LIMIT = 4096


def answers(url: str, seconds: float) -> bool:
    """Whether the server at `url` gives an answer of status 200 within the time."""
    try:
        with _open(url, seconds):
            return True
    except (LabError, OSError, HTTPException):
        return False


def published_checksum(url: str) -> str:
    """The SHA-256 in the file at `url`, which may hold a file name too. Raises LabError."""
    try:
        with _open(url, _STALL_SECONDS) as response:
            text = response.read(_CHECKSUM_FILE_LIMIT).decode("ascii", errors="replace")
    except (OSError, HTTPException) as error:
        raise _unreachable(url, error) from error
    match = _SHA256.search(text)
    if match is None:
        raise LabError(f"{url} holds no SHA-256 but {text[:80]!r}; is this address the download site's?")
    return match.group()


def fetch(url: str, destination: Path, sha256: str) -> Path:
    """Download `url` to `destination`, which appears only when its checksum is `sha256`. Raises LabError."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.partial")
    try:
        digest = _download(url, partial)
        if digest != sha256:
            raise LabError(
                f"{url} has SHA-256 {digest}, and {sha256} was expected; the download was discarded. Try"
                " again; if it stays, the site or a proxy on the way has changed the file."
            )
        partial.rename(destination)
    finally:
        partial.unlink(missing_ok=True)
    return destination


def _download(url: str, partial: Path) -> str:
    digest = hashlib.sha256()
    try:
        with _open(url, _STALL_SECONDS) as response, partial.open("wb") as stream:
            announced = response.headers.get("Content-Length")
            while chunk := response.read(_READ_BYTES):
                digest.update(chunk)
                stream.write(chunk)
            if announced is not None and stream.tell() != int(announced):
                raise LabError(f"{url} ended after {stream.tell()} of {announced} bytes; try again.")
    except (OSError, HTTPException) as error:
        raise _unreachable(url, error) from error
    return digest.hexdigest()


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS through the environment's proxies, with redirects; no other scheme (file:, ftp:)."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _open(url: str, seconds: float) -> HTTPResponse:
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme not in ("http", "https"):
        raise LabError(f"{url} is not an address to download from; it must begin with https:// (or http://).")
    response = _opener().open(url, timeout=seconds)
    if not isinstance(response, HTTPResponse):
        raise LabError(f"{url} did not lead to an HTTP server.")
    if scheme == "https" and urllib.parse.urlsplit(response.url).scheme != "https":
        raise LabError(
            f"{url} redirects to {response.url}, which is not encrypted; use an address that stays on https."
        )
    return response


def _unreachable(url: str, error: Exception) -> LabError:
    if isinstance(error, urllib.error.HTTPError) and error.code == 404:
        return LabError(
            f"{url} does not exist; is the version right, and is it published for this architecture?"
        )
    return LabError(
        f"{url} could not be downloaded ({error}); is the internet reachable, and https_proxy set if needed?"
    )
