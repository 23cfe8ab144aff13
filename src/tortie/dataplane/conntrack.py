"""Connections that the kernel tracks: read them, mark them, forget them (ctnetlink).

Numbers and names: linux/netfilter/nfnetlink_conntrack.h.
"""

import errno
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from tortie.dataplane.netlink import NLA_F_NESTED, Message, attribute, attributes, u32
from tortie.dataplane.nfnetlink import (
    NFNL_SUBSYS_CTNETLINK,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    Netfilter,
    as_be32,
    be32,
    block,
    body,
)
from tortie.policy.state import Address

IPCTNL_MSG_CT_NEW = 0
IPCTNL_MSG_CT_GET = 1
IPCTNL_MSG_CT_DELETE = 2

CTA_TUPLE_ORIG = 1
CTA_TUPLE_REPLY = 2
CTA_MARK = 8
CTA_ID = 12
CTA_ZONE = 18
CTA_MARK_MASK = 21
CTA_FILTER = 25
CTA_TUPLE_IP = 1
CTA_TUPLE_PROTO = 2
CTA_IP_V4_SRC = 1
CTA_IP_V4_DST = 2
CTA_IP_V6_SRC = 3
CTA_IP_V6_DST = 4
CTA_PROTO_NUM = 1
CTA_PROTO_SRC_PORT = 2
CTA_PROTO_DST_PORT = 3
CTA_PROTO_ICMP_TYPE = 5
CTA_PROTO_ICMP_CODE = 6
CTA_PROTO_ICMPV6_TYPE = 8
CTA_PROTO_ICMPV6_CODE = 9
CTA_FILTER_ORIG_FLAGS = 1
CTA_FILTER_REPLY_FLAGS = 2
# net/netfilter/nf_conntrack_netlink.c: CTA_FILTER_F_CTA_IP_SRC, CTA_FILTER_F_CTA_IP_DST
FILTER_IP_SRC = 1
FILTER_IP_DST = 2

FAMILIES = {4: NFPROTO_IPV4, 6: NFPROTO_IPV6}
_ICMP, _ICMP6 = 1, 58
# nf_conntrack-sysctl.rst: connections of the calling thread's namespace, and buckets of the table that all
# namespaces share. The kernel looks at every bucket for each question.
COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
BUCKETS = Path("/proc/sys/net/netfilter/nf_conntrack_buckets")
# To read a connection here takes as long as it takes the kernel to look at so many buckets (12 us, 46 ns).
BUCKETS_PER_CONNECTION = 260
_PORT = struct.Struct("!H")


@dataclass(frozen=True, slots=True)
class Connection:
    """A tracked connection as policy sees it: `destination` and `destination_port` after translation (they
    are the source of the answers), `source` before. Ports are 0 where the protocol has none; `icmp` is
    (type, code). `identity` holds what the kernel needs to find it again."""

    protocol: int
    source: Address
    destination: Address
    source_port: int
    destination_port: int
    icmp: tuple[int, int] | None
    mark: int
    identity: bytes


def connections(kernel: Netfilter, addresses: frozenset[Address]) -> Iterator[Connection]:
    """Connections from or to one of these addresses."""
    count = tracked()
    if count == 0:
        return
    for version, family in FAMILIES.items():
        wanted = {address.packed for address in addresses if address.version == version}
        if not wanted:
            continue
        seen: set[bytes] = set()
        for request in _requests(version, family, wanted, count):
            for _, data in kernel.dump(_kind(IPCTNL_MSG_CT_GET), request, "list connections"):
                found = attributes(data)
                connection = _parsed(found, wanted)
                if connection is not None and connection.identity not in seen:
                    seen.add(connection.identity)
                    yield connection


def tracked() -> int | None:
    """How many connections the calling thread's namespace has; None when the kernel does not say."""
    return int(COUNT.read_text()) if COUNT.exists() else None


def _requests(version: int, family: int, wanted: set[bytes], count: int | None) -> list[bytes]:
    """One question for all connections, or two for each address, which the kernel filters (from Linux 5.8
    on; before, it answers with everything) where there are many connections."""
    if count is not None and BUCKETS.exists():
        more = 2 * len(wanted) - 1
        if count * BUCKETS_PER_CONNECTION <= more * int(BUCKETS.read_text()):
            return [body(family)]
    source = CTA_IP_V4_SRC if version == 4 else CTA_IP_V6_SRC
    return [
        body(
            family,
            _nest(tuple_kind, _nest(CTA_TUPLE_IP, attribute(source, packed))),
            _nest(
                CTA_FILTER,
                u32(CTA_FILTER_ORIG_FLAGS, FILTER_IP_SRC if tuple_kind == CTA_TUPLE_ORIG else 0),
                u32(CTA_FILTER_REPLY_FLAGS, FILTER_IP_SRC if tuple_kind == CTA_TUPLE_REPLY else 0),
            ),
        )
        for packed in wanted
        for tuple_kind in (CTA_TUPLE_ORIG, CTA_TUPLE_REPLY)
    ]


