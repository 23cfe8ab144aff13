"""Where and in which JSON Calico keeps each kind in etcd; pure.

A *body* here is an object as the rest of the package knows it (the form of crd.projectcalico.org/v1, or of
core/v1 for a Node), a *value* is what stands under the key:

    kind           key                                                          value
    IPAMBlock      /calico/ipam/v2/assignment/ipv4/block/10.5.0.0-26            the spec, some names differ
    BlockAffinity  /calico/ipam/v2/host/<node>/ipv4/block/10.5.0.0-26           state, deleted (a boolean)
    IPAMHandle     /calico/ipam/v2/handle/<handle id>                           block, deleted
    IPAMConfig     /calico/ipam/v2/config                                       strict_affinity, ...
    all others     /calico/resources/v3/projectcalico.org/<plural>[/<ns>]/<name>  whole object, v3

An IPAM value has no metadata. Ours gets a member `metadata` when there is any to keep; Calico ignores it.
"""

import re
import uuid
from dataclasses import dataclass
from typing import Any, Final

from tortie.datastore.etcd_node import node_body, node_value
from tortie.datastore.interface import InvalidError
from tortie.model.names import affinity_labels, affinity_name, cidr_name, handle_name
from tortie.model.resources import (
    CALICO_GROUP_VERSION,
    CRD_GROUP_VERSION,
    BlockAffinity,
    IPAMBlock,
    IPAMConfig,
    IPAMHandle,
    Node,
    Resource,
)

Body = dict[str, Any]

_IPAM: Final = "/calico/ipam/v2"
_RESOURCES: Final = "/calico/resources/v3/projectcalico.org"
_BLOCK_KEY: Final = re.compile(rf"{_IPAM}/assignment/ipv[46]/block/([^/]+)")
_AFFINITY_KEY: Final = re.compile(rf"{_IPAM}/(host|virtual)/([^/]+)/ipv[46]/block/([^/]+)")
_HANDLE_KEY: Final = re.compile(rf"{_IPAM}/handle/(.+)")
_V4_NAME: Final = re.compile(r"(\d+)-(\d+)-(\d+)-(\d+)-(\d+)")
_V4_AFFINITY_NAME: Final = re.compile(r"(.+)-(\d+-\d+-\d+-\d+-\d+)")
# Metadata that only the API server has a use for, or that is derived.
_NOT_STORED: Final = frozenset({"resourceVersion", "managedFields", "selfLink", "generation"})
_UID_NAMESPACE: Final = uuid.UUID("6f1f6a3c-9c53-5d0f-8f0e-5b1c54a0c7de")


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Keys from `start` on and before `end`; an empty `end` means the one key `start` (RangeRequest)."""

    start: str
    end: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A key with its value, decoded, and etcd's revisions of it."""

    key: str
    value: Body
    create_revision: int
    mod_revision: int


def _below(prefix: str) -> KeyRange:
    """All keys that begin with `prefix`, which ends with a slash: `0` is the character after it."""
    return KeyRange(prefix, prefix[:-1] + "0")


def _plural(kind: type[Resource], namespace: str) -> str:
    where = kind.resource_type
    if kind is not Node and where.api_version not in (CRD_GROUP_VERSION, CALICO_GROUP_VERSION):
        raise InvalidError(
            f"{where.kind} ({where.api_version}) is Kubernetes' own and not in etcd's Calico data: read it "
            "from the API server."
        )
    return f"{_RESOURCES}/{where.plural}/" + (f"{namespace}/" if namespace and where.namespaced else "")


def key_range(kind: type[Resource], namespace: str = "") -> KeyRange:
    """Where all objects of a kind are. Raise InvalidError for a kind that Calico does not keep in etcd."""
    if kind is IPAMBlock:
        return _below(f"{_IPAM}/assignment/")
    if kind is BlockAffinity:
        # host/ and virtual/ are neighbours: no other key of Calico's sorts between them.
        return KeyRange(f"{_IPAM}/host/", f"{_IPAM}/virtual0")
    if kind is IPAMHandle:
        return _below(f"{_IPAM}/handle/")
    if kind is IPAMConfig:
        return KeyRange(f"{_IPAM}/config", "")
    return _below(_plural(kind, namespace))


