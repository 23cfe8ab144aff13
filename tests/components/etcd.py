"""A real etcd on loopback: plain, or with TLS client certificates."""

import contextlib
import json
import ssl
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import debs

from tests.components.certificates import Authority, KeyPair
from tests.components.processes import daemon, free_ports, wait_until

_POLL_SECONDS = 0.1
_READY_TRIES = 600  # a minute on an overloaded machine
_STARTS = 3  # a port may be taken between choosing and using it


@dataclass(frozen=True, slots=True)
class Etcd:
    """How to reach it. `client` is a certificate that it accepts, None when it runs without TLS."""

    url: str
    port: int
    ca: Path | None
    client: KeyPair | None

    def request(self, path: str, body: Any, token: str = "") -> Any:
        """Call the JSON gateway; the answer's JSON. Raise urllib.error.HTTPError."""
        request = urllib.request.Request(f"{self.url}/v3/{path}", json.dumps(body).encode(), method="POST")
        if token:
            request.add_header("Authorization", token)
        context = None
        if self.ca is not None and self.client is not None:
            context = ssl.create_default_context(cafile=self.ca)
            context.load_cert_chain(self.client.certificate, self.client.key)
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return json.loads(answer.read())

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            self.request("maintenance/status", {})
        except OSError:
            return False
        return True

    def reset(self) -> None:
        """Delete every key."""
        everything = {"key": "AA==", "range_end": "AA=="}  # from the zero byte on
        self.request("kv/deleterange", everything)

    def compact(self) -> None:
        """Forget every earlier revision."""
        revision = self.request("maintenance/status", {})["header"]["revision"]
        self.request("kv/compaction", {"revision": revision, "physical": True})


@contextlib.contextmanager
def running(directory: Path, authority: Authority | None = None) -> Iterator[Etcd]:
    """Start it with its files in `directory`; with an authority, only for clients that it certified."""
    for attempt in range(1, _STARTS + 1):
        with contextlib.ExitStack() as stack:
            place = directory / str(attempt)
            place.mkdir()
            try:
                server = _start(stack, place, authority)
            except RuntimeError:
                if attempt == _STARTS:
                    raise
                continue
            yield server
            return


def _start(stack: contextlib.ExitStack, directory: Path, authority: Authority | None) -> Etcd:
    port, peer_port = free_ports(2)
    scheme = "http" if authority is None else "https"
    url, peer_url = f"{scheme}://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    command: list[str | Path] = [
        debs.extract("etcd-server") / "usr/bin/etcd",
        f"--data-dir={directory / 'data'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
    ]
    client = None
    if authority is not None:
        serving = authority.issue("etcd-server", ["127.0.0.1", "localhost"])
        client = authority.issue("etcd-client")
        command += [
            f"--cert-file={serving.certificate}",
            f"--key-file={serving.key}",
            f"--trusted-ca-file={authority.certificate}",
            "--client-cert-auth",
        ]
    log = directory / "etcd.log"
    process = stack.enter_context(daemon(command, log))
    server = Etcd(url, port, authority.certificate if authority else None, client)
    wait_until(server.is_ready, process, log, lambda: time.sleep(_POLL_SECONDS), _READY_TRIES)
    return server
