"""A pod's interface: a veth pair without a bridge, made and removed as a whole.

The pod's end carries its /32 and routes everything through 169.254.1.1, an address that nobody has: a
permanent neighbour entry maps it to the host end's MAC (and the host end would answer by proxy ARP). IPv6 is
the same with a /128 and the host end's link-local address. The host end carries the routes to the pod, and
permanent neighbour entries too: nothing ever waits for ARP, neighbour discovery or duplicate detection. The
host end's alias says whose it is, so that a late DEL harms no successor.
"""

import errno
import logging
import os
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Final

from tortie.dataplane import inet6, netns, rtnetlink, workload_check
from tortie.dataplane.netlink import DataplaneError, Message, NetlinkError, Socket, text
from tortie.dataplane.rtnetlink import KernelRoute
from tortie.dataplane.workload_link import (
    DOOMED_GROUP,
    GATEWAY,
    GATEWAY6,
    HOST_CONF,
    HOST_CONF6,
    POD_CONF6,
    Address,
    BegunLink,
    Departure,
    WorkloadEnds,
    WorkloadLink,
    doomed_name,
    host_route,
    pod_routes,
)
from tortie.model.constants import HOST_VETH_MAC, INTERFACE_PREFIX, RTPROT_BOOT, RTPROT_TORTIE

LOOPBACK_IFINDEX: Final = 1  # net/flow.h: the first device of every namespace
# Looks, and seconds between them, at a container's interface whose other end is being deleted.
_BURIAL_LOOKS: Final = 20
_BURIAL_PAUSE: Final = 0.01
# Seconds between looks at a host end whose carrier the kernel has not noticed: half a second altogether.
_CARRIER_PAUSES: Final = (*(0.0005,) * 40, *(0.01,) * 48)

log = logging.getLogger(__name__)


class InterfaceExistsError(DataplaneError):
    """The name that the interface should have in the container is taken."""


class Workloads:
    """Makes, checks and removes pods' interfaces. Blocking: 1 ms to add, 0.5 to detach, 28 to bury."""

    def begin(self, link: WorkloadLink) -> BegunLink | None:
        """Make what needs no address, two thirds of the work; `add` completes it, `detach` takes it away.

        None: something stands in the way, and `add` has to look at it. On an error nothing of it remains.
        Raise DataplaneError.
        """
        with Socket() as host:
            try:
                return _make(host, link)
            except NetlinkError as error:
                if error.code == errno.EEXIST:
                    return None
                raise

    def add(self, link: WorkloadLink, begun: BegunLink | None = None) -> WorkloadEnds:
        """Make the interface, or complete what `begin` made; one that is already right stays as it is. On an
        error nothing of it remains.

        Raise InterfaceExistsError when the container has such an interface already, else DataplaneError.
        """
        with Socket() as host:
            if begun is None:
                with Socket(link.namespace) as pod:
                    ends = _standing(pod, host, link)
                if ends is not None:
                    return ends
                begun = _make(host, link)
            try:
                ends = _furnish(host, link, begun)
                _await_carrier(host, ends)
                return ends
            except BaseException:
                _remove(host, link.host_name)
                raise
            finally:
                begun.close()

    def detach(self, departures: Sequence[Departure]) -> set[str]:
        """Take host ends out of service, and free their names; `bury` deletes them.

        Afterwards nothing on the node answers for the pods' addresses. What is gone or another container's is
        left alone; return the names that are another container's.
        """
        held: set[str] = set()
        with Socket() as host:
            for departure in departures:
                link = workload_check.find(host, departure.host_name)
                if link is None:
                    continue
                if not departure.owns(link):
                    held.add(link.name)
                    continue
                # Down first, which removes the routes: older kernels rename only a device that is down.
                away = rtnetlink.set_link(link.index, link.name, group=DOOMED_GROUP, alias="")
                renamed = Message(
                    away.type,
                    away.flags,
                    away.body + text(rtnetlink.IFLA_IFNAME, doomed_name(link.index)),
                    away.tried,
                )
                _tolerate_absence(host, [rtnetlink.set_link(link.index, link.name, up=False), renamed])
        return held

    def bury(self) -> None:
        """Delete every host end that was detached, also by an earlier process; pods' ends go along.

        By group this takes 0.5 ms each instead of 28 ms: the kernel's grace periods are shared.
        """
        with Socket() as host:
            _tolerate_absence(host, [rtnetlink.delete_group(DOOMED_GROUP)])

    def standing(self) -> list[Departure]:
        """The interfaces of all pods on this node, as one would remove them."""
        with Socket() as host:
            found = [Departure.of(link) for link in rtnetlink.links(host) if link.kind == "veth"]
        return [departure for departure in found if departure is not None]

    def addresses(self, departure: Departure) -> tuple[Address, ...]:
        """What a pod's interface was made with, IPv4 first: the node's permanent neighbours behind it.

        Nothing when the interface is another container's, or not complete. Raise DataplaneError.
        """
        with Socket() as host:
            link = workload_check.find(host, departure.host_name)
            if link is None or Departure.of(link) != departure:
                return ()
            found: list[Address] = [
                entry.address for entry in rtnetlink.neighbours(host, link.index) if entry.permanent
            ]
            if inet6.is_there():
                found += [address for address, _mac in inet6.neighbours(host, link.index)]
            return tuple(found)

    def check(self, link: WorkloadLink) -> list[str]:
        """What differs from `link`, one sentence each; empty means that all is well. Raise DataplaneError."""
        with Socket(link.namespace) as pod, Socket() as host:
            return list(workload_check.differences(pod, host, link))


