"""Netlink: messages, attributes, sockets, errors with their reason.

The wire format is that of linux/netlink.h. Names in capitals are the kernel's own. Nothing here knows what a
link or a route is: see rtnetlink.py.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import ClassVar, NamedTuple, Self

from tortie.dataplane import netns

# linux/netlink.h
NETLINK_ROUTE = 0
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
SO_RCVBUFFORCE = 33  # asm-generic/socket.h

RECEIVE_BUFFER_BYTES = 8 << 20  # room for one error per message of the largest chunk
READ_BYTES = 1 << 16  # the kernel fills at most 32 KiB per read
MESSAGES_PER_SEND = 500  # measured: no gain beyond
ANSWER_SECONDS = 10  # the kernel answers at once; this bounds a wait behind rtnl_lock
DUMP_ATTEMPTS = 5  # a dump that changed while it was read (NLM_F_DUMP_INTR) is read again

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_U32 = struct.Struct("=I")
_I32 = struct.Struct("=i")
_TIMEVAL = struct.Struct("@ll")  # seconds, microseconds


class DataplaneError(Exception):
    """Base of what this package raises: a sentence with what was tried and why it failed."""


class NetlinkError(DataplaneError):
    """The kernel refused: `code` is the errno, `tried` what was asked, `detail` the kernel's own words."""

    def __init__(self, code: int, tried: str, detail: str = "") -> None:
        reason = os.strerror(code) + (f" ({detail})" if detail else "")
        super().__init__(f"{tried}: {errno.errorcode.get(code, str(code))}: {reason}")
        self.code = code
        self.tried = tried
        self.detail = detail


class Message(NamedTuple):
    """A request: `body` is the family's header and its attributes; `tried` describes it in an error."""

    type: int
    flags: int
    body: bytes
    tried: str


def attribute(kind: int, value: bytes) -> bytes:
    """One nlattr, padded to 4 bytes."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def u32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in host order."""
    return attribute(kind, _U32.pack(value))


