"""tortiectl against a real API server, as its own process."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.components.apiserver import ApiServer
from tortie.datastore.interface import Datastore
from tortie.model.constants import ANNOTATION_IPV4_ADDRESS
from tortie.model.names import affinity_labels, affinity_name, cidr_name
from tortie.model.resources import (
    AllocationAttribute,
    BGPConfiguration,
    BGPConfigurationSpec,
    BlockAffinity,
    BlockAffinitySpec,
    ClusterInformation,
    ClusterInformationSpec,
    IPAMBlock,
    IPAMBlockSpec,
    IPPool,
    IPPoolSpec,
    Metadata,
    Node,
    Pod,
)

SOURCE = Path(__file__).resolve().parents[3] / "src"
BLOCK = "10.5.37.192/26"


async def run(server: ApiServer, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line tool with administrator's rights."""
    command = [sys.executable, "-m", "tortie.cli.main", "--kubeconfig", str(server.kubeconfig), *words]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, cwd=SOURCE
    )


async def output(server: ApiServer, *words: str) -> str:
    """Its output, when it succeeds."""
    result = await run(server, *words)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


@pytest.fixture
async def populated(apiserver: ApiServer, datastore: Datastore) -> ApiServer:
    """Two nodes, a pool, one block with two addresses, two pods."""
    for number, name in ((1, "master-01"), (2, "worker-01")):
        annotations = {ANNOTATION_IPV4_ADDRESS: f"10.30.200.{number}/24"}
        await datastore.create(Node(metadata=Metadata(name=name, annotations=annotations)))
    await datastore.create(
        IPPool(
            metadata=Metadata(name="default-ipv4-ippool"),
            spec=IPPoolSpec(cidr="10.5.0.0/16", vxlan_mode="Always", nat_outgoing=True),
        )
    )
    name = affinity_name("worker-01", BLOCK)
    await datastore.create(
        BlockAffinity(
            metadata=Metadata(name=name, labels=affinity_labels("worker-01", BLOCK)),
            spec=BlockAffinitySpec(node="worker-01", cidr=BLOCK, state="confirmed"),
        )
    )
    attributes = [
        AllocationAttribute(handle_id=f"k8s-pod-network.{pod}", secondary={"pod": pod, "namespace": "shop"})
        for pod in ("web-0", "web-1")
    ]
    await datastore.create(
        IPAMBlock(
            metadata=Metadata(name=cidr_name(BLOCK)),
            spec=IPAMBlockSpec(
                cidr=BLOCK,
                affinity="host:worker-01",
                allocations=[0, 1] + [None] * 62,
                unallocated=list(range(2, 64)),
                attributes=attributes,
            ),
        )
    )
    await datastore.create(
        ClusterInformation(
            metadata=Metadata(name="default"),
            spec=ClusterInformationSpec(calico_version="0.1.0", cluster_type="k8s,bgp", datastore_ready=True),
        )
    )
    for namespace, pod, address in (
        ("default", "web-0", "10.5.37.192"),
        ("kube-system", "dns", "10.5.37.193"),
    ):
        pod_document = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod},
            "spec": {"nodeName": "worker-01", "containers": [{"name": "c", "image": "x"}]},
        }
        path = f"/api/v1/namespaces/{namespace}/pods"
        await asyncio.to_thread(apiserver.request, "POST", path, pod_document)
        status = {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}
        await datastore.patch(Pod, pod, status, namespace, "status")
    return apiserver


async def test_nodes_are_listed_by_name(populated: ApiServer) -> None:
    assert await output(populated, "get", "nodes") == "NAME\nmaster-01\nworker-01\n"


async def test_wide_nodes_show_address_and_as_number(populated: ApiServer) -> None:
    assert await output(populated, "get", "node", "-o", "wide", "worker-01") == (
        "NAME        ASN       IPV4             IPV6\nworker-01   (64512)   10.30.200.2/24\n"
    )


