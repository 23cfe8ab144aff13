"""From policy to the table: what each object becomes, and that changes lead where loading leads."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tortie.dataplane import nfnetlink_expressions as nft
from tortie.dataplane import ruleset_base
from tortie.dataplane.conntrack import Connection
from tortie.dataplane.conntrack_verdicts import Judge
from tortie.dataplane.netlink import as_text, attributes
from tortie.dataplane.nfnetlink import items
from tortie.dataplane.nfnetlink_objects import Element
from tortie.dataplane.ruleset import Ruleset, Settings, Update
from tortie.dataplane.ruleset_endpoints import FROM_WORKLOAD, TO_WORKLOAD
from tortie.dataplane.ruleset_names import Tags, interface_key, interface_label, policy_chain
from tortie.dataplane.ruleset_sets import merge
from tortie.policy.delta import apply_delta
from tortie.policy.state import (
    Action,
    HostRules,
    Member,
    NamedPort,
    Network,
    Peer,
    PolicyDelta,
    PolicyKey,
    PolicyRules,
    PolicyState,
    Rule,
    SetChange,
    SetID,
    SetKind,
    TierRules,
    WorkloadRules,
)

KEYS = [PolicyKey("NetworkPolicy", name, "ns") for name in ("p", "q", "r")]
NETWORK_SETS = [SetID("s"), SetID("t")]
PORT_SET = SetID("n")
NETWORKS: list[Network] = [
    IPv4Network("10.0.0.1"),
    IPv4Network("10.0.0.2"),
    IPv4Network("10.0.0.0/24"),
    IPv4Network("10.0.0.128/25"),
    IPv6Network("fd00::1"),
    IPv6Network("fd00::/64"),
]
NAMED = [NamedPort(IPv4Address("10.0.0.1"), 6, 80), NamedPort(IPv4Address("10.0.0.2"), 17, 53)]
INTERFACES = ["cali1", "cali2", "caliüx"]

peers = st.builds(
    Peer,
    networks=st.lists(st.sampled_from(NETWORKS), max_size=2).map(tuple),
    not_networks=st.lists(st.sampled_from(NETWORKS), max_size=2).map(tuple),
    sets=st.lists(st.sampled_from(NETWORK_SETS), max_size=1).map(tuple),
    not_sets=st.lists(st.sampled_from(NETWORK_SETS), max_size=1).map(tuple),
    ports=st.lists(st.sampled_from([(80, 80), (1, 1024)]), max_size=2).map(tuple),
    named_ports=st.lists(st.just(PORT_SET), max_size=1).map(tuple),
)
rules = st.lists(
    st.builds(
        Rule,
        st.sampled_from(list(Action)),
        ip_version=st.sampled_from([None, 4, 6]),
        protocol=st.sampled_from([None, 6, 17]),
        source=peers,
        destination=peers,
    ),
    max_size=3,
).map(tuple)
policies = st.builds(PolicyRules, rules, rules)
keys = st.lists(st.sampled_from(KEYS), max_size=2, unique=True).map(tuple)
tiers = st.lists(st.builds(TierRules, st.just("t"), keys, keys, st.booleans()), max_size=2).map(tuple)
members: st.SearchStrategy[frozenset[Member]] = st.frozensets(st.sampled_from(NETWORKS))


@st.composite
def states(draw: st.DrawFn) -> PolicyState:
    workloads = {
        name: WorkloadRules(name, (IPv4Network("10.0.0.1"),), draw(st.just(()) | st.just((NETWORKS[2],))),
                            draw(tiers), draw(keys))
        for name in draw(st.sets(st.sampled_from(INTERFACES)))
    }  # fmt: skip
    hosts = {
        name: HostRules(name, (), draw(tiers), draw(tiers), draw(tiers), draw(tiers), draw(keys))
        for name in draw(st.sets(st.sampled_from(["*", "eth0"])))
    }
    return PolicyState(
        sets={
            **{name: (SetKind.NETWORKS, draw(members)) for name in NETWORK_SETS},
            PORT_SET: (SetKind.NAMED_PORT, draw(st.frozensets(st.sampled_from(NAMED)))),
        },
        policies={key: draw(policies) for key in KEYS},
        workloads=workloads,
        hosts=hosts,
    )


def difference(old: PolicyState, new: PolicyState) -> PolicyDelta:
    """The delta between two states with the same sets and policies."""

    def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in after.items() if before.get(name) != value}

    return PolicyDelta(
        changed_sets={
            name: SetChange(found - old.sets[name][1], old.sets[name][1] - found)
            for name, (_, found) in new.sets.items()
            if found != old.sets[name][1]
        },
        policies={key: value for key, value in new.policies.items() if old.policies[key] != value},
        workloads=changed(old.workloads, new.workloads),
        gone_workloads=frozenset(old.workloads.keys() - new.workloads.keys()),
        hosts=changed(old.hosts, new.hosts),
        gone_hosts=frozenset(old.hosts.keys() - new.hosts.keys()),
    )


class Table:
    """What a kernel would hold: it refuses what the kernel refuses."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.chains = dict(ruleset.chains)
        self.members = {name: set(found) for name, found in ruleset.members.items()}

    def apply(self, update: Update) -> None:
        for name in update.new_sets:
            assert name not in self.members
            self.members[name] = set()
        assert update.new_chains == {name for name in update.chains if name not in self.chains}
        for name, found in update.removed.items():
            assert found <= self.members[name]
            self.members[name] -= found
        self.chains |= update.chains
        for name, found in update.added.items():
            assert not found & self.members[name]
            self.members[name] |= found
        for name in update.gone_chains:
            del self.chains[name]
        for name in update.gone_sets:
            del self.members[name]
        for name, found in update.gone_elements.items():
            assert found <= self.members[name]
            self.members[name] -= found
        self.check_references()

    def check_references(self) -> None:
        """Every chain that is jumped to, and every set that is asked, is there."""
        elements = [element for found in self.members.values() for element in found]
        targets = {element.chain for element in elements if element.chain}
        sets = set()
        for rule in (rule for chain in self.chains.values() for rule in chain):
            for _, expression in items(rule):
                content = attributes(expression)
                data = attributes(content.get(2, b""))
                if as_text(content[1]) == "lookup":
                    sets.add(as_text(data[1]))
                elif as_text(content[1]) == "immediate":
                    verdict = attributes(attributes(data[2]).get(2, b""))  # or a constant
                    targets |= {as_text(verdict[2])} if 2 in verdict else set()
        assert targets <= self.chains.keys()
        assert sets <= self.members.keys()


