"""What writing promises: nothing half-done, nothing lost, nobody overrun, and what is refused."""

import json
import threading
from typing import Any

import pytest

from tests.integration.cli.tool import Tool

GROUP = "/apis/crd.projectcalico.org/v1"


def pool(name: str = "p1", cidr: str = "10.9.0.0/16", **spec: Any) -> dict[str, Any]:
    """An IPPool."""
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": name},
        "spec": {"cidr": cidr, **spec},
    }


def policy(name: str, namespace: str | None = None, **spec: Any) -> dict[str, Any]:
    """A policy that allows everything in: global, or of a namespace."""
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "NetworkPolicy" if namespace else "GlobalNetworkPolicy",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "spec": {"ingress": [{"action": "Allow"}], **spec},
    }


def test_existing_object_is_not_created_again_unless_skipped(tool: Tool) -> None:
    tool.write("create", pool())
    assert "already exists" in tool.refused("create", pool(natOutgoing=True))
    tool.write("create", pool(natOutgoing=True), options=("--skip-exists",))
    assert "natOutgoing" not in tool.get("ippool", "p1")["spec"]


def test_replace_and_delete_need_an_object(tool: Tool) -> None:
    assert "IPPool p1 does not exist" in tool.refused("replace", pool())
    assert "IPPool p1 does not exist" in tool.fails("delete", "ippool", "p1")
    tool.ok("delete", "ippool", "p1", "--skip-not-exists")


def test_one_mistake_keeps_all_objects_from_being_written(tool: Tool) -> None:
    error = tool.refused("apply", pool(), pool("p2", "10.10.0.0/33"))
    assert "standard input:13 (document 2): IPPool p2: spec.cidr '10.10.0.0/33'" in error
    assert "Error: 1 error in 1 of 2 object(s); nothing was changed" in error
    assert tool.get("ippools")["items"] == []


def test_refusal_of_one_object_does_not_stop_the_others(tool: Tool) -> None:
    tool.write("create", pool())
    result = tool.run("create", "-f", "-", stdin=_json(pool(), pool("p2", "10.10.0.0/16")))
    assert result.status == 1
    assert "Partial success: created 1 out of 2 resources" in result.stdout
    assert [item["metadata"]["name"] for item in tool.get("ippools")["items"]] == ["p1", "p2"]


def _json(*documents: dict[str, Any]) -> str:
    return json.dumps(list(documents))


def test_server_side_metadata_survives_apply(tool: Tool) -> None:
    tool.write("apply", pool())
    path = f"{GROUP}/ippools/p1"
    stored = tool.server.request("GET", path)
    stored["metadata"]["finalizers"] = ["example.org/keep"]
    tool.server.request("PUT", path, stored)
    tool.write("apply", pool(natOutgoing=True))
    after = tool.server.request("GET", path)
    assert after["metadata"]["finalizers"] == ["example.org/keep"]
    assert after["metadata"]["uid"] == stored["metadata"]["uid"]
    assert after["spec"]["natOutgoing"] is True
    after["metadata"]["finalizers"] = []
    tool.server.request("PUT", path, after)


def test_stale_resource_version_is_refused_and_none_overrules(tool: Tool) -> None:
    tool.write("apply", pool())
    old = tool.get("ippool", "p1")
    tool.ok("patch", "ippool", "p1", "-p", '{"spec": {"natOutgoing": true}}')
    assert "is out of date" in tool.refused("replace", old)
    assert "is out of date" in tool.refused("apply", old)
    assert "is out of date" in tool.fails("delete", "-f", "-", stdin=_json(old))
    current = tool.get("ippool", "p1")
    tool.write("replace", current)
    del old["metadata"]["resourceVersion"]
    tool.write("replace", old)


