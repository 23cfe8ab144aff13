"""Pools of addresses and what is allocated from them (crd.projectcalico.org/v1); CIDRs of both families."""

from typing import Final, Literal

from msgspec import Struct, field

from tortie.model.base import CRD_GROUP_VERSION, Resource, ResourceType
from tortie.model.constants import DEFAULT_BLOCK_SIZE

DEFAULT_BLOCK_SIZE_V6: Final = 122  # Calico's: 64 addresses, like an IPv4 block


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
    """Cluster-wide IPAM settings. maxBlocksPerHost 0 means the default, 20; `ip_cooldown_seconds` is how long
    a released address stays held before it may be given out again (0..1200, None: at once)."""

    strict_affinity: bool = False
    auto_allocate_blocks: bool = True
    max_blocks_per_host: int = 0
    ip_cooldown_seconds: int | None = None
    kube_virt_vm_address_persistence: str | None = field(default=None, name="kubeVirtVMAddressPersistence")


class IPAMConfig(Resource, kw_only=True):
    """The single object is named `default`."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "IPAMConfig", "ipamconfigs")
    spec: IPAMConfigSpec


EncapsulationMode = Literal["Never", "Always", "CrossSubnet"]
AllowedUse = Literal["Workload", "Tunnel", "LoadBalancer"]


class IPPoolSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A range of addresses to cut blocks from. `ipip_mode` and `vxlan_mode` exclude each other. `block_size`
    is a prefix length; left out, it is the family's default (26, or 122 for IPv6)."""

    cidr: str
    block_size: int = 0
    ipip_mode: EncapsulationMode = "Never"
    vxlan_mode: EncapsulationMode = "Never"
    nat_outgoing: bool = False
    disabled: bool = False
    disable_bgp_export: bool = field(default=False, name="disableBGPExport")
    node_selector: str = "all()"
    namespace_selector: str = ""  # empty means every namespace
    allowed_uses: list[AllowedUse] = field(default_factory=list)  # empty means Workload and Tunnel
    assignment_mode: Literal["Automatic", "Manual"] = "Automatic"

    def __post_init__(self) -> None:
        """Fill in the family's block size."""
        if self.block_size == 0:
            self.block_size = DEFAULT_BLOCK_SIZE_V6 if ":" in self.cidr else DEFAULT_BLOCK_SIZE


class IPPool(Resource, kw_only=True):
    """Calico IPPool."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "IPPool", "ippools")
    spec: IPPoolSpec


class IPReservationSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Addresses and CIDRs, of either family, that automatic assignment must leave alone."""

    reserved_cidrs: list[str] = field(default_factory=list, name="reservedCIDRs")


class IPReservation(Resource, kw_only=True):
    """Calico IPReservation."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "IPReservation", "ipreservations")
    spec: IPReservationSpec
