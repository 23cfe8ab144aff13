#!/usr/bin/python
"""Ansible module: probe pods on every node, and what the API server says about the network."""

from __future__ import annotations

DOCUMENTATION = r"""
module: verify_cluster
short_description: Create or remove the probe pods and read the cluster's network objects
version_added: 0.1.0
author: Tortie contributors
description:
  - Runs on a control plane node. It talks to the API server itself; kubectl only reads the kubeconfig.
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

import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import kube_api, verify_cluster
from ansible_collections.tortie.cluster.plugins.module_utils.kube_api import ApiError, object_path
from ansible_collections.tortie.cluster.plugins.module_utils.verify_manifest import (
    LABEL,
    NAMESPACE,
    SERVICE,
    SOURCE,
    TARGET,
    probe_objects,
)
from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import (
    ClusterFacts,
    Endpoint,
    PodState,
)

Json = dict[str, Any]

REQUEST_TIMEOUT = 20  # seconds
ATTEMPTS = 2
MANAGER = "tortie-verify"  # field manager of the probe objects
POLL_PAUSE = 0.25  # seconds, at least
# A pause is at least this many times as long as the look before it: looking slows down what it waits for.
POLL_SHARE = 4
ENDPOINT_SECONDS = 10  # from Ready pods to their service's endpoints, by the endpoints controller
ENDING_SECONDS = 8  # a probe pod has one second to end, and kubelet looks at its pods every few seconds
CRD_VERSION = "crd.projectcalico.org/v1"
PROBE_PODS = object_path("v1", "pods", NAMESPACE)
PROBE_NAMESPACE = object_path("v1", "namespaces", "", NAMESPACE)


def connect(module: AnsibleModule) -> kube_api.Api:
    """The API server, with the administrator's credentials. Raise ApiError."""
    program = module.get_bin_path("kubectl", opt_dirs=["/usr/local/bin", "/opt/bin"])
    if program is None:
        raise ApiError("kubectl is not installed on this node; run site.yml first")
    access = kube_api.access(module.params["kubeconfig"], program, module.run_command, module.tmpdir)
    return kube_api.Api(access, REQUEST_TIMEOUT, ATTEMPTS)


def node_image(api: kube_api.Api) -> str:
    """The image of the calico-node DaemonSet. Raise ApiError when there is none."""
    daemonset = api.get(object_path("apps/v1", "daemonsets", "kube-system", "calico-node"))
    if daemonset is None:
        raise ApiError("there is no DaemonSet calico-node in namespace kube-system; run site.yml first")
    return str(daemonset["spec"]["template"]["spec"]["containers"][0]["image"])


def create_probes(api: kube_api.Api, port: int, seconds: float) -> None:
    """Create the probe objects, once an earlier run's namespace is gone; wait for their pods and endpoints.

    Each of the first two waits is bounded by `seconds`.
    """
    image = node_image(api)
    if not until(lambda: not _terminating(api), seconds):
        raise ApiError(f"namespace {NAMESPACE} of an earlier run is still being deleted; see what holds it")
    for item in probe_objects(image, port)["items"]:
        api.apply(item, MANAGER)
    until(lambda: _settled(api.items(PROBE_PODS), api.items(object_path("v1", "nodes"))), seconds)
    if any(pod["ready"] for pod in _probe_pods(api.items(PROBE_PODS), TARGET)):
        until(lambda: _reachable(_endpoint(api, NAMESPACE, SERVICE)), ENDPOINT_SECONDS)


def remove_probes(api: kube_api.Api) -> None:
    """Remove the probe objects; the namespace's own end is not waited for.

    Pods first: the namespace controller looks again only after 5, 10, 20, ... seconds when it finds pods in a
    namespace that it is to delete. Their own deletion need not wait for the garbage collector to notice that
    their DaemonSets are gone. A pod that does not end is taken out of the API; its kubelet cleans up.
    """
    api.delete(object_path("apps/v1", "daemonsets", NAMESPACE))
    api.delete(object_path("v1", "services", NAMESPACE, SERVICE))
    api.delete(PROBE_PODS)
    if not until(lambda: not api.items(PROBE_PODS), ENDING_SECONDS):
        api.delete(PROBE_PODS, gracePeriodSeconds="0")
    api.delete(PROBE_NAMESPACE)


