"""Which floating addresses lead to which pod of a node. Pure.

As in Calico: when several pods of a node have one, it leads to the pod whose own address comes first as text,
and to the next one when that pod is gone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from tortie.model.floating import Address
from tortie.routing.borrowed import Borrowed
from tortie.routing.pools import BlockClaim, Pool, pool_of


@dataclass(frozen=True, slots=True)
class FloatingPod:
    """A pod that asks for floating addresses. `name` is for sentences; `interface` is the node's end of its
    link; `internal` are its own addresses as far as they are known, at most one of each family; `external`
    are the floating ones."""

    name: str
    interface: str
    internal: tuple[Address, ...] = ()
    external: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class FloatingDemand:
    """What a node is asked for. `taken` are addresses that somebody on the node has, with the holder's name:
    they cannot float."""

    pods: tuple[FloatingPod, ...] = ()
    taken: Mapping[Address, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Translation:
    """What is sent to `external` goes to `internal`, which is behind `interface`."""

    external: Address
    internal: Address
    interface: str


@dataclass(frozen=True, slots=True)
class FloatingState:
    """What a node's kernel should hold. `refused` says of (interface, floating address) why it cannot be;
    `waiting` why it leads to another pod for now."""

    translations: Mapping[Address, Translation] = field(default_factory=dict)
    refused: Mapping[tuple[str, Address], str] = field(default_factory=dict)
    waiting: Mapping[tuple[str, Address], str] = field(default_factory=dict)

    def hairpins(self) -> dict[Address, Address]:
        """For each pod the floating address that it seems to come from when it speaks to itself: the first
        one as text."""
        first: dict[Address, Address] = {}
        for translation in self.translations.values():
            chosen = first.get(translation.internal)
            if chosen is None or str(translation.external) < str(chosen):
                first[translation.internal] = translation.external
        return first


def translate(demand: FloatingDemand) -> FloatingState:
    """Decide. The result does not depend on the order of the pods."""
    winners: dict[Address, tuple[Translation, str]] = {}
    refused: dict[tuple[str, Address], str] = {}
    losers: list[tuple[str, str, Address]] = []
    for pod in sorted(demand.pods, key=lambda item: item.interface):
        own = {address.version: address for address in pod.internal}
        for external in pod.external:
            internal = own.get(external.version)
            if external in demand.taken:
                refused[pod.interface, external] = (
                    f"floating address {external} of pod {pod.name} is the address of "
                    f"{demand.taken[external]}; choose another one"
                )
            elif internal is None:
                refused[pod.interface, external] = (
                    f"floating address {external} of pod {pod.name} leads nowhere: "
                    f"the pod has no IPv{external.version} address"
                )
            else:
                held = winners.get(external)
                candidate = Translation(external, internal, pod.interface), pod.name
                if held is not None and str(held[0].internal) <= str(internal):
                    losers.append((pod.interface, pod.name, external))
                    continue
                if held is not None:
                    losers.append((held[0].interface, held[1], external))
                winners[external] = candidate
    waiting = {
        (interface, external): (
            f"floating address {external} of pod {name} leads to pod {winners[external][1]}, which has it too"
        )
        for interface, name, external in losers
    }
    return FloatingState({key: item for key, (item, _) in winners.items()}, refused, waiting)


def routed_by_agents(
    addresses: Iterable[Borrowed], pools: Sequence[Pool], claims: Iterable[BlockClaim]
) -> frozenset[Borrowed]:
    """Of the addresses that float on other nodes, those that this node's agent routes: in pools with VXLAN,
    where BIRD writes no routes. None within a block: the block's node may give it to a pod at any time."""
    asked = [
        item
        for item in addresses
        if (pool := pool_of(IPv4Network(item.address), pools)) and pool.vxlan != "Never"
    ]
    if not asked:
        return frozenset()
    blocks: dict[int, set[int]] = {}  # by how many bits an address has behind the block's prefix
    for claim in claims:
        bits = 32 - claim.block.prefixlen
        blocks.setdefault(bits, set()).add(int(claim.block.network_address) >> bits)
    return frozenset(
        item
        for item in asked
        if not any(int(item.address) >> bits in numbers for bits, numbers in blocks.items())
    )


def without(state: FloatingState, failed: Iterable[tuple[Address, str]]) -> FloatingState:
    """The state less the floating addresses that could not be routed, each with the reason."""
    reasons = dict(failed)
    refused = {
        (item.interface, external): reasons[external]
        for external, item in state.translations.items()
        if external in reasons
    }
    kept = {key: item for key, item in state.translations.items() if key not in reasons}
    return FloatingState(kept, {**state.refused, **refused}, state.waiting)
