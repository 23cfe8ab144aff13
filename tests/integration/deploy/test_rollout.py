"""kube_rollout against a real API server whose objects the test writes, as kubelet and controllers would."""

from typing import Any

import pytest

from tests.integration.deploy.conftest import ROOT, Cluster

NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/kube-system/pods"
DAEMONSET = "/apis/apps/v1/namespaces/kube-system/daemonsets/calico-node"
TASKS = [
    {
        "name": "Wait",
        "tortie.cluster.kube_rollout": {
            "name": "calico-node",
            "timeout": 2,
            "kubeconfig": "{{ __tortie_kubeconfig }}",
        },
    }
]


@pytest.fixture
def installed(cluster: Cluster) -> Cluster:
    """deploy/ and one Ready node without a pod."""
    cluster.server.reset()
    cluster.kubectl("apply", "-f", str(ROOT / "deploy"))
    request = cluster.server.request
    request("POST", NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-01"}})
    node = request("GET", f"{NODES}/worker-01")
    node["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    request("PUT", f"{NODES}/worker-01/status", node)
    daemonset = request("GET", DAEMONSET)
    counts = ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable", "currentNumberScheduled")
    daemonset["status"] = {
        **dict.fromkeys(counts, 1),
        "numberMisscheduled": 0,
        "numberReady": 1,
        "observedGeneration": daemonset["metadata"]["generation"],
    }
    request("PUT", f"{DAEMONSET}/status", daemonset)
    return cluster


def run_pod(cluster: Cluster, ready: bool, state: dict[str, Any]) -> None:
    """A pod of the DaemonSet on the node."""
    request = cluster.server.request
    daemonset = request("GET", DAEMONSET)
    owner = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "name": "calico-node",
        "uid": daemonset["metadata"]["uid"],
        "controller": True,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "calico-node-x", "namespace": "kube-system", "ownerReferences": [owner]},
        "spec": {"nodeName": "worker-01", "containers": [{"name": "calico-node", "image": "x"}]},
    }
    pod = request("POST", PODS, pod)
    pod["status"] = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        "containerStatuses": [
            {
                "name": "calico-node",
                "ready": ready,
                "restartCount": 0,
                "image": "x",
                "imageID": "",
                "state": state,
            }
        ],
    }
    request("PUT", f"{PODS}/calico-node-x/status", pod)


def test_complete_daemonset_ends_the_wait(installed: Cluster) -> None:
    run_pod(installed, True, {"running": {}})
    result = installed.playbook(TASKS)
    assert result.returncode == 0, result.stdout
    assert "changed=0" in result.stdout


def test_node_and_reason_are_named_after_the_timeout(installed: Cluster) -> None:
    run_pod(installed, False, {"waiting": {"reason": "ErrImageNeverPull", "message": "no image x"}})
    result = installed.playbook(TASKS)
    assert result.returncode != 0
    assert (
        "DaemonSet calico-node is not complete after 2 s. Node worker-01: pod calico-node-x, container "
        "calico-node is in ErrImageNeverPull (no image x)."
    ) in " ".join(result.stdout.split())


def test_check_mode_looks_once_and_does_not_fail(installed: Cluster) -> None:
    result = installed.playbook(TASKS, "--check", "-v")
    assert result.returncode == 0
    assert "Node worker-01: there is no calico-node pod." in result.stdout


def test_api_server_that_is_away_is_the_reason(installed: Cluster) -> None:
    away = installed.scratch / "away.kubeconfig"
    away.write_text(installed.server.kubeconfig.read_text().replace(str(installed.server.port), "1"))
    result = installed.playbook(TASKS, __tortie_kubeconfig=str(away))
    assert result.returncode != 0
    assert "Cannot read the cluster's state: " in result.stdout