@settings(deadline=None)
@given(st.lists(states(), min_size=2, max_size=4))
def test_changes_lead_where_loading_leads(sequence: list[PolicyState]) -> None:
    changed = Ruleset()
    changed.load(sequence[0])
    table = Table(changed)
    table.check_references()
    for old, new in pairwise(sequence):
        delta = difference(old, new)
        assert apply_delta(old, delta) == new
        table.apply(changed.change(delta))
        loaded = Ruleset()
        loaded.load(new)
        assert table.chains == changed.chains
        assert table.members == changed.members
        assert changed.chains.keys() == loaded.chains.keys()
        # A set keeps the shape it grew to, so the names of sets in rules may differ; what they hold may not.
        assert table.chains.keys() == loaded.chains.keys()
        assert changed.state() == new


@settings(deadline=None)
@given(states())
def test_a_change_and_its_reverse_leave_only_grown_sets(state: PolicyState) -> None:
    ruleset = Ruleset()
    ruleset.change(PolicyDelta(new_sets=state.sets, policies=state.policies))
    empty = Table(ruleset)
    ruleset.change(PolicyDelta(workloads=state.workloads, hosts=state.hosts))
    ruleset.change(PolicyDelta(gone_workloads=frozenset(state.workloads), gone_hosts=frozenset(state.hosts)))
    assert ruleset.chains == empty.chains
    assert ruleset.members == empty.members


