"""Each rule of the validator: an object that keeps all of them, and what is found in one that breaks one."""

from typing import Any

import msgspec
import pytest

from tortie.datastore.codec import decode
from tortie.model.policies import (
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    NetworkPolicy,
    NetworkSet,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    Tier,
)
from tortie.model.policy_natives import KubernetesNetworkPolicy, Namespace
from tortie.model.policy_validation import policy_problems
from tortie.model.resources import Resource


def fields(
    kind: type[Resource], spec: dict[str, Any], name: str = "x", labels: dict[str, str] | None = None
) -> list[str]:
    """The fields that have problems."""
    namespace = "default" if kind.resource_type.namespaced else ""
    body = {"metadata": {"name": name, "namespace": namespace, "labels": labels or {}}, "spec": spec}
    return [problem.field for problem in policy_problems(decode(kind, msgspec.json.encode(body)))]


GOOD: dict[str, dict[str, Any]] = {
    "only an action": {"action": "Deny"},
    "log": {"action": "Log"},
    "pass": {"action": "Pass"},
    "protocol name in lower case": {"action": "Allow", "protocol": "udplite"},
    "protocol number": {"action": "Allow", "protocol": 255},
    "ports with TCP's number": {"action": "Allow", "protocol": 6, "destination": {"ports": [1, 65535]}},
    "range, name": {"action": "Allow", "protocol": "SCTP", "source": {"ports": ["1:65535", "a_b.c-d"]}},
    "notPorts": {"action": "Allow", "protocol": "UDP", "source": {"notPorts": ["80"]}},
    "icmp": {"action": "Allow", "protocol": "ICMP", "icmp": {"type": 254, "code": 255}},
    "icmpv6": {"action": "Allow", "ipVersion": 6, "protocol": "ICMPv6", "notICMP": {"type": 0}},
    "nets": {"action": "Allow", "source": {"nets": ["10.0.0.0/8"], "notNets": ["10.1.2.3/32"]}},
    "IPv6 nets": {"action": "Allow", "ipVersion": 6, "source": {"nets": ["2001:db8::/32"]}},
    "selectors": {"action": "Allow", "source": {"selector": "a == 'b'", "notSelector": "has(c)"}},
    "global()": {"action": "Allow", "source": {"namespaceSelector": " global() "}},
    "accounts": {"action": "Allow", "source": {"serviceAccounts": {"names": ["a.b"], "selector": "all()"}}},
    "service": {"action": "Allow", "source": {"services": {"name": "a"}}},
}


@pytest.mark.parametrize("rule", GOOD.values(), ids=GOOD.keys())
def test_good_rule_has_no_problem(rule: dict[str, Any]) -> None:
    assert fields(NetworkPolicy, {"ingress": [rule]}) == []


