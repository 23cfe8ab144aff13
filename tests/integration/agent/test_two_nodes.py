"""Two nodes, real API server, real BIRDs, real CNI plugin: pods reach each other, and keep doing so."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from tests.components.apiserver import ApiServer
from tests.integration.agent.cluster import CalicoNode, Pod, calico_nodes, merge_patch
from tests.integration.bgp.nodes import eventually, machines, running
from tortie.bgp.control import BGPPeerStatus, BirdControl, BirdError
from tortie.model.names import veth_name

pytestmark = pytest.mark.root

ADDRESSES = {"tf-one": "10.30.200.1", "tf-two": "10.30.200.2"}
SETTINGS = {
    "CALICO_IPV4POOL_CIDR": "10.5.0.0/16",
    "FELIX_ROUTEREFRESHINTERVAL": "2",
    "FELIX_PROMETHEUSMETRICSENABLED": "true",
}


@pytest.fixture(scope="module")
def nodes(apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, CalicoNode]]:
    """Two ready nodes with VXLAN."""
    apiserver.reset()
    settings = SETTINGS | {"CALICO_IPV4POOL_VXLAN": "Always"}
    with (
        machines(ADDRESSES) as made,
        calico_nodes(apiserver, made, tmp_path_factory.mktemp("vxlan"), settings) as cluster,
    ):
        for node in cluster.values():
            node.start()
        for node in cluster.values():
            node.wait_until_ready()
        yield cluster


def blocks(server: ApiServer, name: str) -> list[str]:
    """Confirmed blocks of a node."""
    items = server.request("GET", "/apis/crd.projectcalico.org/v1/blockaffinities")["items"]
    specs = (item["spec"] for item in items)
    return sorted(spec["cidr"] for spec in specs if spec["node"] == name and spec["state"] == "confirmed")


def routes_to(node: CalicoNode, destination: str) -> list[dict[str, Any]]:
    return node.machine.net.routes("exact", destination)


def peers(node: CalicoNode) -> list[BGPPeerStatus]:
    try:
        return BirdControl(node.directory / "run/bird.ctl").peers()
    except BirdError:
        return []


def wait_until_imported(node: CalicoNode, session: str, wanted: list[IPv4Network]) -> None:
    control = BirdControl(node.directory / "run/bird.ctl")
    eventually(f"{wanted} by BGP", lambda: control.imported(session) == wanted)


def ping(pod: Pod, address: str, size: int = 56) -> bool:
    """One echo that must not be fragmented; `size` is its payload in bytes."""
    result = pod.net.run("ping", "-c", "1", "-W", "2", "-M", "do", "-s", str(size), address, check=False)
    return result.returncode == 0


def pid_of(node: CalicoNode, name: str) -> int:
    """Process id from the last line in which the supervisor says that it started it."""
    found = re.findall(rf"Started {name}, pid (\d+)", node.log.read_text())
    return int(found[-1])


def test_each_node_claims_a_block_and_routes_the_others_through_its_vtep(
    nodes: dict[str, CalicoNode], apiserver: ApiServer
) -> None:
    for name, peer in (("tf-one", "tf-two"), ("tf-two", "tf-one")):
        (own,), (other,) = blocks(apiserver, name), blocks(apiserver, peer)
        annotations = nodes[peer].object()["metadata"]["annotations"]
        vtep = annotations["projectcalico.org/IPv4VXLANTunnelAddr"]
        assert IPv4Address(vtep) in IPv4Network(other)
        (route,) = routes_to(nodes[name], other)
        assert (route["gateway"], route["dev"], route["protocol"]) == (vtep, "vxlan.calico", "80")
        assert "onlink" in route["flags"]
        (hole,) = routes_to(nodes[name], own)
        assert (hole["type"], hole["protocol"]) == ("blackhole", "80")
        mac = annotations["projectcalico.org/VXLANTunnelMACAddr"]
        assert mac in nodes[name].machine.net.ip("neighbour", "show", vtep)
        forwarding = nodes[name].machine.net.run("bridge", "fdb", "show", "dev", "vxlan.calico").stdout
        assert f"{mac} dst {ADDRESSES[peer]}" in forwarding


def test_node_announces_its_address_and_leaves_nodename_and_mtu_for_the_cni_plugin(
    nodes: dict[str, CalicoNode],
) -> None:
    for name, node in nodes.items():
        annotations = node.object()["metadata"]["annotations"]
        assert annotations["projectcalico.org/IPv4Address"] == f"{ADDRESSES[name]}/24"
        assert "projectcalico.org/IPv4IPIPTunnelAddr" not in annotations
        assert (node.directory / "lib/nodename").read_text() == name
        assert (node.directory / "lib/mtu").read_text() == "1450"


def test_first_node_makes_the_default_pool_and_cluster_information(
    apiserver: ApiServer, nodes: object
) -> None:
    (pool,) = apiserver.request("GET", "/apis/crd.projectcalico.org/v1/ippools")["items"]
    assert pool["metadata"]["name"] == "default-ipv4-ippool"
    assert (pool["spec"]["cidr"], pool["spec"]["vxlanMode"], pool["spec"]["natOutgoing"]) == (
        "10.5.0.0/16",
        "Always",
        True,
    )
    path = "/apis/crd.projectcalico.org/v1/clusterinformations/default"
    spec = apiserver.request("GET", path)["spec"]
    assert spec["datastoreReady"] is True
    assert re.fullmatch(r"[0-9a-f]{32}", spec["clusterGUID"])


def test_ready_node_has_a_network_condition_and_keeps_the_kubelets(nodes: dict[str, CalicoNode]) -> None:
    def network_available() -> bool:
        conditions = {item["type"]: item for item in nodes["tf-one"].object()["status"]["conditions"]}
        assert conditions["Ready"]["reason"] == "KubeletNotReady"
        return "NetworkUnavailable" in conditions and conditions["NetworkUnavailable"]["status"] == "False"

    eventually("condition NetworkUnavailable", network_available)


def test_bgp_is_established_and_carries_the_block(nodes: dict[str, CalicoNode], apiserver: ApiServer) -> None:
    for name, peer in (("tf-one", "tf-two"), ("tf-two", "tf-one")):
        (session,) = peers(nodes[name])
        assert (str(session.address), session.as_number, session.state) == (
            ADDRESSES[peer],
            64512,
            "Established",
        )
        carried = [IPv4Network(block) for block in blocks(apiserver, peer)]
        wait_until_imported(nodes[name], session.name, carried)
        assert nodes[name].machine.net.routes("proto", "bird") == []  # VXLAN routes are the agent's


def test_pods_of_both_nodes_reach_each_other_with_packets_of_the_full_mtu(
    nodes: dict[str, CalicoNode],
) -> None:
    with nodes["tf-one"].pod("near") as near, nodes["tf-two"].pod("far") as far:
        assert ping(near, far.address)
        assert ping(far, near.address)
        assert ping(near, far.address, 1450 - 28)  # IPv4 header 20, ICMP header 8
        assert not ping(near, far.address, 1450 - 27)
        assert ping(far, ADDRESSES["tf-one"])  # another node's host, by way of masquerade or route
        link = near.net.ip("link", "show", "eth0")
        assert "mtu 1450" in link


def test_metrics_tell_readiness_routes_blocks_and_sessions(nodes: dict[str, CalicoNode]) -> None:
    fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9091/metrics').read().decode())"

    def samples() -> dict[str, float]:
        text = nodes["tf-one"].machine.net.run(sys.executable, "-c", fetch).stdout
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("tortie_"))
        return {name: float(value) for name, value in lines}

    expected = {
        "tortie_ready": 1,
        "tortie_routes": 2,  # the peer's block and the own blackhole
        "tortie_ipam_blocks": 1,
        'tortie_bgp_peers{state="Established"}': 1,
    }
    eventually("the figures", lambda: expected.items() <= samples().items())


def test_route_that_somebody_removed_comes_back(nodes: dict[str, CalicoNode], apiserver: ApiServer) -> None:
    node = nodes["tf-one"]
    (other,) = blocks(apiserver, "tf-two")
    node.machine.net.ip("route", "del", other)
    eventually("the route", lambda: routes_to(node, other))


def test_pods_routes_come_back_after_their_device_was_down(nodes: dict[str, CalicoNode]) -> None:
    node = nodes["tf-one"]
    with node.pod("flapped") as pod:
        device = veth_name("default", pod.name)
        for state in ("down", "up"):
            node.machine.net.ip("link", "set", device, state)
        assert not routes_to(node, f"{pod.address}/32")
        eventually("route to the pod", lambda: bool(routes_to(node, f"{pod.address}/32")))
        assert node.machine.net.run("ping", "-c", "1", "-W", "2", pod.address, check=False).returncode == 0
        assert "PERMANENT" in node.machine.net.ip("neighbour", "show", pod.address, "dev", device)


def test_tunnel_address_that_somebody_released_is_taken_again(
    nodes: dict[str, CalicoNode], apiserver: ApiServer
) -> None:
    address = nodes["tf-one"].object()["metadata"]["annotations"]["projectcalico.org/IPv4VXLANTunnelAddr"]
    handle = "/apis/crd.projectcalico.org/v1/ipamhandles/vxlan-tunnel-addr-tf-one"
    released = apiserver.request("GET", handle)["metadata"]["uid"]
    command = (sys.executable, "-m", "tortie.cli.main", "--kubeconfig", str(apiserver.kubeconfig))
    subprocess.run([*command, "ipam", "release", "--ip", address], check=True, timeout=60)

    def handles() -> list[str]:
        items = apiserver.request("GET", handle.rpartition("/")[0])["items"]
        return [
            item["metadata"]["uid"] for item in items if item["metadata"]["name"] == handle.split("/")[-1]
        ]

    eventually("a new handle", lambda: bool(handles()) and handles() != [released])
    annotations = nodes["tf-one"].object()["metadata"]["annotations"]
    assert annotations["projectcalico.org/IPv4VXLANTunnelAddr"] == address


def test_route_comes_back_although_objects_change_all_the_time(
    nodes: dict[str, CalicoNode], apiserver: ApiServer
) -> None:
    """In a large cluster some node's object changes at any moment; the kernel is checked by the clock."""
    node = nodes["tf-one"]
    (other,) = blocks(apiserver, "tf-two")
    node.machine.net.ip("route", "del", other)
    busy = threading.Event()

    def change() -> None:
        number = 0
        while not busy.wait(0.2):
            number += 1
            note = {"metadata": {"annotations": {"test/heartbeat": str(number)}}}
            merge_patch(apiserver, "/api/v1/nodes/tf-two", note)

    writer = threading.Thread(target=change)
    writer.start()
    try:
        eventually("the route", lambda: routes_to(node, other))
    finally:
        busy.set()
        writer.join()


