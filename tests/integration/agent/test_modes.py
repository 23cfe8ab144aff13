"""Two nodes with each encapsulation: which route leads to the other's block, and do pods reach each other?"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.components.apiserver import ApiServer
from tests.integration.agent.cluster import CalicoNode, Pod, calico_nodes
from tests.integration.agent.test_two_nodes import blocks, ping, routes_to
from tests.integration.bgp.nodes import eventually, machines, namespace

pytestmark = pytest.mark.root

NEIGHBOURS = {"tf-one": "10.30.200.1", "tf-two": "10.30.200.2"}
APART = {"tf-one": "10.30.200.1", "tf-two": "10.30.201.2"}
POOL = {"CALICO_IPV4POOL_CIDR": "10.5.0.0/16"}


@contextlib.contextmanager
def two_nodes(
    apiserver: ApiServer, directory: Path, addresses: Mapping[str, str], settings: Mapping[str, str]
) -> Iterator[tuple[CalicoNode, CalicoNode]]:
    """Two nodes, started but not waited for."""
    apiserver.reset()
    with machines(addresses) as made, calico_nodes(apiserver, made, directory, {**POOL, **settings}) as nodes:
        for node in nodes.values():
            node.start()
        yield nodes["tf-one"], nodes["tf-two"]


@contextlib.contextmanager
def two_pods(
    apiserver: ApiServer, directory: Path, addresses: Mapping[str, str], settings: Mapping[str, str]
) -> Iterator[tuple[CalicoNode, Pod, Pod]]:
    """A pod on each of two ready nodes, and the first node."""
    with two_nodes(apiserver, directory, addresses, settings) as (one, two):
        for node in (one, two):
            node.wait_until_ready()
        with one.pod("near") as near, two.pod("far") as far:
            yield one, near, far


def route_to_peer(apiserver: ApiServer, node: CalicoNode) -> dict[str, Any]:
    """The only route of `node` to the block of tf-two, once it is there."""
    (block,) = blocks(apiserver, "tf-two")
    (route,) = eventually(f"a route to {block}", lambda: routes_to(node, block))
    return route


def assert_largest_packet(near: Pod, far: Pod, mtu: int) -> None:
    """Packets of `mtu` bytes pass both ways (after BGP had its time), and one byte more does not."""
    eventually("an answer", lambda: ping(near, far.address, mtu - 28))
    assert ping(far, near.address, mtu - 28)
    assert not ping(near, far.address, mtu - 27)


def has_ipip() -> bool:
    """Whether this machine's kernel can make an IP-in-IP device."""
    with namespace() as net:
        return (
            net.run(
                "ip", "link", "add", "probe0", "type", "ipip", "remote", "192.0.2.1", check=False
            ).returncode
            == 0
        )


@pytest.mark.parametrize(
    ("addresses", "gateway"), [(NEIGHBOURS, "10.30.200.2"), (APART, "10.30.200.254")], ids=["near", "apart"]
)
def test_without_encapsulation_bird_routes_blocks_over_the_link(
    apiserver: ApiServer, tmp_path: Path, addresses: dict[str, str], gateway: str
) -> None:
    with two_pods(apiserver, tmp_path, addresses, {}) as (one, near, far):
        route = route_to_peer(apiserver, one)
        assert (route["gateway"], route["dev"], route["protocol"]) == (gateway, "eth0", "bird")
        assert "vxlan.calico" not in one.machine.net.ip("link")
        if addresses is NEIGHBOURS:  # the router between the others does not know the pods' addresses
            assert_largest_packet(near, far, 1500)


@pytest.mark.parametrize(
    ("addresses", "device"), [(NEIGHBOURS, "eth0"), (APART, "vxlan.calico")], ids=["near", "apart"]
)
def test_vxlan_cross_subnet_encapsulates_only_between_subnets(
    apiserver: ApiServer, tmp_path: Path, addresses: dict[str, str], device: str
) -> None:
    settings = {"CALICO_IPV4POOL_VXLAN": "CrossSubnet", "CNI_MTU": "1400"}
    with two_pods(apiserver, tmp_path, addresses, settings) as (one, near, far):
        route = route_to_peer(apiserver, one)
        assert (route["dev"], route["protocol"]) == (device, "80")
        assert_largest_packet(near, far, 1400)
        assert "mtu 1400" in one.machine.net.ip("link", "show", "vxlan.calico")


def test_vxlan_works_without_bgp(apiserver: ApiServer, tmp_path: Path) -> None:
    settings = {"CALICO_IPV4POOL_VXLAN": "Always", "CALICO_NETWORKING_BACKEND": "vxlan"}
    with two_pods(apiserver, tmp_path, APART, settings) as (one, near, far):
        assert_largest_packet(near, far, 1450)
        assert not (one.directory / "run/bird.ctl").exists()


def test_tunnel_that_somebody_took_down_or_deleted_is_back_at_once(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    settings = {
        "CALICO_IPV4POOL_VXLAN": "Always",
        "CALICO_NETWORKING_BACKEND": "vxlan",
        "FELIX_ROUTEREFRESHINTERVAL": "3600",
    }
    with two_pods(apiserver, tmp_path, APART, settings) as (one, near, far):
        eventually("an answer", lambda: ping(near, far.address, 1422))
        for command in ("link set vxlan.calico down", "link del vxlan.calico"):
            one.machine.net.ip(*command.split())
            eventually("an answer", lambda: ping(near, far.address, 1422))


def test_ipip_routes_through_tunl0_or_says_that_the_kernel_lacks_it(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    settings = {"CALICO_IPV4POOL_IPIP": "Always"}
    if has_ipip():
        with two_pods(apiserver, tmp_path, APART, settings) as (one, near, far):
            route = route_to_peer(apiserver, one)
            assert (route["gateway"], route["dev"], route["protocol"]) == ("10.30.201.2", "tunl0", "bird")
            assert_largest_packet(near, far, 1480)
    else:
        with two_nodes(apiserver, tmp_path, NEIGHBOURS, settings) as (one, _two):
            eventually("the sentence", lambda: "kernel has no IP-in-IP" in one.health()[1])
            assert one.health()[0] == 503
            assert one.health("/liveness")[0] == 200
