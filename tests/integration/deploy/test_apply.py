"""deploy/ against a real API server: with kubectl alone, and through the role's tasks."""

import json
import re
import time
from typing import Any

import pytest
import yaml

from tests.integration.deploy.conftest import ROOT, Cluster

POOL_AFTERWARDS = [{"ansible.builtin.import_role": {"name": "tortie.cluster.tortie", "tasks_from": "pool"}}]
ROLE = [{"ansible.builtin.import_role": {"name": "tortie.cluster.tortie", "tasks_from": "manifests"}}]
POOL = {
    "apiVersion": "crd.projectcalico.org/v1",
    "kind": "IPPool",
    "metadata": {"name": "default-ipv4-ippool"},
    "spec": {"cidr": "10.5.0.0/16", "ipipMode": "Always", "natOutgoing": True, "nodeSelector": "all()"},
}


def changed(output: str) -> int:
    """The number of changed tasks in the recap."""
    match = re.search(r"changed=(\d+)\s+unreachable=0\s+failed=0", output)
    assert match, output
    return int(match[1])


def empty(cluster: Cluster) -> None:
    """Remove everything that deploy/ installs, kinds included."""
    cluster.kubectl("delete", "--ignore-not-found", "--wait=true", "-f", str(ROOT / "deploy"))
    for _try in range(100):
        if "projectcalico" not in cluster.kubectl("get", "crd", "-o", "name").stdout:
            return
        time.sleep(0.1)
    pytest.fail("the CRDs did not go away")


def test_kubectl_apply_of_the_directory_is_all_it_takes(cluster: Cluster) -> None:
    empty(cluster)
    first = cluster.kubectl("apply", "-f", str(ROOT / "deploy")).stdout
    assert "daemonset.apps/calico-node created" in first
    assert "customresourcedefinition.apiextensions.k8s.io/ippools.crd.projectcalico.org created" in first
    second = cluster.kubectl("apply", "-f", str(ROOT / "deploy")).stdout
    assert {line.split()[-1] for line in second.splitlines()} == {"unchanged"}


def test_server_keeps_every_field_of_the_manifests(cluster: Cluster) -> None:
    """A misspelt field would be dropped in silence: what is stored has to contain what was sent."""
    cluster.kubectl("apply", "-f", str(ROOT / "deploy"))
    manifest = ROOT / "deploy" / "tortie.yaml"
    stored = json.loads(cluster.kubectl("get", "-o", "json", "-f", str(manifest)).stdout)
    by_name = {(item["kind"], item["metadata"]["name"]): item for item in stored["items"]}
    for item in filter(None, yaml.safe_load_all(manifest.read_text())):
        missing = lost(item, by_name[item["kind"], item["metadata"]["name"]], item["kind"])
        assert missing == []


def lost(sent: Any, stored: Any, path: str) -> list[str]:
    """Paths of what was sent and is not stored."""
    if isinstance(sent, dict):
        if not isinstance(stored, dict):
            return [path]
        return [
            found for key, value in sent.items() for found in lost(value, stored.get(key), f"{path}.{key}")
        ]
    if isinstance(sent, list):
        if not isinstance(stored, list) or len(stored) != len(sent):
            return [path]
        inner = ((*pair, f"{path}[{index}]") for index, pair in enumerate(zip(sent, stored, strict=True)))
        return [found for values in inner for found in lost(*values)]
    return [] if sent == stored else [path]


