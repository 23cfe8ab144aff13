"""The inventory's nodes over the lab's ssh connections; what inventory and API server expect of them.

A pytest plugin that the scenarios share: each scenario's conftest.py names it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

LAB_DIR = Path(os.environ["LAB_DIR"])
INVENTORY = os.environ["LAB_INVENTORY"]
KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf"
# One per run: the namespace of an earlier run may still be on its way out.
NAMESPACE = f"molecule-{os.getpid()}"
PROBE_PORT = 8080


def read_inventory() -> dict[str, Any]:
    """What ansible-inventory --list prints."""
    command = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", INVENTORY, "--list"]
    loaded: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return loaded


def members(inventory: dict[str, Any], group: str) -> list[str]:
    """Hosts of a group and its children."""
    entry = inventory.get(group, {})
    children = [host for child in entry.get("children", []) for host in members(inventory, child)]
    return sorted({*entry.get("hosts", []), *children})


def pytest_configure(config: pytest.Config) -> None:
    """Test every node of the inventory, over ssh as the lab has set it up: one kept connection per node."""
    config.option.hosts = ",".join(f"ssh://{name}" for name in members(read_inventory(), "cluster"))
    config.option.ssh_config = str(LAB_DIR / "ssh_config")


@dataclass(frozen=True)
class Node:
    """A node as the datastore knows it. `subnet` is its address with the prefix length of its network."""

    name: str
    subnet: IPv4Interface
    vxlan_address: str
    vxlan_mac: str
    ipip_address: str
    blocks: list[str]

    @property
    def address(self) -> IPv4Address:
        """Its own address."""
        return self.subnet.ip


@dataclass(frozen=True)
class Cluster:
    """Nodes and the pool, from the datastore; the MTU, from the inventory (0: automatic)."""

    nodes: dict[str, Node]
    pool: dict[str, Any]
    mtu: int

    def peers(self, name: str) -> list[Node]:
        """All other nodes."""
        return [node for node in self.nodes.values() if node.name != name]

    @property
    def device(self) -> str:
        """The tunnel device; empty without encapsulation."""
        if self.pool.get("vxlanMode", "Never") != "Never":
            return "vxlan.calico"
        return "tunl0" if self.pool.get("ipipMode", "Never") != "Never" else ""

    def expected_mtu(self, link_mtu: int) -> int:
        """MTU of pods and tunnel on a node whose link has `link_mtu`."""
        overhead = {"vxlan.calico": 50, "tunl0": 20, "": 0}[self.device]
        return self.mtu or link_mtu - overhead


def get_json(host: Host, arguments: str) -> Any:
    """`kubectl get` on a control plane node."""
    return json.loads(host.check_output(f"{KUBECTL} get {arguments} -o json"))


@pytest.fixture(scope="session", name="control_plane")
def _control_plane() -> Host:
    name = members(read_inventory(), "control_plane")[0]
    return testinfra.get_host(f"ssh://{name}", ssh_config=str(LAB_DIR / "ssh_config"))


def read_cluster(control_plane: Host) -> Cluster:
    """Nodes, tunnels, blocks and pool as they are now."""
    inventory = read_inventory()
    affinities = get_json(control_plane, "blockaffinities.crd.projectcalico.org")["items"]
    pools = get_json(control_plane, "ippools.crd.projectcalico.org")["items"]
    nodes = {}
    for item in get_json(control_plane, "nodes")["items"]:
        name, annotations = item["metadata"]["name"], item["metadata"]["annotations"]
        nodes[name] = Node(
            name=name,
            subnet=IPv4Interface(annotations["projectcalico.org/IPv4Address"]),
            vxlan_address=annotations.get("projectcalico.org/IPv4VXLANTunnelAddr", ""),
            vxlan_mac=annotations.get("projectcalico.org/VXLANTunnelMACAddr", ""),
            ipip_address=annotations.get("projectcalico.org/IPv4IPIPTunnelAddr", ""),
            blocks=[
                a["spec"]["cidr"]
                for a in affinities
                if a["spec"]["node"] == name and a["spec"]["state"] == "confirmed"
            ],
        )
    mtu = str(next(iter(inventory["_meta"]["hostvars"].values())).get("tortie_mtu", "auto"))
    assert sorted(nodes) == members(inventory, "cluster")
    return Cluster(nodes=nodes, pool=pools[0]["spec"], mtu=0 if mtu == "auto" else int(mtu))


# Per module, not per session: tests of one module may have changed what those of the next one expect.
@pytest.fixture(scope="module", name="cluster")
def _cluster(control_plane: Host) -> Cluster:
    return read_cluster(control_plane)


@pytest.fixture(name="node")
def _node(host: Host, cluster: Cluster) -> Node:
    """The node under test, as the datastore knows it."""
    return cluster.nodes[host.backend.hostname]


@pytest.fixture(name="link")
def _link(host: Host, node: Node) -> dict[str, Any]:
    """The link of the node under test that holds its address."""
    links: list[dict[str, Any]] = json.loads(host.check_output("ip -j address show"))
    return next(
        link
        for link in links
        for held in link["addr_info"]
        if f"{held.get('local')}/{held['prefixlen']}" == str(node.subnet)
    )


def pod(name: str, node: str, image: str) -> dict[str, Any]:
    """A pod pinned to a node that runs the probe of the network's own image."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "probe",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["tortie-probe", "serve", f"--port={PROBE_PORT}"],
                    "readinessProbe": {
                        "httpGet": {"path": "/healthz", "port": PROBE_PORT},
                        "periodSeconds": 1,
                    },
                }
            ],
        },
    }


