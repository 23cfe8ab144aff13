"""What the table does beside policy, and that it stays what it is."""

import contextlib
import errno
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dataplane.namespaces import namespaces, wire
from tests.integration.dataplane.policy_lab import (
    PORTS,
    TCP,
    UDP,
    Attempt,
    LabPod,
    PolicyLab,
    plug,
    policy_lab,
)
from tests.integration.dataplane.policy_states import (
    CLOSED,
    FRIENDS,
    HOSTILE,
    closed_state,
    open_state,
    with_policies,
    workload,
)
from tortie.dataplane.netlink import Message
from tortie.dataplane.nfnetlink import Netfilter, OvertakenError, TransactionError
from tortie.dataplane.nfnetlink_dumps import generation, next_generation, table_flags
from tortie.dataplane.nfnetlink_objects import append_rule, new_chain, new_table
from tortie.dataplane.policy import PolicyDataplane
from tortie.dataplane.ruleset import TABLE, Settings
from tortie.policy.state import (
    Action,
    Peer,
    PolicyDelta,
    PolicyRules,
    PolicyState,
    Rule,
    SetChange,
)

pytestmark = pytest.mark.root

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[PolicyLab]:
    with policy_lab(NAMES) as made:
        yield made


@pytest.fixture
def lab(shared_lab: PolicyLab) -> Iterator[PolicyLab]:
    with shared_lab.on_node:
        yield shared_lab
        PolicyDataplane().remove()
        Netfilter().close()
    shared_lab.node.exec("nft", "flush", "ruleset")
    shared_lab.node.exec("conntrack", "-F")


def attempts(source: str, destination: str) -> list[Attempt]:
    return [Attempt(source, destination, protocol, port) for protocol in (TCP, UDP) for port in PORTS]


def reach(lab: PolicyLab, source: str, destination: str, *, expected: bool) -> bool:
    """Whether every attempt gets through; fail when some do and some do not."""
    tried = attempts(source, destination)
    through = lab.try_all(tried, frozenset(tried) if expected else frozenset())
    assert len(through) in (0, len(tried)), through
    return bool(through)


def test_a_pod_is_closed_to_all_but_those_its_policy_allows(lab: PolicyLab) -> None:
    dataplane = PolicyDataplane()
    dataplane.sync(closed_state(lab, "a", friends=["b"]))
    assert reach(lab, "b", "a", expected=True)
    assert not reach(lab, "c", "a", expected=False)
    assert reach(lab, "a", "c", expected=True)
    friend = frozenset({IPv4Network(lab.pods["c"].address)})
    dataplane.apply(PolicyDelta(changed_sets={FRIENDS: SetChange(added=friend)}))
    assert reach(lab, "c", "a", expected=True)
    # A broad network turns the set into one of ranges; the single members stay in it.
    dataplane.apply(
        PolicyDelta(changed_sets={FRIENDS: SetChange(frozenset({IPv4Network("192.0.2.0/24")}), friend)})
    )
    assert not reach(lab, "c", "a", expected=False)
    assert reach(lab, "b", "a", expected=True)
    dataplane.apply(PolicyDelta(changed_sets={FRIENDS: SetChange(frozenset({IPv4Network("10.5.0.0/24")}))}))
    assert reach(lab, "c", "a", expected=True)
    assert dataplane.check() == []


def test_what_the_kernel_holds_is_what_was_sent_byte_for_byte(lab: PolicyLab) -> None:
    PolicyDataplane().sync(closed_state(lab, "a", friends=["b"]))
    other = PolicyDataplane()
    other.sync(closed_state(lab, "a", friends=["b"]))
    lab.node.exec("nft", "add", "table", "inet", "unrelated")  # so that the whole table is read again
    assert other.check() == []


def test_nft_shows_the_rules_by_names_that_users_did_not_choose(lab: PolicyLab, tmp_path: Path) -> None:
    PolicyDataplane().sync(closed_state(lab, "a", friends=["b"]))
    listing = lab.node.exec("nft", "list", "table", "inet", TABLE)
    assert "jump workload_egress" in listing
    assert re.search(f'"{lab.pods["a"].interface}" : jump in_[0-9a-f]{{32}}', listing)
    # A set of policy is a tag in front of its members.
    tag = re.search(r"meta mark & (0x[0-9a-f]{8}) \| \1 \. ip saddr @members4 accept", listing)
    assert tag is not None
    assert f"{tag[1]} . {lab.pods['b'].address}" in listing
    assert f'"{lab.pods["b"].interface}" . {lab.pods["b"].address}' in listing
    assert listing.isascii()
    for part in ("flush ruleset", "reboot", "friends", HOSTILE[:2]):
        assert part not in listing
    # nft can load what it lists: no name in it needs quoting that it does not do.
    copy = tmp_path / "listing"
    copy.write_text(listing)
    lab.node.exec("nft", "--check", "--file", str(copy))