# rule, fields below spec.ingress[0] that have problems
BAD_RULES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no action": ({}, [".action"]),
    "unknown action": ({"action": "allow"}, [".action"]),
    "HTTP": ({"action": "Allow", "http": {"methods": ["GET"]}}, [".http"]),
    "ip version": ({"action": "Allow", "ipVersion": 5}, [".ipVersion"]),
    "protocol 0": ({"action": "Allow", "protocol": 0}, [".protocol"]),
    "protocol 256": ({"action": "Allow", "notProtocol": 256}, [".notProtocol"]),
    "protocol name": ({"action": "Allow", "protocol": "GRE"}, [".protocol"]),
    "ICMP with IPv6": ({"action": "Allow", "protocol": "ICMP", "ipVersion": 6}, [".ipVersion"]),
    "not ICMPv6 with IPv4": ({"action": "Allow", "notProtocol": 58, "ipVersion": 4}, [".ipVersion"]),
    "ports without protocol": ({"action": "Allow", "source": {"ports": [1]}}, [".source.ports"]),
    "ports with ICMP": (
        {"action": "Allow", "protocol": "ICMP", "destination": {"notPorts": [1]}},
        [".destination.notPorts"],
    ),
    "port 0": ({"action": "Allow", "protocol": "TCP", "source": {"ports": [0]}}, [".source.ports[0]"]),
    "port 65536": ({"action": "Allow", "protocol": 6, "source": {"ports": [65536]}}, [".source.ports[0]"]),
    "range backwards": (
        {"action": "Allow", "protocol": 6, "source": {"ports": [1, "9:8"]}},
        [".source.ports[1]"],
    ),
    "range of names": (
        {"action": "Allow", "protocol": 6, "source": {"ports": ["a:b"]}},
        [".source.ports[0]"],
    ),
    "port name": ({"action": "Allow", "protocol": 6, "source": {"ports": ["a b"]}}, [".source.ports[0]"]),
    "icmp without protocol": ({"action": "Allow", "icmp": {"type": 8}}, [".icmp"]),
    "notICMP with TCP": ({"action": "Allow", "protocol": 6, "notICMP": {"type": 8}}, [".notICMP"]),
    "icmp code alone": ({"action": "Allow", "protocol": 1, "icmp": {"code": 8}}, [".icmp.type"]),
    "icmp type 255": ({"action": "Allow", "protocol": 1, "icmp": {"type": 255}}, [".icmp.type"]),
    "icmp code 256": ({"action": "Allow", "protocol": 1, "icmp": {"type": 1, "code": 256}}, [".icmp.code"]),
    "net with host bits": ({"action": "Allow", "source": {"nets": ["10.0.0.1/8"]}}, [".source.nets[0]"]),
    "net without prefix": ({"action": "Allow", "source": {"notNets": ["10.0.0.1"]}}, [".source.notNets[0]"]),
    "no net": ({"action": "Allow", "source": {"nets": ["10.0.0.0/33"]}}, [".source.nets[0]"]),
    "net mask": ({"action": "Allow", "source": {"nets": ["10.0.0.0/255.0.0.0"]}}, [".source.nets[0]"]),
    "two IP versions": (
        {"action": "Allow", "source": {"nets": ["10.0.0.0/8"]}, "destination": {"nets": ["2001:db8::/32"]}},
        [".destination.nets[0]"],
    ),
    "net of the other version": (
        {"action": "Allow", "ipVersion": 6, "source": {"nets": ["10.0.0.0/8"]}},
        [".source.nets[0]"],
    ),
    "selector": ({"action": "Allow", "source": {"selector": "a b"}}, [".source.selector"]),
    "notSelector": ({"action": "Allow", "source": {"notSelector": "a ="}}, [".source.notSelector"]),
    "global() in selector": ({"action": "Allow", "source": {"selector": "global()"}}, [".source.selector"]),
    "global() beside others": (
        {"action": "Allow", "source": {"namespaceSelector": "global() || has(a)"}},
        [".source.namespaceSelector"],
    ),
    "account selector": (
        {"action": "Allow", "source": {"serviceAccounts": {"selector": "("}}},
        [".source.serviceAccounts.selector"],
    ),
    "account name": (
        {"action": "Allow", "source": {"serviceAccounts": {"names": ["A b"]}}},
        [".source.serviceAccounts.names[0]"],
    ),
    "service without name": ({"action": "Allow", "source": {"services": {}}}, [".source.services.name"]),
    "service on the wrong side": (
        {"action": "Allow", "destination": {"services": {"name": "a"}}},
        [".destination.services"],
    ),
    "service and selector": (
        {"action": "Allow", "source": {"services": {"name": "a"}, "selector": "has(a)"}},
        [".source.services"],
    ),
    "service and nets": (
        {"action": "Allow", "source": {"services": {"name": "a"}, "notNets": ["10.0.0.0/8"]}},
        [".source.services"],
    ),
}


@pytest.mark.parametrize(("rule", "found"), BAD_RULES.values(), ids=BAD_RULES.keys())
def test_bad_rule_is_named_by_its_field(rule: dict[str, Any], found: list[str]) -> None:
    assert fields(NetworkPolicy, {"ingress": [rule]}) == [f"spec.ingress[0]{field}" for field in found]