def test_annotation_that_somebody_changed_is_repaired(
    nodes: dict[str, CalicoNode], apiserver: ApiServer
) -> None:
    key = "projectcalico.org/IPv4IPIPTunnelAddr"  # no pool needs that tunnel, so no peer minds
    merge_patch(apiserver, "/api/v1/nodes/tf-one", {"metadata": {"annotations": {key: "10.5.0.99"}}})
    eventually("the annotation to go", lambda: key not in nodes["tf-one"].object()["metadata"]["annotations"])


def test_routes_of_a_vanished_claim_are_withdrawn(nodes: dict[str, CalicoNode], apiserver: ApiServer) -> None:
    claim = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "BlockAffinity",
        "metadata": {"name": "tf-two-10-5-77-0-26"},
        "spec": {
            "node": "tf-two",
            "cidr": "10.5.77.0/26",
            "state": "confirmed",
            "deleted": "false",
            "type": "host",
        },
    }
    one, two = nodes["tf-one"], nodes["tf-two"]
    apiserver.request("POST", "/apis/crd.projectcalico.org/v1/blockaffinities", claim)
    eventually("the route", lambda: routes_to(one, "10.5.77.0/26"))
    eventually("the blackhole", lambda: routes_to(two, "10.5.77.0/26"))
    session = peers(one)[0]
    control = BirdControl(one.directory / "run/bird.ctl")
    announced = IPv4Network("10.5.77.0/26")
    eventually("the announcement", lambda: announced in control.imported(session.name))
    apiserver.request("DELETE", "/apis/crd.projectcalico.org/v1/blockaffinities/tf-two-10-5-77-0-26")
    eventually("no route", lambda: not routes_to(one, "10.5.77.0/26"))
    eventually("no blackhole", lambda: not routes_to(two, "10.5.77.0/26"))
    eventually("no announcement", lambda: announced not in control.imported(session.name))
    assert peers(one)[0].since == session.since


