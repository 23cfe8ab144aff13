"""`policy explain --host-endpoint` about objects of a real API server."""

import json

import pytest

from tests.integration.cli.tool import Tool

OBJECTS = """\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: node-1-eth0, labels: {role: host}}
spec: {node: node-1, interfaceName: eth0, expectedIPs: [192.0.2.1]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: web}
spec:
  selector: role == 'host'
  types: [Ingress]
  ingress:
    - {action: Allow, protocol: TCP, destination: {ports: [80]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: early}
spec:
  selector: role == 'host'
  preDNAT: true
  applyOnForward: true
  ingress:
    - {action: Deny, source: {nets: [198.51.100.0/24]}}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec:
  failsafeInboundHostPorts: [{protocol: TCP, port: 2022}]
"""
EXPLAIN = ("policy", "explain", "--host-endpoint", "node-1-eth0")


@pytest.fixture
def host(tool: Tool) -> Tool:
    tool.ok("apply", "-f", "-", stdin=OBJECTS)
    return tool


def test_stages_are_named_in_their_order_with_the_rule_that_decides(host: Tool) -> None:
    assert host.ok(*EXPLAIN, "--from", "203.0.113.9", "--port", "80") == (
        "TCP from 203.0.113.9 to 192.0.2.1 port 80\n"
        "for the node itself, into eth0 of node-1 (HostEndpoint node-1-eth0)\n"
        "Ingress, preDNAT policy: allowed. No policy with preDNAT decides it; it goes on.\n"
        "Ingress, host policy: allowed. GlobalNetworkPolicy web in tier default allows it.\n"
        "    rule: spec.ingress[0]\n"
        "Verdict: allowed\n"
    )
    denied = host.ok(*EXPLAIN, "--from", "198.51.100.9", "--port", "80")
    assert "Ingress, preDNAT policy: denied. GlobalNetworkPolicy early" in denied
    assert denied.endswith("Verdict: denied\n")


def test_failsafe_ports_are_those_of_felix_configuration(host: Tool) -> None:
    answer = json.loads(host.ok(*EXPLAIN, "--from", "203.0.113.9", "--port", "2022", "-o", "json"))
    assert answer["allowed"] is True
    assert answer["hostEndpoint"] == {"name": "node-1-eth0", "node": "node-1", "interface": "eth0"}
    assert [stage["stage"] for stage in answer["stages"]] == ["preDNAT", "host"]
    assert "failsafe" in answer["stages"][-1]["reason"]
    assert host.ok(*EXPLAIN, "--from", "203.0.113.9", "--port", "22").endswith("Verdict: denied\n")


def test_with_both_ends_it_is_what_the_node_forwards(host: Tool) -> None:
    answer = json.loads(
        host.ok(*EXPLAIN, "--from", "203.0.113.9", "--to", "10.5.0.9", "--port", "22", "-o", "json")
    )
    assert (answer["forwarded"], answer["allowed"]) == (True, True)
    assert [stage["stage"] for stage in answer["stages"]] == ["preDNAT", "applyOnForward"]


def test_without_ends_all_that_applies_is_listed_by_stage(host: Tool) -> None:
    assert host.ok(*EXPLAIN) == (
        "HostEndpoint node-1-eth0: eth0 of node-1\n"
        "ingress:\n"
        "    with preDNAT, before all:\n"
        "        tier default\n"
        "            GlobalNetworkPolicy early\n"
        "    for the node itself, failsafe ports first: TCP 2022\n"
        "        tier default (what no policy of it decides: denied)\n"
        "            GlobalNetworkPolicy web\n"
        "        then profiles: none; else denied\n"
        "    for what the node forwards:\n"
        "        no policy: allowed\n"
        "egress:\n"
        "    for the node itself, failsafe ports first: UDP 53, UDP 67, TCP 179, TCP 2379, TCP 2380,"
        " TCP 5473, TCP 6443, TCP 6666, TCP 6667\n"
        "        then profiles: none; else denied\n"
        "    for what the node forwards:\n"
        "        no policy: allowed\n"
    )
    answer = json.loads(host.ok(*EXPLAIN, "-o", "json"))
    assert [stage["stage"] for stage in answer["stages"]] == [
        "doNotTrack",
        "preDNAT",
        "host",
        "applyOnForward",
    ]
    assert answer["failsafePorts"]["inbound"] == ["TCP 2022"]


def test_endpoint_that_does_not_exist_and_words_that_contradict_are_refused(host: Tool) -> None:
    words = ("policy", "explain", "--host-endpoint", "nobody")
    assert "HostEndpoint nobody does not exist; there are: node-1-eth0" in host.fails(*words)
    for words_ in (("policy", "explain"), ("policy", "explain", "web", "--host-endpoint", "node-1-eth0")):
        assert host.run(*words_).status == 2
    assert "--address" in host.run("policy", "explain", "web", "--address", "192.0.2.1").stderr
    assert host.run(*EXPLAIN, "--from", "203.0.113.9", "--port", "1", "--address", "home").status == 2
