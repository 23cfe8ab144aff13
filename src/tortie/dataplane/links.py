"""Tunnel devices: what has to change so that tunl0 and vxlan.calico are as desired. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from tortie.dataplane.rtnetlink import (
    CONF_NAMES,
    FORWARDING,
    RP_FILTER,
    RP_FILTER_LOOSE,
    Address,
    ForwardingEntry,
    Link,
    Neighbour,
    VXLANAttributes,
)
from tortie.model.constants import IPIP_DEVICE, VXLAN_DEVICE
from tortie.routing.state import IPIPTunnel, VXLANPeer, VXLANTunnel

# A tunnelled packet may come from a peer that this node answers through another device (cross-subnet), so the
# strict reverse path check would drop good packets. The kernel takes the larger of this and conf.all.
TUNNEL_CONF: Mapping[int, int] = {FORWARDING: 1, RP_FILTER: RP_FILTER_LOOSE}


@dataclass(frozen=True, slots=True)
class CreateIPIP:
    """Make the kernel provide tunl0."""

    def __str__(self) -> str:
        return f"create device {IPIP_DEVICE}"


@dataclass(frozen=True, slots=True)
class CreateVXLAN:
    """Make vxlan.calico."""

    tunnel: VXLANTunnel

    def __str__(self) -> str:
        tunnel = self.tunnel
        return (
            f"create device {VXLAN_DEVICE}: VNI {tunnel.vni}, UDP port {tunnel.port}, "
            f"{tunnel.local} on {tunnel.parent}, MAC {tunnel.mac}, MTU {tunnel.mtu}"
        )


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """Delete a device, and with it its addresses, routes and entries."""

    device: str

    def __str__(self) -> str:
        return f"delete device {self.device}"


@dataclass(frozen=True, slots=True)
class ConfigureLink:
    """Change properties of a device; None or empty leaves one alone."""

    device: str
    mtu: int | None = None
    up: bool | None = None
    conf: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        parts = [f"MTU {self.mtu}"] if self.mtu is not None else []
        parts += [f"{CONF_NAMES[kind]} {value}" for kind, value in self.conf]
        if self.up is not None:
            parts.append("up" if self.up else "down")
        return f"set device {self.device}: " + ", ".join(parts)


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Put an address on a device."""

    device: str
    interface: IPv4Interface

    def __str__(self) -> str:
        return f"add address {self.interface} to {self.device}"


@dataclass(frozen=True, slots=True)
class DeleteAddress:
    """Take an address from a device."""

    device: str
    interface: IPv4Interface

    def __str__(self) -> str:
        return f"delete address {self.interface} from {self.device}"


@dataclass(frozen=True, slots=True)
class SetNeighbour:
    """A permanent ARP entry."""

    device: str
    address: IPv4Address
    mac: str

    def __str__(self) -> str:
        return f"set neighbour {self.address} at {self.mac} on {self.device}"


@dataclass(frozen=True, slots=True)
class DeleteNeighbour:
    """Remove an ARP entry."""

    device: str
    address: IPv4Address
    mac: str

    def __str__(self) -> str:
        return f"delete neighbour {self.address} from {self.device}"


@dataclass(frozen=True, slots=True)
class SetForwarding:
    """A permanent VXLAN forwarding entry."""

    device: str
    mac: str
    node: IPv4Address

    def __str__(self) -> str:
        return f"set forwarding of {self.mac} to {self.node} on {self.device}"


@dataclass(frozen=True, slots=True)
class DeleteForwarding:
    """Remove a VXLAN forwarding entry."""

    device: str
    mac: str
    node: IPv4Address

    def __str__(self) -> str:
        return f"delete forwarding of {self.mac} to {self.node} from {self.device}"


DeviceChange = CreateIPIP | CreateVXLAN | DeleteLink | ConfigureLink | AddAddress
EntryChange = SetNeighbour | SetForwarding
Removal = DeleteNeighbour | DeleteForwarding | DeleteAddress | ConfigureLink | DeleteLink


