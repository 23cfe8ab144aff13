"""Pods, namespaces, accounts and policies of Kubernetes in terms of Calico's model: the cases of Calico's
conversion. docs/policy-cases.md has the list of cases.
"""

from typing import Any

import msgspec
import pytest

from tests.unit.policy.objects import account, kubernetes_policy, namespace
from tortie.model.endpoints import WorkloadEndpoint, workload_endpoint
from tortie.model.names import veth_name, workload_endpoint_name
from tortie.model.policy_natives import Namespace
from tortie.model.resources import Metadata, Pod
from tortie.policy.compile import CompiledPolicy, merged
from tortie.policy.items import effective_labels, namespace_profile, service_account_profile, workload_item
from tortie.policy.local import allowed_sources
from tortie.policy.sets import NamedPortSet, SelectorSet
from tortie.policy.sources import read_policy
from tortie.policy.state import Action, Peer, PolicyRules, Rule

PODS = 'projectcalico.org/orchestrator == "k8s"'
HOME = 'projectcalico.org/namespace == "shop"'
PROTOCOLS = {None: "any", 6: "tcp", 17: "udp", 132: "sctp"}


# --- policies -----------------------------------------------------------------------------------------------


def compiled(**spec: Any) -> CompiledPolicy:
    found, problems = read_policy(kubernetes_policy("x", "shop", **spec))
    assert found is not None
    assert not problems
    return found


def side(policy: CompiledPolicy, peer: Peer) -> str:
    """Who is meant: labels beyond those of every pod of the own namespace (`here`), or networks."""
    networks = [str(network) for network in peer.networks] + [f"!{network}" for network in peer.not_networks]
    chosen = [policy.sets[name] for name in peer.sets]
    texts = [found.selector.text for found in chosen if isinstance(found, SelectorSet)]
    short = [text[1:-1].replace(f"{PODS} && ", "").replace(HOME, "here") for text in texts]
    return " ".join(networks + short) or "anybody"


def written(policy: CompiledPolicy, rule: Rule) -> str:
    """A rule in one line: protocol, who, at which ports."""
    assert rule.action is Action.ALLOW
    ingress = rule in policy.rules.ingress
    who = rule.source if ingress else rule.destination
    named = [policy.sets[name] for name in rule.destination.named_ports]
    ports = [f"{first}-{last}" if first < last else f"{first}" for first, last in rule.destination.ports]
    ports += [found.port for found in named if isinstance(found, NamedPortSet)]
    at = f" at {','.join(ports)}" if ports else ""
    return f"{PROTOCOLS[rule.protocol]} {'from' if ingress else 'to'} {side(policy, who)}{at}"


def labels(**found: str) -> dict[str, Any]:
    return {"matchLabels": found}


