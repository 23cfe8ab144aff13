"""The probe in real network namespaces: two pods and the node between them, without a cluster."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils.verify_kernel import fragments_created
from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import ClusterFacts, PodState

from tests.integration.verify.wires import ROOT, Wires, eventually, wires

pytestmark = pytest.mark.root

SOURCE, TARGET, PORT = "10.98.1.2", "10.98.2.2", 8080
POD_MTU, NARROW = 1450, 1377
ASK = (
    "import sys,json;from ansible_collections.tortie.cluster.plugins.module_utils.verify_probing import ask;"
    "print(json.dumps(ask(sys.argv[1], 8080, sys.argv[2], 60)))"
)


class Pods:
    """Namespaces `source` and `target`, each with eth0 to the namespace `node`, which forwards."""

    def __init__(self, made: Wires) -> None:
        self.wires = made
        made.add("node")
        made.inside("node", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for name, address in (("source", SOURCE), ("target", TARGET)):
            gateway = address.rsplit(".", 1)[0] + ".1"
            made.add(name)
            made.link(name, "node", "eth0", f"cali{name}", POD_MTU)
            made.ip(name, "address", "add", f"{address}/24", "dev", "eth0")
            made.ip(name, "route", "add", "default", "via", gateway)
            made.ip("node", "address", "add", f"{gateway}/24", "dev", f"cali{name}")
            python = [sys.executable, "-m", "tortie.verify.probe", "serve", f"--port={PORT}"]
            made.start(name, *python, PYTHONPATH=str(ROOT / "src"), NODE_NAME="node-1", POD_NAME=name)
        eventually(lambda: self.answers(SOURCE) and self.answers(TARGET), "both probes answer")

    def answers(self, address: str) -> bool:
        """Whether the probe at that address is up."""
        try:
            return bool(self.ask(address, "/healthz"))
        except AssertionError:
            return False

    def ask(self, address: str, path: str) -> dict[str, Any]:
        """A question from the node."""
        environment = ["env", f"PYTHONPATH={ROOT / 'collections'}"]
        answer = self.wires.inside("node", *environment, sys.executable, "-c", ASK, address, path)
        loaded: dict[str, Any] = json.loads(answer)
        return loaded

    def narrow(self) -> None:
        """Make the link between node and target smaller than the source's MTU."""
        self.wires.ip("node", "link", "set", "calitarget", "mtu", str(NARROW))
        self.wires.ip("target", "link", "set", "eth0", "mtu", str(NARROW))


@pytest.fixture(name="pods")
def _pods() -> Iterator[Pods]:
    with wires() as made:
        yield Pods(made)


def test_interface_is_what_the_kernel_says(pods: Pods) -> None:
    answer = pods.ask(SOURCE, "/interface")
    assert (answer["mtu"], answer["address"]) == (POD_MTU, f"{SOURCE}/24")
    assert {"destination": "0.0.0.0/0", "gateway": "10.98.1.1"} in answer["routes"]
    assert {"destination": "10.98.1.0/24", "gateway": ""} in answer["routes"]
    link = json.loads(pods.wires.ip("source", "-j", "link", "show", "eth0"))[0]
    assert answer["mac"] == link["address"]


def test_permanent_neighbour_is_told_from_a_learned_one(pods: Pods) -> None:
    entry = ["10.98.1.9", "lladdr", "ee:ee:ee:ee:ee:ee", "dev", "eth0", "nud", "permanent"]
    pods.wires.ip("source", "neighbour", "replace", *entry)
    neighbours = {n["address"]: n for n in pods.ask(SOURCE, "/interface")["neighbours"]}
    assert neighbours["10.98.1.9"] == {"address": "10.98.1.9", "mac": "ee:ee:ee:ee:ee:ee", "permanent": True}
    assert neighbours["10.98.1.1"]["permanent"] is False


def test_path_mtu_of_an_even_path_is_the_interfaces_and_one_byte_more_is_refused(pods: Pods) -> None:
    answer = pods.ask(SOURCE, f"/pmtu?host={TARGET}&low=28&high={POD_MTU + 1}")
    assert (answer["largest"], answer["above"], answer["attempts"]) == (POD_MTU, "emsgsize", 2)


