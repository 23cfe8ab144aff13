"""Pods in three namespaces on two nodes, and who reaches whom."""

import json
import time
from dataclasses import dataclass
from typing import Any

import testinfra
from cluster_fixtures import KUBECTL, LAB_DIR, PROBE_PORT, get_json
from testinfra.host import Host

MASTER, WORKER = "master-01", "worker-01"
HOST_PORT, NODE_PORT = 18080, 30080
# Seconds that a change may take until it is in force everywhere; one takes milliseconds.
PATIENCE = 30.0
# How often a verdict must be seen again before it counts.
AGAIN = 3


@dataclass(frozen=True)
class Place:
    """Where a pod runs."""

    namespace: str
    name: str
    node: str


SERVER = Place("red", "server", WORKER)
CLIENTS = {
    "red": Place("red", "client", MASTER),
    "green": Place("green", "client", MASTER),
    "blue": Place("blue", "client", WORKER),  # on the server's node
}
PLACES = (SERVER, *CLIENTS.values())


def node(name: str) -> Host:
    """A machine of the lab."""
    return testinfra.get_host(f"ssh://{name}", ssh_config=str(LAB_DIR / "ssh_config"))


def apply(*documents: dict[str, Any]) -> None:
    """Apply objects."""
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})
    node(MASTER).check_output(f"printf %%s %s | {KUBECTL} apply -f -", manifest)


def delete(*documents: dict[str, Any]) -> None:
    """Delete objects, absent ones too."""
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})
    node(MASTER).check_output(f"printf %%s %s | {KUBECTL} delete --ignore-not-found -f -", manifest)


def policy(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """A Kubernetes NetworkPolicy; without a podSelector it selects every pod of the namespace."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {}, **spec},
    }


def calico(kind: str, name: str, namespace: str = "", **spec: Any) -> dict[str, Any]:
    """An object of Calico's."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "crd.projectcalico.org/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _pod(place: Place, image: str) -> dict[str, Any]:
    port: dict[str, Any] = {"name": "web", "containerPort": PROBE_PORT}
    if place == SERVER:
        port["hostPort"] = HOST_PORT
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": place.name, "namespace": place.namespace, "labels": {"app": place.name}},
        "spec": {
            "nodeName": place.node,
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "probe",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["tortie-probe", "serve", f"--port={PROBE_PORT}"],
                    "ports": [port],
                    "readinessProbe": {
                        "httpGet": {"path": "/healthz", "port": PROBE_PORT},
                        "periodSeconds": 1,
                    },
                }
            ],
        },
    }


def populate() -> dict[Place, str]:
    """Make the namespaces, the pods and the service; the pods' addresses."""
    master = node(MASTER)
    daemonset = get_json(master, "daemonset calico-node -n kube-system")
    image = daemonset["spec"]["template"]["spec"]["containers"][0]["image"]
    spaces = sorted({place.namespace for place in PLACES})
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server", "namespace": SERVER.namespace},
        "spec": {
            "type": "NodePort",
            "selector": {"app": SERVER.name},
            "ports": [{"port": 80, "targetPort": "web", "nodePort": NODE_PORT}],
        },
    }
    apply(
        *(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"colour": name}}}
            for name in spaces
        ),
        service,
        *(_pod(place, image) for place in PLACES),
    )
    for name in spaces:
        master.check_output(f"{KUBECTL} wait pod --all -n {name} --for=condition=Ready --timeout=120s")
    return {
        place: get_json(master, f"pod {place.name} -n {place.namespace}")["status"]["podIP"]
        for place in PLACES
    }


def connects(source: str, node_name: str, host: str, port: int = PROBE_PORT) -> bool:
    """Whether the pod with address `source`, which runs on the node, gets a connection."""
    url = f"http://{source}:{PROBE_PORT}/fetch?host={host}&port={port}&seconds=1"
    answer = json.loads(node(node_name).check_output(f"curl -sS --max-time 20 '{url}'"))
    return bool(answer["connected"])


def host_connects(node_name: str, host: str, port: int) -> bool:
    """Whether the machine itself gets a connection."""
    return node(node_name).run(f"curl -sS --max-time 2 -o /dev/null http://{host}:{port}/healthz").rc == 0


def settle(look: Any, wanted: Any) -> None:
    """Wait until `look()` is what is wanted, and see it again a few times."""
    deadline = time.monotonic() + PATIENCE
    while (seen := look()) != wanted:
        assert time.monotonic() < deadline, f"wanted {wanted}, saw {seen}"
    for _ in range(AGAIN):
        assert look() == wanted