def simple_state(count: int) -> PolicyState:
    key = KEYS[0]
    rules = PolicyRules(ingress=(Rule(Action.ALLOW, source=Peer(sets=(NETWORK_SETS[0],))),))
    return PolicyState(
        sets={NETWORK_SETS[0]: (SetKind.NETWORKS, frozenset({NETWORKS[0]}))},
        policies={key: rules},
        workloads={
            f"cali{number}": WorkloadRules(
                f"cali{number}", (IPv4Network(0x0A000000 + number),), tiers=(TierRules("default", (key,)),)
            )
            for number in range(count)
        },
    )


@pytest.mark.parametrize("count", [1, 100])
def test_the_cost_of_a_change_is_that_of_what_changed(count: int) -> None:
    ruleset = Ruleset()
    state = simple_state(count)
    ruleset.load(state)
    member = ruleset.change(PolicyDelta(changed_sets={NETWORK_SETS[0]: SetChange(frozenset({NETWORKS[1]}))}))
    assert member == Update(added=member.added)
    assert sum(map(len, member.added.values())) == 1
    policy = ruleset.change(PolicyDelta(policies={KEYS[0]: PolicyRules()}))
    assert policy.chains == {policy_chain("pi", KEYS[0]): ()}
    one_more = replace(state.workloads["cali0"], interface="caliX")
    endpoint = ruleset.change(PolicyDelta(workloads={"caliX": one_more}))
    assert endpoint == Update(added=endpoint.added)  # its policies are those of others: it shares their way
    assert sum(map(len, endpoint.added.values())) == 4
    of_its_own = replace(one_more, profiles=(KEYS[1],))
    endpoint = ruleset.change(PolicyDelta(workloads={"caliX": of_its_own}))
    assert len(endpoint.new_chains) == 3 == len(endpoint.chains)  # its two ways, and the rules of the profile
    assert sum(map(len, endpoint.added.values())) == 2
    gone = ruleset.change(PolicyDelta(gone_workloads=frozenset({"caliX"})))
    assert gone.gone_chains == endpoint.new_chains


def test_other_settings_change_the_base_chains_only() -> None:
    ruleset = Ruleset()
    ruleset.load(simple_state(10))
    table = Table(ruleset)
    one = IPv4Network("192.0.2.1")
    update = ruleset.configure(Settings(tunnel_peers=frozenset({one})))
    assert update.chains.keys() == {"input", "output"}
    table.apply(update)
    same = Ruleset(ruleset.settings)
    same.load(simple_state(10))
    assert (table.chains, table.members) == (same.chains, same.members)
    table.apply(ruleset.configure(Settings()))
    same = Ruleset()
    same.load(simple_state(10))
    assert (table.chains, table.members) == (same.chains, same.members)
    with pytest.raises(ValueError, match="load the state anew"):
        ruleset.configure(Settings(mark_mask=0xFF00))


def test_a_policy_that_begins_to_pass_rewrites_the_endpoints_that_it_applies_to() -> None:
    ruleset = Ruleset()
    ruleset.load(simple_state(2))
    (inward,) = chains_of(ruleset, TO_WORKLOAD)
    (outward,) = chains_of(ruleset, FROM_WORKLOAD)
    update = ruleset.change(PolicyDelta(policies={KEYS[0]: PolicyRules((Rule(Action.NEXT_TIER),))}))
    assert set(update.chains) == {inward, policy_chain("pi", KEYS[0])}
    assert outward in ruleset.chains
    back = ruleset.change(PolicyDelta(policies={KEYS[0]: PolicyRules()}))
    assert set(back.chains) == set(update.chains)


