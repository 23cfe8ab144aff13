"""The order of tiers and policies while they come, change and go: the cases of Calico's policy sorter.
docs/policy-cases.md has the list of cases.
"""

from itertools import permutations
from typing import Any

import pytest

from tests.unit.policy.objects import NODE, global_policy, host_endpoint, namespace, pod, tier
from tortie.model.names import veth_name
from tortie.model.policies import GlobalNetworkPolicy, Tier
from tortie.model.resources import Resource
from tortie.policy.engine import PolicyEngine
from tortie.policy.state import PolicyKey

WEB = veth_name("default", "web")


def engine(*resources: Resource) -> PolicyEngine:
    """An engine with one pod and one host endpoint, which every policy of the tests selects."""
    found = PolicyEngine(NODE)
    host = host_endpoint("host", interfaceName="eth0")
    for resource in (namespace("default"), pod("web", "10.0.0.1"), host, *resources):
        found.update(resource)
    found.flush()
    return found


def selecting(name: str, **spec: Any) -> GlobalNetworkPolicy:
    return global_policy(name, selector="all()", **spec)


def asked(subject: PolicyEngine) -> list[tuple[str, list[str]]]:
    """The pod's tiers in order, each with its policies in order."""
    tiers = subject.state().workloads[WEB].tiers
    return [(found.name, [key.name for key in found.ingress]) for found in tiers]


# Tiers (order; "unknown" ones have no object), as they are asked.
TIERS: dict[str, tuple[dict[str, float | str | None], list[str]]] = {
    "none": ({}, []),
    "known before unknown, whatever the name": ({"bar": "unknown", "foo": 10}, ["foo", "bar"]),
    "known without order before unknown": ({"bar": "unknown", "foo": None}, ["foo", "bar"]),
    "both unknown: by name": ({"foo": "unknown", "bar": "unknown"}, ["bar", "foo"]),
    "both without order: by name": ({"foo": None, "bar": None}, ["bar", "foo"]),
    "by order": ({"bar": 10, "foo": 1}, ["foo", "bar"]),
    "those with an order before those without": ({"bar": None, "baz": 10, "foo": 1}, ["foo", "baz", "bar"]),
    "the same order: by name": ({"foo": 10, "baz": 10}, ["baz", "foo"]),
}


@pytest.mark.parametrize(("tiers", "expected"), TIERS.values(), ids=TIERS.keys())
def test_tiers_in_order_however_they_came(tiers: dict[str, Any], expected: list[str]) -> None:
    objects: list[Resource] = [selecting(f"in-{name}", tier=name) for name in tiers]
    objects += [
        tier(name, **({} if order is None else {"order": order}))
        for name, order in tiers.items()
        if order != "unknown"
    ]
    for sequence in list(permutations(objects))[:24] or [()]:
        assert [name for name, _ in asked(engine(*sequence))] == expected


def test_a_policy_is_asked_from_when_it_comes_until_it_goes() -> None:
    subject = engine()
    assert asked(subject) == []
    subject.update(selecting("p"))
    assert subject.flush()
    assert asked(subject) == [("default", ["p"])]
    subject.remove(GlobalNetworkPolicy, "", "p")
    assert subject.flush().gone_policies == {PolicyKey("GlobalNetworkPolicy", "p")}
    assert asked(subject) == []
    subject.remove(GlobalNetworkPolicy, "", "p")
    assert not subject.flush()


# Fields of a policy, each of which changes what is asked of somebody.
FIELDS: dict[str, dict[str, Any]] = {
    "order": {"order": 7},
    "doNotTrack": {"doNotTrack": True, "applyOnForward": True},
    "preDNAT": {"preDNAT": True, "applyOnForward": True, "types": ["Ingress"]},
    "applyOnForward": {"applyOnForward": True},
    "types": {"types": ["Egress"]},
    "tier": {"tier": "other"},
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS.keys())
def test_a_changed_field_takes_effect_and_its_repetition_changes_nothing(fields: dict[str, Any]) -> None:
    first, second = selecting("p", order=8), selecting("q", order=9)
    subject = engine(first, second)
    before = subject.state()
    changed = selecting("q", **({"order": 9} | fields))
    subject.update(changed)
    assert subject.flush()
    after = subject.state()
    assert (after.workloads, after.hosts) != (before.workloads, before.hosts)
    assert after == engine(first, changed).state()
    subject.update(changed)
    assert not subject.flush()
    subject.update(second)
    subject.flush()
    assert subject.state() == before


def test_a_policy_that_changes_its_tier_leaves_the_old_one() -> None:
    subject = engine(
        tier("a", order=1), tier("b", order=2), selecting("p", tier="a"), selecting("q", tier="b")
    )
    assert asked(subject) == [("a", ["p"]), ("b", ["q"])]
    subject.update(selecting("p", tier="b"))
    assert subject.flush()
    assert asked(subject) == [("b", ["p", "q"])]
    subject.update(selecting("p", tier="a"))
    subject.flush()
    assert asked(subject) == [("a", ["p"]), ("b", ["q"])]


def test_a_policy_in_a_tier_that_nobody_made_leaves_nothing_behind() -> None:
    subject = engine()
    subject.update(selecting("p", tier="nobodys"))
    subject.flush()
    assert asked(subject) == [("nobodys", ["p"])]
    subject.remove(GlobalNetworkPolicy, "", "p")
    subject.flush()
    assert subject.state() == engine().state()


def test_a_tier_that_goes_leaves_its_policies_behind_all_others() -> None:
    subject = engine(tier("early", order=1), selecting("p", tier="early"), selecting("q"))
    assert asked(subject) == [("early", ["p"]), ("default", ["q"])]
    subject.remove(Tier, "", "early")
    assert subject.flush()
    assert asked(subject) == [("default", ["q"]), ("early", ["p"])]
    subject.update(tier("early", order=1))
    subject.flush()
    assert asked(subject) == [("early", ["p"]), ("default", ["q"])]


def test_a_tier_without_policies_is_nobodys_business() -> None:
    subject = engine()
    subject.update(tier("empty", order=1))
    assert not subject.flush()
    subject.remove(Tier, "", "empty")
    assert not subject.flush()


ORDERED = [selecting("b", order=1), selecting("a", order=1), selecting("c"), selecting("d", order=0.5)]


@pytest.mark.parametrize("policies", list(permutations(ORDERED))[::5])
def test_policies_by_order_then_name_and_those_without_order_last(policies: tuple[Resource, ...]) -> None:
    assert asked(engine(*policies)) == [("default", ["d", "a", "b", "c"])]
