"""The cluster converges to other encapsulations and MTUs and back, under pods that keep running.

The tests stand in the order in which they run; each leaves the settings of its name behind.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cluster_fixtures import KUBECTL, NAMESPACE, Cluster, read_cluster, start_pods
from machines import LINK, Capture, Ping, ask, exchange, namespace_of, probe, until
from playbook import converge, identity
from testinfra.host import Host

APPLY = "tortie.cluster.tortie : Apply kinds, rights and the DaemonSet"
POOL_FIRST = "tortie.cluster.tortie : Keep the default pool as configured, before the agents change"
POOL_LAST = "tortie.cluster.tortie : Keep the default pool as configured, after the agents have changed"
MTU, SMALLER_MTU = 1440, 1400
IPPROTO_IPIP, IPPROTO_UDP = 4, 17


@pytest.fixture(autouse=True)
def _same_cluster(
    control_plane: Host, pods: dict[str, str], note: Callable[[str], None], request: Any
) -> Iterator[None]:
    """Cluster, machines and pods are the same before and after, and the pods talk; lost packets are noted."""
    (first, here), (_second, there) = pods.items()
    before = identity(control_plane, list(pods))
    with Ping(first, namespace_of(first, here), there) as ping:
        ping.goes_on()
        yield
        ping.goes_on()
    note(f"{request.node.name}: {ping.lost} of {ping.last} packets lost")
    assert identity(control_plane, list(pods)) == before
    assert exchange(pods)


def changed_by(control_plane: Host, *tasks: str, **settings: str | int) -> None:
    """Converge; only these tasks change something, on the one node that applies objects."""
    assert converge("tortie", **settings) == {(task, control_plane.backend.hostname) for task in tasks}


def routes(cluster: Cluster, form: str) -> dict[str, list[str]]:
    """The routes to peers' blocks that each node shall have, as `ip route` prints them."""
    return {
        name: sorted(
            form.format(block=block, peer=peer.address, vtep=peer.vxlan_address)
            for peer in cluster.peers(name)
            for block in peer.blocks
        )
        for name in cluster.nodes
    }


def held(cluster: Cluster) -> dict[str, list[str]]:
    """The routes to peers' blocks that each node has."""
    return {
        name: sorted(
            " ".join(line.split())
            for peer in cluster.peers(name)
            for block in peer.blocks
            for line in ask(name, f"ip route show {block}").splitlines()
        )
        for name in cluster.nodes
    }


def await_routes(control_plane: Host, form: str) -> Cluster:
    """Wait until every node has exactly those routes. `form` knows block, peer (address) and vtep."""

    def right() -> bool:
        cluster = read_cluster(control_plane)
        return held(cluster) == routes(cluster, form)

    try:
        until(right, f"routes of the form {form}")
    except AssertionError as error:
        cluster = read_cluster(control_plane)
        raise AssertionError(f"{error}; wanted {routes(cluster, form)}, held {held(cluster)}") from error
    return read_cluster(control_plane)


def protocols_on_the_wire(cluster: Cluster, pods: dict[str, str]) -> set[tuple[tuple[str, str], ...] | int]:
    """Captures an exchange: outer protocols seen, 0 for packets that went as they are."""
    addresses = list(pods.values())
    (first, _here), _second = pods.items()
    with Capture(first, addresses) as capture:
        assert exchange(pods)
    paths = capture.paths()
    outer = {str(node.address) for node in cluster.nodes.values()}
    for path in paths:
        assert {path[-1][0], path[-1][1]} == set(addresses)
        assert len(path) == 1 or {path[0][0], path[0][1]} == outer
    # Both directions of everything.
    assert {tuple((b, a, p) for a, b, p in path) for path in paths} == paths
    return {path[0][2] for path in paths}


def state_of(node: str, device: str) -> Any:
    """`ip -j address show` of a device; nothing when it is not there."""
    return json.loads(ask(node, f"ip -j address show dev {device} 2> /dev/null || echo '[]'"))


def mtus(control_plane: Host, pods: dict[str, str]) -> set[int]:
    """MTUs of the pods' eth0, as the pods see them."""
    return {probe(node, address, "/interface?name=eth0")["mtu"] for node, address in pods.items()}