def vxlan_is_usable(link: Link, tunnel: VXLANTunnel, links: Mapping[str, Link]) -> bool:
    """Whether the device differs from the desired one at most in what can be changed in place."""
    parent = links.get(tunnel.parent)
    wanted = VXLANAttributes(tunnel.vni, tunnel.port, tunnel.local, parent.index if parent else -1, False)
    return link.kind == "vxlan" and link.vxlan == wanted and link.mac == tunnel.mac.lower()


def ipip_changes(
    links: Mapping[str, Link], addresses: Sequence[Address], tunnel: IPIPTunnel
) -> Iterator[DeviceChange]:
    """Make tunl0 as desired. Surplus addresses are removed later, by `surplus_addresses`."""
    link = links.get(IPIP_DEVICE)
    if link is None:
        yield CreateIPIP()
    yield from _properties(IPIP_DEVICE, link, addresses, tunnel.mtu, tunnel.address)


def vxlan_changes(
    links: Mapping[str, Link], addresses: Sequence[Address], tunnel: VXLANTunnel
) -> Iterator[DeviceChange]:
    """Make vxlan.calico as desired; a device that cannot be changed into it is replaced."""
    link = links.get(VXLAN_DEVICE)
    if link is not None and not vxlan_is_usable(link, tunnel, links):
        yield DeleteLink(VXLAN_DEVICE)
        link = None
    if link is None:
        yield CreateVXLAN(tunnel)
    yield from _properties(VXLAN_DEVICE, link, addresses, tunnel.mtu, tunnel.address)


def _properties(
    device: str, link: Link | None, addresses: Sequence[Address], mtu: int, address: IPv4Address
) -> Iterator[DeviceChange]:
    conf = tuple(
        (kind, value) for kind, value in TUNNEL_CONF.items() if link is None or link.conf.get(kind) != value
    )
    wrong_mtu = link is None or link.mtu != mtu
    down = link is None or not link.up
    if wrong_mtu or down or conf:
        yield ConfigureLink(device, mtu if wrong_mtu else None, True if down else None, conf)
    wanted = IPv4Interface((address, 32))
    if link is None or Address(link.index, wanted) not in addresses:
        yield AddAddress(device, wanted)


def surplus_addresses(
    link: Link, addresses: Sequence[Address], wanted: IPv4Address | None
) -> Iterator[DeleteAddress]:
    """Addresses of one of our tunnel devices other than the desired /32."""
    for address in addresses:
        if address.index == link.index and (
            wanted is None or address.interface != IPv4Interface((wanted, 32))
        ):
            yield DeleteAddress(link.name, address.interface)


def entry_changes(
    peers: Sequence[VXLANPeer], neighbours: Sequence[Neighbour], forwarding: Sequence[ForwardingEntry]
) -> Iterator[EntryChange]:
    """Neighbours and forwarding entries that are missing, wrong or not permanent."""
    known = {(entry.address, entry.mac) for entry in neighbours if entry.permanent}
    forwarded = {(entry.mac, entry.destination) for entry in forwarding if entry.permanent}
    for peer in peers:
        mac = peer.mac.lower()
        if (mac, peer.node) not in forwarded:
            yield SetForwarding(VXLAN_DEVICE, mac, peer.node)
        if (peer.address, mac) not in known:
            yield SetNeighbour(VXLAN_DEVICE, peer.address, mac)


def entry_removals(
    peers: Sequence[VXLANPeer], neighbours: Sequence[Neighbour], forwarding: Sequence[ForwardingEntry]
) -> Iterator[Removal]:
    """Neighbours and forwarding entries of vxlan.calico that belong to no peer."""
    addresses = {peer.address for peer in peers}
    nodes = {(peer.mac.lower(), peer.node) for peer in peers}
    # Setting an entry replaces the one of the same hardware address; what is left over is removed.
    known = {(entry.mac, entry.destination) for entry in forwarding if entry.permanent}
    replaced = {mac for mac, node in nodes if (mac, node) not in known}
    for neighbour in neighbours:
        if neighbour.address not in addresses:
            yield DeleteNeighbour(VXLAN_DEVICE, neighbour.address, neighbour.mac)
    for entry in forwarding:
        if (entry.mac, entry.destination) not in nodes and entry.mac not in replaced:
            yield DeleteForwarding(VXLAN_DEVICE, entry.mac, entry.destination)