def _tolerate_absence(sock: Socket, messages: Sequence[Message]) -> None:
    for error in sock.batch(messages):
        if error.code != errno.ENODEV:
            raise error


def _remove(host: Socket, name: str) -> None:
    link = workload_check.find(host, name)
    if link is not None:
        _tolerate_absence(host, [rtnetlink.delete_link(link.index, name)])


def _standing(pod: Socket, host: Socket, link: WorkloadLink) -> WorkloadEnds | None:
    """The interface if it is there and right. A stale host end of the same name is removed."""
    there = workload_check.find(host, link.host_name)
    if there is not None:
        inside = workload_check.find(pod, link.ifname)
        if inside is not None and not list(workload_check.differences(pod, host, link)):
            return WorkloadEnds(link.host_name, there.mac, there.index, inside.mac, inside.index)
        if there.kind != "veth":
            raise DataplaneError(
                f"device {link.host_name} on the node is not a veth ({there.kind or 'no kind'}); remove it"
            )
        holder = Departure.of(there)
        if holder is not None and holder.owner == link.owner and holder.ifname != link.ifname:
            raise InterfaceExistsError(
                f"container {link.owner} has interface {holder.ifname} in this network already; "
                f"a second one, {link.ifname}, is not supported"
            )
        _remove(host, link.host_name)
    inside = workload_check.find(pod, link.ifname)
    if inside is not None and not (inside.kind == "veth" and _is_buried(pod, host, link.ifname, inside.peer)):
        raise InterfaceExistsError(
            f"the container has an interface named {link.ifname} already; "
            "remove it, or set CNI_IFNAME to another name"
        )
    return None


def _is_buried(pod: Socket, host: Socket, ifname: str, index: int) -> bool:
    """Delete a host end that was detached, and thereby its other end, `ifname`. False when it is not one.

    `bury` may be about to delete it in another thread: then the host end is gone a moment before the other.
    """
    for _ in range(_BURIAL_LOOKS):
        links = [link for link in rtnetlink.links(host) if link.index == index]
        for link in links:
            if link.name != doomed_name(index) or link.group != DOOMED_GROUP:
                return False
            _tolerate_absence(host, [rtnetlink.delete_link(index, link.name)])
        if workload_check.find(pod, ifname) is None:
            return True
        time.sleep(_BURIAL_PAUSE)
    return False


def _create(link: WorkloadLink, mac: str | None = None) -> Message:
    return rtnetlink.create_veth(
        name=link.host_name,
        mac=HOST_VETH_MAC,
        mtu=link.mtu,
        peer=link.ifname,
        peer_mac=mac or link.mac,
        namespace=link.namespace,
        queues=link.queues or 1,
    )


def _make(host: Socket, link: WorkloadLink) -> BegunLink:
    """A new pair, marked, with the settings that do not depend on its addresses.

    Raise NetlinkError, with code EEXIST when a name is taken. On an error nothing of it remains.
    """
    # To ask the kernel which one it chose takes longer than to choose.
    mac = link.mac or _any_mac()
    index, inner = rtnetlink.make_veth(host, _create(link, mac), link.host_name)
    try:
        host.request(
            rtnetlink.set_link(index, link.host_name, alias=link.mark, conf=HOST_CONF),
            rtnetlink.set_proxy_delay(index, link.host_name, 0),
        )
        if inet6.is_there():
            inet6.configure(link.host_name, {"accept_ra": 0}, "on the node")
        with netns.entered(link.namespace):
            _set_forwarding(link)
            return BegunLink(index, inner, mac, Socket())
    except BaseException:
        _remove(host, link.host_name)
        raise


def _any_mac() -> str:
    """A random unicast address that is locally administered (IEEE 802), as the kernel would choose it."""
    octets = os.urandom(6)
    return rtnetlink.mac_text(bytes([octets[0] & 0xFE | 0x02]) + octets[1:])


def _furnish(host: Socket, link: WorkloadLink, begun: BegunLink) -> WorkloadEnds:
    """Give both ends of a new pair their addresses and routes."""
    if link.ipv6:
        inet6.configure(link.host_name, HOST_CONF6, "on the node")
        with netns.entered(link.namespace):
            _set_ipv6(link)
    _furnish_host(host, link, begun)
    begun.pod.request(*_pod_messages(link, begun.index))
    return WorkloadEnds(link.host_name, HOST_VETH_MAC, begun.host_index, begun.mac, begun.index)


