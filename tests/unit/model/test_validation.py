"""For each rule an object that breaks it, and the finding that must come."""

from typing import Any

import msgspec
import pytest

from tortie.model import registry
from tortie.model.validation import problems

Table = list[tuple[str, dict[str, Any], str, str]]
BLOCK = {"allocations": [None] * 64, "unallocated": list(range(64)), "attributes": [], "cidr": "10.5.0.0/26"}
AFFINITY = {"cidr": "10.5.0.0/26", "node": "n", "state": "confirmed", "deleted": "false"}


def found(kind: str, spec: dict[str, Any], name: str = "default") -> list[tuple[str, str]]:
    """Field and value of each finding."""
    document = {"metadata": {"name": name}, "spec": spec}
    resource = msgspec.convert(document, registry.crd_kind(kind))
    return [(problem.field.removeprefix("spec."), problem.value) for problem in problems(resource)]


GOOD: list[tuple[str, dict[str, Any]]] = [
    ("IPPool", {"cidr": "10.5.0.0/16", "ipipMode": "CrossSubnet", "nodeSelector": "zone == 'a'"}),
    ("IPPool", {"cidr": "fd00:10:5::/112", "vxlanMode": "Always", "blockSize": 128}),
    ("IPPool", {"cidr": "10.5.0.0/26"}),
    ("IPPool", {"cidr": "10.6.0.0/24", "allowedUses": ["LoadBalancer"], "nodeSelector": "all()"}),
    ("IPReservation", {"reservedCIDRs": ["10.5.0.1", "10.5.0.0/30", "fd00::/120", "fd00::1"]}),
    ("IPAMConfig", {"strictAffinity": True, "autoAllocateBlocks": True, "maxBlocksPerHost": 4}),
    ("IPAMConfig", {"strictAffinity": False, "autoAllocateBlocks": True, "ipCooldownSeconds": 1200}),
    ("IPAMBlock", BLOCK),
    ("BlockAffinity", AFFINITY),
    ("IPAMHandle", {"handleID": "Default", "block": {"10.5.0.0/26": 1, "fd00::/122": 2}}),
    ("ClusterInformation", {"clusterGUID": "x"}),
    ("BGPConfiguration", {"asNumber": 4294967295, "listenPort": 179, "nodeMeshMaxRestartTime": "1m30s"}),
    (
        "BGPConfiguration",
        {
            "communities": [{"name": "big", "value": "1:2:4294967295"}],
            "prefixAdvertisements": [{"cidr": "10.5.0.0/16", "communities": ["big", "65535:0"]}],
            "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}, {"cidr": "fd00::/108"}],
            "ignoredInterfaces": ["docker0", "veth*"],
            "nodeMeshPassword": {"secretKeyRef": {"name": "s", "key": "k"}},
        },
    ),
    ("BGPPeer", {"peerIP": "192.0.2.1:1179", "asNumber": 64512, "reachableBy": "192.0.2.254"}),
    ("BGPPeer", {"peerIP": "[fd00::1]:179", "asNumber": 64512, "ttlSecurity": 1}),
    ("BGPPeer", {"peerIP": "fd00::1", "asNumber": 64512, "node": "n"}),
    ("BGPPeer", {"peerSelector": "has(rr)", "nodeSelector": "!has(rr)", "nextHopMode": "Keep"}),
    (
        "BGPFilter",
        {
            "exportV4": [
                {
                    "action": "Accept",
                    "cidr": "10.0.0.0/8",
                    "matchOperator": "In",
                    "prefixLength": {"min": 16, "max": 26},
                    "operations": [{"addCommunity": {"value": "1:1"}}],
                }
            ],
            "importV6": [{"action": "Reject", "interface": "eth*", "source": "RemotePeers"}],
        },
    ),
    ("CalicoNodeStatus", {"node": "n", "classes": ["Agent", "BGP"], "updatePeriodSeconds": 10}),
    (
        "FelixConfiguration",
        {
            "mtuIfacePattern": "^eth.*",
            "routeRefreshInterval": "90s",
            "failsafeInboundHostPorts": [{"protocol": "tcp", "port": 22, "net": "10.0.0.0/8"}],
            "kubeNodePortRanges": ["30000:32767", 80],
            "natPortRange": "32768:65535",
            "interfacePrefix": "cali,tap",
        },
    ),
    (
        "KubeControllersConfiguration",
        {"controllers": {"node": {"leakGracePeriod": "0s", "hostEndpoint": {"autoCreate": "Enabled"}}}},
    ),
]


