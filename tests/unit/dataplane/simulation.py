"""A kernel of plain data: what the real one does with the changes of a plan."""

from dataclasses import replace

from tortie.dataplane import links as devices
from tortie.dataplane.masquerade import LoadedMasquerade
from tortie.dataplane.plan import KernelState, Plan
from tortie.dataplane.routes import DeleteRoute, SetRoute, to_kernel
from tortie.dataplane.rtnetlink import Address, ForwardingEntry, KernelRoute, Link, Neighbour, VXLANAttributes
from tortie.model.constants import VXLAN_DEVICE


def execute(state: KernelState, plan: Plan) -> KernelState:
    """The state after a plan was carried out, stage by stage. AssertionError: a kernel refuses."""
    if plan.forwarding:
        state = replace(state, ip_forward=True)
    if plan.masquerade:
        content = plan.masquerade.masquerade
        present = bool(content.sources)
        state = replace(state, masquerade=LoadedMasquerade(present, content if present else None))
    for step in (*plan.devices, *plan.entries, *plan.routes, *plan.removals):
        state = _step(state, step)
    return state


def _step(state: KernelState, step: object) -> KernelState:
    links = dict(state.links)
    match step:
        case devices.CreateIPIP():
            assert "tunl0" not in links
            links["tunl0"] = Link(index=_free(state), name="tunl0", mtu=1480, up=False, kind="ipip")
            return replace(state, links=links)
        case devices.CreateVXLAN(tunnel):
            assert VXLAN_DEVICE not in links
            settings = VXLANAttributes(
                tunnel.vni, tunnel.port, tunnel.local, links[tunnel.parent].index, False
            )
            links[VXLAN_DEVICE] = Link(
                index=_free(state),
                name=VXLAN_DEVICE,
                mtu=tunnel.mtu,
                up=False,
                mac=tunnel.mac,
                kind="vxlan",
                vxlan=settings,
            )
            return replace(state, links=links)
        case devices.DeleteLink(device):
            return _without_device(state, links.pop(device))
        case devices.ConfigureLink(device, mtu, up, conf):
            link = links[device]
            links[device] = replace(
                link,
                mtu=link.mtu if mtu is None else mtu,
                up=link.up if up is None else up,
                conf={**link.conf, **dict(conf)},
            )
            state = replace(state, links=links)
            if up is False:  # the kernel drops the routes of a device that goes down
                return replace(state, routes=tuple(item for item in state.routes if item.index != link.index))
            return state
        case devices.AddAddress(device, interface):
            address = Address(links[device].index, interface)
            assert address not in state.addresses
            return replace(state, addresses=(*state.addresses, address))
        case devices.DeleteAddress(device, interface):
            address = Address(links[device].index, interface)
            assert address in state.addresses
            return replace(state, addresses=tuple(item for item in state.addresses if item != address))
        case SetRoute() | DeleteRoute():
            return _route_step(state, step)
        case _:
            return _entry_step(state, step)


def _route_step(state: KernelState, step: SetRoute | DeleteRoute) -> KernelState:
    if isinstance(step, DeleteRoute):
        assert step.route in state.routes
        return replace(state, routes=tuple(item for item in state.routes if item != step.route))
    blackhole = step.route.kind == "blackhole"
    route = to_kernel(step.route, 0 if blackhole else state.links[step.route.device].index)
    in_place = [item for item in state.routes if _place(item) == _place(route)]
    assert bool(in_place) == step.replace, f"{step}: {in_place}"
    rest = tuple(item for item in state.routes if item != in_place[0]) if in_place else state.routes
    return replace(state, routes=(*rest, route))


def _place(route: KernelRoute) -> tuple[object, ...]:
    return route.destination, route.priority, route.tos


def _entry_step(state: KernelState, step: object) -> KernelState:
    index = state.links[VXLAN_DEVICE].index
    match step:
        case devices.SetNeighbour(_, address, mac):
            rest = tuple(item for item in state.neighbours if item.address != address)
            return replace(state, neighbours=(*rest, Neighbour(index, address, mac)))
        case devices.DeleteNeighbour(_, address, mac):
            gone = [item for item in state.neighbours if item.address == address]
            assert gone
            return replace(state, neighbours=tuple(item for item in state.neighbours if item not in gone))
        case devices.SetForwarding(_, mac, node):
            others = tuple(item for item in state.forwarding if item.mac != mac)
            return replace(state, forwarding=(*others, ForwardingEntry(index, mac, node)))
        case devices.DeleteForwarding(_, mac, node):
            left = tuple(item for item in state.forwarding if (item.mac, item.destination) != (mac, node))
            assert len(left) < len(state.forwarding)
            return replace(state, forwarding=left)
    raise AssertionError(f"the kernel knows no {step!r}")


def _free(state: KernelState) -> int:
    return max(link.index for link in state.links.values()) + 10


def _without_device(state: KernelState, link: Link) -> KernelState:
    gone = link.index
    return replace(
        state,
        links={name: other for name, other in state.links.items() if other.index != gone},
        addresses=tuple(item for item in state.addresses if item.index != gone),
        routes=tuple(item for item in state.routes if item.index != gone),
        neighbours=tuple(item for item in state.neighbours if item.index != gone),
        forwarding=tuple(item for item in state.forwarding if item.index != gone),
    )