def test_path_mtu_search_finds_the_narrow_link_to_the_byte(pods: Pods) -> None:
    pods.narrow()
    answer = pods.ask(SOURCE, f"/pmtu?host={TARGET}&low=28&high={POD_MTU + 1}")
    assert (answer["largest"], answer["above"]) == (NARROW, "emsgsize")


def test_large_packet_without_df_is_fragmented_and_answered_where_one_with_df_is_refused(pods: Pods) -> None:
    pods.narrow()
    assert pods.ask(SOURCE, f"/icmp?host={TARGET}&size={NARROW + 1}&df=1")["outcome"] == "emsgsize"
    assert pods.ask(SOURCE, f"/icmp?host={TARGET}&size={NARROW + 1}&df=0")["outcome"] == "reply"


def test_echo_to_nobody_times_out(pods: Pods) -> None:
    answer = pods.ask(SOURCE, "/icmp?host=10.98.2.77&seconds=0.3")
    assert answer["outcome"] == "timeout"
    assert "10.98.2.77" in answer["detail"]


def test_tcp_tells_a_refusal_from_an_answer(pods: Pods) -> None:
    assert pods.ask(SOURCE, f"/tcp?host={TARGET}&port={PORT}") == {"connected": True, "detail": ""}
    refused = pods.ask(SOURCE, f"/tcp?host={TARGET}&port=9")
    assert refused["connected"] is False
    assert refused["detail"] == f"{TARGET}:9: Connection refused"


def test_fetch_shows_the_address_that_the_other_pod_saw(pods: Pods) -> None:
    answer = pods.ask(SOURCE, f"/fetch?host={TARGET}&port={PORT}")
    assert answer["answer"] == {"node": "node-1", "pod": "target", "client": SOURCE}


def _cluster() -> ClusterFacts:
    def pod(name: str, address: str) -> PodState:
        return PodState(name=name, node="node-1", address=address, ready=True, reason="Running")

    return ClusterFacts(
        nodes=[],
        affinities=[],
        pools=[],
        agents=[],
        sources=[pod("source", SOURCE)],
        targets=[pod("target", TARGET)],
        unprobed="",
        probe_port=PORT,
        probe_service={"address": TARGET, "port": PORT, "ready": True},
        kubernetes_service={"address": TARGET, "port": 9, "ready": True},
        dns_service=None,
        errors=[],
    )


def test_module_asks_the_nodes_own_pods_and_reports_all_peers_and_services(
    pods: Pods, tmp_path: Path
) -> None:
    (tmp_path / "nodename").write_text("node-1\n")
    result = pods.wires.module(
        "node", "verify_probe", cluster=_cluster(), settle=0.1, nodename_file=str(tmp_path / "nodename")
    )
    assert result["changed"] is False
    facts = result["probe"]
    assert facts["errors"] == []
    assert {role: i["mtu"] for role, i in facts["interfaces"].items()} == {
        "source": POD_MTU,
        "target": POD_MTU,
    }
    assert facts["peers"]["node-1"] == {
        "tcp": True,
        "tcp_detail": "",
        "seen_as": SOURCE,
        "icmp": True,
        "icmp_detail": "",
        "largest": POD_MTU,
        "above": "emsgsize",
        "mtu_detail": "",
    }
    assert facts["services"]["tortie-verify"]["connected"] is True
    assert facts["services"]["kubernetes"]["connected"] is False
    assert facts["fragments"] == 0


def test_fragments_that_a_node_creates_are_counted(pods: Pods) -> None:
    before = pods.wires.inside("node", "cat", "/proc/net/snmp")
    pods.narrow()
    assert pods.ask(SOURCE, f"/icmp?host={TARGET}&size=1400&df=0")["outcome"] == "reply"
    after = pods.wires.inside("node", "cat", "/proc/net/snmp")
    assert fragments_created(after) - fragments_created(before) == 2


def test_module_without_pods_says_so_and_does_not_fail(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "nodename").write_text("node-2\n")
    facts = pods.wires.module(
        "node", "verify_probe", cluster=_cluster(), settle=0.1, nodename_file=str(tmp_path / "nodename")
    )["probe"]
    assert facts["peers"] == {}
    assert facts["errors"] == ["node node-2 has no Ready source pod", "node node-2 has no Ready target pod"]