@pytest.mark.parametrize(
    ("plural", "spec"),
    [
        ("ippools", {"cidr": "10.9.0.0/16", "ipipMode": "Always", "namespaceSelector": "has(x)"}),
        ("felixconfigurations", {"bpfEnabled": False, "vxlanMTU": 1400}),
        ("bgppeers", {"peerIP": "10.0.0.1", "asNumber": 64999, "filters": ["one"], "nextHopMode": "Self"}),
        ("bgpconfigurations", {"asNumber": 64512, "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}]}),
    ],
)
def test_document_of_calico_survives_with_fields_that_we_do_not_read(
    cluster: Cluster, plural: str, spec: dict[str, Any]
) -> None:
    cluster.kubectl("apply", "-f", str(ROOT / "deploy/crds.yaml"))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    crd = json.loads(cluster.kubectl("get", "crd", f"{plural}.crd.projectcalico.org", "-o", "json").stdout)
    name = f"calicos-{plural}"
    cluster.create(
        {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": crd["spec"]["names"]["kind"],
            "metadata": {"name": name},
            "spec": spec,
        }
    )
    stored = cluster.get(f"{plural}.crd.projectcalico.org", name)["spec"]
    cluster.kubectl("delete", f"{plural}.crd.projectcalico.org", name)
    assert stored == spec


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("IPPool", {}, "spec.cidr: Required value"),
        ("IPPool", {"cidr": "10.9.0.0/16", "vxlanMode": "Sometimes"}, "spec.vxlanMode: Unsupported value"),
        (
            "BlockAffinity",
            {"node": "n", "cidr": "c", "state": "confirmed", "deleted": True},
            "must be of type string",
        ),
        ("IPAMBlock", {"cidr": "c", "allocations": [], "unallocated": []}, "spec.attributes: Required value"),
    ],
)
def test_server_refuses_what_the_network_could_not_read(
    cluster: Cluster, kind: str, spec: dict[str, Any], words: str
) -> None:
    cluster.kubectl("apply", "-f", str(ROOT / "deploy/crds.yaml"))
    document = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": kind,
        "metadata": {"name": "x"},
        "spec": spec,
    }
    path = cluster.scratch / "refused.json"
    path.write_text(json.dumps(document))
    result = cluster.kubectl("create", "-f", str(path), check=False)
    assert result.returncode == 1
    assert words in result.stderr


def test_role_installs_into_an_empty_cluster_and_then_changes_nothing(cluster: Cluster) -> None:
    empty(cluster)
    preview = cluster.playbook(ROLE, "--check", "--diff")
    assert changed(preview.stdout) == 1
    assert "DaemonSet calico-node in namespace kube-system (wanted)" in preview.stdout
    assert "daemonset" not in cluster.kubectl("get", "daemonsets", "-A", "-o", "name").stdout

    assert changed(cluster.playbook(ROLE).stdout) == 1
    assert changed(cluster.playbook(ROLE).stdout) == 0
    assert changed(cluster.playbook(ROLE, "--check").stdout) == 0


def test_role_finds_nothing_to_do_after_kubectl_apply(cluster: Cluster) -> None:
    empty(cluster)
    cluster.kubectl("apply", "-f", str(ROOT / "deploy"))
    assert changed(cluster.playbook(ROLE).stdout) == 0


def test_role_changes_the_daemonset_when_a_variable_changes(cluster: Cluster) -> None:
    cluster.playbook(ROLE)
    before = cluster.get("daemonset", "calico-node")["metadata"]["generation"]
    output = cluster.playbook(ROLE, "--diff", tortie_mtu=1440).stdout
    assert changed(output) == 1
    assert re.search(r'\+ +"value": "1440"', output)
    assert cluster.get("daemonset", "calico-node")["metadata"]["generation"] == before + 1
    assert changed(cluster.playbook(ROLE, tortie_mtu="1440").stdout) == 0


def test_role_leaves_what_others_added_to_an_object(cluster: Cluster) -> None:
    cluster.playbook(ROLE)
    cluster.kubectl("annotate", "--namespace=kube-system", "daemonset", "calico-node", "note=mine")
    assert changed(cluster.playbook(ROLE).stdout) == 0
    assert cluster.get("daemonset", "calico-node")["metadata"]["annotations"]["note"] == "mine"


def test_role_restores_what_others_changed(cluster: Cluster) -> None:
    cluster.playbook(ROLE)
    cluster.kubectl("set", "image", "--namespace=kube-system", "daemonset/calico-node", "calico-node=other:1")
    assert changed(cluster.playbook(ROLE).stdout) == 1
    (container,) = cluster.get("daemonset", "calico-node")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "localhost/tortie-node:0.1.0"


