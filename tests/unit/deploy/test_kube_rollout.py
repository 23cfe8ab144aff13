"""What keeps a DaemonSet from being complete, and on which node."""

from typing import Any

from ansible_collections.tortie.cluster.plugins.module_utils.kube_rollout import (
    Obstacle,
    deployment_obstacles,
    node_of,
    obstacles,
)


def node(name: str, ready: str = "True", message: str = "") -> dict[str, Any]:
    """A node."""
    condition = {"type": "Ready", "status": ready, "message": message}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"conditions": [condition]},
    }


def pod(on: str, ready: bool = True, **status: Any) -> dict[str, Any]:
    """A calico-node pod on a node."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"calico-node-{on[-1]}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"kind": "DaemonSet", "name": "calico-node"}],
        },
        "spec": {"nodeName": on},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            **status,
        },
    }


def daemonset(nodes: int = 2, updated: int = 2, available: int = 2, observed: int = 4) -> dict[str, Any]:
    """The DaemonSet."""
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "calico-node", "generation": 4},
        "status": {
            "observedGeneration": observed,
            "desiredNumberScheduled": nodes,
            "updatedNumberScheduled": updated,
            "numberAvailable": available,
        },
    }


def reasons(*objects: dict[str, Any]) -> list[str]:
    """Sentences about node-a (complete) and the given objects."""
    found = obstacles("calico-node", [node("node-a"), pod("node-a"), *objects])
    return [item.sentence() for item in found]


def test_complete_daemonset_on_ready_nodes_has_no_obstacle() -> None:
    assert reasons(daemonset(), node("node-b"), pod("node-b")) == []


def test_missing_daemonset_is_said() -> None:
    assert reasons() == ["DaemonSet calico-node does not exist."]


def test_node_without_pod_is_named() -> None:
    assert reasons(daemonset(), node("node-b")) == ["Node node-b: there is no calico-node pod."]


def test_pod_that_is_stopping_does_not_count() -> None:
    leaving = pod("node-b")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
    (sentence,) = reasons(daemonset(), node("node-b"), leaving)
    assert sentence == "Node node-b: there is no calico-node pod (the old one is still stopping)."


def test_pods_of_other_daemonsets_do_not_count() -> None:
    other = pod("node-b")
    other["metadata"]["ownerReferences"][0]["name"] = "kube-proxy"
    assert reasons(daemonset(), node("node-b"), other) == ["Node node-b: there is no calico-node pod."]


def test_image_that_cannot_be_pulled_is_the_reason() -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image\n x"}
    status = {"name": "install-cni", "ready": False, "state": {"waiting": waiting}}
    (sentence,) = reasons(daemonset(), node("node-b"), pod("node-b", False, initContainerStatuses=[status]))
    assert sentence == (
        "Node node-b: pod calico-node-b, container install-cni is in ImagePullBackOff "
        "(Back-off pulling image x)."
    )


def test_crashing_container_is_explained_by_its_previous_log() -> None:
    status = {
        "name": "calico-node",
        "ready": False,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1}},
    }
    (found,) = obstacles(
        "calico-node", [daemonset(1), node("node-b"), pod("node-b", False, containerStatuses=[status])]
    )
    assert (found.pod, found.container, found.previous) == ("calico-node-b", "calico-node", True)
    assert found.sentence(["no such interface eth9", "exiting"]) == (
        "Node node-b: pod calico-node-b, container calico-node is in CrashLoopBackOff, its last run ended "
        "with status 1. Last lines of its log: no such interface eth9 | exiting"
    )


def test_running_container_that_is_not_ready_is_explained_by_its_log() -> None:
    statuses = {
        "initContainerStatuses": [{"name": "install-cni", "state": {"terminated": {"exitCode": 0}}}],
        "containerStatuses": [{"name": "calico-node", "ready": False, "state": {"running": {}}}],
    }
    (found,) = obstacles("calico-node", [daemonset(1), node("node-b"), pod("node-b", False, **statuses)])
    assert found == Obstacle(
        "node-b", "pod calico-node-b, container calico-node is not ready", "calico-node-b", "calico-node"
    )


def test_failed_init_container_is_explained_by_its_log() -> None:
    status = {"name": "install-cni", "state": {"terminated": {"exitCode": 3}}}
    waiting = {"name": "calico-node", "ready": False, "state": {"waiting": {"reason": "PodInitializing"}}}
    (found,) = obstacles(
        "calico-node",
        [
            daemonset(1),
            node("node-b"),
            pod("node-b", False, initContainerStatuses=[status], containerStatuses=[waiting]),
        ],
    )
    assert found.reason == "pod calico-node-b, container install-cni ended with status 3"
    assert (found.pod, found.container) == ("calico-node-b", "install-cni")


def test_unscheduled_pod_belongs_to_the_node_of_its_affinity() -> None:
    unscheduled = pod("node-b", False, phase="Pending")
    unscheduled["spec"] = {
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "values": ["node-b"]}]}]
                }
            }
        }
    }
    unscheduled["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "message": "0/2 nodes have enough cpu."}
    ]
    assert node_of(unscheduled) == "node-b"
    (sentence,) = reasons(daemonset(), node("node-b"), unscheduled)
    assert sentence == "Node node-b: pod calico-node-b is not ready: 0/2 nodes have enough cpu."


def test_node_that_is_not_ready_is_named_with_kubelets_words() -> None:
    (sentence,) = reasons(
        daemonset(), node("node-b", "False", "container runtime network not ready"), pod("node-b")
    )
    assert sentence == "Node node-b: the node is not Ready: container runtime network not ready."


def test_newer_pod_decides() -> None:
    old, new = pod("node-b"), pod("node-b", False)
    new["metadata"] = {
        **new["metadata"],
        "name": "calico-node-new",
        "creationTimestamp": "2026-01-02T00:00:00Z",
    }
    (sentence,) = reasons(daemonset(), node("node-b"), new, old)
    assert "pod calico-node-new is not ready" in sentence


def test_change_that_is_not_rolled_out_is_waited_for() -> None:
    everything = [node("node-b"), pod("node-b")]
    assert reasons(daemonset(observed=3), *everything) == [
        "the controller has not seen the last change of DaemonSet calico-node."
    ]
    assert reasons(daemonset(nodes=1), *everything) == ["DaemonSet calico-node is meant for 1 of 2 nodes."]
    assert reasons(daemonset(updated=1), *everything) == [
        "DaemonSet calico-node has 1 updated and 2 available pods on 2 nodes."
    ]
    assert reasons(daemonset(available=1), *everything) == [
        "DaemonSet calico-node has 2 updated and 1 available pods on 2 nodes."
    ]


def deployment(updated: int = 1, available: int = 1, total: int = 1, observed: int = 2) -> dict[str, Any]:
    """A Deployment of one pod."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "calico-kube-controllers", "generation": 2},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"k8s-app": "calico-kube-controllers"}}},
        "status": {
            "observedGeneration": observed,
            "replicas": total,
            "updatedReplicas": updated,
            "availableReplicas": available,
        },
    }


