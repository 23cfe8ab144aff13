"""Shapes of the facts that the verification collects, and of what it expects: plain data that crosses JSON.

Addresses are strings without a prefix length, CIDRs are strings with one, MTUs and sizes are bytes. A list
named `errors` holds sentences about what could not be read; judgement turns those into failed checks.
"""

from __future__ import annotations

from typing import TypedDict


class Vxlan(TypedDict):
    """Attributes of a VXLAN device; `parent` is the underlying link's name, empty when unbound."""

    vni: int
    port: int
    local: str
    parent: str


class Link(TypedDict):
    """A network interface; `addresses` are CIDRs; `up` is administrative (IFF_UP)."""

    mtu: int
    up: bool
    mac: str
    addresses: list[str]
    vxlan: Vxlan | None


class Route(TypedDict):
    """A route of the main table: `protocol` by number (bird 12, ours 80), `kind` unicast, blackhole, ..."""

    destination: str
    device: str
    gateway: str
    protocol: int
    kind: str
    onlink: bool


class Neighbour(TypedDict):
    """A neighbour entry, or (in the forwarding database) a MAC and the node behind it."""

    device: str
    address: str
    mac: str
    permanent: bool


class Session(TypedDict):
    """A BGP protocol of BIRD; `networks` are the CIDRs it has imported; `bgp_state` is RFC 4271's name."""

    name: str
    peer: str
    bgp_state: str
    info: str
    networks: list[str]


class Masquerade(TypedDict):
    """nftables: our tables, whether one masquerades, and the source networks that it does it for."""

    tables: list[str]
    masquerades: bool
    networks: list[str]


class Path(TypedDict):
    """Where the kernel sends a packet for an address: device and gateway (empty when on the link)."""

    device: str
    gateway: str


class NodeFacts(TypedDict):
    """What one node's kernel, BIRD and files say. `nodename` is empty, `mtu_file` 0 without the file."""

    nodename: str
    mtu_file: int
    links: dict[str, Link]
    routes: list[Route]
    neighbours: list[Neighbour]
    fdb: list[Neighbour]
    sessions: list[Session]
    bird_error: str
    masquerade: Masquerade | None
    masquerade_error: str
    paths: dict[str, Path]
    errors: list[str]


class ClusterNode(TypedDict):
    """A Node object: Ready condition, InternalIP, Calico's annotations (key without projectcalico.org/)."""

    name: str
    ready: bool
    reason: str
    internal_ip: str
    annotations: dict[str, str]


class Affinity(TypedDict):
    """A BlockAffinity."""

    node: str
    cidr: str
    state: str


class Pool(TypedDict):
    """An enabled or disabled IPPool; the modes are Never, Always, CrossSubnet."""

    name: str
    cidr: str
    block_size: int
    ipip_mode: str
    vxlan_mode: str
    nat_outgoing: bool
    disabled: bool
    disable_bgp_export: bool


class PodState(TypedDict):
    """A pod: its address (empty until it has one), whether it is Ready, and why not."""

    name: str
    node: str
    address: str
    ready: bool
    reason: str


class Endpoint(TypedDict):
    """A service: cluster address and port; `ready` says whether it has an endpoint."""

    address: str
    port: int
    ready: bool


class ClusterFacts(TypedDict):
    """What the API server says. `unprobed`: why there are no probe pods on purpose (check mode), or empty."""

    nodes: list[ClusterNode]
    affinities: list[Affinity]
    pools: list[Pool]
    agents: list[PodState]
    sources: list[PodState]
    targets: list[PodState]
    unprobed: str
    probe_port: int
    probe_service: Endpoint | None
    kubernetes_service: Endpoint | None
    dns_service: Endpoint | None
    errors: list[str]


class PodInterface(TypedDict):
    """eth0 as a pod sees it."""

    name: str
    mtu: int
    mac: str
    address: str
    routes: list[dict[str, str]]
    neighbours: list[dict[str, object]]


class PeerProbe(TypedDict):
    """From one node's source pod to another node's target pod.

    `seen_as` is the address that the target saw. `largest`: the largest packet answered with DF, 0 when none;
    `above`: the outcome of one byte more (reply, emsgsize, timeout, error), empty when it was not tried.
    """

    tcp: bool
    tcp_detail: str
    seen_as: str
    icmp: bool
    icmp_detail: str
    largest: int
    above: str
    mtu_detail: str


class ServiceProbe(TypedDict):
    """From the source pod to a service."""

    connected: bool
    detail: str


class ProbeFacts(TypedDict):
    """What one node's pods could do. `fragments`: IPv4 fragments the node created meanwhile, -1: unknown."""

    interfaces: dict[str, PodInterface]
    peers: dict[str, PeerProbe]
    services: dict[str, ServiceProbe]
    dns_addresses: list[str]
    dns_detail: str
    fragments: int
    errors: list[str]


class Expectations(TypedDict):
    """What the inventory asks for. Empty text, 0 and None mean that the inventory says nothing about it.

    `encapsulation` is ipip, vxlan or none; `mode` always or cross-subnet; `mtu` 0 means auto;
    `hosts` maps inventory names to node addresses.
    """

    hosts: dict[str, str]
    pool_cidr: str
    block_size: int
    encapsulation: str
    mode: str
    mtu: int
    autodetection: str
    nat_outgoing: bool | None
