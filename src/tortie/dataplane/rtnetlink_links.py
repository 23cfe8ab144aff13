"""Links: rtnetlink messages in and plain values out.

Formats and numbers: linux/rtnetlink.h, linux/if_link.h, linux/ip.h.
"""

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

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

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_SETNEIGHTBL = 67

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_LINKINFO = 1, 3, 4, 5, 18
IFLA_OPERSTATE, IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD = 16, 20, 26, 27, 28
IFLA_EXT_MASK, IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 29, 31, 32
IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID = 37, 46
RTEXT_FILTER_SKIP_STATS = 1 << 3
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_INET_CONF = 1
IFLA_VXLAN_ID, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL = 1, 3, 4
IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT = 7, 15
VETH_INFO_PEER = 1
IFF_UP = 0x1
IF_OPER_UP = 6  # linux/if.h
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


def mac_bytes(mac: str) -> bytes:
    """Six bytes of a colon-separated hardware address. Raise ValueError when it is not one."""
    octets = bytes(int(part, 16) for part in mac.split(":"))
    if len(octets) != 6:
        raise ValueError(f"hardware address {mac!r} must have six octets")
    return octets


def mac_text(octets: bytes) -> str:
    """Lower case, colon separated."""
    return octets.hex(":") if octets else ""


def _ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, flags, change)


def _up_flags(up: bool | None) -> tuple[int, int]:
    return (0, 0) if up is None else (IFF_UP if up else 0, IFF_UP)


def devconf(values: Mapping[int, int]) -> bytes:
    """IFLA_AF_SPEC that sets net.ipv4.conf values. The kernel ignores it while a device is made."""
    settings = [u32(kind, value) for kind, value in values.items()]
    return nested(IFLA_AF_SPEC, nested(socket.AF_INET, nested(IFLA_INET_CONF, *settings)))


def create_veth(
    *, name: str, mac: str, mtu: int, peer: str, peer_mac: str | None, namespace: int, queues: int = 1
) -> Message:
    """A veth pair whose other end `peer` is made inside the namespace behind descriptor `namespace`.

    `queues` are those of the end `name`, to receive and to send. They are always said, and the peer's single
    one too: otherwise the kernel makes one for each processor and switches all but one off, which takes a
    grace period of RCU for either end (veth_init_queues), 20 ms on an idle machine with rtnl_lock held.
    """
    other = _ifinfo() + text(IFLA_IFNAME, peer) + u32(IFLA_MTU, mtu) + u32(IFLA_NET_NS_FD, namespace)
    other += _queues(1)
    if peer_mac is not None:
        other += attribute(IFLA_ADDRESS, mac_bytes(peer_mac))
    body = (
        _ifinfo()
        + text(IFLA_IFNAME, name)
        + u32(IFLA_MTU, mtu)
        + attribute(IFLA_ADDRESS, mac_bytes(mac))
        + _queues(queues)
        + nested(
            IFLA_LINKINFO,
            text(IFLA_INFO_KIND, "veth"),
            nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, other)),
        )
    )
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create veth {name} with peer {peer}")


def _queues(count: int) -> bytes:
    return u32(IFLA_NUM_TX_QUEUES, count) + u32(IFLA_NUM_RX_QUEUES, count)


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


def sends(sock: Socket, index: int) -> bool:
    """Whether the kernel has noticed a device's carrier. Until then it silently drops what the device should
    send (net/core/link_watch.c activates the queue). Since Linux 6.8 the question itself makes it notice.

    Raise NetlinkError when there is no such device.
    """
    body = _ifinfo(index) + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    found = attributes(sock.get(RTM_GETLINK, body, f"look up device {index}")[_IFINFOMSG.size :])
    return found[IFLA_OPERSTATE] == bytes([IF_OPER_UP])


def peer_mac(sock: Socket, index: int) -> str:
    """The hardware address of a veth's other end, which is in another namespace; empty when the kernel does
    not tell (before Linux 4.16) or it is gone. Raise NetlinkError when there is no such device."""
    payload = sock.get(RTM_GETLINK, _ifinfo(index), f"look up device {index}")
    found = attributes(payload[_IFINFOMSG.size :])
    if IFLA_LINK not in found or IFLA_LINK_NETNSID not in found:
        return ""
    elsewhere = attribute(IFLA_TARGET_NETNSID, found[IFLA_LINK_NETNSID])
    try:
        payload = sock.get(
            RTM_GETLINK, _ifinfo(as_u32(found[IFLA_LINK])) + elsewhere, f"look up the peer of device {index}"
        )
    except NetlinkError:
        return ""
    other = attributes(payload[_IFINFOMSG.size :])
    # An older kernel ignores what it does not know, and answers with a device of this namespace.
    return mac_text(other.get(IFLA_ADDRESS, b"")) if IFLA_TARGET_NETNSID in other else ""


def make_veth(sock: Socket, made: Message, name: str) -> tuple[int, int]:
    """Send what `create_veth` says; the indices of the end `name` and of the other one. Raise NetlinkError,
    with code EEXIST when either name is taken."""
    body = _ifinfo() + text(IFLA_IFNAME, name) + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    payload = sock.request_and_get([made], RTM_GETLINK, body, f"look up device {name}")
    index = int(_IFINFOMSG.unpack_from(payload)[2])
    other = attributes(payload[_IFINFOMSG.size :]).get(IFLA_LINK)
    # Older kernels leave out a number that is the device's own: each namespace counts for itself.
    return index, as_u32(other) if other else index


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
