"""The order in which tiers and policies are asked."""

from typing import Any

import pytest

from tortie.model.selectors import ALL
from tortie.policy.compile import CompiledPolicy
from tortie.policy.state import PolicyKey
from tortie.policy.tiers import TierPlace, host_layers, workload_tiers


def policy(
    name: str, kind: str = "GlobalNetworkPolicy", namespace: str = "", **fields: Any
) -> CompiledPolicy:
    return CompiledPolicy(PolicyKey(kind, name, namespace), ALL, **fields)


def names(policies: list[CompiledPolicy], tiers: dict[str, TierPlace] | None = None) -> list[str]:
    """The names in the order in which ingress asks them."""
    return [key.name for tier in workload_tiers(policies, tiers or {}) for key in tier.ingress]


ORDERS: dict[str, tuple[list[CompiledPolicy], list[str]]] = {
    "by order": ([policy("a", order=10.0), policy("b", order=-1.0), policy("c", order=2.5)], ["b", "c", "a"]),
    "without order comes last": ([policy("a"), policy("b", order=1e9)], ["b", "a"]),
    "same order: by name": ([policy("b", order=1.0), policy("a", order=1.0)], ["a", "b"]),
    "no order at all: by name": ([policy("c"), policy("a"), policy("b")], ["a", "b", "c"]),
}


@pytest.mark.parametrize(("policies", "expected"), ORDERS.values(), ids=ORDERS.keys())
def test_order_within_a_tier(policies: list[CompiledPolicy], expected: list[str]) -> None:
    assert names(policies) == expected
    assert names(policies[::-1]) == expected


def test_name_decides_before_namespace_and_kind() -> None:
    policies = [
        policy("a", "NetworkPolicy", "y"),
        policy("b", "GlobalNetworkPolicy"),
        policy("a", "KubernetesNetworkPolicy", "y"),
        policy("a", "NetworkPolicy", "x"),
    ]
    (tier,) = workload_tiers(policies, {})
    assert [(key.name, key.namespace, key.kind) for key in tier.ingress] == [
        ("a", "x", "NetworkPolicy"),
        ("a", "y", "KubernetesNetworkPolicy"),
        ("a", "y", "NetworkPolicy"),
        ("b", "", "GlobalNetworkPolicy"),
    ]


def test_tiers_by_order_then_name_and_unknown_ones_last() -> None:
    policies = [
        policy(name, tier=name)
        for name in ("unknown", "none", "b", "a", "default", "first", "kube-admin", "kube-baseline")
    ]
    places = {
        "none": TierPlace(),
        "a": TierPlace(5.0),
        "b": TierPlace(5.0),
        "first": TierPlace(-1.0),
    }
    expected = ["first", "a", "b", "kube-admin", "default", "kube-baseline", "none", "unknown"]
    assert [tier.name for tier in workload_tiers(policies, places)] == expected


def test_how_a_tier_ends() -> None:
    policies = [
        policy(name, tier=name) for name in ("default", "kube-admin", "kube-baseline", "mine", "unknown")
    ]
    tiers = workload_tiers(policies, {"mine": TierPlace(1.0, default_pass=True)})
    assert {tier.name for tier in tiers if tier.default_pass} == {"kube-admin", "kube-baseline", "mine"}


def test_each_direction_lists_only_its_policies() -> None:
    (tier,) = workload_tiers([policy("in", egress=False), policy("out", ingress=False), policy("both")], {})
    assert [key.name for key in tier.ingress] == ["both", "in"]
    assert [key.name for key in tier.egress] == ["both", "out"]


def test_staged_policy_makes_no_tier() -> None:
    assert workload_tiers([policy("x", staged_action="Set")], {}) == ()


def test_layers_of_a_host() -> None:
    layers = host_layers(
        [
            policy("plain"),
            policy("forward", forward=True),
            policy("raw", untracked=True, forward=True),
            policy("nat", pre_dnat=True, forward=True),
        ],
        {},
    )
    found = [
        [key.name for tier in layer for key in tier.ingress]
        for layer in (layers.normal, layers.forward, layers.untracked, layers.pre_dnat)
    ]
    assert found == [["forward", "plain"], ["forward"], ["raw"], ["nat"]]


def test_workload_never_sees_what_is_for_hosts() -> None:
    assert names([policy("raw", untracked=True), policy("nat", pre_dnat=True)]) == []
