"""Addresses that a node holds in a block of another node, or of none: each needs a route of its own. Pure."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import Generic, TypeVar

from tortie.model.names import host_affinity, ordinal_address
from tortie.model.resources import IPAMBlock

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, order=True)
class Borrowed:
    """`node` holds `address`, whose block is not its own."""

    address: IPv4Address
    node: str


def borrowed_in(block: IPAMBlock) -> frozenset[Borrowed]:
    """Borrowed IPv4 addresses of one block. What is allocated without a node is not borrowed: nobody knows
    where it is. A block whose CIDR is no network has none; whoever reads claims reports it."""
    spec = block.spec
    if spec.deleted or ":" in spec.cidr:
        return frozenset()
    elsewhere = {
        index: attribute.secondary["node"]
        for index, attribute in enumerate(spec.attributes)
        if attribute.released_at is None
        and attribute.secondary
        and attribute.secondary.get("node")
        and host_affinity(attribute.secondary["node"]) != spec.affinity
    }
    if not elsewhere:
        return frozenset()
    try:
        network = IPv4Network(spec.cidr)
    except (AddressValueError, NetmaskValueError, ValueError):
        return frozenset()
    return frozenset(
        Borrowed(ordinal_address(network, ordinal), elsewhere[index])
        for ordinal, index in enumerate(spec.allocations[: network.num_addresses])
        if index in elsewhere
    )


class BorrowedIndex(Generic[K]):
    """Borrowed addresses of all blocks, read again only from blocks that changed: every ADD and DEL of the
    cluster writes one."""

    def __init__(self) -> None:
        self._blocks: dict[K, IPAMBlock] = {}
        self._found: dict[K, frozenset[Borrowed]] = {}
        self.addresses: frozenset[Borrowed] = frozenset()

    def update(self, blocks: Mapping[K, IPAMBlock]) -> bool:
        """Take over the blocks as they are now (a block that did not change is the same object as before);
        return whether `addresses` changed."""
        changed = [key for key, block in blocks.items() if self._blocks.get(key) is not block]
        gone = self._blocks.keys() - blocks.keys()
        before = self._pick((*changed, *gone))
        for key in gone:
            self._found.pop(key, None)
        for key in changed:
            found = borrowed_in(blocks[key])
            if found:
                self._found[key] = found
            else:
                self._found.pop(key, None)
        self._blocks = dict(blocks)
        if self._pick(changed) == before:
            return False
        self.addresses = frozenset().union(*self._found.values())
        return True

    def _pick(self, keys: Iterable[K]) -> dict[K, frozenset[Borrowed]]:
        return {key: self._found[key] for key in keys if key in self._found}
