"""Floating addresses with the real agent, API server, BIRD and CNI plugin."""

import contextlib
import os
import random
import signal
from collections.abc import Iterator
from threading import Timer
from typing import Any

import pytest

from tests.components.apiserver import ApiServer
from tests.integration.agent.cluster import CalicoNode, Pod, calico_nodes, merge_patch
from tests.integration.agent.test_policy import NATIVE, PODS, label, policy
from tests.integration.agent.test_two_nodes import pid_of, ping, routes_to
from tests.integration.bgp.nodes import Machine, eventually, machines
from tortie.dataplane.floating_table import TABLE
from tortie.model.constants import ANNOTATION_FLOATING
from tortie.model.names import veth_name

pytestmark = pytest.mark.root

ADDRESSES = {"tf-one": "10.30.200.1", "tf-two": "10.30.200.2", "tf-out": "10.30.200.9"}
FLOATING = "10.99.0.7"  # of a pool that no pod gets its address from
ELSEWHERE = "203.0.113.7"  # of no pool
FELIX = "/apis/crd.projectcalico.org/v1/felixconfigurations"
POOLS = "/apis/crd.projectcalico.org/v1/ippools"


@pytest.fixture(scope="module")
def place(
    apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, CalicoNode], Machine]]:
    """Two ready nodes that BGP joins, and a machine outside of the cluster that knows a route."""
    apiserver.reset()
    settings = {"CALICO_IPV4POOL_CIDR": "10.5.0.0/16"}
    with machines(ADDRESSES) as made:
        outside = made.pop("tf-out")
        outside.net.ip("route", "add", ELSEWHERE, "via", ADDRESSES["tf-one"])
        with calico_nodes(apiserver, made, tmp_path_factory.mktemp("floating"), settings) as nodes:
            for node in nodes.values():
                node.feature_control = {"floating_ips": True}
                node.start()
            for node in nodes.values():
                node.wait_until_ready()
            apiserver.request("POST", POOLS, pool())
            apiserver.request("POST", FELIX, felix())
            yield nodes, outside


def pool() -> dict[str, Any]:
    """Addresses that only float."""
    return {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPPool",
        "metadata": {"name": "floating"},
        "spec": {"cidr": "10.99.0.0/24", "nodeSelector": "!all()", "ipipMode": "Never", "vxlanMode": "Never"},
    }


def felix() -> dict[str, Any]:
    return {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "FelixConfiguration",
        "metadata": {"name": "default"},
        "spec": {"floatingIPs": "Enabled"},
    }


@contextlib.contextmanager
def floating_pod(node: CalicoNode, name: str, *addresses: str) -> Iterator[Pod]:
    wanted = {ANNOTATION_FLOATING: str(list(addresses)).replace("'", '"')}
    with node.pod(name, annotations=wanted) as pod:
        yield pod


def answers(caller: Machine, address: str) -> bool:
    return caller.net.run("ping", "-c", "1", "-W", "2", address, check=False).returncode == 0


def table(node: CalicoNode) -> str:
    return node.machine.net.run("nft", "list", "table", "inet", TABLE, check=False).stdout


def delete_pod(apiserver: ApiServer, name: str) -> None:
    apiserver.request("DELETE", f"{PODS}/{name}?gracePeriodSeconds=0")  # no kubelet confirms it


def test_the_outside_other_pods_and_the_pod_itself_reach_it_and_nothing_is_left_after_del(
    place: tuple[dict[str, CalicoNode], Machine], apiserver: ApiServer
) -> None:
    nodes, outside = place
    one = nodes["tf-one"]
    with floating_pod(one, "web", ELSEWHERE) as web, one.pod("client") as client:
        assert answers(outside, ELSEWHERE)
        assert ping(client, ELSEWHERE)
        assert ping(web, ELSEWHERE)
        assert ping(client, web.address)
        (route,) = routes_to(one, ELSEWHERE)
        assert (route["dev"], route["protocol"]) == (veth_name("default", "web"), "80")
        assert f"{ELSEWHERE} : {web.address}" in table(one)
    assert table(one) == ""
    assert routes_to(one, ELSEWHERE) == []
    assert not answers(outside, ELSEWHERE)
    for name in ("web", "client"):
        delete_pod(apiserver, name)