def chains_of(ruleset: Ruleset, verdict_map: str) -> set[str]:
    """Where the map leads."""
    return {element.chain for element in ruleset.members[verdict_map]}


def test_endpoints_share_a_way_only_when_the_same_is_asked_in_the_same_order() -> None:
    p, q = KEYS[:2]
    ways = [
        ((TierRules("a", (p, q)),), ()),
        ((TierRules("a", (q, p)),), ()),
        ((TierRules("a", (p, q), default_pass=True),), ()),
        ((TierRules("a", (p,)), TierRules("b", (q,))), ()),
        ((TierRules("a", (p,)),), (q,)),
        ((), (p, q)),
        ((TierRules("a", (), (p, q)),), ()),
    ]
    ruleset = Ruleset()
    ruleset.load(
        PolicyState(
            workloads={
                f"cali{number}": WorkloadRules(f"cali{number}", tiers=tiers, profiles=profiles)
                for number, (tiers, profiles) in enumerate([*ways, *ways])
            }
        )
    )
    assert len(chains_of(ruleset, TO_WORKLOAD)) == len(ways)
    assert len(chains_of(ruleset, FROM_WORKLOAD)) == 4  # nothing; the profile; both profiles; p and q


def test_sets_of_addresses_share_a_set_of_the_kernel_and_leave_it_after_the_rules() -> None:
    ruleset = Ruleset()
    friends = PolicyRules((Rule(Action.ALLOW, source=Peer(sets=(NETWORK_SETS[0],))),))
    foes = PolicyRules((Rule(Action.DENY, source=Peer(sets=(NETWORK_SETS[1],))),))
    state = simple_state(1)
    both = (KEYS[0], KEYS[1])
    workload = replace(state.workloads["cali0"], tiers=(TierRules("default", both),))
    ruleset.load(
        replace(
            state,
            sets={name: (SetKind.NETWORKS, frozenset({NETWORKS[0]})) for name in NETWORK_SETS},
            policies={KEYS[0]: friends, KEYS[1]: foes},
            workloads={"cali0": workload},
        )
    )
    one, other = (Element(Tags().of(name) + b"\x0a\0\0\x01") for name in NETWORK_SETS)
    assert ruleset.members["members4"] == {one, other}
    update = ruleset.change(PolicyDelta(policies={KEYS[1]: PolicyRules()}))
    assert (update.removed, update.gone_elements) == ({}, {"members4": {other}})
    assert ruleset.members["members4"] == {one}


def test_sets_that_want_the_same_tag_get_different_ones() -> None:
    tags = Tags(lambda _, attempt: bytes((0, 0, 0, attempt)))
    assert [tags.of(name) for name in ("a", "b", "a")] == [bytes(4), b"\0\0\0\1", bytes(4)]
    tags.release("a")
    assert [tags.of(name) for name in ("b", "c", "d")] == [b"\0\0\0\1", bytes(4), b"\0\0\0\2"]


def test_a_set_that_rules_named_before_it_came_has_its_members() -> None:
    ruleset = Ruleset()
    state = simple_state(1)
    ruleset.load(replace(state, sets={}))
    table = Table(ruleset)
    table.apply(ruleset.change(PolicyDelta(new_sets=state.sets)))
    assert table.members["members4"] == {Element(Tags().of(NETWORK_SETS[0]) + b"\x0a\0\0\x01")}
    assert table.members == ruleset.members


def test_nothing_of_a_user_is_in_a_name() -> None:
    hostile = PolicyKey('x"; flush ruleset #', "\0\n$(id)", "../..")
    assert policy_chain("pi", hostile).removeprefix("pi_").isalnum()
    assert len(policy_chain("pi", hostile)) < 64
    # NUL separates the parts of a key, so parts cannot be shifted from one to the next.
    assert policy_chain("pi", PolicyKey("A", "c", "b")) != policy_chain("pi", PolicyKey("A", "bc", ""))


