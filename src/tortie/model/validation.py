"""What is wrong with an object, for every kind: field, value and rule. Empty means that it may be stored.

The rules are those of Calico's own validation. Whoever reads an object does not trust that anybody asked.
"""

from functools import singledispatch
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from tortie.model import checks
from tortie.model.bgp import BGPConfiguration, BGPFilter, BGPPeer, CalicoNodeStatus
from tortie.model.bgp_validation import (
    configuration_problems,
    filter_problems,
    node_status_problems,
    peer_problems,
)
from tortie.model.checks import Findings
from tortie.model.cluster import ClusterInformation, KubeControllersConfiguration
from tortie.model.cluster_validation import controllers_problems
from tortie.model.endpoint_validation import endpoint_problems, profile_problems
from tortie.model.endpoints import WorkloadEndpoint
from tortie.model.felix import FelixConfiguration
from tortie.model.felix_settings import felix_problems, unheeded
from tortie.model.ipam import (
    BlockAffinity,
    IPAMBlock,
    IPAMConfig,
    IPAMHandle,
    IPPool,
    IPReservation,
)
from tortie.model.policies import POLICY_KINDS
from tortie.model.policy_validation import policy_problems
from tortie.model.problems import Problem
from tortie.model.profile import Profile
from tortie.model.resources import CALICO_GROUP_VERSION, CRD_GROUP_VERSION, Resource

# Prefix lengths that a block may have, least and most, by IP version.
BLOCK_SIZES: Final = {4: (20, 32), 6: (116, 128)}
# Addresses that no router forwards (RFC 3927; RFC 4291 section 2.5.6).
_LINK_LOCAL: Final = (IPv4Network("169.254.0.0/16"), IPv6Network("fe80::/10"))
_LONGEST_COOLDOWN: Final = 1200  # seconds; Calico's bound


def problems(resource: Resource) -> list[Problem]:
    """Everything that is wrong with `resource`. Kubernetes' own kinds are the API server's business."""
    if isinstance(resource, POLICY_KINDS):
        return policy_problems(resource)
    if resource.resource_type.api_version not in (CRD_GROUP_VERSION, CALICO_GROUP_VERSION):
        return []
    metadata = resource.metadata
    return [
        *checks.object_name(metadata.name),
        *checks.labels("metadata.labels", metadata.labels),
        *checks.annotations("metadata.annotations", metadata.annotations),
        *_of_kind(resource),
    ]


def without_effect(resource: Resource) -> list[Problem]:
    """What `resource` says and Calico does, but this agent does not: nothing that forbids it to be stored."""
    if isinstance(resource, FelixConfiguration):
        names = ", ".join(unheeded(resource.spec))
        rule = f"has settings that this agent keeps but does not heed: {names}"
        return [Problem("spec", "", rule)] if names else []
    if isinstance(resource, IPPool) and ":" in resource.spec.cidr:
        return list(_ipv6_pool(resource))
    return []


def _ipv6_pool(pool: IPPool) -> Findings:
    subject = "has no effect on an IPv6 pool: this agent"
    if pool.spec.vxlan_mode != "Never":
        rule = f"{subject} has no IPv6 tunnels, and routes the node's own pods only"
        yield Problem("spec.vxlanMode", pool.spec.vxlan_mode, rule)
    if pool.spec.nat_outgoing:
        yield Problem("spec.natOutgoing", "true", f"{subject} translates no IPv6 sources")


@singledispatch
def _of_kind(resource: Resource) -> Findings:
    raise LookupError(f"{resource.resource_type.kind} has no validation")


@_of_kind.register
def _pool(pool: IPPool) -> Findings:
    spec = pool.spec
    yield from checks.cidr("spec.cidr", spec.cidr)
    network = checks.network(spec.cidr)
    if network is not None:
        least, most = BLOCK_SIZES[network.version]
        yield from checks.between("spec.blockSize", spec.block_size, least, most)
        if network.prefixlen > spec.block_size and not spec.disabled:  # a disabled one gives no blocks
            yield Problem(
                "spec.cidr", spec.cidr, f"must have room for a block of /{spec.block_size} (spec.blockSize)"
            )
        if any(isinstance(network, type(item)) and network.overlaps(item) for item in _LINK_LOCAL):
            yield Problem("spec.cidr", spec.cidr, "must not be link-local: nobody would forward its packets")
        if network.version == 6 and spec.ipip_mode != "Never":
            yield Problem("spec.ipipMode", spec.ipip_mode, "must be Never for an IPv6 pool: use vxlanMode")
    both = spec.ipip_mode != "Never" and spec.vxlan_mode != "Never"
    yield from checks.not_together("spec.ipipMode", spec.ipip_mode, "spec.vxlanMode", both=both)
    yield from checks.selector("spec.nodeSelector", spec.node_selector)
    yield from checks.selector("spec.namespaceSelector", spec.namespace_selector)
    yield from checks.unique("spec.allowedUses", spec.allowed_uses)
    if "LoadBalancer" in spec.allowed_uses:
        yield from _load_balancer_pool(pool)


