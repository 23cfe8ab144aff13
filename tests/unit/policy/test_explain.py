"""Why a connection comes about or not, from the cluster's objects."""

from ipaddress import ip_address

import pytest

from tests.unit.policy.objects import OTHER_NODE, kubernetes_policy, namespace, pod, policy
from tortie.model.resources import Resource
from tortie.policy.explain import explain
from tortie.policy.state import PolicyKey

TCP = 6
WEB = pod("web", ["10.0.0.1", "fd00::1"], labels={"app": "web"}, ports=[("http", "TCP", 8080)])
CLIENT = pod("client", "10.0.1.1", labels={"app": "client"}, node=OTHER_NODE)
ONLY_CLIENTS = kubernetes_policy(
    "only-clients",
    podSelector={"matchLabels": {"app": "web"}},
    ingress=[
        {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
        {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": "http"}]},
    ],
)
NO_WAY_OUT = policy("no-way-out", selector="app == 'client'", types=["Egress"], egress=[{"action": "Deny"}])
CLUSTER: list[Resource] = [namespace("default"), WEB, CLIENT, ONLY_CLIENTS]


def test_rule_is_named_as_it_was_written() -> None:
    found = explain(CLUSTER, CLIENT, WEB, protocol=TCP, port=8080)
    assert found.allowed
    assert found.ingress is not None
    assert found.ingress.verdict.policy == PolicyKey("KubernetesNetworkPolicy", "only-clients", "default")
    assert (found.ingress.verdict.tier, found.ingress.rule) == ("default", "spec.ingress[1]")
    assert found.egress is not None
    assert found.egress.verdict.policy == PolicyKey("Profile", "kns.default")
    assert found.egress.rule == ""


def test_end_of_tier_denies_another_port() -> None:
    found = explain(CLUSTER, CLIENT, WEB, protocol=TCP, port=80)
    assert not found.allowed
    assert found.ingress is not None
    assert (found.ingress.verdict.tier, found.ingress.verdict.policy) == ("default", None)
    assert "tier default" in found.ingress.verdict.reason


def test_source_has_its_word() -> None:
    found = explain([*CLUSTER, NO_WAY_OUT], CLIENT, WEB, protocol=TCP, port=8080)
    assert not found.allowed
    assert found.egress is not None
    assert found.egress.rule == "spec.egress[0]"
    assert found.ingress is not None
    assert found.ingress.verdict.allowed


def test_address_outside_has_no_word() -> None:
    found = explain(CLUSTER, ip_address("192.0.2.7"), WEB, protocol=TCP, port=1)
    assert found.allowed
    assert found.egress is None
    assert found.ingress is not None
    assert found.ingress.rule == "spec.ingress[0]"
    assert not explain(CLUSTER, ip_address("198.51.100.7"), WEB, protocol=TCP, port=8080).allowed


def test_pods_address_stands_for_the_pod() -> None:
    found = explain(CLUSTER, ip_address("10.0.1.1"), ip_address("10.0.0.1"), protocol=TCP, port=8080)
    assert found.allowed
    assert found.egress is not None
    assert found.egress.pod == "client"


def test_addresses_of_one_ip_version_are_needed() -> None:
    with pytest.raises(ValueError, match="IP version"):
        explain(CLUSTER, ip_address("fd00::7"), CLIENT, protocol=TCP, port=1)
    assert not explain(CLUSTER, ip_address("fd00::7"), WEB, protocol=TCP, port=8080).allowed


def test_pod_without_address_is_an_error() -> None:
    with pytest.raises(ValueError, match="default/new has no address"):
        explain(CLUSTER, pod("new"), WEB, protocol=TCP, port=1)
