"""`tortiectl datastore migrate` between a real API server and a real etcd."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from tests.components.apiserver import ApiServer
from tests.components.etcd import Etcd
from tortie.cli.main import main
from tortie.datastore import codec
from tortie.datastore.interface import Datastore
from tortie.datastore.kubernetes import connect
from tortie.model.names import affinity_labels, affinity_name
from tortie.model.registry import kind_of

CRD = "crd.projectcalico.org/v1"
CIDR = "10.5.0.0/26"


def crd(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": CRD, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


def everything() -> list[dict[str, Any]]:
    """A cluster's objects, some with fields that we do not know."""
    block = {
        "cidr": CIDR,
        "affinity": "host:n1",
        "affinityClaimTime": "2026-01-01T00:00:00Z",
        "strictAffinity": False,
        "allocations": [0, *[None] * 63],
        "unallocated": list(range(1, 64)),
        "attributes": [{"handle_id": "k8s-pod-network.abc", "secondary": {"node": "n1", "pod": "p"}}],
        "deleted": False,
        "sequenceNumber": 1767225600000000000,
        "sequenceNumberForAllocation": {"0": 1767225600000000000},
    }
    affinity = {"cidr": CIDR, "node": "n1", "state": "confirmed", "deleted": "false", "type": "host"}
    rule = {"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'x'"}, "future": True}
    rule["destination"] = {"ports": [80, "8000:8090"]}
    folded = '{"creationTimestamp":null,"labels":{"app":"x"}}'
    return [
        crd("ClusterInformation", "default", {"clusterGUID": "a" * 32, "datastoreReady": True}),
        crd("IPPool", "pool4", {"cidr": "10.5.0.0/16", "ipipMode": "Always", "future": {"x": [1]}}),
        crd("IPPool", "pool6", {"cidr": "fd00:10:5::/112", "blockSize": 122}),
        crd("IPReservation", "first", {"reservedCIDRs": ["10.5.0.1"]}),
        crd(
            "IPAMConfig",
            "default",
            {"strictAffinity": True, "autoAllocateBlocks": True, "maxBlocksPerHost": 4},
        ),
        crd("IPAMBlock", "10-5-0-0-26", block),
        crd("BlockAffinity", affinity_name("n1", CIDR), affinity, labels=affinity_labels("n1", CIDR)),
        crd(
            "IPAMHandle",
            "k8s-pod-network.abc",
            {"handleID": "k8s-pod-network.ABC", "block": {CIDR: 1}, "deleted": False},
        ),
        crd("BGPConfiguration", "default", {"asNumber": 64513, "nodeToNodeMeshEnabled": False}),
        crd(
            "BGPPeer",
            "rack",
            {
                "peerIP": "192.0.2.1",
                "asNumber": 64514,
                "password": {"secretKeyRef": {"name": "s", "key": "k"}},
            },
        ),
        crd(
            "BGPFilter",
            "f",
            {"exportV4": [{"action": "Reject", "cidr": "10.5.0.0/16", "matchOperator": "In"}]},
        ),
        crd("FelixConfiguration", "default", {"vxlanVNI": 4096, "bpfLogLevel": "Off"}),
        crd("KubeControllersConfiguration", "default", {"controllers": {"node": {"leakGracePeriod": "15m"}}}),
        crd("Tier", "security", {"order": 100.5}),
        crd("GlobalNetworkPolicy", "g", {"selector": "all()", "order": 10, "ingress": [rule]}),
        crd(
            "NetworkPolicy",
            "same",
            {"selector": "all()"},
            namespace="default",
            annotations={"projectcalico.org/metadata": folded},
        ),
        crd("NetworkPolicy", "same", {"selector": "has(a)"}, namespace="kube-system"),
        crd("GlobalNetworkSet", "nets", {"nets": ["10.9.0.0/24"]}, labels={"role": "db"}),
        crd(
            "HostEndpoint", "n1-eth0", {"node": "n1", "interfaceName": "eth0", "expectedIPs": ["10.30.200.1"]}
        ),
    ]


NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": "n1",
        "labels": {"zone": "a"},
        "annotations": {
            "projectcalico.org/IPv4Address": "10.30.200.1/24",
            "projectcalico.org/IPv4IPIPTunnelAddr": "10.5.0.1",
            "projectcalico.org/ASNumber": "64513",
            "projectcalico.org/Interfaces": "[]",
        },
    },
    "status": {"addresses": [{"type": "InternalIP", "address": "10.30.200.1"}]},
}


async def fill(kubeconfig: Path, documents: list[dict[str, Any]]) -> None:
    async with await connect(kubeconfig) as store:
        await asyncio.gather(*(create(store, document) for document in documents))


async def create(store: Datastore, document: dict[str, Any]) -> None:
    kind = kind_of(document["apiVersion"], document["kind"])
    await store.create(codec.decode(kind, msgspec.json.encode(document)))