def _load_balancer_pool(pool: IPPool) -> Findings:
    spec = pool.spec
    if len(spec.allowed_uses) > 1:
        yield Problem(
            "spec.allowedUses",
            ", ".join(spec.allowed_uses),
            "must not have LoadBalancer together with another use: make a pool for each",
        )
    if spec.node_selector not in ("", "all()"):
        yield Problem("spec.nodeSelector", spec.node_selector, "must be all() in a pool for LoadBalancer")
    for field, mode in (("ipipMode", spec.ipip_mode), ("vxlanMode", spec.vxlan_mode)):
        if mode != "Never":
            yield Problem(f"spec.{field}", mode, "must be Never in a pool for LoadBalancer: no pod has it")
    if spec.disable_bgp_export:
        yield Problem("spec.disableBGPExport", "true", "must be false in a pool for LoadBalancer")


@_of_kind.register
def _reservation(reservation: IPReservation) -> Findings:
    for index, cidr in enumerate(reservation.spec.reserved_cidrs):
        yield from checks.cidr(f"spec.reservedCIDRs[{index}]", cidr, bare=True)


@_of_kind.register
def _ipam_config(config: IPAMConfig) -> Findings:
    spec = config.spec
    yield from checks.named_default(config.metadata.name)
    if not spec.strict_affinity and not spec.auto_allocate_blocks:
        yield Problem("spec.autoAllocateBlocks", "false", "must be true unless spec.strictAffinity is true")
    if spec.max_blocks_per_host < 0:
        yield Problem("spec.maxBlocksPerHost", str(spec.max_blocks_per_host), "must be 0 (default) or more")
    if spec.max_blocks_per_host > 0 and not spec.strict_affinity:
        yield Problem(
            "spec.maxBlocksPerHost",
            str(spec.max_blocks_per_host),
            "must be 0 unless spec.strictAffinity is true: a node over its limit would borrow addresses",
        )
    yield from checks.between("spec.ipCooldownSeconds", spec.ip_cooldown_seconds, 0, _LONGEST_COOLDOWN)
    persistence = spec.kube_virt_vm_address_persistence or ""
    yield from checks.one_of("spec.kubeVirtVMAddressPersistence", persistence, checks.SWITCH)


@_of_kind.register
def _affinity(affinity: BlockAffinity) -> Findings:
    spec = affinity.spec
    yield from checks.cidr("spec.cidr", spec.cidr)
    if not spec.node:
        yield Problem("spec.node", "", "must name the node that has the block")
    yield from checks.one_of("spec.type", spec.type, ("host", "virtual"))
    yield from checks.one_of("spec.deleted", spec.deleted, ("true", "false"))


@_of_kind.register
def _block(block: IPAMBlock) -> Findings:
    spec = block.spec
    yield from checks.cidr("spec.cidr", spec.cidr)
    network = checks.network(spec.cidr)
    if network is None:
        return
    count = len(spec.allocations)
    if count != network.num_addresses:
        yield Problem(
            "spec.allocations",
            f"{count} entries",
            f"must have an entry for each of the {network.num_addresses} addresses of {spec.cidr}",
        )
    for ordinal, index in enumerate(spec.allocations):
        if index is not None and not 0 <= index < len(spec.attributes):
            last = len(spec.attributes) - 1
            yield Problem(
                f"spec.allocations[{ordinal}]",
                str(index),
                f"must be null or an index of attributes, 0 to {last}",
            )
    free = [ordinal for ordinal, index in enumerate(spec.allocations) if index is None]
    if sorted(spec.unallocated) != free:
        yield Problem(
            "spec.unallocated",
            ", ".join(map(str, spec.unallocated)),
            "must have every ordinal that is null in spec.allocations, and no other",
        )


@_of_kind.register
def _handle(handle: IPAMHandle) -> Findings:
    spec = handle.spec
    if handle.metadata.name != spec.handle_id.lower():
        yield Problem(
            "spec.handleID",
            spec.handle_id,
            f"must be metadata.name ({handle.metadata.name}) but for its case",
        )
    for cidr, count in spec.block.items():
        yield from checks.cidr("spec.block", cidr)
        if count < 1:
            yield Problem(f"spec.block[{cidr}]", str(count), "must be 1 or more")


@_of_kind.register
def _information(information: ClusterInformation) -> Findings:
    yield from checks.named_default(information.metadata.name)


@_of_kind.register
def _configuration(configuration: BGPConfiguration) -> Findings:
    yield from configuration_problems(configuration)


@_of_kind.register
def _peer(peer: BGPPeer) -> Findings:
    yield from peer_problems(peer.spec)


@_of_kind.register
def _filter(bgp_filter: BGPFilter) -> Findings:
    yield from filter_problems(bgp_filter.spec)


@_of_kind.register
def _node_status(status: CalicoNodeStatus) -> Findings:
    yield from node_status_problems(status.spec)


@_of_kind.register
def _endpoint(endpoint: WorkloadEndpoint) -> Findings:
    yield from endpoint_problems(endpoint.spec)


@_of_kind.register
def _profile(profile: Profile) -> Findings:
    yield from profile_problems(profile.spec)


@_of_kind.register
def _felix(configuration: FelixConfiguration) -> Findings:
    yield from felix_problems(configuration)


@_of_kind.register
def _controllers(configuration: KubeControllersConfiguration) -> Findings:
    yield from controllers_problems(configuration)
