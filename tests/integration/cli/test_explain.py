"""`policy explain` about pods and policies of a real API server."""

import json
from typing import Any

import pytest
import yaml

from tests.integration.cli.tool import Tool

POLICIES = """\
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 100, defaultAction: Pass}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: security.block}
spec:
  tier: security
  order: 10
  selector: app == 'web'
  ingress:
    - {action: Log, source: {selector: role == 'bad'}}
    - {action: Deny, source: {selector: role == 'bad'}}
    - {action: Pass}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: default}
spec:
  order: 20
  selector: app == 'web'
  ingress:
    - action: Allow
      protocol: TCP
      source: {namespaceSelector: projectcalico.org/name == 'kube-system'}
      destination: {ports: [80, "8000:8080"]}
"""


@pytest.fixture
def cluster(tool: Tool) -> Tool:
    """web in default, good and bad in kube-system, each on its own node."""
    for number, (namespace, name, labels) in enumerate(
        (
            ("default", "web", {"app": "web"}),
            ("kube-system", "good", {"role": "good"}),
            ("kube-system", "bad", {"role": "bad"}),
        ),
        start=1,
    ):
        path = f"/api/v1/namespaces/{namespace}/pods"
        pod: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": f"node-{number}", "containers": [{"name": "c", "image": "x"}]},
        }
        stored = tool.server.request("POST", path, pod)
        address = f"10.5.0.{number}"
        stored["status"] = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        tool.server.request("PUT", f"{path}/{name}/status", stored)
    tool.ok("apply", "-f", "-", stdin=POLICIES)
    return tool


def test_rule_that_allows_is_named(cluster: Tool) -> None:
    text = cluster.ok("policy", "explain", "web", "--from", "kube-system/good", "--port", "80")
    assert text == (
        "TCP from 10.5.0.2 (kube-system/good) to 10.5.0.1 (default/web) port 80\n"
        "Egress of kube-system/good: allowed. No policy decides it; Profile kns.kube-system allows it.\n"
        "Ingress of default/web: allowed. NetworkPolicy default/web in tier default allows it.\n"
        "    rule: spec.ingress[0]\n"
        "    before: GlobalNetworkPolicy security.block says Pass\n"
        "Verdict: allowed\n"
    )


def test_rule_that_denies_is_named_with_those_that_matched_before(cluster: Tool) -> None:
    words = ("policy", "explain", "web", "--from", "kube-system/bad", "--port", "80", "-o", "json")
    answer = json.loads(cluster.ok(*words))
    assert answer["connection"] == {
        "source": "10.5.0.3",
        "destination": "10.5.0.1",
        "protocol": "TCP",
        "port": 80,
    }
    assert answer["allowed"] is False
    egress, ingress = answer["decisions"]
    assert (egress["direction"], egress["pod"], egress["allowed"]) == ("Egress", "bad", True)
    assert ingress["decidedBy"] == {
        "tier": "security",
        "kind": "GlobalNetworkPolicy",
        "name": "security.block",
        "rule": "spec.ingress[1]",
    }
    assert [step["action"] for step in ingress["steps"]] == ["Log", "Deny"]


def test_end_of_a_tier_decides_where_no_rule_matches(cluster: Tool) -> None:
    text = cluster.ok("policy", "explain", "web", "--from", "kube-system/good", "--port", "443")
    assert "No rule of tier default matches" in text
    assert text.endswith("Verdict: denied\n")


def test_connection_from_the_pod_and_to_an_address(cluster: Tool) -> None:
    outside = cluster.ok("policy", "explain", "web", "--to", "192.0.2.1", "--protocol", "icmp")
    assert outside.splitlines()[0] == "ICMP from 10.5.0.1 (default/web) to 192.0.2.1"
    assert outside.endswith("Verdict: allowed\n")
    words = ("policy", "explain", "good", "-n", "kube-system", "--to", "10.5.0.1", "--port", "8001")
    answer = yaml.safe_load(cluster.ok(*words, "-o", "yaml"))
    assert [side["pod"] for side in answer["decisions"]] == ["good", "web"]
    assert answer["allowed"] is True


def test_without_another_end_all_that_applies_is_listed(cluster: Tool) -> None:
    text = cluster.ok("policy", "explain", "web")
    assert text.splitlines()[1:] == [
        "ingress:",
        "    tier security (what no policy of it decides: goes on to the next tier)",
        "        GlobalNetworkPolicy security.block",
        "    tier default (what no policy of it decides: denied)",
        "        NetworkPolicy default/web",
        "    then profiles: kns.default; what they do not allow is denied",
        "egress:",
        "    then profiles: kns.default; what they do not allow is denied",
    ]
    answer = json.loads(cluster.ok("policy", "explain", "web", "-o", "json"))
    assert [tier["name"] for tier in answer["tiers"]] == ["security", "default"]


def test_what_cannot_be_explained_is_an_error_sentence(cluster: Tool) -> None:
    assert "Pod default/good does not exist; there is one in kube-system" in cluster.fails(
        "policy", "explain", "good"
    )
    assert "are not of the same IP version" in cluster.fails(
        "policy", "explain", "web", "--from", "2001:db8::1", "--port", "80"
    )
    result = cluster.run("policy", "explain", "web", "--from", "kube-system/good")
    assert (result.status, "--port is missing" in result.stderr) == (2, True)
    result = cluster.run("policy", "explain", "web", "--from", "1.1.1.1", "--protocol", "foo")
    assert (result.status, "--protocol 'foo' must be one of" in result.stderr) == (2, True)


def test_etcd_has_no_pods_to_explain(etcd_tool: Tool) -> None:
    assert "which only Kubernetes has" in etcd_tool.fails("policy", "explain", "web")
