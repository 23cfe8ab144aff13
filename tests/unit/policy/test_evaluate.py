"""The verdict of a state about one packet."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tortie.policy.evaluate import Direction, Packet, Verdict, rule_matches, workload_verdict
from tortie.policy.state import (
    ICMP,
    Action,
    NamedPort,
    Peer,
    PolicyKey,
    PolicyRules,
    PolicyState,
    Rule,
    SetID,
    SetKind,
    TierRules,
    WorkloadRules,
)

PACKET = Packet(ip_address("10.0.0.1"), ip_address("10.0.0.2"), 6, 40000, 80)
PING = Packet(ip_address("10.0.0.1"), ip_address("10.0.0.2"), 1, icmp=ICMP(8, 0))
V6 = Packet(ip_address("fd00::1"), ip_address("fd00::2"), 6, 40000, 80)
SOURCES, TARGETS, PORTS, EMPTY = SetID("sources"), SetID("targets"), SetID("ports"), SetID("empty")
SETS = {
    SOURCES: (SetKind.NETWORKS, frozenset({ip_network("10.0.0.0/31")})),
    TARGETS: (SetKind.NETWORKS, frozenset({ip_network("10.0.0.2/32")})),
    PORTS: (SetKind.NAMED_PORT, frozenset({NamedPort(ip_address("10.0.0.2"), 6, 80)})),
    EMPTY: (SetKind.NETWORKS, frozenset()),
}
NET, OTHER_NET = (ip_network("10.0.0.0/24"),), (ip_network("10.9.0.0/24"),)

# a rule's fields, the packet, whether it matches
RULES: dict[str, tuple[dict[str, Any], Packet, bool]] = {
    "nothing asked": ({}, PACKET, True),
    "ip version": ({"ip_version": 4}, PACKET, True),
    "other ip version": ({"ip_version": 4}, V6, False),
    "protocol": ({"protocol": 6}, PACKET, True),
    "other protocol": ({"protocol": 17}, PACKET, False),
    "not protocol": ({"not_protocol": 6}, PACKET, False),
    "not another protocol": ({"not_protocol": 17}, PACKET, True),
    "icmp type": ({"icmp": ICMP(8)}, PING, True),
    "icmp code": ({"icmp": ICMP(8, 1)}, PING, False),
    "icmp type of a TCP packet": ({"icmp": ICMP(8)}, PACKET, False),
    "not icmp type": ({"not_icmp": ICMP(8)}, PING, False),
    "not another icmp type": ({"not_icmp": ICMP(8, 3)}, PING, True),
    "net": ({"source": Peer(networks=OTHER_NET + NET)}, PACKET, True),
    "other net": ({"source": Peer(networks=OTHER_NET)}, PACKET, False),
    "net of the other ip version": ({"source": Peer(networks=NET)}, V6, False),
    "not net": ({"destination": Peer(not_networks=NET)}, PACKET, False),
    "not another net": ({"destination": Peer(not_networks=OTHER_NET)}, PACKET, True),
    "set": ({"source": Peer(sets=(SOURCES,))}, PACKET, True),
    "set of the other side": ({"source": Peer(sets=(TARGETS,))}, PACKET, False),
    "all sets": ({"source": Peer(sets=(SOURCES, EMPTY))}, PACKET, False),
    "not set": ({"source": Peer(not_sets=(SOURCES,))}, PACKET, False),
    "not empty set": ({"source": Peer(not_sets=(EMPTY,))}, PACKET, True),
    "port": ({"destination": Peer(ports=((1, 2), (80, 90)))}, PACKET, True),
    "other port": ({"destination": Peer(ports=((81, 90),))}, PACKET, False),
    "port of the source": ({"source": Peer(ports=((40000, 40000),))}, PACKET, True),
    "port of a packet without": ({"destination": Peer(ports=((1, 65535),))}, PING, False),
    "named port": ({"destination": Peer(named_ports=(PORTS,))}, PACKET, True),
    "number or name": ({"destination": Peer(ports=((1, 1),), named_ports=(PORTS,))}, PACKET, True),
    "named port of the source": ({"source": Peer(named_ports=(PORTS,))}, PACKET, False),
    "not port": ({"destination": Peer(not_ports=((80, 80),))}, PACKET, False),
    "not named port": ({"destination": Peer(not_named_ports=(PORTS,))}, PACKET, False),
    "service": ({"destination": Peer(service_ports=(PORTS,))}, PACKET, True),
    "service at another port": (
        {"destination": Peer(service_ports=(PORTS,))},
        Packet(PACKET.source, PACKET.destination, 6, 40000, 81),
        False,
    ),
}


@pytest.mark.parametrize(("fields", "packet", "matches"), RULES.values(), ids=RULES.keys())
def test_rule(fields: dict[str, Any], packet: Packet, matches: bool) -> None:
    assert rule_matches(Rule(Action.ALLOW, **fields), packet, SETS) is matches


def key(name: str) -> PolicyKey:
    return PolicyKey("NetworkPolicy", name, "default")


KNS = PolicyKey("Profile", "kns.default")
NOT_THIS = Peer(networks=OTHER_NET)
POLICIES = {
    key("allow"): PolicyRules(ingress=(Rule(Action.ALLOW),)),
    key("deny"): PolicyRules(ingress=(Rule(Action.DENY),)),
    key("pass"): PolicyRules(ingress=(Rule(Action.NEXT_TIER),)),
    key("log"): PolicyRules(ingress=(Rule(Action.LOG),)),
    key("other"): PolicyRules(ingress=(Rule(Action.ALLOW, source=NOT_THIS),)),
    key("second"): PolicyRules(ingress=(Rule(Action.DENY, source=NOT_THIS), Rule(Action.ALLOW))),
    KNS: PolicyRules(ingress=(Rule(Action.ALLOW),)),
}


def verdict(*tiers: tuple[list[str], bool], profile: bool = True) -> Verdict:
    """Of PACKET coming in; tiers are policies and whether what they do not decide goes on."""
    rules = WorkloadRules(
        "cali1",
        tiers=tuple(
            TierRules(f"t{number}", ingress=tuple(map(key, names)), default_pass=default_pass)
            for number, (names, default_pass) in enumerate(tiers)
        ),
        profiles=(KNS,) if profile else (),
    )
    state = PolicyState(sets=SETS, policies=POLICIES, workloads={"cali1": rules})
    return workload_verdict(state, "cali1", Direction.INGRESS, PACKET)


# tiers, allowed, tier that decides, policy, rule
VERDICTS: dict[str, tuple[list[tuple[list[str], bool]], bool, str, PolicyKey | None, int | None]] = {
    "no tier": ([], True, "", KNS, 0),
    "allowed": ([(["allow"], False)], True, "t0", key("allow"), 0),
    "denied": ([(["deny", "allow"], False)], False, "t0", key("deny"), 0),
    "first that matches decides": ([(["other", "allow", "deny"], False)], True, "t0", key("allow"), 0),
    "end of tier": ([(["other"], False), (["allow"], False)], False, "t0", None, None),
    "end of tier with Pass": ([(["other"], True), (["allow"], False)], True, "t1", key("allow"), 0),
    "all tiers pass": ([(["other"], True)], True, "", KNS, 0),
    "pass leaves the tier": ([(["pass", "deny"], False), (["allow"], False)], True, "t1", key("allow"), 0),
    "pass out of the last tier": ([(["pass", "deny"], False)], True, "", KNS, 0),
    "log goes on": ([(["log", "deny"], False)], False, "t0", key("deny"), 0),
    "log decides nothing": ([(["log"], False)], False, "t0", None, None),
    "tier without policies for the direction": ([([], False)], True, "", KNS, 0),
    "second rule": ([(["second"], False)], True, "t0", key("second"), 1),
}


@pytest.mark.parametrize(
    ("tiers", "allowed", "tier", "policy", "rule"), VERDICTS.values(), ids=VERDICTS.keys()
)
def test_verdict(
    tiers: list[tuple[list[str], bool]],
    allowed: bool,
    tier: str,
    policy: PolicyKey | None,
    rule: int | None,
) -> None:
    found = verdict(*tiers)
    assert (found.allowed, found.tier, found.policy, found.rule) == (allowed, tier, policy, rule)


def test_without_profile_what_nobody_decides_is_denied() -> None:
    assert not verdict(profile=False).allowed
    assert not verdict((["pass"], False), profile=False).allowed


def test_steps_tell_of_log_and_pass_on_the_way() -> None:
    found = verdict((["log", "pass"], False), (["deny"], False))
    assert [(step.tier, step.policy.name, step.action) for step in found.steps] == [
        ("t0", "log", Action.LOG),
        ("t0", "pass", Action.NEXT_TIER),
        ("t1", "deny", Action.DENY),
    ]


def test_unknown_interface_is_closed() -> None:
    assert not workload_verdict(PolicyState(), "cali1", Direction.INGRESS, PACKET).allowed