def _await_carrier(host: Socket, ends: WorkloadEnds) -> None:
    """Wait until the host end sends, so that the first packet to the pod is not lost.

    It went up first, without a carrier. That it has one now, a kernel thread finds out in its own time:
    when many links change, every third packet sent at once was lost. The pod's end, up second, sends at once.
    That it takes too long is no error: the kernel will get there, and to fail would not help it.
    """
    for pause in _CARRIER_PAUSES:
        if rtnetlink.sends(host, ends.host_index):
            return
        time.sleep(pause)
    log.warning(
        "%s: the kernel has not noticed its carrier; the pod's first packets may be lost", ends.host_name
    )


def _set_forwarding(link: WorkloadLink) -> None:
    """The container's ip_forward. A namespace may have inherited the node's settings."""
    inet6.write_setting(
        "/proc/sys/net/ipv4/ip_forward", int(link.forward), "net.ipv4.ip_forward", "in the container"
    )


def _set_ipv6(link: WorkloadLink) -> None:
    """IPv6 in the container, where it may be off."""
    for device in ("all", "default", "lo"):
        inet6.configure(device, {"disable_ipv6": 0}, "in the container")
    inet6.configure("all", {"forwarding": int(link.forward)}, "in the container")
    inet6.configure(link.ifname, POD_CONF6, "in the container")


def _furnish_host(host: Socket, link: WorkloadLink, begun: BegunLink) -> None:
    """State, neighbours and routes of the host's end.

    A route left by a pod that held an address before gives way; somebody else's does not.
    """
    index, name = begun.host_index, link.host_name
    messages = [inet6.without_own_address(index, name)] if link.ipv6 else []
    messages.append(rtnetlink.set_link(index, name, up=True))
    if link.ipv6:
        messages.append(inet6.add_address(index, name, IPv6Interface((GATEWAY6, 64))))
    for address in link.addresses:
        if isinstance(address, IPv4Address):
            messages.append(rtnetlink.replace_neighbour(index, name, address, begun.mac))
        else:
            messages.append(inet6.replace_neighbour(index, name, address, begun.mac))
    messages += [_route_to_pod(address, link, index) for address in link.addresses]
    for refused in host.batch(messages):
        own4 = [address for address in link.addresses if isinstance(address, IPv4Address)]
        taken = [address for address in own4 if refused.tried == _tried(address, link)]
        if refused.code != errno.EEXIST or not taken:
            raise refused
        _displace(host, link, taken[0], index, refused)


def _pod_messages(link: WorkloadLink, index: int) -> list[Message]:
    """State, addresses, neighbours and routes of the container's end."""
    messages = [
        rtnetlink.set_link(LOOPBACK_IFINDEX, "lo", up=True),
        rtnetlink.set_link(index, link.ifname, up=True),
    ]
    for address in link.addresses:
        if isinstance(address, IPv4Address):
            messages.append(rtnetlink.add_address(index, link.ifname, IPv4Interface((address, 32))))
        else:
            messages.append(inet6.add_address(index, link.ifname, IPv6Interface((address, 128))))
    if link.ipv4:
        messages.append(rtnetlink.replace_neighbour(index, link.ifname, GATEWAY, HOST_VETH_MAC))
    if link.ipv6:
        messages.append(inet6.replace_neighbour(index, link.ifname, GATEWAY6, HOST_VETH_MAC))
    for route in pod_routes(link, index):
        if isinstance(route, KernelRoute):
            messages.append(rtnetlink.add_route(route, f"add route {route.destination} in the container"))
        else:
            tried = f"add route {route[0]} in the container"
            messages.append(inet6.route(index, route, RTPROT_BOOT, tried))
    return messages


def _tried(address: Address, link: WorkloadLink) -> str:
    return f"route {address}/{address.max_prefixlen} to {link.host_name}"


def _route_to_pod(address: Address, link: WorkloadLink, index: int) -> Message:
    if isinstance(address, IPv6Address):
        # A route of another device stands beside ours and loses or wins by metric: it is replaced.
        route6 = (IPv6Network(address), None)
        return inet6.route(index, route6, RTPROT_TORTIE, _tried(address, link), replace=True)
    return rtnetlink.add_route(host_route(address, index), _tried(address, link))


def _displace(
    host: Socket, link: WorkloadLink, address: IPv4Address, index: int, refused: NetlinkError
) -> None:
    """Route an address that is routed already. Raise DataplaneError when somebody else did so."""
    names = {other.index: other.name for other in rtnetlink.links(host)}
    for other in rtnetlink.routes(host):
        holder = names.get(other.index, "no device")
        in_place = other.destination == IPv4Network(address) and not other.priority
        ours = other.protocol == RTPROT_TORTIE and holder.startswith(INTERFACE_PREFIX)
        if in_place and not ours:
            raise DataplaneError(
                f"{refused.tried}: the address is routed to {holder} already (protocol {other.protocol}); "
                "remove that route"
            ) from refused
    host.request(rtnetlink.replace_route(host_route(address, index), refused.tried))
