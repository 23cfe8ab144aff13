"""What `policy explain --host-endpoint` says is what the kernel does, at each of a host endpoint's stages."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network, ip_address
from typing import Any

import pytest

from tests.integration.dataplane.namespaces import Namespace, namespaces, wire
from tests.integration.dataplane.policy_lab import PORTS, PolicyLab, policy_lab
from tests.unit.policy.objects import global_policy, host_endpoint, namespace, pod
from tortie.dataplane import netns
from tortie.dataplane.policy import PolicyDataplane
from tortie.dataplane.ruleset import Failsafe, Settings
from tortie.model.resources import Resource
from tortie.policy.explain import explain_host
from tortie.policy.explain_host import FailsafePort, Failsafes
from tortie.policy.snapshot import snapshot

pytestmark = pytest.mark.root

TCP = 6
NODE, OUTSIDE, NETWORK = "192.0.2.1", "192.0.2.2", IPv4Network("192.0.2.0/30")
# Served by the node, and two of them by the pod and outside as well; the fourth is a failsafe port.
SERVED = (*PORTS, 7001, 7022)
INWARD, OUTWARD = Failsafe(TCP, 7022, (NETWORK,)), Failsafe(TCP, PORTS[1])
SETTINGS = Settings(failsafe_inbound=(INWARD,), failsafe_outbound=(OUTWARD,))
FAILSAFES = Failsafes(
    inbound=(FailsafePort(INWARD.protocol, INWARD.port, INWARD.networks),),
    outbound=(FailsafePort(OUTWARD.protocol, OUTWARD.port),),
)
HOST = host_endpoint("eth", {"role": "host"}, interfaceName="eth0", expectedIPs=[NODE])
OPEN_HOST = host_endpoint(
    "eth",
    {"role": "host"},
    interfaceName="eth0",
    expectedIPs=[NODE],
    profiles=["projectcalico-default-allow"],
)


def port(action: str, number: int) -> dict[str, Any]:
    return {"action": action, "protocol": "TCP", "destination": {"ports": [number]}}


def policy(name: str, **spec: Any) -> Resource:
    return global_policy(name, selector="role == 'host'", **spec)


BOTH_WAYS = {"types": ["Ingress", "Egress"]}
CASES: dict[str, list[Resource]] = {
    "nothing": [HOST],
    "profile": [OPEN_HOST],
    "host policy": [HOST, policy("p", ingress=[port("Allow", 7001)], egress=[port("Allow", PORTS[0])])],
    "profile behind ingress policy": [
        OPEN_HOST,
        policy("p", types=["Ingress"], ingress=[port("Allow", 7001)]),
    ],
    "forward": [
        OPEN_HOST,
        policy("p", applyOnForward=True, ingress=[port("Allow", PORTS[0])], egress=[port("Allow", PORTS[1])]),
    ],
    "forward denies all": [OPEN_HOST, policy("p", applyOnForward=True, **BOTH_WAYS)],
    "untracked allows": [
        HOST,
        policy(
            "p",
            doNotTrack=True,
            applyOnForward=True,
            ingress=[
                port("Allow", 7001),
                {"action": "Allow", "protocol": "TCP", "source": {"ports": SERVED}},
            ],
            egress=[
                port("Allow", PORTS[0]),
                {"action": "Allow", "protocol": "TCP", "source": {"ports": [7001]}},
            ],
        ),
    ],
    "untracked denies": [
        OPEN_HOST,
        policy(
            "p", doNotTrack=True, applyOnForward=True, ingress=[port("Deny", number) for number in SERVED[1:]]
        ),
    ],
    "preDNAT": [
        HOST,
        policy(
            "p",
            preDNAT=True,
            applyOnForward=True,
            ingress=[port("Allow", 7001), port("Deny", PORTS[0]), port("Deny", 7022)],
        ),
    ],
    "preDNAT before forward": [
        OPEN_HOST,
        policy("a", preDNAT=True, applyOnForward=True, ingress=[port("Allow", PORTS[0])]),
        policy("b", applyOnForward=True, types=["Ingress"]),
    ],
}


class Site:
    """A node with a pod and a machine outside; all of them listen."""

    def __init__(self, lab: PolicyLab, outside: Namespace, stack: contextlib.ExitStack) -> None:
        self.lab = lab
        self.outside = outside
        for number in SERVED:
            stack.enter_context(socket.create_server((NODE, number)))
        with netns.entered(outside.fd):
            for number in SERVED:
                stack.enter_context(socket.create_server((OUTSIDE, number)))

    def connects(self, source: str, destination: str, number: int) -> bool:
        """From `outside`, `node` or `pod` to one of them."""
        client = self.client(source)
        addresses = {"outside": OUTSIDE, "node": NODE, "pod": self.lab.pods["a"].address}
        with client:
            client.settimeout(0.2)
            return client.connect_ex((addresses[destination], number)) == 0

    def client(self, source: str) -> socket.socket:
        if source == "pod":
            return self.lab.pods["a"].socket(socket.SOCK_STREAM)
        if source == "node":
            return socket.socket()
        with netns.entered(self.outside.fd):
            return socket.socket()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with (
        policy_lab(("a",)) as lab,
        namespaces(1) as (outside,),
        contextlib.ExitStack() as stack,
        lab.on_node,
    ):
        wire(lab.node, outside)
        outside.ip("route", "add", "10.5.0.0/24", "via", NODE)
        yield Site(lab, outside, stack)


@pytest.mark.parametrize("objects", CASES.values(), ids=CASES.keys())
def test_kernel_does_what_is_explained(site: Site, objects: list[Resource]) -> None:
    local = pod("local", site.lab.pods["a"].address)
    world: list[Resource] = [namespace("default"), local, *objects]
    state = snapshot(world, "node-1", interfaces={"eth0": [ip_address(NODE)]})
    # The lab gives interfaces names of its own.
    (rules,) = state.workloads.values()
    interface = site.lab.pods["a"].interface
    named = {interface: replace(rules, interface=interface)}
    PolicyDataplane(SETTINGS).sync(replace(state, workloads=named))
    site.lab.node.exec("conntrack", "-F")
    ends = {"outside": ip_address(OUTSIDE), "node": None, "pod": local}
    ways = [
        (*ends_, number)
        for ends_, numbers in (
            (("outside", "node"), SERVED),
            (("node", "outside"), SERVED),
            (("outside", "pod"), PORTS),
            (("pod", "outside"), PORTS),
        )
        for number in numbers
    ]
    explained = {
        (source, destination, number): explain_host(
            world, "eth", ends[source], ends[destination], protocol=TCP, port=number, failsafes=FAILSAFES
        ).allowed
        for source, destination, number in ways
    }
    assert {way: site.connects(*way) for way in ways} == explained
