#!/usr/bin/python
"""Ansible module: probe pods on every node, and what the API server says about the network."""

from __future__ import annotations

DOCUMENTATION = r"""
module: verify_cluster
short_description: Create or remove the probe pods and read the cluster's network objects
version_added: 0.1.0
author: Tortie contributors
description:
  - Runs on a control plane node, with kubectl.
  - With O(state=present) it creates the probe pods from the image that calico-node uses, waits for them for
    a bounded time, and returns nodes, pools, block affinities, pods and services.
  - With O(state=absent) it removes the probe pods and their namespace, whose end is not waited for.
  - With O(state=present) it never fails because something is missing; that is told in RV(cluster.errors).
options:
  state:
    description: Whether the probe pods are to be there.
    type: str
    choices: [present, absent]
    default: present
  kubeconfig:
    description: Credentials of an administrator.
    type: path
    default: /etc/kubernetes/admin.conf
  port:
    description: TCP port of the probe in its pods, and of its service.
    type: int
    default: 8080
  timeout:
    description: Seconds to wait for the probe pods.
    type: int
    default: 60
attributes:
  check_mode:
    description: Nothing is created or deleted; what there is, is read.
    support: full
"""

EXAMPLES = r"""
- name: Create the probe pods and read the cluster
  tortie.cluster.verify_cluster:
  register: cluster_facts
"""

RETURN = r"""
cluster:
  description: What the API server says.
  returned: when O(state=present)
  type: dict
  contains:
    nodes: {description: Nodes., type: list, elements: dict}
    affinities: {description: Block affinities., type: list, elements: dict}
    pools: {description: Pools., type: list, elements: dict}
    agents: {description: Pods of calico-node., type: list, elements: dict}
    sources: {description: Pods that ask., type: list, elements: dict}
    targets: {description: Pods that answer., type: list, elements: dict}
    unprobed: {description: Why there are no probe pods on purpose., type: str}
    probe_port: {description: TCP port of the probes., type: int}
    probe_service: {description: The probes' service., type: dict}
    kubernetes_service: {description: The API server's service., type: dict}
    dns_service: {description: The cluster's DNS service., type: dict}
    errors: {description: What could not be read., type: list, elements: str}
"""

import json
import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import verify_cluster
from ansible_collections.tortie.cluster.plugins.module_utils.verify_manifest import (
    LABEL,
    NAMESPACE,
    SERVICE,
    SOURCE,
    TARGET,
    probe_objects,
)
from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import ClusterFacts

Json = dict[str, Any]

POLL_PAUSE = 0.25  # seconds
ENDING_SECONDS = 8  # a probe pod has one second to end, and kubelet looks at its pods every few seconds
NETWORK_KINDS = "nodes,ippools.crd.projectcalico.org,blockaffinities.crd.projectcalico.org"


class KubectlError(Exception):
    """kubectl is missing or failed; the text is what it said."""