ALLOW = {"action": "Allow"}
# kind, spec, fields with problems
SPECS: dict[str, tuple[type[Resource], dict[str, Any], list[str]]] = {
    "empty policy": (NetworkPolicy, {}, []),
    "types": (NetworkPolicy, {"types": ["Ingress", "Egress"]}, []),
    "unknown type": (NetworkPolicy, {"types": ["ingress"]}, ["spec.types[0]"]),
    "type twice": (NetworkPolicy, {"types": ["Egress", "Egress"]}, ["spec.types[1]"]),
    "policy selector": (NetworkPolicy, {"selector": "a"}, ["spec.selector"]),
    "policy selector global()": (NetworkPolicy, {"selector": "global()"}, ["spec.selector"]),
    "account selector": (NetworkPolicy, {"serviceAccountSelector": "a"}, ["spec.serviceAccountSelector"]),
    "tier name": (NetworkPolicy, {"tier": "A.b"}, ["spec.tier"]),
    "hint": (NetworkPolicy, {"performanceHints": ["Faster"]}, ["spec.performanceHints[0]"]),
    "known hint": (NetworkPolicy, {"performanceHints": ["AssumeNeededOnEveryNode"]}, []),
    "egress service in source": (
        NetworkPolicy,
        {"egress": [{"action": "Allow", "source": {"services": {"name": "a"}}}]},
        ["spec.egress[0].source.services"],
    ),
    "egress service with ports": (
        NetworkPolicy,
        {
            "egress": [
                {"action": "Allow", "protocol": 6, "destination": {"services": {"name": "a"}, "ports": [80]}}
            ]
        },
        ["spec.egress[0].destination.services"],
    ),
    "global service without namespace": (
        GlobalNetworkPolicy,
        {"ingress": [{"action": "Allow", "source": {"services": {"name": "a"}}}]},
        ["spec.ingress[0].source.services.namespace"],
    ),
    "namespaceSelector": (GlobalNetworkPolicy, {"namespaceSelector": "a"}, ["spec.namespaceSelector"]),
    "global namespaceSelector": (
        GlobalNetworkPolicy,
        {"namespaceSelector": "global()"},
        ["spec.namespaceSelector"],
    ),
    "doNotTrack": (GlobalNetworkPolicy, {"doNotTrack": True, "applyOnForward": True}, []),
    "doNotTrack without applyOnForward": (GlobalNetworkPolicy, {"doNotTrack": True}, ["spec.applyOnForward"]),
    "preDNAT without applyOnForward": (GlobalNetworkPolicy, {"preDNAT": True}, ["spec.applyOnForward"]),
    "preDNAT and doNotTrack": (
        GlobalNetworkPolicy,
        {"preDNAT": True, "doNotTrack": True, "applyOnForward": True},
        ["spec.preDNAT"],
    ),
    "preDNAT with egress": (
        GlobalNetworkPolicy,
        {"preDNAT": True, "applyOnForward": True, "egress": [ALLOW], "types": ["Egress"]},
        ["spec.egress", "spec.types"],
    ),
    "staged": (StagedNetworkPolicy, {"stagedAction": "Set", "ingress": [ALLOW]}, []),
    "staged action": (StagedNetworkPolicy, {"stagedAction": "set"}, ["spec.stagedAction"]),
    "staged rules": (StagedNetworkPolicy, {"ingress": [{}]}, ["spec.ingress[0].action"]),
    "staged deletion": (StagedNetworkPolicy, {"stagedAction": "Delete", "tier": "t"}, []),
    "staged deletion with rules": (
        StagedGlobalNetworkPolicy,
        {"stagedAction": "Delete", "ingress": [ALLOW]},
        ["spec.stagedAction"],
    ),
    "staged global": (StagedGlobalNetworkPolicy, {"preDNAT": True}, ["spec.applyOnForward"]),
    "staged Kubernetes": (StagedKubernetesNetworkPolicy, {"podSelector": {}}, []),
    "staged Kubernetes type": (
        StagedKubernetesNetworkPolicy,
        {"policyTypes": ["Both"]},
        ["spec.policyTypes[0]"],
    ),
    "tier": (Tier, {"order": 1, "defaultAction": "Pass"}, []),
    "tier's action": (Tier, {"defaultAction": "Allow"}, ["spec.defaultAction"]),
    "host endpoint": (HostEndpoint, {"node": "a", "interfaceName": "*"}, []),
    "host endpoint by address": (HostEndpoint, {"node": "a", "expectedIPs": ["10.0.0.1", "fd00::1"]}, []),
    "host endpoint without node": (HostEndpoint, {"interfaceName": "eth0"}, ["spec.node"]),
    "host endpoint for nothing": (HostEndpoint, {"node": "a"}, ["spec.interfaceName"]),
    "host endpoint's interface": (
        HostEndpoint,
        {"node": "a", "interfaceName": "eth0 "},
        ["spec.interfaceName"],
    ),
    "host endpoint's address": (
        HostEndpoint,
        {"node": "a", "expectedIPs": ["10.0.0.0/8"]},
        ["spec.expectedIPs[0]"],
    ),
    "host endpoint's port": (
        HostEndpoint,
        {
            "node": "a",
            "interfaceName": "*",
            "ports": [{"name": "80", "protocol": "ICMP", "port": 0}],
        },
        ["spec.ports[0].port", "spec.ports[0].name", "spec.ports[0].protocol"],
    ),
    "network set": (NetworkSet, {"nets": ["10.0.0.1", "10.0.0.1/8", "fd00::/8"]}, []),
    "network set's net": (GlobalNetworkSet, {"nets": ["10.0.0.0/8", "x"]}, ["spec.nets[1]"]),
    "Kubernetes": (
        KubernetesNetworkPolicy,
        {
            "podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
            "ingress": [{"from": [{"podSelector": {}, "namespaceSelector": {}}], "ports": [{"port": 80}]}],
        },
        [],
    ),
    "Kubernetes operator": (
        KubernetesNetworkPolicy,
        {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}},
        ["spec.podSelector.matchExpressions[0].operator"],
    ),
    "Kubernetes In without values": (
        KubernetesNetworkPolicy,
        {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        ["spec.podSelector.matchExpressions[0].values"],
    ),
    "Kubernetes empty peer": (
        KubernetesNetworkPolicy,
        {"ingress": [{"from": [{}]}]},
        ["spec.ingress[0].from[0]"],
    ),
    "Kubernetes block beside selector": (
        KubernetesNetworkPolicy,
        {"egress": [{"to": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
        ["spec.egress[0].to[0].ipBlock"],
    ),
    "Kubernetes except outside": (
        KubernetesNetworkPolicy,
        {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9", "fd00::/9"]}}]}]},
        ["spec.egress[0].to[0].ipBlock.except[0]", "spec.egress[0].to[0].ipBlock.except[1]"],
    ),
    "Kubernetes endPort without number": (
        KubernetesNetworkPolicy,
        {
            "ingress": [
                {"ports": [{"port": "http", "endPort": 90}, {"port": 90, "endPort": 80}, {"endPort": 1}]}
            ]
        },
        [
            "spec.ingress[0].ports[0].endPort",
            "spec.ingress[0].ports[1].endPort",
            "spec.ingress[0].ports[2].endPort",
        ],
    ),
    "Kubernetes protocol": (
        KubernetesNetworkPolicy,
        {"ingress": [{"ports": [{"protocol": "ICMP"}]}]},
        ["spec.ingress[0].ports[0].protocol"],
    ),
}


@pytest.mark.parametrize(("kind", "spec", "found"), SPECS.values(), ids=SPECS.keys())
def test_problems_of_a_spec(kind: type[Resource], spec: dict[str, Any], found: list[str]) -> None:
    assert fields(kind, spec) == found


@pytest.mark.parametrize(
    ("name", "order", "found"),
    [
        ("default", 1_000_000, []),
        ("default", 5, ["spec.order"]),
        ("default", None, ["spec.order"]),
        ("kube-admin", 1_000, []),
        ("kube-baseline", 1_000, ["spec.order"]),
        ("mine", None, []),
        ("my.tier", 1, ["metadata.name"]),
        ("Mine", 1, ["metadata.name"]),
        ("a" * 64, 1, ["metadata.name"]),
    ],
)
def test_tier_names_and_the_orders_of_those_that_always_exist(
    name: str, order: int | None, found: list[str]
) -> None:
    assert fields(Tier, {"order": order}, name) == found


@pytest.mark.parametrize("name", ["", "A", "-a", "a_b", "a" * 254])
def test_name_that_kubernetes_would_refuse(name: str) -> None:
    assert fields(NetworkPolicy, {}, name) == ["metadata.name"]


def test_network_set_cannot_claim_a_namespace_by_label() -> None:
    labels = {"projectcalico.org/namespace": "other"}
    found = ["metadata.labels[projectcalico.org/namespace]"]
    assert fields(NetworkSet, {}, labels=labels) == found
    assert fields(GlobalNetworkSet, {}, labels=labels) == found


def test_kind_without_rules_has_no_problems() -> None:
    assert fields(Namespace, {}) == []


def test_problem_of_a_selector_says_where_it_goes_wrong() -> None:
    policy = decode(NetworkPolicy, b'{"metadata":{"name":"x","namespace":"y"},"spec":{"selector":"a == b"}}')
    (problem,) = policy_problems(policy)
    assert str(problem) == (
        "spec.selector: 'a == b' must be a selector, but at character 6: expected a string in quotes"
    )
