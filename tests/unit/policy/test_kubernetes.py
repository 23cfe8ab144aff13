"""Kubernetes NetworkPolicy in terms of Calico's model."""

from typing import Any

import pytest

from tests.unit.policy.objects import kubernetes_policy
from tortie.model.policy_values import parse_network
from tortie.policy.compile import CompiledPolicy
from tortie.policy.sets import NamedPortSet, SelectorSet
from tortie.policy.sources import read_policy
from tortie.policy.state import Action, Peer, PolicyKey, Rule

PODS = 'projectcalico.org/orchestrator == "k8s"'
HOME = 'projectcalico.org/namespace == "default"'


def compiled(**spec: Any) -> CompiledPolicy:
    found, problems = read_policy(kubernetes_policy("x", **spec))
    assert found is not None
    assert not problems
    return found


def selectors(policy: CompiledPolicy, peer: Peer) -> list[str]:
    """What the peer's sets select."""
    found = [policy.sets[set_id] for set_id in peer.sets]
    return [definition.selector.text for definition in found if isinstance(definition, SelectorSet)]


def test_stands_in_tier_default_at_order_1000() -> None:
    found = compiled(podSelector={})
    assert (found.tier, found.order, found.key) == (
        "default",
        1000.0,
        PolicyKey("KubernetesNetworkPolicy", "x", "default"),
    )
    assert found.forward


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        ({}, (True, False)),
        ({"ingress": [{}]}, (True, False)),
        ({"egress": [{}]}, (True, True)),
        ({"policyTypes": ["Ingress"]}, (True, False)),
        ({"policyTypes": ["Egress"]}, (False, True)),
        ({"policyTypes": ["Ingress", "Egress"]}, (True, True)),
    ],
)
def test_types(spec: dict[str, Any], directions: tuple[bool, bool]) -> None:
    found = compiled(**spec)
    assert (found.ingress, found.egress) == directions


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({}, f"({HOME} && {PODS})"),
        ({"matchLabels": {"b": "2", "a": "1"}}, f'({HOME} && {PODS} && a == "1" && b == "2")'),
        (
            {
                "matchExpressions": [
                    {"key": "a", "operator": "In", "values": ["2", "1"]},
                    {"key": "b", "operator": "NotIn", "values": ["3"]},
                    {"key": "c", "operator": "Exists"},
                    {"key": "d", "operator": "DoesNotExist"},
                ]
            },
            f'({HOME} && {PODS} && a in {{"1", "2"}} && b not in {{"3"}} && has(c) && !has(d))',
        ),
    ],
)
def test_pod_selector(selector: dict[str, Any], text: str) -> None:
    assert compiled(podSelector=selector).selector.text == text


# peer, what its set selects
PEERS: dict[str, tuple[dict[str, Any], str]] = {
    "empty podSelector is the own namespace": ({"podSelector": {}}, f"({PODS} && {HOME})"),
    "podSelector looks into the own namespace": (
        {"podSelector": {"matchLabels": {"a": "1"}}},
        f'({PODS} && {HOME} && a == "1")',
    ),
    "empty namespaceSelector is every namespace": (
        {"namespaceSelector": {}},
        f"({PODS} && has(projectcalico.org/namespace))",
    ),
    "namespaceSelector": ({"namespaceSelector": {"matchLabels": {"a": "1"}}}, f'({PODS} && pcns.a == "1")'),
    "both": (
        {
            "namespaceSelector": {"matchExpressions": [{"key": "n", "operator": "DoesNotExist"}]},
            "podSelector": {"matchLabels": {"a": "1"}},
        },
        f'({PODS} && !has(pcns.n) && a == "1")',
    ),
}


@pytest.mark.parametrize(("peer", "text"), PEERS.values(), ids=PEERS.keys())
def test_peer(peer: dict[str, Any], text: str) -> None:
    found = compiled(ingress=[{"from": [peer]}], egress=[{"to": [peer]}])
    assert selectors(found, found.rules.ingress[0].source) == [text]
    assert selectors(found, found.rules.egress[0].destination) == [text]


def test_no_rules_allow_nothing_and_an_empty_rule_allows_everything() -> None:
    assert compiled(ingress=[]).rules.ingress == ()
    assert compiled(ingress=[{}]).rules.ingress == (Rule(Action.ALLOW),)
    assert compiled(ingress=[{"from": [], "ports": []}]).rules.ingress == (Rule(Action.ALLOW),)


