"""Kinds: names, columns, v3 documents."""

import pytest

from tortie.cli.documents import stored_kind
from tortie.cli.kinds import KINDS, Kind, UnknownKindError, document_list, kind_named, kind_titled
from tortie.model.constants import ANNOTATION_AS_NUMBER, ANNOTATION_IPV4_ADDRESS, ANNOTATION_VXLAN_MAC
from tortie.model.policy_natives import Namespace, ServiceAccount
from tortie.model.registry import CRD_KINDS, ETCD_ONLY_KINDS
from tortie.model.resources import (
    BlockAffinity,
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
        ("workloadEndpoints", "WorkloadEndpoint"),
        ("gnp", "GlobalNetworkPolicy"),
        ("np", "NetworkPolicy"),
        ("policy", "NetworkPolicy"),
        ("skpols", "StagedKubernetesNetworkPolicy"),
        ("hep", "HostEndpoint"),
        ("bp", "BGPPeer"),
        ("felixconfig", "FelixConfiguration"),
        ("pro", "Profile"),
    ],
)
def test_kind_is_found_by_plural_singular_and_short_name(name: str, title: str) -> None:
    assert kind_named(name).title == title


def test_no_name_belongs_to_two_kinds() -> None:
    names = [name for kind in KINDS for name in kind.names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.title))
def test_kind_answers_to_its_title_plural_and_singular(kind: Kind) -> None:
    assert kind_titled(kind.title) is kind
    assert kind_named(kind.title) is kind
    assert kind_named(kind.plural) is kind


def test_every_kind_of_the_registry_is_here_and_stored_where_the_registry_says() -> None:
    stored = {kind.where("kubernetes") for kind in KINDS if not kind.sources}
    assert stored == {kind.resource_type for kind in CRD_KINDS}
    only_etcd = {kind.where("etcdv3") for kind in KINDS if kind.sources and kind.title != "Node"}
    assert only_etcd == {kind.resource_type for kind in ETCD_ONLY_KINDS}


def test_unknown_kind_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownKindError, match=r"unknown kind 'ipool'; did you mean ippool\?"):
        kind_named("ipool")


def test_kind_that_resembles_nothing_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownKindError, match="unknown kind 'xyzzy'; known are: bgpconfigurations, "):
        kind_named("xyzzy")


def test_former_name_of_a_kind_is_understood_in_documents() -> None:
    assert kind_titled("IPAMConfig").title == "IPAMConfiguration"


def test_node_document_has_the_data_of_its_annotations() -> None:
    annotations = {
        ANNOTATION_IPV4_ADDRESS: "10.30.200.2/24",
        ANNOTATION_AS_NUMBER: "64600",
        ANNOTATION_VXLAN_MAC: "66:00:00:00:00:01",
        "other": "stays",
    }
    node = Node(
        metadata=Metadata(name="worker-01", annotations=annotations),
        status=NodeStatus(addresses=[NodeAddress(type="InternalIP", address="10.30.200.2")]),
    )
    document = kind_named("node").to_document(node)
    assert document is not None
    assert document["metadata"] == {"name": "worker-01", "annotations": {"other": "stays"}}
    assert document["spec"] == {
        "addresses": [
            {"address": "10.30.200.2/24", "type": "CalicoNodeIP"},
            {"address": "10.30.200.2", "type": "InternalIP"},
        ],
        "bgp": {"asNumber": 64600, "ipv4Address": "10.30.200.2/24"},
        "orchRefs": [{"nodeName": "worker-01", "orchestrator": "k8s"}],
        "vxlanTunnelMACAddr": "66:00:00:00:00:01",
    }


def test_pool_shows_what_its_fields_default_to() -> None:
    cells = kind_named("ipp").cells({"metadata": {"name": "p"}, "spec": {"cidr": "10.5.0.0/16"}})
    assert cells == {
        "NAMESPACE": "",
        "NAME": "p",
        "CIDR": "10.5.0.0/16",
        "NAT": "false",
        "IPIPMODE": "Never",
        "VXLANMODE": "Never",
        "DISABLED": "false",
        "DISABLEBGPEXPORT": "false",
        "SELECTOR": "all()",
    }


@pytest.mark.parametrize(("deleted", "shown"), [("false", True), ("true", False)])
def test_affinity_has_a_boolean_where_storage_has_a_string_and_is_hidden_when_deleted(
    deleted: str, shown: bool
) -> None:
    kind = kind_named("affinity")
    spec = {"node": "n", "cidr": "10.5.0.0/26", "state": "confirmed", "deleted": deleted}
    untyped = stored_kind(BlockAffinity.resource_type)(metadata=Metadata(name="a"), spec=spec)
    document = kind.to_document(untyped)
    assert (document is not None) is shown
    assert document is None or document["spec"]["deleted"] is False


def test_endpoint_is_derived_from_its_pod() -> None:
    kind = kind_named("wep")
    document = kind.to_document(pod())
    assert document is not None
    assert document["kind"] == "WorkloadEndpoint"
    assert document["metadata"]["name"] == "worker--01-k8s-web--0-eth0"
    assert document["metadata"]["namespace"] == "shop"
    assert document["spec"]["ipNetworks"] == ["10.5.0.3/32"]
    cells = kind.cells(document)
    assert cells["WORKLOAD"] == "web-0"
    assert cells["INTERFACE"].startswith("cali")
    assert cells["PROFILES"] == "kns.shop,ksa.shop.default"


def test_floating_addresses_stand_in_their_column() -> None:
    kind = kind_named("wep")
    floating = pod()
    floating.metadata.annotations["cni.projectcalico.org/floatingIPs"] = '["203.0.113.3", "203.0.113.4"]'
    document = kind.to_document(floating)
    assert document is not None
    assert kind.cells(document)["NATS"] == "203.0.113.3,203.0.113.4"


def test_pod_without_address_has_no_endpoint() -> None:
    assert kind_named("wep").to_document(pod(address="")) is None


def test_profiles_are_derived_from_namespaces_and_service_accounts() -> None:
    kind = kind_named("profile")
    space = kind.to_document(Namespace(metadata=Metadata(name="shop", labels={"team": "a"})))
    account = kind.to_document(ServiceAccount(metadata=Metadata(name="bot", namespace="shop")))
    assert space is not None
    assert account is not None
    assert space["metadata"]["name"] == "kns.shop"
    assert space["spec"] == {
        "ingress": [{"action": "Allow"}],
        "egress": [{"action": "Allow"}],
        "labelsToApply": {"pcns.team": "a", "pcns.projectcalico.org/name": "shop"},
    }
    assert account["metadata"]["name"] == "ksa.shop.bot"
    assert account["spec"] == {"labelsToApply": {"pcsa.projectcalico.org/name": "bot"}}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.title))
def test_list_document_names_its_kind(kind: Kind) -> None:
    assert document_list(kind, [], "17") == {
        "apiVersion": "projectcalico.org/v3",
        "kind": f"{kind.title}List",
        "items": [],
        "metadata": {"resourceVersion": "17"},
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.title))
def test_every_column_has_a_cell_even_of_an_empty_object(kind: Kind) -> None:
    assert {*kind.headings, *kind.wide} <= set(kind.cells({"metadata": {"name": "x"}}))
