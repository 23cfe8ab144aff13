"""IPv6 on a pod's interface: addresses without duplicate detection, routes, neighbours, and the settings.

Formats and numbers: linux/if_addr.h, linux/rtnetlink.h, linux/neighbour.h, linux/if_link.h.
"""

import os
import socket
import struct
from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Final

from tortie.dataplane.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    DataplaneError,
    Message,
    Socket,
    as_u32,
    attribute,
    attributes,
    nested,
    u32,
)
from tortie.dataplane.rtnetlink import (
    IFA_ADDRESS,
    IFA_LOCAL,
    IFLA_AF_SPEC,
    NDA_DST,
    NDA_IFINDEX,
    NDA_LLADDR,
    NUD_PERMANENT,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_TABLE,
    RTM_GETADDR,
    RTM_GETNEIGH,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTN_UNICAST,
    mac_bytes,
    mac_text,
)

IFA_FLAGS: Final = 8
IFA_F_NODAD: Final = 0x02
IFLA_INET6_ADDR_GEN_MODE: Final = 8
IN6_ADDR_GEN_MODE_NONE: Final = 1
_SETTINGS: Final = Path("/proc/sys/net/ipv6/conf")

_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBi")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")

Route = tuple[IPv6Network, IPv6Address | None]  # destination and gateway


def is_there() -> bool:
    """Whether the kernel has IPv6."""
    return _SETTINGS.is_dir()


def configure(device: str, values: Mapping[str, int], where: str) -> None:
    """Set net.ipv6.conf.<device>.* in the caller's namespace. Raise DataplaneError, which says `where`."""
    for name, value in values.items():
        write_setting(f"{_SETTINGS}/{device}/{name}", value, f"net.ipv6.conf.{device}.{name}", where)


def write_setting(path: str, value: int, name: str, where: str) -> None:
    """Give a file of /proc/sys a value, unless it has it. Raise DataplaneError, with `name` and `where`.

    With bare system calls: every ADD does this, and a Python file makes three times as many.
    """
    wanted = str(value).encode()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.read(descriptor, 32).strip() != wanted:
                os.pwrite(descriptor, wanted, 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DataplaneError(f"set {name}={value} {where}: {os.strerror(error.errno or 0)}") from error


def without_own_address(index: int, name: str) -> Message:
    """The kernel shall not choose a link-local address for the device: we set one."""
    mode = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
    body = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    body += nested(IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    return Message(RTM_NEWLINK, 0, body, f"set device {name}: no automatic link-local address")


def add_address(index: int, name: str, interface: IPv6Interface) -> Message:
    """Put an address on a device. It is usable at once: nobody else can have it."""
    header = _IFADDRMSG.pack(socket.AF_INET6, interface.network.prefixlen, 0, RT_SCOPE_UNIVERSE, index)
    packed = interface.ip.packed
    body = (
        header + attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed) + u32(IFA_FLAGS, IFA_F_NODAD)
    )
    return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, f"add address {interface} to {name}")


def route(index: int, route: Route, protocol: int, tried: str, *, replace: bool = False) -> Message:
    """A route of the main table on a device; EEXIST when it is there, unless `replace`."""
    destination, gateway = route
    body = _RTMSG.pack(
        socket.AF_INET6,
        destination.prefixlen,
        0,
        0,
        RT_TABLE_MAIN,
        protocol,
        RT_SCOPE_UNIVERSE,
        RTN_UNICAST,
        0,
    )
    body += attribute(RTA_DST, destination.network_address.packed) + u32(RTA_OIF, index)
    if gateway is not None:
        body += attribute(RTA_GATEWAY, gateway.packed)
    return Message(RTM_NEWROUTE, NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL), body, tried)


def replace_neighbour(index: int, name: str, address: IPv6Address, mac: str) -> Message:
    """A permanent neighbour entry."""
    body = _NDMSG.pack(socket.AF_INET6, index, NUD_PERMANENT, 0, 0)
    body += attribute(NDA_DST, address.packed) + attribute(NDA_LLADDR, mac_bytes(mac))
    return Message(
        RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, f"set neighbour {address} at {mac} on {name}"
    )


def addresses(sock: Socket, index: int) -> list[IPv6Interface]:
    """The addresses of a device, without link-local ones."""
    found: list[IPv6Interface] = []
    body = _IFADDRMSG.pack(socket.AF_INET6, 0, 0, 0, 0)
    for _, payload in sock.dump(RTM_GETADDR, body, "list IPv6 addresses"):
        _family, prefix, _flags, _scope, holder = _IFADDRMSG.unpack_from(payload)
        interface = IPv6Interface((attributes(payload[_IFADDRMSG.size :])[IFA_ADDRESS], prefix))
        if holder == index and not interface.is_link_local:
            found.append(interface)
    return found


def routes(sock: Socket, index: int) -> list[Route]:
    """The routes of the main table that leave through a device."""
    body = _RTMSG.pack(socket.AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0) + u32(RTA_TABLE, RT_TABLE_MAIN)
    found: list[Route] = []
    for _, payload in sock.dump(RTM_GETROUTE, body, "list IPv6 routes"):
        prefix = _RTMSG.unpack_from(payload)[1]
        values = attributes(payload[_RTMSG.size :])
        # Before Linux 4.20 the kernel does not select by table and device.
        in_main = as_u32(values[RTA_TABLE]) == RT_TABLE_MAIN
        if in_main and RTA_OIF in values and as_u32(values[RTA_OIF]) == index:
            gateway = values.get(RTA_GATEWAY)
            destination = IPv6Network((values.get(RTA_DST, bytes(16)), prefix))
            found.append((destination, IPv6Address(gateway) if gateway else None))
    return found


def neighbours(sock: Socket, index: int) -> list[tuple[IPv6Address, str]]:
    """The permanent neighbour entries of a device: address and hardware address."""
    body = _NDMSG.pack(socket.AF_INET6, 0, 0, 0, 0) + u32(NDA_IFINDEX, index)
    found: list[tuple[IPv6Address, str]] = []
    for _, payload in sock.dump(RTM_GETNEIGH, body, "list IPv6 neighbours"):
        _family, holder, state, _flags, _type = _NDMSG.unpack_from(payload)
        values = attributes(payload[_NDMSG.size :])
        if holder == index and state & NUD_PERMANENT and NDA_LLADDR in values:
            found.append((IPv6Address(values[NDA_DST]), mac_text(values[NDA_LLADDR])))
    return found
