"""Moments in which rules come and go, through the whole agent: what policy closes, nothing passes.

A pod knocks without a pause at others, from new ports each time, by TCP and UDP. What comes into a pod is
counted there, in its own namespace, before anything in it could refuse it. Beside each pod that policy closes
stands one that it leaves open, reached by the same knocks: so a hole would be seen.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.components.apiserver import ApiServer
from tests.integration.agent.cluster import CalicoNode, Pod, calico_nodes, merge_patch
from tests.integration.agent.test_policy import GLOBAL, NATIVE, policy, table
from tests.integration.agent.test_two_nodes import pid_of
from tests.integration.bgp.nodes import Namespace, eventually, machines
from tortie.dataplane.ruleset import TABLE

pytestmark = pytest.mark.root

NODE = "tp-windows"
PORT = 7000
FORWARDING = "/proc/sys/net/ipv4/ip_forward"
KNOCK = """
import contextlib, socket, struct, sys, time
targets = [(address, int(sys.argv[1])) for address in sys.argv[2:]]
while True:
    for target in targets:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as knock:
            knock.setblocking(False)
            knock.sendto(b"knock", target)
        with socket.socket() as knock:
            knock.setblocking(False)
            knock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            knock.connect_ex(target)
    time.sleep(0.0002)
"""
COUNTED = ("tcp", "udp")
KILLS = 3
NEW_PODS = 6
FLAPS = 15
_SITES = itertools.count()
ENOUGH = 50  # knocks at the open pod: then a hole of some milliseconds would have been hit


def count_knocks(net: Namespace) -> None:
    """Count what arrives in a pod, before the pod itself has a word."""
    net.run("nft", "add table ip seen")
    net.run("nft", "add chain ip seen arriving { type filter hook prerouting priority -500; }")
    for protocol in COUNTED:
        net.run("nft", f"add counter ip seen by_{protocol}")
        net.run("nft", f"add rule ip seen arriving {protocol} dport {PORT} counter name by_{protocol}")


def knocks(net: Namespace) -> dict[str, int]:
    """How many arrived so far, by protocol."""
    found = json.loads(net.run("nft", "-j", "list", "counters", "table", "ip", "seen").stdout)["nftables"]
    return {
        item["counter"]["name"].removeprefix("by_"): item["counter"]["packets"]
        for item in found
        if "counter" in item
    }


def reached(pod: Pod) -> bool:
    """Whether knocks of both protocols came in."""
    return all(knocks(pod.net)[protocol] for protocol in COUNTED)


@contextlib.contextmanager
def hammering(source: Pod, *addresses: str) -> Iterator[None]:
    """Knock at the addresses without a pause."""
    command = source.net.command(sys.executable, "-c", KNOCK, str(PORT), *addresses)
    with subprocess.Popen(command) as program:
        try:
            yield
            assert program.poll() is None
        finally:
            program.send_signal(signal.SIGKILL)


@dataclass
class Site:
    """A node with a pod that knocks, one that policy closes, and one that it leaves open. `known` knocks came
    into the closed one while the test itself held it open."""

    node: CalicoNode
    api: ApiServer
    knocker: Pod
    closed: Pod
    opened: Pod
    known: int = 0

    def hammered(self) -> None:
        """Wait until knocks came into the open pod once more, and see that the closed one had none at all."""
        before = sum(knocks(self.opened.net).values())
        eventually("knocks", lambda: sum(knocks(self.opened.net).values()) >= before + ENOUGH)
        assert self.leaked() == 0

    def leaked(self) -> int:
        """Knocks that came through where policy says closed."""
        return sum(knocks(self.closed.net).values()) - self.known


@contextlib.contextmanager
def existing(apiserver: ApiServer, path: str, body: dict[str, Any]) -> Iterator[Callable[[], None]]:
    """An object that is there for a while; call what is yielded to take it away before the end."""
    apiserver.request("POST", path, body)
    gone = []

    def remove() -> None:
        apiserver.request("DELETE", f"{path}/{body['metadata']['name']}")
        gone.append(True)

    try:
        yield remove
    finally:
        if not gone:
            remove()


def closing() -> dict[str, Any]:
    """Policy that closes pods with app=closed."""
    return policy("closed", [], app="closed")


def is_reached(pod: Pod) -> None:
    """Wait until knocks come in."""
    eventually(f"knocks at {pod.name}", lambda: reached(pod))


def table_changes(node: CalicoNode, before: str) -> None:
    """Wait until the rules are others."""
    eventually("other rules", lambda: table(node) != before)


@pytest.fixture(scope="module")
def node(apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CalicoNode]:
    """One ready node."""
    apiserver.reset()
    settings = {"CALICO_IPV4POOL_CIDR": "10.5.0.0/16", "CALICO_NETWORKING_BACKEND": "none"}
    with (
        machines({NODE: "10.30.200.1"}) as made,
        calico_nodes(apiserver, made, tmp_path_factory.mktemp("windows"), settings) as nodes,
    ):
        nodes[NODE].start()
        nodes[NODE].wait_until_ready()
        yield nodes[NODE]


@pytest.fixture
def site(node: CalicoNode, apiserver: ApiServer) -> Iterator[Site]:
    """A policy in force and hammering under way; at the end, the control: without policy, knocks arrive."""
    number = next(_SITES)  # a pod's object outlives its test
    with (
        existing(apiserver, NATIVE, closing()) as remove,
        node.pod(f"knocker-{number}") as knocker,
        node.pod(f"closed-{number}", count_knocks, labels={"app": "closed"}) as closed,
        node.pod(f"open-{number}", count_knocks, labels={"app": "open"}) as opened,
        hammering(knocker, closed.address, opened.address),
    ):
        made = Site(node, apiserver, knocker, closed, opened)
        made.hammered()
        yield made
        made.hammered()
        remove()
        is_reached(closed)


def test_nothing_passes_to_a_new_pod_that_policy_closes(node: CalicoNode, apiserver: ApiServer) -> None:
    closed = [f"10.5.77.{number + 1}" for number in range(NEW_PODS)]
    opened = [f"10.5.77.{number + 101}" for number in range(NEW_PODS)]
    with (
        existing(apiserver, NATIVE, closing()) as remove,
        node.pod("knocker-new") as knocker,
        hammering(knocker, *closed, *opened),
        contextlib.ExitStack() as stack,
    ):
        pods = []
        for number, addresses in enumerate(zip(closed, opened, strict=True)):
            one, other = (
                stack.enter_context(
                    node.pod(
                        f"new-{app}-{number}",
                        count_knocks,
                        labels={"app": app},
                        annotations={"cni.projectcalico.org/ipAddrs": json.dumps([address])},
                    )
                )
                for app, address in zip(("closed", "open"), addresses, strict=True)
            )
            assert (one.address, other.address) == addresses
            is_reached(other)
            pods.append(one)
        assert [sum(knocks(pod.net).values()) for pod in pods] == [0] * NEW_PODS
        remove()
        for pod in pods:
            is_reached(pod)


def is_replaced(node: CalicoNode, agent: int) -> None:
    """Wait until the supervisor started another."""
    eventually("a new agent", lambda: pid_of(node, "agent") != agent)


def test_nothing_passes_while_the_agent_is_killed_and_comes_back(site: Site) -> None:
    for _ in range(KILLS):
        agent = pid_of(site.node, "agent")
        os.kill(agent, signal.SIGKILL)
        is_replaced(site.node, agent)
        site.hammered()
        site.node.wait_until_ready()
        site.hammered()


def power_cycle(site: Site) -> None:
    """No process of ours, no table, no connection, and the kernel does not forward: so it comes up. The pods
    are there already, which is worse than a boot."""
    net = site.node.machine.net
    stop(site.node)
    net.run("nft", "flush", "ruleset")
    eventually("knocks through the hole that a node without tables is", lambda: site.leaked() > 0)
    net.write(FORWARDING, "0")
    net.run("conntrack", "-F")
    site.known += site.leaked()


def stop(node: CalicoNode) -> None:
    assert node.process is not None
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(60) == 0


def test_nothing_passes_after_a_boot_until_policy_is_in_force(site: Site) -> None:
    power_cycle(site)
    site.node.start()
    eventually("the agent's first rules", lambda: table(site.node))
    assert site.leaked() == 0
    site.node.wait_until_ready()
    assert site.node.machine.net.run("cat", FORWARDING).stdout.strip() == "1"
    site.hammered()


def test_pods_stay_closed_after_a_boot_while_there_is_no_api_server(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    power_cycle(site)
    away = unreachable(site.node.directory / "kubeconfig")
    with monkeypatch.context() as patched:
        patched.setitem(site.node.settings, "KUBECONFIG", str(away))
        site.node.start()
    eventually("the agent's first rules", lambda: table(site.node))
    site.node.machine.net.write(FORWARDING, "1")  # as the node's own sysctl settings may do
    before = sum(knocks(site.opened.net).values())
    time.sleep(1)  # some thousand knocks
    assert (site.leaked(), sum(knocks(site.opened.net).values())) == (0, before)
    stop(site.node)
    site.node.start()
    site.node.wait_until_ready()
    site.hammered()


def unreachable(kubeconfig: Path) -> Path:
    """A copy that leads to a port where nobody listens."""
    config: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    copy = kubeconfig.with_name("kubeconfig-away")
    copy.write_text(yaml.safe_dump(config))
    return copy


def test_nothing_passes_while_the_whole_ruleset_is_replaced(site: Site) -> None:
    net = site.node.machine.net
    for number in range(KILLS):
        net.run("nft", "add", "chain", "inet", TABLE, f"stray{number}")  # tampering: all of it is replaced
        eventually("the whole table anew", lambda: "stray" not in table(site.node))
        site.hammered()


def test_nothing_passes_while_settings_replace_the_base_chains(site: Site) -> None:
    path = "/apis/crd.projectcalico.org/v1/felixconfigurations"
    body = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "FelixConfiguration",
        "metadata": {"name": "default"},
        "spec": {},
    }
    with existing(site.api, path, body):
        for action in ("Drop", "Return", "Drop"):
            before = table(site.node)
            change = {"spec": {"defaultEndpointToHostAction": action}}
            merge_patch(site.api, f"{path}/default", change)
            table_changes(site.node, before)
            site.hammered()


def test_nothing_passes_while_other_policies_come_and_go(site: Site) -> None:
    friends = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "friends"},
        "spec": {
            "selector": "app == 'closed'",
            "types": ["Ingress"],
            "ingress": [{"action": "Allow", "source": {"selector": "role == 'friend'"}}],
        },
    }
    rule = {"ports": [{"port": PORT, "protocol": "TCP"}, {"port": PORT, "protocol": "UDP"}]}
    flapping = ((GLOBAL, friends), (NATIVE, policy("knocks", [rule], app="open")))
    for number in range(FLAPS):
        # One that concerns the closed pod too, and allows others; one that concerns the open pod alone.
        before = table(site.node)
        with existing(site.api, *flapping[number % 2]):
            table_changes(site.node, before)
            within = table(site.node)
            site.hammered()
        table_changes(site.node, within)
        site.hammered()