def test_an_unknown_interface_is_closed_in_both_directions_and_for_the_node(lab: PolicyLab) -> None:
    state = open_state(lab)
    unknown = lab.pods["c"]
    known = {name: rules for name, rules in state.workloads.items() if name != unknown.interface}
    PolicyDataplane().sync(replace(state, workloads=known))
    assert not reach(lab, "a", "c", expected=False)
    assert not reach(lab, "c", "a", expected=False)
    assert reach(lab, "a", "b", expected=True)
    assert not from_node(lab, unknown)
    assert from_node(lab, lab.pods["b"])


def from_node(lab: PolicyLab, pod: LabPod) -> bool:
    """Whether the node itself gets a connection to the pod."""
    with socket.socket() as client:
        client.settimeout(0.3)
        return client.connect_ex((pod.address, PORTS[0])) == 0


def test_the_node_reaches_its_pods_whatever_their_policy(lab: PolicyLab) -> None:
    PolicyDataplane().sync(closed_state(lab, "a"))
    assert not reach(lab, "b", "a", expected=False)
    assert from_node(lab, lab.pods["a"])


def test_pods_reach_their_node_unless_egress_policy_or_a_setting_forbids_it(lab: PolicyLab) -> None:
    lab.node.ip("addr", "replace", "192.0.2.7/32", "dev", "lo")
    dataplane = PolicyDataplane()
    state = open_state(lab)
    pod = lab.pods["a"]
    with socket.create_server(("192.0.2.7", 8443)) as server:
        dataplane.sync(state)
        assert from_pod(pod, server)
        assert from_pod(lab.pods["b"], server)
        denied = replace(state, policies={**state.policies, CLOSED: PolicyRules()})
        workloads = {**state.workloads, pod.interface: workload(pod, egress=[CLOSED])}
        dataplane.sync(replace(denied, workloads=workloads))
        assert not from_pod(pod, server)
        assert from_pod(lab.pods["b"], server)
        dataplane.configure(Settings(endpoint_to_host="Drop"))
        assert dataplane.check() == []
        assert not from_pod(lab.pods["b"], server)
        assert from_node(lab, lab.pods["b"])
        assert reach(lab, "b", "c", expected=True)
        dataplane.configure(Settings(mark_mask=0xFF000000))
        assert from_pod(lab.pods["b"], server)
        assert dataplane.check() == []


def from_pod(pod: LabPod, server: socket.socket) -> bool:
    with pod.socket(socket.SOCK_STREAM) as client:
        client.settimeout(0.3)
        return client.connect_ex(server.getsockname()) == 0


def test_a_pod_sends_only_from_its_own_addresses_even_in_another_pods_connection(lab: PolicyLab) -> None:
    PolicyDataplane().sync(open_state(lab))
    victim, liar = lab.pods["b"], lab.pods["c"]
    with bound_datagram(victim, victim.address) as honest:
        honest.sendto(b"0 honest", (lab.pods["a"].address, PORTS[0]))
        assert received(lab.pods["a"]) == [b"0 honest"]
        liar.namespace.ip("addr", "add", f"{victim.address}/32", "dev", "lo")
        try:
            with bound_datagram(liar, victim.address, honest.getsockname()[1]) as false:
                false.sendto(b"0 false", (lab.pods["a"].address, PORTS[0]))
            assert received(lab.pods["a"]) == []
        finally:
            liar.namespace.ip("addr", "del", f"{victim.address}/32", "dev", "lo")
        allowed = replace(
            open_state(lab).workloads[liar.interface], allowed_sources=(IPv4Network("10.9.0.0/16"),)
        )
        liar.namespace.ip("addr", "add", "10.9.1.1/32", "dev", "lo")
        state = open_state(lab)
        PolicyDataplane().sync(replace(state, workloads={**state.workloads, liar.interface: allowed}))
        with bound_datagram(liar, "10.9.1.1") as other:
            other.sendto(b"0 allowed", (lab.pods["a"].address, PORTS[0]))
        assert received(lab.pods["a"]) == [b"0 allowed"]


@contextlib.contextmanager
def bound_datagram(pod: LabPod, address: str, port: int = 0) -> Iterator[socket.socket]:
    with pod.socket(socket.SOCK_DGRAM) as made:
        made.bind((address, port))
        yield made