def test_concurrent_labels_are_all_there_afterwards(tool: Tool) -> None:
    tool.write("apply", pool())
    threads = [
        threading.Thread(target=tool.ok, args=("label", "ippool", "p1", f"k{number}=v"))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tool.get("ippool", "p1")["metadata"]["labels"] == {f"k{number}": "v" for number in range(4)}


def test_label_is_overwritten_and_removed_only_on_request(tool: Tool) -> None:
    tool.write("apply", pool())
    tool.ok("label", "ippool", "p1", "a=1")
    tool.ok("label", "ippool", "p1", "a=1")
    assert "has label a = '1' already; --overwrite changes it" in tool.fails("label", "ippool", "p1", "a=2")
    assert tool.ok("label", "ippool", "p1", "a=2", "--overwrite").startswith("Successfully updated label a")
    assert tool.ok("label", "ippool", "p1", "a", "--remove").startswith("Successfully removed label a")
    assert "has no label 'a'" in tool.fails("label", "ippool", "p1", "a", "--remove")


def test_document_as_calico_writes_it_keeps_unknown_fields(tool: Tool) -> None:
    calico: dict[str, Any] = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "BGPPeer",
        "metadata": {
            "name": "peer",
            "annotations": {
                "projectcalico.org/metadata": '{"creationTimestamp":null,"labels":{"a":"1"},'
                '"annotations":{"n":"x"}}'
            },
        },
        "spec": {"peerIP": "10.0.0.9", "asNumber": 64512, "fromTheFuture": {"a": [1, {"b": 2}]}},
    }
    tool.server.request("POST", f"{GROUP}/bgppeers", calico)
    seen = tool.get("bgpp", "peer")
    assert seen["metadata"]["labels"] == {"a": "1"}
    assert seen["metadata"]["annotations"] == {"n": "x"}
    assert seen["spec"]["fromTheFuture"] == {"a": [1, {"b": 2}]}

    tool.ok("patch", "bgpp", "peer", "-p", '{"spec": {"asNumber": 64999}}')
    tool.ok("label", "bgpp", "peer", "b=2")
    seen = tool.get("bgpp", "peer")
    tool.write("apply", seen)
    after = tool.stored("bgppeers", "peer")
    assert after["spec"] == {**calico["spec"], "asNumber": 64999}
    assert tool.get("bgpp", "peer")["metadata"]["labels"] == {"a": "1", "b": "2"}
    assert '"b":"2"' in after["metadata"]["annotations"]["projectcalico.org/metadata"]
    assert "labels" not in after["metadata"]


def test_unknown_field_that_nobody_has_stored_is_refused_unless_allowed(tool: Tool) -> None:
    tool.write("apply", pool())
    error = tool.refused("apply", pool(natOutgoin=True))
    assert "spec.natOutgoin 'true' is an unknown field; did you mean natOutgoing?" in error
    assert "is an unknown field" in tool.refused("create", pool("p2", "10.10.0.0/16", new=1))
    tool.write("apply", pool(new=1), options=("--allow-unknown-fields",))
    assert tool.get("ippool", "p1")["spec"]["new"] == 1
    tool.write("replace", pool(new=2))


def test_patch_that_breaks_the_object_is_refused(tool: Tool) -> None:
    tool.write("apply", pool())
    error = tool.fails("patch", "ippool", "p1", "-p", '{"spec": {"ipipMode": "Sometimes"}}')
    assert (
        "the patch makes it invalid: spec.ipipMode 'Sometimes' must be one of Always, CrossSubnet, Never"
        in error
    )
    assert "cannot change kind" in tool.fails("patch", "ippool", "p1", "-p", '{"kind": "Node"}')
    assert "operation 1" in tool.fails(
        "patch", "ippool", "p1", "-t", "json", "-p", '[{"op": "remove", "path": "/x"}]'
    )
    tool.ok(
        "patch",
        "ippool",
        "p1",
        "-t",
        "json",
        "-p",
        '[{"op": "add", "path": "/spec/natOutgoing", "value": true}]',
    )
    tool.ok("patch", "ippool", "p1", "-t", "merge", "-p", "spec: {disabled: true}")
    spec = tool.get("ippool", "p1")["spec"]
    assert (spec["natOutgoing"], spec["disabled"]) == (True, True)


def test_pools_must_not_overlap_nor_move(tool: Tool) -> None:
    tool.write("apply", pool())
    assert "overlaps with pool p1 (10.9.0.0/16)" in tool.refused("create", pool("p2", "10.9.128.0/17"))
    assert "spec.cidr is '10.9.0.0/16' and cannot become" in tool.refused("apply", pool(cidr="10.10.0.0/16"))
    assert "spec.blockSize is 26 and cannot become 27" in tool.refused("apply", pool(blockSize=27))


def test_deleted_pool_leaves_no_claims_and_no_empty_blocks(tool: Tool) -> None:
    tool.write("apply", pool(), pool("other", "10.10.0.0/16"))
    for cidr, index in (("10.9.0.0/26", None), ("10.9.0.64/26", 0), ("10.10.0.0/26", None)):
        _claim(tool, cidr, index)
    result = tool.run("delete", "ippool", "p1")
    assert result.status == 0
    assert result.stderr.startswith("Warning: IPPool p1: 1 of its addresses are in use")
    assert [item["spec"]["cidr"] for item in tool.get("affinity")["items"]] == ["10.10.0.0/26"]
    blocks = {item["spec"]["cidr"]: item["spec"] for item in tool.get("blocks")["items"]}
    assert set(blocks) == {"10.9.0.64/26", "10.10.0.0/26"}
    assert "affinity" not in blocks["10.9.0.64/26"]
    assert blocks["10.10.0.0/26"]["affinity"] == "host:n1"
    tool.ok("delete", "ippool", "other")  # nothing of it is in use: without a warning


