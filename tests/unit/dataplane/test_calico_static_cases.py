"""What the table decides without any policy, around policy, and whose policy it asks: the cases of Calico's
static chains and dispatch chains. docs/policy-cases.md has the list of cases.
"""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal

import pytest

from tests.unit.dataplane.packets import ICMP6, TCP, UDP, Kernel, Packet
from tortie.dataplane import nfnetlink_expressions as nft
from tortie.dataplane import ruleset_base as base
from tortie.dataplane.ruleset import Failsafe, Ruleset, Settings
from tortie.policy.delta import apply_delta
from tortie.policy.state import (
    Action,
    HostRules,
    Network,
    Peer,
    PolicyDelta,
    PolicyKey,
    PolicyRules,
    PolicyState,
    Rule,
    TierRules,
    WorkloadRules,
)

ENDS = {4: ("10.0.0.7", "10.0.1.7"), 6: ("fd00::7", "fd00:1::7")}
POD, HOST = "cali1", "eth0"
POD_SOURCES: tuple[Network, ...] = (IPv4Network("10.0.0.7"), IPv6Network("fd00::7"))
KEY = PolicyKey("GlobalNetworkPolicy", "p")
OPEN = PolicyKey("Profile", "open")
ALLOW, DENY = Rule(Action.ALLOW), Rule(Action.DENY)
TIER = (TierRules("default", (KEY,), (KEY,)),)
IPIP, VXLAN = 4, 4789
ANY4, ANY6 = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")
SETTINGS = Settings(
    failsafe_inbound=(
        Failsafe(TCP, 22, (ANY4,)),
        Failsafe(TCP, 1022, (IPv4Network("10.0.0.0/24"),)),
        Failsafe(TCP, 1022, (ANY6,)),
    ),
    failsafe_outbound=(Failsafe(TCP, 23, (ANY4,)), Failsafe(TCP, 1023, (ANY4,))),
)
versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


def packet(version: int = 4, **changes: Any) -> Packet:
    source, destination = ENDS[version]
    return replace(Packet(source, destination), **changes)


def kernel(
    *hosts: HostRules,
    settings: Settings = SETTINGS,
    rules: Iterable[Rule] = (ALLOW,),
    workload: bool = True,
    profile: bool = True,
) -> Kernel:
    """A pod that its profile opens, and host endpoints to which one policy applies."""
    ruleset = Ruleset(settings)
    found = tuple(rules)
    pods = {POD: WorkloadRules(POD, POD_SOURCES, profiles=(OPEN,) if profile else ())} if workload else {}
    ruleset.load(
        PolicyState(
            policies={KEY: PolicyRules(found, found), OPEN: PolicyRules((ALLOW,), (ALLOW,))},
            workloads=pods,
            hosts={host.interface: host for host in hosts},
        )
    )
    return Kernel(ruleset)


def test_no_other_base_chains_are_attached() -> None:
    ruleset = kernel(HostRules("*")).ruleset
    assert base.BASE_CHAINS.keys() <= ruleset.chains.keys()
    assert {"raw_prerouting", "raw_output", "mangle_prerouting", "input", "forward_from", "forward_to",
            "output", "output_translated", "service_loop",
            "input_to_host"} == base.BASE_CHAINS.keys()  # fmt: skip


# --- failsafe ports -----------------------------------------------------------------------------------------

