"""What Calico's validator asks of each group, in our own values. docs/validation.md has the table."""

from typing import Any

import msgspec
import pytest

from tortie.datastore.codec import decode
from tortie.model import registry
from tortie.model.endpoint_validation import node_problems
from tortie.model.policies import GlobalNetworkPolicy, HostEndpoint, NetworkPolicy, StagedGlobalNetworkPolicy
from tortie.model.profile import Profile
from tortie.model.resources import Resource
from tortie.model.validation import problems

POOL = {"cidr": "10.8.0.0/16"}
PEER = {"asNumber": 64513}


def found(
    kind: str | type[Resource], spec: dict[str, Any], name: str = "default", **metadata: Any
) -> list[str]:
    """The fields that have problems."""
    struct = registry.crd_kind(kind) if isinstance(kind, str) else kind
    namespace = "shop" if struct.resource_type.namespaced else ""
    body = {"metadata": {"name": name, "namespace": namespace, **metadata}, "spec": spec}
    return [problem.field for problem in problems(decode(struct, msgspec.json.encode(body)))]


# --- metadata: every kind -------------------------------------------------------------------------

LABELS = [
    ({"zone": "b"}, True),
    ({"zone": ""}, True),
    ({"example.org/Zone": "A_b.c-D"}, True),
    ({"z" * 63: "b" * 63}, True),
    ({"zone": "b" * 64}, False),
    ({"z" * 64: "b"}, False),
    ({"Example.org/zone": "b"}, False),
    ({".zone": "b"}, False),
    ({"zone$": "b"}, False),
    ({"zo!ne": "b"}, False),
    ({"/zone": "b"}, False),
    ({"example.org/": "b"}, False),
    ({"a/b/c": "b"}, False),
    ({"zone": "-b"}, False),
    ({"zone": "b c"}, False),
]


@pytest.mark.parametrize("kind", ["IPPool", "NetworkPolicy", "GlobalNetworkSet", "BGPPeer"])
@pytest.mark.parametrize(("labels", "good"), LABELS)
def test_labels_are_kubernetes(kind: str, labels: dict[str, str], good: bool) -> None:
    specs: dict[str, dict[str, Any]] = {"IPPool": POOL, "BGPPeer": {"peerIP": "192.0.2.7", **PEER}}
    expected = [] if good else [f"metadata.labels[{next(iter(labels))}]"]
    assert found(kind, specs.get(kind, {}), labels=labels) == expected


@pytest.mark.parametrize(
    ("annotations", "wrong"),
    [
        ({"Example.org/Note": "any text: even ü, \n and spaces"}, []),
        ({"note": "x" * (256 * 1024 - 4)}, []),
        ({"note": "x" * (256 * 1024 - 3)}, ["metadata.annotations"]),
        ({"example.org$note": "x"}, ["metadata.annotations[example.org$note]"]),
        ({"note!": "x"}, ["metadata.annotations[note!]"]),
    ],
)
@pytest.mark.parametrize("kind", ["IPPool", "NetworkPolicy"])
def test_annotations_are_kubernetes(kind: str, annotations: dict[str, str], wrong: list[str]) -> None:
    assert found(kind, POOL if kind == "IPPool" else {}, annotations=annotations) == wrong


@pytest.mark.parametrize(
    "kind", ["IPPool", "GlobalNetworkPolicy", "NetworkPolicy", "NetworkSet", "BGPFilter"]
)
@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a" * 253, True),
        ("a" * 254, False),
        ("te$t", False),
        ("t~st", False),
        ("tEst", False),
        ("te.st", True),
    ],
)
def test_names_are_kubernetes(kind: str, name: str, good: bool) -> None:
    assert found(kind, POOL if kind == "IPPool" else {}, name) == ([] if good else ["metadata.name"])


def test_global_policy_cannot_be_called_like_one_of_kubernetes() -> None:
    for kind in (GlobalNetworkPolicy, StagedGlobalNetworkPolicy):
        assert found(kind, {}, "knp.default.web") == ["metadata.name"]
    assert found(NetworkPolicy, {}, "knp.default.web") == []  # that is how they are called


# --- rules ----------------------------------------------------------------------------------------


def in_rule(
    rule: dict[str, Any], direction: str = "ingress", kind: type[Resource] = NetworkPolicy
) -> list[str]:
    return found(kind, {direction: [{"action": "Allow", **rule}]})