def _nest(kind: int, *content: bytes) -> bytes:
    return block(kind | NLA_F_NESTED, *content)


def _parsed(found: dict[int, bytes], wanted: set[bytes]) -> Connection | None:
    original, reply = attributes(found[CTA_TUPLE_ORIG]), attributes(found[CTA_TUPLE_REPLY])
    source = _source(original)
    destination = _source(reply)
    if source not in wanted and destination not in wanted:
        return None
    ports, answer = attributes(original[CTA_TUPLE_PROTO]), attributes(reply[CTA_TUPLE_PROTO])
    protocol = ports[CTA_PROTO_NUM][0]
    icmp = None
    if protocol == _ICMP and CTA_PROTO_ICMP_TYPE in ports:
        icmp = ports[CTA_PROTO_ICMP_TYPE][0], ports[CTA_PROTO_ICMP_CODE][0]
    elif protocol == _ICMP6 and CTA_PROTO_ICMPV6_TYPE in ports:
        icmp = ports[CTA_PROTO_ICMPV6_TYPE][0], ports[CTA_PROTO_ICMPV6_CODE][0]
    identity = _nest(CTA_TUPLE_ORIG, found[CTA_TUPLE_ORIG])
    if CTA_ZONE in found:
        identity += attribute(CTA_ZONE, found[CTA_ZONE])
    return Connection(
        protocol,
        _address(source),
        _address(destination),
        _port(ports),
        _port(answer),
        icmp,
        as_be32(found[CTA_MARK]) if CTA_MARK in found else 0,
        identity,
    )


def _source(side: dict[int, bytes]) -> bytes:
    addresses = attributes(side[CTA_TUPLE_IP])
    return addresses.get(CTA_IP_V4_SRC) or addresses[CTA_IP_V6_SRC]


def _address(packed: bytes) -> Address:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _port(side: dict[int, bytes]) -> int:
    return int(_PORT.unpack(side[CTA_PROTO_SRC_PORT])[0]) if CTA_PROTO_SRC_PORT in side else 0


def mark(connection: Connection, bits: int, mask: int) -> Message:
    """Set the bits of `mask` in the connection's mark to those of `bits`."""
    return Message(
        _kind(IPCTNL_MSG_CT_NEW),
        0,
        body(
            FAMILIES[connection.source.version],
            connection.identity,
            be32(CTA_MARK, bits),
            be32(CTA_MARK_MASK, mask),
        ),
        f"mark the connection {describe(connection)}",
    )


def forget(connection: Connection) -> Message:
    """Take the connection out of the kernel's table."""
    return Message(
        _kind(IPCTNL_MSG_CT_DELETE),
        0,
        body(FAMILIES[connection.source.version], connection.identity),
        f"forget the connection {describe(connection)}",
    )


def forget_calls_to(kernel: Netfilter, address: Address) -> int:
    """Take out of the kernel's table every connection that was opened to this address, before translation;
    return how many. The next packet of each is judged and translated anew. Raise NetlinkError."""
    destination = CTA_IP_V4_DST if address.version == 4 else CTA_IP_V6_DST
    family = FAMILIES[address.version]
    # Before Linux 5.8 the kernel does not filter. IPv6 it filters the wrong way round, by leaving out what is
    # equal (ctnetlink_filter_match_tuple, seen with 6.18).
    request = body(family)
    if address.version == 4:
        request += _nest(CTA_TUPLE_ORIG, _nest(CTA_TUPLE_IP, attribute(destination, address.packed)))
        request += _nest(
            CTA_FILTER, u32(CTA_FILTER_ORIG_FLAGS, FILTER_IP_DST), u32(CTA_FILTER_REPLY_FLAGS, 0)
        )
    messages: list[Message] = []
    for _, data in kernel.dump(_kind(IPCTNL_MSG_CT_GET), request, f"list connections to {address}"):
        found = attributes(data)
        original = attributes(found[CTA_TUPLE_ORIG])
        if attributes(original[CTA_TUPLE_IP]).get(destination) == address.packed:
            identity = _nest(CTA_TUPLE_ORIG, found[CTA_TUPLE_ORIG])
            if CTA_ZONE in found:
                identity += attribute(CTA_ZONE, found[CTA_ZONE])
            tried = f"forget a connection to {address}"
            messages.append(Message(_kind(IPCTNL_MSG_CT_DELETE), 0, body(family, identity), tried))
    send(kernel, messages, tolerated=errno.ENOENT)
    return len(messages)


def describe(connection: Connection) -> str:
    """For an error's text."""
    return (
        f"of protocol {connection.protocol} from {connection.source} port {connection.source_port} "
        f"to {connection.destination} port {connection.destination_port}"
    )


def send(kernel: Netfilter, messages: Iterable[Message], tolerated: int) -> None:
    """Send requests; raise NetlinkError but for the errno `tolerated`: the connection ended by itself."""
    for error in kernel.each(list(messages)):
        if error.code != tolerated:
            raise error


def _kind(message: int) -> int:
    return NFNL_SUBSYS_CTNETLINK << 8 | message
