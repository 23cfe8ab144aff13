"""Rules of Calico policies as the dataplane gets them, and what becomes of rules that cannot be read."""

from typing import Any

import msgspec
import pytest

from tests.unit.policy.objects import global_policy, policy
from tortie.model.policies import NetworkPolicySpec
from tortie.policy.compile import CompiledPolicy, compile_policy
from tortie.policy.sets import NamedPortSet, SelectorSet, ServiceSet
from tortie.policy.sources import read_policy
from tortie.policy.state import ICMP, Action, PolicyKey, Rule


def compiled(namespace: str = "", **spec: Any) -> CompiledPolicy:
    """The policy: namespaced when a namespace is given."""
    found, _ = read_policy(policy("x", namespace, **spec) if namespace else global_policy("x", **spec))
    assert found is not None
    return found


def ingress(rule: dict[str, Any], namespace: str = "") -> tuple[CompiledPolicy, Rule]:
    """The policy with this one ingress rule, and the rule."""
    found = compiled(namespace, ingress=[{"action": "Allow"} | rule])
    return found, found.rules.ingress[0]


def source_selector(namespace: str = "", **source: Any) -> str | None:
    """What the rule's source selects, as text; None when the source has no set."""
    found, rule = ingress({"source": source}, namespace)
    if not rule.source.sets:
        return None
    (set_id,) = rule.source.sets
    definition = found.sets[set_id]
    assert isinstance(definition, SelectorSet)
    return definition.selector.text


NS = 'projectcalico.org/namespace == "red"'

# namespace of the policy ("" for a global one), source, what it selects
SOURCES: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "nothing matches any address": ("", {}, None),
    "nothing in a namespaced policy, too": ("red", {}, None),
    "nets need no selector": ("red", {"nets": ["10.0.0.0/8"]}, None),
    "global selector": ("", {"selector": "a == 'b'"}, 'a == "b"'),
    "global all()": ("", {"selector": "all()"}, "all()"),
    "namespaced selector stays at home": ("red", {"selector": "a == 'b'"}, f'({NS} && a == "b")'),
    "namespaced all() stays at home": ("red", {"selector": "all()"}, NS),
    "notSelector alone stays at home": ("red", {"notSelector": "has(a)"}, NS),
    "global notSelector alone": ("", {"notSelector": "has(a)"}, None),
    "namespaceSelector": ("red", {"namespaceSelector": "team == 'x'"}, 'pcns.team == "x"'),
    "namespaceSelector with selector": (
        "red",
        {"namespaceSelector": "has(team)", "selector": "has(a) || has(b)"},
        "(has(pcns.team) && (has(a) || has(b)))",
    ),
    "namespaceSelector all()": ("", {"namespaceSelector": "all()"}, "has(projectcalico.org/namespace)"),
    "namespaceSelector global()": (
        "red",
        {"namespaceSelector": "global()"},
        "!has(projectcalico.org/namespace)",
    ),
    "account names": (
        "red",
        {"serviceAccounts": {"names": ["b", "a"]}},
        f'({NS} && projectcalico.org/serviceaccount in {{"a", "b"}})',
    ),
    "global account names": (
        "",
        {"serviceAccounts": {"names": ["a"]}},
        'projectcalico.org/serviceaccount in {"a"}',
    ),
    "account selector and names": (
        "",
        {"serviceAccounts": {"selector": "k == 'v'", "names": ["a"]}},
        '(pcsa.k == "v" && projectcalico.org/serviceaccount in {"a"})',
    ),
    "accounts, namespaces and labels": (
        "red",
        {"serviceAccounts": {"selector": "has(k)"}, "namespaceSelector": "has(n)", "selector": "has(a)"},
        "(has(pcns.n) && has(pcsa.k) && has(a))",
    ),
}


@pytest.mark.parametrize(("namespace", "source", "selector"), SOURCES.values(), ids=SOURCES.keys())
def test_source_selects(namespace: str, source: dict[str, Any], selector: str | None) -> None:
    assert source_selector(namespace, **source) == selector


