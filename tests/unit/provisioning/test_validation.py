"""What an inventory may say, and the sentence for what it may not."""

from typing import Any

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils.validation import Cluster, problems
from ansible_collections.tortie.cluster.plugins.module_utils.variable_names import unknown_variables
from hypothesis import given
from hypothesis import strategies as st

GOOD: dict[str, Any] = {
    "kubernetes_version": "1.31.4",
    "kubernetes_install_source": "packages",
    "kubernetes_service_cidr": "10.96.0.0/12",
    "kubernetes_api_endpoint": "10.30.200.1:6443",
    "kubernetes_cgroup_driver": "auto",
    "tortie_ipv4pool_cidr": "10.5.0.0/16",
    "tortie_ipv4pool_block_size": 26,
    "tortie_encapsulation": "ipip",
    "tortie_encapsulation_mode": "always",
    "tortie_mtu": "auto",
    "tortie_as_number": 64512,
    "tortie_nat_outgoing": True,
    "tortie_ip_autodetection_method": "interface=eth.*",
    "control_plane_schedulable": False,
}


def cluster(workers: int = 1, per_host: dict[str, dict[str, Any]] | None = None, **shared: Any) -> Cluster:
    """One control plane node and some workers with good settings, changed as asked."""
    names = ["master-01", *(f"worker-{number:02}" for number in range(1, workers + 1))]
    hosts = {
        name: {
            **GOOD,
            "kubernetes_node_ip": f"10.30.{200 + index // 200}.{1 + index % 200}",
            "kubernetes_node_name": name,
            **shared,
            **(per_host or {}).get(name, {}),
        }
        for index, name in enumerate(names)
    }
    return Cluster(hosts, names[:1], names[1:])


def test_good_inventory_has_no_problem() -> None:
    assert problems(cluster(workers=3)) == []


@pytest.mark.parametrize(
    "shared",
    [
        {"tortie_mtu": 1440},
        {"tortie_mtu": "1440"},
        {"tortie_as_number": "4200000000"},
        {"tortie_as_number": "auto"},
        {"tortie_nat_outgoing": "no"},
        {"tortie_ip_autodetection_method": "first-found"},
        {"tortie_ip_autodetection_method": "kubernetes-internal-ip"},
        {"tortie_ip_autodetection_method": "skip-interface=docker.*,br-.*"},
        {"tortie_ip_autodetection_method": "cidr=10.30.200.0/24,10.31.0.0/16"},
        {"tortie_ip_autodetection_method": "can-reach=10.30.200.254"},
        {"kubernetes_api_endpoint": "api.example.org:443"},
        {"kubernetes_install_source": "bundle", "kubernetes_bundle_dir": "/srv/bundle"},
    ],
)
def test_other_good_values_are_accepted(shared: dict[str, Any]) -> None:
    assert problems(cluster(**shared)) == []