@pytest.mark.parametrize(("kind", "spec"), GOOD)
def test_good_object_has_no_problem(kind: str, spec: dict[str, Any]) -> None:
    assert found(kind, spec) == []


BAD: Table = [
    ("IPPool", {"cidr": "10.5.0.1/16"}, "cidr", "10.5.0.1/16"),
    ("IPPool", {"cidr": "10.5.0.0"}, "cidr", "10.5.0.0"),
    ("IPPool", {"cidr": "10.5.0.0/27"}, "cidr", "10.5.0.0/27"),
    ("IPPool", {"cidr": "169.254.4.0/24"}, "cidr", "169.254.4.0/24"),
    ("IPPool", {"cidr": "fe80::/64"}, "cidr", "fe80::/64"),
    ("IPPool", {"cidr": "10.5.0.0/16", "blockSize": 19}, "blockSize", "19"),
    ("IPPool", {"cidr": "10.5.0.0/16", "blockSize": 33}, "blockSize", "33"),
    ("IPPool", {"cidr": "fd00::/64", "blockSize": 26}, "blockSize", "26"),
    ("IPPool", {"cidr": "fd00::/64", "ipipMode": "Always"}, "ipipMode", "Always"),
    ("IPPool", {"cidr": "10.5.0.0/16", "ipipMode": "Always", "vxlanMode": "Always"}, "ipipMode", "Always"),
    ("IPPool", {"cidr": "10.5.0.0/16", "nodeSelector": "zone =="}, "nodeSelector", "zone =="),
    ("IPPool", {"cidr": "10.5.0.0/16", "namespaceSelector": "("}, "namespaceSelector", "("),
    (
        "IPPool",
        {"cidr": "10.5.0.0/16", "allowedUses": ["LoadBalancer", "Tunnel"]},
        "allowedUses",
        "LoadBalancer, Tunnel",
    ),
    (
        "IPPool",
        {"cidr": "10.5.0.0/16", "allowedUses": ["LoadBalancer"], "nodeSelector": "has(a)"},
        "nodeSelector",
        "has(a)",
    ),
    (
        "IPPool",
        {"cidr": "10.5.0.0/16", "allowedUses": ["LoadBalancer"], "disableBGPExport": True},
        "disableBGPExport",
        "true",
    ),
    ("IPReservation", {"reservedCIDRs": ["10.5.0.1/24"]}, "reservedCIDRs[0]", "10.5.0.1/24"),
    ("IPReservation", {"reservedCIDRs": ["10.5.0.1", "x"]}, "reservedCIDRs[1]", "x"),
    ("IPAMConfig", {"strictAffinity": False, "autoAllocateBlocks": False}, "autoAllocateBlocks", "false"),
    ("IPAMConfig", {"maxBlocksPerHost": 4}, "maxBlocksPerHost", "4"),
    ("IPAMConfig", {"maxBlocksPerHost": -1}, "maxBlocksPerHost", "-1"),
    ("IPAMConfig", {"ipCooldownSeconds": 1201}, "ipCooldownSeconds", "1201"),
    (
        "IPAMConfig",
        {"kubeVirtVMAddressPersistence": "Maybe"},
        "kubeVirtVMAddressPersistence",
        "Maybe",
    ),
    ("IPAMBlock", {**BLOCK, "allocations": [None]}, "allocations", "1 entries"),
    ("IPAMBlock", {**BLOCK, "allocations": [3, *[None] * 63]}, "allocations[0]", "3"),
    ("IPAMBlock", {**BLOCK, "unallocated": [1, 2]}, "unallocated", "1, 2"),
    ("BlockAffinity", {**AFFINITY, "node": ""}, "node", ""),
    ("BlockAffinity", {**AFFINITY, "deleted": "yes"}, "deleted", "yes"),
    ("BlockAffinity", {**AFFINITY, "type": "rack"}, "type", "rack"),
    ("IPAMHandle", {"handleID": "other", "block": {}}, "handleID", "other"),
    ("IPAMHandle", {"handleID": "default", "block": {"10.5.0.0/26": 0}}, "block[10.5.0.0/26]", "0"),
    ("BGPConfiguration", {"asNumber": 0}, "asNumber", "0"),
    ("BGPConfiguration", {"listenPort": 65536}, "listenPort", "65536"),
    ("BGPConfiguration", {"logSeverityScreen": "Loud"}, "logSeverityScreen", "Loud"),
    ("BGPConfiguration", {"bindMode": "All"}, "bindMode", "All"),
    (
        "BGPConfiguration",
        {"serviceClusterIPs": [{"cidr": "10.96.0.1/12"}]},
        "serviceClusterIPs[0].cidr",
        "10.96.0.1/12",
    ),
    (
        "BGPConfiguration",
        {"communities": [{"name": "a", "value": "65536:1"}]},
        "communities[0].value",
        "65536:1",
    ),
    (
        "BGPConfiguration",
        {"prefixAdvertisements": [{"cidr": "10.5.0.0/16", "communities": ["none"]}]},
        "prefixAdvertisements[0].communities[0]",
        "none",
    ),
    ("BGPConfiguration", {"nodeMeshMaxRestartTime": "2 minutes"}, "nodeMeshMaxRestartTime", "2 minutes"),
    (
        "BGPConfiguration",
        {"nodeMeshMaxRestartTime": "2m", "nodeToNodeMeshEnabled": False},
        "nodeMeshMaxRestartTime",
        "set",
    ),
    ("BGPConfiguration", {"ignoredInterfaces": ["*"]}, "ignoredInterfaces[0]", "*"),
    ("BGPConfiguration", {"localWorkloadPeeringIPV4": "fd00::1"}, "localWorkloadPeeringIPV4", "fd00::1"),
    ("BGPPeer", {}, "peerIP", ""),
    ("BGPPeer", {"peerIP": "192.0.2.1"}, "asNumber", ""),
    ("BGPPeer", {"peerIP": "192.0.2.1:0", "asNumber": 1}, "peerIP", "192.0.2.1:0"),
    ("BGPPeer", {"peerIP": "router", "asNumber": 1}, "peerIP", "router"),
    ("BGPPeer", {"peerIP": "192.0.2.1", "asNumber": 1, "node": "n", "nodeSelector": "all()"}, "node", "n"),
    ("BGPPeer", {"peerIP": "192.0.2.1", "asNumber": 1, "peerSelector": "all()"}, "peerIP", "192.0.2.1"),
    ("BGPPeer", {"peerSelector": "all()", "asNumber": 1}, "asNumber", "1"),
    ("BGPPeer", {"peerSelector": "has("}, "peerSelector", "has("),
    ("BGPPeer", {"peerSelector": "all()", "reachableBy": "192.0.2.1"}, "reachableBy", "192.0.2.1"),
    ("BGPPeer", {"peerIP": "192.0.2.1", "asNumber": 1, "reachableBy": "fd00::1"}, "reachableBy", "fd00::1"),
    ("BGPPeer", {"peerSelector": "all()", "ttlSecurity": 256}, "ttlSecurity", "256"),
    ("BGPPeer", {"peerSelector": "all()", "password": {}}, "password", "{}"),
    (
        "BGPPeer",
        {"peerSelector": "all()", "keepOriginalNextHop": True, "nextHopMode": "Keep"},
        "keepOriginalNextHop",
        "true",
    ),
    ("BGPFilter", {"exportV4": [{"action": "Drop"}]}, "exportV4[0].action", "Drop"),
    (
        "BGPFilter",
        {"exportV4": [{"action": "Accept", "cidr": "10.0.0.0/8"}]},
        "exportV4[0].matchOperator",
        "",
    ),
    (
        "BGPFilter",
        {"importV6": [{"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In"}]},
        "importV6[0].cidr",
        "10.0.0.0/8",
    ),
    (
        "BGPFilter",
        {
            "exportV4": [
                {
                    "action": "Accept",
                    "cidr": "10.0.0.0/8",
                    "matchOperator": "In",
                    "prefixLength": {"min": 24, "max": 16},
                }
            ]
        },
        "exportV4[0].prefixLength.min",
        "24",
    ),
    (
        "BGPFilter",
        {"exportV4": [{"action": "Accept", "operations": [{}]}]},
        "exportV4[0].operations[0]",
        "0 members",
    ),
    (
        "BGPFilter",
        {"exportV4": [{"action": "Reject", "operations": [{"setPriority": {"value": 5}}]}]},
        "exportV4[0].operations",
        "1 operations",
    ),
    ("CalicoNodeStatus", {"classes": ["BGP"]}, "node", ""),
    ("CalicoNodeStatus", {"node": "n"}, "classes", ""),
    ("CalicoNodeStatus", {"node": "n", "classes": ["BGP", "BGP"]}, "classes[1]", "BGP"),
    (
        "CalicoNodeStatus",
        {"node": "n", "classes": ["BGP"], "updatePeriodSeconds": 86401},
        "updatePeriodSeconds",
        "86401",
    ),
    ("FelixConfiguration", {"vxlanVNI": 16777216}, "vxlanVNI", "16777216"),
    ("FelixConfiguration", {"mtuIfacePattern": "("}, "mtuIfacePattern", "("),
    ("FelixConfiguration", {"routeRefreshInterval": "90"}, "routeRefreshInterval", "90"),
    (
        "FelixConfiguration",
        {"defaultEndpointToHostAction": "Reject"},
        "defaultEndpointToHostAction",
        "Reject",
    ),
    ("FelixConfiguration", {"natPortRange": "10:5"}, "natPortRange", "10:5"),
    ("FelixConfiguration", {"interfacePrefix": "cali,a b"}, "interfacePrefix", "a b"),
    (
        "FelixConfiguration",
        {"failsafeOutboundHostPorts": [{"protocol": "icmp", "port": 1}]},
        "failsafeOutboundHostPorts[0].protocol",
        "ICMP",
    ),
    (
        "KubeControllersConfiguration",
        {"controllers": {"node": {"hostEndpoint": {"templates": [{}]}}}},
        "controllers.node.hostEndpoint.templates[0].interfaceCIDRs",
        "",
    ),
    (
        "KubeControllersConfiguration",
        {"controllers": {"policy": {"reconcilerPeriod": "x"}}},
        "controllers.policy.reconcilerPeriod",
        "x",
    ),
    ("GlobalNetworkPolicy", {"ingress": [{"action": "Maybe"}]}, "ingress[0].action", "Maybe"),
]