@pytest.mark.parametrize(
    ("namespace", "spec", "selector"),
    [
        ("red", {}, NS),
        ("red", {"selector": "has(a)"}, f"(has(a) && {NS})"),
        ("red", {"serviceAccountSelector": "k == 'v'"}, f'({NS} && pcsa.k == "v")'),
        ("", {}, "all()"),
        ("", {"namespaceSelector": "k == 'v'"}, 'pcns.k == "v"'),
        (
            "",
            {"selector": "has(a)", "namespaceSelector": "has(b)", "serviceAccountSelector": "has(c)"},
            "(has(a) && has(pcns.b) && has(pcsa.c))",
        ),
    ],
)
def test_policy_selects(namespace: str, spec: dict[str, Any], selector: str) -> None:
    assert compiled(namespace, **spec).selector.text == selector


@pytest.mark.parametrize(
    ("protocol", "number"),
    [
        ("TCP", 6),
        ("udp", 17),
        ("ICMP", 1),
        ("ICMPv6", 58),
        ("SCTP", 132),
        ("UDPLite", 136),
        (47, 47),
        ("47", 47),
        (None, None),
    ],
)
def test_protocol_becomes_a_number(protocol: str | int | None, number: int | None) -> None:
    assert ingress({"protocol": protocol})[1].protocol == number
    assert ingress({"notProtocol": protocol})[1].not_protocol == number


def test_ports_are_merged_and_names_become_a_set_of_the_rules_own_side() -> None:
    found, rule = ingress(
        {
            "protocol": "TCP",
            "destination": {
                "selector": "has(a)",
                "ports": [81, "90:95", 80, "http", "94:99", "http"],
                "notPorts": ["dns", 5],
            },
        }
    )
    assert rule.destination.ports == ((80, 81), (90, 99))
    assert rule.destination.not_ports == ((5, 5),)
    named = [found.sets[set_id] for set_id in rule.destination.named_ports + rule.destination.not_named_ports]
    assert [
        (entry.port, entry.protocol, entry.selector.text)
        for entry in named
        if isinstance(entry, NamedPortSet)
    ] == [
        ("http", 6, "has(a)"),
        ("dns", 6, "has(a)"),
    ]


@pytest.mark.parametrize(
    ("rule", "version", "icmp", "not_icmp"),
    [
        ({"protocol": "ICMP"}, None, None, None),
        ({"protocol": "ICMP", "icmp": {}}, 4, None, None),
        ({"protocol": "ICMP", "icmp": {"type": 8}}, 4, ICMP(8), None),
        ({"protocol": "ICMPv6", "icmp": {"type": 128, "code": 0}}, 6, ICMP(128, 0), None),
        ({"protocol": 58, "notICMP": {"type": 1}}, 6, None, ICMP(1)),
    ],
)
def test_icmp_brings_its_ip_version(
    rule: dict[str, Any], version: int | None, icmp: ICMP | None, not_icmp: ICMP | None
) -> None:
    found = ingress(rule)[1]
    assert (found.ip_version, found.icmp, found.not_icmp) == (version, icmp, not_icmp)


def test_service_counts_ports_at_the_destination_only() -> None:
    service = {"services": {"name": "web"}}
    found = compiled("red", egress=[{"action": "Allow", "destination": service}])
    (set_id,) = found.rules.egress[0].destination.service_ports
    assert found.sets[set_id] == ServiceSet("red", "web", with_ports=True)
    found, rule = ingress({"source": service}, "red")
    (set_id,) = rule.source.sets
    assert found.sets[set_id] == ServiceSet("red", "web", with_ports=False)


def test_equal_selectors_share_a_set() -> None:
    one = ingress({"source": {"selector": "a == 'b'&&has(c)"}})[1]
    two = ingress({"source": {"selector": '  (a == "b" && has( c ))'}})[1]
    assert one.source.sets == two.source.sets


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        ({}, (True, True)),
        ({"types": ["Ingress"]}, (True, False)),
        ({"types": ["Egress"]}, (False, True)),
        ({"types": ["Ingress", "Egress"]}, (True, True)),
        ({"types": ["Ingres"]}, (True, True)),
        ({"ingress": [{"action": "Allow"}]}, (True, True)),
        ({"preDNAT": True, "applyOnForward": True}, (True, False)),
        ({"preDNAT": True, "types": ["Egress"]}, (True, False)),
    ],
)
def test_directions(spec: dict[str, Any], directions: tuple[bool, bool]) -> None:
    found = compiled(**spec)
    assert (found.ingress, found.egress) == directions


