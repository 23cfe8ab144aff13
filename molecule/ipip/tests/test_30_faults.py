"""Faults on machines with kernels of their own, under a ping between pods. What was lost is noted.

The reboot stands last: the pods of that node have other addresses after it.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from cluster_fixtures import get_json, pod_addresses, read_cluster
from machines import Capture, Ping, ask, boot_id, cable, exchange, namespace_of, ssh, until
from playbook import identity
from testinfra.host import Host

WORKER = "worker-01"
# Seconds that the cable is out.
CABLE_OUT = 60.0
# Seconds after the cable's return by which every session has heard its peer or is over: BGP's hold time (90)
# counts from the last message before the cut, and TCP, which backs off, may not try again before it ends.
SESSIONS_DECIDED = 90.0 - CABLE_OUT + 5.0
# Bracketed, so that the shell that looks for it does not find itself.
PROCESSES = {"BIRD": "[b]ird -f", "the agent": "[t]ortie.agent.main"}


def sessions(node: str) -> set[str]:
    """States of the node's BGP sessions. BIRD hangs up when its client does: hence the sleep."""
    socket = "UNIX-CONNECT:/var/run/calico/bird.ctl"
    answer = ssh(node, f"(echo 'show protocols all'; sleep 1) | socat - {socket}").stdout
    return {line.split()[-1] for line in answer.splitlines() if "BGP state:" in line}


def losses(ping: Ping) -> str:
    """What the report says of a ping."""
    return f"{ping.lost} of {ping.last} packets lost"


def recovered(node: str) -> bool:
    """Whether BIRD has its sessions and is done with its graceful restart."""
    status = ssh(node, "(echo 'show status'; sleep 1) | socat - UNIX-CONNECT:/var/run/calico/bird.ctl").stdout
    return (
        sessions(node) == {"Established"}
        and "Daemon is up and running" in status
        and "recovery" not in status
    )


def restarted(node: str, name: str, before: str) -> bool:
    """Whether another process than `before` runs, and BGP is as it was."""
    return ssh(node, f"pgrep -f '{PROCESSES[name]}'").stdout.strip() not in ("", before) and recovered(node)


def ready(control_plane: Host) -> bool:
    """Whether every node and every calico-node is Ready."""
    nodes = get_json(control_plane, "nodes")["items"]
    agents = get_json(control_plane, "pods -n kube-system -l k8s-app=calico-node")["items"]
    conditions = [
        condition["status"]
        for item in [*nodes, *agents]
        for condition in item["status"].get("conditions", [])
        if condition["type"] == "Ready"
    ]
    return len(agents) == len(nodes) and len(conditions) == 2 * len(nodes) and set(conditions) == {"True"}


@pytest.mark.parametrize("name", PROCESSES)
def test_killed_process_comes_back_and_no_packet_is_lost(
    name: str, control_plane: Host, pods: dict[str, str], note: Callable[[str], None]
) -> None:
    (first, here), (_second, there) = pods.items()
    routes = {node: ask(node, "ip route show proto bird") for node in pods}
    for node in pods:
        before = ask(node, f"pgrep -f '{PROCESSES[name]}'")
        with Ping(first, namespace_of(first, here), there) as ping:
            ping.goes_on()
            ask(node, f"kill -9 {before}")
            took = until(partial(restarted, node, name, before), f"{name} on {node}")
            ping.goes_on(packets=100)
        note(f"kill -9 of {name} on {node}: {losses(ping)}, recovered after {took:.0f} s")
        assert ping.lost == 0
        assert {n: ask(n, "ip route show proto bird") for n in pods} == routes
    until(lambda: ready(control_plane), "all Ready")
    assert exchange(pods)


def test_cable_out_for_a_minute_heals_by_itself(
    control_plane: Host, pods: dict[str, str], note: Callable[[str], None]
) -> None:
    (first, here), (_second, there) = pods.items()
    before = identity(control_plane, list(pods))
    with Ping(first, namespace_of(first, here), there) as ping:
        ping.goes_on()
        cable(WORKER, "off")
        try:
            out = ping.last
            time.sleep(CABLE_OUT)
        finally:
            cable(WORKER, "on")
        took = ping.goes_on()
        time.sleep(SESSIONS_DECIDED)
        until(lambda: all(recovered(node) for node in pods), "sessions Established")
        ping.goes_on()
    note(f"cable out for {CABLE_OUT:.0f} s: {losses(ping)}, answers {took:.0f} s after it was back")
    assert ping.lost > 0
    assert out < ping.last
    until(lambda: ready(control_plane), "all Ready")
    assert identity(control_plane, list(pods)) == before
    assert exchange(pods)


def test_tunnel_that_somebody_took_down_is_repaired_at_once(
    pods: dict[str, str], note: Callable[[str], None]
) -> None:
    (first, here), (_second, there) = pods.items()
    shown = {node: ask(node, "ip -o address show dev tunl0; ip route show dev tunl0") for node in pods}
    with Ping(first, namespace_of(first, here), there) as ping:
        ping.goes_on()
        ask(WORKER, "ip link set tunl0 down && ip address flush dev tunl0 && ip link set tunl0 mtu 1300")
        took = ping.goes_on(packets=20)
    note(f"tunl0 taken down, without its address: {losses(ping)}, answers {took:.0f} s later")

    def repaired() -> bool:
        return shown == {
            node: ask(node, "ip -o address show dev tunl0; ip route show dev tunl0") for node in pods
        }

    until(repaired, "tunl0 and its routes as they were")
    assert exchange(pods)


def test_rebooted_worker_comes_back_by_itself(
    control_plane: Host, pods: dict[str, str], note: Callable[[str], None]
) -> None:
    cluster = read_cluster(control_plane)
    first = next(name for name in pods if name != WORKER)
    before = boot_id(WORKER)
    # To the worker's tunnel address, which it keeps: a pod gets another address with the new boot.
    tunnel = cluster.nodes[WORKER].ipip_address
    with Ping(first, namespace_of(first, pods[first]), tunnel) as ping:
        ping.goes_on()
        ssh(WORKER, "systemctl reboot")
        until(lambda: boot_id(WORKER) not in ("", before), "the worker's next boot")
        ping.goes_on()
    seconds = ping.lost * Ping.INTERVAL
    note(f"reboot of {WORKER}: {losses(ping)}, about {seconds:.0f} s without an answer")
    until(lambda: all(recovered(node) for node in cluster.nodes), "sessions Established")
    until(lambda: ready(control_plane), "all Ready")

    def talk() -> bool:
        now: dict[str, Any] = pod_addresses(control_plane, "probe")
        return None not in now.values() and now.keys() == pods.keys() and exchange(now)

    until(talk, "the pods")
    after = read_cluster(control_plane)
    assert after == cluster, "blocks and tunnel addresses stay"
    now = pod_addresses(control_plane, "probe")
    with Capture(first, list(now.values())) as uplink:
        assert exchange(now)
    assert {path[0][2] for path in uplink.paths()} == {4}
