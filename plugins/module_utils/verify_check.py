"""One judged fact, and the view of all facts that the judging functions share."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import (
    ClusterFacts,
    ClusterNode,
    Expectations,
    Link,
    NodeFacts,
    PodState,
    Pool,
    ProbeFacts,
)

# In the order in which a fault spreads: the first layer that fails is where to look.
LAYERS = (
    "nodes",
    "pool",
    "address",
    "tunnel",
    "block",
    "bgp",
    "route",
    "neighbour",
    "pod",
    "mtu",
    "service",
    "dns",
    "masquerade",
)

OK = "ok"
FAILED = "failed"
NOT_CHECKED = "not checked"

IPIP_DEVICE = "tunl0"
VXLAN_DEVICE = "vxlan.calico"
VXLAN_VNI = 4096
VXLAN_PORT = 4789
OVERHEAD = {"ipip": 20, "vxlan": 50, "none": 0}  # bytes; RFC 2003; RFC 7348 over IPv4
RTPROT_BIRD = 12  # linux/rtnetlink.h
RTPROT_TORTIE = 80


@dataclass(frozen=True)
class Check:
    """One expectation and what was found.

    `node` and `peer` name Kubernetes nodes: peer is empty when the check is about one node, both are when it
    is about the cluster. `status` is ok, failed or "not checked"; then `found` is the reason.
    """

    layer: str
    node: str
    peer: str
    what: str
    status: str
    expected: str = ""
    found: str = ""
    hint: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was made and holds."""
        return self.status == OK

    @property
    def subject(self) -> str:
        """`node`, `node > peer` or `cluster`."""
        if not self.node:
            return "cluster"
        return f"{self.node} > {self.peer}" if self.peer else self.node


@dataclass(frozen=True)
class Subject:
    """Where a group of checks belongs; makes checks of that layer, node and peer."""

    layer: str
    node: str = ""
    peer: str = ""

    def compare(self, what: str, expected: object, found: object, hint: str) -> Check:
        """Ok when both are equal."""
        return self.judge(what, expected == found, expected, found, hint)

    def judge(self, what: str, holds: bool, expected: object, found: object, hint: str) -> Check:
        """Ok when `holds`; the hint is kept only for a failure."""
        return Check(
            self.layer,
            self.node,
            self.peer,
            what,
            OK if holds else FAILED,
            _text(expected),
            _text(found),
            "" if holds else hint,
        )

    def skip(self, what: str, reason: str) -> Check:
        """Not checked, and why."""
        return Check(self.layer, self.node, self.peer, what, NOT_CHECKED, "", reason)


def _text(value: object) -> str:
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(sorted(str(item) for item in value)) or "none"
    return "none" if value in ("", None) else str(value)


@dataclass(frozen=True)
class View:
    """All facts, keyed by Kubernetes node name, and the questions that more than one layer asks.

    `hosts` maps node names to inventory names, for those nodes that the inventory knows.
    """

    expect: Expectations
    cluster: ClusterFacts
    facts: dict[str, NodeFacts]
    probes: dict[str, ProbeFacts]
    hosts: dict[str, str]
    strangers: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Node names, sorted."""
        return sorted(node["name"] for node in self.cluster["nodes"])

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Ordered pairs of different nodes."""
        return [(node, peer) for node in self.names for peer in self.names if node != peer]

    def node(self, name: str) -> ClusterNode:
        """The Node object."""
        return next(node for node in self.cluster["nodes"] if node["name"] == name)

    def interface(self, name: str) -> IPv4Interface | None:
        """The node's address with its prefix length, from its annotation; None when it has none."""
        try:
            return IPv4Interface(self.node(name)["annotations"]["IPv4Address"])
        except (KeyError, ValueError):
            return None

    def address(self, name: str) -> str:
        """The node's address from its annotation; empty when it has none."""
        interface = self.interface(name)
        return str(interface.ip) if interface else ""

    def link(self, name: str) -> tuple[str, Link | None]:
        """The link of the node that holds its address."""
        address = self.address(name)
        for device, link in self.facts[name]["links"].items() if name in self.facts else ():
            if any(str(IPv4Interface(held).ip) == address for held in link["addresses"]):
                return device, link
        return "", None

    def blocks(self, name: str) -> list[str]:
        """The node's confirmed blocks."""
        return sorted(
            affinity["cidr"]
            for affinity in self.cluster["affinities"]
            if affinity["node"] == name and affinity["state"] == "confirmed"
        )

    def pool_of(self, block: str) -> Pool | None:
        """The pool that a block was cut from: the most specific one that contains it."""
        network = IPv4Network(block)
        containing = [p for p in self.cluster["pools"] if network.subnet_of(IPv4Network(p["cidr"]))]
        return max(containing, key=lambda pool: IPv4Network(pool["cidr"]).prefixlen, default=None)

    def same_subnet(self, name: str, peer: str) -> bool:
        """Whether the peer's address is on the subnet of the node's own."""
        own, other = self.interface(name), self.address(peer)
        return own is not None and other != "" and IPv4Address(other) in own.network

    @property
    def encapsulations(self) -> list[str]:
        """Encapsulations that the pools use, without `none`."""
        return sorted({encapsulation(pool) for pool in self.cluster["pools"]} - {"none"})

    def expected_mtu(self, name: str, kind: str) -> int:
        """MTU for pods and tunnel device: the inventory's, else the link's less overhead; 0: unknown."""
        if self.expect["mtu"]:
            return self.expect["mtu"]
        _device, link = self.link(name)
        return link["mtu"] - OVERHEAD[kind] if link else 0

    def pod_mtu(self, name: str) -> int:
        """Expected MTU of the node's pods: room for the largest overhead among the pools; 0 when unknown."""
        mtus = [self.expected_mtu(name, kind) for kind in self.encapsulations or ["none"]]
        return min(mtus)

    def source(self, name: str) -> PodState | None:
        """The node's probing pod."""
        return next((pod for pod in self.cluster["sources"] if pod["node"] == name), None)

    def target(self, name: str) -> PodState | None:
        """The node's probed pod."""
        return next((pod for pod in self.cluster["targets"] if pod["node"] == name), None)


def encapsulation(pool: Pool) -> str:
    """vxlan, ipip or none."""
    if pool["vxlan_mode"] != "Never":
        return "vxlan"
    return "ipip" if pool["ipip_mode"] != "Never" else "none"


def mode(pool: Pool) -> str:
    """Always, CrossSubnet or Never, whichever encapsulation it is."""
    return pool["ipip_mode"] if pool["vxlan_mode"] == "Never" else pool["vxlan_mode"]


def make_view(
    expect: Expectations, cluster: ClusterFacts, facts: dict[str, NodeFacts], probes: dict[str, ProbeFacts]
) -> View:
    """Match inventory hosts with nodes: by the host's own nodename file, its address, or its name."""
    by_address = {node["internal_ip"]: node["name"] for node in cluster["nodes"] if node["internal_ip"]}
    known = {node["name"] for node in cluster["nodes"]}
    hosts: dict[str, str] = {}
    strangers = []
    for host, address in expect["hosts"].items():
        nodename = facts[host]["nodename"] if host in facts else ""
        name = next((n for n in (nodename, by_address.get(address, ""), host) if n in known), "")
        if name:
            hosts[name] = host
        else:
            strangers.append(host)
    return View(
        expect=expect,
        cluster=cluster,
        facts={name: facts[host] for name, host in hosts.items() if host in facts},
        probes={name: probes[host] for name, host in hosts.items() if host in probes},
        hosts=hosts,
        strangers=strangers,
    )
