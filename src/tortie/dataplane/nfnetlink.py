"""Netfilter's netlink: transactions of nf_tables, dumps, and conntrack's requests. No libnftables in between.

The wire format is that of linux/netfilter/nfnetlink.h. A transaction is one datagram between
NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END: the kernel takes all of it or nothing. Numbers in attributes of
nf_tables and conntrack are big endian.
"""

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from tortie.dataplane.netlink import (
    ANSWER_SECONDS,
    DUMP_ATTEMPTS,
    NETLINK_CAP_ACK,
    NETLINK_EXT_ACK,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGERR_ATTR_MSG,
    SO_RCVBUFFORCE,
    SOL_NETLINK,
    Message,
    NetlinkError,
    as_text,
    attribute,
    attributes,
)

NETLINK_NETFILTER = 12  # linux/netlink.h
# linux/netfilter/nfnetlink.h
NFNETLINK_V0 = 0
NFNL_SUBSYS_CTNETLINK = 1
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN = 0x10
NFNL_MSG_BATCH_END = 0x11
SO_SNDBUFFORCE = 32  # asm-generic/socket.h

AF_UNSPEC = 0
NFPROTO_INET = 1  # linux/netfilter.h
NFPROTO_IPV4 = 2
NFPROTO_IPV6 = 10

READ_BYTES = 1 << 18  # the kernel fills at most 32 KiB of a dump per read; answers to a batch are shorter
# A transaction must fit one datagram: 64 MiB hold some 200,000 rules. The kernel accounts the socket's
# buffers only while they are in use.
BUFFER_BYTES = 64 << 20
MESSAGES_PER_SEND = 200  # conntrack requests, which are not a transaction

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_NFGENMSG = struct.Struct("!BBH")  # family, version, resource id
_BE32 = struct.Struct("!I")
_ERRNO = struct.Struct("=i")


class TransactionError(NetlinkError):
    """The kernel refused a transaction, all of it. `refused` has one error per message it objected to."""

    def __init__(self, refused: Sequence[NetlinkError]) -> None:
        first = refused[0]
        more = f"; and {len(refused) - 1} more" if len(refused) > 1 else ""
        super().__init__(first.code, first.tried, first.detail + more if first.detail else more[2:])
        self.refused = tuple(refused)


def be32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in network order."""
    return attribute(kind, _BE32.pack(value & 0xFFFFFFFF))


def be64(kind: int, value: int) -> bytes:
    """A 64-bit attribute in network order."""
    return attribute(kind, value.to_bytes(8, "big"))


def block(kind: int, *content: bytes) -> bytes:
    """An attribute that holds attributes, without NLA_F_NESTED: so the kernel writes them when it dumps
    rules, which makes what was sent and what is read the same bytes."""
    return attribute(kind, b"".join(content))


def as_be32(value: bytes) -> int:
    """The number of a 32-bit attribute in network order."""
    return int(_BE32.unpack_from(value)[0])


def items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Attributes in order with those that repeat, as lists of expressions and elements do."""
    offset, end = 0, len(data)
    while offset + 4 <= end:
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += length + (-length % 4)


def body(family: int, *content: bytes, resource: int = 0) -> bytes:
    """nfgenmsg and attributes."""
    return _NFGENMSG.pack(family, NFNETLINK_V0, resource) + b"".join(content)