def test_bgp_tells_the_other_node_where_a_floating_address_of_a_pool_is(
    place: tuple[dict[str, CalicoNode], Machine], apiserver: ApiServer
) -> None:
    nodes, _ = place
    one, two = nodes["tf-one"], nodes["tf-two"]
    with floating_pod(one, "web", FLOATING, ELSEWHERE), two.pod("client") as client:
        eventually("an answer", lambda: ping(client, FLOATING))
        assert [route["protocol"] for route in routes_to(two, FLOATING)] == ["bird"]
        assert routes_to(two, ELSEWHERE) == []  # of no pool: the network's own routers have to know it
        assert answers(two.machine, FLOATING)
    eventually("no route any more", lambda: not routes_to(two, FLOATING))
    for name in ("web", "client"):
        delete_pod(apiserver, name)


def test_agents_route_the_floating_addresses_of_a_pool_with_vxlan(
    place: tuple[dict[str, CalicoNode], Machine], apiserver: ApiServer
) -> None:
    nodes, _ = place
    one, two = nodes["tf-one"], nodes["tf-two"]
    tunnelled = pool() | {"metadata": {"name": "tunnelled"}}
    tunnelled["spec"] = pool()["spec"] | {"cidr": "10.98.0.0/24", "vxlanMode": "Always"}
    apiserver.request("POST", POOLS, tunnelled)
    with floating_pod(one, "web", "10.98.0.7"), two.pod("client") as client:
        eventually("an answer", lambda: ping(client, "10.98.0.7"))
        (route,) = routes_to(two, "10.98.0.7")
        assert (route["dev"], route["protocol"]) == ("vxlan.calico", "80")
        # A pod that moves takes the address along.
        delete_pod(apiserver, "web")
    eventually("no route any more", lambda: not routes_to(two, "10.98.0.7"))
    with floating_pod(two, "web", "10.98.0.7"), one.pod("caller") as caller:
        eventually("an answer from there", lambda: ping(caller, "10.98.0.7"))
        delete_pod(apiserver, "web")
    eventually("no route there any more", lambda: not routes_to(one, "10.98.0.7"))
    for name in ("client", "caller"):
        delete_pod(apiserver, name)
    apiserver.request("DELETE", f"{POOLS}/tunnelled")


@pytest.mark.parametrize("address", [FLOATING, "10.98.0.7"], ids=["bgp", "vxlan"])
def test_an_address_moves_with_its_workload_to_another_node_while_the_old_pod_still_runs(
    place: tuple[dict[str, CalicoNode], Machine], apiserver: ApiServer, address: str
) -> None:
    nodes, _ = place
    one, two = nodes["tf-one"], nodes["tf-two"]
    tunnelled = pool() | {"metadata": {"name": "tunnelled"}}
    tunnelled["spec"] = pool()["spec"] | {"cidr": "10.98.0.0/24", "vxlanMode": "Always"}
    apiserver.request("POST", POOLS, tunnelled)
    with contextlib.ExitStack() as later:
        with floating_pod(one, "old", address), two.pod("caller") as caller:
            eventually("the old pod", lambda: ping(caller, address))
            new = later.enter_context(floating_pod(two, "new", address))
            assert f"{address} : {new.address}" in table(two)
            (route,) = routes_to(two, address)
            assert route["dev"] == veth_name("default", "new")
            assert ping(caller, address)
        delete_pod(apiserver, "old")
        with one.pod("asker") as asker:
            eventually("the new pod from where the old one was", lambda: ping(asker, address))
        two.wait_until_ready()
        one.wait_until_ready()
    for name in ("new", "caller", "asker"):
        delete_pod(apiserver, name)
    apiserver.request("DELETE", f"{POOLS}/tunnelled")