def test_rules_of_a_direction_that_types_leaves_out_do_not_count() -> None:
    found = compiled(types=["Ingress"], egress=[{"action": "Allow", "source": {"selector": "has(a)"}}])
    assert found.rules.egress == ()
    assert not found.sets


@pytest.mark.parametrize(
    ("namespace", "spec", "kind"),
    [
        ("red", {}, (False, False, True)),
        ("", {}, (False, False, False)),
        ("", {"applyOnForward": True}, (False, False, True)),
        ("", {"doNotTrack": True, "applyOnForward": True}, (True, False, True)),
        ("", {"preDNAT": True, "applyOnForward": True}, (False, True, True)),
        ("", {"preDNAT": True, "doNotTrack": True}, (True, False, False)),
    ],
)
def test_where_a_policy_is_asked(namespace: str, spec: dict[str, Any], kind: tuple[bool, bool, bool]) -> None:
    found = compiled(namespace, **spec)
    assert (found.untracked, found.pre_dnat, found.forward) == kind


# what is wrong with the rule, the field that is named
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "HTTP": ({"http": {"methods": ["GET"]}}, "http"),
    "protocol": ({"protocol": "GRE"}, "protocol"),
    "notProtocol": ({"notProtocol": 0}, "notProtocol"),
    "ipVersion": ({"ipVersion": 5}, "ipVersion"),
    "ports without protocol": ({"source": {"ports": [80]}}, "source.ports"),
    "port": ({"protocol": "TCP", "destination": {"ports": [0]}}, "destination.ports[0]"),
    "icmp without protocol": ({"icmp": {"type": 8}}, "icmp"),
    "icmp code": ({"protocol": "ICMP", "icmp": {"code": 8}}, "icmp.type"),
    "icmp type": ({"protocol": "ICMP", "icmp": {"type": 256}}, "icmp.type"),
    "net": ({"source": {"nets": ["10.0.0/8"]}}, "source.nets[0]"),
    "notNet": ({"source": {"notNets": ["x"]}}, "source.notNets[0]"),
    "selector": ({"source": {"selector": "a"}}, "source.selector"),
    "notSelector": ({"destination": {"notSelector": "a"}}, "destination.notSelector"),
    "namespaceSelector": ({"source": {"namespaceSelector": "a"}}, "source.namespaceSelector"),
    "account selector": (
        {"source": {"serviceAccounts": {"selector": "a"}}},
        "source.serviceAccounts.selector",
    ),
    "service without namespace": ({"source": {"services": {"name": "a"}}}, "source.services"),
}


@pytest.mark.parametrize(("rule", "field"), BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize(
    ("action", "left"),
    [
        ("Allow", [Action.ALLOW]),
        ("Log", [Action.ALLOW]),
        ("Deny", [Action.DENY, Action.ALLOW]),
        ("Pass", [Action.DENY, Action.ALLOW]),
        ("Alow", [Action.DENY, Action.ALLOW]),
    ],
)
def test_rule_that_cannot_be_read_never_opens(
    rule: dict[str, Any], field: str, action: str, left: list[Action]
) -> None:
    spec = {"ingress": [{"action": action} | rule, {"action": "Allow"}]}
    key = PolicyKey("GlobalNetworkPolicy", "x")
    found, problems = compile_policy(key, msgspec.convert(spec, NetworkPolicySpec))
    assert found is not None
    assert [entry.action for entry in found.rules.ingress] == left
    if left[0] is Action.DENY:
        assert found.rules.ingress[0] == Rule(Action.DENY)
    expected = "action" if action == "Alow" else field
    assert [problem.field for problem in problems] == [f"spec.ingress[0].{expected}"]
    assert not found.sets


def test_rules_remember_where_they_were_written() -> None:
    found = compiled(ingress=[{"action": "Allow", "protocol": "GRE"}, {"action": "Allow"}, {"action": "x"}])
    assert found.origins["Ingress"] == ("spec.ingress[1]", "spec.ingress[2]")


@pytest.mark.parametrize("field", ["selector", "namespaceSelector", "serviceAccountSelector"])
def test_policy_that_does_not_say_whom_it_is_for_selects_nobody(field: str) -> None:
    found, problems = read_policy(global_policy("x", **{field: "a =="}))
    assert found is None
    assert [problem.field for problem in problems] == [f"spec.{field}"]