@pytest.mark.parametrize(
    ("protocol", "good"),
    [
        *[(name, True) for name in ("TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite")],
        *[(number, True) for number in (1, 41, 255, "1", "41", "255")],
        *[(wrong, False) for wrong in (0, 256, "0", "256", "-1", "1.5", "udpx", "xudp", "")],
    ],
)
def test_protocol_is_a_name_or_a_number(protocol: str | int, good: bool) -> None:
    for field in ("protocol", "notProtocol"):
        assert in_rule({field: protocol}) == ([] if good else [f"spec.ingress[0].{field}"])


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("field", ["ports", "notPorts"])
@pytest.mark.parametrize(
    ("protocol", "ports", "good"),
    [
        ("SCTP", [9], True),
        (132, [9, "web", "10:20"], True),
        ("UDP", ["web"], True),
        (17, [9], True),
        (41, [], True),
        (None, [], True),
        (None, [9], False),
        (41, [9], False),
        ("ICMP", [9], False),
        ("UDPLite", [9], False),
        ("TCP", ["0:9"], False),
        ("TCP", ["20:10"], False),
        ("TCP", ["web:20"], False),
    ],
)
def test_ports_need_a_protocol_that_has_them(
    side: str, field: str, protocol: str | int | None, ports: list[int | str], good: bool
) -> None:
    rule = {side: {field: ports}, **({} if protocol is None else {"protocol": protocol})}
    assert bool(in_rule(rule)) is not good


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ({"protocol": "ICMP", "icmp": {}}, []),
        ({"protocol": "ICMP", "icmp": {"type": 0}}, []),
        ({"protocol": "ICMPv6", "icmp": {"type": 129, "code": 0}}, []),
        ({"protocol": "ICMP", "ipVersion": 4, "notICMP": {"type": 9, "code": 255}}, []),
        ({"protocol": "ICMP", "icmp": {"code": 0}}, [".icmp.type"]),
        ({"protocol": "ICMP", "icmp": {"type": -1}}, [".icmp.type"]),
        ({"protocol": "ICMP", "notICMP": {"type": 129, "code": 256}}, [".notICMP.code"]),
        ({"ipVersion": 4, "icmp": {"type": 0}}, [".icmp"]),
    ],
)
def test_icmp_has_a_type_and_perhaps_a_code(rule: dict[str, Any], wrong: list[str]) -> None:
    assert in_rule(rule) == [f"spec.ingress[0]{field}" for field in wrong]


NETS = {4: "203.0.113.0/24", 6: "2001:db8:7::/48"}


@pytest.mark.parametrize("left", ["nets", "notNets"])
@pytest.mark.parametrize("right", ["nets", "notNets"])
@pytest.mark.parametrize(("source", "destination"), [(4, 6), (6, 4)])
def test_networks_of_a_rule_are_of_one_ip_version(
    left: str, right: str, source: int, destination: int
) -> None:
    rule = {"source": {left: [NETS[source]]}, "destination": {right: [NETS[destination]]}}
    assert in_rule(rule) == [f"spec.ingress[0].destination.{right}[0]"]
    assert in_rule({**rule, "ipVersion": destination}) == [f"spec.ingress[0].source.{left}[0]"]


@pytest.mark.parametrize(
    ("beside", "good"),
    [
        ({"selector": "has(x)"}, False),
        ({"notSelector": "has(x)"}, False),
        ({"namespaceSelector": "has(x)"}, False),
        ({"serviceAccounts": {"names": ["x"]}}, False),
        ({"nets": ["203.0.113.0/24"]}, False),
        ({"notNets": ["203.0.113.0/24"]}, False),
        ({"ports": [9]}, True),  # of the source: the service says nothing of it
        ({"notPorts": [9]}, True),
    ],
)
def test_service_stands_alone_but_for_ports_of_the_source(beside: dict[str, Any], good: bool) -> None:
    service = {"services": {"name": "web", "namespace": "shop"}, **beside}
    wrong = [] if good else ["spec.ingress[0].source.services"]
    assert in_rule({"protocol": "TCP", "source": service}) == wrong
    assert in_rule({"protocol": "TCP", "source": service}, kind=GlobalNetworkPolicy) == wrong
    egress = in_rule({"protocol": "TCP", "destination": service}, "egress")
    assert egress == ["spec.egress[0].destination.services"]


