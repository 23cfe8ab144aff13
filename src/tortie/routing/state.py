"""What the kernel should look like on one node: the one message between routing (pure) and dataplane.

A dataplane that holds exactly this state, and nothing else of ours, is in sync. Everything is a value: two
states are compared with ==, printed with repr, and built in a test without a kernel.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Literal


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """A route that the agent owns (protocol 80, main table).

    `kind` blackhole has neither device nor gateway. `onlink` tells the kernel not to check that the gateway
    is on the device's subnet (RTNH_F_ONLINK). `source` is the preferred source address of the host's own
    packets.
    """

    destination: IPv4Network
    device: str = ""
    gateway: IPv4Address | None = None
    onlink: bool = False
    kind: Literal["unicast", "blackhole"] = "unicast"
    source: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class IPIPTunnel:
    """tunl0, the kernel's fallback IP-in-IP device: set up, its only address `address`/32."""

    address: IPv4Address
    mtu: int


@dataclass(frozen=True, slots=True)
class VXLANTunnel:
    """vxlan.calico: VNI 4096, UDP 4789, nolearning, bound to `parent` and `local`."""

    address: IPv4Address
    mac: str
    mtu: int
    parent: str
    local: IPv4Address
    vni: int = 4096
    port: int = 4789


@dataclass(frozen=True, slots=True, order=True)
class VXLANPeer:
    """Another node's VTEP: permanent neighbour `address`→`mac` and FDB entry `mac`→`node` on vxlan.calico."""

    address: IPv4Address
    mac: str
    node: IPv4Address


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Traffic from `sources` (pools with natOutgoing) to whatever is outside `pools` (all) is masqueraded."""

    sources: frozenset[IPv4Network] = frozenset()
    pools: frozenset[IPv4Network] = frozenset()


@dataclass(frozen=True, slots=True)
class NodeState:
    """Everything of ours on one node, pods' own veths excepted (those come and go with CNI ADD and DEL)."""

    ipip: IPIPTunnel | None = None
    vxlan: VXLANTunnel | None = None
    routes: frozenset[Route] = frozenset()
    vxlan_peers: frozenset[VXLANPeer] = frozenset()
    masquerade: Masquerade = field(default_factory=Masquerade)


@dataclass(frozen=True, slots=True)
class HostLink:
    """The link and address that a node speaks to its peers with."""

    name: str
    index: int
    mtu: int
    address: IPv4Interface
