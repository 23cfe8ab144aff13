"""One document of every kind that people write, a change of it, and the field that shows the change."""

from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """`alias`: a short name of the kind; `patch`: a merge patch of spec; `path`: where `value` stands then;
    `column`: a cell of the wide table for the document as created."""

    kind: str
    alias: str
    spec: Document
    patch: Document
    column: str
    namespaced: bool = False
    name: str = "sample"

    def document(self) -> Document:
        """The v3 document."""
        namespace = {"namespace": "default"} if self.namespaced else {}
        return {
            "apiVersion": "projectcalico.org/v3",
            "kind": self.kind,
            "metadata": {"name": self.name, "labels": {"made-by": "test"}, **namespace},
            "spec": self.spec,
        }


_RULES: Document = {
    "selector": "app == 'web'",
    "ingress": [
        {
            "action": "Allow",
            "protocol": "TCP",
            "source": {"selector": "app == 'client'"},
            "destination": {"ports": [80, "8000:8080", "https"]},
        }
    ],
    "egress": [{"action": "Deny", "destination": {"nets": ["10.0.0.0/8"]}}],
}

SAMPLES = (
    Sample(
        "BGPConfiguration",
        "bgpconfig",
        {"asNumber": 64513, "nodeToNodeMeshEnabled": False},
        {"asNumber": 64514},
        "64513",
        name="default",
    ),
    Sample(
        "BGPFilter",
        "bgpfilters",
        {"exportV4": [{"action": "Accept", "matchOperator": "In", "cidr": "10.5.0.0/16"}]},
        {"exportV4": [{"action": "Reject"}]},
        "sample",
    ),
    Sample("BGPPeer", "bgpp", {"peerIP": "10.30.200.9", "asNumber": 64999}, {"asNumber": 65000}, "(global)"),
    Sample(
        "CalicoNodeStatus",
        "nodestatus",
        {"node": "worker-01", "classes": ["Agent", "BGP"], "updatePeriodSeconds": 10},
        {"updatePeriodSeconds": 30},
        "Agent,BGP",
    ),
    Sample(
        "FelixConfiguration",
        "felixconfig",
        {"serviceLoopPrevention": "Drop"},
        {"serviceLoopPrevention": "Reject"},
        "default",
        name="default",
    ),
    Sample("GlobalNetworkPolicy", "gnp", {**_RULES, "order": 10}, {"order": 20}, "10"),
    Sample(
        "GlobalNetworkSet",
        "globalnetworkset",
        {"nets": ["192.0.2.0/24"]},
        {"nets": ["198.51.100.0/24"]},
        "192.0.2.0/24",
    ),
    Sample(
        "HostEndpoint",
        "hep",
        {"node": "worker-01", "interfaceName": "eth0", "expectedIPs": ["10.30.200.2"]},
        {"interfaceName": "*"},
        "10.30.200.2",
    ),
    Sample(
        "IPAMConfiguration",
        "ipamconfig",
        {"strictAffinity": True, "autoAllocateBlocks": True, "maxBlocksPerHost": 4},
        {"maxBlocksPerHost": 8},
        "4",
        name="default",
    ),
    Sample(
        "IPPool", "ipp", {"cidr": "10.9.0.0/16", "natOutgoing": True}, {"natOutgoing": False}, "10.9.0.0/16"
    ),
    Sample(
        "IPReservation",
        "reservation",
        {"reservedCIDRs": ["10.9.1.0/24"]},
        {"reservedCIDRs": ["10.9.2.0/24"]},
        "10.9.1.0/24",
    ),
    Sample(
        "KubeControllersConfiguration",
        "kubecontrollersconfig",
        {"logSeverityScreen": "Info", "controllers": {"node": {"leakGracePeriod": "15m"}}},
        {"logSeverityScreen": "Debug"},
        "default",
        name="default",
    ),
    Sample("NetworkPolicy", "np", {**_RULES, "order": 1.5}, {"order": 2.5}, "1.5", namespaced=True),
    Sample(
        "NetworkSet", "netsets", {"nets": ["192.0.2.7/32"]}, {"nets": []}, "192.0.2.7/32", namespaced=True
    ),
    Sample("StagedGlobalNetworkPolicy", "sgnp", {**_RULES, "order": 7}, {"order": 8}, "7"),
    Sample(
        "StagedKubernetesNetworkPolicy",
        "sknp",
        {
            "podSelector": {"matchLabels": {"app": "web"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80, "protocol": "TCP"}]}],
        },
        {"policyTypes": ["Ingress", "Egress"]},
        "app=web",
        namespaced=True,
    ),
    Sample("StagedNetworkPolicy", "snp", {**_RULES, "order": 7}, {"order": 8}, "7", namespaced=True),
    Sample("Tier", "tiers", {"order": 100, "defaultAction": "Pass"}, {"order": 200}, "100"),
)