def controllers_pod(**status: Any) -> dict[str, Any]:
    """Its pod, not ready."""
    made = pod("node-b", False, **status)
    made["metadata"] = {
        "name": "calico-kube-controllers-x",
        "labels": {"k8s-app": "calico-kube-controllers", "pod-template-hash": "1"},
    }
    return made


def deployment_reasons(*objects: dict[str, Any]) -> list[str]:
    return [item.sentence() for item in deployment_obstacles("calico-kube-controllers", objects)]


def test_complete_deployment_has_no_obstacle() -> None:
    assert deployment_reasons(deployment(), pod("node-a")) == []


def test_missing_or_unseen_deployment_is_said() -> None:
    assert deployment_reasons() == ["Deployment calico-kube-controllers does not exist."]
    (sentence,) = deployment_reasons(deployment(observed=1))
    assert "has not seen the last change of Deployment calico-kube-controllers" in sentence


def test_pod_of_a_deployment_says_why_it_is_not_ready() -> None:
    waiting = {"reason": "ErrImageNeverPull", "message": "no image x"}
    status = {"name": "calico-kube-controllers", "ready": False, "state": {"waiting": waiting}}
    failing = controllers_pod(containerStatuses=[status])
    assert deployment_reasons(deployment(available=0), failing, pod("node-a", False)) == [
        "Node node-b: pod calico-kube-controllers-x, container calico-kube-controllers is in "
        "ErrImageNeverPull (no image x)."
    ]


def test_deployment_without_a_pod_or_with_an_old_one_too_many_is_counted() -> None:
    for state in (deployment(0, 0, 0), deployment(total=2)):
        (sentence,) = deployment_reasons(state)
        assert sentence.startswith("Deployment calico-kube-controllers has ")
