"""Settings and clusters that cannot work: the probe and the log say why, in a sentence with a remedy."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.apiserver import ApiServer
from tests.integration.agent.cluster import CalicoNode, calico_nodes
from tests.integration.bgp.nodes import eventually, machines

pytestmark = pytest.mark.root


@pytest.fixture
def node(apiserver: ApiServer, tmp_path: Path) -> Iterator[CalicoNode]:
    """One node, not started."""
    apiserver.reset()
    with (
        machines({"tf-one": "10.30.200.1"}) as made,
        calico_nodes(apiserver, made, tmp_path, {"CALICO_NETWORKING_BACKEND": "none"}) as nodes,
    ):
        yield nodes["tf-one"]


@pytest.mark.parametrize(
    ("settings", "sentences"),
    [
        (
            {"IP_AUTODETECTION_METHOD": "interface=ens9"},
            [
                "IP_AUTODETECTION_METHOD interface=ens9",
                "eth0 (its name does not match ens9)",
                "Choose another",
            ],
        ),
        (
            {"IP_AUTODETECTION_METHOD": "cidr=192.0.2.0/24"},
            ["eth0 10.30.200.1/24 (not within 192.0.2.0/24)"],
        ),
        ({"IP": "10.30.200.77"}, ["IP is 10.30.200.77", "eth0 10.30.200.1/24", "Set IP to one of them"]),
        (
            {"CNI_MTU": "1451", "CALICO_IPV4POOL_VXLAN": "Always"},
            ["CNI_MTU is 1451", "VXLAN needs 50", "at most 1450"],
        ),
        (
            {"CALICO_IPV4POOL_CIDR": "10.30.0.0/16"},
            ["pool 10.30.0.0/16", "10.30.200.1 (eth0)", "another CALICO_IPV4POOL_CIDR"],
        ),
        (
            {"CALICO_IPV4POOL_CIDR": "10.96.0.0/16", "KUBERNETES_SERVICE_HOST": "10.96.0.1"},
            ["pool 10.96.0.0/16", "10.96.0.1", "service range"],
        ),
        ({"NODENAME": "tf-nobody"}, ["NODENAME is tf-nobody", "no Node of that name", "spec.nodeName"]),
    ],
    ids=["interface", "cidr", "ip", "mtu", "pool-node", "pool-service", "nodename"],
)
def test_readiness_says_what_is_wrong(
    node: CalicoNode, settings: dict[str, str], sentences: list[str]
) -> None:
    node.settings |= settings
    node.start("tortie.agent.main")
    eventually(f"{sentences}", lambda: all(sentence in node.health()[1] for sentence in sentences))
    assert node.health()[0] == 503
    assert node.health("/liveness")[0] == 200
    assert not node.machine.net.routes("proto", "80")


def test_pool_that_cannot_work_is_not_created(node: CalicoNode, apiserver: ApiServer) -> None:
    node.settings["CALICO_IPV4POOL_CIDR"] = "10.30.0.0/16"
    node.start("tortie.agent.main")
    eventually("the sentence", lambda: "another CALICO_IPV4POOL_CIDR" in node.health()[1])
    assert apiserver.request("GET", "/apis/crd.projectcalico.org/v1/ippools")["items"] == []


def test_unusable_variables_end_the_agent_with_a_sentence_each(node: CalicoNode) -> None:
    node.settings |= {
        "CALICO_IPV4POOL_VXLAN": "sometimes",
        "CALICO_IPV4POOL_BLOCK_SIZE": "33",
        "AS": "0",
        "IP_AUTODETECTION_METHOD": "interface=(",
    }
    node.start("tortie.agent.main")
    assert node.process is not None
    assert node.process.wait(60) == 1
    log = node.log.read_text()
    for variable in ("CALICO_IPV4POOL_VXLAN", "CALICO_IPV4POOL_BLOCK_SIZE", "AS", "IP_AUTODETECTION_METHOD"):
        assert f"{variable} is " in log
    assert "one of off, never, always" in log


def test_address_of_another_node_is_refused(node: CalicoNode, apiserver: ApiServer) -> None:
    twin = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "tf-twin", "annotations": {"projectcalico.org/IPv4Address": "10.30.200.1/24"}},
    }
    apiserver.request("POST", "/api/v1/nodes", twin)
    node.start("tortie.agent.main")
    eventually("the sentence", lambda: "announced by node tf-twin as well" in node.health()[1])
    apiserver.request("DELETE", "/api/v1/nodes/tf-twin")
    node.wait_until_ready()


def test_node_that_registers_late_becomes_ready(node: CalicoNode, apiserver: ApiServer) -> None:
    apiserver.request("DELETE", "/api/v1/nodes/tf-one")
    node.start("tortie.agent.main")
    eventually("the sentence", lambda: "no Node of that name" in node.health()[1])
    apiserver.request(
        "POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "tf-one"}}
    )
    node.wait_until_ready()
