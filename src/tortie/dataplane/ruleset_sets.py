"""What the rules' sets hold: members of policy's sets, and networks and ports that stand in a rule itself.

The kernel has no set of both families, and none that holds single addresses as cheaply as ranges. So one set
of policy becomes up to two of the kernel: IPv4, and IPv6 once a member asks for it; hashed while every member
is an address, ranges from the first broader network on. That is a set's shape; it only grows, until the whole
is loaded again, because a rule names the kernel's sets and has to be written again when a shape changes.

The kernel finds a set by going through the list of all sets of a table, so that a thousand of them cost more
than all rules. Therefore hashed sets of policy share one set of the kernel: a key is the tag of the set of
policy, then the member. A set of ranges is the kernel's own.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tortie.dataplane.nfnetlink_objects import (
    TYPE_INET_PROTOCOL,
    TYPE_INET_SERVICE,
    TYPE_IP6ADDR,
    TYPE_IPADDR,
    TYPE_MARK,
    Element,
    SetType,
)
from tortie.dataplane.ruleset_names import TAG_BYTES, digest
from tortie.policy.state import Member, NamedPort, Network, PortRange, SetID, SetKind

FAMILIES = (4, 6)
ADDRESS_BYTES = {4: 4, 6: 16}
ADDRESS_TYPE = {4: TYPE_IPADDR, 6: TYPE_IP6ADDR}
PORT_BYTES = 2
_TAG = (TYPE_MARK, TAG_BYTES)  # so that nft(8) shows it as a number
_SHARED_NAMES = {
    (kind, family): f"{label}{family}"
    for kind, label in ((SetKind.NETWORKS, "members"), (SetKind.NAMED_PORT, "ports"))
    for family in FAMILIES
}
_ADDRESSES = {family: (ADDRESS_TYPE[family], ADDRESS_BYTES[family]) for family in FAMILIES}
SHARED_SETS = {
    name: SetType(
        (_TAG, _ADDRESSES[family])
        if kind is SetKind.NETWORKS
        else (_TAG, _ADDRESSES[family], (TYPE_INET_PROTOCOL, 1), (TYPE_INET_SERVICE, PORT_BYTES))
    )
    for (kind, family), name in _SHARED_NAMES.items()
}

Range = tuple[int, int]  # numbers of addresses or ports; first and last, both included


@dataclass(frozen=True, slots=True)
class RangeSet:
    """The kernel's set of one family of a set of policy that holds networks."""

    id: SetID
    family: int

    @property
    def name(self) -> str:
        """Its name in the table."""
        return f"net{self.family}_{digest(self.id)}"

    @property
    def type(self) -> SetType:
        """What it holds."""
        return SetType((_ADDRESSES[self.family],), interval=True)


class SharedSet(NamedTuple):
    """One family of a set of policy as part of a set that the kernel has for many."""

    id: SetID
    kind: SetKind
    family: int

    @property
    def name(self) -> str:
        """Name of the kernel's set."""
        return _SHARED_NAMES[self.kind, self.family]


@dataclass(frozen=True, slots=True)
class LiteralNetworks:
    """Networks of one family that stand in a rule."""

    networks: tuple[Network, ...]
    family: int

    @property
    def name(self) -> str:
        """Its name in the table: equal content, equal name."""
        return f"lit{self.family}_{digest(' '.join(map(str, self.networks)))}"

    @property
    def type(self) -> SetType:
        """What it holds."""
        return SetType(((ADDRESS_TYPE[self.family], ADDRESS_BYTES[self.family]),), interval=True)

    def elements(self) -> set[Element]:
        """Its elements."""
        return set(range_elements(merged(self.networks), ADDRESS_BYTES[self.family]))


@dataclass(frozen=True, slots=True)
class LiteralPorts:
    """Ports that stand in a rule."""

    ports: tuple[PortRange, ...]

    @property
    def name(self) -> str:
        """Its name in the table: equal content, equal name."""
        return f"litp_{digest(' '.join(f'{first}-{last}' for first, last in self.ports))}"

    @property
    def type(self) -> SetType:
        """What it holds."""
        return SetType(((TYPE_INET_SERVICE, PORT_BYTES),), interval=True)

    def elements(self) -> set[Element]:
        """Its elements."""
        return set(range_elements(merge(self.ports), PORT_BYTES))


OwnSet = RangeSet | LiteralNetworks | LiteralPorts  # the kernel has it for itself
KernelSet = SharedSet | OwnSet


def merge(ranges: Iterable[Range]) -> list[Range]:
    """The same numbers as ranges that neither overlap nor touch: the kernel refuses an overlap."""
    result: list[Range] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return result


def merged(networks: Iterable[Network]) -> list[Range]:
    """Networks of one family as ranges."""
    return merge((int(network.network_address), int(network.broadcast_address)) for network in networks)


def range_elements(ranges: Iterable[Range], size: int) -> Iterator[Element]:
    """Ranges of numbers as elements; `size` is that of a key in bytes."""
    for first, last in ranges:
        yield Element(first.to_bytes(size, "big"), last.to_bytes(size, "big"))


def named_port_key(member: NamedPort) -> bytes:
    """Address, protocol and port as a register holds them: each field filled up to 4 bytes."""
    return (
        member.address.packed + bytes((member.protocol, 0, 0, 0)) + member.port.to_bytes(2, "big") + b"\0\0"
    )


class Members:
    """The members of one set of policy, and its shape."""

    def __init__(self, kind: SetKind, members: Collection[Member]) -> None:
        self.kind = kind
        self.members: set[Member] = set()
        self._ranges: dict[int, bool] = {4: False}
        self.change(members, ())

    def change(self, added: Collection[Member], removed: Iterable[Member]) -> None:
        """Members that join and leave."""
        self.members.difference_update(removed)
        self.members.update(added)
        for family, broad in set(map(_shape, added)):
            self._ranges[family] = self._ranges.get(family, False) or broad

    @property
    def shape(self) -> tuple[tuple[int, bool], ...]:
        """(family, whether it holds ranges) of the kernel's sets it needs."""
        return tuple(sorted(self._ranges.items()))

    def kernel_set(self, identity: SetID, family: int) -> RangeSet | SharedSet | None:
        """The kernel's set for a family; None when no member is of it."""
        ranges = self._ranges.get(family)
        if ranges is None:
            return None
        return RangeSet(identity, family) if ranges else SharedSet(identity, self.kind, family)


def member_set(identity: SetID, kind: SetKind, shape: tuple[int, bool]) -> RangeSet | SharedSet:
    """The kernel's set for a family, and whether it holds ranges."""
    family, ranges = shape
    return RangeSet(identity, family) if ranges else SharedSet(identity, kind, family)


def elements(members: Iterable[Member], place: RangeSet | SharedSet, tag: bytes = b"") -> set[Element]:
    """Those members that belong into a set, as its elements; in a shared one `tag` stands before them."""
    family = place.family
    if isinstance(place, RangeSet):
        networks = (item for item in members if not isinstance(item, NamedPort) and item.version == family)
        return set(range_elements(merged(networks), ADDRESS_BYTES[family]))
    found: set[Element] = set()
    for member in members:
        if isinstance(member, NamedPort):
            if member.address.version == family:
                found.add(Element(tag + named_port_key(member)))
        elif member.version == family:
            found.add(Element(tag + member.network_address.packed))
    return found


def _shape(member: Member) -> tuple[int, bool]:
    if isinstance(member, NamedPort):
        return member.address.version, False
    return member.version, member.prefixlen < member.max_prefixlen