def received(pod: LabPod, seconds: float = 0.3) -> list[bytes]:
    """Datagrams on the first port; waits for the first one only."""
    listener = pod.listeners[UDP, PORTS[0]]
    listener.settimeout(seconds)
    found: list[bytes] = []
    with contextlib.suppress(TimeoutError, BlockingIOError):
        found.append(listener.recv(64))
        listener.setblocking(False)
        while True:
            found.append(listener.recv(64))
    listener.setblocking(False)
    return found


def test_a_pod_cannot_speak_to_tunnels(lab: PolicyLab) -> None:
    PolicyDataplane().sync(open_state(lab))
    target = lab.pods["b"]
    with (
        bound_datagram(target, target.address, 4789) as vxlan,
        lab.pods["a"].socket(socket.SOCK_DGRAM) as sender,
    ):
        vxlan.settimeout(0.3)
        sender.sendto(b"inner", (target.address, 4789))
        with pytest.raises(TimeoutError):
            vxlan.recv(64)
        PolicyDataplane(Settings(vxlan_port=4790)).sync(open_state(lab))
        sender.sendto(b"inner", (target.address, 4789))
        assert vxlan.recv(64) == b"inner"


@pytest.mark.parametrize(("action", "answered"), [("Drop", False), ("Reject", True), ("Disabled", False)])
def test_packets_to_a_service_that_nobody_translated_do_not_go_round(
    lab: PolicyLab, action: Any, answered: bool
) -> None:
    with namespaces(1) as (outside,):
        wire(lab.node, outside)
        try:
            lab.node.ip("route", "add", "default", "via", "192.0.2.2")
            settings = Settings(service_networks=(IPv4Network("10.96.0.0/12"),), service_loop=action)
            PolicyDataplane(settings).sync(open_state(lab))
            outside.exec(
                "nft", "add table ip seen; add chain ip seen c { type filter hook prerouting priority 0; }"
            )
            outside.exec("nft", "add rule ip seen c ip daddr 10.96.0.0/12 counter")
            with lab.pods["a"].socket(socket.SOCK_STREAM) as client:
                client.settimeout(0.3)
                error = client.connect_ex(("10.96.7.7", 80))
            assert error == (errno.EHOSTUNREACH if answered else errno.EAGAIN)
            seen = json.loads(outside.exec("nft", "-j", "list", "chain", "ip", "seen", "c"))
            (rule,) = [item["rule"] for item in seen["nftables"] if "rule" in item]
            assert (rule["expr"][1]["counter"]["packets"] > 0) == (action == "Disabled")
        finally:
            lab.node.ip("link", "del", "eth0")


TAMPERING = (
    ("nft", "flush", "table", "inet", TABLE),
    ("nft", "delete", "table", "inet", TABLE),
    ("nft", "flush", "ruleset"),
    ("nft", "flush", "chain", "inet", TABLE, "{inward}"),
    ("nft", "insert", "rule", "inet", TABLE, "forward_to", "accept"),
    ("nft", "insert", "rule", "inet", TABLE, "{inward}", "ip saddr { 10.5.0.2, 10.5.0.3 } accept"),
    ("nft", "add", "rule", "inet", TABLE, "workload_ingress", "accept"),
    ("nft", "delete", "element", "inet", TABLE, "workloads", "{ cali0 }"),
    ("nft", "add", "element", "inet", TABLE, "sources4", "{ cali2 . 10.5.0.2 }"),
    ("nft", "delete", "element", "inet", TABLE, "to_workload", "{ cali0 }"),
    ("nft", "add", "element", "inet", TABLE, "from_workload", "{ cali9 : accept }"),
    ("nft", "add", "chain", "inet", TABLE, "extra"),
    ("nft", "add", "chain", "inet", TABLE, "extra", "{ type filter hook forward priority -500; }"),
    ("nft", "add", "set", "inet", TABLE, "extra", "{ type ipv4_addr; }"),
    ("nft", "add", "chain", "inet", TABLE, "input", "{ policy drop; }"),
    ("nft", "add", "table", "inet", TABLE, "{ flags dormant; }"),
    (
        "nft",
        f"delete chain inet {TABLE} service_loop; "
        f"add chain inet {TABLE} service_loop {{ type filter hook forward priority 300; }}",
    ),
)


