"""What each match and action of a rule does to a packet: the cases of Calico's rule rendering.

A rule is rendered as for the kernel, and packets are sent through the table. docs/policy-cases.md has the
list of cases.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from itertools import product
from typing import Any

import pytest

from tests.unit.dataplane.packets import ICMP4, ICMP6, TCP, UDP, Kernel, Packet
from tests.unit.policy.objects import global_policy
from tortie.dataplane.ruleset import Ruleset, Settings
from tortie.policy.sources import read_policy
from tortie.policy.state import (
    ICMP,
    Action,
    NamedPort,
    Network,
    Peer,
    PolicyKey,
    PolicyRules,
    PolicyState,
    PortRange,
    Rule,
    SetID,
    SetKind,
    TierRules,
    WorkloadRules,
)

FIRST, SECOND = PolicyKey("GlobalNetworkPolicy", "first"), PolicyKey("GlobalNetworkPolicy", "second")
PROFILE = PolicyKey("Profile", "open")
POD = "cali1"
ANYTHING = Rule(Action.ALLOW)
# Addresses of packets: (source, destination) by IP version.
ENDS = {4: ("10.1.0.1", "10.2.0.2"), 6: ("fd00:1::1", "fd00:2::2")}
ONE, OTHER, BROAD = SetID("one"), SetID("other"), SetID("broad")
WEB, DNS, ADMIN = SetID("web"), SetID("dns"), SetID("admin")
MEMBERS: dict[SetID, frozenset[Network]] = {
    ONE: frozenset({IPv4Network("10.1.0.1"), IPv4Network("10.2.0.2"), IPv6Network("fd00:1::1"),
                    IPv6Network("fd00:2::2")}),
    OTHER: frozenset({IPv4Network("10.1.0.9"), IPv4Network("10.2.0.9"), IPv6Network("fd00:1::9"),
                      IPv6Network("fd00:2::9")}),
    BROAD: frozenset({IPv4Network("10.1.0.0/24"), IPv4Network("10.2.0.0/24")}),
}  # fmt: skip
NAMED = {
    WEB: [(TCP, 8080), (UDP, 8080)],
    DNS: [(TCP, 5353), (UDP, 5353)],
    ADMIN: [(TCP, 9443), (UDP, 9443)],
}
SETS: dict[SetID, tuple[SetKind, frozenset[Any]]] = {
    **{name: (SetKind.NETWORKS, members) for name, members in MEMBERS.items()},
    **{
        name: (
            SetKind.NAMED_PORT,
            frozenset(
                NamedPort(IPv4Address(address), protocol, number)
                for address in ENDS[4]
                for protocol, number in ports
            ),
        )
        for name, ports in NAMED.items()
    },
}


def packet(version: int = 4, **changes: Any) -> Packet:
    source, destination = ENDS[version]
    return replace(Packet(source, destination), **changes)


def kernel(first: Iterable[Rule], second: Iterable[Rule] | None, settings: Settings) -> Kernel:
    """A pod with two tiers, whose policies have these rules for both directions; None: one tier."""
    rules = {FIRST: tuple(first)} | ({} if second is None else {SECOND: tuple(second)})
    return loaded(rules, tuple(TierRules(key.name, (key,), (key,)) for key in rules), settings)


def loaded(
    rules: Mapping[PolicyKey, tuple[Rule, ...]], tiers: tuple[TierRules, ...], settings: Settings
) -> Kernel:
    """A pod with these tiers. Its profile is open, so that it matters what tiers leave undecided."""
    policies = {key: PolicyRules(found, found) for key, found in rules.items()}
    policies[PROFILE] = PolicyRules((ANYTHING,), (ANYTHING,))
    pod = WorkloadRules(POD, (IPv4Network("10.2.0.2"),), tiers=tiers, profiles=(PROFILE,))
    ruleset = Ruleset(settings)
    ruleset.load(PolicyState(sets=SETS, policies=policies, workloads={POD: pod}))
    return Kernel(ruleset)


# --- matches: each with packets that match, and packets that do not -----------------------------------------


@dataclass(frozen=True)
class Case:
    """A rule's matches; `hits` match, `misses` do not."""

    rule: dict[str, Any]
    hits: tuple[Packet, ...]
    misses: tuple[Packet, ...] = ()


PORTS: tuple[PortRange, ...] = ((10, 12), (20, 30), (8080, 8080))
MANY: tuple[PortRange, ...] = tuple(
    (number, number + 1) for number in range(1, 16, 2)
)  # takes 16 of 15 slots
NET = (IPv4Network("10.1.0.0/16"), IPv4Network("10.2.0.0/16"))  # of the source, of the destination


