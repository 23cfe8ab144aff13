"""BIRD's control socket: commands, and what its answers mean.

The protocol (BIRD's sources, nest/cli.c): every line of an answer starts with a four digit code, then `-`
when more follows or a space on the last line. A line that starts with a space continues the code
before it; one that starts with `+` is an unrelated message. Codes 0xxx end well, 8xxx are run-time errors,
9xxx are errors in the command.
"""

import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from tortie.model.constants import BIRD_SOCKET

_HEADER: Final = re.compile(r"^(\d{4})([ -])(.*)$")
_SUMMARY: Final = re.compile(
    r"^(?P<name>\S+)\s+(?P<proto>\S+)\s+(?P<table>\S+)\s+(?P<state>\S+)\s+"
    r"(?P<since>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\S+)(?:\s+(?P<info>.*\S))?\s*$"
)
_ROUTES: Final = re.compile(r"^Routes:\s+(\d+) imported,(?: (\d+) filtered,)? (\d+) exported")
_INTERFACE: Final = re.compile(r"^(?P<name>\S+) up \(index=(?P<index>\d+)")
_PREFIX: Final = re.compile(r"^(\d+\.\d+\.\d+\.\d+/\d+)\s")

# Reply codes (BIRD sources, doc/reply_codes).
_CODE_VERSION: Final = 1000
_CODE_INTERFACE: Final = 1001
_CODE_PROTOCOL: Final = 1002
_CODE_PROTOCOL_DETAILS: Final = 1006
_CODE_ROUTE: Final = 1007
_CODE_STATUS: Final = 1011
_CODE_STATE: Final = 13
_KERNEL_PROTOCOL: Final = "kernel1"  # BIRD's name of the first `protocol kernel` without one

_CODE_RECOVERY: Final = 24  # "Graceful restart recovery in progress"


class BirdError(Exception):
    """BIRD does not answer, or refused a command; the message says which."""


@dataclass(frozen=True, slots=True)
class ReplyLine:
    """One line of an answer with the code that it belongs to, indentation of continuations removed."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class BirdStatus:
    """`show status`. Times are as BIRD prints them (`2026-01-31 10:20:30`, local time)."""

    version: str = ""
    router_id: str = ""
    last_reboot: str = ""
    last_reconfiguration: str = ""
    state: str = ""
    recovering: bool = False


@dataclass(frozen=True, slots=True)
class BGPPeerStatus:
    """One BGP session. `state` is RFC 4271's (`Established`, `Active`, ...) or BIRD's (`Passive`, `Down`)."""

    name: str
    address: IPv4Address | None
    as_number: int
    state: str
    since: str
    info: str
    imported: int = 0
    exported: int = 0
    restarting: bool = False  # it announced a graceful restart, and its routes stay for that time (RFC 4724)

    @property
    def established(self) -> bool:
        """Whether routes can flow."""
        return self.state == "Established"


@dataclass(slots=True)
class _PeerDraft:
    """A session while its lines are being read."""

    name: str
    since: str
    info: str
    fields: dict[str, str] = field(default_factory=dict)

    def finish(self) -> BGPPeerStatus:
        routes = _ROUTES.match("Routes: " + self.fields.get("Routes", ""))
        try:
            address = IPv4Address(self.fields.get("Neighbor address", ""))
        except AddressValueError:
            address = None
        return BGPPeerStatus(
            name=self.name,
            address=address,
            as_number=int(self.fields.get("Neighbor AS", "0")),
            state=self.fields.get("BGP state", self.info.split()[0] if self.info else "Down"),
            since=self.since,
            info=self.fields.get("Last error", self.info),
            imported=int(routes[1]) if routes else 0,
            exported=int(routes[3]) if routes else 0,
            restarting="Neighbor graceful restart active" in self.fields,
        )


class BirdControl:
    """Commands to a running BIRD. Every call opens the socket anew and is bounded by `timeout` (seconds)."""

    def __init__(self, path: str | Path = BIRD_SOCKET, timeout: float = 5.0) -> None:
        self._path = str(path)
        self._timeout = timeout

    def command(self, text: str) -> list[ReplyLine]:
        """Send one command; return the answer. Raise BirdError when BIRD is away or refuses it."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._timeout)
                connection.connect(self._path)
                lines = _lines(connection)
                _read_reply(lines)  # greeting
                connection.sendall(text.encode("ascii") + b"\n")
                reply = _read_reply(lines)
        except OSError as error:
            raise BirdError(f"BIRD does not answer on {self._path}: {error}") from error
        last = reply[-1]
        if last.code >= 8000:
            raise BirdError(f"BIRD refused the command {text!r}: {last.text} (code {last.code:04d})")
        return reply

    def status(self) -> BirdStatus:
        """Version, router id, times."""
        return parse_status(self.command("show status"))

    def peers(self) -> list[BGPPeerStatus]:
        """Every BGP session, sorted by name."""
        return parse_peers(self.command("show protocols all"))

    def imported(self, protocol: str) -> list[IPv4Network]:
        """Prefixes accepted from one BGP session."""
        return parse_prefixes(self.command(f"show route protocol {_symbol(protocol)}"))

    def exported(self, protocol: str) -> list[IPv4Network]:
        """Prefixes announced on one BGP session (its export filter applied)."""
        return parse_prefixes(self.command(f"show route export {_symbol(protocol)}"))

    def configure(self) -> str:
        """Read the configuration file again; only sessions that changed restart. Return BIRD's words."""
        return self.command("configure")[-1].text

    def interfaces(self) -> dict[str, int]:
        """Index of every device that BIRD knows to be up, by name: through others it cannot write a route."""
        return parse_interfaces(self.command("show interfaces"))

    def write_routes_anew(self) -> None:
        """Run the filter to the kernel for every route again. Routes that are right stay as they are."""
        self.command(f"reload out {_KERNEL_PROTOCOL}")

    def shut_down_gracefully(self) -> None:
        """Stop BIRD so that peers keep our routes for the restart time and the kernel keeps theirs."""
        self.command("graceful restart")


