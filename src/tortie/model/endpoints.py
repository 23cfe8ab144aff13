"""WorkloadEndpoint: in the Kubernetes datastore it is not stored but derived from its pod."""

from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_interface
from typing import Final

from msgspec import Struct, field

from tortie.model.constants import (
    ANNOTATION_CONTAINER_ID,
    ANNOTATION_FLOATING,
    ANNOTATION_POD_IP,
    ANNOTATION_POD_IPS,
    LABEL_NAMESPACE,
    LABEL_ORCHESTRATOR,
    LABEL_SERVICE_ACCOUNT,
)
from tortie.model.floating import FloatingError, parse_floating
from tortie.model.names import veth_name, workload_endpoint_name
from tortie.model.resources import CALICO_GROUP_VERSION, Metadata, Pod, Resource, ResourceType

POD_INTERFACE: Final = "eth0"
_ORCHESTRATOR: Final = "k8s"
_MAX_LABEL_VALUE: Final = 63  # Kubernetes: a label value has at most 63 characters
_FINISHED_PHASES: Final = frozenset({"Succeeded", "Failed"})


class EndpointPort(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A container port that has a name or is published on the host."""

    name: str = ""
    protocol: str = "TCP"
    port: int
    host_port: int = 0
    host_ip: str = field(default="", name="hostIP")


class IPNAT(Struct, omit_defaults=True, kw_only=True):
    """A floating address: what is sent to `external` goes to `internal`, which is the endpoint's own.
    `source` is openstack for one that OpenStack made."""

    internal: str = field(default="", name="internalIP")
    external: str = field(default="", name="externalIP")
    source: str = ""


class QoSControls(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Limits of an endpoint, 0 for none: bandwidth and peak rate in bits per second, burst in bits, minburst
    in bytes, packet rate in packets per second, packet burst in packets; `dscp` is a number or a name."""

    ingress_bandwidth: int = 0
    ingress_burst: int = 0
    ingress_peakrate: int = 0
    ingress_minburst: int = 0
    egress_bandwidth: int = 0
    egress_burst: int = 0
    egress_peakrate: int = 0
    egress_minburst: int = 0
    ingress_packet_rate: int = 0
    ingress_packet_burst: int = 0
    egress_packet_rate: int = 0
    egress_packet_burst: int = 0
    ingress_max_connections: int = 0
    egress_max_connections: int = 0
    dscp: int | str | None = None


class WorkloadEndpointSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """`ip_networks` are CIDRs (`10.5.0.3/32`), `interface_name` is the host's end of the veth pair."""

    orchestrator: str = ""
    workload: str = ""  # of orchestrators other than Kubernetes
    node: str = ""
    pod: str = ""
    endpoint: str = ""
    container_id: str = field(default="", name="containerID")
    interface_name: str = ""
    service_account_name: str = ""
    mac: str = ""
    ip_networks: list[str] = field(default_factory=list)
    ip_nats: list[IPNAT] = field(default_factory=list, name="ipNATs")
    ipv4_gateway: str = ""
    ipv6_gateway: str = ""
    allow_spoofed_source_prefixes: list[str] = field(default_factory=list)
    qos_controls: QoSControls | None = field(default=None, name="qosControls")
    profiles: list[str] = field(default_factory=list)
    ports: list[EndpointPort] = field(default_factory=list)


class WorkloadEndpoint(Resource, kw_only=True):
    """One interface of one pod, in Calico's v3 shape. Only etcd stores it."""

    resource_type = ResourceType(
        CALICO_GROUP_VERSION, "WorkloadEndpoint", "workloadendpoints", namespaced=True
    )
    spec: WorkloadEndpointSpec


def pod_networks(pod: Pod) -> list[IPv4Interface | IPv6Interface]:
    """A pod's addresses as host prefixes: from its status or, until kubelet writes that, our annotations."""
    annotations = pod.metadata.annotations
    sources: list[list[str]] = [
        [item.ip for item in pod.status.pod_ips],
        [pod.status.pod_ip],
        annotations.get(ANNOTATION_POD_IPS, "").split(","),
        [annotations.get(ANNOTATION_POD_IP, "")],
    ]
    texts = next((source for source in sources if any(source)), [])
    networks: list[IPv4Interface | IPv6Interface] = []
    for text in texts:
        try:
            networks.append(ip_interface(text.strip()))
        except ValueError:
            continue  # absent, or written by something else: then the pod has no address that we know of
    return networks


def is_finished(pod: Pod) -> bool:
    """Whether its address may belong to another pod by now: it ran to its end, or CNI DEL emptied podIP."""
    if pod.status.phase in _FINISHED_PHASES:
        return True
    released = pod.metadata.annotations.get(ANNOTATION_POD_IP) == ""
    return released and pod.metadata.deletion_timestamp is not None


def workload_endpoint(pod: Pod) -> WorkloadEndpoint | None:
    """The endpoint of `pod`, or None when it has none: host network, finished, or no address yet."""
    if pod.spec.host_network or is_finished(pod) or not pod.spec.node_name:
        return None
    networks = pod_networks(pod)
    if not networks:
        return None
    name, namespace = pod.metadata.name, pod.metadata.namespace
    account = pod.spec.service_account_name
    labels = pod.metadata.labels | {LABEL_NAMESPACE: namespace, LABEL_ORCHESTRATOR: _ORCHESTRATOR}
    profiles = [f"kns.{namespace}"]
    if account:
        profiles.append(f"ksa.{namespace}.{account}")
        if len(account) <= _MAX_LABEL_VALUE:
            labels[LABEL_SERVICE_ACCOUNT] = account
    return WorkloadEndpoint(
        metadata=Metadata(
            name=workload_endpoint_name(pod.spec.node_name, name, POD_INTERFACE),
            namespace=namespace,
            uid=pod.metadata.uid,
            resource_version=pod.metadata.resource_version,
            creation_timestamp=pod.metadata.creation_timestamp,
            labels=labels,
        ),
        spec=WorkloadEndpointSpec(
            orchestrator=_ORCHESTRATOR,
            node=pod.spec.node_name,
            pod=name,
            endpoint=POD_INTERFACE,
            container_id=pod.metadata.annotations.get(ANNOTATION_CONTAINER_ID, ""),
            interface_name=veth_name(namespace, name),
            service_account_name=account,
            ip_networks=[str(network) for network in networks],
            ip_nats=_floating(pod, networks),
            profiles=profiles,
            ports=_ports(pod),
        ),
    )


def _floating(pod: Pod, networks: list[IPv4Interface | IPv6Interface]) -> list[IPNAT]:
    """The pod's floating addresses of the families that it has an address of; none when the annotation cannot
    be read, which whoever translates addresses reports."""
    text = pod.metadata.annotations.get(ANNOTATION_FLOATING)
    if not text:
        return []
    try:
        addresses = parse_floating(text)
    except FloatingError:
        return []
    internal = {network.version: str(network.ip) for network in networks}
    return [
        IPNAT(internal=internal[address.version], external=str(address))
        for address in addresses
        if address.version in internal
    ]


def _ports(pod: Pod) -> list[EndpointPort]:
    return [
        EndpointPort(
            name=port.name, protocol=port.protocol, port=port.container_port, host_port=port.host_port
        )
        for container in (*pod.spec.init_containers, *pod.spec.containers)
        for port in container.ports
        if port.name or port.host_port
    ]


def ipv4_addresses(pod: Pod) -> list[IPv4Address]:
    """The pod's IPv4 addresses."""
    return [network.ip for network in pod_networks(pod) if isinstance(network, IPv4Interface)]
