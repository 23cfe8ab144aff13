from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tortie.datastore import etcd_layout
from tortie.datastore.etcd_layout import Stored
from tortie.datastore.etcd_node import node_body, node_value
from tortie.datastore.interface import InvalidError
from tortie.model.names import affinity_labels, affinity_name, cidr_name, handle_name
from tortie.model.policies import NetworkPolicy
from tortie.model.policy_natives import KubernetesNetworkPolicy
from tortie.model.resources import (
    BlockAffinity,
    IPAMBlock,
    IPAMConfig,
    IPAMHandle,
    IPPool,
    Node,
    Resource,
)

V4_BLOCKS = st.builds(lambda n: str(IPv4Network((n << 6, 26))), st.integers(0, 2**26 - 1))
V6_BLOCKS = st.builds(lambda n: str(IPv6Network((n << 6, 122))), st.integers(0, 2**122 - 1))
NODES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)


def crd(kind: type[Resource], name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    where = kind.resource_type
    body = {"name": name, **metadata}
    return {"apiVersion": where.api_version, "kind": where.kind, "metadata": body, "spec": spec}


def there_and_back(kind: type[Resource], body: dict[str, Any]) -> dict[str, Any]:
    """What a reader gets of what was written, without what etcd adds."""
    stored = Stored(etcd_layout.key_of(kind, body), etcd_layout.value_of(kind, body), 3, 7)
    read = etcd_layout.body_of(kind, stored)
    assert read["metadata"].pop("resourceVersion") == "7"
    assert read["metadata"].pop("uid")
    return read


@settings(deadline=None)
@given(cidr=V4_BLOCKS | V6_BLOCKS)
def test_blocks_name_tells_its_key(cidr: str) -> None:
    body = crd(IPAMBlock, cidr_name(cidr), {"cidr": cidr})
    assert etcd_layout.key_of_name(IPAMBlock, cidr_name(cidr)) == etcd_layout.key_of(IPAMBlock, body)


@settings(deadline=None)
@given(cidr=V4_BLOCKS | V6_BLOCKS, node=NODES)
def test_affinitys_name_tells_its_key_or_that_it_must_be_looked_for(cidr: str, node: str) -> None:
    name = affinity_name(node, cidr)
    spec = {"cidr": cidr, "node": node, "state": "confirmed", "type": "host", "deleted": "false"}
    body = crd(BlockAffinity, name, spec, labels=affinity_labels(node, cidr))
    key = etcd_layout.key_of(BlockAffinity, body)
    if ":" not in cidr:
        assert etcd_layout.key_of_name(BlockAffinity, name) == key
    keys = etcd_layout.key_range(BlockAffinity)
    assert keys.start <= key < keys.end
    assert there_and_back(BlockAffinity, body) == body


@pytest.mark.parametrize("affinity_type", ["host", "virtual"])
def test_range_of_affinities_has_both_types_and_nothing_else(affinity_type: str) -> None:
    keys = etcd_layout.key_range(BlockAffinity)
    assert keys.start <= f"/calico/ipam/v2/{affinity_type}/x/ipv4/block/10.5.0.0-26" < keys.end
    for other in ("assignment/ipv4/block/x", "config", "handle/h"):
        assert not keys.start <= f"/calico/ipam/v2/{other}" < keys.end


def test_ipam_values_have_calicos_names() -> None:
    block = {"cidr": "10.5.0.0/26", "affinityClaimTime": "t", "strictAffinity": True, "future": 1}
    value = etcd_layout.value_of(IPAMBlock, crd(IPAMBlock, "10-5-0-0-26", block))
    assert value == {
        "cidr": "10.5.0.0/26",
        "affinity": None,
        "affinity_claim_time": "t",
        "strictAffinity": True,
        "future": 1,
    }
    config = {"strictAffinity": True, "autoAllocateBlocks": False, "maxBlocksPerHost": 2}
    assert etcd_layout.value_of(IPAMConfig, crd(IPAMConfig, "default", config)) == {
        "strict_affinity": True,
        "auto_allocate_blocks": False,
        "maxBlocksPerHost": 2,
    }
    handle = {"handleID": "H", "block": {"10.5.0.0/26": 1}, "deleted": False}
    assert etcd_layout.value_of(IPAMHandle, crd(IPAMHandle, "h", handle)) == {
        "block": {"10.5.0.0/26": 1},
        "deleted": False,
    }


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (IPAMBlock, crd(IPAMBlock, "10-5-0-0-26", {"cidr": "10.5.0.0/26", "strictAffinity": False, "x": 1})),
        (IPAMHandle, crd(IPAMHandle, "net.a", {"handleID": "Net.A", "block": {}, "deleted": True})),
        (
            IPAMHandle,
            crd(IPAMHandle, "h", {"handleID": "h", "block": {}, "deleted": False}, labels={"a": "b"}),
        ),
        (IPAMConfig, crd(IPAMConfig, "default", {"strictAffinity": True, "autoAllocateBlocks": True})),
        (
            IPPool,
            crd(IPPool, "p", {"cidr": "10.5.0.0/16", "x": {"y": 1}}, labels={"a": "b"}, finalizers=["f"]),
        ),
        (NetworkPolicy, crd(NetworkPolicy, "p", {"selector": "all()"}, namespace="ns")),
    ],
)
def test_object_comes_back_as_it_was(kind: type[Resource], body: dict[str, Any]) -> None:
    assert there_and_back(kind, body) == body


