"""The kinds that `get` knows: their names, their columns and their projectcalico.org/v3 shape."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import Struct

from tortie.model.constants import DEFAULT_AS_NUMBER
from tortie.model.endpoints import workload_endpoint
from tortie.model.nodeinfo import parse_node
from tortie.model.resources import BlockAffinity, IPPool, Metadata, Node, Pod, Resource

API_VERSION: Final = "projectcalico.org/v3"
Document = dict[str, Any]
R = TypeVar("R", bound=Resource)


class UnknownKindError(ValueError):
    """`get` was asked for a kind that it does not know; the message lists those it knows."""


@dataclass(frozen=True, slots=True)
class Item:
    """One object for display. `cells` are by column heading; `document` is its v3 form."""

    name: str
    namespace: str
    cells: dict[str, str]
    document: Document


Convert = Callable[[Any, int], Item | None]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of `get`. `convert` takes a stored object and the cluster's AS number; None: no such item."""

    title: str
    names: tuple[str, ...]
    stored: type[Resource]
    headings: tuple[str, ...]
    wide: tuple[str, ...]
    convert: Convert
    namespaced: bool = False

    def items(self, stored: Iterable[Resource], as_number: int = DEFAULT_AS_NUMBER) -> list[Item]:
        """Items in order of namespace and name."""
        found = [item for item in (self.convert(resource, as_number) for resource in stored) if item]
        return sorted(found, key=lambda item: (item.namespace, item.name))


def explicit(struct: Struct) -> Document:
    """A struct under its wire names, defaults included; None, empty collections and strings are left out."""
    values = {
        item.encode_name: msgspec.to_builtins(getattr(struct, item.name))
        for item in msgspec.structs.fields(struct)
    }
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}


def document(kind: str, metadata: Metadata, spec: Document) -> Document:
    """An object in the v3 API."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": explicit(metadata), "spec": spec}


def document_list(kind: Kind, items: Sequence[Item], resource_version: str) -> Document:
    """A list in the v3 API."""
    return {
        "apiVersion": API_VERSION,
        "kind": f"{kind.title}List",
        "items": [item.document for item in items],
        "metadata": {"resourceVersion": resource_version},
    }


def node_item(node: Node, as_number: int) -> Item:
    """A node with the BGP data of its annotations; an AS number in brackets is the cluster's."""
    info = parse_node(node)
    name = node.metadata.name
    address = str(info.ipv4) if info.ipv4 else ""
    bgp: Document = {
        "asNumber": info.as_number,
        "ipv4Address": address,
        "ipv4IPIPTunnelAddr": str(info.ipip_tunnel or ""),
    }
    spec: Document = {
        "addresses": [
            *([{"address": address, "type": "CalicoNodeIP"}] if address else []),
            *({"address": item.address, "type": item.type} for item in node.status.addresses),
        ],
        "bgp": {key: value for key, value in bgp.items() if value},
        "ipv4VXLANTunnelAddr": str(info.vxlan_tunnel or ""),
        "orchRefs": [{"nodeName": name, "orchestrator": "k8s"}],
        "vxlanTunnelMACAddr": info.vxlan_mac,
    }
    cells = {
        "NAME": name,
        "ASN": str(info.as_number) if info.as_number else f"({as_number})",
        "IPV4": address,
        "IPV6": "",
    }
    return Item(
        name, "", cells, document("Node", node.metadata, {key: value for key, value in spec.items() if value})
    )


def pool_item(pool: IPPool, _as_number: int) -> Item:
    """A pool."""
    spec = pool.spec
    cells = {
        "NAME": pool.metadata.name,
        "CIDR": spec.cidr,
        "NAT": _boolean(spec.nat_outgoing),
        "IPIPMODE": spec.ipip_mode,
        "VXLANMODE": spec.vxlan_mode,
        "DISABLED": _boolean(spec.disabled),
        "DISABLEBGPEXPORT": _boolean(spec.disable_bgp_export),
        "SELECTOR": spec.node_selector,
    }
    return Item(pool.metadata.name, "", cells, document("IPPool", pool.metadata, explicit(spec)))


def affinity_item(affinity: BlockAffinity, _as_number: int) -> Item | None:
    """A node's claim on a block; one that is being deleted no longer exists for people."""
    spec = affinity.spec
    if spec.deleted == "true":
        return None
    cells = {
        "NAME": affinity.metadata.name,
        "CIDR": spec.cidr,
        "NODE": spec.node,
        "STATE": spec.state,
        "TYPE": spec.type,
    }
    # In the v3 API `deleted` is a boolean.
    shape = {**explicit(spec), "deleted": False}
    return Item(affinity.metadata.name, "", cells, document("BlockAffinity", affinity.metadata, shape))


def endpoint_item(pod: Pod, _as_number: int) -> Item | None:
    """A pod's endpoint; None for pods that have none."""
    endpoint = workload_endpoint(pod)
    if endpoint is None:
        return None
    spec, metadata = endpoint.spec, endpoint.metadata
    cells = {
        "NAMESPACE": metadata.namespace,
        "NAME": metadata.name,
        "WORKLOAD": spec.pod,
        "NODE": spec.node,
        "NETWORKS": ",".join(spec.ip_networks),
        "INTERFACE": spec.interface_name,
        "PROFILES": ",".join(spec.profiles),
        "NATS": "",
    }
    return Item(
        metadata.name, metadata.namespace, cells, document("WorkloadEndpoint", metadata, explicit(spec))
    )


def _boolean(value: bool) -> str:
    return "true" if value else "false"


KINDS: Final = (
    Kind(
        title="Node",
        names=("nodes", "node", "no"),
        stored=Node,
        headings=("NAME",),
        wide=("NAME", "ASN", "IPV4", "IPV6"),
        convert=cast(Convert, node_item),
    ),
    Kind(
        title="IPPool",
        names=("ippools", "ippool", "ipp", "ipps", "pool", "pools"),
        stored=IPPool,
        headings=("NAME", "CIDR", "SELECTOR"),
        wide=("NAME", "CIDR", "NAT", "IPIPMODE", "VXLANMODE", "DISABLED", "DISABLEBGPEXPORT", "SELECTOR"),
        convert=cast(Convert, pool_item),
    ),
    Kind(
        title="BlockAffinity",
        names=("blockaffinities", "blockaffinity", "affinities", "affinity"),
        stored=BlockAffinity,
        headings=("NAME", "CIDR", "NODE"),
        wide=("NAME", "CIDR", "NODE", "STATE", "TYPE"),
        convert=cast(Convert, affinity_item),
    ),
    Kind(
        title="WorkloadEndpoint",
        names=("workloadendpoints", "workloadendpoint", "weps", "wep"),
        stored=Pod,
        headings=("WORKLOAD", "NODE", "NETWORKS", "INTERFACE"),
        wide=("NAME", "WORKLOAD", "NODE", "NETWORKS", "INTERFACE", "PROFILES", "NATS"),
        convert=cast(Convert, endpoint_item),
        namespaced=True,
    ),
)


def kind_named(name: str) -> Kind:
    """The kind with this name, plural, singular or short, in any case. Raise UnknownKindError."""
    for kind in KINDS:
        if name.lower() in kind.names:
            return kind
    known = ", ".join(kind.names[0] for kind in KINDS)
    raise UnknownKindError(f"unknown kind {name!r}; known are: {known}")