class Kubectl:
    """kubectl with the administrator's credentials."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._path = module.get_bin_path("kubectl", opt_dirs=["/usr/local/bin", "/opt/bin"])

    def run(self, *arguments: str, data: str | None = None) -> str:
        """Its standard output. Raise KubectlError."""
        if self._path is None:
            raise KubectlError("kubectl is not installed on this node; run site.yml first")
        command = [
            self._path,
            "--kubeconfig",
            self._module.params["kubeconfig"],
            "--request-timeout=20s",
            *arguments,
        ]
        status, output, error = self._module.run_command(command, data=data)
        if status != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {(error or output).strip()}")
        return str(output)

    def items(self, *arguments: str) -> list[Json]:
        """Objects of `kubectl get`; one that is not there is left out."""
        output = self.run("get", *arguments, "-o", "json", "--ignore-not-found")
        if not output.strip():
            return []
        document = json.loads(output)
        return list(document["items"]) if document["kind"].endswith("List") else [document]


def node_image(kubectl: Kubectl) -> str:
    """The image of the calico-node DaemonSet. Raise KubectlError when there is none."""
    daemonsets = kubectl.items("daemonset", "calico-node", "-n", "kube-system")
    if not daemonsets:
        raise KubectlError("there is no DaemonSet calico-node in namespace kube-system; run site.yml first")
    return str(daemonsets[0]["spec"]["template"]["spec"]["containers"][0]["image"])


def create_probes(kubectl: Kubectl, port: int, seconds: float) -> None:
    """Create the probe objects, once an earlier run's namespace is gone, and wait for their pods.

    Each of the two waits is bounded by `seconds`.
    """
    image = node_image(kubectl)
    if not until(lambda: not _terminating(kubectl), seconds):
        raise KubectlError(
            f"namespace {NAMESPACE} of an earlier run is still being deleted; see what holds it"
        )
    kubectl.run("apply", "-f", "-", data=json.dumps(probe_objects(image, port)))
    until(lambda: _settled(kubectl.items("nodes,pods", "-n", NAMESPACE)), seconds)


def remove_probes(kubectl: Kubectl) -> None:
    """Remove the probe objects; the namespace's own end is not waited for.

    Pods first: the namespace controller looks again only after 5, 10, 20, ... seconds when it finds pods in a
    namespace that it is to delete. A pod that does not end is taken out of the API; its kubelet cleans up.
    """
    kubectl.run("delete", "daemonsets,services", "--all", "-n", NAMESPACE, "--wait=false")
    if not until(lambda: not kubectl.items("pods", "-n", NAMESPACE), ENDING_SECONDS):
        kubectl.run("delete", "pods", "--all", "-n", NAMESPACE, "--wait=false", "--force", "--grace-period=0")
    kubectl.run("delete", "namespace", NAMESPACE, "--wait=false", "--ignore-not-found")


def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Poll; whether it came to hold within `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_PAUSE)
    return True


def _terminating(kubectl: Kubectl) -> bool:
    return any(item["metadata"].get("deletionTimestamp") for item in kubectl.items("namespace", NAMESPACE))


def _settled(items: list[Json]) -> bool:
    """Whether each Ready node has its two pods, Ready or in a state that waiting does not improve."""
    pods = verify_cluster.parse_pods(verify_cluster.of_kind(items, "Pod"))
    nodes = verify_cluster.parse_nodes(verify_cluster.of_kind(items, "Node"))
    for node in (node for node in nodes if node["ready"]):
        own = [pod for pod in pods if pod["node"] == node["name"]]
        final = [p for p in own if p["ready"] or p["reason"].startswith(verify_cluster.LASTING_REASONS)]
        if len(final) < 2:
            return False
    return True


def read_cluster(kubectl: Kubectl, cluster: ClusterFacts) -> None:
    """Fill `cluster`. Raise KubectlError at the first thing that cannot be read."""
    network = kubectl.items(NETWORK_KINDS)
    cluster["nodes"] = verify_cluster.parse_nodes(verify_cluster.of_kind(network, "Node"))
    cluster["pools"] = verify_cluster.parse_pools(verify_cluster.of_kind(network, "IPPool"))
    cluster["affinities"] = verify_cluster.parse_affinities(verify_cluster.of_kind(network, "BlockAffinity"))
    cluster["agents"] = verify_cluster.parse_pods(
        kubectl.items("pods", "-n", "kube-system", "-l", "k8s-app=calico-node")
    )
    api = kubectl.items("service/kubernetes", "endpoints/kubernetes", "-n", "default")
    dns = kubectl.items("service/kube-dns", "endpoints/kube-dns", "-n", "kube-system")
    probes = kubectl.items("services,endpoints,pods", "-n", NAMESPACE)
    for role, field in ((SOURCE, "sources"), (TARGET, "targets")):
        pods = verify_cluster.parse_pods(verify_cluster.of_kind(probes, "Pod"), **{LABEL: role})
        if field == "sources":
            cluster["sources"] = pods
        else:
            cluster["targets"] = pods
    cluster["kubernetes_service"] = _endpoint(api, "kubernetes")
    cluster["dns_service"] = _endpoint(dns, "kube-dns")
    cluster["probe_service"] = _endpoint(probes, SERVICE)


def _endpoint(items: list[Json], name: str) -> Any:
    return verify_cluster.parse_endpoint(
        verify_cluster.find(items, "Service", name), verify_cluster.find(items, "Endpoints", name)
    )


def present(module: AnsibleModule, kubectl: Kubectl) -> ClusterFacts:
    """Probe pods, then everything the API server says."""
    cluster = ClusterFacts(
        nodes=[],
        affinities=[],
        pools=[],
        agents=[],
        sources=[],
        targets=[],
        unprobed="probe pods are not created in check mode" if module.check_mode else "",
        probe_port=module.params["port"],
        probe_service=None,
        kubernetes_service=None,
        dns_service=None,
        errors=[],
    )
    try:
        if not module.check_mode:
            create_probes(kubectl, module.params["port"], module.params["timeout"])
    except KubectlError as error:
        cluster["errors"].append(str(error))
    try:
        read_cluster(kubectl, cluster)
    except KubectlError as error:
        cluster["errors"].append(str(error))
    return cluster


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "kubeconfig": {"type": "path", "default": "/etc/kubernetes/admin.conf"},
            "port": {"type": "int", "default": 8080},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    kubectl = Kubectl(module)
    if module.params["state"] == "present":
        module.exit_json(changed=not module.check_mode, cluster=present(module, kubectl))
    try:
        found = bool(kubectl.items("namespace", NAMESPACE))
        if found and not module.check_mode:
            remove_probes(kubectl)
    except KubectlError as error:
        module.fail_json(
            msg=f"The probe pods were not removed: {error}. Remove them: kubectl delete namespace {NAMESPACE}"
        )
    module.exit_json(changed=found)


if __name__ == "__main__":
    main()
