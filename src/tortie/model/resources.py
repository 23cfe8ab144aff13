"""Resource kinds as they stand on the wire: crd.projectcalico.org/v1 and the native kinds Calico builds on.

Only the fields the network reads are typed; msgspec ignores the rest when decoding. A kind that is written
back whole (IPAM objects, which nobody else extends) types every field; all others are changed by patch, so
that fields unknown to us survive.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from msgspec import Struct, field

CRD_GROUP_VERSION = "crd.projectcalico.org/v1"


@dataclass(frozen=True, slots=True)
class ResourceType:
    """Where a kind lives in the Kubernetes API."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = False


class Metadata(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """ObjectMeta, the part that matters here. `resource_version` is the CAS token."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


class Resource(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Base of every kind. `resource_type` says where it is stored."""

    resource_type: ClassVar[ResourceType]
    metadata: Metadata = field(default_factory=Metadata)


# --- IPAM ------------------------------------------------------------------------------------------------


class AllocationAttribute(Struct, omit_defaults=False, kw_only=True):
    """Who holds an ordinal of a block. Calico writes `handle_id` in snake case."""

    handle_id: str | None = None
    secondary: dict[str, str] | None = None
    alternate_owner_attrs: dict[str, str] | None = field(default=None, name="alternateOwnerAttrs")
    released_at: str | None = field(default=None, name="releasedAt")  # cooling down: held, but by nobody


class IPAMBlockSpec(Struct, rename="camel", kw_only=True):
    """One block: `allocations[ordinal]` is an index into `attributes`, or None when the ordinal is free.

    `unallocated` is a FIFO of free ordinals: a released address goes to its tail, so it is reused last.
    Every write increments `sequence_number`; `sequence_number_for_allocation` (keys are ordinals as decimal
    strings) keeps its value at the time of allocation, so that a stale release is recognised.
    """

    cidr: str
    affinity: str | None = None  # "host:<node>"
    affinity_claim_time: str | None = None
    strict_affinity: bool = False
    allocations: list[int | None]
    unallocated: list[int]
    attributes: list[AllocationAttribute]
    deleted: bool = False
    sequence_number: int = 0
    sequence_number_for_allocation: dict[str, int] = field(default_factory=dict)


class IPAMBlock(Resource, kw_only=True):
    """`metadata.name` is the CIDR with . : / turned into - (names.cidr_name)."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "IPAMBlock", "ipamblocks")
    spec: IPAMBlockSpec


AffinityState = Literal["pending", "confirmed", "pendingDeletion"]


class BlockAffinitySpec(Struct, rename="camel", kw_only=True):
    """A node's claim on a block. `deleted` is a STRING in the v1 API. Only `confirmed` counts for routing."""

    node: str
    cidr: str
    state: AffinityState
    deleted: str = "false"
    type: str = "host"


class BlockAffinity(Resource, kw_only=True):
    """`metadata.name` is `<node>-<cidr name>`; carries the labels of names.affinity_labels."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "BlockAffinity", "blockaffinities")
    spec: BlockAffinitySpec


class IPAMHandleSpec(Struct, rename="camel", kw_only=True):
    """How many addresses of each block (key: CIDR) the handle holds."""

    handle_id: str = field(name="handleID")
    block: dict[str, int]
    deleted: bool = False


class IPAMHandle(Resource, kw_only=True):
    """`metadata.name` is the handle id in lower case."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "IPAMHandle", "ipamhandles")
    spec: IPAMHandleSpec


class IPAMConfigSpec(Struct, rename="camel", kw_only=True):
    """Cluster-wide IPAM settings. maxBlocksPerHost 0 means the default, 20."""

    strict_affinity: bool = False
    auto_allocate_blocks: bool = True
    max_blocks_per_host: int = 0


class IPAMConfig(Resource, kw_only=True):
    """The single object is named `default`."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "IPAMConfig", "ipamconfigs")
    spec: IPAMConfigSpec


EncapsulationMode = Literal["Never", "Always", "CrossSubnet"]
AllowedUse = Literal["Workload", "Tunnel", "LoadBalancer"]


class IPPoolSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A range of addresses to cut blocks from. `ipip_mode` and `vxlan_mode` exclude each other."""

    cidr: str
    block_size: int = 26
    ipip_mode: EncapsulationMode = "Never"
    vxlan_mode: EncapsulationMode = "Never"
    nat_outgoing: bool = False
    disabled: bool = False
    disable_bgp_export: bool = field(default=False, name="disableBGPExport")
    node_selector: str = "all()"
    allowed_uses: list[AllowedUse] = field(default_factory=list)  # empty means Workload and Tunnel
    assignment_mode: Literal["Automatic", "Manual"] = "Automatic"


class IPPool(Resource, kw_only=True):
    """Calico IPPool."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "IPPool", "ippools")
    spec: IPPoolSpec


# --- BGP and cluster ---------------------------------------------------------------------------------------


class BGPConfigurationSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Cluster-wide BGP settings; the object named `default` counts."""

    as_number: int = 64512
    node_to_node_mesh_enabled: bool = True
    listen_port: int = 179
    log_severity_screen: str = "Info"


class BGPConfiguration(Resource, kw_only=True):
    """Calico BGPConfiguration."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "BGPConfiguration", "bgpconfigurations")
    spec: BGPConfigurationSpec


class ClusterInformationSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """`datastore_ready` false makes CNI refuse with a retryable error."""

    cluster_guid: str = field(default="", name="clusterGUID")
    cluster_type: str = ""
    calico_version: str = ""
    datastore_ready: bool | None = None


class ClusterInformation(Resource, kw_only=True):
    """The single object is named `default`."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "ClusterInformation", "clusterinformations")
    spec: ClusterInformationSpec


# --- native kinds ------------------------------------------------------------------------------------------


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