@pytest.mark.parametrize(("kind", "spec", "field", "value"), BAD)
def test_broken_rule_is_found_and_named(kind: str, spec: dict[str, Any], field: str, value: str) -> None:
    assert (field, value) in found(kind, spec)


@pytest.mark.parametrize("kind", ["IPAMConfig", "ClusterInformation", "KubeControllersConfiguration"])
def test_kind_with_one_object_has_it_under_the_name_default(kind: str) -> None:
    spec: dict[str, Any] = {"controllers": {}} if kind == "KubeControllersConfiguration" else {}
    assert found(kind, spec, name="other") == [("metadata.name", "other")]


@pytest.mark.parametrize("name", ["", "Upper", "under_score", "-dash", "a" * 254])
def test_name_must_be_one_of_kubernetes(name: str) -> None:
    assert ("metadata.name", name) in found("IPPool", {"cidr": "10.5.0.0/16"}, name=name)


def test_mesh_settings_belong_into_the_default_object() -> None:
    spec = {"nodeMeshMaxRestartTime": "2m", "asNumber": 1}
    fields = [field for field, _value in found("BGPConfiguration", spec, name="node.n1")]
    assert fields == ["nodeMeshMaxRestartTime", "asNumber"]


def test_every_kind_can_be_validated() -> None:
    for kind in registry.KINDS:
        spec: dict[str, Any] = {"cidr": "10.5.0.0/26", "handleID": "x", "block": {}, "node": "n"}
        spec |= {
            **BLOCK,
            "state": "pending",
            "deleted": False if kind.__name__ != "BlockAffinity" else "false",
        }
        resource = msgspec.convert({"metadata": {"name": "x"}, "spec": spec}, kind)
        assert isinstance(problems(resource), list)
