"""What garbage collection looks at: blocks, handles, affinities, nodes and pods, in its own terms. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from typing import Final, Literal

from tortie.ipam import block as blocks
from tortie.ipam.block import Network
from tortie.ipam.request import Address
from tortie.model.constants import ANNOTATION_POD_IP, ANNOTATION_POD_IPS
from tortie.model.resources import BlockAffinity, IPAMBlock, IPAMHandle, IPPool, Pod

# Values of the attribute `type`; such an address belongs to a node, not to a pod.
TUNNEL_TYPES: Final = frozenset(
    {
        "ipipTunnelAddress",
        "vxlanTunnelAddress",
        "vxlanV6TunnelAddress",
        "wireguardTunnelAddress",
        "wireguardV6TunnelAddress",
    }
)
_FINISHED: Final = ("Succeeded", "Failed")

PodKey = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class Allocation:
    """One address that somebody holds."""

    address: Address
    block: Network
    handle_id: str | None
    sequence: int | None  # the block's sequence number when it was assigned
    node: str | None
    pod: PodKey | None
    type: str | None

    @property
    def key(self) -> tuple[Address, int | None]:
        """The same for this allocation only: a later one of the same address has a higher sequence number."""
        return self.address, self.sequence


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What a pod says about its addresses. `over`: it will not use them (any more)."""

    node: str
    addresses: frozenset[Address]
    over: bool

    @classmethod
    def of(cls, pod: Pod) -> "PodFacts":
        """A pod without any address has none yet, unless it is being deleted: then it gave them back."""
        addresses = frozenset(_pod_addresses(pod))
        released = pod.metadata.deletion_timestamp is not None and (
            pod.metadata.annotations.get(ANNOTATION_POD_IP) == ""
        )
        over = released or pod.status.phase in _FINISHED or pod.spec.host_network
        return cls(pod.spec.node_name, addresses, over)


@dataclass(frozen=True, slots=True)
class Picture:
    """The cluster at one time."""

    nodes: frozenset[str]
    pods: Mapping[PodKey, PodFacts]
    blocks: Mapping[Network, IPAMBlock]
    affinities: tuple[BlockAffinity, ...] = ()
    handles: tuple[IPAMHandle, ...] = ()
    pools: tuple[IPPool, ...] = ()
    reserved: tuple[Network, ...] = field(default=())

    def allocations(self) -> Iterator[Allocation]:
        """Every address that somebody holds; what cools down is held by nobody."""
        for block in self.blocks.values():
            yield from allocations_of(block)


Verdict = Literal["valid", "unowned", "orphaned"]


def allocations_of(block: IPAMBlock) -> Iterator[Allocation]:
    """The addresses of one block that somebody holds."""
    cidr = blocks.network(block)
    for address, attribute in blocks.holders(block).items():
        facts = attribute.secondary or {}
        pod, namespace = facts.get("pod"), facts.get("namespace")
        yield Allocation(
            address=address,
            block=cidr,
            handle_id=attribute.handle_id,
            sequence=blocks.sequence_of(block, address),
            node=facts.get("node"),
            pod=(namespace, pod) if pod and namespace else None,
            type=facts.get("type"),
        )


def judge(allocation: Allocation, node_exists: bool, pod: PodFacts | None) -> Verdict:
    """Whether an address is in use. `unowned`: it seems not to be; the node may know better for a while.
    `orphaned`: neither its node nor its pod exists. What says nothing about its owner is left alone."""
    if allocation.node is None:
        return "valid"
    if allocation.type in TUNNEL_TYPES:
        return "valid" if node_exists else "orphaned"
    if allocation.pod is None or allocation.type is not None:
        return "valid" if node_exists or allocation.type is not None else "orphaned"
    if pod is None:
        return "unowned" if node_exists else "orphaned"
    if pod.over or pod.node != allocation.node:
        return "unowned"
    if pod.addresses and allocation.address not in pod.addresses:
        return "unowned"
    return "valid"


def _pod_addresses(pod: Pod) -> Iterator[Address]:
    """From its status, or from what the CNI plugin wrote before kubelet did; both count."""
    texts = [pod.status.pod_ip, *(item.ip for item in pod.status.pod_ips)]
    texts += pod.metadata.annotations.get(ANNOTATION_POD_IP, "").split(",")
    texts += pod.metadata.annotations.get(ANNOTATION_POD_IPS, "").split(",")
    for text in texts:
        try:
            yield ip_interface(text.strip()).ip if "/" in text else ip_address(text.strip())
        except ValueError:
            continue


def by_network(listed: Iterable[IPAMBlock]) -> dict[Network, IPAMBlock]:
    """Blocks by range; one whose CIDR is no network is left out."""
    found: dict[Network, IPAMBlock] = {}
    for block in listed:
        try:
            found[blocks.network(block)] = block
        except ValueError:
            continue
    return found