def text(kind: int, value: str) -> bytes:
    """A zero-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes | memoryview) -> dict[int, bytes]:
    """Attributes by number; a number that repeats keeps its last value. Stops at what is not an attribute."""
    found: dict[int, bytes] = {}
    offset, end = 0, len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            break
        found[kind & NLA_TYPE_MASK] = bytes(data[offset + 4 : offset + length])
        offset += length + (-length % 4)
    return found


def as_text(value: bytes) -> str:
    """The string of a zero-terminated attribute."""
    return value.split(b"\0", 1)[0].decode(errors="replace")


def as_u32(value: bytes) -> int:
    """The number of a 32-bit attribute in host order."""
    return int(_U32.unpack_from(value)[0])


def as_i32(value: bytes) -> int:
    """The signed number of a 32-bit attribute in host order."""
    return int(_I32.unpack_from(value)[0])


class Connection:
    """A socket of one netlink protocol in the calling thread's network namespace: what all protocols share.

    Not for two threads at a time. Every call is bounded by ANSWER_SECONDS per answer.
    """

    protocol: ClassVar[int]
    header_bytes: ClassVar[int] = 0  # what an answer's payload begins with and no reader wants
    read_bytes: ClassVar[int] = READ_BYTES
    receive_buffer_bytes: ClassVar[int] = RECEIVE_BUFFER_BYTES

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self.protocol)
        self._sequence = 0
        try:
            for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, self.receive_buffer_bytes)
            self._configure(self._socket)
            # Not settimeout: it would ask poll(2) before every call, and let go of the interpreter for it.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(ANSWER_SECONDS, 0))
            self._socket.bind((0, 0))
        except OSError:
            self._socket.close()
            raise

    def _configure(self, made: socket.socket) -> None:
        """Options of one protocol."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()

    def dump(self, kind: int, body: bytes, tried: str) -> list[tuple[int, bytes]]:
        """All objects that a GET request (RTM_GETLINK...) selects: (type, payload), in kernel order."""
        for _ in range(DUMP_ATTEMPTS):
            objects = self._dump_once(kind, body, tried)
            if objects is not None:
                return objects
        raise NetlinkError(errno.EAGAIN, tried, f"changed while it was read, {DUMP_ATTEMPTS} times")

    def _dump_once(self, kind: int, body: bytes, tried: str) -> list[tuple[int, bytes]] | None:
        objects: list[tuple[int, bytes]] = []
        consistent = True
        for answer, flags, payload in self._ask(kind, NLM_F_DUMP, body, tried):
            if flags & NLM_F_DUMP_INTR and answer != NLMSG_ERROR:
                consistent = False
            if answer in (NLMSG_DONE, NLMSG_ERROR):
                code = -as_i32(payload) if len(payload) >= 4 else 0
                if code == errno.EINTR:  # nf_tables says so when it changed
                    return None
                if code:
                    raise NetlinkError(code, tried, extended_ack(answer, flags, payload))
                break
            objects.append((answer, payload[self.header_bytes :]))
        return objects if consistent else None

    def get(self, kind: int, body: bytes, tried: str) -> bytes:
        """One object. Raise NetlinkError (ENODEV, ENOENT, ...) when there is none."""
        answer, flags, payload = next(self._ask(kind, 0, body, tried))
        if answer == NLMSG_ERROR:
            raise NetlinkError(-as_i32(payload), tried, extended_ack(answer, flags, payload))
        return payload[self.header_bytes :]

    def _ask(self, kind: int, flags: int, body: bytes, tried: str) -> Iterator[tuple[int, int, bytes]]:
        """Send one request; (type, flags, payload) of its answers, without end."""
        try:
            self._socket.sendall(self._frame(kind, flags | NLM_F_REQUEST, body))
            while True:
                for answer, answer_flags, sequence, payload in self._read():
                    if sequence == self._sequence:
                        yield answer, answer_flags, payload
        except TimeoutError as error:
            raise NetlinkError(errno.ETIMEDOUT, tried, "no answer from the kernel") from error

    def _frame(self, kind: int, flags: int, body: bytes) -> bytes:
        """A message with the next sequence number, padded."""
        self._sequence += 1
        frame = HEADER.pack(HEADER.size + len(body), kind, flags, self._sequence, 0) + body
        return frame + b"\0" * (-len(frame) % 4)

    def _read(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Messages of one datagram: (type, flags, sequence, payload). Raise TimeoutError."""
        try:
            data = self._socket.recv(self.read_bytes)
        except BlockingIOError as error:
            raise TimeoutError from error
        offset, size, end = 0, HEADER.size, len(data)
        while offset + size <= end:
            length, kind, flags, sequence, _port = HEADER.unpack_from(data, offset)
            if length < size:
                return
            yield kind, flags, sequence, data[offset + size : offset + length]
            offset += length + (-length % 4)


class Socket(Connection):
    """One NETLINK_ROUTE socket in the namespace `namespace` (a descriptor; None is the caller's own)."""

    protocol = NETLINK_ROUTE

    def __init__(self, namespace: int | None = None) -> None:
        with netns.entered(namespace):
            super().__init__()

    def _configure(self, made: socket.socket) -> None:
        try:
            made.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        except OSError as error:
            # Before Linux 4.20 a dump is not filtered by the kernel; readers filter what they get anyway.
            if error.errno != errno.ENOPROTOOPT:
                raise

    def batch(self, messages: Sequence[Message]) -> list[NetlinkError]:
        """Send all messages, in order; return what the kernel refused. A refusal stops no later message."""
        refused: list[NetlinkError] = []
        for start in range(0, len(messages), MESSAGES_PER_SEND):
            refused += self._chunk(messages[start : start + MESSAGES_PER_SEND])
        return refused

    def request(self, *messages: Message) -> None:
        """Send all messages; raise the first refusal."""
        refused = self.batch(messages)
        if refused:
            raise refused[0]

    def request_and_get(self, messages: Sequence[Message], kind: int, body: bytes, tried: str) -> bytes:
        """`request` and then `get`, in one go. Raise the first refusal; the later messages were sent, too."""
        asked = (*messages, Message(kind, 0, body, tried))
        first = self._sequence + 1
        frames = [self._frame(message.type, message.flags | NLM_F_REQUEST, message.body) for message in asked]
        refusal: NetlinkError | None = None
        try:
            self._socket.sendall(b"".join(frames))
            while True:
                for answer, flags, sequence, payload in self._read():
                    if not first <= sequence <= self._sequence:
                        continue
                    if answer == NLMSG_ERROR and refusal is None:
                        detail = extended_ack(answer, flags, payload)
                        refusal = NetlinkError(-as_i32(payload), asked[sequence - first].tried, detail)
                    if sequence == self._sequence:
                        if refusal is not None:
                            raise refusal
                        return payload
        except TimeoutError as error:
            raise NetlinkError(errno.ETIMEDOUT, tried, "no answer from the kernel") from error

    def _chunk(self, messages: Sequence[Message]) -> list[NetlinkError]:
        first = self._sequence + 1
        parts: list[bytes] = []
        for message in messages:
            # Errors are always reported; an acknowledgement of the last message says that all were read.
            acknowledge = NLM_F_ACK if message is messages[-1] else 0
            parts.append(self._frame(message.type, message.flags | NLM_F_REQUEST | acknowledge, message.body))
        try:
            self._socket.sendall(b"".join(parts))
            return list(self._answers(first, messages))
        except TimeoutError as error:
            raise NetlinkError(errno.ETIMEDOUT, messages[-1].tried, "no answer from the kernel") from error

    def _answers(self, first: int, messages: Sequence[Message]) -> Iterator[NetlinkError]:
        while True:
            for answer, flags, sequence, payload in self._read():
                if answer != NLMSG_ERROR or not first <= sequence <= self._sequence:
                    continue
                code = -as_i32(payload)
                if code:
                    yield NetlinkError(
                        code, messages[sequence - first].tried, extended_ack(answer, flags, payload)
                    )
                if sequence == self._sequence:
                    return


def extended_ack(kind: int, flags: int, payload: bytes) -> str:
    """The kernel's sentence (NLMSGERR_ATTR_MSG), or an empty string."""
    if not flags & NLM_F_ACK_TLVS or len(payload) < 20:
        return ""
    if kind == NLMSG_DONE:  # the end of a dump carries no copy of the request
        return as_text(attributes(payload[4:]).get(NLMSGERR_ATTR_MSG, b""))
    # errno, then the offending nlmsghdr: capped to the header (NETLINK_CAP_ACK) or in full.
    original = 16 if flags & NLM_F_CAPPED else as_u32(payload[4:])
    start = 4 + original + (-original % 4)
    return as_text(attributes(payload[start:]).get(NLMSGERR_ATTR_MSG, b""))