def _symbol(name: str) -> str:
    """A protocol name, refused unless it is a plain BIRD symbol (it becomes part of a command)."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise BirdError(f"{name!r} is not the name of a BIRD protocol: letters, digits and underscores only")
    return name


def _lines(connection: socket.socket) -> Iterator[str]:
    buffer = b""
    while True:
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionResetError("connection closed in the middle of an answer")
        *complete, buffer = (buffer + chunk).split(b"\n")
        for line in complete:
            yield line.decode("utf-8", "replace")


def _read_reply(lines: Iterator[str]) -> list[ReplyLine]:
    reply: list[ReplyLine] = []
    for line in lines:
        header = _HEADER.match(line)
        if header:
            reply.append(ReplyLine(int(header[1]), header[3]))
            if header[2] == " ":
                return reply
        elif line.startswith(" ") and reply:
            reply.append(ReplyLine(reply[-1].code, line[1:]))
    raise ConnectionResetError("answer without an end")


def parse_status(reply: Sequence[ReplyLine]) -> BirdStatus:
    """Meaning of `show status`."""
    values: dict[str, str] = {}
    recovering = False
    for line in reply:
        if line.code == _CODE_VERSION:
            values["version"] = line.text.removeprefix("BIRD ").strip()
        elif line.code == _CODE_STATUS:
            for key, start in (
                ("router_id", "Router ID is "),
                ("last_reboot", "Last reboot on "),
                ("last_reconfiguration", "Last reconfiguration on "),
            ):
                if line.text.strip().startswith(start):
                    values[key] = line.text.strip().removeprefix(start)
        elif line.code == _CODE_RECOVERY:
            recovering = True
        elif line.code == _CODE_STATE:
            values["state"] = line.text.strip()
    return BirdStatus(**values, recovering=recovering)


def parse_peers(reply: Sequence[ReplyLine]) -> list[BGPPeerStatus]:
    """Meaning of `show protocols all`: the BGP sessions among the protocols."""
    peers: list[BGPPeerStatus] = []
    draft: _PeerDraft | None = None
    for line in reply:
        if line.code == _CODE_PROTOCOL:
            if draft:
                peers.append(draft.finish())
            summary = _SUMMARY.match(line.text)
            is_bgp = summary is not None and summary["proto"] == "BGP"
            draft = (
                _PeerDraft(summary["name"], summary["since"], summary["info"] or "")
                if summary and is_bgp
                else None
            )
        elif line.code == _CODE_PROTOCOL_DETAILS and draft:
            key, _colon, value = line.text.strip().partition(":")
            draft.fields.setdefault(key, value.strip())
    if draft:
        peers.append(draft.finish())
    return sorted(peers, key=lambda peer: peer.name)


def parse_interfaces(reply: Sequence[ReplyLine]) -> dict[str, int]:
    """Meaning of `show interfaces`: the kernel's index of each device that is up, by name."""
    found = (_INTERFACE.match(line.text) for line in reply if line.code == _CODE_INTERFACE)
    return {match["name"]: int(match["index"]) for match in found if match}


def parse_prefixes(reply: Sequence[ReplyLine]) -> list[IPv4Network]:
    """Meaning of `show route`: the prefixes, each once, in order."""
    found = (_PREFIX.match(line.text.strip() + " ") for line in reply if line.code == _CODE_ROUTE)
    return sorted({IPv4Network(match[1]) for match in found if match})