IN: dict[str, Any] = {"iif": HOST}
OUT: dict[str, Any] = {"oif": HOST}
# Whether a packet passes a closed host endpoint.
FAILSAFES: dict[str, tuple[Packet, Literal["in", "out"], bool]] = {
    "in: for everybody, IPv4": (packet(dport=22, **IN), "in", True),
    "in: for IPv4 only": (packet(6, dport=22, **IN), "in", False),
    "in: for a network, from there": (packet(dport=1022, **IN), "in", True),
    "in: for a network, from elsewhere": (packet(dport=1022, source="10.9.0.1", **IN), "in", False),
    "in: for everybody, IPv6": (packet(6, dport=1022, **IN), "in", True),
    "in: another protocol": (packet(dport=22, protocol=UDP, **IN), "in", False),
    "in: another port": (packet(dport=24, **IN), "in", False),
    "in: as source port": (packet(dport=40000, sport=22, **IN), "in", False),
    "out: for everybody, IPv4": (packet(dport=23, **OUT), "out", True),
    "out: a second one": (packet(dport=1023, **OUT), "out", True),
    "out: none for IPv6": (packet(6, dport=23, **OUT), "out", False),
    "out: that of the other direction": (packet(dport=22, **OUT), "out", False),
}
# The same where nothing is tracked, so that answers need their own word.
ANSWERS: dict[str, tuple[Packet, Literal["in", "out"], bool]] = {
    "in: answer to what the node asked": (packet(sport=23, dport=40000, **IN), "in", True),
    "in: the second answer": (packet(sport=1023, dport=40000, **IN), "in", True),
    "in: no answer of IPv6": (packet(6, sport=23, dport=40000, **IN), "in", False),
    "out: answer to everybody, IPv4": (packet(sport=22, dport=40000, **OUT), "out", True),
    "out: answer to the network": (
        packet(sport=1022, dport=40000, destination="10.0.0.9", **OUT),
        "out",
        True,
    ),
    "out: answer to another network": (packet(sport=1022, dport=40000, **OUT), "out", False),
    "out: answer to everybody, IPv6": (packet(6, sport=1022, dport=40000, **OUT), "out", True),
}


@pytest.mark.parametrize(("found", "way", "passes"), FAILSAFES.values(), ids=FAILSAFES.keys())
def test_failsafe_ports_of_a_closed_host_endpoint(found: Packet, way: str, passes: bool) -> None:
    table = kernel(HostRules(HOST))
    outcome = table.incoming(found) if way == "in" else table.outgoing(found)
    assert outcome.accepted == passes


UNTRACKED = FAILSAFES | ANSWERS
del UNTRACKED["in: as source port"]  # an answer, where nothing is tracked


@pytest.mark.parametrize(("found", "way", "passes"), UNTRACKED.values(), ids=UNTRACKED.keys())
def test_failsafe_ports_before_connection_tracking(found: Packet, way: str, passes: bool) -> None:
    table = kernel(HostRules(HOST, untracked=TIER), rules=(DENY,))
    assert table.chain("raw_prerouting" if way == "in" else "raw_output", found).accepted == passes


@pytest.mark.parametrize(
    ("found", "passes"),
    [(found, passes) for found, way, passes in FAILSAFES.values() if way == "in"],
    ids=[name for name, (_, way, _) in FAILSAFES.items() if way == "in"],
)
def test_failsafe_ports_before_translation(found: Packet, passes: bool) -> None:
    table = kernel(HostRules(HOST, pre_dnat=TIER), rules=(DENY,))
    assert table.chain("mangle_prerouting", found).accepted == passes


# --- from pods to their node --------------------------------------------------------------------------------


@versions
@pytest.mark.parametrize(("action", "passes"), [("Accept", True), ("Return", True), ("Drop", False)])
def test_what_becomes_of_a_pods_traffic_to_its_node(version: int, action: Any, passes: bool) -> None:
    settings = replace(SETTINGS, endpoint_to_host=action)
    assert kernel(settings=settings).incoming(packet(version, iif=POD)).accepted == passes
    # Its own egress policy has been asked before.
    assert not kernel(settings=settings, profile=False).incoming(packet(version, iif=POD)).accepted
    # What it answers passes in any case.
    answer = packet(version, iif=POD, state=nft.CT_ESTABLISHED)
    assert kernel(settings=settings, profile=False).incoming(answer).accepted


@pytest.mark.parametrize(
    ("kind", "passes"),
    [(129, False), (130, True), (131, True), (132, True), (133, True), (134, False), (135, True), (136, True),
     (137, False), (128, False)],
)  # fmt: skip
@pytest.mark.parametrize("source", ["fd00::7", "fe80::7"])
def test_a_closed_pod_still_finds_its_neighbours_but_advertises_no_routes(
    kind: int, passes: bool, source: str
) -> None:
    discovery = packet(6, source=source, protocol=ICMP6, icmp=(kind, 0), iif=POD)
    assert kernel(profile=False).incoming(discovery).accepted == passes


def test_discovery_is_icmpv6_alone() -> None:
    assert not kernel(profile=False).incoming(packet(6, iif=POD, sport=135 << 8)).accepted
    assert not kernel(profile=False).incoming(packet(4, protocol=ICMP6, icmp=(135, 0), iif=POD)).accepted


# --- sources, untracked policy, policy before translation ---------------------------------------------------


