"""The objects of the probe: a namespace, two DaemonSets (who asks, who answers) and a service. Plain data.

The pods have a service account of their own, though no token: they need not wait until the controller manager
has made the namespace's default one, and the DaemonSet controller does not back off meanwhile.

Two pods per node, so that traffic between pods of one node is proven as well as traffic between nodes.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

NAMESPACE = "tortie-verify"
SERVICE = "tortie-verify"
ACCOUNT = "tortie-verify"
LABEL = "tortie-verify"
SOURCE, TARGET = "source", "target"


def probe_objects(image: str, port: int) -> Json:
    """A v1 List of all probe objects. `image` contains tortie-probe; `port` is its TCP port in the pods."""
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": ACCOUNT, "namespace": NAMESPACE},
                "automountServiceAccountToken": False,
            },
            _daemonset(SOURCE, image, port),
            _daemonset(TARGET, image, port),
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": SERVICE, "namespace": NAMESPACE},
                "spec": {
                    "selector": {LABEL: TARGET},
                    "ports": [{"port": port, "targetPort": port, "protocol": "TCP"}],
                },
            },
        ],
    }


def _daemonset(role: str, image: str, port: int) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": f"{NAMESPACE}-{role}", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {LABEL: role}},
            "template": {"metadata": {"labels": {LABEL: role}}, "spec": _pod(image, port)},
        },
    }


def _pod(image: str, port: int) -> Json:
    return {
        "tolerations": [{"operator": "Exists"}],  # every node counts, tainted ones too
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "probe",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["tortie-probe", "serve", f"--port={port}"],
                "env": [
                    {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                # Raw ICMP sockets need NET_RAW, which a user other than root would not get: capabilities of a
                # pod are not ambient.
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]},
                    "readOnlyRootFilesystem": True,
                },
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": port}, "periodSeconds": 1},
            }
        ],
    }
