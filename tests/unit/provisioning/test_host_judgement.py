"""The sentences about machines that cannot do what the inventory asks."""

import copy
from typing import Any

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import host_judgement as judgement

FACTS: dict[str, Any] = {
    "architecture": "x86_64",
    "cgroup": {"version": 2, "driver": "systemd"},
    "container": False,
    "distribution": "debian 12",
    "features": {"overlay": "present", "br_netfilter": "loadable"},
    "free_mib": 20000,
    "ip_command": True,
    "kernel": "6.1.0-27-amd64",
    "links": [
        {"name": "lo", "mtu": 65536, "kind": "", "up": True, "addresses": ["127.0.0.1/8"]},
        {"name": "eth0", "mtu": 1500, "kind": "", "up": True, "addresses": ["10.30.200.1/24"]},
        {"name": "eth1", "mtu": 9000, "kind": "", "up": True, "addresses": ["192.168.7.1/24"]},
        {"name": "docker0", "mtu": 1500, "kind": "bridge", "up": True, "addresses": ["172.17.0.1/16"]},
        {"name": "tunl0", "mtu": 1440, "kind": "ipip", "up": True, "addresses": ["10.5.17.0/32"]},
    ],
    "memory_mib": 4000,
    "os_family": "Debian",
    "ports": {},
    "python": "3.11.2",
    "root": True,
    "systemd": True,
    "tunnels": {"ipip": "loadable", "vxlan": "present"},
}
SETTINGS: dict[str, Any] = {
    "kubernetes_node_ip": "10.30.200.1",
    "kubernetes_service_cidr": "10.96.0.0/12",
    "tortie_ipv4pool_cidr": "10.5.0.0/16",
    "tortie_encapsulation": "ipip",
    "tortie_mtu": "auto",
    "tortie_ip_autodetection_method": "interface=eth0",
    "preflight_min_memory_mib_control_plane": 1700,
    "preflight_min_memory_mib_worker": 700,
    "preflight_min_disk_mib": 3000,
}


def judged(facts: dict[str, Any] | None = None, control_plane: bool = True, **settings: Any) -> list[str]:
    """What is said about a good machine with these differences."""
    machine = {**copy.deepcopy(FACTS), **(facts or {})}
    return judgement.host_problems("master-01", machine, {**SETTINGS, **settings}, control_plane)


def test_good_machine_has_no_problem() -> None:
    assert judged() == []


