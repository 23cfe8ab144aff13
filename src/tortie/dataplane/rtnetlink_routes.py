"""IPv4 addresses of devices, and routes: rtnetlink messages in and plain values out.

Formats and numbers: linux/rtnetlink.h, linux/if_addr.h.
"""

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from tortie.dataplane.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    NetlinkError,
    Socket,
    as_u32,
    attribute,
    attributes,
    u32,
)

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15
RT_TABLE_MAIN = 254
RTN_UNICAST, RTN_BLACKHOLE = 1, 6
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTPROT_KERNEL = 2
RTM_F_CLONED = 0x200
RTNH_F_ONLINK = 4

_IFADDRMSG = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct(
    "=BBBBBBBBI"
)  # family, dst length, src length, tos, table, protocol, scope, type, flags


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 address on a device."""

    index: int
    interface: IPv4Interface


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """An IPv4 route of one next hop. `index` and `gateway` are 0 and None where the route has none."""

    destination: IPv4Network
    index: int = 0
    gateway: IPv4Address | None = None
    protocol: int = 0
    type: int = RTN_UNICAST
    scope: int = RT_SCOPE_UNIVERSE
    onlink: bool = False
    source: IPv4Address | None = None
    priority: int = 0
    tos: int = 0
    table: int = RT_TABLE_MAIN


def _address(kind: int, flags: int, index: int, interface: IPv4Interface, tried: str) -> Message:
    header = _IFADDRMSG.pack(socket.AF_INET, interface.network.prefixlen, 0, RT_SCOPE_UNIVERSE, index)
    packed = interface.ip.packed
    return Message(kind, flags, header + attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed), tried)


def add_address(index: int, name: str, interface: IPv4Interface) -> Message:
    """Put an address on a device."""
    return _address(
        RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, interface, f"add address {interface} to {name}"
    )


def delete_address(index: int, name: str, interface: IPv4Interface) -> Message:
    """Take an address from a device."""
    return _address(RTM_DELADDR, 0, index, interface, f"delete address {interface} from {name}")


def addresses(sock: Socket) -> list[Address]:
    """All IPv4 addresses of the namespace, in kernel order (device by device, primary before secondary)."""
    body = _IFADDRMSG.pack(socket.AF_INET, 0, 0, 0, 0)
    found: list[Address] = []
    for _, payload in sock.dump(RTM_GETADDR, body, "list IPv4 addresses"):
        _family, prefix, _flags, _scope, index = _IFADDRMSG.unpack_from(payload)
        values = attributes(payload[_IFADDRMSG.size :])
        local = values.get(IFA_LOCAL) or values[IFA_ADDRESS]
        found.append(Address(index, IPv4Interface((local, prefix))))
    return found


def _route(kind: int, flags: int, route: KernelRoute, tried: str) -> Message:
    body = _RTMSG.pack(
        socket.AF_INET,
        route.destination.prefixlen,
        0,
        route.tos,
        RT_TABLE_MAIN,
        route.protocol,
        route.scope,
        route.type,
        RTNH_F_ONLINK if route.onlink else 0,
    )
    body += attribute(RTA_DST, route.destination.network_address.packed)
    if route.index:
        body += u32(RTA_OIF, route.index)
    if route.gateway is not None:
        body += attribute(RTA_GATEWAY, route.gateway.packed)
    if route.source is not None:
        body += attribute(RTA_PREFSRC, route.source.packed)
    if route.priority:
        body += u32(RTA_PRIORITY, route.priority)
    return Message(kind, flags, body, tried)


def add_route(route: KernelRoute, tried: str) -> Message:
    """Add a route of the main table; EEXIST when its destination is routed already with the same metric."""
    return _route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route, tried)


def replace_route(route: KernelRoute, tried: str) -> Message:
    """Put a route of the main table in the place of the one with the same destination, metric and TOS."""
    return _route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route, tried)


def delete_route(route: KernelRoute, tried: str) -> Message:
    """Remove exactly this route."""
    return _route(RTM_DELROUTE, 0, route, tried)


def routes(
    sock: Socket, *, table: int = RT_TABLE_MAIN, protocol: int | None = None, index: int | None = None
) -> list[KernelRoute]:
    """IPv4 routes of one table; the kernel selects by protocol and device. Multipath routes are left out."""
    body = _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, protocol or 0, 0, 0, 0) + u32(RTA_TABLE, table)
    if index is not None:
        body += u32(RTA_OIF, index)
    try:
        objects = sock.dump(RTM_GETROUTE, body, f"list routes of table {table}")
    except NetlinkError as error:
        if error.code == errno.ENOENT:  # a table without routes does not exist
            return []
        raise
    found = [_kernel_route(payload) for _, payload in objects]
    return [
        route
        for route in found
        if route is not None
        and route.table == table
        and (protocol is None or route.protocol == protocol)
        and (index is None or route.index == index)
    ]


def _kernel_route(payload: bytes) -> KernelRoute | None:
    _family, prefix, _src, tos, table, protocol, scope, kind, flags = _RTMSG.unpack_from(payload)
    found = attributes(payload[_RTMSG.size :])
    if flags & RTM_F_CLONED or (kind == RTN_UNICAST and RTA_OIF not in found):
        return None
    gateway, source = found.get(RTA_GATEWAY), found.get(RTA_PREFSRC)
    return KernelRoute(
        destination=IPv4Network((found.get(RTA_DST, b"\0\0\0\0"), prefix)),
        index=as_u32(found[RTA_OIF]) if RTA_OIF in found else 0,
        gateway=IPv4Address(gateway) if gateway else None,
        protocol=protocol,
        type=kind,
        scope=scope,
        onlink=bool(flags & RTNH_F_ONLINK),
        source=IPv4Address(source) if source else None,
        priority=as_u32(found[RTA_PRIORITY]) if RTA_PRIORITY in found else 0,
        tos=tos,
        table=as_u32(found[RTA_TABLE]) if RTA_TABLE in found else table,
    )