@pytest.mark.parametrize(
    ("shared", "words"),
    [
        (
            {"tortie_ipv4pool_cidr": "10.96.0.0/16"},
            ["tortie_ipv4pool_cidr 10.96.0.0/16", "overlaps", "kubernetes_service_cidr"],
        ),
        (
            {"tortie_ipv4pool_cidr": "10.30.0.0/16"},
            ["kubernetes_node_ip 10.30.200.1", "lies inside tortie_ipv4pool_cidr"],
        ),
        ({"kubernetes_service_cidr": "10.30.192.0/18"}, ["master-01", "lies inside kubernetes_service_cidr"]),
        ({"tortie_ipv4pool_cidr": "10.5.0.1/16"}, ["'10.5.0.1/16'", "write 10.5.0.0/16"]),
        ({"tortie_ipv4pool_cidr": "10.5.0.0"}, ["'10.5.0.0'", "must be an IPv4 network"]),
        ({"tortie_ipv4pool_cidr": "fd00::/48"}, ["'fd00::/48'", "must be an IPv4 network"]),
        (
            {"tortie_ipv4pool_cidr": "10.5.0.0/28"},
            ["smaller than one block of /26", "tortie_ipv4pool_block_size"],
        ),
        ({"tortie_ipv4pool_cidr": "10.5.0.0/26"}, ["holds 1 block(s)", "2 nodes"]),
        ({"tortie_ipv4pool_block_size": 19}, ["tortie_ipv4pool_block_size is 19", "from 20 to 32"]),
        ({"tortie_encapsulation": "gre"}, ["tortie_encapsulation is 'gre'", "ipip, vxlan, none"]),
        ({"tortie_encapsulation_mode": "CrossSubnet"}, ["'CrossSubnet'", "always, cross-subnet"]),
        ({"tortie_mtu": 100}, ["tortie_mtu is 100", "from 576 to 65535"]),
        ({"tortie_mtu": True}, ["tortie_mtu is True", "'auto'"]),
        ({"tortie_as_number": 0}, ["tortie_as_number is 0", "from 1 to 4294967295"]),
        ({"tortie_nat_outgoing": "perhaps"}, ["tortie_nat_outgoing is 'perhaps'", "true or false"]),
        (
            {"tortie_ip_autodetection_method": "interfaces=eth0"},
            ["'interfaces=eth0'", "interface=<regex,...>"],
        ),
        ({"tortie_ip_autodetection_method": "interface=eth["}, ["'eth['", "not a regular expression"]),
        ({"tortie_ip_autodetection_method": "interface="}, ["empty item after 'interface='"]),
        ({"tortie_ip_autodetection_method": "cidr=10.30.200.0"}, ["'10.30.200.0'", "not an IPv4 network"]),
        ({"tortie_ip_autodetection_method": "can-reach=a,b"}, ["can-reach takes one host"]),
        ({"kubernetes_version": "v1.31.4"}, ["'v1.31.4'", "1.31.4"]),
        ({"kubernetes_version": "1.31"}, ["kubernetes_version is '1.31'"]),
        ({"kubernetes_version": "1.19.9"}, ["kubernetes_version is 1.19.9", "1.20"]),
        ({"kubernetes_version": None}, ["kubernetes_version is not set"]),
        ({"kubernetes_install_source": "apt"}, ["kubernetes_install_source is 'apt'", "bundle, packages"]),
        (
            {"kubernetes_install_source": "bundle", "kubernetes_bundle_dir": ""},
            ["kubernetes_bundle_dir is empty"],
        ),
        (
            {"kubernetes_cgroup_driver": "cgroup"},
            ["kubernetes_cgroup_driver is 'cgroup'", "auto, systemd, cgroupfs"],
        ),
        (
            {"kubernetes_service_cidr": "10.0.0.0/8"},
            ["kubernetes_service_cidr is 10.0.0.0/8", "from 12 to 29"],
        ),
        (
            {"kubernetes_api_endpoint": "10.30.200.1"},
            ["kubernetes_api_endpoint is '10.30.200.1'", "host:port"],
        ),
        ({"kubernetes_api_endpoint": "10.30.200.1:99999"}, ["'10.30.200.1:99999'", "host:port"]),
        ({"kubernetes_api_endpoint": "10.30.200:6443"}, ["'10.30.200:6443'", "host:port"]),
        ({"control_plane_schedulable": "maybe"}, ["control_plane_schedulable is 'maybe'"]),
    ],
)
def test_bad_value_gives_a_sentence_with_variable_and_remedy(
    shared: dict[str, Any], words: list[str]
) -> None:
    found = problems(cluster(**shared))
    assert found, "the value was accepted"
    assert any(all(word in sentence for word in words) for sentence in found), found
    assert all(sentence.endswith((".", ")")) for sentence in found)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (None, ["kubernetes_node_ip is not set for host 'worker-01'"]),
        ("10.30.200.1", ["10.30.200.1 on both 'master-01' and 'worker-01'"]),
        ("10.30.200.2/24", ["'10.30.200.2/24'", "without a prefix length"]),
        ("worker", ["'worker'", "must be an IPv4 address"]),
        ("127.0.0.1", ["127.0.0.1", "no other machine can reach"]),
        ("169.254.7.7", ["169.254.7.7", "no other machine can reach"]),
        ("224.0.0.5", ["224.0.0.5", "no other machine can reach"]),
        ("0.0.0.0", ["0.0.0.0", "no other machine can reach"]),
    ],
)
def test_bad_node_address_names_host_and_value(address: str | None, words: list[str]) -> None:
    found = problems(cluster(per_host={"worker-01": {"kubernetes_node_ip": address}}))
    assert any(all(word in sentence for word in words) for sentence in found), found