def protocols() -> dict[str, Case]:
    tcp, udp, odd = packet(protocol=TCP), packet(protocol=UDP), packet(protocol=8)
    return {
        "nothing asked": Case({}, (tcp, udp, odd, packet(6))),
        "protocol by name": Case({"protocol": TCP}, (tcp,), (udp, odd)),
        "protocol by number": Case({"protocol": 8}, (odd,), (tcp, udp)),
        "not a protocol by name": Case({"not_protocol": TCP}, (udp, odd), (tcp,)),
        "not a protocol by number": Case({"not_protocol": 8}, (tcp, udp), (odd,)),
    }


def icmp() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for version, protocol in ((4, ICMP4), (6, ICMP6)):
        exact, other_code, other_type = (
            packet(version, protocol=protocol, icmp=found) for found in ((10, 12), (10, 0), (11, 12))
        )
        of_version: dict[str, Any] = {"ip_version": version, "protocol": protocol}
        otherwise = (packet(version), packet(10 - version, protocol=ICMP4 + ICMP6 - protocol, icmp=(10, 12)))
        of_type, with_code = ICMP(10), ICMP(10, 12)
        cases |= {
            f"ICMP type, IPv{version}": Case(
                of_version | {"icmp": of_type}, (exact, other_code), (other_type, *otherwise)
            ),
            f"ICMP type and code, IPv{version}": Case(
                of_version | {"icmp": with_code}, (exact,), (other_code, other_type, *otherwise)
            ),
            f"not an ICMP type, IPv{version}": Case(
                of_version | {"not_icmp": of_type}, (other_type,), (exact, other_code)
            ),
            f"not an ICMP type and code, IPv{version}": Case(
                of_version | {"not_icmp": with_code}, (other_code, other_type), (exact,)
            ),
        }
    return cases


def one_side(side: str) -> dict[str, Case]:
    """Networks, sets and ports of the source or destination."""
    address, port = ("source", "sport") if side == "source" else ("destination", "dport")
    own = NET[0 if side == "source" else 1]
    near = str(own.network_address + 9)

    def rule(**fields: Any) -> dict[str, Any]:
        return {side: Peer(**fields)}

    def to_ports(*numbers: int) -> tuple[Packet, ...]:
        return tuple(packet(**{port: number}) for number in numbers)

    def elsewhere(version: int, text: str) -> Packet:
        return packet(version, **{"source": ENDS[version][0], "destination": ENDS[version][1], address: text})

    plain, neighbour, far = packet(), elsewhere(4, near), elsewhere(4, "203.0.113.1")
    six, six_neighbour = packet(6), elsewhere(6, "fd00:1::9" if side == "source" else "fd00:2::9")
    tcp = {"protocol": TCP}
    few, several = to_ports(10, 11, 12), to_ports(10, 12, 20, 25, 30, 8080)
    out_of_few, out_of_several = to_ports(9, 13), to_ports(9, 13, 19, 31, 8079, 8081)
    many, out_of_many = to_ports(*range(1, 17)), to_ports(17, 80, 65535)
    return {
        f"{side} network": Case(rule(networks=(own,)), (plain, neighbour), (far, six)),
        f"{side} in a set": Case(rule(sets=(ONE,)), (plain, six), (neighbour, far, six_neighbour)),
        f"{side} in both of two sets": Case(rule(sets=(ONE, BROAD)), (plain,), (neighbour, far, six)),
        f"{side} port in a range": Case(tcp | rule(ports=PORTS[:1]), few, out_of_few),
        f"{side} port in one of several": Case(tcp | rule(ports=PORTS), several, out_of_several),
        f"not a {side} network": Case(rule(not_networks=(own,)), (far,), (plain, neighbour)),
        f"{side} not in a set, IPv4": Case(rule(not_sets=(ONE,)), (neighbour, far), (plain,)),
        f"{side} not in a set, IPv6": Case(rule(not_sets=(ONE,)), (six_neighbour,), (six,)),
        f"{side} in neither of two sets": Case(rule(not_sets=(ONE, OTHER)), (far,), (plain, neighbour)),
        f"not a {side} port in a range": Case(tcp | rule(not_ports=PORTS[:1]), out_of_few, few),
        f"not a {side} port in one of several": Case(tcp | rule(not_ports=PORTS), out_of_several, several),
        f"not a {side} port in one of more than 15": Case(tcp | rule(not_ports=MANY), out_of_many, many),
    }


