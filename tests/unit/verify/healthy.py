"""Facts of a sound cluster of two nodes, for tests that break one of them.

`case(kind, mode)` describes master-01 (block 10.5.0.0/26) and worker-01 (10.5.0.64/26) on one subnet, in
fresh objects.
"""

from dataclasses import dataclass
from typing import Any

from ansible_collections.tortie.cluster.plugins.module_utils.verify_check import Check
from ansible_collections.tortie.cluster.plugins.module_utils.verify_judgement import judge
from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import (
    ClusterFacts,
    Expectations,
    Link,
    NodeFacts,
    PeerProbe,
    PodState,
    ProbeFacts,
    Route,
    Vxlan,
)

NODES = ("master-01", "worker-01")
ADDRESS = {"master-01": "10.30.200.1", "worker-01": "10.30.200.2"}
BLOCK = {"master-01": "10.5.0.0/26", "worker-01": "10.5.0.64/26"}
TUNNEL = {"master-01": "10.5.0.0", "worker-01": "10.5.0.64"}
MAC = {"master-01": "66:00:00:00:00:01", "worker-01": "66:00:00:00:00:02"}
SOURCE = {"master-01": "10.5.0.1", "worker-01": "10.5.0.65"}
TARGET = {"master-01": "10.5.0.2", "worker-01": "10.5.0.66"}
MTU = {"vxlan": 1450, "ipip": 1480, "none": 1500}


def other(name: str) -> str:
    """The other node."""
    return NODES[1] if name == NODES[0] else NODES[0]


@dataclass
class Case:
    """All input of `judge`, to be broken by a test."""

    expect: Expectations
    cluster: ClusterFacts
    facts: dict[str, NodeFacts]
    probes: dict[str, ProbeFacts]

    def judge(self) -> list[Check]:
        """The checks."""
        return judge(self.expect, self.cluster, self.facts, self.probes)

    def failing_layers(self) -> list[str]:
        """Layers with a failure, in order, each once."""
        return list(dict.fromkeys(check.layer for check in self.judge() if check.status == "failed"))


def case(kind: str = "vxlan", mode: str = "Always") -> Case:
    """A cluster without a fault; `kind` is vxlan, ipip or none, `mode` Always or CrossSubnet."""
    return Case(
        expect=Expectations(
            hosts=dict(ADDRESS),
            pool_cidr="10.5.0.0/16",
            block_size=26,
            encapsulation=kind,
            mode="cross-subnet" if mode == "CrossSubnet" else "always",
            mtu=0,
            autodetection="interface=eth.*",
            nat_outgoing=True,
        ),
        cluster=_cluster(kind, mode),
        facts={name: _facts(name, kind, mode) for name in NODES},
        probes={name: _probe(name, kind) for name in NODES},
    )


def _pod(name: str, node: str, address: str) -> PodState:
    return PodState(name=f"{name}-{node}", node=node, address=address, ready=True, reason="Running")


def _cluster(kind: str, mode: str) -> ClusterFacts:
    annotations: dict[str, dict[str, str]] = {
        name: {
            "IPv4Address": f"{ADDRESS[name]}/24",
            "IPv4VXLANTunnelAddr": TUNNEL[name],
            "IPv4IPIPTunnelAddr": TUNNEL[name],
            "VXLANTunnelMACAddr": MAC[name],
        }
        for name in NODES
    }
    return ClusterFacts(
        nodes=[
            {
                "name": name,
                "ready": True,
                "reason": "kubelet is posting ready status",
                "internal_ip": ADDRESS[name],
                "annotations": annotations[name],
            }
            for name in NODES
        ],
        affinities=[{"node": name, "cidr": BLOCK[name], "state": "confirmed"} for name in NODES],
        pools=[
            {
                "name": "default-ipv4-ippool",
                "cidr": "10.5.0.0/16",
                "block_size": 26,
                "ipip_mode": mode if kind == "ipip" else "Never",
                "vxlan_mode": mode if kind == "vxlan" else "Never",
                "nat_outgoing": True,
                "disabled": False,
                "disable_bgp_export": False,
            }
        ],
        agents=[_pod("calico-node", name, ADDRESS[name]) for name in NODES],
        sources=[_pod("source", name, SOURCE[name]) for name in NODES],
        targets=[_pod("target", name, TARGET[name]) for name in NODES],
        unprobed="",
        probe_port=8080,
        probe_service={"address": "10.96.0.20", "port": 8080, "ready": True},
        kubernetes_service={"address": "10.96.0.1", "port": 443, "ready": True},
        dns_service=None,
        errors=[],
    )