@versions
def test_a_pod_sends_only_from_its_own_addresses(version: int) -> None:
    table = kernel()
    own = packet(version, iif=POD)
    foreign = replace(own, source={4: "10.0.0.8", 6: "fd00::8"}[version])
    assert table.chain("raw_prerouting", own).accepted
    assert not table.chain("raw_prerouting", foreign).accepted
    assert not table.chain("raw_prerouting", replace(own, iif="cali2")).accepted
    assert table.chain("raw_prerouting", replace(foreign, iif=HOST)).accepted


@versions
def test_untracked_policy_is_for_hosts_and_ends_what_it_allows(version: int) -> None:
    one_port = Rule(Action.ALLOW, protocol=TCP, destination=Peer(ports=((80, 80),)))
    table = kernel(HostRules(HOST, untracked=TIER), rules=(one_port,))
    allowed = table.incoming(packet(version, iif=HOST))
    assert (allowed.accepted, allowed.untracked) == (True, True)
    sent = table.outgoing(packet(version, oif=HOST))
    assert (sent.accepted, sent.untracked) == (True, True)
    # What it does not decide goes on to the host's policy, of which there is none: closed.
    undecided = table.incoming(packet(version, iif=HOST, dport=81))
    assert (undecided.accepted, undecided.untracked) == (False, False)
    assert not table.chain("raw_prerouting", packet(version, iif=POD)).untracked
    assert not table.chain("raw_output", packet(version, oif=POD)).untracked


@versions
def test_policy_before_translation_is_for_new_connections_of_hosts(version: int) -> None:
    denying = kernel(HostRules(HOST, pre_dnat=TIER, profiles=(OPEN,)), rules=(DENY,))
    new = packet(version, iif=HOST)
    assert not denying.chain("mangle_prerouting", new).accepted
    for passing in (
        replace(new, state=nft.CT_ESTABLISHED),
        replace(new, state=nft.CT_RELATED),
        replace(new, mark=SETTINGS.accepted),  # untracked policy allowed it
        replace(new, iif=POD),
        replace(new, iif="eth1"),
    ):
        assert denying.chain("mangle_prerouting", passing).accepted, passing
    # What it allows, the host's own policy is not asked about.
    allowing = kernel(HostRules(HOST, pre_dnat=TIER))
    assert allowing.incoming(new).accepted
    assert not kernel(HostRules(HOST)).incoming(new).accepted


# --- input, output, forward ---------------------------------------------------------------------------------


@versions
def test_input_asks_the_host_endpoints_policy(version: int) -> None:
    found = packet(version, iif=HOST)
    assert kernel(HostRules(HOST, normal=TIER)).incoming(found).accepted
    assert not kernel(HostRules(HOST, normal=TIER), rules=(DENY,)).incoming(found).accepted
    assert kernel(HostRules("eth1", normal=TIER), rules=(DENY,)).incoming(found).accepted
    established = replace(found, state=nft.CT_ESTABLISHED)
    assert kernel(HostRules(HOST, normal=TIER), rules=(DENY,)).incoming(established).accepted


@versions
def test_output_asks_the_host_endpoints_policy_and_never_a_pods(version: int) -> None:
    closed = kernel(HostRules(HOST, normal=TIER), rules=(DENY,), profile=False)
    assert not closed.outgoing(packet(version, oif=HOST)).accepted
    assert closed.outgoing(packet(version, oif=POD)).accepted
    assert closed.outgoing(packet(version, oif="eth1")).accepted
    assert not closed.outgoing(packet(version, oif="cali2")).accepted
    assert kernel(HostRules(HOST, normal=TIER)).outgoing(packet(version, oif=HOST)).accepted


# A packet of the node to a service: where it would have left, where it leaves, whether it may.
TRANSLATED = {
    "to a pod of the node": (HOST, POD, True),
    "by the closed interface after all": ("eth1", HOST, False),
    "by the same closed interface": (HOST, HOST, False),
    "by another interface": (HOST, "eth1", True),
    "to an unknown pod": (HOST, "cali2", False),
}


@versions
@pytest.mark.parametrize(("first", "last", "passes"), TRANSLATED.values(), ids=TRANSLATED.keys())
def test_what_the_node_sends_to_a_service_is_judged_where_it_leaves(
    version: int, first: str, last: str, passes: bool
) -> None:
    table = kernel(HostRules(HOST, normal=TIER), rules=(DENY,), profile=False)
    found = packet(version, translated=True, first_oif=first, oif=last)
    outcome = table.outgoing(found)
    assert outcome.accepted == passes
    assert not outcome.accepted or not outcome.mark
    # What is forwarded to a service has had its word.
    assert table.chain("output_translated", packet(version, translated=True, iif=POD, oif=HOST)).accepted


