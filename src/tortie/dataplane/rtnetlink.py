"""Links, addresses, routes, neighbours and forwarding entries: rtnetlink messages in and plain values out.

Formats and numbers: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/neighbour.h, linux/ip.h.
"""

import errno
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from tortie.dataplane.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    NetlinkError,
    Socket,
    as_text,
    as_u32,
    attribute,
    attributes,
    nested,
    text,
    u32,
)

AF_BRIDGE = 7
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_SETNEIGHTBL = 67

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_LINKINFO = 1, 3, 4, 5, 18
IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD = 20, 26, 27, 28
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_INET_CONF = 1
IFLA_VXLAN_ID, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL = 1, 3, 4
IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT = 7, 15
VETH_INFO_PEER = 1
IFF_UP = 0x1

IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15
RT_TABLE_MAIN = 254
RTN_UNICAST, RTN_BLACKHOLE = 1, 6
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTPROT_KERNEL = 2
RTM_F_CLONED = 0x200
RTNH_F_ONLINK = 4

NDA_DST, NDA_LLADDR, NDA_IFINDEX = 1, 2, 8
NUD_PERMANENT = 0x80
NTF_SELF = 0x02
NDTA_NAME, NDTA_PARMS = 1, 6
NDTPA_IFINDEX, NDTPA_PROXY_DELAY = 1, 13

# Per-device settings, net.ipv4.conf.<device>.* (IPV4_DEVCONF_* of linux/ip.h).
FORWARDING, PROXY_ARP, RP_FILTER, ROUTE_LOCALNET = 1, 3, 8, 26
CONF_NAMES: Mapping[int, str] = {
    FORWARDING: "forwarding",
    PROXY_ARP: "proxy_arp",
    RP_FILTER: "rp_filter",
    ROUTE_LOCALNET: "route_localnet",
}
RP_FILTER_LOOSE = 2

_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct(
    "=BBBBBBBBI"
)  # family, dst length, src length, tos, table, protocol, scope, type, flags
_NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_NDTMSG = struct.Struct("=Bxxx")


@dataclass(frozen=True, slots=True)
class VXLANAttributes:
    """What distinguishes one VXLAN device from another. `parent` is an interface index, 0 for none."""

    vni: int
    port: int
    local: IPv4Address | None
    parent: int
    learning: bool


@dataclass(frozen=True, slots=True)
class Link:
    """A network device. `peer` is IFLA_LINK: a veth's other end, or the device underneath; 0 for none."""

    index: int
    name: str
    mtu: int
    up: bool
    mac: str = ""
    kind: str = ""
    alias: str = ""
    group: int = 0
    peer: int = 0
    vxlan: VXLANAttributes | None = None
    conf: Mapping[int, int] = field(default_factory=dict)  # IPV4_DEVCONF_* to value, those of CONF_NAMES


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


def mac_bytes(mac: str) -> bytes:
    """Six bytes of a colon-separated hardware address. Raise ValueError when it is not one."""
    octets = bytes(int(part, 16) for part in mac.split(":"))
    if len(octets) != 6:
        raise ValueError(f"hardware address {mac!r} must have six octets")
    return octets


def mac_text(octets: bytes) -> str:
    """Lower case, colon separated."""
    return octets.hex(":") if octets else ""


# --- links -------------------------------------------------------------------------------------------------


def _ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, flags, change)


def _up_flags(up: bool | None) -> tuple[int, int]:
    return (0, 0) if up is None else (IFF_UP if up else 0, IFF_UP)


def devconf(values: Mapping[int, int]) -> bytes:
    """IFLA_AF_SPEC that sets net.ipv4.conf values. The kernel ignores it while a device is made."""
    settings = [u32(kind, value) for kind, value in values.items()]
    return nested(IFLA_AF_SPEC, nested(socket.AF_INET, nested(IFLA_INET_CONF, *settings)))


def create_veth(*, name: str, mac: str, mtu: int, peer: str, peer_mac: str | None, namespace: int) -> Message:
    """A veth pair whose other end `peer` is made inside the namespace behind descriptor `namespace`."""
    other = _ifinfo() + text(IFLA_IFNAME, peer) + u32(IFLA_MTU, mtu) + u32(IFLA_NET_NS_FD, namespace)
    if peer_mac is not None:
        other += attribute(IFLA_ADDRESS, mac_bytes(peer_mac))
    body = (
        _ifinfo()
        + text(IFLA_IFNAME, name)
        + u32(IFLA_MTU, mtu)
        + attribute(IFLA_ADDRESS, mac_bytes(mac))
        + nested(
            IFLA_LINKINFO,
            text(IFLA_INFO_KIND, "veth"),
            nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, other)),
        )
    )
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create veth {name} with peer {peer}")


def create_vxlan(name: str, mac: str, mtu: int, settings: VXLANAttributes) -> Message:
    """A VXLAN device without learning or default destination: it sends only where forwarding entries say."""
    data = [
        u32(IFLA_VXLAN_ID, settings.vni),
        u32(IFLA_VXLAN_LINK, settings.parent),
        attribute(IFLA_VXLAN_LEARNING, bytes([settings.learning])),
        attribute(IFLA_VXLAN_PORT, struct.pack("!H", settings.port)),
    ]
    if settings.local is not None:
        data.append(attribute(IFLA_VXLAN_LOCAL, settings.local.packed))
    body = (
        _ifinfo()
        + text(IFLA_IFNAME, name)
        + u32(IFLA_MTU, mtu)
        + attribute(IFLA_ADDRESS, mac_bytes(mac))
        + nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "vxlan"), nested(IFLA_INFO_DATA, *data))
    )
    tried = f"create device {name} (VXLAN, VNI {settings.vni}, UDP port {settings.port})"
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, tried)