MATCHES = protocols() | icmp() | one_side("source") | one_side("destination")
DIRECTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "ingress": ("forward_to", {"iif": "eth0", "oif": POD}),
    "egress": ("forward_from", {"iif": POD, "oif": "eth0"}),
}
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)
every_match = pytest.mark.parametrize("case", MATCHES.values(), ids=MATCHES.keys())


def decide(
    direction: str,
    found: Packet,
    *first: Rule,
    second: Iterable[Rule] | None = None,
    settings: Settings | None = None,
) -> tuple[bool, list[str]]:
    """Whether a packet passes these rules at the pod's interface, and what was logged."""
    chain, interfaces = DIRECTIONS[direction]
    outcome = kernel(first, second, settings or Settings()).chain(chain, replace(found, **interfaces))
    return outcome.accepted, outcome.logs


@every_direction
@every_match
def test_allow(case: Case, direction: str) -> None:
    for found in (*case.hits, *case.misses):
        assert decide(direction, found, Rule(Action.ALLOW, **case.rule))[0] == (found in case.hits), found


@every_direction
@every_match
def test_deny(case: Case, direction: str) -> None:
    rules = Rule(Action.DENY, **case.rule), ANYTHING
    for found in (*case.hits, *case.misses):
        assert decide(direction, found, *rules)[0] == (found in case.misses), found


@every_direction
@every_match
def test_pass_goes_to_the_next_tier_and_nothing_else_does(case: Case, direction: str) -> None:
    rules = Rule(Action.NEXT_TIER, **case.rule), Rule(Action.DENY)
    for found in (*case.hits, *case.misses):
        assert decide(direction, found, *rules, second=(ANYTHING,))[0] == (found in case.hits), found


@every_direction
def test_a_pass_leaves_one_tier_and_not_the_next(direction: str) -> None:
    third = PolicyKey("GlobalNetworkPolicy", "third")
    rules = {
        FIRST: (Rule(Action.NEXT_TIER),),
        SECOND: (Rule(Action.NEXT_TIER, protocol=UDP),),
        third: (Rule(Action.DENY),),
    }
    tiers = TierRules("a", (FIRST,), (FIRST,)), TierRules("b", (SECOND, third), (SECOND, third))
    chain, interfaces = DIRECTIONS[direction]
    table = loaded(rules, tiers, Settings())
    for protocol, passes in ((TCP, False), (UDP, True)):
        found = packet(**({"protocol": protocol} | interfaces))
        assert table.chain(chain, found).accepted == passes


@every_direction
@every_match
@pytest.mark.parametrize("prefix", ["calico-packet: ", "other"])
def test_log_writes_the_prefix_and_goes_on(case: Case, direction: str, prefix: str) -> None:
    settings = Settings(log_prefix=prefix)
    for found in (*case.hits, *case.misses):
        expected = [prefix] if found in case.hits else []
        logging = Rule(Action.LOG, **case.rule)
        assert decide(direction, found, logging, ANYTHING, settings=settings) == (True, expected), found


# --- several networks, wanted and excluded ------------------------------------------------------------------

SOURCES = (IPv4Network("10.0.0.0/24"), IPv4Network("10.0.1.0/24"))
NO_SOURCES = (IPv4Network("10.0.0.128/25"), IPv4Network("10.0.1.128/25"))
TARGETS = (IPv4Network("12.0.0.0/24"), IPv4Network("12.0.1.0/24"))
NO_TARGETS = (IPv4Network("12.0.0.128/25"), IPv4Network("12.0.1.128/25"))
# How many networks a rule has: sources, excluded sources, destinations, excluded destinations.
COUNTS = [
    (2, 0, 0, 0), (0, 2, 0, 0), (0, 0, 2, 0), (0, 0, 0, 2), (1, 1, 0, 0),
    (2, 1, 0, 0), (0, 0, 1, 1), (0, 0, 2, 1), (1, 1, 1, 1), (2, 2, 2, 2),
]  # fmt: skip


@pytest.mark.parametrize(
    "counts", COUNTS, ids=[f"{a} sources, not {b}, {c} destinations, not {d}" for a, b, c, d in COUNTS]
)
def test_networks_are_alternatives_and_excluded_ones_count_all(counts: tuple[int, int, int, int]) -> None:
    sources, no_sources, targets, no_targets = (
        networks[:count]
        for networks, count in zip((SOURCES, NO_SOURCES, TARGETS, NO_TARGETS), counts, strict=True)
    )
    rule = Rule(Action.ALLOW, source=Peer(sources, no_sources), destination=Peer(targets, no_targets))
    table = kernel((rule,), None, Settings())

    def expected(address: str, wanted: Iterable[Network], excluded: Iterable[Network]) -> bool:
        known = ip_address(address)
        listed = list(wanted)
        inside = not listed or any(known in network for network in listed)
        return inside and all(known not in network for network in excluded)

    froms = ["10.0.0.1", "10.0.0.200", "10.0.1.1", "10.0.1.200", "10.0.2.1"]
    tos = ["12.0.0.1", "12.0.0.200", "12.0.1.1", "12.0.1.200", "12.0.2.1"]
    for source, destination in product(froms, tos):
        found = table.chain("forward_to", Packet(source, destination, iif="eth0", oif=POD))
        allowed = expected(source, sources, no_sources) and expected(destination, targets, no_targets)
        assert found.accepted == allowed, (source, destination)