@pytest.mark.parametrize(
    ("interface", "plain"),
    [("cali0123456789a", True), ("eth0.100", True), ("cali;drop", False), ("x_1", False), ("é", False)],
)
def test_interfaces_keep_plain_names_only(interface: str, plain: bool) -> None:
    assert (interface_label(interface) == interface) == plain
    assert interface_label(interface).replace("_", "").replace(".", "").replace("-", "").isalnum()


@pytest.mark.parametrize("interface", ["", "a" * 16, "a\0b"])
def test_a_name_that_no_interface_can_have_is_refused_before_anything_changes(interface: str) -> None:
    ruleset = Ruleset()
    ruleset.load(simple_state(1))
    before = dict(ruleset.chains)
    with pytest.raises(ValueError, match="is no name of an interface"):
        ruleset.change(
            PolicyDelta(workloads={interface: WorkloadRules(interface)}, policies={KEYS[0]: PolicyRules()})
        )
    assert ruleset.chains == before
    with pytest.raises(ValueError, match="is no name of an interface"):
        ruleset.load(PolicyState(workloads={interface: WorkloadRules(interface)}))
    assert ruleset.chains == before
    with pytest.raises(ValueError, match="is no name of an interface"):
        interface_key(interface)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)).map(lambda pair: (pair[0], sum(pair)))))
def test_merged_ranges_hold_the_same_numbers_and_do_not_touch(ranges: list[tuple[int, int]]) -> None:
    merged = merge(ranges)
    numbers = {number for first, last in ranges for number in range(first, last + 1)}
    assert {number for first, last in merged for number in range(first, last + 1)} == numbers
    assert all(left[1] + 1 < right[0] for left, right in pairwise(merged))


def test_overlapping_networks_are_one_range_and_shrink_to_what_is_left() -> None:
    ruleset = Ruleset()
    state = simple_state(1)
    wide = {NETWORK_SETS[0]: (SetKind.NETWORKS, frozenset(NETWORKS[1:4]))}
    ruleset.load(replace(state, sets=wide))
    (name,) = [name for name in ruleset.members if name.startswith("net4_")]
    assert ruleset.members[name] == {Element(b"\x0a\0\0\0", b"\x0a\0\0\xff")}
    gone = SetChange(removed=frozenset({NETWORKS[2]}))
    update = ruleset.change(PolicyDelta(changed_sets={NETWORK_SETS[0]: gone}))
    assert ruleset.members[name] == {
        Element(b"\x0a\0\0\x02", b"\x0a\0\0\x02"),
        Element(b"\x0a\0\0\x80", b"\x0a\0\0\xff"),
    }
    assert update.removed == {name: {Element(b"\x0a\0\0\0", b"\x0a\0\0\xff")}}


def test_chains_that_a_packet_can_fall_out_of_are_followed_by_a_drop() -> None:
    chains = ruleset_base.base_parts(Settings(), frozenset()).chains
    for name in (
        ruleset_base.WORKLOAD_SOURCES,
        ruleset_base.WORKLOAD_EGRESS,
        ruleset_base.WORKLOAD_INGRESS,
    ):
        assert chains[name][-1] == nft.verdict(nft.NF_DROP)


@pytest.mark.parametrize("mask", [0, 0x1, 0x30000, 1 << 32 | 0x7])
def test_a_mask_with_too_few_marks_is_refused(mask: int) -> None:
    with pytest.raises(ValueError, match="mark_mask"):
        Settings(mark_mask=mask)


def test_marks_are_the_lowest_bits_of_the_mask() -> None:
    chosen = Settings(mark_mask=0xFF000000)
    assert (chosen.accepted, chosen.passed, chosen.cut) == (1 << 24, 1 << 25, 1 << 26)


# --- the judge of established connections ------------------------------------------------------------------


