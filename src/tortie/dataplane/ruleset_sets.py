"""What the rules' sets hold: members of policy's sets, and networks and ports that stand in a rule itself.

The kernel has no set of both families, and none that holds single addresses as cheaply as ranges. So one set
of policy becomes up to two of the kernel: IPv4, and IPv6 once a member asks for it; hashed while every member
is an address, ranges from the first broader network on. That is a set's shape; it only grows, until the whole
is loaded again, because a rule names the kernel's sets and has to be written again when a shape changes.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from tortie.dataplane.nfnetlink_objects import (
    TYPE_INET_PROTOCOL,
    TYPE_INET_SERVICE,
    TYPE_IP6ADDR,
    TYPE_IPADDR,
    Element,
    SetType,
)
from tortie.dataplane.ruleset_names import digest
from tortie.policy.state import Member, NamedPort, Network, PortRange, SetID, SetKind

FAMILIES = (4, 6)
ADDRESS_BYTES = {4: 4, 6: 16}
ADDRESS_TYPE = {4: TYPE_IPADDR, 6: TYPE_IP6ADDR}
PORT_BYTES = 2

Range = tuple[int, int]  # numbers of addresses or ports; first and last, both included


@dataclass(frozen=True, slots=True)
class MemberSet:
    """The kernel's set of one family of a set of policy."""

    id: SetID
    kind: SetKind
    family: int
    ranges: bool

    @property
    def name(self) -> str:
        """Its name in the table."""
        letter = "net" if self.kind is SetKind.NETWORKS else "port"
        return f"{letter}{self.family}{'r' if self.ranges else ''}_{digest(self.id)}"

    @property
    def type(self) -> SetType:
        """What it holds."""
        address = (ADDRESS_TYPE[self.family], ADDRESS_BYTES[self.family])
        if self.kind is SetKind.NETWORKS:
            return SetType((address,), interval=self.ranges)
        return SetType((address, (TYPE_INET_PROTOCOL, 1), (TYPE_INET_SERVICE, PORT_BYTES)))


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


KernelSet = MemberSet | LiteralNetworks | LiteralPorts


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

    def kernel_set(self, identity: SetID, family: int) -> MemberSet | None:
        """The kernel's set for a family; None when no member is of it."""
        if family not in self._ranges:
            return None
        return MemberSet(identity, self.kind, family, self._ranges[family])

    def elements(self, family: int) -> set[Element]:
        """The elements of the kernel's set for a family."""
        return elements(self.members, family, ranges=self._ranges.get(family, False))


def elements(members: Iterable[Member], family: int, *, ranges: bool) -> set[Element]:
    """Members of one family as elements."""
    if ranges:
        networks = (item for item in members if not isinstance(item, NamedPort) and item.version == family)
        return set(range_elements(merged(networks), ADDRESS_BYTES[family]))
    found: set[Element] = set()
    for member in members:
        if isinstance(member, NamedPort):
            if member.address.version == family:
                found.add(Element(named_port_key(member)))
        elif member.version == family:
            found.add(Element(member.network_address.packed))
    return found


def _shape(member: Member) -> tuple[int, bool]:
    if isinstance(member, NamedPort):
        return member.address.version, False
    return member.version, member.prefixlen < member.max_prefixlen