# --- named ports, with numbers beside -----------------------------------------------------------------------

ELEVEN = IPv4Network("11.0.0.0/8")
LISTED = tuple(number for first, last in MANY for number in (first, last))


def sides(
    source: dict[str, Any] | None = None, destination: dict[str, Any] | None = None, protocol: int = TCP
) -> Rule:
    return Rule(
        Action.ALLOW, protocol=protocol, source=Peer(**source or {}), destination=Peer(**destination or {})
    )


# rule, whether a packet with this source and destination port matches it
NAMED_PORTS: dict[str, tuple[Rule, Any]] = {
    "source: one name": (sides({"named_ports": (WEB,)}), lambda s, _: s == 8080),
    "source: two names": (sides({"named_ports": (WEB, DNS)}, protocol=UDP), lambda s, _: s in (8080, 5353)),
    "source: names and many numbers": (
        sides({"ports": MANY, "named_ports": (WEB, DNS, ADMIN)}),
        lambda s, _: s in (*LISTED, 8080, 5353, 9443),
    ),
    "source: many numbers": (sides({"ports": MANY}, protocol=UDP), lambda s, _: s in LISTED),
    "source: a name and numbers": (
        sides({"ports": ((1, 2),), "named_ports": (WEB,)}), lambda s, _: s in (1, 2, 8080),
    ),
    "destination: one name": (sides(None, {"named_ports": (WEB,)}), lambda _, d: d == 8080),
    "destination: two names": (sides(None, {"named_ports": (WEB, DNS)}), lambda _, d: d in (8080, 5353)),
    "destination: a name and numbers": (
        sides(None, {"ports": ((1, 2),), "named_ports": (WEB,)}), lambda _, d: d in (1, 2, 8080),
    ),
    "source by name or number, destination by number": (
        sides({"ports": ((1, 2),), "named_ports": (WEB,)}, {"ports": ((3, 4),)}, UDP),
        lambda s, d: s in (1, 2, 8080) and d in (3, 4),
    ),
    "source by number, destination by name or number": (
        sides({"ports": ((1, 2),)}, {"ports": ((3, 4),), "named_ports": (WEB,)}),
        lambda s, d: s in (1, 2) and d in (3, 4, 8080),
    ),
    "both by name or number": (
        sides({"ports": ((1, 2),), "named_ports": (WEB,)}, {"ports": ((3, 4),), "named_ports": (DNS,)}),
        lambda s, d: s in (1, 2, 8080) and d in (3, 4, 5353),
    ),
    "destination: many numbers": (sides(None, {"ports": MANY}, UDP), lambda _, d: d in LISTED),
    "source: neither a name nor numbers": (
        sides({"not_ports": ((1, 2),), "not_named_ports": (WEB,)}), lambda s, _: s not in (1, 2, 8080),
    ),
    "source: neither names nor many numbers": (
        sides({"not_ports": MANY, "not_named_ports": (WEB, DNS, ADMIN)}),
        lambda s, _: s not in (*LISTED, 8080, 5353, 9443),
    ),
    "destination: neither a name nor numbers": (
        sides(None, {"not_ports": ((1, 2),), "not_named_ports": (WEB,)}), lambda _, d: d not in (1, 2, 8080),
    ),
    "destination: neither names nor many numbers": (
        sides(None, {"not_ports": MANY, "not_named_ports": (WEB, DNS, ADMIN)}, UDP),
        lambda _, d: d not in (*LISTED, 8080, 5353, 9443),
    ),
    "names, many numbers and networks": (
        sides({"ports": MANY, "named_ports": (WEB, DNS, ADMIN), "networks": (NET[0], ELEVEN)}),
        lambda s, _: s in (*LISTED, 8080, 5353, 9443),
    ),
    "everything, wanted and excluded": (
        sides(
            {"ports": MANY, "named_ports": (WEB,), "networks": (NET[0], ELEVEN),
             "not_ports": ((3, 3),), "not_named_ports": (ADMIN,),
             "not_networks": (IPv4Network("10.1.9.0/24"),)},
            {"ports": ((2, 3),), "named_ports": (DNS,), "networks": (NET[1], IPv4Network("13.0.0.0/8")),
             "not_ports": ((3, 3),), "not_named_ports": (ADMIN,),
             "not_networks": (IPv4Network("10.2.9.0/24"),)},
        ),
        lambda s, d: s in (*LISTED, 8080) and s != 3 and d in (2, 5353),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "matches"), NAMED_PORTS.values(), ids=NAMED_PORTS.keys())
