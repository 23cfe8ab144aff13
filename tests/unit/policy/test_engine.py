"""What the engine tells the dataplane after a change: no more, and no less."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.unit.policy.objects import (
    NODE,
    OTHER_NODE,
    account,
    endpoint,
    endpoint_slice,
    global_network_set,
    global_policy,
    host_endpoint,
    kubernetes_policy,
    namespace,
    network_set,
    of_json,
    pod,
    policy,
    tier,
)
from tortie.model.names import veth_name
from tortie.model.policies import GlobalNetworkPolicy, NetworkPolicy, StagedNetworkPolicy, Tier
from tortie.model.policy_natives import EndpointSlice, KubernetesNetworkPolicy, Namespace, Service
from tortie.model.resources import Node, Pod, Resource
from tortie.policy.engine import PolicyEngine
from tortie.policy.findings import IGNORED, RULE, TIER
from tortie.policy.state import Action, NamedPort, PolicyDelta, PolicyKey, Rule, SetChange, TierRules

WEB = veth_name("default", "web")
KNS = PolicyKey("Profile", "kns.default")


def engine(*resources: Resource) -> PolicyEngine:
    """An engine that knows namespace `default` and these, flushed."""
    found = PolicyEngine(NODE)
    for resource in (namespace("default"), *resources):
        found.update(resource)
    found.flush()
    return found


def change(subject: PolicyEngine, *resources: Resource) -> PolicyDelta:
    """What these updates change."""
    for resource in resources:
        subject.update(resource)
    return subject.flush()


def members(subject: PolicyEngine) -> set[str]:
    """The members of all sets, as text."""
    return {str(member) for _, found in subject.state().sets.values() for member in found}


ALLOW_CLIENTS = {"action": "Allow", "source": {"selector": "app == 'client'"}}


def test_pod_without_policy_is_open_by_its_namespaces_profile() -> None:
    delta = change(engine(), pod("web", "10.0.0.1"))
    rules = delta.workloads[WEB]
    assert rules.addresses == (ip_network("10.0.0.1"),)
    assert (rules.tiers, rules.profiles) == ((), (KNS,))
    assert delta.policies[KNS].ingress == delta.policies[KNS].egress == (Rule(Action.ALLOW),)


def test_pod_whose_namespace_is_not_known_is_closed() -> None:
    subject = engine(pod("web", "10.0.0.1", namespace="new"))
    (rules,) = subject.state().workloads.values()
    assert rules.profiles == ()
    delta = change(subject, namespace("new"))
    assert delta.workloads[rules.interface].profiles == (PolicyKey("Profile", "kns.new"),)
    subject.remove(Namespace, "", "new")
    assert subject.flush().gone_policies == {PolicyKey("Profile", "kns.new")}


def test_only_pods_of_the_node_have_rules_but_all_are_members() -> None:
    subject = engine(
        policy("p", ingress=[ALLOW_CLIENTS]),
        pod("web", "10.0.0.1"),
        pod("far", "10.0.1.1", node=OTHER_NODE, labels={"app": "client"}),
    )
    assert set(subject.state().workloads) == {WEB}
    assert members(subject) == {"10.0.1.1/32"}


def test_policy_that_selects_nobody_here_is_not_told() -> None:
    subject = engine(pod("web", "10.0.0.1"))
    assert not change(subject, policy("p", selector="app == 'db'", ingress=[ALLOW_CLIENTS]))
    delta = change(subject, pod("web", "10.0.0.1", labels={"app": "db"}))
    key = PolicyKey("NetworkPolicy", "p", "default")
    assert delta.workloads[WEB].tiers == (TierRules("default", ingress=(key,), egress=(key,)),)
    assert set(delta.policies) == {key}
    assert len(delta.new_sets) == 1
    delta = change(subject, pod("web", "10.0.0.1"))
    assert delta.gone_policies == {key}
    assert len(delta.gone_sets) == 1
    assert delta.workloads[WEB].tiers == ()


def test_label_change_of_a_peer_changes_only_the_set() -> None:
    subject = engine(policy("p", ingress=[ALLOW_CLIENTS]), pod("web", "10.0.0.1"), pod("c", "10.0.0.2"))
    delta = change(subject, pod("c", "10.0.0.2", labels={"app": "client"}))
    (joined,) = delta.changed_sets.values()
    assert joined == SetChange(added=frozenset({ip_network("10.0.0.2")}))
    assert delta == PolicyDelta(changed_sets=delta.changed_sets)


def test_change_that_is_taken_back_before_the_flush_is_not_told() -> None:
    client = {"app": "client"}
    subject = engine(policy("p", ingress=[ALLOW_CLIENTS]), pod("web", "10.0.0.1"), pod("c", "10.0.0.2"))
    assert not change(subject, pod("c", "10.0.0.2", labels=client), pod("c", "10.0.0.2"))
    subject.remove(NetworkPolicy, "default", "p")
    assert not change(subject, policy("p", ingress=[ALLOW_CLIENTS]))


def test_status_update_of_a_pod_changes_nothing() -> None:
    subject = engine(pod("web", "10.0.0.1", phase="Pending"))
    assert not change(subject, pod("web", "10.0.0.1", phase="Running"))


def test_address_of_a_finished_pod_is_nobodys() -> None:
    subject = engine(policy("p", ingress=[ALLOW_CLIENTS]), pod("web", "10.0.0.1"))
    change(subject, pod("c", "10.0.0.2", labels={"app": "client"}))
    assert members(subject) == {"10.0.0.2/32"}
    change(subject, pod("c", "10.0.0.2", labels={"app": "client"}, phase="Succeeded"))
    assert members(subject) == set()


def test_set_that_moves_from_one_policy_to_another_stays() -> None:
    # Several at once, for the order in which policies are looked at is not fixed.
    numbers = range(8)
    rules = [{"action": "Allow", "source": {"selector": f"app == '{number}'"}} for number in numbers]
    old = [policy(f"old-{number}", ingress=[rules[number]]) for number in numbers]
    subject = engine(pod("web", "10.0.0.1"), *old)
    for number in numbers:
        subject.remove(NetworkPolicy, "default", f"old-{number}")
    delta = change(subject, *(policy(f"new-{number}", ingress=[rules[number]]) for number in numbers))
    assert not delta.gone_sets
    assert not delta.new_sets
    clients = [pod(f"c-{number}", f"10.0.1.{number}", labels={"app": str(number)}) for number in numbers]
    assert len(change(subject, *clients).changed_sets) == len(numbers)


def test_member_of_two_network_sets_goes_with_the_second() -> None:
    labels = {"app": "client"}
    subject = engine(
        pod("web", "10.0.0.1"),
        policy("p", ingress=[ALLOW_CLIENTS]),
        network_set("one", ["192.0.2.0/24"], labels),
        network_set("two", ["192.0.2.0/24", "198.51.100.1"], labels),
    )
    assert members(subject) == {"192.0.2.0/24", "198.51.100.1/32"}
    delta = change(subject, network_set("two", ["198.51.100.1"], labels))
    assert not delta
    delta = change(subject, network_set("one", [], labels))
    assert [set(entry.removed) for entry in delta.changed_sets.values()] == [{ip_network("192.0.2.0/24")}]


def test_network_sets_namespace_counts() -> None:
    labels = {"app": "client"}
    subject = engine(
        pod("web", "10.0.0.1"),
        policy("p", ingress=[ALLOW_CLIENTS]),
        network_set("foreign", ["192.0.2.1"], labels, "red"),
        global_network_set("wide", ["192.0.2.2"], labels),
    )
    assert members(subject) == set()
    everywhere = {
        "action": "Allow",
        "source": {"selector": "app == 'client'", "namespaceSelector": "global()"},
    }
    change(subject, policy("p", ingress=[everywhere]))
    assert members(subject) == {"192.0.2.2/32"}


def test_labels_of_namespace_and_account_are_inherited() -> None:
    rules = [
        {"action": "Allow", "source": {"namespaceSelector": "team == 'a'"}},
        {"action": "Allow", "source": {"serviceAccounts": {"selector": "tier == 'b'"}}},
    ]
    subject = engine(
        global_policy("p", ingress=rules),
        pod("web", "10.0.0.1", account="app"),
        pod("c", "10.0.0.2", namespace="red"),
        namespace("red"),
    )
    assert members(subject) == set()
    delta = change(subject, namespace("red", team="a"), account("app", tier="b"))
    assert [{str(member) for member in entry.added} for entry in delta.changed_sets.values()] != []
    assert members(subject) == {"10.0.0.1/32", "10.0.0.2/32"}
    change(subject, namespace("red", team="c"))
    assert members(subject) == {"10.0.0.1/32"}


def test_named_ports_of_pods_in_both_ip_versions() -> None:
    rule = {"ports": [{"port": "http"}]}
    subject = engine(
        kubernetes_policy("p", ingress=[rule]),
        pod("web", ["10.0.0.1", "fd00::1"], ports=[("http", "TCP", 8080), ("http", "UDP", 53)]),
    )
    ((_, found),) = subject.state().sets.values()
    assert found == {NamedPort(ip_address("10.0.0.1"), 6, 8080), NamedPort(ip_address("fd00::1"), 6, 8080)}


def test_service_follows_its_slices() -> None:
    rule = {"action": "Allow", "destination": {"services": {"name": "db"}}}
    subject = engine(pod("web", "10.0.0.1"), policy("p", egress=[rule]))
    change(subject, endpoint_slice("db-1", "db", ["10.0.0.5"], [("TCP", 5432)]))
    change(subject, endpoint_slice("db-2", "db", ["10.0.0.5", "10.0.0.6"], [("TCP", 5432)]))
    ((_, found),) = subject.state().sets.values()
    assert found == {NamedPort(ip_address(text), 6, 5432) for text in ("10.0.0.5", "10.0.0.6")}
    subject.remove(EndpointSlice, "default", "db-2")
    delta = subject.flush()
    (gone,) = delta.changed_sets.values()
    assert gone.removed == {NamedPort(ip_address("10.0.0.6"), 6, 5432)}
    change(subject, endpoint_slice("db-1", "other", ["10.0.0.5"], [("TCP", 5432)]))
    assert members(subject) == set()


def test_new_rules_do_not_touch_the_endpoints() -> None:
    subject = engine(pod("web", "10.0.0.1"), policy("p", ingress=[ALLOW_CLIENTS]))
    delta = change(subject, policy("p", ingress=[{"action": "Deny"}]))
    assert set(delta.policies) == {PolicyKey("NetworkPolicy", "p", "default")}
    assert not delta.workloads
    assert len(delta.gone_sets) == 1


def test_tier_moves_its_policies() -> None:
    subject = engine(
        pod("web", "10.0.0.1"),
        policy("a", tier="t1"),
        policy("b", tier="t2"),
        tier("t1", order=1),
        tier("t2", order=2),
    )
    assert [entry.name for entry in subject.state().workloads[WEB].tiers] == ["t1", "t2"]
    delta = change(subject, tier("t2", order=0, defaultAction="Pass"))
    assert [(entry.name, entry.default_pass) for entry in delta.workloads[WEB].tiers] == [
        ("t2", True),
        ("t1", False),
    ]
    subject.remove(Tier, "", "t2")
    assert [entry.name for entry in subject.flush().workloads[WEB].tiers] == ["t1", "t2"]


def test_foreign_sources_need_both_the_pods_word_and_leave() -> None:
    web = pod("web", "10.0.0.1")
    web.metadata.annotations["cni.projectcalico.org/allowedSourcePrefixes"] = '["192.0.2.0/24"]'
    subject = engine(web, pod("other", "10.0.0.2"))
    assert subject.state().workloads[WEB].allowed_sources == ()
    subject.allow_source_spoofing(True)
    delta = subject.flush()
    assert delta.workloads.keys() == {WEB}
    assert delta.workloads[WEB].allowed_sources == (ip_network("192.0.2.0/24"),)
    web.metadata.annotations["cni.projectcalico.org/allowedSourcePrefixes"] = "everything"
    assert change(subject, web).workloads[WEB].allowed_sources == ()


# --- registered endpoints -------------------------------------------------------------------------


def test_registered_endpoint_has_rules_before_its_pod_shows_the_address() -> None:
    subject = engine(policy("p", ingress=[ALLOW_CLIENTS]), pod("web", labels={"app": "client"}, uid="1"))
    assert WEB not in subject.state().workloads
    subject.update_endpoint(endpoint(pod("web", "10.0.0.1", labels={"app": "client"}, uid="1")))
    delta = subject.flush()
    assert delta.workloads[WEB].addresses == (ip_network("10.0.0.1"),)
    assert members(subject) == {"10.0.0.1/32"}


def test_registered_endpoint_keeps_its_address_and_takes_new_labels_from_the_pod() -> None:
    subject = engine(policy("p", ingress=[ALLOW_CLIENTS]))
    subject.update_endpoint(endpoint(pod("web", "10.0.0.1", labels={"app": "client"}, uid="1")))
    change(subject, pod("web", labels={"app": "other"}, uid="1"))
    assert subject.state().workloads[WEB].addresses == (ip_network("10.0.0.1"),)
    assert members(subject) == set()
    assert len(subject.registered) == 1


def test_registration_ends_when_the_pod_shows_the_address() -> None:
    subject = engine()
    subject.update_endpoint(endpoint(pod("web", "10.0.0.1", uid="1")))
    subject.flush()
    assert not change(subject, pod("web", "10.0.0.1", uid="1"))
    assert subject.registered == ()
    subject.remove(Pod, "default", "web")
    assert subject.flush().gone_workloads == {WEB}


@pytest.mark.parametrize("gone", ["interface", "pod"])
def test_registered_endpoint_goes_with_its_interface_or_its_pod(gone: str) -> None:
    subject = engine(pod("web", uid="1"))
    subject.update_endpoint(endpoint(pod("web", "10.0.0.1", uid="1")))
    subject.flush()
    if gone == "interface":
        subject.remove_endpoint(WEB)
    else:
        subject.remove(Pod, "default", "web")
    assert subject.flush().gone_workloads == {WEB}
    assert subject.registered == ()


def test_end_of_an_older_pod_of_that_name_leaves_the_registered_endpoint() -> None:
    subject = engine(pod("web", "10.0.0.9", uid="old"))
    subject.update_endpoint(endpoint(pod("web", "10.0.0.1", uid="new")))
    subject.flush()
    change(subject, pod("web", "10.0.0.9", uid="old", phase="Failed"))
    subject.remove(Pod, "default", "web")
    subject.flush()
    assert subject.state().workloads[WEB].addresses == (ip_network("10.0.0.1"),)


# --- host endpoints -------------------------------------------------------------------------------


def test_layers_of_a_named_host_endpoint() -> None:
    subject = engine(
        host_endpoint("eth", {"role": "node"}, interfaceName="eth0", expectedIPs=["192.0.2.1"]),
        global_policy("plain", order=2, selector="has(role)"),
        global_policy("forward", order=1, selector="has(role)", applyOnForward=True),
        global_policy("raw", selector="has(role)", applyOnForward=True, doNotTrack=True),
        global_policy("nat", selector="has(role)", applyOnForward=True, preDNAT=True),
        policy("namespaced"),
        pod("web", "10.0.0.1", labels={"role": "x"}),
    )
    rules = subject.state().hosts["eth0"]
    layers = (rules.normal, rules.forward, rules.untracked, rules.pre_dnat)
    found = [[key.name for entry in layer for key in entry.ingress] for layer in layers]
    assert found == [["forward", "plain"], ["forward"], ["raw"], ["nat"]]
    assert [key.name for entry in rules.pre_dnat for key in entry.egress] == []
    web = [key.name for entry in subject.state().workloads[WEB].tiers for key in entry.ingress]
    assert web == ["forward", "plain", "namespaced"]


def test_automatic_host_endpoint_is_open_by_its_profile() -> None:
    name = "projectcalico-default-allow"
    subject = engine(
        host_endpoint("node-1-auto-hep", interfaceName="*", expectedIPs=["192.0.2.1"], profiles=[name])
    )
    assert subject.state().hosts["*"].profiles == (PolicyKey("Profile", name),)
    assert PolicyKey("Profile", name) in subject.state().policies


def test_host_endpoint_without_interface_is_found_by_address() -> None:
    subject = engine(host_endpoint("by-ip", expectedIPs=["192.0.2.1"]))
    assert subject.state().hosts == {}
    assert [entry.name for entry in subject.problems()] == ["by-ip"]
    subject.set_interfaces({"eth0": [ip_address("192.0.2.1")], "eth1": [ip_address("192.0.2.2")]})
    assert set(subject.flush().hosts) == {"eth0"}
    assert subject.problems() == []
    subject.set_interfaces({"eth1": [ip_address("192.0.2.1")]})
    delta = subject.flush()
    assert set(delta.hosts) == {"eth1"}
    assert delta.gone_hosts == {"eth0"}


def test_host_endpoint_with_the_interfaces_name_wins() -> None:
    subject = engine()
    subject.set_interfaces({"eth0": [ip_address("192.0.2.1")]})
    change(
        subject,
        host_endpoint("a", expectedIPs=["192.0.2.1"]),
        host_endpoint("b", interfaceName="eth0", expectedIPs=["192.0.2.7"]),
        host_endpoint("c", interfaceName="eth0", expectedIPs=["192.0.2.8"]),
    )
    assert subject.state().hosts["eth0"].addresses == (ip_network("192.0.2.7"),)
    assert sorted(entry.name for entry in subject.problems()) == ["a", "c"]


def test_host_endpoints_of_all_nodes_are_members() -> None:
    subject = engine(
        pod("web", "10.0.0.1"),
        host_endpoint(
            "far", {"app": "client"}, node=OTHER_NODE, interfaceName="*", expectedIPs=["192.0.2.9"]
        ),
        global_policy("p", ingress=[ALLOW_CLIENTS]),
    )
    assert members(subject) == {"192.0.2.9/32"}
    assert subject.state().hosts == {}


# --- staged policies, problems --------------------------------------------------------------------


def test_staged_policy_is_reported_and_not_enforced() -> None:
    subject = engine(pod("web", "10.0.0.1"))
    staged = of_json(StagedNetworkPolicy, "s", "default", {"tier": "t", "ingress": [ALLOW_CLIENTS]})
    assert not change(subject, staged)
    (found,) = subject.staged()
    assert (found.key.name, found.action, found.tier, found.interfaces) == ("s", "Set", "t", (WEB,))
    subject.remove(StagedNetworkPolicy, "default", "s")
    assert subject.staged() == []


BROKEN: list[tuple[dict[str, Any], str, str]] = [
    ({"selector": "a =="}, "spec.selector", IGNORED),
    ({"ingress": [{"action": "Allow", "http": {"methods": ["GET"]}}]}, "spec.ingress[0].http", RULE),
    (
        {"ingress": [{"action": "Allow", "source": {"nets": ["10.0.0.1/8"]}}]},
        "spec.ingress[0].source.nets[0]",
        "",
    ),
    ({"tier": "nowhere"}, "spec.tier", TIER),
]


@pytest.mark.parametrize(("spec", "field", "effect"), BROKEN, ids=[field for _, field, _ in BROKEN])
def test_problem_is_reported_with_its_effect_until_it_is_gone(
    spec: dict[str, Any], field: str, effect: str
) -> None:
    subject = engine(policy("p", **spec))
    (found,) = subject.problems()
    assert (found.kind, found.namespace, found.name) == ("NetworkPolicy", "default", "p")
    assert (found.problem.field, found.effect) == (field, effect)
    change(subject, policy("p"))
    assert subject.problems() == []
    change(subject, policy("p", **spec))
    subject.remove(NetworkPolicy, "default", "p")
    assert subject.problems() == []


def test_policy_that_becomes_unreadable_goes_out_of_force() -> None:
    subject = engine(pod("web", "10.0.0.1"), policy("p"))
    delta = change(subject, policy("p", selector="a =="))
    assert delta.gone_policies == {PolicyKey("NetworkPolicy", "p", "default")}


def test_policies_of_one_name_and_different_kinds_are_kept_apart() -> None:
    subject = engine(pod("web", "10.0.0.1"), policy("p"), kubernetes_policy("p"), global_policy("p"))
    kinds = {key.kind for key in subject.state().policies if key.name == "p"}
    assert kinds == {"NetworkPolicy", "KubernetesNetworkPolicy", "GlobalNetworkPolicy"}
    subject.remove(KubernetesNetworkPolicy, "default", "p")
    assert {key.kind for key in subject.flush().gone_policies} == {"KubernetesNetworkPolicy"}


# --- feeding --------------------------------------------------------------------------------------


def test_sync_updates_what_is_new_and_removes_what_is_gone() -> None:
    subject = engine(namespace("default"))
    web, far = pod("web", "10.0.0.1"), pod("far", "10.0.0.2")
    subject.sync(Pod, {("default", "web"): web, ("default", "far"): far})
    assert len(subject.flush().workloads) == 2
    subject.sync(Pod, {("default", "web"): web})
    assert subject.flush().gone_workloads == {veth_name("default", "far")}
    subject.sync(Pod, {("default", "web"): pod("web", "10.0.0.3")})
    assert subject.flush().workloads[WEB].addresses == (ip_network("10.0.0.3"),)


def test_removing_what_was_never_there_changes_nothing() -> None:
    subject = engine()
    for kind in (Pod, NetworkPolicy, GlobalNetworkPolicy, Tier, Namespace, EndpointSlice):
        subject.remove(kind, "default", "x")
    subject.remove_endpoint("cali0")
    assert not subject.flush()


@pytest.mark.parametrize("kind", [Node, Service])
def test_kind_that_policy_does_not_read_is_refused(kind: type[Resource]) -> None:
    subject = engine()
    with pytest.raises(TypeError, match=kind.__name__):
        subject.update(of_json(kind, "x"))
    with pytest.raises(TypeError, match=kind.__name__):
        subject.remove(kind, "", "x")
