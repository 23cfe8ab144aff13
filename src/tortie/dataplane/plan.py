"""From the kernel as it is to the node as it should be: an ordered list of changes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tortie.dataplane import links as devices
from tortie.dataplane.links import DeviceChange, EntryChange, Removal
from tortie.dataplane.masquerade import LoadedMasquerade, SetMasquerade, change
from tortie.dataplane.routes import DeleteRoute, SetRoute, route_changes
from tortie.dataplane.rtnetlink import Address, ForwardingEntry, KernelRoute, Link, Neighbour
from tortie.model.constants import IPIP_DEVICE, VXLAN_DEVICE
from tortie.routing.state import NodeState, Route


@dataclass(frozen=True, slots=True)
class KernelState:
    """What the kernel holds, as far as it concerns the plan. Entries are those of vxlan.calico."""

    links: Mapping[str, Link] = field(default_factory=dict)
    addresses: tuple[Address, ...] = ()
    routes: tuple[KernelRoute, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    forwarding: tuple[ForwardingEntry, ...] = ()
    ip_forward: bool = True
    masquerade: LoadedMasquerade = field(default_factory=LoadedMasquerade)


@dataclass(frozen=True, slots=True)
class EnableForwarding:
    """net.ipv4.ip_forward=1."""

    def __str__(self) -> str:
        return "set net.ipv4.ip_forward to 1"


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes by stage, in the order of execution: nothing is removed before its successor stands."""

    forwarding: EnableForwarding | None = None
    devices: tuple[DeviceChange, ...] = ()
    entries: tuple[EntryChange, ...] = ()
    masquerade: SetMasquerade | None = None
    routes: tuple[SetRoute | DeleteRoute, ...] = ()
    removals: tuple[Removal, ...] = ()

    @property
    def only_entries(self) -> bool:
        """Whether it leaves devices and tables alone. A device that goes down takes its routes with it."""
        return not (self.forwarding or self.devices or self.masquerade or self.removals)

    def changes(self) -> list[str]:
        """One sentence for each change."""
        single = [step for step in (self.forwarding, self.masquerade) if step is not None]
        return [str(step) for step in (*single, *self.devices, *self.entries, *self.routes, *self.removals)]

    def __bool__(self) -> bool:
        stages = (self.devices, self.entries, self.routes, self.removals)
        return self.forwarding is not None or self.masquerade is not None or any(stages)


def plan(current: KernelState, desired: NodeState) -> Plan:
    """The changes that make the kernel hold `desired` and nothing else of ours."""
    links = _surviving_links(current, desired)
    vxlan_stays = VXLAN_DEVICE in links
    peers = sorted(desired.vxlan_peers) if desired.vxlan else []
    neighbours = current.neighbours if vxlan_stays else ()
    forwarding = current.forwarding if vxlan_stays else ()
    lost = current.links[VXLAN_DEVICE].index if VXLAN_DEVICE in current.links and not vxlan_stays else -1
    routes = [route for route in current.routes if route.index != lost]
    return Plan(
        forwarding=None if current.ip_forward else EnableForwarding(),
        devices=_device_changes(current, desired),
        entries=tuple(devices.entry_changes(peers, neighbours, forwarding)) if desired.vxlan else (),
        masquerade=change(current.masquerade, desired.masquerade),
        routes=tuple(route_changes(routes, sorted(desired.routes, key=_place), links)),
        removals=_removals(current, desired, links),
    )


def _place(route: Route) -> tuple[int, int, str, str]:
    """A key to sort routes by; numbers, for there may be thousands."""
    network = route.destination
    return int(network.network_address), network.prefixlen, route.kind, route.device


def _surviving_links(current: KernelState, desired: NodeState) -> dict[str, Link]:
    """Devices without a vxlan.calico that is replaced first: what is on it is gone when the rest is done."""
    links = dict(current.links)
    old = links.get(VXLAN_DEVICE)
    if (
        old is not None
        and desired.vxlan is not None
        and not devices.vxlan_is_usable(old, desired.vxlan, links)
    ):
        del links[VXLAN_DEVICE]
    return links


def _device_changes(current: KernelState, desired: NodeState) -> tuple[DeviceChange, ...]:
    changes: list[DeviceChange] = []
    if desired.ipip is not None:
        changes += devices.ipip_changes(current.links, current.addresses, desired.ipip)
    if desired.vxlan is not None:
        changes += devices.vxlan_changes(current.links, current.addresses, desired.vxlan)
    return tuple(changes)


def _removals(current: KernelState, desired: NodeState, links: Mapping[str, Link]) -> tuple[Removal, ...]:
    removals: list[Removal] = []
    if VXLAN_DEVICE in links and desired.vxlan is not None:
        peers = sorted(desired.vxlan_peers)
        removals += devices.entry_removals(peers, current.neighbours, current.forwarding)
        removals += devices.surplus_addresses(links[VXLAN_DEVICE], current.addresses, desired.vxlan.address)
    elif VXLAN_DEVICE in links:
        removals.append(devices.DeleteLink(VXLAN_DEVICE))
    tunnel = links.get(IPIP_DEVICE)
    if tunnel is not None:
        wanted = desired.ipip.address if desired.ipip else None
        removals += devices.surplus_addresses(tunnel, current.addresses, wanted)
        # The device belongs to the kernel and cannot be deleted; down, it carries nothing.
        if desired.ipip is None and tunnel.up:
            removals.append(devices.ConfigureLink(IPIP_DEVICE, up=False))
    return tuple(removals)