def _claim(tool: Tool, cidr: str, index: int | None) -> None:
    name = cidr.replace(".", "-").replace("/", "-")
    block = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPAMBlock",
        "metadata": {"name": name},
        "spec": {
            "cidr": cidr,
            "affinity": "host:n1",
            "allocations": [index] + [None] * 63,
            "unallocated": list(range(0 if index is None else 1, 64)),
            "attributes": [] if index is None else [{"handle_id": "h"}],
            "strictAffinity": False,
        },
    }
    affinity = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "BlockAffinity",
        "metadata": {"name": f"n1-{name}"},
        "spec": {"cidr": cidr, "node": "n1", "state": "confirmed", "deleted": "false", "type": "host"},
    }
    tool.server.request("POST", f"{GROUP}/ipamblocks", block)
    tool.server.request("POST", f"{GROUP}/blockaffinities", affinity)


def test_policy_gets_tier_and_types_as_calicos_api_fills_them_in(tool: Tool) -> None:
    tool.write(
        "apply",
        policy("in"),
        policy("out", ingress=[], egress=[{"action": "Deny"}]),
        policy("both", egress=[{"action": "Deny"}]),
        policy("none", ingress=[]),
        policy("raw", doNotTrack=True),
    )
    specs = {item["metadata"]["name"]: item["spec"] for item in tool.get("gnp")["items"]}
    assert {name: spec["types"] for name, spec in specs.items()} == {
        "in": ["Ingress"],
        "out": ["Egress"],
        "both": ["Ingress", "Egress"],
        "none": ["Ingress"],
        "raw": ["Ingress"],
    }
    assert {spec["tier"] for spec in specs.values()} == {"default"}
    assert specs["raw"]["applyOnForward"] is True
    assert tool.stored("globalnetworkpolicies", "in")["spec"]["tier"] == "default"


def test_policy_of_an_older_calico_is_the_same_policy_under_its_plain_name(tool: Tool) -> None:
    old = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "default.web", "namespace": "default"},
        "spec": {"tier": "default", "types": ["Ingress"], "ingress": [{"action": "Deny"}]},
    }
    tool.server.request("POST", f"{GROUP}/namespaces/default/networkpolicies", old)
    assert [item["metadata"]["name"] for item in tool.get("np")["items"]] == ["web"]
    assert tool.get("np", "web")["spec"]["ingress"] == [{"action": "Deny"}]
    assert tool.get("np", "default.web")["metadata"]["name"] == "default.web"
    assert "already exists" in tool.refused("create", policy("web", "default"))
    tool.write("apply", policy("web", "default"))
    assert tool.stored("networkpolicies", "default.web", "default")["spec"]["ingress"] == [
        {"action": "Allow"}
    ]
    assert len(tool.get("np")["items"]) == 1
    tool.ok("delete", "np", "web")
    assert tool.get("np")["items"] == []
    tool.write("create", policy("web", "default"))
    assert tool.stored("networkpolicies", "web", "default")["metadata"]["name"] == "web"


def test_of_two_policies_with_one_plain_name_none_is_hidden(tool: Tool) -> None:
    tool.write("apply", policy("web"))
    old = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "default.web"},
        "spec": {"order": 5},
    }
    tool.server.request("POST", f"{GROUP}/globalnetworkpolicies", old)
    assert [item["metadata"]["name"] for item in tool.get("gnp")["items"]] == ["default.web", "web"]


def test_tier_must_exist_and_stays_while_it_has_policies(tool: Tool) -> None:
    tier = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "Tier",
        "metadata": {"name": "security"},
        "spec": {"order": 100},
    }
    guarded = policy("security.guard", tier="security")
    assert "spec.tier 'security' does not exist; create the tier first" in tool.refused("create", guarded)
    # In one file the order does not matter: neither when writing nor when deleting.
    tool.write("create", guarded, tier)
    first = {**tier, "metadata": {"name": "zero"}, "spec": {"order": 1}}
    last = {**tier, "metadata": {"name": "a"}, "spec": {}}
    tool.write("create", first, last)
    assert [item["metadata"]["name"] for item in tool.get("tiers")["items"]] == ["zero", "security", "a"]
    error = tool.fails("delete", "tier", "security")
    assert "GlobalNetworkPolicy security.guard is in it; delete its policies first" in error
    assert "it is built in" in _delete_default_tier(tool)
    tool.ok("delete", "-f", "-", stdin=_json(tier, guarded))