def test_whatever_was_tampered_with_is_found_and_repaired(lab: PolicyLab) -> None:
    dataplane = PolicyDataplane()
    dataplane.sync(closed_state(lab, "a", friends=["b"]))
    to_workload = lab.node.exec("nft", "list", "map", "inet", TABLE, "to_workload")
    inward = re.search(r'"cali0" : jump (\w+)', to_workload)
    assert inward is not None, to_workload
    for command in TAMPERING:
        assert dataplane.check() == []
        lab.node.exec(*(word.replace("{inward}", inward[1]) for word in command))
        assert dataplane.repair(), command
        assert dataplane.check() == [], command
        assert not reach(lab, "c", "a", expected=False), command
        assert reach(lab, "b", "a", expected=True), command


def test_a_change_finds_a_table_that_was_tampered_with_and_replaces_it(lab: PolicyLab) -> None:
    dataplane = PolicyDataplane()
    dataplane.sync(closed_state(lab, "a", friends=["b"]))
    lab.node.exec("nft", "flush", "ruleset")
    pod = lab.pods["b"]
    dataplane.apply(PolicyDelta(workloads={pod.interface: workload(pod, CLOSED)}))
    assert dataplane.check() == []
    assert not reach(lab, "c", "b", expected=False)
    assert not reach(lab, "c", "a", expected=False)


def test_tampering_right_before_a_change_is_found_although_the_change_itself_succeeds(lab: PolicyLab) -> None:
    dataplane = PolicyDataplane()
    dataplane.sync(closed_state(lab, "a", friends=["b"]))
    assert dataplane.check() == []
    lab.node.exec("nft", "insert", "rule", "inet", TABLE, "workload_ingress", "accept")
    pod = lab.pods["b"]
    dataplane.apply(PolicyDelta(workloads={pod.interface: workload(pod, CLOSED)}))
    assert dataplane.repair()
    assert not reach(lab, "c", "b", expected=False)


def test_a_change_is_one_transaction_after_which_the_table_is_right(lab: PolicyLab) -> None:
    dataplane = PolicyDataplane()
    dataplane.sync(closed_state(lab, "a", friends=["b"]))
    before = dataplane.generation()
    pod = lab.pods["b"]
    dataplane.apply(PolicyDelta(workloads={pod.interface: workload(pod, CLOSED)}))
    assert dataplane.generation() == next_generation(before)
    assert dataplane.check() == []


def test_a_transaction_for_an_old_generation_is_refused_whole_and_the_socket_goes_on(lab: PolicyLab) -> None:
    kernel = Netfilter()
    with contextlib.closing(kernel):
        now = generation(kernel)
        kernel.transaction([new_table("overtaking")], generation=now)
        with pytest.raises(OvertakenError):
            kernel.transaction([new_table("overtaken")], generation=now)
        assert generation(kernel) == next_generation(now)
        assert table_flags(kernel, "overtaken") is None
        kernel.transaction([new_table("overtaken")])
        assert table_flags(kernel, "overtaken") is not None


def test_a_table_of_an_earlier_agent_is_taken_over_with_all_that_changed_meanwhile(lab: PolicyLab) -> None:
    PolicyDataplane().sync(closed_state(lab, "a", friends=["b"]))
    restarted = PolicyDataplane()
    assert restarted.guard() is False
    assert not reach(lab, "c", "a", expected=False)
    assert restarted.check() == []  # nothing was loaded yet, so nothing is compared
    restarted.sync(closed_state(lab, "b"))
    assert reach(lab, "c", "a", expected=True)
    assert not reach(lab, "c", "b", expected=False)
    assert restarted.check() == []


def test_the_guard_closes_every_pod_until_policy_is_known(lab: PolicyLab) -> None:
    dataplane = PolicyDataplane()
    assert dataplane.guard() is True
    assert not reach(lab, "a", "b", expected=False)
    assert not from_node(lab, lab.pods["b"])
    dataplane.sync(open_state(lab))
    assert reach(lab, "a", "b", expected=True)


def test_established_connections_end_when_policy_denies_them_and_only_those(lab: PolicyLab) -> None:
    dataplane = PolicyDataplane()
    dataplane.sync(open_state(lab))
    assert dataplane.cut() == 0
    with contextlib.ExitStack() as stack:
        denied, kept, outgoing = (lab.connect(*names) for names in (("c", "a"), ("b", "a"), ("a", "c")))
        for end in (*denied, *kept, *outgoing):
            stack.enter_context(end)
        closed = closed_state(lab, "a", friends=["b"])
        dataplane.apply(
            PolicyDelta(
                new_sets=closed.sets,
                policies={CLOSED: closed.policies[CLOSED]},
                workloads={lab.pods["a"].interface: closed.workloads[lab.pods["a"].interface]},
            )
        )
        assert dataplane.cut() == 1
        assert dataplane.cut() == 0
        # Neither direction gets through: the server's packets do not begin a connection of its own.
        assert not passes(denied[0], denied[1])
        assert not passes(denied[1], denied[0])
        for client, server in (kept, outgoing):
            assert passes(client, server)
            assert passes(server, client)
        friend = frozenset({IPv4Network(lab.pods["c"].address)})
        dataplane.apply(PolicyDelta(changed_sets={FRIENDS: SetChange(added=friend)}))
        assert dataplane.cut() == 0
        assert passes(denied[0], denied[1], seconds=5)  # what was sent meanwhile is sent again by TCP