def _links(name: str, kind: str) -> dict[str, Link]:
    links = {
        "eth0": Link(
            mtu=1500, up=True, mac="02:00:00:00:00:01", addresses=[f"{ADDRESS[name]}/24"], vxlan=None
        )
    }
    if kind == "vxlan":
        links["vxlan.calico"] = Link(
            mtu=1450,
            up=True,
            mac=MAC[name],
            addresses=[f"{TUNNEL[name]}/32"],
            vxlan=Vxlan(vni=4096, port=4789, local=ADDRESS[name], parent="eth0"),
        )
    if kind == "ipip":
        links["tunl0"] = Link(mtu=1480, up=True, mac="0.0.0.0", addresses=[f"{TUNNEL[name]}/32"], vxlan=None)
    return links


def _peer_route(name: str, kind: str, mode: str) -> Route:
    peer = other(name)
    protocol = 80 if kind == "vxlan" else 12
    if kind == "none" or mode == "CrossSubnet":
        gateway, device, onlink = ADDRESS[peer], "eth0", False
    else:
        gateway = TUNNEL[peer] if kind == "vxlan" else ADDRESS[peer]
        device, onlink = ("vxlan.calico" if kind == "vxlan" else "tunl0"), True
    return Route(
        destination=BLOCK[peer],
        device=device,
        gateway=gateway,
        protocol=protocol,
        kind="unicast",
        onlink=onlink,
    )


def _facts(name: str, kind: str, mode: str) -> NodeFacts:
    peer = other(name)
    tunnelled = kind == "vxlan" and mode == "Always"
    return NodeFacts(
        nodename=name,
        mtu_file=MTU[kind],
        links=_links(name, kind),
        routes=[
            Route(
                destination=BLOCK[name], device="", gateway="", protocol=80, kind="blackhole", onlink=False
            ),
            _peer_route(name, kind, mode),
        ],
        neighbours=[{"device": "vxlan.calico", "address": TUNNEL[peer], "mac": MAC[peer], "permanent": True}]
        if tunnelled
        else [],
        fdb=[{"device": "vxlan.calico", "address": ADDRESS[peer], "mac": MAC[peer], "permanent": True}]
        if tunnelled
        else [],
        sessions=[
            {
                "name": "Mesh_1",
                "peer": ADDRESS[peer],
                "bgp_state": "Established",
                "info": "Established",
                "networks": [BLOCK[peer]],
            }
        ],
        bird_error="",
        masquerade={"tables": ["ip tortie"], "masquerades": True, "networks": ["10.5.0.0/16"]},
        masquerade_error="",
        paths={ADDRESS[peer]: {"device": "eth0", "gateway": ""}},
        errors=[],
    )


def _interface(address: str, mtu: int) -> Any:
    return {
        "name": "eth0",
        "mtu": mtu,
        "mac": "02:00:00:00:00:09",
        "address": f"{address}/32",
        "routes": [
            {"destination": "0.0.0.0/0", "gateway": "169.254.1.1"},
            {"destination": "169.254.1.1/32", "gateway": ""},
        ],
        "neighbours": [],
    }


def _probe(name: str, kind: str) -> ProbeFacts:
    mtu = MTU[kind]
    return ProbeFacts(
        interfaces={"source": _interface(SOURCE[name], mtu), "target": _interface(TARGET[name], mtu)},
        peers={
            peer: PeerProbe(
                tcp=True,
                tcp_detail="",
                seen_as=SOURCE[name],
                icmp=True,
                icmp_detail="",
                largest=mtu,
                above="emsgsize",
                mtu_detail="",
            )
            for peer in NODES
        },
        services={
            "tortie-verify": {"connected": True, "detail": ""},
            "kubernetes": {"connected": True, "detail": ""},
        },
        dns_addresses=[],
        dns_detail="",
        fragments=0,
        errors=[],
    )