def _delete_default_tier(tool: Tool) -> str:
    tool.write(
        "apply",
        {
            "apiVersion": "projectcalico.org/v3",
            "kind": "Tier",
            "metadata": {"name": "default"},
            "spec": {"order": 1000000},
        },
    )
    return tool.fails("delete", "tier", "default")


def test_namespace_comes_from_the_object_or_the_option_and_both_must_agree(tool: Tool) -> None:
    lost = policy("a", "default")
    del lost["metadata"]["namespace"]
    tool.write("apply", lost, options=("-n", "kube-system"))
    assert tool.get("np", "a", "-n", "kube-system")["metadata"]["namespace"] == "kube-system"
    assert "is not the namespace of -n, kube-system" in tool.refused(
        "apply", policy("a", "default"), options=("-n", "kube-system")
    )
    tool.write("apply", lost)
    lines = tool.ok("get", "np", "-A").splitlines()
    assert [line.split() for line in lines] == [
        ["NAMESPACE", "NAME", "TIER"],
        ["default", "a", "default"],
        ["kube-system", "a", "default"],
    ]
    assert "must be left out: IPPool is not namespaced" in tool.refused(
        "apply", {**pool(), "metadata": {"name": "p", "namespace": "default"}}
    )


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("ClusterInformation", "cannot be created: calico-node writes it"),
        ("Profile", "derives profiles from namespaces and service accounts"),
        ("WorkloadEndpoint", "derived from its pod; change the pod"),
        ("Node", "join the node with kubeadm"),
        ("BlockAffinity", "IPAM writes it"),
        ("IPAMBlock", "IPAM writes it"),
        ("IPAMHandle", "IPAM writes it"),
    ],
)
def test_what_others_write_is_refused_with_a_sentence(tool: Tool, kind: str, reason: str) -> None:
    specs = {
        "BlockAffinity": {"cidr": "10.0.0.0/26", "node": "n", "state": "pending", "deleted": False},
        "IPAMBlock": {"cidr": "10.0.0.0/32", "allocations": [None], "unallocated": [0], "attributes": []},
        "IPAMHandle": {"handleID": "default", "block": {}},
        "WorkloadEndpoint": {"interfaceName": "cali1"},
    }
    document = {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": "default"},
        "spec": specs.get(kind, {}),
    }
    assert reason in tool.refused("create", document)


def test_nodes_take_bgp_settings_and_labels(tool: Tool) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "annotations": {"keep": "1"}}}
    tool.server.request("POST", "/api/v1/nodes", node)
    tool.ok("patch", "node", "n1", "-p", '{"spec": {"bgp": {"routeReflectorClusterID": "224.0.0.1"}}}')
    tool.ok("label", "node", "n1", "rack=r1")
    error = tool.fails("patch", "node", "n1", "-p", '{"spec": {"bgp": {"asNum": 1}}}')
    assert "spec.bgp.asNum '1' is an unknown field; did you mean asNumber?" in error
    stored = tool.server.request("GET", "/api/v1/nodes/n1")["metadata"]
    assert stored["annotations"]["projectcalico.org/RouteReflectorClusterID"] == "224.0.0.1"
    assert stored["annotations"]["keep"] == "1"
    assert stored["labels"]["rack"] == "r1"
    tool.ok("patch", "node", "n1", "-p", '{"spec": {"bgp": {"routeReflectorClusterID": null}}}')
    annotations = tool.server.request("GET", "/api/v1/nodes/n1")["metadata"]["annotations"]
    assert "projectcalico.org/RouteReflectorClusterID" not in annotations
    tool.write("apply", tool.get("node", "n1"))
    assert "use kubectl delete node" in tool.fails("delete", "node", "n1")


def test_profiles_are_those_of_namespaces(tool: Tool) -> None:
    names = [item["metadata"]["name"] for item in tool.get("profiles")["items"]]
    assert {"kns.default", "kns.kube-system", "projectcalico-default-allow"} <= set(names)
    assert tool.get("profile", "kns.default")["spec"]["ingress"] == [{"action": "Allow"}]


def test_object_that_does_not_fit_its_kind_is_seen_repaired_and_deleted(tool: Tool) -> None:
    broken = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "broken"},
        "spec": {"selector": "a ==", "ingress": [{"action": "Nonsense"}]},
    }
    tool.server.request("POST", f"{GROUP}/globalnetworkpolicies", broken)
    assert "broken" in tool.ok("get", "gnp")
    tool.ok("patch", "gnp", "broken", "-p", '{"spec": {"order": 3}}')
    assert tool.stored("globalnetworkpolicies", "broken")["spec"]["ingress"] == [{"action": "Nonsense"}]
    tool.write("apply", policy("broken"))
    tool.ok("delete", "gnp", "broken")
