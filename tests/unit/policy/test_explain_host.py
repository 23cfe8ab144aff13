"""What a host endpoint says of a connection, stage by stage."""

from ipaddress import IPv4Network, ip_address
from typing import Any

import pytest

from tests.unit.policy.objects import NODE, OTHER_NODE, global_policy, host_endpoint, namespace, pod
from tortie.model.policies import GlobalNetworkPolicy
from tortie.model.resources import Pod, Resource
from tortie.policy.explain import HostExplanation, explain_host
from tortie.policy.explain_host import FailsafePort, Failsafes, Stage
from tortie.policy.state import Address

TCP = 6
OWN, OUTSIDE = "192.0.2.1", ip_address("192.0.2.9")
HOST = host_endpoint("eth", {"role": "host"}, interfaceName="eth0", expectedIPs=[OWN])
LOCAL = pod("local", "10.0.0.1")
REMOTE = pod("remote", "10.0.1.1", node=OTHER_NODE)
FAILSAFES = Failsafes(
    inbound=(FailsafePort(TCP, 22), FailsafePort(TCP, 23, (IPv4Network("198.51.100.0/24"),))),
    outbound=(FailsafePort(TCP, 53),),
)


def to_port(action: str, port: int) -> dict[str, Any]:
    return {"action": action, "protocol": "TCP", "destination": {"ports": [port]}}


def host_policy(name: str, **spec: Any) -> GlobalNetworkPolicy:
    return global_policy(name, selector="role == 'host'", **spec)


SERVED = host_policy("served", ingress=[to_port("Allow", 80)])
FORWARD = host_policy("forward", applyOnForward=True, ingress=[to_port("Deny", 80), {"action": "Allow"}])
UNTRACKED = host_policy(
    "untracked",
    doNotTrack=True,
    applyOnForward=True,
    order=1,
    ingress=[to_port("Allow", 90), to_port("Deny", 22)],
)
PRE_DNAT = host_policy(
    "pre", preDNAT=True, applyOnForward=True, ingress=[to_port("Deny", 91), to_port("Allow", 92)]
)


def ask(
    *policies: Resource,
    source: Pod | Address | None = OUTSIDE,
    destination: Pod | Address | None = None,
    port: int = 80,
    host: Resource = HOST,
    address: Address | None = None,
) -> HostExplanation:
    objects: list[Resource] = [namespace("default"), host, LOCAL, REMOTE, *policies]
    return explain_host(
        objects,
        host.metadata.name,
        source,
        destination,
        protocol=TCP,
        port=port,
        failsafes=FAILSAFES,
        address=address,
    )


def said(found: HostExplanation) -> list[tuple[Stage, bool, str]]:
    """Stages with their word and the rule that decides."""
    return [(word.stage, word.verdict.allowed, rule) for word, rule in found.words]


def test_host_policy_decides_about_the_nodes_own_traffic() -> None:
    allowed = ask(SERVED)
    assert allowed.allowed
    assert (allowed.packet.destination, allowed.forwarded) == (ip_address(OWN), False)
    assert said(allowed) == [(Stage.NORMAL, True, "spec.ingress[0]")]
    assert said(ask(SERVED, port=81)) == [(Stage.NORMAL, False, "")]


def test_host_endpoint_without_policy_and_profile_is_closed_but_for_failsafe_ports() -> None:
    assert not ask().allowed
    found = ask(port=22)
    assert found.allowed
    assert "failsafeInboundHostPorts" in found.words[-1][0].verdict.reason


def test_failsafe_port_of_a_network_is_for_that_network() -> None:
    assert not ask(port=23).allowed
    assert ask(port=23, source=ip_address("198.51.100.7")).allowed


def test_failsafe_ports_outward_are_others() -> None:
    no_way_out = host_policy("out", types=["Egress"], egress=[{"action": "Deny"}])
    assert ask(no_way_out, source=None, destination=OUTSIDE, port=53).allowed
    found = ask(no_way_out, source=None, destination=OUTSIDE, port=22)
    assert said(found) == [(Stage.NORMAL, False, "spec.egress[0]")]


def test_untracked_policy_is_asked_first_and_what_it_allows_is_decided() -> None:
    assert said(ask(UNTRACKED, port=90)) == [(Stage.UNTRACKED, True, "spec.ingress[0]")]