def connection(source: str, destination: str, protocol: int = 6, port: int = 80) -> Connection:
    return Connection(protocol, IPv4Address(source), IPv4Address(destination), 1234, port, None, 0, b"")


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (Rule(Action.ALLOW), True),
        (Rule(Action.ALLOW, ip_version=6), False),
        (Rule(Action.ALLOW, protocol=17), False),
        (Rule(Action.ALLOW, not_protocol=6), False),
        (Rule(Action.ALLOW, source=Peer(sets=(NETWORK_SETS[0],))), True),
        (Rule(Action.ALLOW, source=Peer(not_sets=(NETWORK_SETS[0],))), False),
        (Rule(Action.ALLOW, destination=Peer(sets=(NETWORK_SETS[0],))), False),
        (Rule(Action.ALLOW, source=Peer(networks=(NETWORKS[3],))), False),
        (Rule(Action.ALLOW, source=Peer(networks=(NETWORKS[3], NETWORKS[2]))), True),
        (Rule(Action.ALLOW, source=Peer(not_networks=(NETWORKS[2],))), False),
        (Rule(Action.ALLOW, protocol=6, destination=Peer(ports=((1, 79),))), False),
        (Rule(Action.ALLOW, protocol=6, destination=Peer(ports=((1, 79), (80, 90)))), True),
        (Rule(Action.ALLOW, protocol=6, destination=Peer(not_ports=((80, 80),))), False),
        (Rule(Action.ALLOW, protocol=6, destination=Peer(named_ports=(PORT_SET,))), True),
        (Rule(Action.ALLOW, protocol=6, destination=Peer(ports=((1, 1),), named_ports=(PORT_SET,))), True),
        (Rule(Action.ALLOW, protocol=6, destination=Peer(not_named_ports=(PORT_SET,))), False),
        (Rule(Action.ALLOW, protocol=6, destination=Peer(service_ports=(PORT_SET,))), True),
        (Rule(Action.ALLOW, protocol=6, source=Peer(service_ports=(PORT_SET,))), False),
    ],
)
def test_the_judge_reads_a_rule_as_the_kernel_does(rule: Rule, matches: bool) -> None:
    ruleset = Ruleset()
    port = NamedPort(IPv4Address("10.9.0.2"), 6, 80)
    ruleset.load(
        PolicyState(
            sets={
                NETWORK_SETS[0]: (SetKind.NETWORKS, frozenset({IPv4Network("10.0.0.0/30")})),
                PORT_SET: (SetKind.NAMED_PORT, frozenset({port})),
            }
        )
    )
    assert Judge(ruleset).matches(rule, connection("10.0.0.1", "10.9.0.2")) == matches


@pytest.mark.parametrize(
    ("first", "second", "default_pass", "allowed"),
    [
        (Action.ALLOW, Action.DENY, False, True),
        (Action.DENY, Action.ALLOW, False, False),
        (Action.NEXT_TIER, Action.ALLOW, False, True),
        (Action.NEXT_TIER, Action.DENY, False, False),
        (Action.LOG, Action.ALLOW, False, False),  # nobody decides: the end of the tier denies
        (Action.LOG, Action.ALLOW, True, True),
        (Action.LOG, Action.DENY, True, False),
    ],
)
def test_the_judge_goes_through_tiers(
    first: Action, second: Action, default_pass: bool, allowed: bool
) -> None:
    ruleset = Ruleset()
    ruleset.load(
        PolicyState(
            policies={
                KEYS[0]: PolicyRules((Rule(first),)),
                KEYS[1]: PolicyRules((Rule(second),)),
            }
        )
    )
    workload = WorkloadRules(
        "cali1", tiers=(TierRules("a", (KEYS[0],), default_pass=default_pass), TierRules("b", (KEYS[1],)))
    )
    judge = Judge(ruleset)
    assert judge.allows(workload, connection("10.0.0.1", "10.0.0.2"), ingress=True) == allowed
    assert not judge.allows(workload, connection("10.0.0.1", "10.0.0.2"), ingress=False)