@pytest.mark.parametrize(
    "settings",
    [
        {"tortie_mtu": 1480},
        {"tortie_mtu": 1450, "tortie_encapsulation": "vxlan"},
        {"tortie_mtu": "1500", "tortie_encapsulation": "none"},
        {"tortie_ip_autodetection_method": "first-found"},
        {"tortie_ip_autodetection_method": "skip-interface=eth1"},
        {"tortie_ip_autodetection_method": "cidr=10.30.0.0/16"},
        {"tortie_ip_autodetection_method": "can-reach=10.30.200.254"},
        {"tortie_ip_autodetection_method": "kubernetes-internal-ip"},
    ],
)
def test_other_good_settings_are_accepted(settings: dict[str, Any]) -> None:
    assert judged(**settings) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"tortie_mtu": 1481},
            ["tortie_mtu 1481 is above 1480", "MTU 1500 of link eth0 minus 20 for ipip", "'auto'"],
        ),
        ({"tortie_mtu": "1500", "tortie_encapsulation": "vxlan"}, ["above 1450", "minus 50 for vxlan"]),
        ({"tortie_mtu": 9000, "tortie_encapsulation": "none"}, ["above 1500"]),
        (
            {"tortie_ip_autodetection_method": "interface=ens.*"},
            ["'interface=ens.*' matches no link", "eth0 (10.30.200.1/24)"],
        ),
        ({"tortie_ip_autodetection_method": "cidr=172.30.0.0/16"}, ["'cidr=172.30.0.0/16' matches no link"]),
        (
            {"tortie_ip_autodetection_method": "interface=eth1"},
            ["chooses link eth1", "kubernetes_node_ip 10.30.200.1 is on eth0"],
        ),
        (
            {"kubernetes_node_ip": "10.30.200.7"},
            ["kubernetes_node_ip 10.30.200.7 is not on any", "eth0 (10.30.200.1/24)"],
        ),
        (
            {"tortie_ipv4pool_cidr": "192.168.0.0/16"},
            ["tortie_ipv4pool_cidr 192.168.0.0/16 overlaps 192.168.7.0/24 of link eth1"],
        ),
        (
            {"kubernetes_service_cidr": "172.16.0.0/12"},
            ["kubernetes_service_cidr 172.16.0.0/12 overlaps 172.17.0.0/16 of link docker0"],
        ),
        (
            {"preflight_min_memory_mib_control_plane": 8000},
            ["4000 MiB of memory", "preflight_min_memory_mib_control_plane (8000)"],
        ),
        ({"preflight_min_disk_mib": 30000}, ["20000 MiB of free disk", "preflight_min_disk_mib (30000)"]),
    ],
)
def test_setting_that_the_machine_cannot_meet_is_a_sentence(
    settings: dict[str, Any], words: list[str]
) -> None:
    found = judged(**settings)
    assert any(all(word in sentence for word in words) for sentence in found), found
    assert all(sentence.startswith("host 'master-01':") for sentence in found)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"root": False}, ["do not run as root", "ansible_become"]),
        ({"python": "3.6.8"}, ["Python 3.6.8 is too old", "ansible_python_interpreter"]),
        ({"kernel": "3.10.0-1160.el7.x86_64"}, ["kernel 3.10.0-1160.el7.x86_64 is too old"]),
        ({"architecture": "riscv64"}, ["architecture riscv64"]),
        ({"os_family": "alpine", "distribution": "alpine 3.20"}, ["alpine 3.20"]),
        ({"systemd": False}, ["systemd does not run it"]),
        ({"ip_command": False}, ["command ip is missing", "iproute2"]),
        (
            {"features": {"overlay": "present", "br_netfilter": "absent"}},
            ["has no br_netfilter", "kernel-modules-extra"],
        ),
        (
            {"tunnels": {"ipip": "absent", "vxlan": "present"}},
            ["kernel 6.1.0-27-amd64 has no ipip", "set tortie_encapsulation to vxlan or none"],
        ),
        ({"ports": {"6443": "nginx"}}, ["program 'nginx' listens on TCP port 6443"]),
        ({"ports": {"179": ""}}, ["somebody listens on TCP port 179"]),
        ({"ports": {"6443": "python3"}}, ["program 'python3' listens on TCP port 6443"]),
    ],
)
def test_machine_that_cannot_be_a_node_is_a_sentence(facts: dict[str, Any], words: list[str]) -> None:
    found = judged(facts)
    assert any(all(word in sentence for word in words) for sentence in found), found


def test_ports_of_our_own_programs_are_free_for_us() -> None:
    ports = {
        "6443": "kube-apiserver",
        "2379": "etcd",
        "10250": "kubelet",
        "10257": "kube-controller",
        "179": "bird",
        "9099": "python3",
    }
    assert judged({"ports": ports}) == []


def test_worker_needs_no_port_of_the_control_plane() -> None:
    assert judged({"ports": {"6443": "nginx"}}, control_plane=False) == []


def test_missing_encapsulation_matters_only_when_it_is_wanted() -> None:
    assert judged({"tunnels": {"ipip": "absent", "vxlan": "present"}}, tortie_encapsulation="vxlan") == []


def test_hosts_that_suit_different_cgroup_drivers_must_be_told_which() -> None:
    facts = {"a": FACTS, "b": {**FACTS, "cgroup": {"version": 1, "driver": "cgroupfs"}}}
    (sentence,) = judgement.cluster_problems(facts, {"kubernetes_cgroup_driver": "auto"})
    assert "cgroupfs on b; systemd on a" in sentence
    assert list(judgement.cluster_problems(facts, {"kubernetes_cgroup_driver": "systemd"})) == []


@pytest.mark.parametrize(
    ("seconds", "way"), [(500.0, "500 seconds ahead of"), (-500.0, "500 seconds behind")]
)
def test_wrong_clock_is_said_with_its_direction(seconds: float, way: str) -> None:
    assert way in (judgement.clock_problem("a", seconds) or "")
    assert judgement.clock_problem("a", seconds / 100) is None


def test_bundle_for_another_architecture_is_refused() -> None:
    assert list(judgement.architecture_problem("a", FACTS, "amd64")) == []
    assert list(judgement.architecture_problem("a", FACTS, "")) == []
    (sentence,) = judgement.architecture_problem("a", FACTS, "arm64")
    assert "amd64 machine" in sentence
    assert "for arm64" in sentence


def test_unreachable_host_is_named_with_address_and_reason() -> None:
    sentence = judgement.unreachable_problem(
        "worker-09", "10.30.200.99", "Task failed: Connection\n refused."
    )
    assert "host 'worker-09' (10.30.200.99) cannot be reached: Connection refused." in sentence
    assert "ansible_host" in sentence