def test_service_belongs_on_the_far_side() -> None:
    service = {"services": {"name": "web", "namespace": "shop"}}
    assert in_rule({"destination": service}, "egress") == []
    assert in_rule({"source": service}, "egress") == ["spec.egress[0].source.services"]
    assert in_rule({"destination": service}, kind=GlobalNetworkPolicy) == [
        "spec.ingress[0].destination.services"
    ]


@pytest.mark.parametrize(
    ("selector", "good"),
    [("\t global( ) ", True), ("(global())", True), ("global()&&all()", False), ("all()||global()", False)],
)
def test_global_stands_alone_in_a_namespace_selector(selector: str, good: bool) -> None:
    wrong = [] if good else ["spec.ingress[0].source.namespaceSelector"]
    assert in_rule({"source": {"namespaceSelector": selector}}) == wrong


@pytest.mark.parametrize(
    "field", ["source.selector", "destination.notSelector", "source.serviceAccounts.selector"]
)
def test_global_has_no_other_place_in_a_rule(field: str) -> None:
    rule: Any = " global() "
    for part in reversed(field.split(".")):
        rule = {part: rule}
    assert in_rule(rule) == [f"spec.ingress[0].{field}"]


def test_notes_of_a_rule_have_keys_of_kubernetes() -> None:
    assert in_rule({"metadata": {"annotations": {"why": "because"}}}) == []
    assert in_rule({"metadata": {"annotations": {"..": "because"}}}) == [
        "spec.ingress[0].metadata.annotations[..]"
    ]


@pytest.mark.parametrize("kind", [NetworkPolicy, GlobalNetworkPolicy])
@pytest.mark.parametrize("types", [[], ["Ingress"], ["Egress"], ["Ingress", "Egress"]])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_types_need_not_fit_the_rules(kind: type[Resource], types: list[str], direction: str) -> None:
    assert found(kind, {"types": types, direction: [{"action": "Allow"}]}) == []


def test_http_is_refused_in_every_rule() -> None:
    for direction in ("ingress", "egress"):
        assert in_rule({"http": {"methods": ["PUT"]}}, direction) == [f"spec.{direction}[0].http"]


# --- endpoints ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "good"),
    [("kns.shop", True), ("ksa.shop.robot", True), ("plain-1", True), (".first", False), ("A", False)],
)
def test_host_endpoint_names_profiles(profile: str, good: bool) -> None:
    spec = {"node": "n", "interfaceName": "ens3", "profiles": [profile]}
    assert found(HostEndpoint, spec) == ([] if good else ["spec.profiles[0]"])


def test_ports_of_a_host_endpoint_may_share_a_name_and_must_have_one() -> None:
    ports = [{"name": "web", "protocol": protocol, "port": 9} for protocol in ("TCP", "UDP", "SCTP")]
    spec = {"node": "n", "interfaceName": "ens3"}
    assert found(HostEndpoint, {**spec, "ports": ports}) == []
    unnamed = {"protocol": "TCP", "port": 9}
    assert found(HostEndpoint, {**spec, "ports": [unnamed]}) == ["spec.ports[0].name"]


