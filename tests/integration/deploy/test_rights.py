"""What the service accounts may do, asked of a real API server."""

from typing import Any

import pytest

from tests.integration.deploy.conftest import ROOT, Cluster

NODE = "system:serviceaccount:kube-system:calico-node"
CONTROLLERS = "system:serviceaccount:kube-system:calico-kube-controllers"
PLUGIN = "system:serviceaccount:kube-system:calico-cni-plugin"
CALICO = "crd.projectcalico.org"
READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete", "deletecollection")

# (group, resource, subresource) -> verbs that calico-node has; every other verb it must not have.
NODE_RIGHTS: dict[tuple[str, str, str], tuple[str, ...]] = {
    ("", "nodes", ""): READ,
    ("", "nodes", "status"): ("patch",),
    ("", "pods", ""): READ,
    ("", "pods", "status"): ("patch",),
    ("", "namespaces", ""): READ,
    ("", "secrets", ""): (),
    ("", "configmaps", ""): (),
    ("", "serviceaccounts", ""): READ,
    ("", "services", ""): READ,
    ("", "endpoints", ""): (),
    ("discovery.k8s.io", "endpointslices", ""): READ,
    ("networking.k8s.io", "networkpolicies", ""): READ,
    ("apps", "daemonsets", ""): (),
    ("rbac.authorization.k8s.io", "clusterroles", ""): (),
    ("apiextensions.k8s.io", "customresourcedefinitions", ""): (),
    (CALICO, "ippools", ""): (*READ, "create"),
    (CALICO, "ipamconfigs", ""): READ,
    (CALICO, "blockaffinities", ""): (*READ, "create", "update", "delete"),
    (CALICO, "ipamblocks", ""): (*READ, "create", "update", "delete"),
    (CALICO, "ipamhandles", ""): (*READ, "create", "update", "delete"),
    (CALICO, "clusterinformations", ""): (*READ, "create", "patch"),
    (CALICO, "bgpconfigurations", ""): READ,
    (CALICO, "bgppeers", ""): (),
    (CALICO, "felixconfigurations", ""): READ,
    (CALICO, "ipreservations", ""): READ,
    (CALICO, "networkpolicies", ""): READ,
    (CALICO, "globalnetworkpolicies", ""): READ,
    (CALICO, "stagednetworkpolicies", ""): READ,
    (CALICO, "stagedglobalnetworkpolicies", ""): READ,
    (CALICO, "stagedkubernetesnetworkpolicies", ""): READ,
    (CALICO, "tiers", ""): READ,
    (CALICO, "hostendpoints", ""): READ,
    (CALICO, "networksets", ""): READ,
    (CALICO, "globalnetworksets", ""): READ,
    (CALICO, "kubecontrollersconfigurations", ""): (),
}
PLUGIN_RIGHTS: dict[tuple[str, str, str], tuple[str, ...]] = {
    **dict.fromkeys(NODE_RIGHTS, ()),
    ("", "nodes", ""): ("get",),
    ("", "pods", ""): ("get",),
    ("", "namespaces", ""): ("get",),
    (CALICO, "clusterinformations", ""): ("get",),
}
IPAM_WRITE = (*READ, "create", "update", "delete")
CONTROLLERS_RIGHTS: dict[tuple[str, str, str], tuple[str, ...]] = {
    **dict.fromkeys(NODE_RIGHTS, ()),
    ("", "nodes", ""): READ,
    ("", "pods", ""): READ,
    (CALICO, "ippools", ""): READ,
    (CALICO, "ipamconfigs", ""): READ,
    (CALICO, "ipreservations", ""): READ,
    (CALICO, "blockaffinities", ""): IPAM_WRITE,
    (CALICO, "ipamblocks", ""): IPAM_WRITE,
    (CALICO, "ipamhandles", ""): IPAM_WRITE,
    (CALICO, "kubecontrollersconfigurations", ""): (*READ, "patch"),
}


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Cluster:
    """The cluster with deploy/ in it."""
    cluster.kubectl("apply", "-f", str(ROOT / "deploy"))
    return cluster


def allowed(cluster: Cluster, user: str, **attributes: Any) -> bool:
    """The API server's verdict."""
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    groups = ["system:authenticated", "system:serviceaccounts", "system:serviceaccounts:kube-system"]
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
    }
    verdict: bool = cluster.server.request("POST", path, review)["status"]["allowed"]
    return verdict


def verbs(cluster: Cluster, user: str, where: tuple[str, str, str]) -> tuple[str, ...]:
    """All verbs that the user has on a resource, anywhere in the cluster."""
    group, resource, subresource = where
    return tuple(
        verb
        for verb in (*READ, *WRITE)
        if allowed(
            cluster, user, verb=verb, group=group, version="*", resource=resource, subresource=subresource
        )
    )


@pytest.mark.parametrize("where", sorted(NODE_RIGHTS), ids="/".join)
def test_calico_node_has_exactly_these_verbs(installed: Cluster, where: tuple[str, str, str]) -> None:
    assert sorted(verbs(installed, NODE, where)) == sorted(NODE_RIGHTS[where])


@pytest.mark.parametrize("where", sorted(PLUGIN_RIGHTS), ids="/".join)
def test_cni_plugin_has_exactly_these_verbs(installed: Cluster, where: tuple[str, str, str]) -> None:
    assert sorted(verbs(installed, PLUGIN, where)) == sorted(PLUGIN_RIGHTS[where])


@pytest.mark.parametrize("where", sorted(CONTROLLERS_RIGHTS), ids="/".join)
def test_controllers_have_exactly_these_verbs(installed: Cluster, where: tuple[str, str, str]) -> None:
    assert sorted(verbs(installed, CONTROLLERS, where)) == sorted(CONTROLLERS_RIGHTS[where])


@pytest.mark.parametrize(
    ("user", "namespace", "account", "verdict"),
    [
        (NODE, "kube-system", "calico-cni-plugin", True),
        (NODE, "kube-system", "calico-node", False),
        (NODE, "kube-system", "default", False),
        (NODE, "kube-system", "", False),
        (NODE, "default", "calico-cni-plugin", False),
        (PLUGIN, "kube-system", "calico-cni-plugin", False),
    ],
)
def test_tokens_are_minted_for_one_account_by_one_account(
    installed: Cluster, user: str, namespace: str, account: str, verdict: bool
) -> None:
    assert verdict is allowed(
        installed,
        user,
        verb="create",
        group="",
        resource="serviceaccounts",
        subresource="token",
        namespace=namespace,
        name=account,
    )