def key_of_name(kind: type[Resource], name: str, namespace: str = "") -> str:
    """The key of an object whose name is known; "" when the name does not tell (look through `key_range`).

    A handle's name tells its key only while the handle's id is in lower case.
    """
    if kind is IPAMBlock:
        return _block_key(_cidr_of_name(name))
    if kind is BlockAffinity:
        found = _V4_AFFINITY_NAME.fullmatch(name)
        return _affinity_key("host", found[1], _cidr_of_name(found[2])) if found else ""
    if kind is IPAMHandle:
        return f"{_IPAM}/handle/{name}"
    if kind is IPAMConfig:
        return f"{_IPAM}/config"
    return _plural(kind, namespace) + name


def is_exact(kind: type[Resource]) -> bool:
    """Whether `key_of_name` is the only key that an object of this name can have."""
    return kind is not IPAMHandle and kind is not BlockAffinity


def key_of(kind: type[Resource], body: Body) -> str:
    """The key under which to write an object. Raise InvalidError when its spec does not say."""
    spec, metadata = body.get("spec", {}), body["metadata"]
    if kind is IPAMBlock:
        return _block_key(spec["cidr"])
    if kind is BlockAffinity:
        return _affinity_key(spec.get("type") or "host", spec["node"], spec["cidr"])
    if kind is IPAMHandle:
        return f"{_IPAM}/handle/{spec['handleID']}"
    if kind is IPAMConfig and metadata["name"] != "default":
        raise InvalidError(f"IPAMConfig {metadata['name']!r}: etcd has room for one, named default.")
    return key_of_name(kind, metadata["name"], metadata.get("namespace", ""))


def _version(cidr: str) -> int:
    return 6 if ":" in cidr else 4


def _block_key(cidr: str) -> str:
    return f"{_IPAM}/assignment/ipv{_version(cidr)}/block/{cidr.replace('/', '-')}"


def _affinity_key(affinity_type: str, node: str, cidr: str) -> str:
    return f"{_IPAM}/{affinity_type}/{node}/ipv{_version(cidr)}/block/{cidr.replace('/', '-')}"


def _cidr_of_name(name: str) -> str:
    """`10-5-0-0-26` is 10.5.0.0/26, `fd00-10---122` is fd00:10::/122 (inverse of names.cidr_name)."""
    if _V4_NAME.fullmatch(name):
        address, _, length = name.replace("-", ".").rpartition(".")
    else:
        address, _, length = name.rpartition("-")
        address = address.replace("-", ":")
    return f"{address}/{length}"


def _cidr_of_key(part: str) -> str:
    address, _, length = part.rpartition("-")
    return f"{address}/{length}"


# --- values ------------------------------------------------------------------------------------------------


def value_of(kind: type[Resource], body: Body) -> Body:
    """What to write for an object."""
    metadata = {key: value for key, value in body["metadata"].items() if key not in _NOT_STORED}
    spec = body.get("spec", {})
    if kind is IPAMBlock:
        return _block_value(spec) | _kept(metadata)
    if kind is BlockAffinity:
        derived = affinity_labels(spec["node"], spec["cidr"])
        labels = {
            key: value for key, value in metadata.get("labels", {}).items() if derived.get(key) != value
        }
        rest = _except(spec, "cidr", "node", "type", "deleted")
        deleted = spec.get("deleted") == "true"
        return {"state": spec["state"], "deleted": deleted, **rest} | _kept(metadata | {"labels": labels})
    if kind is IPAMHandle:
        rest = _except(spec, "handleID", "deleted")
        return {**rest, "deleted": spec.get("deleted", False)} | _kept(metadata)
    if kind is IPAMConfig:
        renamed = {
            "strict_affinity": spec.get("strictAffinity", False),
            "auto_allocate_blocks": spec.get("autoAllocateBlocks", False),
        }
        return {**renamed, **_except(spec, "strictAffinity", "autoAllocateBlocks")} | _kept(metadata)
    if kind is Node:
        return node_value({**body, "metadata": metadata})
    return {**body, "apiVersion": CALICO_GROUP_VERSION, "metadata": metadata}


