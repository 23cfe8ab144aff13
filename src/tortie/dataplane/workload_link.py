"""What a pod's interface should be: values, and what follows from them. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
)
from typing import Final

from tortie.dataplane import inet6, rtnetlink
from tortie.dataplane.netlink import Socket
from tortie.dataplane.rtnetlink import KernelRoute, Link
from tortie.model.constants import INTERFACE_PREFIX, POD_GATEWAY, RTPROT_BOOT, RTPROT_TORTIE

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

GATEWAY: Final = IPv4Address(POD_GATEWAY)
GATEWAY6: Final = IPv6Address("fe80::ecee:eeff:feee:eeee")  # RFC 4291, appendix A, of ee:ee:ee:ee:ee:ee
DEFAULT_ROUTES: Final[tuple[Network, ...]] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
DOOMED_GROUP: Final = 0x646F6F6D  # "doom": host ends that are about to be deleted together
HOST_CONF: Final[Mapping[int, int]] = {
    rtnetlink.PROXY_ARP: 1,
    rtnetlink.FORWARDING: 1,
    rtnetlink.ROUTE_LOCALNET: 1,  # kube-proxy's node ports on 127.0.0.1
    rtnetlink.RP_FILTER: rtnetlink.RP_FILTER_LOOSE,
}
# A pod must not become the node's router by advertisement. Set before the link is up.
HOST_CONF6: Final[Mapping[str, int]] = {
    "accept_ra": 0,
    "accept_dad": 0,
    "disable_ipv6": 0,
    "proxy_ndp": 1,
    "forwarding": 1,
}
POD_CONF6: Final[Mapping[str, int]] = {"accept_ra": 0, "accept_dad": 0, "disable_ipv6": 0}


@dataclass(frozen=True, slots=True)
class WorkloadLink:
    """What a pod's interface should be.

    `namespace` is a descriptor of the container's network namespace; `owner` is the container id and
    `network` the CNI configuration's name; `addresses` has at most one of each family, unless another IPAM
    plugin gave several; `mtu` is in bytes (0, for a check only: any); `mac` None means any; `forward` is the
    container's ip_forward; `routes` are the destinations that the container reaches through us; `queues` of
    the host end, 0 for the usual one.
    """

    host_name: str
    namespace: int
    ifname: str
    addresses: tuple[Address, ...]
    mtu: int
    owner: str
    network: str = ""
    mac: str | None = None
    forward: bool = False
    routes: tuple[Network, ...] = DEFAULT_ROUTES
    queues: int = 0

    @property
    def mark(self) -> str:
        """The alias of the host end."""
        return f"{self.owner}/{self.ifname}/{self.network}"

    @property
    def ipv4(self) -> bool:
        """Whether it has an IPv4 address."""
        return any(address.version == 4 for address in self.addresses)

    @property
    def ipv6(self) -> bool:
        """Whether it has an IPv6 address."""
        return any(address.version == 6 for address in self.addresses)


@dataclass(frozen=True, slots=True)
class WorkloadEnds:
    """Both ends of an interface that stands."""

    host_name: str
    host_mac: str
    host_index: int
    mac: str
    index: int


@dataclass(frozen=True, slots=True)
class BegunLink:
    """A new pair, which has settings and is down: addresses and routes are to come.

    `index` and `mac` are those of the container's end, `pod` is a socket in its namespace, until `close`.
    """

    host_index: int
    index: int
    mac: str
    pod: Socket

    def close(self) -> None:
        """Give the socket back; the pair stays."""
        self.pod.close()


@dataclass(frozen=True, slots=True)
class Departure:
    """A host end to delete, provided that it is still the one of this container, interface and network."""

    host_name: str
    owner: str
    ifname: str
    network: str = ""

    @classmethod
    def of(cls, link: Link) -> "Departure | None":
        """Whose host end a device is; None for a device that is not one, or is detached already."""
        parts = link.alias.split("/")
        ours = link.name.startswith(INTERFACE_PREFIX) and link.group != DOOMED_GROUP
        return cls(link.name, *parts) if ours and len(parts) == 3 else None

    def owns(self, link: Link) -> bool:
        """An end without a mark is one whose making was cut short."""
        return link.kind == "veth" and link.alias in ("", f"{self.owner}/{self.ifname}/{self.network}")


def doomed_name(index: int) -> str:
    """The name of a host end that waits for its deletion. No pod's device has a dash there."""
    return f"{INTERFACE_PREFIX}-{index:x}"


def host_route(address: IPv4Address, index: int) -> KernelRoute:
    """The node's route to a pod."""
    return KernelRoute(
        IPv4Network(address), index=index, protocol=RTPROT_TORTIE, scope=rtnetlink.RT_SCOPE_LINK
    )


def pod_routes(link: WorkloadLink, index: int) -> Iterator[KernelRoute | inet6.Route]:
    """The container's routes, in the order in which they can be added."""
    if link.ipv4:
        yield KernelRoute(
            IPv4Network(GATEWAY), index=index, protocol=RTPROT_BOOT, scope=rtnetlink.RT_SCOPE_LINK
        )
    for destination in link.routes:
        if isinstance(destination, IPv4Network):
            if link.ipv4:
                yield KernelRoute(destination, index=index, gateway=GATEWAY, protocol=RTPROT_BOOT)
        elif link.ipv6:
            yield destination, GATEWAY6