def start_pods(control_plane: Host, prefix: str) -> dict[str, str]:
    """Run a pod on every node; addresses by node name once all are ready."""
    daemonset = get_json(control_plane, "daemonset calico-node -n kube-system")
    image = daemonset["spec"]["template"]["spec"]["containers"][0]["image"]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    pods = {f"{prefix}-{name}": name for name in members(read_inventory(), "cluster")}
    items = [namespace, *(pod(name, node, image) for name, node in pods.items())]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    control_plane.check_output(f"printf %%s %s | {KUBECTL} apply -f -", manifest)
    # Emulated machines take half a minute for a pod.
    control_plane.check_output(
        f"{KUBECTL} wait pod -n {NAMESPACE} {' '.join(pods)} --for=condition=Ready --timeout=240s"
    )
    return pod_addresses(control_plane, prefix)


def pod_addresses(control_plane: Host, prefix: str) -> dict[str, str]:
    """Address of the running pod of each node."""
    running = get_json(control_plane, f"pods -n {NAMESPACE}")["items"]
    return {
        item["spec"]["nodeName"]: item["status"]["podIP"]
        for item in running
        if item["metadata"]["name"] == f"{prefix}-{item['spec']['nodeName']}"
    }


@pytest.fixture(scope="session", name="pods")
def _pods(control_plane: Host) -> Iterator[dict[str, str]]:
    """Address of a running pod by node name."""
    try:
        yield start_pods(control_plane, "probe")
    finally:
        control_plane.check_output(f"{KUBECTL} delete namespace {NAMESPACE} --wait=false")


@pytest.fixture(name="pod_address")
def _pod_address(node: Node, pods: dict[str, str]) -> str:
    """Address of the pod on the node under test."""
    return pods[node.name]


@pytest.fixture(name="namespace")
def _namespace(host: Host, pod_address: str) -> str:
    """Name of the network namespace (under /run/netns) of the pod on the node under test."""
    for name in host.check_output("ls /run/netns").split():
        held = json.loads(host.check_output(f"ip -n {name} -j address show"))
        if any(entry.get("local") == pod_address for link in held for entry in link.get("addr_info", [])):
            return name
    raise AssertionError(f"no network namespace on the node holds {pod_address}")


@pytest.fixture(name="ask")
def _ask(host: Host, pod_address: str) -> Any:
    """Ask the pod on the node under test, from the node."""

    def ask(path: str) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while True:
            done = host.run(f"curl -sS --max-time 15 'http://{pod_address}:{PROBE_PORT}{path}'")
            if done.rc == 0 or time.monotonic() > deadline:
                assert done.rc == 0, done.stderr
                answer: dict[str, Any] = json.loads(done.stdout)
                return answer

    return ask