class Places:
    """The two datastores, each as the command line finds it."""

    def __init__(self, apiserver: ApiServer, etcd: Etcd, directory: Path) -> None:
        self.apiserver = apiserver
        self.etcd = etcd
        self.directory = directory

    def kubernetes(self, *words: str) -> Result:
        return self.run("--kubeconfig", str(self.apiserver.kubeconfig), "datastore", "migrate", *words)

    def etcd3(self, *words: str) -> Result:
        variables = {"DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": self.etcd.url}
        return self.run("datastore", "migrate", *words, env=variables)

    def run(self, *words: str, env: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(main, list(words), env=env)

    def saved(self, text: str) -> str:
        path = self.directory / "export"
        path.write_text(text)
        return str(path)


@pytest.fixture
def places(apiserver: ApiServer, etcd: Etcd, tmp_path: Path) -> Iterator[Places]:
    apiserver.reset()
    etcd.reset()
    yield Places(apiserver, etcd, tmp_path)
    apiserver.reset()


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


def objects(text: str) -> dict[tuple[str, str, str], Any]:
    items = json.loads(text)["items"]
    return {
        (item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]): item
        for item in items
    }


def test_everything_is_the_same_after_going_to_etcd_and_back(places: Places) -> None:
    asyncio.run(fill(places.apiserver.kubeconfig, [*everything(), NODE]))
    done(places.kubernetes("lock"))
    before = done(places.kubernetes("export", "-o", "json"))
    assert len(objects(before)) == len(everything()) + 1

    imported = done(places.etcd3("import", "-f", places.saved(before)))
    assert f"Imported {len(everything()) + 1} objects" in imported
    between = done(places.etcd3("export", "-o", "json"))
    assert objects(between) == objects(before)

    places.apiserver.reset()
    bare = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"zone": "a"}}}
    places.apiserver.request("POST", "/api/v1/nodes", {**bare, "status": NODE["status"]})
    as_yaml = done(places.etcd3("export"))
    done(places.kubernetes("import", "-f", places.saved(as_yaml)))
    after = done(places.kubernetes("export", "-o", "json"))
    assert objects(after) == objects(before)

    information = places.apiserver.request("GET", f"/apis/{CRD}/clusterinformations/default")
    assert information["spec"] == {"clusterGUID": "a" * 32, "datastoreReady": False}
    done(places.kubernetes("unlock"))
    information = places.apiserver.request("GET", f"/apis/{CRD}/clusterinformations/default")
    assert information["spec"]["datastoreReady"] is True


def test_export_of_a_datastore_in_use_is_refused(places: Places) -> None:
    asyncio.run(fill(places.apiserver.kubeconfig, everything()[:1]))
    result = places.kubernetes("export")
    assert result.exit_code == 1
    assert "migrate lock" in result.output


def test_import_into_a_datastore_in_use_is_refused(places: Places) -> None:
    asyncio.run(fill(places.apiserver.kubeconfig, everything()[:1]))
    result = places.kubernetes("import", "-f", places.saved('{"kind": "List", "items": []}'))
    assert result.exit_code == 1
    assert "datastoreReady" in result.output


def test_import_into_a_datastore_with_other_objects_writes_nothing(places: Places) -> None:
    foreign = crd("IPPool", "foreign", {"cidr": "10.6.0.0/16"})
    asyncio.run(fill(places.apiserver.kubeconfig, [foreign]))
    text = json.dumps({"kind": "List", "items": everything()})
    result = places.kubernetes("import", "-f", places.saved(text))
    assert result.exit_code == 1
    assert "IPPool foreign" in result.output
    assert places.apiserver.request("GET", f"/apis/{CRD}/bgppeers")["items"] == []


def test_interrupted_import_can_be_run_again(places: Places) -> None:
    documents = everything()
    done(places.etcd3("import", "-f", places.saved(json.dumps({"kind": "List", "items": documents[:8]}))))
    whole = json.dumps({"kind": "List", "items": documents})
    again = done(places.etcd3("import", "-f", places.saved(whole)))
    assert "Imported" in again
    assert len(objects(done(places.etcd3("export", "-o", "json")))) == len(documents)


def test_node_that_the_cluster_does_not_have_is_named_and_left_out(places: Places) -> None:
    result = places.kubernetes("import", "-f", places.saved(json.dumps({"kind": "List", "items": [NODE]})))
    assert result.exit_code == 0
    assert "Node n1 is not in this cluster" in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Nonsense\napiVersion: v1\n", "Nonsense"),
        ("- 1\n", "Document 1"),
        ("{", "neither YAML nor JSON"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n", "not imported"),
    ],
)
def test_file_that_is_no_export_is_refused(places: Places, text: str, said: str) -> None:
    result = places.etcd3("import", "-f", places.saved(text))
    assert result.exit_code == 1
    assert said in result.output


def test_lock_of_a_datastore_without_a_network_says_so(places: Places) -> None:
    result = places.etcd3("lock")
    assert result.exit_code == 1
    assert "clusterinformations" in result.output
