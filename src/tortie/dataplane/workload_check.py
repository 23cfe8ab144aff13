"""How a pod's interface differs from what it should be."""

import errno
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, IPv6Network

from tortie.dataplane import inet6, rtnetlink
from tortie.dataplane.netlink import NetlinkError, Socket
from tortie.dataplane.rtnetlink import KernelRoute, Link
from tortie.dataplane.workload_link import (
    GATEWAY,
    GATEWAY6,
    HOST_CONF,
    WorkloadLink,
    host_route,
    pod_routes,
)
from tortie.model.constants import HOST_VETH_MAC


def find(sock: Socket, name: str) -> Link | None:
    """A device by name, or None."""
    try:
        return rtnetlink.link_by_name(sock, name)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise


def differences(pod: Socket, host: Socket, link: WorkloadLink) -> Iterator[str]:
    """What differs from `link`, one sentence each. The sockets are the container's and the node's."""
    inner, outer = find(pod, link.ifname), find(host, link.host_name)
    if inner is None:
        yield f"the container has no interface {link.ifname}"
    if outer is None:
        yield f"the node has no device {link.host_name}"
    if inner is None or outer is None:
        return
    yield from _link_differences(inner, outer, link)
    yield from _address_differences(pod, inner, link)
    yield from _route_differences(pod, inner, link)
    yield from _neighbour_differences(pod, inner, link)
    yield from _host_differences(host, outer, link)


def _link_differences(inner: Link, outer: Link, link: WorkloadLink) -> Iterator[str]:
    if (inner.peer, outer.peer) != (outer.index, inner.index):
        yield f"{link.ifname} in the container and {link.host_name} are not ends of one pair"
    if outer.alias != link.mark:
        yield f"{link.host_name} belongs to {outer.alias or 'nobody'}, not to {link.mark}"
    if outer.mac != HOST_VETH_MAC:
        yield f"{link.host_name} has hardware address {outer.mac}, not {HOST_VETH_MAC}"
    if link.mac and inner.mac != link.mac:
        yield f"{link.ifname} has hardware address {inner.mac}, not {link.mac}"
    for end in (inner, outer):
        if not end.up:
            yield f"{end.name} is down"
        if link.mtu and end.mtu != link.mtu:
            yield f"{end.name} has MTU {end.mtu}, not {link.mtu}"
    for kind, value in HOST_CONF.items():
        if outer.conf.get(kind) != value:
            name = rtnetlink.CONF_NAMES[kind]
            yield f"net.ipv4.conf.{link.host_name}.{name} is {outer.conf.get(kind)}, not {value}"


def _address_differences(pod: Socket, inner: Link, link: WorkloadLink) -> Iterator[str]:
    held = [str(item.interface) for item in rtnetlink.addresses(pod) if item.index == inner.index]
    held += [str(interface) for interface in inet6.addresses(pod, inner.index)] if inet6.is_there() else []
    wanted = [
        str(IPv4Interface((item, 32)) if isinstance(item, IPv4Address) else IPv6Interface((item, 128)))
        for item in link.addresses
    ]
    if sorted(held) != sorted(wanted):
        yield f"{link.ifname} has addresses {', '.join(held) or 'none'}, not only {', '.join(wanted)}"


def _route_differences(pod: Socket, inner: Link, link: WorkloadLink) -> Iterator[str]:
    held = rtnetlink.routes(pod, index=inner.index)
    held6 = inet6.routes(pod, inner.index) if link.ipv6 else []
    for route in pod_routes(link, inner.index):
        there = route in held if isinstance(route, KernelRoute) else route in held6
        if not there:
            destination = route.destination if isinstance(route, KernelRoute) else route[0]
            yield f"the container has no route {destination} dev {link.ifname}"


def _neighbour_differences(pod: Socket, inner: Link, link: WorkloadLink) -> Iterator[str]:
    if link.ipv4:
        entries = rtnetlink.neighbours(pod, inner.index)
        if (GATEWAY, HOST_VETH_MAC) not in [(item.address, item.mac) for item in entries if item.permanent]:
            yield f"the container has no permanent neighbour {GATEWAY} at {HOST_VETH_MAC} on {link.ifname}"
    if link.ipv6 and (GATEWAY6, HOST_VETH_MAC) not in inet6.neighbours(pod, inner.index):
        yield f"the container has no permanent neighbour {GATEWAY6} at {HOST_VETH_MAC} on {link.ifname}"


def _host_differences(host: Socket, outer: Link, link: WorkloadLink) -> Iterator[str]:
    held = rtnetlink.routes(host, index=outer.index)
    held6 = inet6.routes(host, outer.index) if link.ipv6 else []
    for address in link.addresses:
        if isinstance(address, IPv4Address):
            if host_route(address, outer.index) not in held:
                yield f"the node has no route {address}/32 dev {link.host_name}"
        elif (IPv6Network(address), None) not in held6:
            yield f"the node has no route {address}/128 dev {link.host_name}"
