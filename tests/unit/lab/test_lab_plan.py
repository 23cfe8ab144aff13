"""Names, addresses and files of a lab."""

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import lab_plan
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import Lab, Node, PlanError
from hypothesis import given
from hypothesis import strategies as st


def parameters(**changes: Any) -> dict[str, Any]:
    """Parameters of a two-node lab, with changes."""
    return {
        "name": "tortie",
        "directory": "/srv/lab",
        "gateway": "10.30.200.254/24",
        "nodes": [
            {"name": "master-01", "address": "10.30.200.1"},
            {"name": "worker-01", "address": "10.30.200.2"},
        ],
        **changes,
    }


@pytest.fixture
def lab() -> Lab:
    return lab_plan.lab_from_params(parameters())


def test_names_carry_the_labs_name_as_prefix(lab: Lab) -> None:
    assert lab.switch == "tortie-sw"
    assert lab.namespace("master-01") == "tortie-master-01"
    assert lab.run_dir == Path("/run/tortie-lab/tortie")


@given(st.integers(min_value=0, max_value=2**32 - 1), st.integers(min_value=0, max_value=2**32 - 1))
def test_port_names_fit_the_kernel_and_differ_when_addresses_differ(first: int, second: int) -> None:
    ports = [Node("n", str(ipaddress.IPv4Address(value))).port for value in (first, second)]
    assert all(0 < len(port) <= lab_plan.INTERFACE_NAME_LENGTH for port in ports)
    assert (ports[0] == ports[1]) == (first == second)


@pytest.mark.parametrize("name", ["", "1lab", "a" * 17, "lab_1", "lab/1", "lab 1"])
def test_lab_name_that_cannot_prefix_a_namespace_is_refused(name: str) -> None:
    with pytest.raises(PlanError, match="LAB_NAME is"):
        lab_plan.lab_from_params(parameters(name=name))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.30.200.254", "the lab's gateway has already"),
        ("10.30.200.2", "worker-01 has already"),
        ("10.30.201.1", "no host address of the lab's network"),
        ("10.30.200.0", "no host address of the lab's network"),
        ("10.30.200.255", "no host address of the lab's network"),
        ("fe80::1", "no IPv4 address"),
        ("master", "no IPv4 address"),
    ],
)
def test_unusable_node_address_is_refused_with_host_and_reason(address: str, reason: str) -> None:
    nodes = [{"name": "worker-01", "address": "10.30.200.2"}, {"name": "bad-01", "address": address}]
    with pytest.raises(PlanError, match=f"bad-01.*{reason}"):
        lab_plan.lab_from_params(parameters(nodes=nodes))


@pytest.mark.parametrize("name", ["sw", "Node", "a.b", "-a", "a-", "a" * 41])
def test_host_name_that_cannot_name_a_machine_is_refused(name: str) -> None:
    with pytest.raises(PlanError, match="cannot be a lab node"):
        lab_plan.lab_from_params(parameters(nodes=[{"name": name, "address": "10.30.200.1"}]))


def test_relative_folder_is_refused() -> None:
    with pytest.raises(PlanError, match="absolute path"):
        lab_plan.lab_from_params(parameters(directory=".lab"))


def test_ssh_socket_fits_even_with_the_longest_names() -> None:
    longest = lab_plan.lab_from_params(
        parameters(name="l" * 16, nodes=[{"name": "n" * 40, "address": "10.30.200.1"}])
    )
    path = str(lab_plan.control_path(longest, "n" * 40))
    assert len(path) + lab_plan.SSH_SOCKET_SUFFIX <= lab_plan.SOCKET_PATH_LENGTH


def test_ssh_config_reaches_every_node_by_name_and_by_address(lab: Lab) -> None:
    text = lab_plan.render_ssh_config(lab)
    assert "Host master-01 10.30.200.1\n  HostName 10.30.200.1\n  HostKeyAlias master-01\n" in text
    assert "Host worker-01 10.30.200.2\n  HostName 10.30.200.2\n  HostKeyAlias worker-01\n" in text
    assert "ProxyCommand nsenter --net=/run/netns/tortie-sw socat - TCP:%h:%p" in text


def test_ssh_config_checks_host_keys_against_the_labs_own_file(lab: Lab) -> None:
    text = lab_plan.render_ssh_config(lab)
    assert "StrictHostKeyChecking yes" in text
    assert 'UserKnownHostsFile "/srv/lab/ssh/known_hosts"' in text


def test_node_runs_in_its_namespace_with_volumes_of_the_labs_folder(lab: Lab) -> None:
    arguments = lab_plan.run_arguments(lab, lab.nodes[0], "image", modules=False)
    assert "--network=ns:/run/netns/tortie-master-01" in arguments
    assert "--volume=/srv/lab/nodes/master-01/etcd:/var/lib/etcd" in arguments
    assert not any("/lib/modules" in argument for argument in arguments)
    assert arguments[-1] == "image"


def test_node_sees_the_machines_modules_where_there_are_some(lab: Lab) -> None:
    arguments = lab_plan.run_arguments(lab, lab.nodes[0], "image", modules=True)
    assert "--volume=/lib/modules:/lib/modules:ro" in arguments


def test_spec_changes_with_the_address_and_not_with_other_nodes(lab: Lab) -> None:
    spec = lab_plan.spec_digest(lab_plan.container_spec(lab, lab.nodes[0]))
    alone = lab_plan.lab_from_params(parameters(nodes=[{"name": "master-01", "address": "10.30.200.1"}]))
    moved = lab_plan.lab_from_params(parameters(nodes=[{"name": "master-01", "address": "10.30.200.9"}]))
    assert lab_plan.spec_digest(lab_plan.container_spec(alone, alone.nodes[0])) == spec
    assert lab_plan.spec_digest(lab_plan.container_spec(moved, moved.nodes[0])) != spec
