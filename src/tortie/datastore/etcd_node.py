"""A Node as Calico keeps it in etcd, and as core/v1 with Calico's annotations; pure.

Calico's Node has what a Kubernetes Node says in annotations as fields. Addresses, labels, other annotations
and conditions are in both; a Kubernetes Node's other fields are the API server's business.
"""

from typing import Any, Final

from tortie.model.constants import (
    ANNOTATION_AS_NUMBER,
    ANNOTATION_IPIP_TUNNEL,
    ANNOTATION_IPV4_ADDRESS,
    ANNOTATION_VXLAN_MAC,
    ANNOTATION_VXLAN_TUNNEL,
)
from tortie.model.resources import CALICO_GROUP_VERSION

Body = dict[str, Any]

# annotation -> path of the field in Calico's Node
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    ANNOTATION_IPV4_ADDRESS: ("spec", "bgp", "ipv4Address"),
    ANNOTATION_IPIP_TUNNEL: ("spec", "bgp", "ipv4IPIPTunnelAddr"),
    ANNOTATION_AS_NUMBER: ("spec", "bgp", "asNumber"),
    "projectcalico.org/IPv6Address": ("spec", "bgp", "ipv6Address"),
    "projectcalico.org/RouteReflectorClusterID": ("spec", "bgp", "routeReflectorClusterID"),
    ANNOTATION_VXLAN_TUNNEL: ("spec", "ipv4VXLANTunnelAddr"),
    ANNOTATION_VXLAN_MAC: ("spec", "vxlanTunnelMACAddr"),
    "projectcalico.org/IPv6VXLANTunnelAddr": ("spec", "ipv6VXLANTunnelAddr"),
    "projectcalico.org/VXLANTunnelMACAddrV6": ("spec", "vxlanTunnelMACAddrV6"),
    "projectcalico.org/IPv4WireguardInterfaceAddr": ("spec", "wireguard", "interfaceIPv4Address"),
    "projectcalico.org/IPv6WireguardInterfaceAddr": ("spec", "wireguard", "interfaceIPv6Address"),
    "projectcalico.org/WireguardPublicKey": ("status", "wireguardPublicKey"),
    "projectcalico.org/WireguardPublicKeyV6": ("status", "wireguardPublicKeyV6"),
}
_CALICO_ADDRESS: Final = "CalicoNodeIP"  # type of the addresses that repeat bgp's


def node_value(body: Body) -> Body:
    """Calico's Node from a core/v1 Node. Raise nothing: an annotation is copied as it is."""
    metadata = dict(body["metadata"])
    annotations = dict(metadata.pop("annotations", {}))
    status = dict(body.get("status", {}))
    addresses = status.pop("addresses", [])
    pod_cidr = body.get("spec", {}).get("podCIDR", "")
    value: Body = {"apiVersion": CALICO_GROUP_VERSION, "kind": "Node", "metadata": metadata, "spec": {}}
    value["status"] = status
    for annotation, path in _FIELDS.items():
        text = annotations.pop(annotation, "")
        if text:
            _put(value, path, int(text) if path[-1] == "asNumber" and text.isdecimal() else text)
    if annotations:
        metadata["annotations"] = annotations
    if addresses:
        value["spec"]["addresses"] = list(addresses)
    if pod_cidr:
        status["podCIDRs"] = [pod_cidr]
    value["spec"]["orchRefs"] = [{"nodeName": metadata["name"], "orchestrator": "k8s"}]
    return {key: item for key, item in value.items() if item != {}}


def node_body(value: Body) -> Body:
    """A core/v1 Node from Calico's."""
    metadata = dict(value.get("metadata", {}))
    annotations = dict(metadata.get("annotations", {}))
    for annotation, path in _FIELDS.items():
        found = _get(value, path)
        if found not in (None, ""):
            annotations[annotation] = str(found)
    if annotations:
        metadata["annotations"] = annotations
    status = dict(value.get("status", {}))
    addresses = [
        item for item in value.get("spec", {}).get("addresses", []) if item.get("type") != _CALICO_ADDRESS
    ]
    pod_cidrs = status.pop("podCIDRs", [])
    for path in _FIELDS.values():
        if path[0] == "status":
            status.pop(path[1], None)
    if addresses:
        status["addresses"] = addresses
    spec = {"podCIDR": pod_cidrs[0]} if pod_cidrs else {}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec, "status": status}


def _put(target: Body, path: tuple[str, ...], item: object) -> None:
    for part in path[:-1]:
        target = target.setdefault(part, {})
    target[path[-1]] = item


def _get(value: Body, path: tuple[str, ...]) -> object:
    found: Any = value
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    return found
