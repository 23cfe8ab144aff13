"""Netfilter's netlink: transactions of nf_tables, dumps, and conntrack's requests. No libnftables in between.

The wire format is that of linux/netfilter/nfnetlink.h. A transaction is one datagram between
NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END: the kernel takes all of it or nothing. Numbers in attributes of
nf_tables and conntrack are big endian.
"""

import errno
import socket
import struct
from collections.abc import Iterator, Sequence

from tortie.dataplane.netlink import (
    HEADER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    Connection,
    Message,
    NetlinkError,
    as_i32,
    attribute,
    extended_ack,
)

NETLINK_NETFILTER = 12  # linux/netlink.h
# linux/netfilter/nfnetlink.h
NFNETLINK_V0 = 0
NFNL_SUBSYS_CTNETLINK = 1
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN = 0x10
NFNL_MSG_BATCH_END = 0x11
NFNL_BATCH_GENID = 1  # attribute of BATCH_BEGIN: the generation that the transaction builds on
SO_SNDBUFFORCE = 32  # asm-generic/socket.h

AF_UNSPEC = 0
NFPROTO_INET = 1  # linux/netfilter.h
NFPROTO_IPV4 = 2
NFPROTO_IPV6 = 10

# A transaction must fit one datagram: 64 MiB hold some 200,000 rules. The kernel accounts the socket's
# buffers only while they are in use.
BUFFER_BYTES = 64 << 20
MESSAGES_PER_SEND = 200  # conntrack requests, which are not a transaction

_NFGENMSG = struct.Struct("!BBH")  # family, version, resource id
_BE32 = struct.Struct("!I")


class TransactionError(NetlinkError):
    """The kernel refused a transaction, all of it. `refused` has one error per message it objected to."""

    def __init__(self, refused: Sequence[NetlinkError]) -> None:
        first = refused[0]
        more = f"; and {len(refused) - 1} more" if len(refused) > 1 else ""
        super().__init__(first.code, first.tried, first.detail + more if first.detail else more[2:])
        self.refused = tuple(refused)


class OvertakenError(TransactionError):
    """The kernel refused a transaction because somebody else's came first."""


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


class Netfilter(Connection):
    """A socket for netfilter in the calling thread's network namespace. Not for two threads at a time."""

    protocol = NETLINK_NETFILTER
    header_bytes = _NFGENMSG.size
    read_bytes = 1 << 18  # answers to a batch; the kernel fills at most 32 KiB of a dump per read
    # Room for one error per message of the largest transaction: a full receive buffer would lose answers
    # (ENOBUFS).
    receive_buffer_bytes = BUFFER_BYTES

    def _configure(self, made: socket.socket) -> None:
        made.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES)

    def transaction(self, messages: Sequence[Message], generation: int | None = None) -> None:
        """Commit nf_tables messages, all or nothing. Raise TransactionError, which names what was refused.

        With `generation` (a transaction's number, not 0) only if that is still the namespace's last one, else
        raise OvertakenError. A kernel that does not know the attribute commits in any case.
        """
        if not messages:
            return
        first = self._sequence + 1
        begin = _BATCH if generation is None else _BATCH + be32(NFNL_BATCH_GENID, generation)
        frames = [self._frame(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, begin)]
        *others, last = messages
        pack, size, sequence = HEADER.pack, HEADER.size, self._sequence
        for sequence, message in enumerate(others, first + 1):
            # Every message of nf_tables ends with an attribute, so that it needs no padding.
            frames.append(
                pack(size + len(message.body), message.type, message.flags | NLM_F_REQUEST, sequence, 0)
            )
            frames.append(message.body)
        self._sequence = sequence
        frames.append(self._frame(last.type, last.flags | NLM_F_REQUEST | NLM_F_ACK, last.body))
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
                code = -as_i32(payload)
                if code == errno.ERESTART and sequence == first:  # the kernel has not looked at the rest
                    overtaken = NetlinkError(code, "commit the transaction", "another one came first")
                    raise OvertakenError([overtaken])
                if code:
                    # An error of the commit itself (a loop of jumps, a chain still in use) is BATCH_BEGIN's.
                    tried = (
                        "commit the transaction"
                        if sequence == first
                        else messages[sequence - first - 1].tried
                    )
                    refused.append(NetlinkError(code, tried, extended_ack(kind, flags, payload)))
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
                        code = -as_i32(payload)
                        if code:
                            tried = chunk[sequence - first - 1].tried
                            refused.append(NetlinkError(code, tried, extended_ack(kind, flags, payload)))
            except TimeoutError as error:
                raise NetlinkError(errno.ETIMEDOUT, chunk[-1].tried, "no answer from the kernel") from error
        return refused


# nfgenmsg of a batch: no family, the resource id says whose transaction it is.
_BATCH = _NFGENMSG.pack(AF_UNSPEC, NFNETLINK_V0, NFNL_SUBSYS_NFTABLES)
