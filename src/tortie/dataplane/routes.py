"""Routes of ours in the main table: which to add, replace and delete. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from tortie.dataplane.rtnetlink import (
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RTN_BLACKHOLE,
    RTN_UNICAST,
    RTPROT_KERNEL,
    KernelRoute,
    Link,
)
from tortie.model.constants import INTERFACE_PREFIX, RTPROT_BIRD, RTPROT_TORTIE, VXLAN_DEVICE
from tortie.routing.state import Route

# Where only one of two routes counts: address, prefix length, priority, TOS. Numbers, since hashing an
# IPv4Network is what a comparison of thousands of routes would spend its time on.
Place = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class SetRoute:
    """Install a route. `replace` says that one of ours or BIRD's is in its place; else it must be empty.

    BIRD's stands there when a pool changes from IP-in-IP to VXLAN, until BIRD has its new configuration:
    replaced, not added behind it, so that no packet finds no route."""

    route: Route
    replace: bool

    def __str__(self) -> str:
        return f"{'replace' if self.replace else 'add'} route {describe(self.route)}"


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    """Remove a route, as the kernel reported it."""

    route: KernelRoute
    device: str

    def __str__(self) -> str:
        gateway = f" via {self.route.gateway}" if self.route.gateway else ""
        device = f" dev {self.device}" if self.device else ""
        return f"delete route {self.route.destination}{gateway}{device}"


def describe(route: Route) -> str:
    """The route as `ip route` would write it."""
    if route.kind == "blackhole":
        return f"blackhole {route.destination}"
    gateway = f" via {route.gateway}" if route.gateway else ""
    source = f" src {route.source}" if route.source else ""
    return f"{route.destination}{gateway} dev {route.device}{source}{' onlink' if route.onlink else ''}"


def to_kernel(route: Route, index: int) -> KernelRoute:
    """The route as the kernel will report it; `index` is its device's, 0 for a blackhole."""
    blackhole = route.kind == "blackhole"
    return KernelRoute(
        destination=route.destination,
        index=index,
        gateway=route.gateway,
        protocol=RTPROT_TORTIE,
        type=RTN_BLACKHOLE if blackhole else RTN_UNICAST,
        scope=RT_SCOPE_UNIVERSE if blackhole or route.gateway else RT_SCOPE_LINK,
        onlink=route.onlink,
        source=route.source,
    )


def is_ours(route: KernelRoute, device: str) -> bool:
    """Whether the agent owns the route: by protocol, or on vxlan.calico unless it is the kernel's or BIRD's.

    A pod's route on cali* carries our protocol too; it belongs to CNI ADD and DEL.
    """
    if device.startswith(INTERFACE_PREFIX):
        return False
    if device == VXLAN_DEVICE:
        return route.protocol not in (RTPROT_KERNEL, RTPROT_BIRD)
    return route.protocol == RTPROT_TORTIE


def route_changes(
    current: Sequence[KernelRoute], desired: Sequence[Route], links: Mapping[str, Link]
) -> Iterator[SetRoute | DeleteRoute]:
    """Changes from the routes in the kernel (ours are picked out) to the desired ones; deletions come last.

    A device that `links` lacks does not exist yet, or is about to be replaced: its routes are all to be set.
    """
    names = {link.index: link.name for link in links.values()}
    ours = [route for route in current if is_ours(route, names.get(route.index, ""))]
    places: dict[Place, list[KernelRoute]] = {}
    for old in ours:
        places.setdefault(_place(old.destination, old.priority, old.tos), []).append(old)
    birds = {
        _place(old.destination, old.priority, old.tos)
        for old in current
        if old.protocol == RTPROT_BIRD and not names.get(old.index, "").startswith(INTERFACE_PREFIX)
    }
    settled: set[int] = set()  # by id(): kept, or replaced by its successor
    for route in desired:
        link = links.get(route.device)
        standing = places.get(_place(route.destination), [])
        if link is not None or route.kind == "blackhole":
            wanted = to_kernel(route, link.index if link else 0)
            kept = [id(old) for old in standing if old == wanted]
            if kept:
                settled.update(kept)
                continue
        if standing:
            settled.add(id(standing[0]))
        yield SetRoute(route, replace=bool(standing) or _place(route.destination) in birds)
    for old in ours:
        if id(old) not in settled:
            yield DeleteRoute(old, names.get(old.index, ""))


def _place(destination: IPv4Network, priority: int = 0, tos: int = 0) -> Place:
    return int(destination.network_address), destination.prefixlen, priority, tos
