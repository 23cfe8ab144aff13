"""Policy on a node with the real agent, API server and CNI plugin: what is denied never gets through."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.components.apiserver import ApiServer
from tests.integration.agent.cluster import CalicoNode, Pod, calico_nodes, merge_patch
from tests.integration.agent.test_two_nodes import pid_of, ping
from tests.integration.bgp.nodes import eventually, machines
from tortie.dataplane.ruleset import TABLE

pytestmark = pytest.mark.root

NATIVE = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
GLOBAL = "/apis/crd.projectcalico.org/v1/globalnetworkpolicies"
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(scope="module")
def node(apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CalicoNode]:
    """One ready node."""
    apiserver.reset()
    settings = {"CALICO_IPV4POOL_CIDR": "10.5.0.0/16", "CALICO_NETWORKING_BACKEND": "none"}
    with (
        machines({"tf-one": "10.30.200.1"}) as made,
        calico_nodes(apiserver, made, tmp_path_factory.mktemp("policy"), settings) as nodes,
    ):
        nodes["tf-one"].start()
        nodes["tf-one"].wait_until_ready()
        yield nodes["tf-one"]


def policy(name: str, ingress: list[dict[str, Any]], **labels: str) -> dict[str, Any]:
    """A Kubernetes NetworkPolicy for pods with these labels."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": ingress},
    }


def label(apiserver: ApiServer, pod: Pod, **labels: str | None) -> None:
    merge_patch(apiserver, f"{PODS}/{pod.name}", {"metadata": {"labels": labels}})


def table(node: CalicoNode) -> str:
    return node.machine.net.run("nft", "list", "table", "inet", TABLE, check=False).stdout


def test_change_of_policy_closes_and_opens_connections_between_pods(
    node: CalicoNode, apiserver: ApiServer
) -> None:
    with node.pod("client") as client, node.pod("server") as server:
        assert ping(client, server.address)
        label(apiserver, server, app="db")
        apiserver.request("POST", NATIVE, policy("closed", [], app="db"))
        eventually("the policy", lambda: not ping(client, server.address))
        assert ping(server, client.address)
        label(apiserver, client, role="reader")
        apiserver.request(
            "POST",
            NATIVE,
            policy("readers", [{"from": [{"podSelector": {"matchLabels": {"role": "reader"}}}]}], app="db"),
        )
        eventually("the exception", lambda: ping(client, server.address))
        label(apiserver, client, role=None)
        eventually("the label to count", lambda: not ping(client, server.address))
        for name in ("closed", "readers"):
            apiserver.request("DELETE", f"{NATIVE}/{name}")
        eventually("the policies to go", lambda: ping(client, server.address))


def test_pod_is_closed_from_its_first_moment_and_stays_so_without_agent(
    node: CalicoNode, apiserver: ApiServer
) -> None:
    apiserver.request("POST", NATIVE, policy("everything", []))
    try:
        with node.pod("guest") as guest, node.pod("host") as host:
            assert not ping(guest, host.address)  # at once: in force before the ADD was answered
            agent = pid_of(node, "agent")
            os.kill(agent, signal.SIGKILL)
            eventually("not ready", lambda: node.health()[0] != 200)
            assert not ping(guest, host.address)
            eventually("a new agent", lambda: pid_of(node, "agent") != agent)
            node.wait_until_ready()
            assert not ping(guest, host.address)
            apiserver.request("DELETE", f"{NATIVE}/everything")
            eventually("the policy to go", lambda: ping(guest, host.address))
    finally:
        if any(
            item["metadata"]["name"] == "everything" for item in apiserver.request("GET", NATIVE)["items"]
        ):
            apiserver.request("DELETE", f"{NATIVE}/everything")


def test_pod_that_comes_while_the_policy_stands_is_open_as_far_as_it_says(
    node: CalicoNode, apiserver: ApiServer
) -> None:
    with node.pod("asker") as asker, node.pod("stranger") as stranger, node.pod("target") as target:
        label(apiserver, asker, role="asker")
        spec = {
            "selector": "!has(role)",
            "types": ["Ingress"],
            "ingress": [{"action": "Allow", "source": {"selector": "role == 'asker'"}}],
        }
        body = {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "GlobalNetworkPolicy",
            "metadata": {"name": "askers-only"},
            "spec": spec,
        }
        apiserver.request("POST", GLOBAL, body)
        try:
            eventually("the policy", lambda: not ping(stranger, target.address))
            eventually("the label to count", lambda: ping(asker, target.address))
            with node.pod("latecomer") as latecomer:
                assert ping(asker, latecomer.address)  # at once
                assert not ping(stranger, latecomer.address)
        finally:
            apiserver.request("DELETE", f"{GLOBAL}/askers-only")


@pytest.mark.parametrize("how", ["delete table", "flush table"])
def test_table_that_somebody_removes_or_empties_comes_back(node: CalicoNode, how: str) -> None:
    rule = 'oifname "cali*" jump workload_ingress'
    assert rule in table(node)
    node.machine.net.run("nft", *how.split(), "inet", TABLE)
    eventually("the rules", lambda: rule in table(node))


def test_host_endpoint_is_found_by_the_address_of_its_interface(
    node: CalicoNode, apiserver: ApiServer
) -> None:
    path = "/apis/crd.projectcalico.org/v1/hostendpoints"
    body = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "HostEndpoint",
        "metadata": {"name": "tf-one-eth0"},
        "spec": {
            "node": "tf-one",
            "expectedIPs": [node.machine.address],
            "profiles": ["projectcalico-default-allow"],
        },
    }
    assert '"eth0"' not in table(node)
    apiserver.request("POST", path, body)
    eventually("rules for eth0", lambda: '"eth0"' in table(node))
    apiserver.request("DELETE", f"{path}/tf-one-eth0")
    eventually("no rules for eth0", lambda: '"eth0"' not in table(node))