def passes(sender: socket.socket, receiver: socket.socket, seconds: float = 0.4) -> bool:
    receiver.settimeout(seconds)
    sender.sendall(b"x")
    try:
        return bool(receiver.recv(64))
    except TimeoutError:
        return False


def test_connections_of_a_pod_that_is_gone_are_forgotten(lab: PolicyLab) -> None:
    dataplane = PolicyDataplane()
    dataplane.sync(open_state(lab))
    client, server = lab.connect("c", "a")
    with client, server:
        dataplane.apply(PolicyDelta(gone_workloads=frozenset({lab.pods["a"].interface})))
        assert dataplane.cut() == 1
        entries = lab.node.exec("conntrack", "-L", "-d", lab.pods["a"].address)
        assert "dport=8080" not in entries


def test_a_refused_transaction_changes_nothing_and_names_the_rule(lab: PolicyLab) -> None:
    bad = append_rule("tE", "one", b"\x08\x00\x01\x00\x00\x00\x00\x00", 7)
    with Netfilter() as kernel:
        with pytest.raises(TransactionError, match="rule 7 of chain one") as caught:
            kernel.transaction([new_table("tE"), new_chain("tE", "one"), bad])
        assert len(caught.value.refused) == 1
        with pytest.raises(TransactionError, match=r"make chain two.*ENOENT"):
            kernel.transaction([new_chain("absent", "two")])
        kernel.transaction([])
        kernel.transaction([new_table("tE")])  # the socket is in step after an error
    assert "tE" in lab.node.exec("nft", "list", "tables")


def test_thousands_of_refusals_are_all_answered(lab: PolicyLab) -> None:
    messages: list[Message] = [new_chain("absent", f"chain{number}") for number in range(5000)]
    with Netfilter() as kernel, pytest.raises(TransactionError) as caught:
        kernel.transaction(messages)
    assert len(caught.value.refused) == len(messages)


def test_a_log_rule_goes_on_with_the_next_rule(lab: PolicyLab) -> None:
    rules = PolicyRules(
        ingress=(
            Rule(Action.LOG),
            Rule(Action.DENY, protocol=UDP),
            Rule(Action.ALLOW, source=Peer(networks=(IPv4Network("10.5.0.0/24"),))),
        )
    )
    PolicyDataplane().sync(with_policies(closed_state(lab, "a"), {CLOSED: rules}))
    tcp = frozenset(item for item in attempts("b", "a") if item.protocol == TCP)
    assert lab.try_all(attempts("b", "a"), tcp) == tcp


def test_an_empty_state_leaves_the_host_alone(lab: PolicyLab) -> None:
    with namespaces(1) as (outside,):
        wire(lab.node, outside)
        try:
            PolicyDataplane().sync(PolicyState())
            assert outside.reaches("192.0.2.1")
            assert lab.node.reaches("192.0.2.2")
        finally:
            lab.node.ip("link", "del", "eth0")


def test_a_pod_that_comes_later_is_closed_until_its_rules_are_there(lab: PolicyLab) -> None:
    dataplane = PolicyDataplane()
    dataplane.sync(open_state(lab))
    with namespaces(1) as (room,):
        late = LabPod("late", "calilate", "10.5.0.99", room)
        plug(lab.node, late)
        late.listen()
        lab.pods["late"] = late
        try:
            assert not reach(lab, "a", "late", expected=False)
            assert not reach(lab, "late", "a", expected=False)
            dataplane.apply(PolicyDelta(workloads={late.interface: workload(late)}))
            assert reach(lab, "a", "late", expected=True)
            assert reach(lab, "late", "a", expected=True)
            dataplane.apply(PolicyDelta(gone_workloads=frozenset({late.interface})))
            assert not reach(lab, "a", "late", expected=False)
            assert dataplane.check() == []
        finally:
            del lab.pods["late"]
            late.close()
            lab.node.ip("link", "del", late.interface)
