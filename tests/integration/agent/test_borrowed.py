"""A pool of a single block for two nodes: one of them borrows every address, and pods reach each other."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.components.apiserver import ApiServer
from tests.integration.agent.cluster import CalicoNode, Pod, calico_nodes
from tests.integration.agent.test_two_nodes import blocks, ping, routes_to
from tests.integration.bgp.nodes import eventually, machines

pytestmark = pytest.mark.root

ADDRESSES = {"tf-one": "10.30.200.1", "tf-two": "10.30.200.2"}
BLOCK = "10.5.0.0/26"
MODES: dict[str, dict[str, str]] = {
    "vxlan": {"CALICO_IPV4POOL_VXLAN": "Always"},
    "vxlan-cross-subnet": {"CALICO_IPV4POOL_VXLAN": "CrossSubnet"},
    "none": {},
}


@pytest.fixture(params=MODES)
def nodes(
    request: pytest.FixtureRequest, apiserver: ApiServer, tmp_path: Path
) -> Iterator[dict[str, CalicoNode]]:
    """Two ready nodes, whose pool has one block."""
    apiserver.reset()
    settings = {"CALICO_IPV4POOL_CIDR": BLOCK, **MODES[request.param]}
    with machines(ADDRESSES) as made, calico_nodes(apiserver, made, tmp_path, settings) as cluster:
        for node in cluster.values():
            node.start()
        for node in cluster.values():
            node.wait_until_ready()
        yield cluster


def reachable(pod: Pod, other: Pod) -> bool:
    return ping(pod, other.address) and ping(other, pod.address)


def host_reaches(node: CalicoNode, pod: Pod) -> bool:
    return node.machine.net.run("ping", "-c", "1", "-W", "2", pod.address, check=False).returncode == 0


def way(node: CalicoNode, address: str) -> list[tuple[Any, ...]]:
    return [(route["dev"], route["protocol"]) for route in routes_to(node, address)]


def test_pods_of_the_borrower_are_reached_and_their_routes_go_with_them(
    nodes: dict[str, CalicoNode], apiserver: ApiServer, request: pytest.FixtureRequest
) -> None:
    one, two = nodes["tf-one"], nodes["tf-two"]
    with one.pod("first") as first, two.pod("second") as second:
        owners = {name for name in nodes if blocks(apiserver, name) == [BLOCK]}
        assert len(owners) == 1  # so that one pod's address is borrowed
        owner, borrower, pod = (one, two, second) if owners == {"tf-one"} else (two, one, first)
        eventually("answers both ways", lambda: reachable(first, second))
        (hole,) = routes_to(owner, BLOCK)
        assert hole["type"] == "blackhole"
        expected = {
            "vxlan": ("vxlan.calico", "80"),
            "vxlan-cross-subnet": ("eth0", "80"),
            "none": ("eth0", "bird"),
        }
        mode = request.node.callspec.params["nodes"]
        assert way(owner, f"{pod.address}/32") == [expected[mode]]
        (local,) = routes_to(borrower, f"{pod.address}/32")
        assert local["dev"].startswith("cali")
        gone = f"{pod.address}/32"
    eventually("no route to the pod that is gone", lambda: not routes_to(owner, gone))


def test_hosts_reach_pods_of_the_other_node_from_a_borrowed_tunnel_address(
    nodes: dict[str, CalicoNode],
) -> None:
    one, two = nodes["tf-one"], nodes["tf-two"]
    with one.pod("first") as first, two.pod("second") as second:
        for node, pod in ((one, second), (two, first)):
            eventually(f"an answer to {node.machine.name}", partial(host_reaches, node, pod))
