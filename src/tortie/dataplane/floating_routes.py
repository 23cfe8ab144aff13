"""The node's routes to floating addresses: /32 and /128 to pods' devices, of the agent's protocol.

A pod's own addresses have such routes too, made by its ADD. Theirs have a permanent neighbour entry on the
same device, and floating addresses have none: that tells them apart, also for an agent that just started.
"""

import errno
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Final

from tortie.dataplane import inet6, rtnetlink
from tortie.dataplane.netlink import DataplaneError, Message, NetlinkError, Socket, as_u32, attributes, u32
from tortie.dataplane.rtnetlink import (
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_TABLE,
    RTM_DELROUTE,
    RTM_F_CLONED,
    RTM_GETROUTE,
    RTN_UNICAST,
)
from tortie.dataplane.workload_link import Departure, host_route
from tortie.model.constants import INTERFACE_PREFIX, RTPROT_BIRD, RTPROT_TORTIE
from tortie.model.floating import Address

_RTMSG = struct.Struct("=BBBBBBBBI")  # family, lengths of destination and source, tos, table, protocol...
_IPV6_ADDRESSES: Final = Path("/proc/thread-self/net/if_inet6")  # of the calling thread's namespace
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class HostRoute:
    """A route of ours to one address through the device with this index."""

    address: Address
    index: int


def host_routes(sock: Socket, version: int, index: int | None = None) -> list[HostRoute]:
    """Routes of ours to single addresses, through one device or any. Raise NetlinkError."""
    request = _RTMSG.pack(_FAMILY[version], 0, 0, 0, 0, RTPROT_TORTIE, 0, 0, 0) + u32(
        RTA_TABLE, RT_TABLE_MAIN
    )
    if index is not None:
        request += u32(RTA_OIF, index)
    found: list[HostRoute] = []
    for _, payload in sock.dump(RTM_GETROUTE, request, "list routes to pods"):
        _, prefix, _, _, _, protocol, _, kind, flags = _RTMSG.unpack_from(payload)
        if protocol != RTPROT_TORTIE or kind != RTN_UNICAST or flags & RTM_F_CLONED:
            continue
        values = attributes(payload[_RTMSG.size :])
        device = as_u32(values[RTA_OIF]) if RTA_OIF in values else 0
        if RTA_DST not in values or RTA_GATEWAY in values or not device:
            continue
        if RTA_TABLE in values and as_u32(values[RTA_TABLE]) != RT_TABLE_MAIN:
            continue
        if prefix == 8 * len(values[RTA_DST]) and index in (None, device):
            found.append(HostRoute(_address(values[RTA_DST]), device))
    return found


def _address(packed: bytes) -> Address:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def of_nobody(sock: Socket) -> set[HostRoute]:
    """Routes to pods' devices that are not to the pod's own address. Raise NetlinkError."""
    ours = {link.index for link in rtnetlink.links(sock) if Departure.of(link) is not None}
    routes = [route for version in versions() for route in host_routes(sock, version) if route.index in ours]
    several = {route.index for route in routes}
    own = {HostRoute(address, index) for index in several for address in own_addresses(sock, index)}
    return set(routes) - own


def own_addresses(sock: Socket, index: int) -> set[Address]:
    """Addresses that a device has permanent neighbour entries for. Raise NetlinkError."""
    found: set[Address] = {item.address for item in rtnetlink.neighbours(sock, index) if item.permanent}
    if inet6.is_there():
        found |= {address for address, _ in inet6.neighbours(sock, index)}
    return found


def versions() -> tuple[int, ...]:
    """The families of the kernel."""
    return (4, 6) if inet6.is_there() else (4,)


def host_addresses(sock: Socket) -> set[Address]:
    """The node's own addresses. Raise NetlinkError."""
    found: set[Address] = {item.interface.ip for item in rtnetlink.addresses(sock)}
    if inet6.is_there():
        lines = _IPV6_ADDRESSES.read_text(encoding="ascii").splitlines()
        found |= {IPv6Address(bytes.fromhex(line.split()[0])) for line in lines}
    return found


def remove(sock: Socket, routes: Iterable[HostRoute], names: Mapping[int, str]) -> list[str]:
    """Take routes away; what is gone already is fine. Return what was done. Raise NetlinkError."""
    done: list[str] = []
    for route in sorted(routes, key=lambda item: (item.address.version, int(item.address))):
        tried = f"delete route {route.address} dev {names.get(route.index, route.index)}"
        errors = sock.batch([_delete(route, tried)])
        for error in errors:
            if error.code not in (errno.ESRCH, errno.ENODEV, errno.ENOENT):
                raise error
        if not errors:
            done.append(tried)
    return done


def _delete(route: HostRoute, tried: str) -> Message:
    if isinstance(route.address, IPv4Address):
        return rtnetlink.delete_route(host_route(route.address, route.index), tried)
    added = inet6.route(route.index, (IPv6Network(route.address), None), RTPROT_TORTIE, tried)
    return Message(RTM_DELROUTE, 0, added.body, tried)


def add(sock: Socket, route: HostRoute, name: str) -> bool:
    """Add a route; whether it was missing. What leads to another node, where the address floats too or did
    until now, gives way: BIRD's routes and the agent's. Nothing else does, above all no pod's own route.

    Raise DataplaneError, which names what stands in its place."""
    tried = f"add route {route.address} dev {name}"
    if isinstance(route.address, IPv4Address):
        message = rtnetlink.add_route(host_route(route.address, route.index), tried)
    else:
        message = inet6.route(route.index, (IPv6Network(route.address), None), RTPROT_TORTIE, tried)
    try:
        sock.request(message)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
        if route in host_routes(sock, route.address.version, route.index):
            return False
        if isinstance(route.address, IPv4Address) and _leads_to_another_node(sock, route.address):
            sock.request(rtnetlink.replace_route(host_route(route.address, route.index), tried))
            return True
        raise DataplaneError(
            f"the floating address {route.address} is routed to {_holder(sock, route.address)} already; "
            "remove that route, or choose another address"
        ) from error
    return True


def _leads_to_another_node(sock: Socket, address: IPv4Address) -> bool:
    names = {link.index: link.name for link in rtnetlink.links(sock)}
    there = IPv4Network(address)
    in_place = [item for item in rtnetlink.routes(sock) if item.destination == there and not item.priority]
    return bool(in_place) and all(
        item.protocol in (RTPROT_BIRD, RTPROT_TORTIE)
        and item.type == RTN_UNICAST
        and not names.get(item.index, INTERFACE_PREFIX).startswith(INTERFACE_PREFIX)
        for item in in_place
    )


def _holder(sock: Socket, address: Address) -> str:
    names = {link.index: link.name for link in rtnetlink.links(sock)}
    if isinstance(address, IPv4Address):
        indexes = [item.index for item in rtnetlink.routes(sock) if item.destination == IPv4Network(address)]
    else:
        there = IPv6Network(address)
        indexes = [index for index in names if any(route == there for route, _ in inet6.routes(sock, index))]
    return " and ".join(names.get(index, "no device") for index in indexes) or "another place"
