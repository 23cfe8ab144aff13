"""Kinds that a Kubernetes datastore does not hold: read off nodes, pods, namespaces and service accounts."""

from typing import Any, Final

from tortie.cli.documents import Document, document, explicit, metadata_document
from tortie.model.endpoints import workload_endpoint
from tortie.model.nodeinfo import parse_as_number
from tortie.model.policy_natives import Namespace
from tortie.model.resources import Metadata, Node, Pod, Resource

DEFAULT_ALLOW: Final = "projectcalico-default-allow"
_CALICO: Final = "projectcalico.org/"
_NAME_LABEL: Final = "projectcalico.org/name"
_ALLOW_ALL: Final = {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}

# Where a node's data stands in its document, and in which annotation Calico's Kubernetes datastore keeps it.
NODE_FIELDS: Final[dict[tuple[str, ...], str]] = {
    ("bgp", "ipv4Address"): _CALICO + "IPv4Address",
    ("bgp", "ipv6Address"): _CALICO + "IPv6Address",
    ("bgp", "ipv4IPIPTunnelAddr"): _CALICO + "IPv4IPIPTunnelAddr",
    ("bgp", "asNumber"): _CALICO + "ASNumber",
    ("bgp", "routeReflectorClusterID"): _CALICO + "RouteReflectorClusterID",
    ("ipv4VXLANTunnelAddr",): _CALICO + "IPv4VXLANTunnelAddr",
    ("ipv6VXLANTunnelAddr",): _CALICO + "IPv6VXLANTunnelAddr",
    ("vxlanTunnelMACAddr",): _CALICO + "VXLANTunnelMACAddr",
    ("vxlanTunnelMACAddrV6",): _CALICO + "VXLANTunnelMACAddrV6",
    ("wireguard", "interfaceIPv4Address"): _CALICO + "IPv4WireguardInterfaceAddr",
    ("wireguard", "interfaceIPv6Address"): _CALICO + "IPv6WireguardInterfaceAddr",
}


def node_document(node: Node) -> Document:
    """A node with its network data; what its annotations hold is shown as it stands there."""
    annotations = dict(node.metadata.annotations)
    spec: Document = {}
    for path, key in NODE_FIELDS.items():
        value = annotations.pop(key, "")
        if value:
            _put(spec, path, _as_number(value) if path[-1] == "asNumber" else value)
    own = [spec.get("bgp", {}).get(field) for field in ("ipv4Address", "ipv6Address")]
    spec["addresses"] = [
        *({"address": address, "type": "CalicoNodeIP"} for address in own if address),
        *({"address": item.address, "type": item.type} for item in node.status.addresses),
    ]
    spec["orchRefs"] = [{"nodeName": node.metadata.name, "orchestrator": "k8s"}]
    body = document("Node", node.metadata, {key: value for key, value in spec.items() if value})
    return body | {"metadata": _with_entries(node.metadata, annotations)}


def node_patch(old: Document, new: Document) -> Document:
    """The merge patch (RFC 7386) of core/v1 Node that turns one document into the other: annotations and
    labels. Addresses and references come from Kubernetes and are not written."""
    annotations = {
        key: None if value is None else str(value)
        for path, key in NODE_FIELDS.items()
        if (value := _at(new.get("spec"), path)) != _at(old.get("spec"), path)
    }
    metadata: Document = {
        field: changes
        for field in ("labels", "annotations")
        if (changes := _changes(_entries(old, field), _entries(new, field)))
    }
    if annotations:
        metadata["annotations"] = metadata.get("annotations", {}) | annotations
    return {"metadata": metadata} if metadata else {}


def node_resource(document: Document) -> Node:
    """A node to be created, where that is possible: in etcd."""
    metadata = node_patch({}, document).get("metadata", {})
    name = (document.get("metadata") or {})["name"]
    return Node(
        metadata=Metadata(
            name=name, labels=metadata.get("labels", {}), annotations=metadata.get("annotations", {})
        )
    )


def endpoint_document(pod: Pod) -> Document | None:
    """A pod's endpoint; None for pods that have none."""
    endpoint = workload_endpoint(pod)
    if endpoint is None:
        return None
    return document("WorkloadEndpoint", endpoint.metadata, explicit(endpoint.spec))


def profile_document(resource: Resource) -> Document:
    """The profile of a namespace (allows everything, gives its labels) or of a service account (labels)."""
    metadata = resource.metadata
    prefix, name, rules = (
        ("pcns.", f"kns.{metadata.name}", _ALLOW_ALL)
        if isinstance(resource, Namespace)
        else ("pcsa.", f"ksa.{metadata.namespace}.{metadata.name}", {})
    )
    labels = {f"{prefix}{key}": value for key, value in metadata.labels.items()}
    spec: Document = {**rules, "labelsToApply": labels | {f"{prefix}{_NAME_LABEL}": metadata.name}}
    shown = Metadata(
        name=name, resource_version=metadata.resource_version, creation_timestamp=metadata.creation_timestamp
    )
    return document("Profile", shown, spec)


def default_allow_profile() -> Document:
    """The profile that every cluster has."""
    return document("Profile", Metadata(name=DEFAULT_ALLOW), dict(_ALLOW_ALL))


def _with_entries(metadata: Metadata, annotations: dict[str, str]) -> Document:
    body = metadata_document(metadata)
    body.pop("annotations", None)
    return body | ({"annotations": annotations} if annotations else {})


def _as_number(text: str) -> int | str:
    try:
        return parse_as_number(text)
    except ValueError:
        return text


def _put(spec: Document, path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        spec = spec.setdefault(part, {})
    spec[path[-1]] = value


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _entries(body: Document, field: str) -> dict[str, str]:
    return dict((body.get("metadata") or {}).get(field) or {})


def _changes(old: dict[str, str], new: dict[str, str]) -> dict[str, str | None]:
    gone: dict[str, str | None] = {key: None for key in old if key not in new}
    return gone | {key: value for key, value in new.items() if old.get(key) != value}
