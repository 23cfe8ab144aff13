"""Kubernetes objects as facts, and the probe's own objects."""

from typing import Any

from ansible_collections.tortie.cluster.plugins.module_utils.verify_cluster import (
    parse_affinities,
    parse_endpoint,
    parse_nodes,
    parse_pods,
    parse_pools,
)
from ansible_collections.tortie.cluster.plugins.module_utils.verify_manifest import LABEL, probe_objects


def node(name: str, **status: Any) -> dict[str, Any]:
    metadata = {
        "name": name,
        "annotations": {"projectcalico.org/IPv4Address": "192.0.2.1/24", "other/x": "y"},
    }
    return {"kind": "Node", "metadata": metadata, "status": status}


def test_node_is_ready_by_its_condition_and_has_only_the_networks_annotations() -> None:
    conditions = [{"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": "True"}]
    addresses = [{"type": "Hostname", "address": "a"}, {"type": "InternalIP", "address": "192.0.2.1"}]
    found = parse_nodes([node("b"), node("a", conditions=conditions, addresses=addresses)])
    assert [(n["name"], n["ready"], n["internal_ip"]) for n in found] == [
        ("a", True, "192.0.2.1"),
        ("b", False, ""),
    ]
    assert found[0]["annotations"] == {"IPv4Address": "192.0.2.1/24"}
    assert found[1]["reason"] == "no Ready condition"


def test_deleted_affinity_does_not_count_though_the_flag_is_a_string() -> None:
    def affinity(deleted: str) -> dict[str, Any]:
        return {"spec": {"node": "a", "cidr": "10.5.0.0/26", "state": "confirmed", "deleted": deleted}}

    assert len(parse_affinities([affinity("false"), affinity("true")])) == 1


def test_pool_fields_that_are_left_out_have_calicos_defaults() -> None:
    pool = parse_pools([{"metadata": {"name": "p"}, "spec": {"cidr": "10.5.0.0/16"}}])[0]
    assert (pool["block_size"], pool["ipip_mode"], pool["vxlan_mode"]) == (26, "Never", "Never")
    assert (pool["nat_outgoing"], pool["disabled"], pool["disable_bgp_export"]) == (False, False, False)


def pod(name: str, labels: dict[str, str], **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "spec": {"nodeName": "n"}, "status": status}


def test_pods_are_chosen_by_label_and_those_being_deleted_are_not() -> None:
    going = pod("going", {"role": "x"})
    going["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:00Z"
    found = parse_pods([going, pod("other", {"role": "y"}), pod("mine", {"role": "x"})], role="x")
    assert [p["name"] for p in found] == ["mine"]


def test_reason_of_a_waiting_pod_is_its_containers() -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    done = {"terminated": {"reason": "Completed"}}
    found = parse_pods(
        [
            pod(
                "p",
                {},
                phase="Pending",
                initContainerStatuses=[{"state": done}],
                containerStatuses=[{"state": waiting}],
            )
        ]
    )
    assert (found[0]["ready"], found[0]["reason"]) == (False, "ErrImagePull: no such image")


def test_service_without_endpoint_is_not_ready_and_a_headless_one_is_none() -> None:
    service = {"spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]}}
    assert parse_endpoint(service, {"subsets": [{"notReadyAddresses": [{"ip": "192.0.2.1"}]}]}) == {
        "address": "10.96.0.1",
        "port": 443,
        "ready": False,
    }
    ready = parse_endpoint(service, {"subsets": [{"addresses": [{"ip": "192.0.2.1"}]}]})
    assert ready is not None
    assert ready["ready"] is True
    assert parse_endpoint({"spec": {"clusterIP": "None", "ports": [{"port": 1}]}}, None) is None
    assert parse_endpoint(None, None) is None


def test_probe_pods_have_no_right_but_raw_sockets_and_run_on_every_node() -> None:
    items = probe_objects("image:1", 8080)["items"]
    daemonsets = [item for item in items if item["kind"] == "DaemonSet"]
    assert {d["spec"]["template"]["metadata"]["labels"][LABEL] for d in daemonsets} == {"source", "target"}
    for daemonset in daemonsets:
        spec = daemonset["spec"]["template"]["spec"]
        assert spec["tolerations"] == [{"operator": "Exists"}]
        assert spec["automountServiceAccountToken"] is False
        assert "hostNetwork" not in spec
        container = spec["containers"][0]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_RAW"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["command"] == ["tortie-probe", "serve", "--port=8080"]


def test_probe_service_selects_the_answering_pods_only() -> None:
    service = next(item for item in probe_objects("i", 9000)["items"] if item["kind"] == "Service")
    assert service["spec"]["selector"] == {LABEL: "target"}
    assert service["spec"]["ports"][0]["port"] == 9000
