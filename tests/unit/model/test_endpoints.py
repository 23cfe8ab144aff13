from typing import Any

import msgspec
import pytest

from tortie.model.endpoints import ipv4_addresses, is_finished, workload_endpoint
from tortie.model.names import veth_name
from tortie.model.resources import Pod


def pod(**changes: dict[str, Any]) -> Pod:
    body: dict[str, Any] = {
        "metadata": {
            "name": "web-a",
            "namespace": "shop",
            "uid": "u",
            "labels": {"app": "web"},
            "annotations": {},
        },
        "spec": {"nodeName": "worker-01", "serviceAccountName": "default"},
        "status": {"phase": "Running", "podIP": "10.5.0.3", "podIPs": [{"ip": "10.5.0.3"}]},
    }
    for part, values in changes.items():
        body[part] |= values
    return msgspec.convert(body, Pod)


def test_endpoint_of_a_running_pod() -> None:
    endpoint = workload_endpoint(pod(metadata={"annotations": {"cni.projectcalico.org/containerID": "c1"}}))
    assert endpoint is not None
    assert endpoint.metadata.name == "worker--01-k8s-web--a-eth0"
    assert endpoint.metadata.namespace == "shop"
    assert endpoint.metadata.labels == {
        "app": "web",
        "projectcalico.org/namespace": "shop",
        "projectcalico.org/orchestrator": "k8s",
        "projectcalico.org/serviceaccount": "default",
    }
    assert endpoint.spec.node == "worker-01"
    assert endpoint.spec.pod == "web-a"
    assert endpoint.spec.endpoint == "eth0"
    assert endpoint.spec.container_id == "c1"
    assert endpoint.spec.interface_name == veth_name("shop", "web-a")
    assert endpoint.spec.ip_networks == ["10.5.0.3/32"]
    assert endpoint.spec.profiles == ["kns.shop", "ksa.shop.default"]


def test_endpoint_lists_ports_with_a_name_or_a_host_port() -> None:
    containers = [
        {"name": "a", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}]},
        {"name": "b", "ports": [{"containerPort": 53, "hostPort": 5353, "protocol": "UDP"}]},
    ]
    init = [{"name": "i", "ports": [{"containerPort": 90, "name": "init"}]}]
    endpoint = workload_endpoint(pod(spec={"containers": containers, "initContainers": init}))
    assert endpoint is not None
    ports = [(port.name, port.protocol, port.port, port.host_port) for port in endpoint.spec.ports]
    assert ports == [("init", "TCP", 90, 0), ("http", "TCP", 80, 0), ("", "UDP", 53, 5353)]


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {"hostNetwork": True}},
        {"spec": {"nodeName": ""}},
        {"status": {"phase": "Succeeded"}},
        {"status": {"phase": "Failed"}},
        {"status": {"podIP": "", "podIPs": []}},
        {
            "metadata": {
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"cni.projectcalico.org/podIP": ""},
            }
        },
    ],
)
def test_pod_without_an_address_of_ours_has_no_endpoint(changes: dict[str, dict[str, Any]]) -> None:
    assert workload_endpoint(pod(**changes)) is None


def test_pod_that_is_being_deleted_keeps_its_endpoint_until_its_address_is_released() -> None:
    leaving = pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert not is_finished(leaving)
    assert workload_endpoint(leaving) is not None


@pytest.mark.parametrize(
    ("status", "annotations", "networks"),
    [
        ({}, {"podIPs": "10.9.0.9/32"}, ["10.5.0.3/32"]),
        ({"podIPs": []}, {"podIPs": "10.9.0.9/32"}, ["10.5.0.3/32"]),
        ({"podIPs": [], "podIP": ""}, {"podIPs": "10.9.0.9/32,fd00::9/128"}, ["10.9.0.9/32", "fd00::9/128"]),
        ({"podIPs": [], "podIP": ""}, {"podIP": "10.9.0.8/32"}, ["10.9.0.8/32"]),
    ],
)
def test_address_comes_from_the_status_and_before_that_from_our_annotations(
    status: dict[str, Any], annotations: dict[str, str], networks: list[str]
) -> None:
    full = {f"cni.projectcalico.org/{key}": value for key, value in annotations.items()}
    endpoint = workload_endpoint(pod(status=status, metadata={"annotations": full}))
    assert endpoint is not None
    assert endpoint.spec.ip_networks == networks


def test_service_account_too_long_for_a_label_still_has_its_profile() -> None:
    endpoint = workload_endpoint(pod(spec={"serviceAccountName": "a" * 64}))
    assert endpoint is not None
    assert "projectcalico.org/serviceaccount" not in endpoint.metadata.labels
    assert f"ksa.shop.{'a' * 64}" in endpoint.spec.profiles


def test_ipv4_addresses_leave_out_ipv6() -> None:
    both = pod(status={"podIPs": [{"ip": "10.5.0.3"}, {"ip": "fd00::3"}]})
    assert [str(address) for address in ipv4_addresses(both)] == ["10.5.0.3"]


def test_endpoint_is_written_in_calicos_field_names() -> None:
    endpoint = workload_endpoint(pod())
    body = msgspec.to_builtins(endpoint)
    assert body["spec"]["interfaceName"].startswith("cali")
    assert body["spec"]["ipNetworks"] == ["10.5.0.3/32"]
