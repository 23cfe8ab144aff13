"""verify_cluster against a real API server; the test does what kubelet and the controllers would do."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from lab import bundle

from tests.components.apiserver import ApiServer
from tests.integration.verify.wires import ROOT

SYSTEM = "/apis/apps/v1/namespaces/kube-system/daemonsets"
PLACE = "/api/v1/namespaces/tortie-verify"
PODS = f"{PLACE}/pods"


def module(server: ApiServer, **parameters: object) -> dict[str, Any]:
    """The module's result."""
    arguments = {"kubeconfig": str(server.kubeconfig), "timeout": 0, **parameters}
    done = subprocess.run(
        [sys.executable, str(ROOT / "plugins/modules/verify_cluster.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PATH": f"{bundle.find() / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "collections"),
        },
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def names(server: ApiServer, path: str) -> list[str]:
    """Names of the objects of a collection."""
    return [item["metadata"]["name"] for item in server.request("GET", path)["items"]]


@pytest.fixture
def server(apiserver: ApiServer) -> Iterator[ApiServer]:
    """An API server with the DaemonSet calico-node; without the probe's namespace, before and after."""
    apiserver.reset()
    documents = yaml.safe_load_all((ROOT / "deploy/tortie.yaml").read_text())
    daemonset = next(item for item in documents if item and item["kind"] == "DaemonSet")
    apiserver.request("POST", SYSTEM, daemonset)
    yield apiserver
    apiserver.request("DELETE", f"{SYSTEM}/calico-node")
    if "tortie-verify" in names(apiserver, "/api/v1/namespaces"):
        for name in names(apiserver, PODS):
            apiserver.request("DELETE", f"{PODS}/{name}?gracePeriodSeconds=0")
        apiserver.request("DELETE", PLACE)
        namespace = apiserver.request("GET", PLACE)
        namespace["spec"]["finalizers"] = []
        apiserver.request("PUT", f"{PLACE}/finalize", namespace)


def run_pod(server: ApiServer, role: str, node: str) -> None:
    """A Ready probe pod."""
    pod = server.request(
        "POST",
        PODS,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{role}-{node}", "labels": {"tortie-verify": role}},
            "spec": {"nodeName": node, "containers": [{"name": "probe", "image": "x"}]},
        },
    )
    pod["status"] = {
        "phase": "Running",
        "podIP": "10.5.0.9",
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    server.request("PUT", f"{PODS}/{pod['metadata']['name']}/status", pod)


def test_probe_objects_are_created_from_the_image_of_calico_node_and_removed(server: ApiServer) -> None:
    cluster = module(server)["cluster"]
    assert cluster["errors"] == []
    image = server.request("GET", f"{SYSTEM}/calico-node")["spec"]["template"]["spec"]["containers"][0][
        "image"
    ]
    probes = "/apis/apps/v1/namespaces/tortie-verify/daemonsets"
    assert names(server, probes) == ["tortie-verify-source", "tortie-verify-target"]
    pod = server.request("GET", f"{probes}/tortie-verify-source")["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == image
    assert pod["serviceAccountName"] in names(server, f"{PLACE}/serviceaccounts")
    service = server.request("GET", f"{PLACE}/services/tortie-verify")["spec"]
    assert cluster["probe_service"] == {"address": service["clusterIP"], "port": 8080, "ready": False}
    assert cluster["kubernetes_service"]["port"] == 443
    assert cluster["dns_service"] is None

    assert module(server, state="absent")["changed"] is True
    assert names(server, probes) == []
    assert names(server, f"{PLACE}/services") == []
    assert server.request("GET", PLACE)["metadata"]["deletionTimestamp"]


def test_pods_and_endpoints_are_told_by_role_and_node(server: ApiServer) -> None:
    server.request("POST", "/api/v1/nodes", {"metadata": {"name": "worker-01"}})
    module(server)
    run_pod(server, "source", "worker-01")
    run_pod(server, "target", "worker-01")
    endpoints = {
        "metadata": {"name": "tortie-verify"},
        "subsets": [{"addresses": [{"ip": "10.5.0.9"}], "ports": [{"port": 8080}]}],
    }
    server.request("POST", f"{PLACE}/endpoints", endpoints)
    cluster = module(server)["cluster"]
    assert cluster["errors"] == []
    assert [(pod["name"], pod["node"], pod["ready"]) for pod in cluster["sources"]] == [
        ("source-worker-01", "worker-01", True)
    ]
    assert [pod["name"] for pod in cluster["targets"]] == ["target-worker-01"]
    assert cluster["probe_service"]["ready"] is True
    assert [node["name"] for node in cluster["nodes"]] == ["worker-01"]


def test_pods_that_nobody_ends_are_taken_out(server: ApiServer) -> None:
    module(server)
    run_pod(server, "source", "nobody")
    assert names(server, PODS) == ["source-nobody"]
    assert module(server, state="absent")["changed"] is True
    assert names(server, PODS) == []


def test_namespace_that_is_still_being_deleted_is_told(server: ApiServer) -> None:
    module(server)
    module(server, state="absent")
    (error,) = module(server)["cluster"]["errors"]
    assert "namespace tortie-verify of an earlier run is still being deleted" in error


def test_check_mode_creates_nothing_and_reads(server: ApiServer) -> None:
    result = module(server, _ansible_check_mode=True)
    assert result["changed"] is False
    assert result["cluster"]["errors"] == []
    assert result["cluster"]["unprobed"]
    assert "tortie-verify" not in names(server, "/api/v1/namespaces")


def test_missing_daemonset_is_told_and_the_rest_is_read(server: ApiServer) -> None:
    daemonset = server.request("GET", f"{SYSTEM}/calico-node")
    server.request("DELETE", f"{SYSTEM}/calico-node")
    cluster = module(server)["cluster"]
    del daemonset["metadata"]["resourceVersion"]
    server.request("POST", SYSTEM, daemonset)
    (error,) = cluster["errors"]
    assert "there is no DaemonSet calico-node" in error
    assert cluster["kubernetes_service"] is not None


def test_server_that_is_away_is_told_and_does_not_fail_the_module(server: ApiServer, tmp_path: Any) -> None:
    away = tmp_path / "away"
    away.write_text(server.kubeconfig.read_text().replace(f":{server.port}", ":1"))
    result = module(server, kubeconfig=str(away))
    assert "failed" not in result
    assert all("127.0.0.1:1 does not answer" in error for error in result["cluster"]["errors"])
    assert result["cluster"]["errors"]
    gone = module(server, kubeconfig=str(away), state="absent")
    assert "kubectl delete namespace tortie-verify" in gone["msg"]
