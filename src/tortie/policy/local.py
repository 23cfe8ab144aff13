"""The node's view of one pod: its endpoint while its ADD is under way (CNI knows the address before the pod's
object shows it), and what it may send from."""

import json
from typing import Final

from msgspec.structs import replace

from tortie.model.endpoints import WorkloadEndpoint, is_finished, workload_endpoint
from tortie.model.policy_values import parse_network
from tortie.model.resources import Pod, PodIP, PodStatus
from tortie.policy.state import Network

# JSON list of CIDRs that the pod may send from beside its own addresses.
ANNOTATION_SOURCES: Final = "cni.projectcalico.org/allowedSourcePrefixes"


def endpoint_of(
    pod: Pod | None, registered: WorkloadEndpoint | None
) -> tuple[WorkloadEndpoint | None, WorkloadEndpoint | None]:
    """The endpoint that counts, and what is to be kept of the registered one.

    The registered addresses count until the pod's object shows the same; the object's labels count at once.
    An object of another incarnation (other uid or node) says nothing about the registered endpoint.
    """
    if pod is None:
        return registered, registered
    own = workload_endpoint(pod)
    if registered is None:
        return own, None
    if is_another(pod, registered):
        return registered, registered
    if is_finished(pod):
        return None, None
    addresses = registered.spec.ip_networks
    if own is not None and set(own.spec.ip_networks) == set(addresses):
        return own, None
    shown = PodStatus(
        phase=pod.status.phase, pod_ips=[PodIP(ip=text.partition("/")[0]) for text in addresses]
    )
    fresh = workload_endpoint(replace(pod, status=shown))
    if fresh is None:
        return registered, registered
    spec = replace(fresh.spec, interface_name=registered.spec.interface_name, ip_networks=addresses)
    return replace(fresh, spec=spec), registered


def is_another(pod: Pod, registered: WorkloadEndpoint) -> bool:
    """Whether the object is of a pod that had, or will have, the registered one's name."""
    uids = {uid for uid in (pod.metadata.uid, registered.metadata.uid) if uid}
    nodes = {node for node in (pod.spec.node_name, registered.spec.node) if node}
    return len(uids) > 1 or len(nodes) > 1


def allowed_sources(pod: Pod) -> tuple[Network, ...]:
    """What the pod's annotation names; nothing when it cannot be read."""
    text = pod.metadata.annotations.get(ANNOTATION_SOURCES)
    if not text:
        return ()
    try:
        listed = json.loads(text)
        return tuple(parse_network(entry) for entry in listed)
    except (ValueError, TypeError, AttributeError):
        return ()
