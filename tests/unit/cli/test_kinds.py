"""Kinds of `get`: names, columns, v3 documents."""

import pytest

from tortie.cli.kinds import (
    KINDS,
    Kind,
    UnknownKindError,
    affinity_item,
    document_list,
    endpoint_item,
    kind_named,
    node_item,
    pool_item,
)
from tortie.model.constants import (
    ANNOTATION_AS_NUMBER,
    ANNOTATION_IPIP_TUNNEL,
    ANNOTATION_IPV4_ADDRESS,
    ANNOTATION_VXLAN_MAC,
    ANNOTATION_VXLAN_TUNNEL,
)
from tortie.model.resources import (
    BlockAffinity,
    BlockAffinitySpec,
    IPPool,
    IPPoolSpec,
    Metadata,
    Node,
    NodeAddress,
    NodeStatus,
    Pod,
    PodIP,
    PodSpec,
    PodStatus,
)


def pod(name: str = "web-0", namespace: str = "shop", address: str = "10.5.0.3") -> Pod:
    """A pod with an address."""
    return Pod(
        metadata=Metadata(name=name, namespace=namespace, labels={"app": "web"}, resource_version="5"),
        spec=PodSpec(node_name="worker-01", service_account_name="default"),
        status=PodStatus(phase="Running", pod_ip=address, pod_ips=[PodIP(ip=address)] if address else []),
    )


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("nodes", "Node"),
        ("Node", "Node"),
        ("no", "Node"),
        ("ippool", "IPPool"),
        ("IPPools", "IPPool"),
        ("ipp", "IPPool"),
        ("blockaffinity", "BlockAffinity"),
        ("affinities", "BlockAffinity"),
        ("wep", "WorkloadEndpoint"),
        ("weps", "WorkloadEndpoint"),
        ("workloadEndpoints", "WorkloadEndpoint"),
    ],
)
def test_kind_is_found_by_plural_singular_and_short_name(name: str, title: str) -> None:
    assert kind_named(name).title == title


def test_no_name_belongs_to_two_kinds() -> None:
    names = [name for kind in KINDS for name in kind.names]
    assert len(names) == len(set(names))


def test_unknown_kind_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        UnknownKindError,
        match="unknown kind 'pods'; known are: nodes, ippools, blockaffinities, workloadendpoints",
    ):
        kind_named("pods")


def test_node_shows_its_annotations() -> None:
    node = Node(
        metadata=Metadata(
            name="master-01",
            annotations={
                ANNOTATION_IPV4_ADDRESS: "10.30.200.1/24",
                ANNOTATION_IPIP_TUNNEL: "10.5.171.64",
                ANNOTATION_VXLAN_TUNNEL: "10.5.171.65",
                ANNOTATION_VXLAN_MAC: "66:0a:0b:0c:0d:0e",
                ANNOTATION_AS_NUMBER: "65001",
            },
        ),
        status=NodeStatus(addresses=[NodeAddress(type="InternalIP", address="10.30.200.1")]),
    )
    item = node_item(node, 64512)
    assert item.cells == {"NAME": "master-01", "ASN": "65001", "IPV4": "10.30.200.1/24", "IPV6": ""}
    assert item.document["apiVersion"] == "projectcalico.org/v3"
    assert item.document["kind"] == "Node"
    assert item.document["spec"] == {
        "addresses": [
            {"address": "10.30.200.1/24", "type": "CalicoNodeIP"},
            {"address": "10.30.200.1", "type": "InternalIP"},
        ],
        "bgp": {"asNumber": 65001, "ipv4Address": "10.30.200.1/24", "ipv4IPIPTunnelAddr": "10.5.171.64"},
        "ipv4VXLANTunnelAddr": "10.5.171.65",
        "orchRefs": [{"nodeName": "master-01", "orchestrator": "k8s"}],
        "vxlanTunnelMACAddr": "66:0a:0b:0c:0d:0e",
    }