def test_policy_asks_about_the_pods_own_address(
    place: tuple[dict[str, CalicoNode], Machine], apiserver: ApiServer
) -> None:
    nodes, outside = place
    one = nodes["tf-one"]
    with (
        floating_pod(one, "web", ELSEWHERE) as web,
        one.pod("friend") as friend,
        one.pod("stranger") as stranger,
    ):
        label(apiserver, web, app="web")
        label(apiserver, friend, role="friend")
        friends = [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}]
        apiserver.request("POST", NATIVE, policy("friends", friends, app="web"))
        eventually("the policy", lambda: not ping(stranger, ELSEWHERE))
        eventually("the friend", lambda: ping(friend, ELSEWHERE))
        assert not answers(outside, ELSEWHERE)
        assert not ping(web, ELSEWHERE)  # it is no friend of its own
        # What friends may reach is said by labels, that is by pods' own addresses.
        only = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "only-web", "namespace": "default"},
            "spec": {
                "podSelector": {"matchLabels": {"role": "friend"}},
                "policyTypes": ["Egress"],
                "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
            },
        }
        apiserver.request("POST", NATIVE, only)
        eventually("the friend's own policy", lambda: not ping(friend, stranger.address))
        assert ping(friend, ELSEWHERE)
        for name in ("friends", "only-web"):
            apiserver.request("DELETE", f"{NATIVE}/{name}")
        eventually("the policies to go", lambda: answers(outside, ELSEWHERE))
    for name in ("web", "friend", "stranger"):
        delete_pod(apiserver, name)


def test_felix_configuration_and_annotation_count_on_a_running_pod(
    place: tuple[dict[str, CalicoNode], Machine], apiserver: ApiServer
) -> None:
    nodes, outside = place
    one = nodes["tf-one"]
    with one.pod("web") as web:
        asking = {"metadata": {"annotations": {ANNOTATION_FLOATING: f'["{ELSEWHERE}"]'}}}
        merge_patch(apiserver, f"{PODS}/web", asking)
        eventually("an answer", lambda: answers(outside, ELSEWHERE))
        merge_patch(apiserver, f"{FELIX}/default", {"spec": {"floatingIPs": "Disabled"}})
        eventually("nothing of it", lambda: table(one) == "" and not routes_to(one, ELSEWHERE))
        merge_patch(apiserver, f"{FELIX}/default", {"spec": {"floatingIPs": "Enabled"}})
        eventually("an answer again", lambda: answers(outside, ELSEWHERE))
        assert f"{ELSEWHERE} : {web.address}" in table(one)
        merge_patch(apiserver, f"{PODS}/web", {"metadata": {"annotations": {ANNOTATION_FLOATING: None}}})
        eventually("nothing of it again", lambda: table(one) == "" and not routes_to(one, ELSEWHERE))
    delete_pod(apiserver, "web")


def kill_agent(node: CalicoNode) -> int:
    """As the kernel kills for lack of memory; the supervisor starts another one."""
    agent = pid_of(node, "agent")
    os.kill(agent, signal.SIGKILL)
    return agent


def test_a_killed_agents_addresses_stay_in_force_and_the_next_agent_takes_them_over(
    place: tuple[dict[str, CalicoNode], Machine], apiserver: ApiServer
) -> None:
    nodes, outside = place
    one = nodes["tf-one"]
    with floating_pod(one, "web", ELSEWHERE) as web:
        # At once: the pod's annotations, which are written beside the answer, may not be.
        before, killed = table(one), kill_agent(one)
        assert answers(outside, ELSEWHERE)
        assert table(one) == before
        eventually("a new agent", lambda: pid_of(one, "agent") != killed)
        one.wait_until_ready()
        assert f"{ELSEWHERE} : {web.address}" in table(one)
        assert answers(outside, ELSEWHERE)
        one.machine.net.run("nft", "delete", "table", "inet", TABLE)
        eventually("repair by the new agent", lambda: table(one) == before)
    delete_pod(apiserver, "web")


def test_agents_killed_at_any_moment_of_add_and_del_leave_nothing_and_lose_nothing(
    place: tuple[dict[str, CalicoNode], Machine], apiserver: ApiServer
) -> None:
    nodes, outside = place
    one, chance = nodes["tf-one"], random.Random(20261122)

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            kill_agent(one)

    for number in range(8):
        one.wait_until_ready()
        killer = Timer(chance.random() / 2, kill)  # an ADD and a DEL through nsenter take about as long
        killer.start()
        # A call that the agent dies of fails, and the runtime repeats it: DEL, that is, until it succeeds.
        with contextlib.suppress(AssertionError), floating_pod(one, f"web-{number}", ELSEWHERE):
            ping(Pod("outside", "", outside.net), ELSEWHERE)
        killer.join()
        delete_pod(apiserver, f"web-{number}")
    one.wait_until_ready()
    eventually("nothing to be left", lambda: table(one) == "" and not routes_to(one, ELSEWHERE))
    with floating_pod(one, "web", ELSEWHERE):
        assert answers(outside, ELSEWHERE)
    delete_pod(apiserver, "web")