async def test_nodes_show_the_configured_as_number(populated: ApiServer, datastore: Datastore) -> None:
    spec = BGPConfigurationSpec(as_number=64999)
    await datastore.create(BGPConfiguration(metadata=Metadata(name="default"), spec=spec))
    assert "(64999)" in await output(populated, "get", "nodes", "-o", "wide")


async def test_pools_are_listed(populated: ApiServer) -> None:
    assert await output(populated, "get", "ippools") == (
        "NAME                  CIDR          SELECTOR\ndefault-ipv4-ippool   10.5.0.0/16   all()\n"
    )


async def test_named_object_is_a_document_and_kind_is_a_list(populated: ApiServer) -> None:
    one = yaml.safe_load(await output(populated, "get", "ippool", "default-ipv4-ippool", "-o", "yaml"))
    assert (one["apiVersion"], one["kind"]) == ("projectcalico.org/v3", "IPPool")
    assert one["spec"]["vxlanMode"] == "Always"
    assert one["metadata"]["uid"]
    everything = json.loads(await output(populated, "get", "ippools", "-o", "json"))
    assert everything["kind"] == "IPPoolList"
    assert everything["items"] == [one]
    assert everything["metadata"]["resourceVersion"]


async def test_affinities_are_listed(populated: ApiServer) -> None:
    lines = (await output(populated, "get", "blockaffinities", "-o", "wide")).splitlines()
    assert lines[0].split() == ["NAME", "CIDR", "NODE", "STATE", "TYPE"]
    assert lines[1].split() == ["worker-01-10-5-37-192-26", BLOCK, "worker-01", "confirmed", "host"]


async def test_endpoints_are_those_of_one_namespace_or_of_all(populated: ApiServer) -> None:
    lines = (await output(populated, "get", "wep")).splitlines()
    assert lines[0].split() == ["WORKLOAD", "NODE", "NETWORKS", "INTERFACE"]
    assert lines[1].split()[:3] == ["web-0", "worker-01", "10.5.37.192/32"]
    assert len(lines) == 2
    assert "dns" in await output(populated, "get", "wep", "-n", "kube-system")
    every = (await output(populated, "get", "workloadendpoints", "-A")).splitlines()
    assert [line.split()[:2] for line in every[1:]] == [["default", "web-0"], ["kube-system", "dns"]]


async def test_missing_name_fails_and_what_exists_is_shown(populated: ApiServer) -> None:
    result = await run(populated, "get", "nodes", "worker-01", "worker-99")
    assert (result.returncode, result.stdout) == (1, "NAME\nworker-01\n")
    assert result.stderr == "Error: no Node named worker-99\n"


async def test_ipam_show_counts_addresses(populated: ApiServer) -> None:
    text = await output(populated, "ipam", "show", "--show-blocks")
    assert [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")][1:] == [
        [" IP Pool  ", " 10.5.0.0/16    ", "     65536 ", " 2 (0%)     ", " 65534 (100%) "],
        [" Block    ", " 10.5.37.192/26 ", "        64 ", " 2 (3%)     ", " 62 (97%)     "],
    ]


async def test_ipam_show_names_the_holder_of_an_address(populated: ApiServer) -> None:
    text = await output(populated, "ipam", "show", "--ip=10.5.37.193")
    assert text.splitlines()[:4] == [
        "IP 10.5.37.193 is in use",
        "Attributes:",
        "  namespace: shop",
        "  pod: web-1",
    ]
    assert "not assigned" in await output(populated, "ipam", "show", "--ip=10.5.37.194")


async def test_version_is_that_of_tool_and_cluster(populated: ApiServer) -> None:
    lines = (await output(populated, "version")).splitlines()
    assert [line.split(":")[0] for line in lines] == ["Client Version", "Cluster Version", "Cluster Type"]
    assert lines[2].endswith("k8s,bgp")


async def test_credentials_without_rights_are_an_error_sentence(populated: ApiServer, tmp_path: Path) -> None:
    config = yaml.safe_load(populated.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": "wrong"}
    stranger = tmp_path / "kubeconfig"
    stranger.write_text(yaml.safe_dump(config))
    result = await run(populated, "--kubeconfig", str(stranger), "get", "nodes")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
