"""From what is observed to the commands that are missing."""

import dataclasses

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import lab_plan
from ansible_collections.tortie.cluster.plugins.module_utils.lab_network import (
    Link,
    Namespace,
    missing_commands,
)
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import Lab

from tests.unit.lab.test_lab_plan import parameters

SWITCH, MASTER, WORKER = "tortie-sw", "tortie-master-01", "tortie-worker-01"
MASTER_PORT, WORKER_PORT = "p0a1ec801", "p0a1ec802"


@pytest.fixture
def lab() -> Lab:
    return lab_plan.lab_from_params(parameters())


def complete() -> dict[str, Namespace | None]:
    """What a finished two-node lab looks like."""
    bridge = Link("br0", True, 1500, "", ("10.30.200.254/24",))
    ports = [Link(name, True, 1500, "br0", ()) for name in (MASTER_PORT, WORKER_PORT)]

    def node(address: str) -> Namespace:
        return Namespace({"eth0": Link("eth0", True, 1500, "", (address,))}, ("10.30.200.254",))

    return {
        SWITCH: Namespace({link.name: link for link in [bridge, *ports]}),
        MASTER: node("10.30.200.1/24"),
        WORKER: node("10.30.200.2/24"),
    }


def commands(lab: Lab, observed: dict[str, Namespace | None]) -> list[str]:
    return [" ".join(command) for command in missing_commands(lab, observed)]


def without_link(namespace: Namespace | None, name: str) -> Namespace:
    assert namespace is not None
    links = {key: link for key, link in namespace.links.items() if key != name}
    return dataclasses.replace(namespace, links=links)


def with_link(namespace: Namespace | None, link: Link) -> Namespace:
    assert namespace is not None
    return dataclasses.replace(namespace, links={**namespace.links, link.name: link})


def test_complete_network_needs_nothing(lab: Lab) -> None:
    assert missing_commands(lab, complete()) == []


def test_from_nothing_the_switch_comes_before_the_cables(lab: Lab) -> None:
    wanted = commands(lab, {})
    bridge = wanted.index(f"ip -n {SWITCH} link add br0 mtu 1500 type bridge forward_delay 0")
    cable = wanted.index(
        f"ip -n {MASTER} link add eth0 mtu 1500 type veth peer name {MASTER_PORT} mtu 1500 netns {SWITCH}"
    )
    assert bridge < cable
    assert f"ip -n {WORKER} address add 10.30.200.2/24 dev eth0" in wanted
    assert f"ip -n {WORKER} route replace default via 10.30.200.254" in wanted


def test_new_node_leaves_the_others_alone(lab: Lab) -> None:
    observed = complete()
    del observed[WORKER]
    observed[SWITCH] = without_link(observed[SWITCH], WORKER_PORT)
    wanted = commands(lab, observed)
    assert wanted
    assert not any(MASTER in command or MASTER_PORT in command for command in wanted)


def test_leftover_port_is_deleted_before_a_new_cable(lab: Lab) -> None:
    observed = complete()
    observed[WORKER] = without_link(observed[WORKER], "eth0")
    wanted = commands(lab, observed)
    assert wanted[0] == f"ip -n {SWITCH} link delete {WORKER_PORT}"
    assert "type veth" in wanted[1]


def test_leftover_node_link_is_deleted_before_a_new_cable(lab: Lab) -> None:
    observed = complete()
    observed[SWITCH] = without_link(observed[SWITCH], MASTER_PORT)
    wanted = commands(lab, observed)
    assert wanted[0] == f"ip -n {MASTER} link delete eth0"
    assert "type veth" in wanted[1]


@pytest.mark.parametrize(
    ("namespace", "link", "expected"),
    [
        (
            SWITCH,
            Link("br0", False, 1500, "", ("10.30.200.254/24",)),
            [f"ip -n {SWITCH} link set br0 up"],
        ),
        (
            SWITCH,
            Link("br0", True, 1500, "", ()),
            [f"ip -n {SWITCH} address add 10.30.200.254/24 dev br0"],
        ),
        (
            SWITCH,
            Link(MASTER_PORT, True, 1500, "", ()),
            [f"ip -n {SWITCH} link set {MASTER_PORT} master br0"],
        ),
        (
            SWITCH,
            Link(MASTER_PORT, False, 1500, "br0", ()),
            [f"ip -n {SWITCH} link set {MASTER_PORT} up"],
        ),
        (
            MASTER,
            Link("eth0", True, 1400, "", ("10.30.200.1/24",)),
            [f"ip -n {MASTER} link set eth0 mtu 1500"],
        ),
        (
            MASTER,
            Link("eth0", True, 1500, "", ()),
            [f"ip -n {MASTER} address add 10.30.200.1/24 dev eth0"],
        ),
        (
            MASTER,
            Link("eth0", False, 1500, "", ("10.30.200.1/24",)),
            [f"ip -n {MASTER} link set eth0 up"],
        ),
    ],
)
def test_one_deviation_is_one_command(lab: Lab, namespace: str, link: Link, expected: list[str]) -> None:
    observed = complete()
    observed[namespace] = with_link(observed[namespace], link)
    assert commands(lab, observed) == expected


def test_bridge_filtering_is_switched_off(lab: Lab) -> None:
    observed = complete()
    switch = observed[SWITCH]
    assert switch is not None
    observed[SWITCH] = dataclasses.replace(switch, settings=("bridge-nf-call-iptables",))
    assert commands(lab, observed) == [
        f"ip netns exec {SWITCH} sysctl -qw net.bridge.bridge-nf-call-iptables=0"
    ]


def test_lost_default_route_comes_back(lab: Lab) -> None:
    observed = complete()
    master = observed[MASTER]
    assert master is not None
    observed[MASTER] = dataclasses.replace(master, gateways=())
    assert commands(lab, observed) == [f"ip -n {MASTER} route replace default via 10.30.200.254"]