@versions
@pytest.mark.parametrize(
    ("iif", "oif", "passes"),
    [(POD, "eth1", True), ("eth1", POD, True), (POD, HOST, False), (HOST, POD, False), ("eth1", "eth2", True),
     ("cali2", "eth1", False), ("eth1", "cali2", False), (HOST, "eth1", False), ("eth1", HOST, False)],
)  # fmt: skip
def test_forwarded_traffic_passes_host_and_pod(version: int, iif: str, oif: str, passes: bool) -> None:
    table = kernel(HostRules(HOST, forward=TIER), rules=(DENY,))
    assert table.forwarded(packet(version, iif=iif, oif=oif)).accepted == passes
    silent = kernel(HostRules(HOST, normal=TIER), rules=(DENY,))  # its policies are not for what is forwarded
    known = "cali2" not in (iif, oif)
    assert silent.forwarded(packet(version, iif=iif, oif=oif)).accepted == known


@versions
@pytest.mark.parametrize(
    ("action", "passes", "rejected"),
    [("Drop", False, False), ("Reject", False, True), ("Disabled", True, False)],
)
def test_untranslated_packets_to_services_are_not_forwarded(
    version: int, action: Any, passes: bool, rejected: bool
) -> None:
    services: tuple[Network, ...] = (IPv4Network("10.96.0.0/12"), IPv6Network("fd00:96::/112"))
    table = kernel(settings=replace(SETTINGS, service_networks=services, service_loop=action))
    to_service = replace(
        packet(version, iif=POD, oif=HOST), destination={4: "10.96.0.1", 6: "fd00:96::1"}[version]
    )
    outcome = table.forwarded(to_service)
    assert (outcome.accepted, outcome.rejected) == (passes, rejected)
    assert table.forwarded(packet(version, iif=POD, oif=HOST)).accepted


# --- tunnels ------------------------------------------------------------------------------------------------

PEERS = frozenset[Network]({IPv4Network("10.0.0.7"), IPv4Network("10.0.1.7")})
TUNNELS = {"IP-in-IP": {"protocol": IPIP}, "VXLAN": {"protocol": UDP, "dport": VXLAN}}
tunnels = pytest.mark.parametrize("tunnel", TUNNELS.values(), ids=TUNNELS.keys())


@tunnels
def test_tunnels_between_nodes_are_not_for_host_policy_and_from_others_closed(tunnel: dict[str, int]) -> None:
    settings = replace(SETTINGS, tunnel_peers=PEERS)
    closed, open_ = kernel(HostRules(HOST), settings=settings), kernel(settings=settings)
    peer, stranger = packet(iif=HOST, **tunnel), packet(source="10.9.0.1", iif=HOST, **tunnel)
    assert closed.incoming(peer).accepted
    assert not open_.incoming(stranger).accepted
    assert closed.outgoing(packet(oif=HOST, **tunnel)).accepted
    assert not closed.outgoing(packet(destination="10.9.0.1", oif=HOST, **tunnel)).accepted
    assert open_.outgoing(packet(destination="10.9.0.1", oif=HOST, **tunnel)).accepted
    untouched = kernel()  # no tunnels in use
    assert untouched.incoming(stranger).accepted


@tunnels
def test_tunnels_over_ipv6_are_somebody_elses(tunnel: dict[str, int]) -> None:
    settings = replace(SETTINGS, tunnel_peers=PEERS)
    assert kernel(settings=settings).incoming(packet(6, iif=HOST, **tunnel)).accepted
    assert not kernel(HostRules(HOST), settings=settings).incoming(packet(6, iif=HOST, **tunnel)).accepted
    assert not kernel(HostRules(HOST), settings=settings).outgoing(packet(6, oif=HOST, **tunnel)).accepted


@versions
@tunnels
def test_a_pod_cannot_speak_to_tunnels(tunnel: dict[str, int], version: int) -> None:
    assert not kernel().forwarded(packet(version, iif=POD, oif=HOST, **tunnel)).accepted
    assert not kernel().incoming(packet(version, iif=POD, **tunnel)).accepted


