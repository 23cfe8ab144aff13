"""Kubernetes' own NetworkPolicies among Calico's: seen, and never written."""

from collections.abc import Iterator

import pytest

from tests.integration.cli.tool import Tool

PATH = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
OWN = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "NetworkPolicy",
    "metadata": {"name": "own", "namespace": "default"},
    "spec": {"selector": "app == 'own'"},
}


@pytest.fixture
def shop(tool: Tool) -> Iterator[Tool]:
    """A policy of Kubernetes in namespace default, and one of Calico."""
    spec = {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": 80}]}],
        "policyTypes": ["Ingress"],
    }
    tool.server.request(
        "POST", PATH, {"metadata": {"name": "web", "labels": {"made-by": "test"}}, "spec": spec}
    )
    try:
        tool.write("create", OWN)
        yield tool
    finally:
        tool.server.request("DELETE", f"{PATH}/web")


def test_they_are_listed_with_calicos(shop: Tool) -> None:
    lines = [line.split() for line in shop.ok("get", "networkpolicies", "-o", "wide").splitlines()]
    assert [line[:3] for line in lines[1:]] == [
        ["knp.default.web", "default", "1000"],
        ["own", "default", "<nil>"],
    ]
    assert shop.ok("get", "np", "-n", "kube-system").splitlines()[1:] == []
    everywhere = shop.ok("get", "np", "-A").splitlines()
    assert everywhere[1].split()[:2] == ["default", "knp.default.web"]


def test_one_is_shown_by_its_name_in_the_v3_form(shop: Tool) -> None:
    shown = shop.get("networkpolicy", "knp.default.web")
    assert (shown["apiVersion"], shown["kind"]) == ("projectcalico.org/v3", "NetworkPolicy")
    assert shown["metadata"]["labels"] == {"made-by": "test"}
    (rule,) = shown["spec"]["ingress"]
    assert (rule["protocol"], rule["destination"]) == ("TCP", {"ports": [80]})
    assert rule["source"]["namespaceSelector"] == "all()"
    assert "no NetworkPolicy named knp.default.none" in shop.fails("get", "np", "knp.default.none")


@pytest.mark.parametrize("verb", ["create", "apply", "replace"])
def test_none_is_written(shop: Tool, verb: str) -> None:
    shown = shop.get("networkpolicy", "knp.default.web")
    said = shop.refused(verb, shown)
    assert "NetworkPolicy knp.default.web cannot be" in said
    assert "use kubectl for networkpolicies.networking.k8s.io web" in said


def test_none_is_deleted_patched_or_labelled(shop: Tool) -> None:
    for words in (
        ("delete", "np", "knp.default.web"),
        ("patch", "np", "knp.default.web", "-p", '{"spec": {"order": 1}}'),
        ("label", "np", "knp.default.web", "a=b"),
    ):
        assert "use kubectl" in shop.fails(*words)
    assert shop.server.request("GET", f"{PATH}/web")["metadata"]["labels"] == {"made-by": "test"}


def test_in_etcd_the_name_is_refused_too(etcd_tool: Tool) -> None:
    named = {**OWN, "metadata": {"name": "knp.default.web", "namespace": "default"}}
    assert "use kubectl" in etcd_tool.refused("create", named)
    assert etcd_tool.get("np")["items"] == []