def test_existing_pool_follows_the_encapsulation(cluster: Cluster) -> None:
    cluster.playbook(ROLE)
    cluster.create(POOL)
    pool = "ippools.crd.projectcalico.org"
    try:
        assert changed(cluster.playbook(ROLE, tortie_ipv4pool_cidr="10.5.0.0/16").stdout) == 1  # DaemonSet
        assert "blockSize" not in cluster.get(pool, "default-ipv4-ippool")["spec"]
        assert changed(cluster.playbook(ROLE, tortie_ipv4pool_cidr="10.5.0.0/16").stdout) == 0
        vxlan = {"tortie_ipv4pool_cidr": "10.5.0.0/16", "tortie_encapsulation": "vxlan"}
        assert changed(cluster.playbook(ROLE, **vxlan).stdout) == 2  # the pool, and then the DaemonSet
        spec = cluster.get(pool, "default-ipv4-ippool")["spec"]
        assert (spec["ipipMode"], spec["vxlanMode"], spec["nodeSelector"]) == ("Never", "Always", "all()")
        assert changed(cluster.playbook(ROLE, **vxlan).stdout) == 0
        assert changed(cluster.playbook(POOL_AFTERWARDS, **vxlan).stdout) == 0

        ipip = {"tortie_ipv4pool_cidr": "10.5.0.0/16", "tortie_encapsulation": "ipip"}
        assert (
            changed(cluster.playbook(ROLE, **ipip).stdout) == 1
        )  # the DaemonSet: agents without BIRD could not follow
        assert cluster.get(pool, "default-ipv4-ippool")["spec"] == spec
        assert changed(cluster.playbook(POOL_AFTERWARDS, **ipip).stdout) == 1
        spec = cluster.get(pool, "default-ipv4-ippool")["spec"]
        assert (spec["ipipMode"], spec["vxlanMode"]) == ("Always", "Never")
        assert changed(cluster.playbook([*ROLE, *POOL_AFTERWARDS], **ipip).stdout) == 0
    finally:
        cluster.kubectl("delete", pool, "default-ipv4-ippool")


def test_pool_that_cannot_change_fails_before_anything_is_applied(cluster: Cluster) -> None:
    cluster.playbook(ROLE)
    cluster.create(POOL)
    before = cluster.get("daemonset", "calico-node")["metadata"]["generation"]
    try:
        result = cluster.playbook(ROLE, tortie_ipv4pool_cidr="10.6.0.0/16", tortie_ipv4pool_block_size=24)
    finally:
        cluster.kubectl("delete", "ippools.crd.projectcalico.org", "default-ipv4-ippool")
    assert result.returncode != 0
    message = " ".join(result.stdout.split())
    assert 'spec.cidr "10.5.0.0/16", which cannot be changed to "10.6.0.0/16"' in message
    assert "spec.blockSize 26, which cannot be changed to 24" in message
    assert cluster.get("daemonset", "calico-node")["metadata"]["generation"] == before


def test_bad_setting_is_refused_on_the_controller(cluster: Cluster) -> None:
    result = cluster.playbook(ROLE, tortie_mtu="huge")
    assert result.returncode != 0
    assert "tortie_mtu is 'huge'" in result.stdout + result.stderr


def apply_task(*definitions: Any) -> list[dict[str, Any]]:
    """A play's tasks: apply these."""
    module = {"definitions": list(definitions), "kubeconfig": "{{ __tortie_kubeconfig }}"}
    return [{"name": "Apply", "tortie.cluster.kube_apply": module}]


def test_kind_and_its_object_can_be_applied_together(cluster: Cluster) -> None:
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "cats.example.org"},
        "spec": {
            "group": "example.org",
            "names": {"kind": "Cat", "listKind": "CatList", "plural": "cats", "singular": "cat"},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                    },
                }
            ],
        },
    }
    cat = {
        "apiVersion": "example.org/v1",
        "kind": "Cat",
        "metadata": {"name": "tom", "namespace": "home"},
        "spec": {"legs": 4},
    }
    home = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "home"}}
    tasks = apply_task(cat, crd, home)
    assert changed(cluster.playbook(tasks, "--check").stdout) == 1
    assert changed(cluster.playbook(tasks).stdout) == 1
    assert cluster.get("cats.example.org", "tom", "home")["spec"] == {"legs": 4}
    assert changed(cluster.playbook(tasks).stdout) == 0


def test_refusal_of_the_server_is_the_modules_message(cluster: Cluster) -> None:
    bad = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x", "namespace": "default"},
        "spec": {"ports": []},
    }
    result = cluster.playbook(apply_task(bad))
    assert result.returncode != 0
    message = " ".join(result.stdout.split())
    assert "Cannot check the objects:" in message
    assert "spec.ports: Required value" in message


def test_missing_kubeconfig_is_an_error_but_not_in_check_mode(cluster: Cluster) -> None:
    tasks = apply_task({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "later"}})
    none = str(cluster.scratch / "none")
    result = cluster.playbook(tasks, __tortie_kubeconfig=none)
    assert result.returncode != 0
    assert f"kubeconfig {none} does not exist" in " ".join(result.stdout.split())
    assert changed(cluster.playbook(tasks, "--check", __tortie_kubeconfig=none).stdout) == 1
