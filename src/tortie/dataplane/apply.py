"""The dataplane: read the kernel, plan, and carry the plan out."""

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from tortie.dataplane import links as devices
from tortie.dataplane import masquerade, rtnetlink
from tortie.dataplane.netlink import DataplaneError, Message, NetlinkError, Socket
from tortie.dataplane.plan import KernelState, Plan, plan
from tortie.dataplane.routes import DeleteRoute, SetRoute, to_kernel
from tortie.dataplane.rtnetlink import KernelRoute, Link, VXLANAttributes
from tortie.model.constants import IPIP_DEVICE, RTPROT_TORTIE, VXLAN_DEVICE
from tortie.routing.state import NodeState

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
# The kernel may change beneath a plan (a device flaps, BIRD writes): read, plan and apply again this often.
ROUNDS = 3
ERRORS_SHOWN = 5


class MissingDeviceError(DataplaneError):
    """A change needs a device that the node does not have."""


class ApplyError(DataplaneError):
    """Some of the state could not be applied. `errors` says what, `changes` all that was tried."""

    def __init__(self, errors: Sequence[DataplaneError], changes: Sequence[str]) -> None:
        more = f"; and {len(errors) - ERRORS_SHOWN} more" if len(errors) > ERRORS_SHOWN else ""
        super().__init__("; ".join(str(error) for error in errors[:ERRORS_SHOWN]) + more)
        self.errors = tuple(errors)
        self.changes = tuple(changes)


@dataclass(frozen=True, slots=True)
class HostInterface:
    """A device of the node with its IPv4 addresses, in kernel order."""

    name: str
    index: int
    mtu: int
    up: bool
    addresses: tuple[IPv4Interface, ...]


class Dataplane:
    """The kernel's network state of the calling thread's namespace. One thread at a time."""

    def host_links(self) -> list[HostInterface]:
        """All devices with their addresses, in kernel order. Raise DataplaneError."""
        with Socket() as sock:
            links, addresses = rtnetlink.links(sock), rtnetlink.addresses(sock)
        return [
            HostInterface(
                link.name,
                link.index,
                link.mtu,
                link.up,
                tuple(address.interface for address in addresses if address.index == link.index),
            )
            for link in links
        ]

    def read(self) -> KernelState:
        """What the kernel holds. Raise DataplaneError."""
        with Socket() as sock:
            return _read(sock)

    def apply(self, state: NodeState) -> list[str]:
        """Make the kernel hold `state` and nothing else of ours; return one sentence for each change made.

        Raise ApplyError when part of it was refused; the rest is applied nevertheless.
        """
        changes: list[str] = []
        with Socket() as sock:
            for _ in range(ROUNDS):
                steps = plan(_read(sock), state)
                if not steps:
                    return changes
                errors = _execute(sock, steps)
                changes += steps.changes()
                if errors:
                    raise ApplyError(errors, changes)
                if steps.only_entries:
                    return changes  # the kernel acknowledged each, and none of them undoes another
            rest = plan(_read(sock), state)
        if rest:
            sentence = "the kernel does not keep what was set: " + "; ".join(rest.changes())
            raise ApplyError([DataplaneError(sentence)], changes)
        return changes


def _read(sock: Socket) -> KernelState:
    links = {link.name: link for link in rtnetlink.links(sock)}
    routes = rtnetlink.routes(sock, protocol=RTPROT_TORTIE)
    vxlan = links.get(VXLAN_DEVICE)
    if vxlan is not None:
        on_device = rtnetlink.routes(sock, index=vxlan.index)
        routes += [route for route in on_device if route.protocol != RTPROT_TORTIE]
    return KernelState(
        links=links,
        addresses=tuple(rtnetlink.addresses(sock)),
        routes=tuple(routes),
        neighbours=tuple(rtnetlink.neighbours(sock, vxlan.index)) if vxlan else (),
        forwarding=tuple(rtnetlink.forwarding(sock, vxlan.index)) if vxlan else (),
        ip_forward=IP_FORWARD.read_text(encoding="ascii").strip() == "1",
        masquerade=masquerade.read(),
    )


def _execute(sock: Socket, steps: Plan) -> list[DataplaneError]:
    """Carry out a plan; return what failed."""
    errors: list[DataplaneError] = []
    if steps.forwarding is not None:
        errors += _enable_forwarding()
    for change in steps.devices:
        errors += _change_device(sock, change)
    links = {link.name: link for link in rtnetlink.links(sock)}
    errors += _send(sock, steps.entries, links)
    if steps.masquerade is not None:
        try:
            masquerade.load(steps.masquerade.masquerade)
        except DataplaneError as error:
            errors.append(error)
    errors += _with_conflicts(sock, _send(sock, steps.routes, links))
    errors += _send(sock, steps.removals, links)
    # A device that could not be made is one error, not one for each route that needed it.
    causes = [error for error in errors if not isinstance(error, MissingDeviceError)]
    return causes or errors


def _enable_forwarding() -> list[DataplaneError]:
    try:
        IP_FORWARD.write_text("1\n", encoding="ascii")
    except OSError as error:
        return [DataplaneError(f"set net.ipv4.ip_forward to 1: {error.strerror}; set it on the node by hand")]
    return []