def test_what_untracked_policy_does_not_decide_goes_on() -> None:
    assert said(ask(UNTRACKED, SERVED)) == [
        (Stage.UNTRACKED, True, ""),
        (Stage.NORMAL, True, "spec.ingress[0]"),
    ]


def test_untracked_policy_does_not_close_a_failsafe_port() -> None:
    assert ask(UNTRACKED, port=22).allowed


def test_pre_dnat_policy_denies_and_allows_before_host_policy() -> None:
    assert said(ask(PRE_DNAT, SERVED, port=91)) == [(Stage.PRE_DNAT, False, "spec.ingress[0]")]
    assert said(ask(PRE_DNAT, SERVED, port=92)) == [(Stage.PRE_DNAT, True, "spec.ingress[1]")]
    assert [stage for stage, _, _ in said(ask(UNTRACKED, PRE_DNAT, SERVED))] == [
        Stage.UNTRACKED,
        Stage.PRE_DNAT,
        Stage.NORMAL,
    ]


def test_forwarded_traffic_is_asked_of_apply_on_forward_and_of_the_pod() -> None:
    denied = ask(FORWARD, destination=LOCAL)
    assert denied.forwarded
    assert said(denied) == [(Stage.FORWARD, False, "spec.ingress[0]")]
    assert [side.pod for side in denied.pods] == ["local"]
    assert ask(FORWARD, destination=LOCAL, port=81).allowed


def test_forwarded_traffic_without_a_policy_for_it_is_allowed_and_has_no_failsafe_ports() -> None:
    found = ask(SERVED, destination=LOCAL)
    assert found.allowed
    assert said(found) == [(Stage.FORWARD, True, "")]
    closed = host_policy("closed", applyOnForward=True, ingress=[{"action": "Deny"}])
    assert not ask(closed, destination=LOCAL, port=22).allowed


def test_pods_word_counts_for_what_is_forwarded() -> None:
    closed = global_policy("pods", selector="projectcalico.org/orchestrator == 'k8s'", types=["Ingress"])
    found = ask(closed, destination=LOCAL)
    assert not found.allowed
    assert said(found) == [(Stage.FORWARD, True, "")]


def test_pod_of_the_node_goes_out_by_the_interface() -> None:
    out = host_policy("out", applyOnForward=True, types=["Egress"], egress=[{"action": "Deny"}])
    found = ask(out, UNTRACKED, PRE_DNAT, source=LOCAL, destination=REMOTE)
    assert said(found) == [(Stage.FORWARD, False, "spec.egress[0]")]
    assert [side.pod for side in found.pods] == ["local", "remote"]


def test_end_of_a_tier_denies_what_is_forwarded() -> None:
    only = host_policy("only", applyOnForward=True, ingress=[to_port("Allow", 80)])
    assert ask(only, destination=LOCAL).allowed
    assert said(ask(only, destination=LOCAL, port=81)) == [(Stage.FORWARD, False, "")]


@pytest.mark.parametrize(
    ("source", "destination", "message"),
    [
        (None, None, "other end is missing"),
        (LOCAL, None, "by the pod's interface"),
        (None, LOCAL, "by the pod's interface"),
        (LOCAL, LOCAL, "Both pods"),
    ],
)
def test_connection_that_does_not_pass_the_interface_is_an_error(
    source: Pod | None, destination: Pod | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ask(source=source, destination=destination)


def test_endpoint_without_addresses_needs_the_nodes() -> None:
    bare = host_endpoint("bare", {"role": "host"}, interfaceName="*")
    with pytest.raises(ValueError, match="--address"):
        ask(SERVED, host=bare)
    assert ask(SERVED, host=bare, address=ip_address(OWN)).allowed


def test_endpoint_by_address_stands_for_the_interface_that_has_it() -> None:
    by_address = host_endpoint("by-address", {"role": "host"}, expectedIPs=[OWN])
    found = ask(SERVED, host=by_address)
    assert found.allowed
    assert (found.view.node, found.view.interface) == (NODE, f"the interface with {OWN}")


def test_endpoint_whose_interface_another_one_has_is_not_in_force() -> None:
    with pytest.raises(ValueError, match="not in force: eth0 of node-1 has a-first already"):
        ask(host_endpoint("a-first", interfaceName="eth0"))


def test_endpoint_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ValueError, match="there are: eth"):
        explain_host([HOST], "eth9", OUTSIDE, None, protocol=TCP, port=1, failsafes=FAILSAFES)