def test_node_without_network_shows_the_clusters_as_number_in_brackets() -> None:
    item = node_item(Node(metadata=Metadata(name="new")), 64999)
    assert item.cells == {"NAME": "new", "ASN": "(64999)", "IPV4": "", "IPV6": ""}
    assert item.document["spec"] == {"orchRefs": [{"nodeName": "new", "orchestrator": "k8s"}]}


def test_pool_document_spells_its_defaults_out() -> None:
    pool = IPPool(metadata=Metadata(name="default"), spec=IPPoolSpec(cidr="10.5.0.0/16", vxlan_mode="Always"))
    item = pool_item(pool, 64512)
    assert item.cells == {
        "NAME": "default",
        "CIDR": "10.5.0.0/16",
        "NAT": "false",
        "IPIPMODE": "Never",
        "VXLANMODE": "Always",
        "DISABLED": "false",
        "DISABLEBGPEXPORT": "false",
        "SELECTOR": "all()",
    }
    assert item.document["spec"] == {
        "assignmentMode": "Automatic",
        "blockSize": 26,
        "cidr": "10.5.0.0/16",
        "disableBGPExport": False,
        "disabled": False,
        "ipipMode": "Never",
        "natOutgoing": False,
        "nodeSelector": "all()",
        "vxlanMode": "Always",
    }


def affinity(deleted: str = "false") -> BlockAffinity:
    """A confirmed claim."""
    return BlockAffinity(
        metadata=Metadata(name="worker-01-10-5-0-0-26"),
        spec=BlockAffinitySpec(node="worker-01", cidr="10.5.0.0/26", state="confirmed", deleted=deleted),
    )


def test_affinity_document_has_a_boolean_where_storage_has_a_string() -> None:
    item = affinity_item(affinity(), 64512)
    assert item is not None
    assert item.cells["CIDR"] == "10.5.0.0/26"
    assert item.cells["STATE"] == "confirmed"
    assert item.document["spec"]["deleted"] is False


def test_affinity_in_deletion_is_not_shown() -> None:
    assert affinity_item(affinity("true"), 64512) is None


def test_endpoint_is_derived_from_its_pod() -> None:
    item = endpoint_item(pod(), 64512)
    assert item is not None
    assert item.name == "worker--01-k8s-web--0-eth0"
    assert item.cells["WORKLOAD"] == "web-0"
    assert item.cells["NETWORKS"] == "10.5.0.3/32"
    assert item.cells["INTERFACE"].startswith("cali")
    assert item.cells["PROFILES"] == "kns.shop,ksa.shop.default"
    assert item.document["kind"] == "WorkloadEndpoint"
    assert item.document["metadata"]["namespace"] == "shop"
    assert item.document["spec"]["ipNetworks"] == ["10.5.0.3/32"]


def test_pod_without_address_has_no_endpoint() -> None:
    assert kind_named("wep").items([pod(address="")]) == []


def test_items_are_sorted_by_namespace_and_name() -> None:
    pods = [pod("b", "z"), pod("a", "z"), pod("c", "a")]
    assert [item.cells["WORKLOAD"] for item in kind_named("wep").items(pods)] == ["c", "a", "b"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.title))
def test_list_document_names_its_kind(kind: Kind) -> None:
    assert document_list(kind, [], "17") == {
        "apiVersion": "projectcalico.org/v3",
        "kind": f"{kind.title}List",
        "items": [],
        "metadata": {"resourceVersion": "17"},
    }


@pytest.mark.parametrize(
    ("name", "resource"),
    [("node", Node(metadata=Metadata(name="n"))), ("wep", pod()), ("affinity", affinity())],
)
def test_every_column_has_a_cell(name: str, resource: Node | Pod | BlockAffinity) -> None:
    kind = kind_named(name)
    (item,) = kind.items([resource])
    assert {*kind.headings, *kind.wide} <= set(item.cells)