def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Poll; whether it came to hold within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        start = time.monotonic()
        if holds():
            return True
        now = time.monotonic()
        if now > deadline:
            return False
        time.sleep(max(POLL_PAUSE, POLL_SHARE * (now - start)))


def _terminating(api: kube_api.Api) -> bool:
    namespace = api.get(PROBE_NAMESPACE)
    return bool(namespace and namespace["metadata"].get("deletionTimestamp"))


def _reachable(service: Endpoint | None) -> bool:
    return service is not None and service["ready"]


def _probe_pods(items: list[Json], role: str) -> list[PodState]:
    return verify_cluster.parse_pods(items, **{LABEL: role})


def _settled(pod_items: list[Json], node_items: list[Json]) -> bool:
    """Whether each Ready node has its two pods, Ready or in a state that waiting does not improve."""
    pods = verify_cluster.parse_pods(pod_items)
    nodes = verify_cluster.parse_nodes(node_items)
    for node in (node for node in nodes if node["ready"]):
        own = [pod for pod in pods if pod["node"] == node["name"]]
        final = [p for p in own if p["ready"] or p["reason"].startswith(verify_cluster.LASTING_REASONS)]
        if len(final) < 2:
            return False
    return True


def read_cluster(api: kube_api.Api, cluster: ClusterFacts) -> None:
    """Fill `cluster`. Raise ApiError at the first thing that cannot be read."""
    cluster["nodes"] = verify_cluster.parse_nodes(api.items(object_path("v1", "nodes")))
    cluster["pools"] = verify_cluster.parse_pools(api.items(object_path(CRD_VERSION, "ippools")))
    cluster["affinities"] = verify_cluster.parse_affinities(
        api.items(object_path(CRD_VERSION, "blockaffinities"))
    )
    cluster["agents"] = verify_cluster.parse_pods(
        api.items(object_path("v1", "pods", "kube-system"), labelSelector="k8s-app=calico-node")
    )
    probes = api.items(PROBE_PODS)
    cluster["sources"] = _probe_pods(probes, SOURCE)
    cluster["targets"] = _probe_pods(probes, TARGET)
    cluster["kubernetes_service"] = _endpoint(api, "default", "kubernetes")
    cluster["dns_service"] = _endpoint(api, "kube-system", "kube-dns")
    cluster["probe_service"] = _endpoint(api, NAMESPACE, SERVICE)


def _endpoint(api: kube_api.Api, namespace: str, name: str) -> Endpoint | None:
    return verify_cluster.parse_endpoint(
        api.get(object_path("v1", "services", namespace, name)),
        api.get(object_path("v1", "endpoints", namespace, name)),
    )


def present(module: AnsibleModule) -> ClusterFacts:
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
        api = connect(module)
    except ApiError as error:
        cluster["errors"].append(str(error))
        return cluster
    try:
        if not module.check_mode:
            create_probes(api, module.params["port"], module.params["timeout"])
    except ApiError as error:
        cluster["errors"].append(f"creating the probe pods: {error}")
    try:
        read_cluster(api, cluster)
    except ApiError as error:
        cluster["errors"].append(f"reading the cluster: {error}")
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
    if module.params["state"] == "present":
        module.exit_json(changed=not module.check_mode, cluster=present(module))
    try:
        api = connect(module)
        found = api.get(PROBE_NAMESPACE) is not None
        if found and not module.check_mode:
            remove_probes(api)
    except ApiError as error:
        module.fail_json(
            msg=f"The probe pods were not removed: {error}. Remove them: kubectl delete namespace {NAMESPACE}"
        )
    module.exit_json(changed=found)


if __name__ == "__main__":
    main()