def _change_device(sock: Socket, change: devices.DeviceChange) -> list[DataplaneError]:
    """One change of a tunnel device, which later changes build on: devices are looked up afresh."""
    links = {link.name: link for link in rtnetlink.links(sock)}
    try:
        sock.request(_message(change, links))
    except NetlinkError as error:
        if isinstance(change, devices.CreateIPIP) and error.code == errno.EEXIST:
            return []  # loading the module brought tunl0, which is what was wanted
        return [_explained(error, change)]
    except DataplaneError as error:
        return [error]
    return []


def _explained(error: NetlinkError, change: devices.DeviceChange) -> DataplaneError:
    """The kernel's error with what to do about it, where that is known."""
    if error.code == errno.EOPNOTSUPP and isinstance(change, devices.CreateIPIP):
        return DataplaneError(
            f"this node's kernel has no IP-in-IP (module ipip), so {IPIP_DEVICE} cannot be made; "
            f"install the module, or choose the encapsulation vxlan or none for the pool ({error})"
        )
    if error.code == errno.EOPNOTSUPP and isinstance(change, devices.CreateVXLAN):
        return DataplaneError(
            f"this node's kernel has no VXLAN (module vxlan), so {VXLAN_DEVICE} cannot be made; "
            f"install the module, or choose the encapsulation ipip or none for the pool ({error})"
        )
    if error.code == errno.EEXIST and isinstance(change, devices.CreateVXLAN):
        return DataplaneError(
            f"another VXLAN device holds VNI {change.tunnel.vni} and UDP port {change.tunnel.port}; "
            f"remove it, or give it another VNI ({error})"
        )
    return error


def _send(sock: Socket, steps: Iterable[object], links: Mapping[str, Link]) -> list[DataplaneError]:
    errors: list[DataplaneError] = []
    messages: list[Message] = []
    for step in steps:
        try:
            messages.append(_message(step, links))
        except DataplaneError as error:
            errors.append(error)
    return [*errors, *sock.batch(messages)]


def _with_conflicts(sock: Socket, errors: list[DataplaneError]) -> list[DataplaneError]:
    """Name the route in the way where a route of ours found its place taken by somebody else's."""
    if not any(isinstance(error, NetlinkError) and error.code == errno.EEXIST for error in errors):
        return errors
    taken = {_attempt(route.destination): route for route in rtnetlink.routes(sock) if not route.priority}
    return [
        DataplaneError(f"{error}; {_foreign(taken[error.tried])}")
        if isinstance(error, NetlinkError) and error.code == errno.EEXIST and error.tried in taken
        else error
        for error in errors
    ]


def _attempt(destination: IPv4Network) -> str:
    return f"set route to {destination}"


def _foreign(route: KernelRoute) -> str:
    gateway = f" via {route.gateway}" if route.gateway else ""
    return f"in its place is one{gateway} of protocol {route.protocol}, which is not ours: remove it"


def _index(links: Mapping[str, Link], device: str, tried: object) -> int:
    if device not in links:
        raise MissingDeviceError(f"{tried}: there is no device {device} on this node")
    return links[device].index


def _message(step: object, links: Mapping[str, Link]) -> Message:
    """The request for one change. Raise DataplaneError when a device that it needs is not there."""
    match step:
        case devices.CreateIPIP():
            return rtnetlink.create_ipip(IPIP_DEVICE)
        case devices.CreateVXLAN(tunnel):
            if tunnel.parent not in links:
                raise DataplaneError(
                    f"{step}: there is no device {tunnel.parent} on this node to send through"
                )
            parent = links[tunnel.parent].index
            settings = VXLANAttributes(tunnel.vni, tunnel.port, tunnel.local, parent, learning=False)
            return rtnetlink.create_vxlan(VXLAN_DEVICE, tunnel.mac, tunnel.mtu, settings)
        case devices.DeleteLink(device):
            return rtnetlink.delete_link(_index(links, device, step), device)
        case devices.ConfigureLink(device, mtu, up, conf):
            index = _index(links, device, step)
            return rtnetlink.set_link(index, device, mtu=mtu, up=up, conf=dict(conf))
        case devices.AddAddress(device, interface):
            return rtnetlink.add_address(_index(links, device, step), device, interface)
        case devices.DeleteAddress(device, interface):
            return rtnetlink.delete_address(_index(links, device, step), device, interface)
        case devices.SetNeighbour(device, address, mac):
            return rtnetlink.replace_neighbour(_index(links, device, step), device, address, mac)
        case devices.DeleteNeighbour(device, address, mac):
            return rtnetlink.delete_neighbour(_index(links, device, step), device, address, mac)
        case devices.SetForwarding(device, mac, node):
            return rtnetlink.replace_forwarding(_index(links, device, step), device, mac, node)
        case devices.DeleteForwarding(device, mac, node):
            return rtnetlink.delete_forwarding(_index(links, device, step), device, mac, node)
        case SetRoute(route, replace):
            index = 0 if route.kind == "blackhole" else _index(links, route.device, step)
            wanted, tried = to_kernel(route, index), _attempt(route.destination)
            return rtnetlink.replace_route(wanted, tried) if replace else rtnetlink.add_route(wanted, tried)
        case DeleteRoute(route):
            return rtnetlink.delete_route(route, str(step))
    raise DataplaneError(f"no such change: {step!r}")