OWN = {"ipNetworks": ["10.8.0.3/32", "2001:db8::3/128"]}


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ({}, []),
        ({"interfaceName": "Ens3_a.b-c"}, []),
        ({"interfaceName": "a" * 16}, ["interfaceName"]),
        ({"interfaceName": ""}, ["interfaceName"]),
        *[({"interfaceName": f"a{sign}b"}, ["interfaceName"]) for sign in "&#:/ "],
        (OWN, []),
        ({"ipNetworks": ["10.8.0.3"]}, []),
        ({"ipNetworks": ["10.8.0.0/30", "2001:db8::/127"]}, ["ipNetworks[0]", "ipNetworks[1]"]),
        ({**OWN, "ipNATs": [{"internalIP": "10.8.0.3", "externalIP": "203.0.113.3"}]}, []),
        ({**OWN, "ipNATs": [{"internalIP": "2001:db8::3", "externalIP": "2001:db8:9::3"}]}, []),
        ({**OWN, "ipNATs": [{"internalIP": "10.8.0.3", "externalIP": "fd00::3"}]}, ["ipNATs[0].externalIP"]),
        (
            {**OWN, "ipNATs": [{"internalIP": "fd00::3", "externalIP": "10.8.0.9"}]},
            ["ipNATs[0].externalIP", "ipNATs[0].internalIP"],
        ),
        ({"ipNATs": [{"internalIP": "10.8.0.3", "externalIP": "203.0.113.3"}]}, ["ipNATs[0].internalIP"]),
        ({**OWN, "ipNATs": [{"internalIP": "10.8.0.3"}]}, ["ipNATs[0]"]),
        ({"containerID": "Abc-123"}, []),
        *[({"containerID": text}, ["containerID"]) for text in ("-abc", "abc-", "a.c")],
        ({"ports": [{"name": "web", "protocol": "SCTP", "port": 9}]}, []),
        ({"ports": [{"protocol": "UDP", "port": 9, "hostPort": 90}]}, []),
        ({"ports": [{"protocol": "UDP", "port": 9}]}, ["ports[0].name"]),
        ({"ports": [{"name": "web", "protocol": "17", "port": 9}]}, ["ports[0].protocol"]),
        ({"ports": [{"name": "web", "protocol": "", "port": 0}]}, ["ports[0].port", "ports[0].protocol"]),
        ({"ports": [{"name": "web", "port": 9, "hostIP": "0.0.0.0"}]}, []),
        ({"ports": [{"name": "web", "port": 9, "hostIP": "here"}]}, ["ports[0].hostIP"]),
        ({"mac": "ee:ee:ee:ee:ee:ee", "ipv4Gateway": "169.254.1.1", "ipv6Gateway": "fe80::1"}, []),
        (
            {"mac": "ee:ee", "ipv4Gateway": "fe80::1", "ipv6Gateway": "x"},
            ["ipv4Gateway", "ipv6Gateway", "mac"],
        ),
        ({"allowSpoofedSourcePrefixes": ["10.0.0.0/8", "fd00::1"]}, []),
        ({"allowSpoofedSourcePrefixes": ["10.0.0.1/8"]}, ["allowSpoofedSourcePrefixes[0]"]),
        ({"qosControls": {"ingressBandwidth": 1000, "egressPacketRate": 10_000, "dscp": "AF11"}}, []),
        (
            {"qosControls": {"ingressBandwidth": 999, "egressPacketRate": 10_001, "dscp": 64}},
            ["qosControls.ingressBandwidth", "qosControls.egressPacketRate", "qosControls.dscp"],
        ),
        (
            {"qosControls": {"egressPeakrate": 1009, "ingressMinburst": 999, "ingressMaxConnections": 2**32}},
            [
                "qosControls.ingressMinburst",
                "qosControls.egressPeakrate",
                "qosControls.ingressMaxConnections",
            ],
        ),
    ],
)
def test_workload_endpoint(spec: dict[str, Any], wrong: list[str]) -> None:
    kind = registry.kind_of("projectcalico.org/v3", "WorkloadEndpoint")
    body = {"interfaceName": "cali0", "node": "n", **spec}
    assert found(kind, body, "n-k8s-p-eth0") == [f"spec.{field}" for field in wrong]


def test_profile_has_labels_and_rules() -> None:
    assert found(Profile, {"labelsToApply": {"example.org/tier": "b" * 63}}) == []
    spec = {"labelsToApply": {"tier": "b" * 64}, "egress": [{"action": "Maybe"}]}
    assert found(Profile, spec) == ["spec.labelsToApply[tier]", "spec.egress[0].action"]


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ({}, []),
        ({"bgp": {"ipv4Address": "203.0.113.5/24", "ipv6Address": "2001:db8::5/64"}}, []),
        ({"bgp": {"ipv4Address": "203.0.113.5"}}, []),
        ({"bgp": {"ipv4IPIPTunnelAddr": "10.8.0.1"}}, []),
        ({"bgp": {}}, []),  # what a patch leaves that takes the last setting away
        ({"bgp": {"ipv4Address": "2001:db8::5/64"}}, ["spec.bgp.ipv4Address"]),
        ({"bgp": {"ipv6Address": "203.0.113.5/24"}}, ["spec.bgp.ipv6Address"]),
        ({"bgp": {"routeReflectorClusterID": "224.0.0.9"}}, []),
        ({"bgp": {"routeReflectorClusterID": "reflector"}}, ["spec.bgp.routeReflectorClusterID"]),
        ({"bgp": {"routeReflectorClusterID": "1.2.3.256"}}, ["spec.bgp.routeReflectorClusterID"]),
        ({"ipv4VXLANTunnelAddr": "fd00::1"}, ["spec.ipv4VXLANTunnelAddr"]),
        ({"wireguard": {"interfaceIPv4Address": "10.8.0.2"}}, []),
        ({"wireguard": {"interfaceIPv4Address": "node.example"}}, ["spec.wireguard.interfaceIPv4Address"]),
    ],
)
def test_node(spec: dict[str, Any], wrong: list[str]) -> None:
    assert [problem.field for problem in node_problems(spec)] == wrong