# --- dispatch: every interface has its own policy -----------------------------------------------------------

ENDINGS = {
    "no interface": (),
    "one interface": ("1234",),
    "some share a prefix": ("1234", "2333", "2444"),
    "several prefixes are shared": ("11", "12", "13", "21", "22"),
}
endings = pytest.mark.parametrize("endings", ENDINGS.values(), ids=ENDINGS.keys())
DEFAULT = 999  # the port that the wildcard's policy denies


def denying(port: int) -> PolicyRules:
    rules = (Rule(Action.DENY, protocol=TCP, destination=Peer(ports=((port, port),))), ALLOW)
    return PolicyRules(rules, rules)


def key(port: int) -> PolicyKey:
    return PolicyKey("GlobalNetworkPolicy", f"not-{port}")


def tier(port: int) -> tuple[TierRules, ...]:
    return (TierRules("default", (key(port),), (key(port),)),)


def dispatching(state: PolicyState) -> Kernel:
    ruleset = Ruleset()
    ruleset.load(state)
    return Kernel(ruleset)


def denied(table: Kernel, chain: str, end: str, interface: str) -> set[int]:
    """The ports that are denied at an interface."""
    ports = (DEFAULT, *range(1000, 1006))
    place: dict[str, Any] = {end: interface}
    found = {port: packet(dport=port, **place) for port in ports}
    return {port for port, sent in found.items() if not table.chain(chain, sent).accepted}


@endings
def test_every_workload_has_its_own_policy_and_unknown_ones_are_closed(endings: tuple[str, ...]) -> None:
    names = {f"cali{ending}": 1000 + place for place, ending in enumerate(endings)}
    state = PolicyState(
        policies={key(port): denying(port) for port in names.values()},
        workloads={name: WorkloadRules(name, tiers=tier(port)) for name, port in names.items()},
    )
    table = dispatching(state)
    for chain, end in (("forward_to", "oif"), ("forward_from", "iif"), ("input", "iif")):
        for name, port in names.items():
            assert denied(table, chain, end, name) == {port}
        for unknown in ("cali9999", "cali", "cali1", "cali2"):
            assert len(denied(table, chain, end, unknown)) == 7
        assert denied(table, chain, end, "eth0") == set()


def test_an_interface_that_comes_twice_has_the_later_policy() -> None:
    state = PolicyState(
        policies={key(port): denying(port) for port in (1000, 1001)},
        workloads={"cali1234": WorkloadRules("cali1234", tiers=tier(1000))},
    )
    delta = PolicyDelta(workloads={"cali1234": WorkloadRules("cali1234", tiers=tier(1001))})
    table = dispatching(state)
    table.ruleset.change(delta)
    for found in (table, dispatching(apply_delta(state, delta))):
        assert denied(found, "forward_to", "oif", "cali1234") == {1001}


# Field of HostRules; chains and the end of the packet that decide.
LAYERS = {
    "normal": (("input", "iif"), ("output", "oif")),
    "forward": (("forward_from", "iif"), ("forward_to", "oif")),
    "untracked": (("raw_prerouting", "iif"), ("raw_output", "oif")),
    "pre_dnat": (("mangle_prerouting", "iif"),),
}


def in_layer(name: str, layer: str, tiers: tuple[TierRules, ...]) -> HostRules:
    fields: dict[str, Any] = {layer: tiers}
    return HostRules(name, **fields)


@endings
@pytest.mark.parametrize("wildcard", [False, True], ids=["no wildcard", "beside a wildcard"])
@pytest.mark.parametrize("layer", LAYERS)
def test_every_host_endpoint_has_its_own_policy_and_others_the_wildcards(
    endings: tuple[str, ...], layer: str, wildcard: bool
) -> None:
    names = {f"eth{ending}": 1000 + place for place, ending in enumerate(endings)}
    if wildcard:
        names["*"] = DEFAULT
    state = PolicyState(
        policies={key(port): denying(port) for port in names.values()},
        hosts={name: in_layer(name, layer, tier(port)) for name, port in names.items()},
    )
    table = dispatching(state)
    for chain, end in LAYERS[layer]:
        for name, port in names.items():
            assert name == "*" or denied(table, chain, end, name) == {port}
        for other in ("eth9999", "eth", "eth1", "eth2"):
            assert denied(table, chain, end, other) == ({DEFAULT} if wildcard else set())
