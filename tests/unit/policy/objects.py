"""Objects for the tests of policy, with as few words as they need."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tortie.datastore.codec import decode
from tortie.model.endpoints import WorkloadEndpoint, workload_endpoint
from tortie.model.policies import (
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    NetworkPolicy,
    NetworkSet,
    Tier,
)
from tortie.model.policy_natives import (
    LABEL_SERVICE_NAME,
    EndpointSlice,
    KubernetesNetworkPolicy,
    Namespace,
    ServiceAccount,
)
from tortie.model.resources import Metadata, Pod, Resource

NODE = "node-1"
OTHER_NODE = "node-2"


def of_json(kind: type[Any], name: str, namespace: str = "", spec: Mapping[str, Any] | None = None) -> Any:
    """An object as the API server would send it."""
    body = {"metadata": {"name": name, "namespace": namespace}, "spec": spec or {}}
    return decode(kind, msgspec.json.encode(body))


def pod(
    name: str,
    address: str | Iterable[str] = "",
    *,
    namespace: str = "default",
    labels: Mapping[str, str] | None = None,
    node: str = NODE,
    account: str = "default",
    ports: Iterable[tuple[str, str, int]] = (),
    uid: str = "",
    phase: str = "Running",
) -> Pod:
    """`ports` are name, protocol, number."""
    addresses = [address] if isinstance(address, str) else list(address)
    body = {
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels or {}), "uid": uid},
        "spec": {
            "nodeName": node,
            "serviceAccountName": account,
            "containers": [
                {
                    "name": "main",
                    "ports": [
                        {"name": port_name, "protocol": protocol, "containerPort": number}
                        for port_name, protocol, number in ports
                    ],
                }
            ],
        },
        "status": {"phase": phase, "podIPs": [{"ip": text} for text in addresses if text]},
    }
    return decode(Pod, msgspec.json.encode(body))


def endpoint(pod: Pod) -> WorkloadEndpoint:
    """The endpoint of a pod that has an address."""
    found = workload_endpoint(pod)
    assert found is not None
    return found


def namespace(name: str, **labels: str) -> Namespace:
    return Namespace(metadata=Metadata(name=name, labels=labels))


def account(name: str, namespace: str = "default", **labels: str) -> ServiceAccount:
    return ServiceAccount(metadata=Metadata(name=name, namespace=namespace, labels=labels))


def policy(name: str, namespace: str = "default", **spec: Any) -> NetworkPolicy:
    found: NetworkPolicy = of_json(NetworkPolicy, name, namespace, spec)
    return found


def global_policy(name: str, **spec: Any) -> GlobalNetworkPolicy:
    found: GlobalNetworkPolicy = of_json(GlobalNetworkPolicy, name, "", spec)
    return found


def kubernetes_policy(name: str, namespace: str = "default", **spec: Any) -> KubernetesNetworkPolicy:
    found: KubernetesNetworkPolicy = of_json(KubernetesNetworkPolicy, name, namespace, spec)
    return found


def tier(name: str, **spec: Any) -> Tier:
    found: Tier = of_json(Tier, name, "", spec)
    return found


def labelled(resource: Resource, labels: Mapping[str, str]) -> Any:
    """The object with these labels."""
    resource.metadata.labels = dict(labels)
    return resource


def host_endpoint(name: str, labels: Mapping[str, str] | None = None, **spec: Any) -> HostEndpoint:
    found: HostEndpoint = labelled(of_json(HostEndpoint, name, "", {"node": NODE} | spec), labels or {})
    return found


def network_set(
    name: str, nets: Iterable[str], labels: Mapping[str, str], namespace: str = "default"
) -> NetworkSet:
    found: NetworkSet = labelled(of_json(NetworkSet, name, namespace, {"nets": list(nets)}), labels)
    return found


def global_network_set(name: str, nets: Iterable[str], labels: Mapping[str, str]) -> GlobalNetworkSet:
    found: GlobalNetworkSet = labelled(of_json(GlobalNetworkSet, name, "", {"nets": list(nets)}), labels)
    return found


def endpoint_slice(
    name: str,
    service: str,
    addresses: Iterable[str],
    ports: Iterable[tuple[str, int]] = (),
    namespace: str = "default",
) -> EndpointSlice:
    """`ports` are protocol and number."""
    body = {
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL_SERVICE_NAME: service}},
        "endpoints": [{"addresses": list(addresses)}],
        "ports": [{"protocol": protocol, "port": number} for protocol, number in ports],
    }
    return decode(EndpointSlice, msgspec.json.encode(body))