def test_handles_key_has_the_case_of_its_id() -> None:
    body = crd(IPAMHandle, handle_name("Net.ABC"), {"handleID": "Net.ABC", "block": {}})
    assert etcd_layout.key_of(IPAMHandle, body) == "/calico/ipam/v2/handle/Net.ABC"
    assert not etcd_layout.is_exact(IPAMHandle)


def test_new_object_of_an_old_name_has_another_uid() -> None:
    one, other = (Stored("/calico/ipam/v2/config", {}, create, 9) for create in (3, 8))
    uids = {etcd_layout.body_of(IPAMConfig, item)["metadata"]["uid"] for item in (one, other)}
    assert len(uids) == 2


@pytest.mark.parametrize("kind", [IPAMBlock, BlockAffinity, IPAMHandle])
def test_key_of_something_else_is_refused(kind: type[Resource]) -> None:
    with pytest.raises(InvalidError, match="/calico/other"):
        etcd_layout.body_of(kind, Stored("/calico/other", {}, 1, 1))


def test_kubernetes_policies_are_not_taken_for_calicos() -> None:
    with pytest.raises(InvalidError, match="API server"):
        etcd_layout.key_range(KubernetesNetworkPolicy)


NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": "n1",
        "labels": {"zone": "a"},
        "annotations": {
            "projectcalico.org/IPv4Address": "10.30.200.1/24",
            "projectcalico.org/IPv4VXLANTunnelAddr": "10.5.0.2",
            "projectcalico.org/WireguardPublicKey": "key=",
            "projectcalico.org/ASNumber": "64513",
            "other": "kept",
        },
    },
    "spec": {"podCIDR": "10.9.0.0/24"},
    "status": {
        "addresses": [{"type": "InternalIP", "address": "10.30.200.1"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}


def test_nodes_annotations_are_calicos_fields() -> None:
    value = node_value(NODE)
    assert value["spec"]["bgp"] == {"ipv4Address": "10.30.200.1/24", "asNumber": 64513}
    assert value["spec"]["ipv4VXLANTunnelAddr"] == "10.5.0.2"
    assert value["spec"]["orchRefs"] == [{"nodeName": "n1", "orchestrator": "k8s"}]
    assert value["status"]["wireguardPublicKey"] == "key="
    assert value["status"]["podCIDRs"] == ["10.9.0.0/24"]
    assert value["metadata"]["annotations"] == {"other": "kept"}
    assert node_body(value) == NODE


def test_calicos_own_repetition_of_a_nodes_address_is_no_node_address() -> None:
    value = node_value(NODE)
    value["spec"]["addresses"].append({"type": "CalicoNodeIP", "address": "10.30.200.1/24"})
    assert node_body(value) == NODE


def test_dotted_as_number_stays_text() -> None:
    body = {"metadata": {"name": "n", "annotations": {"projectcalico.org/ASNumber": "1.10"}}}
    assert node_value(body)["spec"]["bgp"] == {"asNumber": "1.10"}


def test_node_is_found_by_name() -> None:
    key = "/calico/resources/v3/projectcalico.org/nodes/n1"
    assert etcd_layout.key_of_name(Node, "n1") == key