def test_block_with_holes() -> None:
    found = compiled(egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}])
    assert found.rules.egress == (
        Rule(
            Action.ALLOW,
            destination=Peer(
                networks=(parse_network("10.0.0.0/8"),), not_networks=(parse_network("10.1.0.0/16"),)
            ),
        ),
    )


# ports as written; protocol and port ranges of each rule
PORTS: dict[str, tuple[list[dict[str, Any]], list[tuple[int, tuple[tuple[int, int], ...]]]]] = {
    "number": ([{"port": 80}], [(6, ((80, 80),))]),
    "protocol alone": ([{"protocol": "UDP"}], [(17, ())]),
    "protocol alone beside numbers": ([{"port": 80}, {"protocol": "TCP"}, {"port": 81}], [(6, ())]),
    "neighbours become a range": ([{"port": 82}, {"port": 80}, {"port": 81}], [(6, ((80, 82),))]),
    "range": ([{"port": 80, "endPort": 90}, {"port": 85}], [(6, ((80, 90),))]),
    "one rule for each protocol": (
        [{"port": 53, "protocol": "UDP"}, {"port": 53}, {"port": 1, "protocol": "SCTP"}],
        [(6, ((53, 53),)), (17, ((53, 53),)), (132, ((1, 1),))],
    ),
}


@pytest.mark.parametrize(("ports", "expected"), PORTS.values(), ids=PORTS.keys())
def test_ports(ports: list[dict[str, Any]], expected: list[tuple[int, tuple[tuple[int, int], ...]]]) -> None:
    found = compiled(ingress=[{"ports": ports}])
    assert [(rule.protocol, rule.destination.ports) for rule in found.rules.ingress] == expected


def test_named_port_is_looked_up_at_the_destination() -> None:
    rule = {"ports": [{"port": "http"}, {"port": 80}]}
    peer = {"podSelector": {"matchLabels": {"a": "1"}}}
    found = compiled(ingress=[rule | {"from": [peer]}], egress=[rule | {"to": [peer]}])
    incoming, outgoing = found.rules.ingress[0].destination, found.rules.egress[0].destination
    assert incoming.ports == outgoing.ports == ((80, 80),)
    sets = [found.sets[set_id] for set_id in incoming.named_ports + outgoing.named_ports]
    assert [
        (entry.port, entry.protocol, entry.selector.text) for entry in sets if isinstance(entry, NamedPortSet)
    ] == [
        ("http", 6, "all()"),
        ("http", 6, f'({PODS} && {HOME} && a == "1")'),
    ]


def test_one_rule_for_each_peer_and_protocol() -> None:
    peers = [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]
    found = compiled(ingress=[{"from": peers, "ports": [{"port": 1}, {"port": 1, "protocol": "UDP"}]}, {}])
    assert len(found.rules.ingress) == 5
    assert found.origins["Ingress"] == ("spec.ingress[0]",) * 4 + ("spec.ingress[1]",)


@pytest.mark.parametrize(
    "rule",
    [
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]},
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["x"]}}]},
        {"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}]},
        {"from": [{"podSelector": {}}, {}]},
        {"ports": [{"port": 0}]},
        {"ports": [{"port": 80, "protocol": "GRE"}]},
        {"ports": [{"port": "http", "endPort": 90}]},
    ],
)
def test_rule_that_cannot_be_read_is_left_out_and_reported(rule: dict[str, Any]) -> None:
    found, problems = read_policy(kubernetes_policy("x", ingress=[rule]))
    assert found is not None
    assert found.rules.ingress == ()
    assert not found.sets
    assert problems[0].field.startswith("spec.ingress[0].")


def test_policy_with_unreadable_pod_selector_selects_nobody() -> None:
    found, problems = read_policy(
        kubernetes_policy("x", podSelector={"matchExpressions": [{"key": "a", "operator": "Like"}]})
    )
    assert found is None
    assert [problem.field for problem in problems] == ["spec.podSelector.matchExpressions[0].operator"]


def test_label_value_cannot_break_out_of_its_place() -> None:
    wild = "x' || all() || a == 'y"
    found = compiled(
        ingress=[
            {
                "from": [
                    {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": [wild]}]}}
                ]
            }
        ]
    )
    (set_id,) = found.rules.ingress[0].source.sets
    definition = found.sets[set_id]
    assert isinstance(definition, SelectorSet)
    labels = {"projectcalico.org/orchestrator": "k8s", "projectcalico.org/namespace": "default"}
    assert not definition.selector.matches(labels | {"a": "y"})
    assert definition.selector.matches(labels | {"a": wild})
