"""Routes to running pods that somebody took away, put back.

`ip link set cali... down` takes routes and neighbour entries along, and a restarted systemd-networkd removes
routes that it does not know. The pod's end keeps what it has, so this end is all that has to be repaired.
"""

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Interface, IPv6Network
from typing import Final

from tortie.dataplane import inet6, rtnetlink, workload_check
from tortie.dataplane.floating_routes import host_routes, own_addresses, versions
from tortie.dataplane.netlink import Message, Socket
from tortie.dataplane.rtnetlink import Link
from tortie.dataplane.workload_link import GATEWAY6, Address, Departure, host_route
from tortie.model.constants import RTPROT_TORTIE

# A DEL at the same moment takes the device down, then away; the address may be in use by a successor, and the
# link-local address be there still.
_OVERTAKEN: Final = frozenset({errno.ENODEV, errno.ENETDOWN, errno.EEXIST})


@dataclass(frozen=True, slots=True)
class AttachedPod:
    """A container's interface on this node: name of the host end, container id, the pod's addresses."""

    host_name: str
    owner: str
    addresses: tuple[Address, ...]


def restore(pods: Iterable[AttachedPod]) -> list[str]:
    """Put back what is missing behind host ends that are up and of the container that the pod names; one
    sentence for each route. Two messages while nothing is missing. Raise DataplaneError."""
    with Socket() as host:
        there = {route.address for version in versions() for route in host_routes(host, version)}
        lacking = [pod for pod in pods if not there.issuperset(pod.addresses)]
        return [done for pod in lacking for done in _restore(host, pod, there)]


def _restore(host: Socket, pod: AttachedPod, there: set[Address]) -> list[str]:
    link = workload_check.find(host, pod.host_name)
    departure = Departure.of(link) if link is not None else None
    if link is None or not link.up or departure is None or departure.owner != pod.owner:
        return []
    known = own_addresses(host, link.index)
    mac = "" if known.issuperset(pod.addresses) else rtnetlink.peer_mac(host, link.index)
    routes = [_route(link, address) for address in pod.addresses if address not in there]
    messages = [*_surroundings(link, pod, known, mac), *routes]
    refused = {error.tried: error for error in host.batch(messages)}
    for error in refused.values():
        if error.code not in _OVERTAKEN:
            raise error
    return [route.tried for route in routes if route.tried not in refused]


def _surroundings(link: Link, pod: AttachedPod, known: set[Address], mac: str) -> Iterator[Message]:
    """What has to be there before the routes. Without `mac` the pod answers for itself."""
    if any(address.version == 6 for address in pod.addresses):
        yield inet6.add_address(link.index, link.name, IPv6Interface((GATEWAY6, 64)))
    for address in pod.addresses if mac else ():
        if address in known:
            continue
        if isinstance(address, IPv4Address):
            yield rtnetlink.replace_neighbour(link.index, link.name, address, mac)
        else:
            yield inet6.replace_neighbour(link.index, link.name, address, mac)


def _route(link: Link, address: Address) -> Message:
    tried = f"add route {address} dev {link.name}"
    if isinstance(address, IPv4Address):
        return rtnetlink.add_route(host_route(address, link.index), tried)
    return inet6.route(link.index, (IPv6Network(address), None), RTPROT_TORTIE, tried)