def remove_pods(control_plane: Host, prefix: str, pods: dict[str, str]) -> None:
    """Remove the pods that one test has made."""
    names = " ".join(f"{prefix}-{node}" for node in pods)
    control_plane.check_output(f"{KUBECTL} delete pod -n {NAMESPACE} {names} --wait=false")


def test_cross_subnet_leaves_the_tunnel_out_between_nodes_of_one_subnet(
    control_plane: Host, pods: dict[str, str]
) -> None:
    changed_by(control_plane, APPLY, POOL_LAST, tortie_encapsulation_mode="cross-subnet")
    cluster = await_routes(control_plane, f"{{block}} via {{peer}} dev {LINK} proto bird")
    assert protocols_on_the_wire(cluster, pods) == {0}
    for node in cluster.nodes.values():
        # A peer in another subnet may come any time.
        assert "UP" in state_of(node.name, "tunl0")[0]["flags"]


def test_vxlan_replaces_the_tunnel(control_plane: Host, pods: dict[str, str]) -> None:
    changed_by(control_plane, POOL_FIRST, APPLY, tortie_encapsulation="vxlan")
    cluster = await_routes(control_plane, "{block} via {vtep} dev vxlan.calico proto 80 onlink")
    assert protocols_on_the_wire(cluster, pods) == {IPPROTO_UDP}
    for node in cluster.nodes.values():
        assert state_of(node.name, "vxlan.calico")[0]["mtu"] == MTU
        tunnel = state_of(node.name, "tunl0")[0]
        assert "UP" not in tunnel["flags"]
        assert tunnel["addr_info"] == []
        assert node.ipip_address == ""


def test_smaller_mtu_counts_for_the_tunnel_and_for_new_pods(
    control_plane: Host, pods: dict[str, str]
) -> None:
    changed_by(control_plane, APPLY, POOL_LAST, tortie_mtu=SMALLER_MTU)
    cluster = await_routes(control_plane, "{block} via {peer} dev tunl0 proto bird onlink")
    for node in cluster.nodes.values():
        assert state_of(node.name, "vxlan.calico") == []
        assert state_of(node.name, "tunl0")[0]["mtu"] == SMALLER_MTU
        assert ask(node.name, "cat /var/lib/calico/mtu") == str(SMALLER_MTU)
    younger = start_pods(control_plane, "younger")
    try:
        assert mtus(control_plane, younger) == {SMALLER_MTU}
        assert mtus(control_plane, pods) == {MTU}
        assert exchange(younger)
        (first, here), (_second, there) = pods.items()
        assert (
            probe(first, here, f"/icmp?host={there}&size={SMALLER_MTU}&df=1&seconds=5")["outcome"] == "reply"
        )
        # The pod's own link would carry it: the answer is the node's ICMP "fragmentation needed" (RFC 1191).
        refused = probe(first, here, f"/icmp?host={there}&size={SMALLER_MTU + 1}&df=1&seconds=5")
        assert (refused["outcome"], refused["path_mtu"]) == ("emsgsize", SMALLER_MTU)
    finally:
        remove_pods(control_plane, "younger", younger)


def test_the_inventorys_settings_come_back(control_plane: Host, pods: dict[str, str]) -> None:
    changed_by(control_plane, APPLY)
    cluster = await_routes(control_plane, "{block} via {peer} dev tunl0 proto bird onlink")
    assert protocols_on_the_wire(cluster, pods) == {IPPROTO_IPIP}
    for node in cluster.nodes.values():
        assert state_of(node.name, "tunl0")[0]["mtu"] == MTU
    (first, here), (_second, there) = pods.items()
    # The pod remembers for ten minutes what ICMP told it about the path (net.ipv4.route.mtu_expires).
    ask(first, f"ip -n {namespace_of(first, here)} route flush cache")
    answer = probe(first, here, f"/pmtu?host={there}&high={MTU + 1}&seconds=5")
    assert (answer["largest"], answer["above"]) == (MTU, "emsgsize")
    newest = start_pods(control_plane, "newest")
    try:
        assert mtus(control_plane, newest) == {MTU}
        assert exchange(newest)
    finally:
        remove_pods(control_plane, "newest", newest)
    assert converge() == set()
