"""Kubernetes' policies in the v3 form, as people see them."""

from typing import Any

import pytest

from tests.unit.policy.objects import kubernetes_policy
from tortie.cli.kinds import kind_titled
from tortie.cli.kubernetes_policies import policy_document, reason_against

PODS = 'projectcalico.org/orchestrator == "k8s"'


def spec_of(**spec: Any) -> dict[str, Any]:
    body = policy_document(kubernetes_policy("web", "shop", **spec))
    assert (body["kind"], body["metadata"]["name"], body["metadata"]["namespace"]) == (
        "NetworkPolicy",
        "knp.default.web",
        "shop",
    )
    found: dict[str, Any] = body["spec"]
    return found


def test_policy_stands_in_tier_default_at_order_1000_and_selects_pods() -> None:
    assert spec_of(podSelector={"matchLabels": {"app": "web"}}, policyTypes=["Ingress"]) == {
        "tier": "default",
        "order": 1000,
        "selector": f'({PODS} && app == "web")',
        "types": ["Ingress"],
    }


@pytest.mark.parametrize(
    ("spec", "types"),
    [({}, ["Ingress"]), ({"egress": [{}]}, ["Ingress", "Egress"]), ({"policyTypes": ["Egress"]}, ["Egress"])],
)
def test_types_are_those_that_kubernetes_means(spec: dict[str, Any], types: list[str]) -> None:
    assert spec_of(**spec)["types"] == types


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ({"podSelector": {}}, {"selector": PODS}),
        (
            {"podSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1", "2"]}]}},
            {"selector": f'({PODS} && a not in {{"1", "2"}})'},
        ),
        ({"namespaceSelector": {}}, {"selector": PODS, "namespaceSelector": "all()"}),
        (
            {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchLabels": {"b": "c"}}},
            {"selector": f'({PODS} && b == "c")', "namespaceSelector": 'team == "a"'},
        ),
        ({"ipBlock": {"cidr": "192.0.2.0/24"}}, {"nets": ["192.0.2.0/24"]}),
        (
            {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.8/29"]}},
            {"nets": ["192.0.2.0/24"], "notNets": ["192.0.2.8/29"]},
        ),
    ],
)
def test_peer_becomes_the_source_of_an_ingress_rule(peer: dict[str, Any], source: dict[str, Any]) -> None:
    assert spec_of(ingress=[{"from": [peer]}])["ingress"] == [{"action": "Allow", "source": source}]


def test_peer_becomes_the_destination_of_an_egress_rule_beside_the_ports() -> None:
    rules = [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 80, "endPort": 90}]}]
    assert spec_of(egress=rules, policyTypes=["Egress"])["egress"] == [
        {"action": "Allow", "protocol": "TCP", "destination": {"nets": ["192.0.2.0/24"], "ports": ["80:90"]}}
    ]


def test_each_protocol_and_peer_makes_a_rule() -> None:
    rules = [
        {
            "from": [{"ipBlock": {"cidr": "192.0.2.0/25"}}, {"ipBlock": {"cidr": "192.0.2.128/25"}}],
            "ports": [{"port": "http"}, {"protocol": "UDP"}, {"protocol": "UDP", "port": 53}, {"port": 81}],
        }
    ]
    tcp = {"action": "Allow", "protocol": "TCP", "destination": {"ports": ["http", 81]}}
    udp = {"action": "Allow", "protocol": "UDP"}  # every port of it
    lower, upper = ({"source": {"nets": [f"192.0.2.{first}/25"]}} for first in (0, 128))
    assert spec_of(ingress=rules)["ingress"] == [tcp | lower, tcp | upper, udp | lower, udp | upper]


def test_empty_rule_allows_everything_and_no_rule_nothing() -> None:
    assert spec_of(ingress=[{}])["ingress"] == [{"action": "Allow"}]
    assert "ingress" not in spec_of(ingress=[])


def test_only_policies_of_that_prefix_are_kubernetes_own() -> None:
    assert "kubectl" in reason_against("knp.default.web")
    assert reason_against("web") == ""
    calico = kind_titled("NetworkPolicy")
    assert calico.reason_against("delete", "etcdv3", "knp.default.web")
    assert not calico.reason_against("delete", "kubernetes", "web")
    assert not kind_titled("NetworkSet").reason_against("delete", "kubernetes", "knp.default.web")