def body_of(kind: type[Resource], stored: Stored) -> Body:
    """The object that stands under a key. Raise InvalidError when the key is none of the kind's."""
    value = stored.value
    if kind is IPAMBlock:
        found = _BLOCK_KEY.fullmatch(stored.key)
        if found is None:
            raise InvalidError(f"etcd's key {stored.key} is no block's.")
        name, spec = cidr_name(_cidr_of_key(found[1])), _block_spec(value)
    elif kind is BlockAffinity:
        found = _AFFINITY_KEY.fullmatch(stored.key)
        if found is None:
            raise InvalidError(f"etcd's key {stored.key} is no block affinity's.")
        cidr, node = _cidr_of_key(found[3]), found[2]
        name, spec = (
            affinity_name(node, cidr),
            {
                **_except(value, "deleted", "metadata"),
                "cidr": cidr,
                "node": node,
                "type": found[1],
                "deleted": "true" if value.get("deleted") else "false",
            },
        )
        kept = value.get("metadata", {})
        labels = affinity_labels(node, cidr) | kept.get("labels", {})
        value = {**value, "metadata": kept | {"labels": labels}}
    elif kind is IPAMHandle:
        found = _HANDLE_KEY.fullmatch(stored.key)
        if found is None:
            raise InvalidError(f"etcd's key {stored.key} is no handle's.")
        name, spec = handle_name(found[1]), {**_except(value, "metadata"), "handleID": found[1]}
    elif kind is IPAMConfig:
        name, spec = (
            "default",
            {
                **_except(value, "strict_affinity", "auto_allocate_blocks", "metadata"),
                "strictAffinity": value.get("strict_affinity", False),
                "autoAllocateBlocks": value.get("auto_allocate_blocks", False),
            },
        )
    else:
        api_version = kind.resource_type.api_version
        body = node_body(value) if kind is Node else {**value, "apiVersion": api_version}
        body["metadata"] = _identified(body.get("metadata", {}), stored)
        return body
    metadata = _identified({**value.get("metadata", {}), "name": name}, stored)
    where = kind.resource_type
    return {"apiVersion": where.api_version, "kind": where.kind, "metadata": metadata, "spec": spec}


def _identified(metadata: Body, stored: Stored) -> Body:
    """With the resource version and, where nobody stored one, a uid that a new object does not share."""
    uid = metadata.get("uid") or str(uuid.uuid5(_UID_NAMESPACE, f"{stored.create_revision}{stored.key}"))
    return {**metadata, "uid": uid, "resourceVersion": str(stored.mod_revision)}


def _block_value(spec: Body) -> Body:
    value = {"affinity": None, **_except(spec, "affinityClaimTime", "strictAffinity")}
    if spec.get("affinityClaimTime"):
        value["affinity_claim_time"] = spec["affinityClaimTime"]
    if spec.get("strictAffinity"):
        value["strictAffinity"] = True
    return value


def _block_spec(value: Body) -> Body:
    spec = {"strictAffinity": False, **_except(value, "metadata", "affinity_claim_time")}
    if value.get("affinity_claim_time"):
        spec["affinityClaimTime"] = value["affinity_claim_time"]
    return {key: item for key, item in spec.items() if item is not None}


def _kept(metadata: Body) -> Body:
    """The member that holds what metadata an IPAM object has beyond its key and etcd's revisions."""
    derived = ("name", "uid", "creationTimestamp")
    kept = {key: value for key, value in metadata.items() if key not in derived and value}
    return {"metadata": kept} if kept else {}


def _except(body: Body, *names: str) -> Body:
    return {key: value for key, value in body.items() if key not in names}