def create_ipip(name: str) -> Message:
    """An IP-in-IP device without end points. The kernel loads the module, whose own tunl0 may come first."""
    body = _ifinfo() + text(IFLA_IFNAME, name) + nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "ipip"))
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create device {name} (IP-in-IP)")


def set_link(
    index: int,
    name: str,
    *,
    mtu: int | None = None,
    up: bool | None = None,
    alias: str | None = None,
    group: int | None = None,
    conf: Mapping[int, int] | None = None,
) -> Message:
    """Change a device; None leaves a property alone. `name` is only for the error's sentence."""
    flags, change = _up_flags(up)
    body = _ifinfo(index, flags, change)
    if mtu is not None:
        body += u32(IFLA_MTU, mtu)
    if alias is not None:
        body += attribute(IFLA_IFALIAS, alias.encode())
    if group is not None:
        body += u32(IFLA_GROUP, group)
    if conf:
        body += devconf(conf)
    wanted = {"mtu": mtu, "up": up, "alias": alias, "group": group, "settings": conf}
    changes = ", ".join(f"{key} {value}" for key, value in wanted.items() if value is not None)
    return Message(RTM_NEWLINK, 0, body, f"set device {name}: {changes}")


def delete_link(index: int, name: str) -> Message:
    """Delete a device; a veth takes its other end along."""
    return Message(RTM_DELLINK, 0, _ifinfo(index), f"delete device {name}")


def delete_group(group: int) -> Message:
    """Delete all devices of a group: the kernel waits for its grace periods once, not once per device."""
    return Message(RTM_DELLINK, 0, _ifinfo() + u32(IFLA_GROUP, group), f"delete devices of group {group}")


def set_proxy_delay(index: int, name: str, milliseconds: int) -> Message:
    """net.ipv4.neigh.<device>.proxy_delay: how long proxy ARP answers wait at random."""
    parameters = (u32(NDTPA_IFINDEX, index), attribute(NDTPA_PROXY_DELAY, struct.pack("=Q", milliseconds)))
    body = _NDTMSG.pack(socket.AF_INET) + text(NDTA_NAME, "arp_cache") + nested(NDTA_PARMS, *parameters)
    return Message(RTM_SETNEIGHTBL, NLM_F_REPLACE, body, f"set proxy_delay {milliseconds} ms on {name}")


def links(sock: Socket) -> list[Link]:
    """All devices of the namespace, in kernel order."""
    return [_link(payload) for _, payload in sock.dump(RTM_GETLINK, _ifinfo(), "list devices")]


def link_by_name(sock: Socket, name: str) -> Link:
    """One device. Raise NetlinkError with code ENODEV when there is none."""
    return _link(sock.get(RTM_GETLINK, _ifinfo() + text(IFLA_IFNAME, name), f"look up device {name}"))


def _link(payload: bytes) -> Link:
    _family, _type, index, flags, _change = _IFINFOMSG.unpack_from(payload)
    found = attributes(payload[_IFINFOMSG.size :])
    info = attributes(found.get(IFLA_LINKINFO, b""))
    kind = as_text(info.get(IFLA_INFO_KIND, b""))
    return Link(
        index=index,
        name=as_text(found[IFLA_IFNAME]),
        mtu=as_u32(found[IFLA_MTU]),
        up=bool(flags & IFF_UP),
        mac=mac_text(found.get(IFLA_ADDRESS, b"")),
        kind=kind,
        alias=as_text(found.get(IFLA_IFALIAS, b"")),
        group=as_u32(found[IFLA_GROUP]) if IFLA_GROUP in found else 0,
        peer=as_u32(found[IFLA_LINK]) if IFLA_LINK in found else 0,
        vxlan=_vxlan(attributes(info.get(IFLA_INFO_DATA, b""))) if kind == "vxlan" else None,
        conf=_conf(found.get(IFLA_AF_SPEC, b"")),
    )


def _vxlan(data: Mapping[int, bytes]) -> VXLANAttributes:
    local = data.get(IFLA_VXLAN_LOCAL)
    return VXLANAttributes(
        vni=as_u32(data[IFLA_VXLAN_ID]),
        port=struct.unpack("!H", data[IFLA_VXLAN_PORT])[0],
        local=IPv4Address(local) if local else None,
        parent=as_u32(data[IFLA_VXLAN_LINK]) if IFLA_VXLAN_LINK in data else 0,
        learning=bool(data[IFLA_VXLAN_LEARNING][0]),
    )


def _conf(af_spec: bytes) -> dict[int, int]:
    """IFLA_INET_CONF is an array that starts with setting number 1."""
    values = attributes(attributes(af_spec).get(socket.AF_INET, b"")).get(IFLA_INET_CONF, b"")
    return {kind: as_u32(values[4 * (kind - 1) :]) for kind in CONF_NAMES if len(values) >= 4 * kind}


# --- addresses ---------------------------------------------------------------------------------------------


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


# --- routes ------------------------------------------------------------------------------------------------


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


# --- neighbours and forwarding entries ---------------------------------------------------------------------


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