def test_named_ports(rule: Rule, matches: Any) -> None:
    table = kernel((rule,), None, Settings())
    numbers = (1, 2, 3, 4, 16, 17, 8080, 5353, 9443)
    for sport, dport in product(numbers, numbers):
        assert rule.protocol is not None
        found = packet(protocol=rule.protocol, sport=sport, dport=dport, iif="eth0", oif=POD)
        assert table.chain("forward_to", found).accepted == matches(sport, dport), (sport, dport)
        foreign = replace(found, source="203.0.113.1", destination="203.0.113.2")
        assert not rule.source.networks or not table.chain("forward_to", foreign).accepted


# --- IP versions --------------------------------------------------------------------------------------------

FOUR, SIX = "10.0.0.1/32", "feed::beef/128"
# The rule as a user writes it, and the IP version of which it matches nothing.
VERSIONS: dict[str, tuple[dict[str, Any], int]] = {
    "of IPv4": ({"ipVersion": 4}, 6),
    "IPv4 source network": ({"source": {"nets": [FOUR]}}, 6),
    "IPv6 source network": ({"source": {"nets": [SIX]}}, 4),
    "IPv4 destination network": ({"destination": {"nets": [FOUR]}}, 6),
    "IPv6 destination network": ({"destination": {"nets": [SIX]}}, 4),
    "not an IPv4 source network": ({"source": {"notNets": [FOUR]}}, 6),
    "not an IPv6 source network": ({"source": {"notNets": [SIX]}}, 4),
    "not an IPv4 destination network": ({"destination": {"notNets": [FOUR]}}, 6),
    "not an IPv6 destination network": ({"destination": {"notNets": [SIX]}}, 4),
}


@pytest.mark.parametrize(("written", "silent"), VERSIONS.values(), ids=VERSIONS.keys())
@pytest.mark.parametrize("action", ["Allow", "Deny"])
def test_a_rule_with_networks_of_one_version_says_nothing_about_the_other(
    written: dict[str, Any], silent: int, action: str
) -> None:
    policy, problems = read_policy(
        global_policy("x", selector="all()", ingress=[written | {"action": action}])
    )
    assert policy is not None
    assert not problems
    rules = (*policy.rules.ingress, *((ANYTHING,) if action == "Deny" else ()))
    table = kernel(rules, None, Settings())
    seen: dict[int, set[bool]] = {4: set(), 6: set()}
    for version, single in ((4, FOUR), (6, SIX)):
        address = single.partition("/")[0]
        for ends in (ENDS[version], (address, ENDS[version][1]), (ENDS[version][0], address)):
            seen[version].add(table.chain("forward_to", Packet(*ends, iif="eth0", oif=POD)).accepted)
    assert seen[silent] == {action == "Deny"}
    assert (action == "Allow") in seen[10 - silent]


# --- numbers of ports ---------------------------------------------------------------------------------------

SPLITS: dict[str, tuple[PortRange, ...]] = {
    "none": (),
    "one port": ((1, 1),),
    "one range": ((1, 10),),
    "15 ports": tuple((number, number) for number in range(1, 30, 2)),
    "16 ports": tuple((number, number) for number in range(1, 32, 2)),
    "seven ranges and a port": (*((number, number + 1) for number in range(1, 21, 3)), (30, 30)),
    "eight ranges": tuple((number, number + 1) for number in range(1, 24, 3)),
    "sixteen ranges, some of them overlapping": (
        *((number, number + 1) for number in range(1, 40, 3)), (38, 60), (50, 55), (62, 63),
    ),
}  # fmt: skip


@pytest.mark.parametrize("ports", SPLITS.values(), ids=SPLITS.keys())
def test_any_number_of_ports_is_one_match(ports: tuple[PortRange, ...]) -> None:
    table = kernel((Rule(Action.ALLOW, protocol=TCP, destination=Peer(ports=ports)),), None, Settings())
    for number in range(1, 70):
        listed = not ports or any(first <= number <= last for first, last in ports)
        assert table.chain("forward_to", packet(dport=number, iif="eth0", oif=POD)).accepted == listed, number
