"""Routes, modules and settings: which of them a reset takes for ours."""

from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import reset_kernel, reset_network
from ansible_collections.tortie.cluster.plugins.module_utils.reset_action import (
    Action,
    Machine,
    Phase,
    ResetError,
    run_phases,
)
from ansible_collections.tortie.cluster.plugins.module_utils.reset_record import Record

POOL = IPv4Network("10.5.0.0/16")


@pytest.mark.parametrize(
    ("route", "ours"),
    [
        ({"dst": "10.5.1.0/26", "type": "6", "protocol": "80"}, True),
        ({"dst": "10.5.1.64/26", "dev": "tunl0", "protocol": "12"}, True),
        ({"dst": "10.5.1.64/26", "gateway": "10.30.200.2", "dev": "eth0", "protocol": "12"}, True),
        ({"dst": "192.0.2.0/24", "gateway": "10.30.200.2", "dev": "eth0", "protocol": "12"}, False),
        ({"dst": "10.5.1.64/26", "gateway": "10.30.200.2", "dev": "eth0", "protocol": "4"}, False),
        ({"dst": "default", "gateway": "10.30.200.254", "dev": "eth0"}, False),
        ({"dst": "default", "dev": "eth0", "protocol": "12"}, False),
        ({"dst": "2001:db8::/64", "dev": "eth0", "protocol": "12"}, False),
    ],
)
def test_routes_of_ours(route: dict[str, Any], ours: bool) -> None:
    assert reset_network.is_our_route(route, POOL) is ours


def test_birds_routes_on_the_nodes_own_link_are_not_ours_without_a_pool() -> None:
    assert not reset_network.is_our_route({"dst": "10.5.1.0/26", "dev": "eth0", "protocol": "12"}, None)


def test_route_is_deleted_by_everything_that_is_known_of_it() -> None:
    route = {"type": "6", "dst": "10.5.1.0/26", "table": "100", "metric": 5, "protocol": "80"}
    words = ["blackhole", "10.5.1.0/26", "table", "100", "metric", "5", "protocol", "80"]
    assert reset_network.route_arguments(route) == words


def test_only_unused_modules_of_a_cluster_that_were_not_loaded_are_superfluous() -> None:
    text = (
        "ipip 20480 0 - Live 0x0\ntunnel4 16384 1 ipip, Live 0x0\nvxlan 100 0 - Live 0x0\n"
        "e1000 100 0 - Live 0x0\nbr_netfilter 100 0 [permanent], Live 0x0\n"
    )
    assert reset_kernel.superfluous(reset_kernel.parse_modules(text), ["vxlan"]) == ["ipip"]


def test_container_unloads_no_module(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/modules").write_text("ipip 20480 0 - Live 0x0\n")
    inside = Machine(record=Record(), ours=True, container=True, root=str(tmp_path))
    outside = Machine(record=Record(), ours=True, container=False, root=str(tmp_path))
    assert reset_kernel.modules(inside) == []
    assert len(reset_kernel.modules(outside)) == 1


def test_setting_goes_back_and_one_that_is_right_or_gone_is_left(tmp_path: Path) -> None:
    place = tmp_path / "proc/sys/net/ipv4/ip_forward"
    place.parent.mkdir(parents=True)
    place.write_text("1\n")
    record = Record(sysctls={"net.ipv4.ip_forward": "0", "net.bridge.bridge-nf-call-iptables": "0"})
    here = Machine(record=record, ours=True, container=False, root=str(tmp_path))
    (action,) = reset_kernel.settings(here)
    action.do()
    assert place.read_text() == "0\n"
    assert reset_kernel.settings(here) == []


def failing() -> None:
    raise ResetError("it does not work.")


def test_failure_in_an_essential_phase_keeps_the_later_ones_back() -> None:
    done: list[str] = []
    phases = [
        Phase(
            "first", lambda _m: [Action("a", failing), Action("b", lambda: done.append("b"))], essential=True
        ),
        Phase("second", lambda _m: [Action("c", lambda: done.append("c"))]),
    ]
    outcome = run_phases(phases, Machine(record=None, ours=True, container=False), look_only=False)
    assert done == outcome.done == ["b"]
    assert outcome.failed == ["a: it does not work."]


def test_failure_elsewhere_keeps_nothing_back() -> None:
    done: list[str] = []
    phases = [
        Phase("first", lambda _m: [Action("a", failing)]),
        Phase("second", lambda _m: [Action("c", lambda: done.append("c"))]),
    ]
    outcome = run_phases(phases, Machine(record=None, ours=True, container=False), look_only=False)
    assert done == outcome.done == ["c"]
    assert len(outcome.failed) == 1


def test_looking_does_nothing() -> None:
    phases = [Phase("first", lambda _m: [Action("a", failing)], essential=True)]
    outcome = run_phases(phases, Machine(record=None, ours=True, container=False), look_only=True)
    assert (outcome.done, outcome.failed) == (["a"], [])
