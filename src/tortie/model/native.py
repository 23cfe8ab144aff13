"""Kubernetes' own kinds, as far as the network reads them; they are changed by patch, never written whole."""

from msgspec import Struct, field

from tortie.model.base import Resource, ResourceType


class NodeAddress(Struct, omit_defaults=True, kw_only=True):
    """One of status.addresses; type InternalIP is the node's own address."""

    type: str = ""
    address: str = ""


class NodeCondition(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One of status.conditions; type NetworkUnavailable is ours to write."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    last_heartbeat_time: str | None = None


class NodeSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """core/v1 Node spec."""

    pod_cidr: str = field(default="", name="podCIDR")


class NodeStatus(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """core/v1 Node status."""

    addresses: list[NodeAddress] = field(default_factory=list)
    conditions: list[NodeCondition] = field(default_factory=list)


class Node(Resource, kw_only=True):
    """core/v1 Node. Calico's node data stands in annotations (constants.ANNOTATION_*)."""

    resource_type = ResourceType("v1", "Node", "nodes")
    spec: NodeSpec = field(default_factory=NodeSpec)
    status: NodeStatus = field(default_factory=NodeStatus)


class ContainerPort(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """core/v1 ContainerPort."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0


class Container(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """core/v1 Container."""

    name: str = ""
    ports: list[ContainerPort] = field(default_factory=list)


class PodSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """core/v1 PodSpec."""

    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False
    init_containers: list[Container] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)


class PodIP(Struct, omit_defaults=True, kw_only=True):
    """One of status.podIPs."""

    ip: str = ""


class PodStatus(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """core/v1 PodStatus."""

    phase: str = ""
    pod_ip: str = field(default="", name="podIP")
    pod_ips: list[PodIP] = field(default_factory=list, name="podIPs")


class Pod(Resource, kw_only=True):
    """core/v1 Pod; a WorkloadEndpoint is derived from it (model.endpoints)."""

    resource_type = ResourceType("v1", "Pod", "pods", namespaced=True)
    spec: PodSpec = field(default_factory=PodSpec)
    status: PodStatus = field(default_factory=PodStatus)