# --- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "spec", "wrong"),
    [
        ("IPPool", {"cidr": "10.8.0.0/10"}, ["cidr"]),  # bits after the prefix
        ("IPPool", {"cidr": "10.0.0.0/10"}, []),
        ("IPPool", {"cidr": "2001:db8::/122", "blockSize": 122}, []),
        ("IPPool", {"cidr": "10.8.0.0/28"}, ["cidr"]),
        ("IPPool", {"cidr": "10.8.0.0/28", "disabled": True}, []),
        ("IPPool", {"cidr": "2001:db8::1/128", "blockSize": 122, "disabled": True}, []),
        ("IPPool", {"cidr": "10.8.0.0/33"}, ["cidr"]),
        ("IPPool", {"cidr": "10.8.0.0/16", "allowedUses": ["Workload", "Tunnel"]}, []),
        ("IPPool", {"cidr": "10.8.0.0/16", "vxlanMode": "CrossSubnet", "ipipMode": "Never"}, []),
        (
            "IPPool",
            {"cidr": "10.8.0.0/16", "allowedUses": ["LoadBalancer"], "vxlanMode": "Always"},
            ["vxlanMode"],
        ),
        (
            "IPPool",
            {"cidr": "10.8.0.0/16", "allowedUses": ["LoadBalancer"], "ipipMode": "CrossSubnet"},
            ["ipipMode"],
        ),
        ("BGPPeer", {"localWorkloadSelector": "has(router)", "asNumber": 64513}, []),
        ("BGPPeer", {"localWorkloadSelector": "has(router)"}, ["asNumber"]),
        (
            "BGPPeer",
            {"localWorkloadSelector": "has(router)", "asNumber": 64513, "peerIP": "192.0.2.7"},
            ["peerIP"],
        ),
        ("IPReservation", {"reservedCIDRs": ["10.8.9.0/33"]}, ["reservedCIDRs[0]"]),
        ("BGPConfiguration", {"serviceClusterIPs": [{"cidr": "10.96.0.7"}, {"cidr": "fd00::7"}]}, []),
        ("BGPConfiguration", {"serviceExternalIPs": [{"cidr": "203.0.113.7"}, {"cidr": "2001:db8::7"}]}, []),
        ("BGPConfiguration", {"serviceExternalIPs": [{"cidr": "a.b.c.d"}]}, ["serviceExternalIPs[0].cidr"]),
        ("BGPConfiguration", {"logSeverityScreen": "WARNING"}, ["logSeverityScreen"]),
        (
            "BGPConfiguration",
            {"nodeToNodeMeshEnabled": False, "nodeMeshPassword": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ["nodeMeshPassword"],
        ),
        ("BGPConfiguration", {"communities": [{"name": "a", "value": "1:2"}]}, ["communities"]),
        (
            "BGPConfiguration",
            {"prefixAdvertisements": [{"cidr": "10.8.0.0/26"}]},
            ["prefixAdvertisements[0].communities"],
        ),
        (
            "BGPConfiguration",
            {"prefixAdvertisements": [{"communities": ["1:2"]}]},
            ["prefixAdvertisements[0].cidr"],
        ),
        ("FelixConfiguration", {"externalNodesList": ["203.0.113.1", "203.0.113.128/25"]}, []),
        (
            "FelixConfiguration",
            {"externalNodesList": ["fd00::1", "x"]},
            ["externalNodesList[0]", "externalNodesList[1]"],
        ),
        ("FelixConfiguration", {"prometheusMetricsHost": "metrics.example"}, []),
        ("FelixConfiguration", {"prometheusMetricsHost": "fd00::1"}, []),
        ("FelixConfiguration", {"prometheusMetricsHost": "a#b"}, ["prometheusMetricsHost"]),
        ("FelixConfiguration", {"prometheusMetricsHost": "1 :2"}, ["prometheusMetricsHost"]),
        ("FelixConfiguration", {"natOutgoingAddress": "203.0.113.1"}, []),
        *[
            ("FelixConfiguration", {"natOutgoingAddress": text}, ["natOutgoingAddress"])
            for text in ("203.0.113.1/32", "fd00::1", "x")
        ],
        *[
            ("FelixConfiguration", {"deviceRouteSourceAddress": text}, ["deviceRouteSourceAddress"])
            for text in ("203.0.113.1/32", "fd00::1")
        ],
        *[
            ("FelixConfiguration", {"deviceRouteSourceAddressIPv6": text}, ["deviceRouteSourceAddressIPv6"])
            for text in ("fd00::1/128", "203.0.113.1")
        ],
        ("FelixConfiguration", {"defaultEndpointToHostAction": "accept"}, ["defaultEndpointToHostAction"]),
        ("FelixConfiguration", {"logSeveritySys": "Critical"}, ["logSeveritySys"]),
        ("FelixConfiguration", {"serviceLoopPrevention": "Sometimes"}, ["serviceLoopPrevention"]),
        ("FelixConfiguration", {"iptablesMangleAllowAction": "Drop"}, ["iptablesMangleAllowAction"]),
        ("FelixConfiguration", {"kubeNodePortRanges": ["30000:31000", 32000]}, []),
        ("FelixConfiguration", {"kubeNodePortRanges": ["web"]}, ["kubeNodePortRanges[0]"]),
        ("FelixConfiguration", {"wireguardInterfaceName": "wg&1"}, ["wireguardInterfaceName"]),
        ("FelixConfiguration", {"wireguardListeningPort": 70000}, ["wireguardListeningPort"]),
        ("KubeControllersConfiguration", {"controllers": {}, "healthChecks": "On"}, ["healthChecks"]),
        (
            "KubeControllersConfiguration",
            {"controllers": {}, "logSeverityScreen": "Loud"},
            ["logSeverityScreen"],
        ),
        ("KubeControllersConfiguration", {"controllers": {}, "etcdV3CompactionPeriod": "12m"}, []),
        (
            "KubeControllersConfiguration",
            {"controllers": {"node": {"syncLabels": "yes"}}},
            ["controllers.node.syncLabels"],
        ),
        (
            "KubeControllersConfiguration",
            {"controllers": {"node": {"hostEndpoint": {}}, "policy": {}, "namespace": {}}},
            [],
        ),
        (
            "KubeControllersConfiguration",
            {"controllers": {"node": {"hostEndpoint": {"autoCreate": "Totally"}}}},
            ["controllers.node.hostEndpoint.autoCreate"],
        ),
    ],
)
def test_configuration(kind: str, spec: dict[str, Any], wrong: list[str]) -> None:
    assert found(kind, spec) == [f"spec.{field}" for field in wrong]


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("203.0.113.7", True),
        ("203.0.113.7:1790", True),
        ("[2001:db8::7]:1790", True),
        ("203.0.113.300", False),
        ("2001:db8:::7", False),
        *[(f"203.0.113.7:{port}", False) for port in ("", "0", "65536", "x")],
        *[(f"[2001:db8::7]:{port}", False) for port in ("", "0", "65536")],
        ("[203.0.113.7]:1790", False),
        ("[2001:db8::fffff]:1790", False),
        (":1790", False),
        ("[]:1790", False),
    ],
)
def test_address_of_a_bgp_peer_may_have_a_port(address: str, good: bool) -> None:
    assert found("BGPPeer", {"peerIP": address, **PEER}) == ([] if good else ["spec.peerIP"])


@pytest.mark.parametrize(
    ("address", "gateway", "good"),
    [
        ("203.0.113.7:1790", "203.0.113.1", True),
        ("[2001:db8::7]:1790", "2001:db8::1", True),
        ("203.0.113.7:1790", "2001:db8::1", False),
        ("2001:db8::7", "203.0.113.1", False),
        ("203.0.113.7", "203.0.113.256", False),
    ],
)
def test_way_to_a_bgp_peer_is_of_its_ip_version(address: str, gateway: str, good: bool) -> None:
    spec = {"peerIP": address, "reachableBy": gateway, **PEER}
    assert found("BGPPeer", spec) == ([] if good else ["spec.reachableBy"])
