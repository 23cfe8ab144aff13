"""ARP entries, and forwarding entries of VXLAN: rtnetlink messages in and plain values out.

Formats and numbers: linux/rtnetlink.h, linux/neighbour.h.
"""

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from tortie.dataplane.netlink import (
    NLM_F_CREATE,
    NLM_F_REPLACE,
    Message,
    Socket,
    attribute,
    attributes,
    u32,
)
from tortie.dataplane.rtnetlink_links import mac_bytes, mac_text

AF_BRIDGE = 7
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

NDA_DST, NDA_LLADDR, NDA_IFINDEX = 1, 2, 8
NUD_PERMANENT = 0x80
NTF_SELF = 0x02

_NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An ARP entry: `address` is at `mac`."""

    index: int
    address: IPv4Address
    mac: str
    permanent: bool = True


@dataclass(frozen=True, slots=True)
class ForwardingEntry:
    """A VXLAN forwarding entry: frames for `mac` go to the node at `destination`."""

    index: int
    mac: str
    destination: IPv4Address
    permanent: bool = True


def _neighbour(
    kind: int, flags: int, family: int, index: int, entry: tuple[IPv4Address, str], tried: str
) -> Message:
    address, mac = entry
    header = _NDMSG.pack(family, index, NUD_PERMANENT, NTF_SELF if family == AF_BRIDGE else 0, 0)
    body = header + attribute(NDA_DST, address.packed) + attribute(NDA_LLADDR, mac_bytes(mac))
    return Message(kind, flags, body, tried)


def replace_neighbour(index: int, name: str, address: IPv4Address, mac: str) -> Message:
    """A permanent ARP entry."""
    tried = f"set neighbour {address} at {mac} on {name}"
    return _neighbour(
        RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, socket.AF_INET, index, (address, mac), tried
    )


def delete_neighbour(index: int, name: str, address: IPv4Address, mac: str) -> Message:
    """Remove an ARP entry."""
    tried = f"delete neighbour {address} from {name}"
    return _neighbour(RTM_DELNEIGH, 0, socket.AF_INET, index, (address, mac), tried)


def replace_forwarding(index: int, name: str, mac: str, destination: IPv4Address) -> Message:
    """A permanent VXLAN forwarding entry, the only one for this hardware address."""
    tried = f"set forwarding of {mac} to {destination} on {name}"
    return _neighbour(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, AF_BRIDGE, index, (destination, mac), tried)


def delete_forwarding(index: int, name: str, mac: str, destination: IPv4Address) -> Message:
    """Remove a VXLAN forwarding entry."""
    tried = f"delete forwarding of {mac} to {destination} from {name}"
    return _neighbour(RTM_DELNEIGH, 0, AF_BRIDGE, index, (destination, mac), tried)


def neighbours(sock: Socket, index: int) -> list[Neighbour]:
    """ARP entries of one device that have a hardware address."""
    body = _NDMSG.pack(socket.AF_INET, 0, 0, 0, 0) + u32(NDA_IFINDEX, index)
    return [
        Neighbour(index, address, mac, permanent)
        for found, address, mac, permanent in _entries(sock, body, "list neighbours")
        if found == index
    ]


def forwarding(sock: Socket, index: int) -> list[ForwardingEntry]:
    """Forwarding entries of one VXLAN device that name a destination."""
    body = _NDMSG.pack(AF_BRIDGE, 0, 0, 0, 0)
    return [
        ForwardingEntry(index, mac, address, permanent)
        for found, address, mac, permanent in _entries(sock, body, "list forwarding entries")
        if found == index
    ]


def _entries(sock: Socket, body: bytes, tried: str) -> list[tuple[int, IPv4Address, str, bool]]:
    found: list[tuple[int, IPv4Address, str, bool]] = []
    for _, payload in sock.dump(RTM_GETNEIGH, body, tried):
        _family, index, state, _flags, _type = _NDMSG.unpack_from(payload)
        values = attributes(payload[_NDMSG.size :])
        destination, mac = values.get(NDA_DST, b""), values.get(NDA_LLADDR, b"")
        if len(destination) == 4 and mac:
            permanent = bool(state & NUD_PERMANENT)
            found.append((index, IPv4Address(destination), mac_text(mac), permanent))
    return found
