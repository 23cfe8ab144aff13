"""What keeps a DaemonSet or a Deployment from being complete, and why: objects in, sentences out. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Obstacle:
    """One reason to wait. `pod` and `container` say whose log explains it; `previous`: of its last run."""

    node: str
    reason: str
    pod: str = ""
    container: str = ""
    previous: bool = False

    def sentence(self, log: Sequence[str] = ()) -> str:
        """For people; `log` holds the container's last lines."""
        place = f"Node {self.node}: " if self.node else ""
        lines = f" Last lines of its log: {' | '.join(log)}" if log else ""
        return f"{place}{self.reason}.{lines}"


def obstacles(name: str, objects: Iterable[Document]) -> list[Obstacle]:
    """Everything that DaemonSet `name` and the nodes still wait for.

    `objects`: all nodes, and the daemonsets and pods of its namespace.
    """
    items = list(objects)
    daemonset = next(
        (item for item in items if item["kind"] == "DaemonSet" and item["metadata"]["name"] == name), None
    )
    if daemonset is None:
        return [Obstacle("", f"DaemonSet {name} does not exist")]
    nodes = {item["metadata"]["name"]: item for item in items if item["kind"] == "Node"}
    pods = [item for item in items if item["kind"] == "Pod" and belongs_to(item, name)]
    found = []
    for node in sorted(nodes):
        here = [pod for pod in pods if node_of(pod) == node]
        found += _of_node(name, node, nodes[node], here)
    return found or _of_daemonset(name, daemonset, len(nodes))


def deployment_obstacles(name: str, objects: Iterable[Document]) -> list[Obstacle]:
    """Everything that Deployment `name` still waits for. `objects`: deployments and pods of its namespace."""
    items = list(objects)
    deployment = next(
        (item for item in items if item["kind"] == "Deployment" and item["metadata"]["name"] == name), None
    )
    if deployment is None:
        return [Obstacle("", f"Deployment {name} does not exist")]
    status = deployment.get("status", {})
    wanted = deployment["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        return [Obstacle("", f"the controller has not seen the last change of Deployment {name}")]
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    if updated >= wanted and available >= wanted and status.get("replicas", 0) <= updated:
        return []
    labels = deployment["spec"]["selector"].get("matchLabels", {})
    found = [
        _of_pod(node_of(item), item)
        for item in items
        if item["kind"] == "Pod"
        and not item["metadata"].get("deletionTimestamp")
        and labels.items() <= item["metadata"].get("labels", {}).items()
        and condition(item, "Ready").get("status") != "True"
    ]
    counts = f"Deployment {name} has {updated} updated and {available} available pods of {wanted}"
    return found or [Obstacle("", counts)]


def belongs_to(pod: Document, daemonset: str) -> bool:
    """Whether the DaemonSet made this pod."""
    owners = pod["metadata"].get("ownerReferences") or []
    return any(owner["kind"] == "DaemonSet" and owner["name"] == daemonset for owner in owners)


def node_of(pod: Document) -> str:
    """The node that the pod runs on or is meant for: before scheduling its affinity says so."""
    spec = pod["spec"]
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    required = (
        spec.get("affinity", {})
        .get("nodeAffinity", {})
        .get("requiredDuringSchedulingIgnoredDuringExecution", {})
    )
    for term in required.get("nodeSelectorTerms") or []:
        for field in term.get("matchFields") or []:
            if field.get("key") == "metadata.name" and field.get("values"):
                return str(field["values"][0])
    return ""


def condition(document: Document, kind: str) -> Document:
    """One of status.conditions; empty when it is not there."""
    found: Document
    for found in document.get("status", {}).get("conditions") or []:
        if found.get("type") == kind:
            return found
    return {}


def _of_node(name: str, node: str, document: Document, pods: Sequence[Document]) -> list[Obstacle]:
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    if not alive:
        leaving = " (the old one is still stopping)" if pods else ""
        return [Obstacle(node, f"there is no {name} pod{leaving}")]
    newest = max(alive, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""))
    if condition(newest, "Ready").get("status") != "True":
        return [_of_pod(node, newest)]
    ready = condition(document, "Ready")
    if ready.get("status") != "True":
        words = ready.get("message") or ready.get("reason") or "kubelet has not reported yet"
        return [Obstacle(node, f"the node is not Ready: {_clean(words)}")]
    return []


def _of_pod(node: str, pod: Document) -> Obstacle:
    """What the pod's containers say, the init containers first: they run first."""
    pod_name = str(pod["metadata"]["name"])
    status = pod.get("status", {})
    init = status.get("initContainerStatuses") or []
    for item in [*init, *(status.get("containerStatuses") or [])]:
        container = str(item["name"])
        state = item.get("state", {})
        last = item.get("lastState", {}).get("terminated") or {}
        waiting = state.get("waiting") or {}
        ended = state.get("terminated") or {}
        if waiting and waiting.get("reason") != "PodInitializing":
            code = f", its last run ended with status {last['exitCode']}" if "exitCode" in last else ""
            message = f" ({_clean(waiting['message'])})" if waiting.get("message") else ""
            why = f"{waiting.get('reason', 'Waiting')}{code}{message}"
            reason = f"pod {pod_name}, container {container} is in {why}"
            return Obstacle(node, reason, pod_name if last else "", container, previous=bool(last))
        if ended and ended.get("exitCode"):
            reason = f"pod {pod_name}, container {container} ended with status {ended['exitCode']}"
            return Obstacle(node, reason, pod_name, container)
        if item in init and not ended:
            return Obstacle(node, f"pod {pod_name}, container {container} is not done", pod_name, container)
        if item not in init and not item.get("ready"):
            reason = f"pod {pod_name}, container {container} is not ready"
            return Obstacle(node, reason, pod_name if "running" in state else "", container)
    scheduled = condition(pod, "PodScheduled")
    words = scheduled.get("message") or f"its phase is {status.get('phase', 'unknown')}"
    return Obstacle(node, f"pod {pod_name} is not ready: {_clean(words)}")


def _of_daemonset(name: str, daemonset: Document, nodes: int) -> list[Obstacle]:
    """Every node looks complete; the controller must agree, and have rolled the current template out."""
    status = daemonset.get("status", {})
    generation = daemonset["metadata"].get("generation", 0)
    if status.get("observedGeneration", 0) < generation:
        return [Obstacle("", f"the controller has not seen the last change of DaemonSet {name}")]
    wanted = status.get("desiredNumberScheduled", 0)
    updated = status.get("updatedNumberScheduled", 0)
    available = status.get("numberAvailable", 0)
    if wanted < nodes:
        return [Obstacle("", f"DaemonSet {name} is meant for {wanted} of {nodes} nodes")]
    if updated < wanted or available < wanted:
        return [
            Obstacle(
                "",
                f"DaemonSet {name} has {updated} updated and {available} available pods on {wanted} nodes",
            )
        ]
    return []


def _clean(text: Any) -> str:
    """One line without its full stop."""
    return " ".join(str(text).split()).rstrip(".")