def absent(label: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": label, "operator": "DoesNotExist"}]}


FRIENDS, PARTNERS = {"podSelector": labels(role="friend")}, {"podSelector": labels(role="partner")}
BOTH_PORTS = [{"port": 90, "protocol": "UDP"}, {"port": 80, "protocol": "TCP"}]
BLOCK = {"ipBlock": {"cidr": "192.168.0.0/16", "except": ["192.168.3.0/24", "192.168.4.0/24"]}}
BLOCK_TEXT = "192.168.0.0/16 !192.168.3.0/24 !192.168.4.0/24"
IN, OUT, BOTH = ["Ingress"], ["Egress"], ["Egress", "Ingress"]
FOUR = [f"{protocol} from here && role == \"{role}\" at {port}"
        for protocol, port in (("tcp", 80), ("udp", 90)) for role in ("friend", "partner")]  # fmt: skip

# spec, the labels that the pods must have, rules for what comes in and what goes out (None: not its business)
Expected = tuple[dict[str, Any], str, list[str] | None, list[str] | None]
POLICIES: dict[str, Expected] = {
    "numbers and a name beside each other": (
        {"podSelector": labels(b="2", a="1"), "policyTypes": IN,
         "ingress": [{"ports": [{"port": 80}, {"port": "web"}], "from": [FRIENDS]}]},
        'a == "1" && b == "2"', ['tcp from here && role == "friend" at 80,web'], None),
    "no ports: every protocol": (
        {"policyTypes": IN, "ingress": [{"from": [FRIENDS]}]},
        "", ['any from here && role == "friend"'], None),
    "a port without number is every port of TCP": (
        {"policyTypes": IN, "ingress": [{"ports": [{"port": 80}, {}], "from": [FRIENDS]}]},
        "", ['tcp from here && role == "friend"'], None),
    "the same for egress, beside another protocol": (
        {"policyTypes": OUT, "egress": [{"ports": [{}, {"port": 80}], "to": [FRIENDS]},
                                        {"ports": [{"port": 53, "protocol": "UDP"}]}]},
        "", None, ['tcp to here && role == "friend"', "udp to anybody at 53"]),
    "no rules": ({"podSelector": labels(a="1"), "policyTypes": IN}, 'a == "1"', [], None),
    "nothing may go out": ({"podSelector": {}, "policyTypes": OUT}, "", None, []),
    "several peers": (
        {"policyTypes": IN, "ingress": [{"ports": [{}], "from": [FRIENDS, PARTNERS]}]},
        "", ['tcp from here && role == "friend"', 'tcp from here && role == "partner"'], None),
    "peers without a label": (
        {"policyTypes": IN, "ingress": [{"from": [{"podSelector": absent("role")}]}]},
        "", ["any from here && !has(role)"], None),
    "several peers and protocols": (
        {"policyTypes": IN, "ingress": [{"ports": BOTH_PORTS, "from": [FRIENDS, PARTNERS]}]}, "", FOUR, None),
    "every pod": ({"podSelector": {}, "policyTypes": IN}, "", [], None),
    "namespaces by labels": (
        {"policyTypes": IN, "ingress": [{"from": [{"namespaceSelector": labels(team="dev", area="eu")}]}]},
        "", ['any from pcns.area == "eu" && pcns.team == "dev"'], None),
    "every pod of the own namespace": (
        {"policyTypes": IN, "ingress": [{"from": [{"podSelector": {}}]}]}, "", ["any from here"], None),
    "every namespace": (
        {"policyTypes": IN, "ingress": [{"from": [{"namespaceSelector": {}}]}]},
        "", ["any from has(projectcalico.org/namespace)"], None),
    "pods by labels in namespaces by labels": (
        {"policyTypes": IN,
         "ingress": [{"from": [{"namespaceSelector": labels(team="dev"),
                                "podSelector": labels(b="2", a="1")}]}]},
        "", ['any from pcns.team == "dev" && a == "1" && b == "2"'], None),
    "pods by expressions": (
        {"podSelector": {"matchExpressions": [{"key": "k", "operator": "In", "values": ["v2", "v1"]}]},
         "policyTypes": IN}, 'k in {"v1", "v2"}', [], None),
    "ports alone, incoming": (
        {"policyTypes": IN, "ingress": [{"ports": [{"port": 80, "protocol": "TCP"}]}]},
        "", ["tcp from anybody at 80"], None),
    "a range of ports alone, incoming": (
        {"policyTypes": IN, "ingress": [{"ports": [{"port": 32000, "endPort": 32768, "protocol": "TCP"}]}]},
        "", ["tcp from anybody at 32000-32768"], None),
    "ports alone, outgoing": (
        {"policyTypes": OUT, "egress": [{"ports": [{"port": 80, "protocol": "TCP"}]}]},
        "", None, ["tcp to anybody at 80"]),
    "a range of ports alone, outgoing": (
        {"policyTypes": OUT, "egress": [{"ports": [{"port": 32000, "endPort": 32768, "protocol": "TCP"}]}]},
        "", None, ["tcp to anybody at 32000-32768"]),
    "a block with holes, incoming": (
        {"policyTypes": IN, "ingress": [{"from": [BLOCK]}]}, "", [f"any from {BLOCK_TEXT}"], None),
    "a block with holes, outgoing": (
        {"policyTypes": OUT, "egress": [{"to": [BLOCK]}]}, "", None, [f"any to {BLOCK_TEXT}"]),
    "a block with holes and ports": (
        {"policyTypes": OUT, "egress": [{"ports": BOTH_PORTS, "to": [BLOCK]}]},
        "", None, [f"tcp to {BLOCK_TEXT} at 80", f"udp to {BLOCK_TEXT} at 90"]),
    "a block without holes": (
        {"policyTypes": OUT, "egress": [{"to": [{"ipBlock": {"cidr": "192.168.0.0/16"}}]}]},
        "", None, ["any to 192.168.0.0/16"]),
    "both directions": (
        {"policyTypes": BOTH, "ingress": [{"from": [BLOCK]}],
         "egress": [{"to": [{"ipBlock": {"cidr": "10.10.0.0/16", "except": ["10.10.1.0/24"]}}]}]},
        "", [f"any from {BLOCK_TEXT}"], ["any to 10.10.0.0/16 !10.10.1.0/24"]),
    "without types: ports and peers": (
        {"ingress": [{"ports": [{"port": 80}], "from": [FRIENDS]}]},
        "", ['tcp from here && role == "friend" at 80'], None),
    "without types: no rules": ({"podSelector": labels(a="1")}, 'a == "1"', [], None),
    "without types: several peers": (
        {"ingress": [{"ports": [{}], "from": [FRIENDS, PARTNERS]}]},
        "", ['tcp from here && role == "friend"', 'tcp from here && role == "partner"'], None),
    "without types: several peers and protocols": (
        {"ingress": [{"ports": BOTH_PORTS, "from": [FRIENDS, PARTNERS]}]}, "", FOUR, None),
    "without types: every pod": ({"podSelector": {}}, "", [], None),
    "without types: pods by expressions": (
        {"podSelector": {"matchExpressions": [{"key": "k", "operator": "In", "values": ["v1", "v2"]}]}},
        'k in {"v1", "v2"}', [], None),
    "without types: ports alone": (
        {"ingress": [{"ports": [{"port": 80, "protocol": "TCP"}]}]}, "", ["tcp from anybody at 80"], None),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "pods", "incoming", "outgoing"), POLICIES.values(), ids=POLICIES.keys())