def test_bad_node_name_is_refused() -> None:
    found = problems(cluster(per_host={"worker-01": {"kubernetes_node_name": "Worker_01"}}))
    assert any("kubernetes_node_name of host 'worker-01' is 'Worker_01'" in sentence for sentence in found), (
        found
    )


def test_same_node_name_twice_is_refused() -> None:
    found = problems(cluster(per_host={"worker-01": {"kubernetes_node_name": "master-01"}}))
    assert any("on both 'master-01' and 'worker-01'" in sentence for sentence in found), found


def test_setting_that_differs_between_hosts_is_refused_with_both_values() -> None:
    found = problems(cluster(per_host={"worker-01": {"tortie_mtu": 1400}}))
    assert any(
        "tortie_mtu differs" in s and "'auto' on master-01" in s and "'1400' on worker-01" in s for s in found
    ), found


def test_second_control_plane_node_is_refused_by_name() -> None:
    base = cluster(workers=1)
    found = problems(Cluster(base.hosts, ["master-01", "worker-01"], []))
    assert any(
        "2 hosts (master-01, worker-01)" in sentence and "not supported yet" in sentence for sentence in found
    ), found


@pytest.mark.parametrize(
    ("control_plane", "workers", "words"),
    [
        ([], ["master-01", "worker-01"], "group 'control_plane' has no hosts"),
        (["master-01"], ["master-01", "worker-01"], "host 'master-01' is in both groups"),
        (["master-01"], [], "host 'worker-01' is in group 'cluster' but neither"),
        (
            ["master-01"],
            ["worker-01", "worker-02"],
            "host 'worker-02' is in group 'workers' but not in group 'cluster'",
        ),
    ],
)
def test_groups_that_do_not_fit_together_are_refused(
    control_plane: list[str], workers: list[str], words: str
) -> None:
    found = problems(Cluster(cluster().hosts, control_plane, workers))
    assert any(words in sentence for sentence in found), found


def test_empty_inventory_is_one_problem() -> None:
    assert len(problems(Cluster({}, [], []))) == 1


def test_all_problems_come_at_once() -> None:
    found = problems(cluster(tortie_mtu="big", tortie_encapsulation="gre", kubernetes_version="2.0.0"))
    assert len(found) == 3


@given(st.integers(min_value=0, max_value=12), st.integers(min_value=1, max_value=40))
def test_pool_is_refused_exactly_when_it_has_fewer_blocks_than_nodes(bits: int, nodes: int) -> None:
    found = problems(cluster(workers=nodes - 1, tortie_ipv4pool_cidr=f"10.64.0.0/{26 - bits}"))
    assert bool(found) == (2**bits < nodes)


@given(
    st.sampled_from(sorted(GOOD)), st.one_of(st.text(max_size=20), st.integers(), st.booleans(), st.none())
)
def test_no_value_whatsoever_breaks_the_judgement(name: str, value: Any) -> None:
    assert all(isinstance(sentence, str) for sentence in problems(cluster(**{name: value})))


KNOWN = [
    "tortie_mtu",
    "tortie_encapsulation",
    "kubernetes_version",
    "node_manage_swap",
    "worker_join_timeout",
]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("tortie_encapsulaton", "did you mean tortie_encapsulation?"),
        ("kubernetes_versoin", "did you mean kubernetes_version?"),
        ("node_manage_swop", "did you mean node_manage_swap?"),
        ("kubernetes_zzz_qqq_xxxxxxxxxxxx", "not read by any role"),
    ],
)
def test_unknown_variable_is_named_with_the_probable_one(name: str, answer: str) -> None:
    (sentence,) = unknown_variables({"master-01": [name], "worker-01": [name, "tortie_mtu"]}, KNOWN)
    assert name in sentence
    assert answer in sentence
    assert "master-01, worker-01" in sentence


@pytest.mark.parametrize(
    "name", ["node_exporter_port", "worker_threads", "ansible_user", "__tortie_x", "my_version"]
)
def test_other_peoples_variables_are_left_alone(name: str) -> None:
    assert list(unknown_variables({"master-01": [name]}, KNOWN)) == []
