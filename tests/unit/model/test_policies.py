"""The policy kinds keep Calico's spelling on the wire and read what Calico writes."""

from typing import Any

import msgspec
import pytest

from tortie.datastore.codec import decode, encode
from tortie.model.policies import (
    POLICY_KINDS,
    GlobalNetworkPolicy,
    HostEndpoint,
    NetworkPolicy,
    Tier,
    default_types,
)
from tortie.model.policy_natives import EndpointSlice, EndpointSliceV1Beta1, KubernetesNetworkPolicy
from tortie.model.resources import Resource

RULE = {
    "action": "Allow",
    "ipVersion": 4,
    "protocol": "TCP",
    "notProtocol": 17,
    "icmp": {"type": 8, "code": 0},
    "notICMP": {"type": 3},
    "metadata": {"annotations": {"why": "test"}},
    "http": {"methods": ["GET"], "paths": [{"exact": "/a"}]},
    "source": {
        "nets": ["10.0.0.0/8"],
        "notNets": ["10.1.0.0/16"],
        "selector": "has(a)",
        "notSelector": "has(b)",
        "namespaceSelector": "all()",
        "ports": [80, "90:100", "http"],
        "notPorts": [1],
        "serviceAccounts": {"names": ["a"], "selector": "has(c)"},
    },
    "destination": {"services": {"name": "a", "namespace": "b"}},
}
SPECS: list[tuple[type[Resource], dict[str, Any]]] = [
    (
        NetworkPolicy,
        {
            "tier": "t",
            "order": 10,
            "selector": "all()",
            "serviceAccountSelector": "has(a)",
            "types": ["Ingress"],
            "ingress": [RULE],
            "egress": [RULE],
            "performanceHints": ["AssumeNeededOnEveryNode"],
        },
    ),
    (
        GlobalNetworkPolicy,
        {
            "order": 0.5,
            "namespaceSelector": "has(a)",
            "doNotTrack": True,
            "preDNAT": True,
            "applyOnForward": True,
        },
    ),
    (Tier, {"order": 5, "defaultAction": "Pass"}),
    (
        HostEndpoint,
        {
            "node": "n",
            "interfaceName": "*",
            "expectedIPs": ["10.0.0.1"],
            "profiles": ["p"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        },
    ),
    (
        KubernetesNetworkPolicy,
        {
            "podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
            "ingress": [
                {
                    "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/9"]}}],
                    "ports": [{"port": 80, "endPort": 90, "protocol": "TCP"}],
                }
            ],
            "egress": [{"to": [{"podSelector": {}}]}],
            "policyTypes": ["Ingress"],
        },
    ),
]


@pytest.mark.parametrize(("kind", "spec"), SPECS, ids=[kind.__name__ for kind, _ in SPECS])
def test_every_field_survives_a_round_trip(kind: type[Resource], spec: dict[str, Any]) -> None:
    resource = decode(kind, msgspec.json.encode({"metadata": {"name": "x"}, "spec": spec}))
    assert msgspec.json.decode(encode(resource))["spec"] == spec


def test_plurals_and_scopes_are_those_of_calicos_crds() -> None:
    assert {kind.resource_type.plural: kind.resource_type.namespaced for kind in POLICY_KINDS} == {
        "networkpolicies": True,
        "globalnetworkpolicies": False,
        "tiers": False,
        "hostendpoints": False,
        "networksets": True,
        "globalnetworksets": False,
        "stagednetworkpolicies": True,
        "stagedglobalnetworkpolicies": False,
        "stagedkubernetesnetworkpolicies": True,
    }


@pytest.mark.parametrize("kind", [EndpointSlice, EndpointSliceV1Beta1])
def test_slice_with_nulls_is_read(kind: type[EndpointSlice]) -> None:
    piece = decode(kind, b'{"metadata":{"name":"x"},"endpoints":null,"ports":null}')
    assert (piece.endpoints, piece.ports) == (None, None)


@pytest.mark.parametrize(
    ("ingress", "egress", "types"),
    [
        (False, False, ["Ingress"]),
        (True, False, ["Ingress"]),
        (False, True, ["Egress"]),
        (True, True, ["Ingress", "Egress"]),
    ],
)
def test_default_types_follow_the_rules_that_are_there(ingress: bool, egress: bool, types: list[str]) -> None:
    assert default_types(ingress=ingress, egress=egress) == types
