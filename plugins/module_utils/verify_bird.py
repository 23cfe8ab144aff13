"""BIRD 2 over its control socket: the sessions and the routes each one imported.

The protocol is line based: `NNNN-text` is a line of an answer, `NNNN text` its last line, a line that starts
with a blank continues the answer under the last code. Codes 8xxx and 9xxx are errors (bird: doc/reply_codes).
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Network

from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import Session

SOCKET = "/var/run/calico/bird.ctl"
ANSWER_LIMIT = 64 * 1024 * 1024  # bytes; a full table of 100,000 routes is some 10 MB

_CODE = re.compile(r"^(\d{4})([- ])(.*)$", re.DOTALL)


class BirdError(Exception):
    """BIRD does not answer, or refuses a command. The text is a sentence."""


class BirdClient:
    """One connection to BIRD's control socket; a context manager."""

    def __init__(self, path: str = SOCKET, seconds: float = 5.0) -> None:
        self._path = path
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(seconds)
        try:
            self._socket.connect(path)
            self._answer()  # the greeting
        except OSError as error:
            self._socket.close()
            raise BirdError(f"BIRD does not answer on {path}: {error.strerror or error}") from error

    def __enter__(self) -> BirdClient:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def ask(self, command: str) -> list[str]:
        """The lines of the answer to `command`, without codes. Raise BirdError when BIRD refuses it."""
        try:
            self._socket.sendall(command.encode() + b"\n")
            return self._answer()
        except OSError as error:
            raise BirdError(
                f"BIRD did not answer {command!r} on {self._path}: {error.strerror or error}"
            ) from error

    def _answer(self) -> list[str]:
        lines = []
        while True:
            line = self._line()
            match = _CODE.match(line)
            if match is None:
                lines.append(line[1:])
                continue
            code, separator, text = match.groups()
            if code[0] in "89":
                raise BirdError(f"BIRD on {self._path} refuses: {text}")
            if text:
                lines.append(text)
            if separator == " ":
                return lines

    def _line(self) -> str:
        while b"\n" not in self._buffer:
            received = self._socket.recv(65536)
            if not received or len(self._buffer) > ANSWER_LIMIT:
                raise BirdError(f"BIRD on {self._path} cut its answer short")
            self._buffer += received
        line, _newline, self._buffer = self._buffer.partition(b"\n")
        return line.decode("utf-8", "replace")


_PROTOCOL = re.compile(r"^(\S+)\s+BGP\s+\S+\s+\S+\s+(\S+)\s*(.*)$")
_ATTRIBUTE = re.compile(r"^\s+(BGP state|Neighbor address):\s+(\S+)")


def parse_protocols(lines: list[str]) -> list[Session]:
    """BGP sessions in the answer to `show protocols all`, without their networks."""
    sessions: list[Session] = []
    for line in lines:
        heading = _PROTOCOL.match(line)
        if heading is not None:
            sessions.append(Session(name=heading.group(1), peer="", bgp_state="", info="", networks=[]))
            # "2026-11-22 10:00:01  Established", "10:00:01.123  Established": date, time or both.
            sessions[-1]["info"] = re.sub(r"^[\d:.\s-]+", "", heading.group(3)).strip()
            continue
        if line[:1].strip():
            # Another protocol's heading: attributes that follow are not of the last session.
            sessions.append(Session(name="", peer="", bgp_state="", info="", networks=[]))
            continue
        attribute = _ATTRIBUTE.match(line)
        if attribute is not None and sessions:
            key, value = attribute.groups()
            if key == "BGP state":
                sessions[-1]["bgp_state"] = value
            else:
                sessions[-1]["peer"] = value
    return [session for session in sessions if session["name"]]


def parse_networks(lines: list[str]) -> list[str]:
    """CIDRs in the answer to `show route protocol X`: the first word of the lines that begin a network."""
    networks = []
    for line in lines:
        first = line.split(maxsplit=1)[0] if line[:1].strip() else ""
        if "/" in first:
            try:
                networks.append(str(IPv4Network(first)))
            except ValueError:
                continue
    return networks


def sessions(path: str = SOCKET) -> list[Session]:
    """Every BGP session of the BIRD at `path` with the networks it imported. Raise BirdError."""
    with BirdClient(path) as bird:
        found = parse_protocols(bird.ask("show protocols all"))
        for session in found:
            session["networks"] = parse_networks(bird.ask(f"show route protocol {session['name']}"))
    return found