def test_policy(
    spec: dict[str, Any], pods: str, incoming: list[str] | None, outgoing: list[str] | None
) -> None:
    found = compiled(**spec)
    assert (found.tier, found.order) == ("default", 1000.0)
    assert found.selector.text == f"({HOME} && {PODS}{' && ' if pods else ''}{pods})"
    assert (found.ingress, found.egress) == (incoming is not None, outgoing is not None)
    assert [written(found, rule) for rule in found.rules.ingress] == (incoming or [])
    assert [written(found, rule) for rule in found.rules.egress] == (outgoing or [])


WRONG: dict[str, dict[str, Any]] = {
    "a port that is neither number nor name": {"ports": [{"port": 80}, {"port": "-50:-1"}]},
    "another one": {"ports": [{"port": "-22:-3"}]},
    "a block that is none": {"from": [{"ipBlock": {"cidr": "192.168.0.0/55"}}]},
}


@pytest.mark.parametrize("rule", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_rule_that_cannot_be_read_is_left_out_and_the_others_stay(
    rule: dict[str, Any], direction: str
) -> None:
    good = {"ports": [{"port": 80}, {"port": "web"}]}
    bad = {
        ("to" if name == "from" and direction == "egress" else name): value for name, value in rule.items()
    }
    found, problems = read_policy(
        kubernetes_policy("x", "shop", policyTypes=[direction.capitalize()], **{direction: [good, bad]})
    )
    assert found is not None
    way = "from" if direction == "ingress" else "to"
    rules = found.rules.ingress if direction == "ingress" else found.rules.egress
    assert [written(found, entry) for entry in rules] == [f"tcp {way} anybody at 80,web"]
    assert [problem.field.startswith(f"spec.{direction}[1]") for problem in problems] == [True]


# selector, what remains of it for pods, for namespaces
SELECTORS: dict[str, tuple[dict[str, Any], str, str]] = {
    "empty": ({}, "here", "has(projectcalico.org/namespace)"),
    "absent label": (absent("toast"), "here && !has(toast)", "!has(pcns.toast)"),
    "present label": (
        {"matchExpressions": [{"key": "toast", "operator": "Exists"}]},
        "here && has(toast)", "has(pcns.toast)",
    ),
    "one of some values": (
        {"matchExpressions": [{"key": "toast", "operator": "In", "values": ["jam", "butter"]}]},
        'here && toast in {"butter", "jam"}', 'pcns.toast in {"butter", "jam"}',
    ),
    "none of some values": (
        {"matchExpressions": [{"key": "toast", "operator": "NotIn", "values": ["milk", "jam"]}]},
        'here && toast not in {"jam", "milk"}', 'pcns.toast not in {"jam", "milk"}',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("selector", "pods", "namespaces"), SELECTORS.values(), ids=SELECTORS.keys())
def test_selector_of_pods_and_of_namespaces(selector: dict[str, Any], pods: str, namespaces: str) -> None:
    found = compiled(ingress=[{"from": [{"podSelector": selector}, {"namespaceSelector": selector}]}])
    assert [side(found, rule.source) for rule in found.rules.ingress] == [pods, namespaces]


def test_without_a_selector_at_all_every_pod_of_the_namespace_is_meant() -> None:
    assert compiled().selector == compiled(podSelector={}).selector


# --- ports --------------------------------------------------------------------------------------------------

RANGES: dict[str, tuple[str, str]] = {
    "none": ("", ""),
    "zero": ("0", "0"),
    "one": ("1", "1"),
    "the last": ("65535", "65535"),
    "all": ("0-65535", "0-65535"),
    "neighbours": ("1 2", "1-2"),
    "neighbours the other way round": ("2 1", "1-2"),
    "a gap": ("1 2 4", "1-2 4"),
    "ranges that overlap": ("1 2 3 4 80-81 81-90 9090", "1-4 80-90 9090"),
    "ranges out of order": ("81-90 4 2 80-81 3 1 9090", "1-4 80-90 9090"),
}


@pytest.mark.parametrize(("given", "simple"), RANGES.values(), ids=RANGES.keys())
def test_ports_become_as_few_ranges_as_possible(given: str, simple: str) -> None:
    def ranges(text: str) -> list[tuple[int, int]]:
        found = [entry.partition("-") for entry in text.split()]
        return [(int(first), int(last or first)) for first, _, last in found]

    assert list(merged(ranges(given))) == ranges(simple)


@pytest.mark.parametrize(
    ("ports", "at"),
    [(["web", 3, "http", 1, 2, "web"], "1-3,web,http"), (["web"], "web")],
    ids=["names among numbers", "a name alone"],
)
def test_names_of_ports_stay_beside_the_ranges(ports: list[int | str], at: str) -> None:
    found = compiled(ingress=[{"ports": [{"port": port} for port in ports]}])
    assert [written(found, rule) for rule in found.rules.ingress] == [f"tcp from anybody at {at}"]


# --- pods ---------------------------------------------------------------------------------------------------


def pod(status: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, **spec: Any) -> Pod:
    body = {
        "metadata": {"name": "pod-a", "namespace": "shop", "resourceVersion": "1234"} | (metadata or {}),
        "spec": {"nodeName": "node-1"} | spec,
        "status": {"podIP": "192.168.0.1"} if status is None else status,
    }
    return msgspec.convert(body, Pod)


def of(found: Pod) -> WorkloadEndpoint:
    endpoint = workload_endpoint(found)
    assert endpoint is not None
    return endpoint


def annotated(**annotations: str) -> dict[str, Any]:
    return {"annotations": {f"cni.projectcalico.org/{name}": text for name, text in annotations.items()}}


LEAVING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
BOTH_ADDRESSES = ["192.168.0.1/32", "fd5f:8067::1/128"]
RUNNING = {"podIP": "192.168.0.1", "phase": "Running"}
# the pod, its addresses ([]: it has no endpoint)
ADDRESSES: dict[str, tuple[Pod, list[str]]] = {
    "from the status": (pod(), ["192.168.0.1/32"]),
    "dual stack": (
        pod({"podIP": "192.168.0.1", "podIPs": [{"ip": "192.168.0.1"}, {"ip": "fd5f:8067::1"}]}),
        BOTH_ADDRESSES),
    "from our annotation": (pod({}, annotated(podIP="192.168.0.1")), ["192.168.0.1/32"]),
    "from our annotation for both families": (
        pod({}, annotated(podIP="192.168.0.1", podIPs="192.168.0.1,fd5f:8067::1")), BOTH_ADDRESSES),
    "from annotations with a prefix length": (
        pod({}, annotated(podIP="192.168.0.1/32", podIPs="192.168.0.1/32,fd5f:8067::1/128")), BOTH_ADDRESSES),
    "the status goes before the annotation": (
        pod({"podIP": "192.168.0.2"}, annotated(podIP="192.168.0.1")), ["192.168.0.2/32"]),
    "an annotation that is no address": (pod({}, annotated(podIP="foobar")), []),
    "an annotation that is no list of addresses": (pod({}, annotated(podIPs="foobar")), []),
    "none yet": (pod({}), []),
    "on no node": (pod(nodeName=""), []),
    "running, annotation emptied, not being deleted": (pod(RUNNING, annotated(podIP="")), ["192.168.0.1/32"]),
    "being deleted, annotation emptied": (pod(RUNNING, LEAVING | annotated(podIP="")), []),
    "being deleted, still running": (pod(RUNNING, LEAVING), ["192.168.0.1/32"]),
    "being deleted, at its end": (pod(RUNNING | {"phase": "Succeeded"}, LEAVING), []),
    **{f"phase {phase}": (pod(RUNNING | {"phase": phase}), ["192.168.0.1/32"])
       for phase in ("Pending", "Running", "Unknown")},
    **{f"phase {phase}": (pod(RUNNING | {"phase": phase}), []) for phase in ("Succeeded", "Failed")},
}  # fmt: skip


@pytest.mark.parametrize(("found", "networks"), ADDRESSES.values(), ids=ADDRESSES.keys())
def test_addresses_of_a_pod(found: Pod, networks: list[str]) -> None:
    endpoint = workload_endpoint(found)
    assert (endpoint.spec.ip_networks if endpoint else []) == networks


def test_names_of_a_pods_endpoint_are_calicos() -> None:
    endpoint = of(pod())
    assert (
        endpoint.metadata.name
        == workload_endpoint_name("node-1", "pod-a", "eth0")
        == "node--1-k8s-pod--a-eth0"
    )
    assert endpoint.metadata.resource_version == "1234"
    # As Calico computes them: other names would cut off the pods of a node that changes over.
    assert (veth_name("default", "podA"), veth_name("default", "podB")) == (
        "cali7f94ce7c295",
        "cali92cf1f5e9f6",
    )


def test_ports_of_a_pod_keep_their_protocol_and_unknown_protocols_are_nobodys() -> None:
    ports = [
        {"containerPort": 5678},
        {"name": "plain", "containerPort": 1234},
        {"name": "tcp", "containerPort": 1024, "protocol": "TCP"},
        {"name": "udp", "containerPort": 432, "protocol": "UDP"},
        {"name": "sctp", "containerPort": 891, "protocol": "SCTP"},
        {"name": "odd", "containerPort": 567, "protocol": "unknown"},
        {"containerPort": 500, "hostPort": 5000},
    ]
    item = workload_item(of(pod(containers=[{"name": "main", "ports": ports}])))
    assert [(port.name, port.protocol, port.port) for port in item.ports] == [
        ("plain", 6, 1234),
        ("tcp", 6, 1024),
        ("udp", 17, 432),
        ("sctp", 132, 891),
    ]


SPOOFING: dict[str, tuple[str, list[str]]] = {
    "addresses and networks": ('["8.8.8.8/32","1.1.1.0/24"]', ["8.8.8.8/32", "1.1.1.0/24"]),
    "an empty text": ('[""]', []),
    "no network": ('["gumbo"]', []),
    "bits after the prefix": ('["1.1.1.1/16"]', ["1.1.0.0/16"]),
}


@pytest.mark.parametrize(("text", "networks"), SPOOFING.values(), ids=SPOOFING.keys())
def test_further_sources_of_a_pod(text: str, networks: list[str]) -> None:
    found = pod(metadata=annotated(allowedSourcePrefixes=text))
    assert sorted(map(str, allowed_sources(found))) == sorted(networks)


FLOATING: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "one": (annotated(podIP="192.168.0.1", floatingIPs='["1.1.1.1"]'), {"1.1.1.1": "192.168.0.1"}),
    "one of each family": (
        annotated(podIPs="192.168.0.1,fd5f:8067::1", floatingIPs='["1.1.1.1","fd80:100:100::10"]'),
        {"1.1.1.1": "192.168.0.1", "fd80:100:100::10": "fd5f:8067::1"},
    ),
}


@pytest.mark.parametrize(("metadata", "pairs"), FLOATING.values(), ids=FLOATING.keys())
def test_floating_addresses_lead_to_the_pods_address_of_their_family(
    metadata: dict[str, Any], pairs: dict[str, str]
) -> None:
    assert {item.external: item.internal for item in of(pod({}, metadata)).spec.ip_nats} == pairs


# --- labels and profiles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [{}, {"a": "1"}], ids=["no labels", "labels"])
@pytest.mark.parametrize("name", ["app", "a" * 64], ids=["account", "account too long for a label"])
def test_labels_and_profiles_of_a_pod(own: dict[str, str], name: str) -> None:
    endpoint = of(pod(metadata={"labels": own}, serviceAccountName=name))
    expected = own | {"projectcalico.org/namespace": "shop", "projectcalico.org/orchestrator": "k8s"}
    if len(name) < 64:
        expected["projectcalico.org/serviceaccount"] = name
    assert endpoint.metadata.labels == expected
    assert endpoint.spec.service_account_name == name
    assert endpoint.spec.profiles == ["kns.shop", f"ksa.shop.{name}"]


def test_a_pod_cannot_choose_its_namespace_or_account_by_labels() -> None:
    wild = {
        "projectcalico.org/namespace": "bank",
        "projectcalico.org/serviceaccount": "teller",
        "pcns.team": "bank",
        "pcsa.role": "teller",
        "team": "shop",
    }
    for name in ("app", "a" * 64, ""):
        item = workload_item(of(pod(metadata={"labels": wild}, serviceAccountName=name)))
        profiles = [
            namespace_profile(namespace("shop", team="shop")),
            service_account_profile(account(name or "none", "shop")),
        ]
        found = effective_labels(item, {profile.name: profile for profile in profiles})
        assert found["projectcalico.org/namespace"] == "shop"
        assert found["pcns.team"] == "shop"
        assert found["team"] == "shop"
        assert "pcsa.role" not in found
        assert found.get("projectcalico.org/serviceaccount") == (name if 0 < len(name) < 64 else None)


OPEN = PolicyRules((Rule(Action.ALLOW),), (Rule(Action.ALLOW),))
LEGACY = "net.beta.kubernetes.io/network-policy"
NAMESPACES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "labels": ({"foo": "bar", "roger": "rabbit"}, {}),
    "no labels": ({}, {}),
    "an annotation of old that closed it": ({}, {LEGACY: '{"ingress": {"isolation": "DefaultDeny"}}'}),
    "such an annotation, malformed": ({}, {LEGACY: "invalid"}),
    "such an annotation, empty": ({}, {LEGACY: "{}"}),
}