@contextlib.contextmanager
def no_route_is_lost(node: CalicoNode, tmp_path: Path) -> Iterator[None]:
    """Watch the kernel: nothing may be deleted meanwhile."""
    log = tmp_path / "monitor.log"
    with running(node.machine, ["ip", "monitor", "route", "link"], log):
        yield
    assert "Deleted" not in log.read_text()


def test_killed_agent_comes_back_without_touching_pods_or_bird(
    nodes: dict[str, CalicoNode], tmp_path: Path
) -> None:
    one, two = nodes["tf-one"], nodes["tf-two"]
    with one.pod("steady") as steady, two.pod("target") as target:
        bird, agent = pid_of(one, "bird"), pid_of(one, "agent")
        with no_route_is_lost(one, tmp_path):
            os.kill(agent, signal.SIGKILL)
            eventually("not ready", lambda: one.health()[0] != 200)
            assert ping(steady, target.address)
            eventually("a new agent", lambda: pid_of(one, "agent") != agent)
            one.wait_until_ready()
        assert ping(steady, target.address)
        assert pid_of(one, "bird") == bird
        with one.pod("later") as later:
            assert ping(later, target.address)


def test_killed_bird_comes_back_and_leaves_the_agent_alone(nodes: dict[str, CalicoNode]) -> None:
    one, two = nodes["tf-one"], nodes["tf-two"]
    bird, agent = pid_of(one, "bird"), pid_of(one, "agent")
    os.kill(bird, signal.SIGKILL)
    eventually("a new BIRD", lambda: pid_of(one, "bird") != bird)
    eventually(
        "sessions",
        lambda: all(peer.established for node in (one, two) for peer in peers(node)) and peers(one),
    )
    assert pid_of(one, "agent") == agent
    one.wait_until_ready()


def test_stopped_node_keeps_pods_connected_and_starts_again_with_the_same_addresses(
    nodes: dict[str, CalicoNode], apiserver: ApiServer, tmp_path: Path
) -> None:
    one, two = nodes["tf-one"], nodes["tf-two"]
    before = (blocks(apiserver, "tf-one"), one.object()["metadata"]["annotations"])
    with one.pod("stayer") as stayer, two.pod("friend") as friend, no_route_is_lost(one, tmp_path):
        assert one.process is not None
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(30) == 0
        assert ping(stayer, friend.address)
        one.start()
        one.wait_until_ready()
        assert ping(friend, stayer.address)
    assert (blocks(apiserver, "tf-one"), one.object()["metadata"]["annotations"]) == before