class Netfilter:
    """A socket for netfilter in the calling thread's network namespace. Not for two threads at a time."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        )
        self._sequence = 0
        try:
            for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            # Room for the largest transaction, and for one error per message of it: a full receive buffer
            # would lose answers (ENOBUFS).
            self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
            self._socket.settimeout(ANSWER_SECONDS)
            self._socket.bind((0, 0))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()

    def transaction(self, messages: Sequence[Message]) -> None:
        """Commit nf_tables messages, all or nothing. Raise TransactionError, which names what was refused."""
        if not messages:
            return
        first = self._sequence + 1
        frames = [self._frame(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, _BATCH)]
        last = messages[-1]
        for message in messages:
            acknowledge = NLM_F_ACK if message is last else 0
            frames.append(
                self._frame(message.type, message.flags | NLM_F_REQUEST | acknowledge, message.body)
            )
        final = self._sequence
        frames.append(self._frame(NFNL_MSG_BATCH_END, NLM_F_REQUEST, _BATCH))
        refused: list[NetlinkError] = []
        try:
            self._socket.sendall(b"".join(frames))
            self._collect(first, final, messages, refused)
        except TimeoutError as error:
            if not refused:
                raise NetlinkError(
                    errno.ETIMEDOUT, "commit a transaction", "no answer from the kernel"
                ) from error
        except OSError as error:
            # EMSGSIZE: larger than the send buffer. ENOBUFS: answers were lost; what became of it is unknown.
            raise NetlinkError(error.errno or errno.EIO, f"commit {len(messages)} messages") from error
        if refused:
            raise TransactionError(refused)

    def _collect(
        self, first: int, final: int, messages: Sequence[Message], refused: list[NetlinkError]
    ) -> None:
        """Read answers up to that of the last message (sequence `final`); `first` is BATCH_BEGIN's."""
        while True:
            for kind, flags, sequence, payload in self._read():
                if kind != NLMSG_ERROR or not first <= sequence <= final:
                    continue
                code = -int(_ERRNO.unpack_from(payload)[0])
                if code:
                    # An error of the commit itself (a loop of jumps, a chain still in use) is BATCH_BEGIN's.
                    tried = (
                        "commit the transaction"
                        if sequence == first
                        else messages[sequence - first - 1].tried
                    )
                    refused.append(NetlinkError(code, tried, _detail(flags, payload)))
                if sequence == final:
                    return

    def each(self, messages: Sequence[Message]) -> list[NetlinkError]:
        """Send requests that are no transaction (conntrack), in order; return what the kernel refused."""
        refused: list[NetlinkError] = []
        for start in range(0, len(messages), MESSAGES_PER_SEND):
            chunk = messages[start : start + MESSAGES_PER_SEND]
            first = self._sequence
            frames = [
                self._frame(item.type, item.flags | NLM_F_REQUEST | NLM_F_ACK, item.body) for item in chunk
            ]
            try:
                self._socket.sendall(b"".join(frames))
                left = len(chunk)
                while left:
                    for kind, flags, sequence, payload in self._read():
                        if kind != NLMSG_ERROR or not first < sequence <= first + len(chunk):
                            continue
                        left -= 1
                        code = -int(_ERRNO.unpack_from(payload)[0])
                        if code:
                            tried = chunk[sequence - first - 1].tried
                            refused.append(NetlinkError(code, tried, _detail(flags, payload)))
            except TimeoutError as error:
                raise NetlinkError(errno.ETIMEDOUT, chunk[-1].tried, "no answer from the kernel") from error
        return refused

    def dump(self, kind: int, request: bytes, tried: str) -> list[tuple[int, bytes]]:
        """All objects that a GET request selects: (type, attributes after nfgenmsg), in kernel order."""
        for _ in range(DUMP_ATTEMPTS):
            objects = self._dump_once(kind, request, tried)
            if objects is not None:
                return objects
        raise NetlinkError(errno.EAGAIN, tried, f"changed while it was read, {DUMP_ATTEMPTS} times")

    def _dump_once(self, kind: int, request: bytes, tried: str) -> list[tuple[int, bytes]] | None:
        objects: list[tuple[int, bytes]] = []
        consistent = True
        frame = self._frame(kind, NLM_F_REQUEST | NLM_F_DUMP, request)
        try:
            self._socket.sendall(frame)
            while True:
                for answer, flags, sequence, payload in self._read():
                    if sequence != self._sequence:
                        continue
                    if flags & NLM_F_DUMP_INTR and answer != NLMSG_ERROR:
                        consistent = False
                    if answer in (NLMSG_DONE, NLMSG_ERROR):
                        code = -int(_ERRNO.unpack_from(payload)[0]) if len(payload) >= 4 else 0
                        if code == errno.EINTR:
                            return None
                        if code:
                            raise NetlinkError(code, tried)
                        return objects if consistent else None
                    objects.append((answer, payload[_NFGENMSG.size :]))
        except TimeoutError as error:
            raise NetlinkError(errno.ETIMEDOUT, tried, "no answer from the kernel") from error

    def get(self, kind: int, request: bytes, tried: str) -> bytes:
        """Attributes of one object. Raise NetlinkError (ENOENT...) when there is none."""
        frame = self._frame(kind, NLM_F_REQUEST, request)
        try:
            self._socket.sendall(frame)
            while True:
                for answer, flags, sequence, payload in self._read():
                    if sequence != self._sequence:
                        continue
                    if answer == NLMSG_ERROR:
                        code = -int(_ERRNO.unpack_from(payload)[0])
                        raise NetlinkError(code, tried, _detail(flags, payload))
                    return payload[_NFGENMSG.size :]
        except TimeoutError as error:
            raise NetlinkError(errno.ETIMEDOUT, tried, "no answer from the kernel") from error

    def _frame(self, kind: int, flags: int, content: bytes) -> bytes:
        self._sequence += 1
        frame = _HEADER.pack(_HEADER.size + len(content), kind, flags, self._sequence, 0) + content
        return frame + b"\0" * (-len(frame) % 4)

    def _read(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Messages of one datagram: (type, flags, sequence, payload)."""
        data = self._socket.recv(READ_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _port = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                return
            yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
            offset += length + (-length % 4)


# nfgenmsg of a batch: no family, the resource id says whose transaction it is.
_BATCH = _NFGENMSG.pack(AF_UNSPEC, NFNETLINK_V0, NFNL_SUBSYS_NFTABLES)


def _detail(flags: int, payload: bytes) -> str:
    """The kernel's own sentence in an error (NLMSGERR_ATTR_MSG), or an empty string."""
    if not flags & NLM_F_ACK_TLVS or len(payload) < 20:
        return ""
    original = 16 if flags & NLM_F_CAPPED else struct.unpack_from("=I", payload, 4)[0]
    start = 4 + original + (-original % 4)
    return as_text(attributes(payload[start:]).get(NLMSGERR_ATTR_MSG, b""))