@pytest.mark.parametrize(("own", "annotations"), NAMESPACES.values(), ids=NAMESPACES.keys())
def test_a_namespaces_profile_is_open_and_gives_its_labels(
    own: dict[str, str], annotations: dict[str, str]
) -> None:
    found = Namespace(metadata=Metadata(name="shop", labels=own, annotations=annotations))
    profile = namespace_profile(found)
    assert (profile.name, profile.rules) == ("kns.shop", OPEN)
    expected = {f"pcns.{name}": value for name, value in own.items()}
    assert profile.labels == expected | {"pcns.projectcalico.org/name": "shop"}


@pytest.mark.parametrize("own", [{}, {"foo": "bar"}], ids=["no labels", "labels"])
@pytest.mark.parametrize("home", ["default", "shop"])
@pytest.mark.parametrize("name", ["app", "app.with.dots"])
def test_an_accounts_profile_decides_nothing_and_gives_its_labels(
    own: dict[str, str], home: str, name: str
) -> None:
    profile = service_account_profile(account(name, home, **own))
    assert (profile.name, profile.rules) == (f"ksa.{home}.{name}", PolicyRules())
    expected = {f"pcsa.{label}": value for label, value in own.items()}
    assert profile.labels == expected | {"pcsa.projectcalico.org/name": name}
