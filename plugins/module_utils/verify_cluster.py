"""The API server's objects turned into the facts of verify_shapes."""

from __future__ import annotations

from typing import Any

from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import (
    Affinity,
    ClusterNode,
    Endpoint,
    PodState,
    Pool,
)

Json = dict[str, Any]

ANNOTATION_PREFIX = "projectcalico.org/"

# Waiting reasons that do not pass by waiting (kubelet: pkg/kubelet/images, pkg/kubelet/kuberuntime).
LASTING_REASONS = (
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
)


def parse_nodes(items: list[Json]) -> list[ClusterNode]:
    """Node objects, sorted by name."""
    return sorted((_node(item) for item in items), key=lambda node: node["name"])


def _node(item: Json) -> ClusterNode:
    status = item.get("status", {})
    ready: Json = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
    annotations = item["metadata"].get("annotations", {})
    return ClusterNode(
        name=item["metadata"]["name"],
        ready=ready.get("status") == "True",
        reason=ready.get("message", "") or ready.get("reason", "no Ready condition"),
        internal_ip=next(
            (a["address"] for a in status.get("addresses", []) if a["type"] == "InternalIP"), ""
        ),
        annotations={
            key[len(ANNOTATION_PREFIX) :]: value
            for key, value in annotations.items()
            if key.startswith(ANNOTATION_PREFIX)
        },
    )


def parse_affinities(items: list[Json]) -> list[Affinity]:
    """BlockAffinity objects that are not deleted (`deleted` is a string on the wire)."""
    return [
        Affinity(node=item["spec"]["node"], cidr=item["spec"]["cidr"], state=item["spec"]["state"])
        for item in items
        if str(item["spec"].get("deleted", "false")).lower() != "true"
    ]


def parse_pools(items: list[Json]) -> list[Pool]:
    """IPPool objects; absent fields have Calico's defaults."""
    return [
        Pool(
            name=item["metadata"]["name"],
            cidr=item["spec"]["cidr"],
            block_size=int(item["spec"].get("blockSize", 26)),
            ipip_mode=item["spec"].get("ipipMode", "Never"),
            vxlan_mode=item["spec"].get("vxlanMode", "Never"),
            nat_outgoing=bool(item["spec"].get("natOutgoing", False)),
            disabled=bool(item["spec"].get("disabled", False)),
            disable_bgp_export=bool(item["spec"].get("disableBGPExport", False)),
        )
        for item in items
    ]


def parse_pods(items: list[Json], **labels: str) -> list[PodState]:
    """Pods that carry all `labels` and are not being deleted, sorted by node."""
    chosen = [
        _pod(item)
        for item in items
        if not item["metadata"].get("deletionTimestamp")
        and all(item["metadata"].get("labels", {}).get(key) == value for key, value in labels.items())
    ]
    return sorted(chosen, key=lambda pod: (pod["node"], pod["name"]))


def _pod(item: Json) -> PodState:
    status = item.get("status", {})
    ready: Json = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
    return PodState(
        name=item["metadata"]["name"],
        node=item.get("spec", {}).get("nodeName", ""),
        address=status.get("podIP", ""),
        ready=ready.get("status") == "True",
        reason=_waiting(status) or ready.get("message", "") or status.get("phase", "unknown"),
    )


def _waiting(status: Json) -> str:
    """Why a container waits or ended, as `reason: message`; empty when none does."""
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        state = container.get("state", {})
        trouble: Json | None = state.get("waiting") or state.get("terminated")
        if trouble and trouble.get("reason") != "Completed":
            return ": ".join(text for text in (trouble.get("reason", ""), trouble.get("message", "")) if text)
    return ""


def parse_endpoint(service: Json | None, endpoints: Json | None) -> Endpoint | None:
    """A service's cluster address and first port; None when there is no such service or it is headless."""
    if not service or service["spec"].get("clusterIP", "None") in ("", "None"):
        return None
    return Endpoint(
        address=service["spec"]["clusterIP"],
        port=int(service["spec"]["ports"][0]["port"]),
        ready=any(subset.get("addresses") for subset in (endpoints or {}).get("subsets") or []),
    )
