"""One rule of a policy as rules of nf_tables.

A rule becomes several when it has alternatives that one sequence of expressions cannot say: both families,
numbered and named ports together. It becomes none where it can never match (IPv6 of an IPv4-only set).
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from tortie.dataplane import nfnetlink_expressions as nft
from tortie.dataplane.nfnetlink import NFPROTO_IPV4, NFPROTO_IPV6
from tortie.dataplane.ruleset_sets import (
    ADDRESS_BYTES,
    FAMILIES,
    KernelSet,
    LiteralNetworks,
    LiteralPorts,
    SharedSet,
)
from tortie.policy.state import ICMP, Action, Network, Peer, PortRange, Rule, SetID, SetKind

TCP, UDP, ICMP4, ICMP6, SCTP, UDPLITE = 6, 17, 1, 58, 132, 136  # IANA protocol numbers
PORT_PROTOCOLS: Final = (TCP, UDP, SCTP, UDPLITE)
NFPROTO: Final = {4: NFPROTO_IPV4, 6: NFPROTO_IPV6}
# (family, whether source): where the address stands in the header (RFC 791, RFC 8200).
ADDRESS_OFFSET: Final = {(4, True): 12, (4, False): 16, (6, True): 8, (6, False): 24}
PORT_OFFSET: Final = {True: 0, False: 2}  # TCP, UDP, SCTP and UDP-Lite alike
# A workload that makes denied connections all day must not fill the kernel's log.
LOG_PACKETS, LOG_SECONDS, LOG_BURST = 10, 1, 50

_MARK = struct.Struct("=I")  # marks are host order in a register

_ANY_PORT = [b""]
_BEHIND_TAG = nft.NFT_REG32_00 + 1  # a tag fills one register of 4 bytes

FindSet = Callable[[SetID, SetKind, int], KernelSet | None]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What actions become in one hook: expressions at the end of a rule."""

    allow: bytes
    next_tier: bytes
    log: bytes
    deny: bytes = nft.verdict(nft.NF_DROP)

    def of(self, action: Action) -> bytes:
        """The end of a rule with this action."""
        if action is Action.ALLOW:
            return self.allow
        if action is Action.DENY:
            return self.deny
        return self.log if action is Action.LOG else self.next_tier


def set_mark(bit: int) -> bytes:
    """Set a bit of the packet's mark."""
    return (
        nft.meta(nft.NFT_META_MARK)
        + nft.mask(_MARK.pack(~bit & 0xFFFFFFFF), _MARK.pack(bit))
        + nft.set_meta(nft.NFT_META_MARK)
    )


def clear_mark(bit: int) -> bytes:
    """Clear a bit of the packet's mark."""
    return (
        nft.meta(nft.NFT_META_MARK)
        + nft.mask(_MARK.pack(~bit & 0xFFFFFFFF))
        + nft.set_meta(nft.NFT_META_MARK)
    )


@cache
def if_mark(bit: int, *, given: bool) -> bytes:
    """Go on if a bit of the packet's mark is (not) set."""
    return nft.meta(nft.NFT_META_MARK) + nft.mask(_MARK.pack(bit)) + nft.compare(bytes(4), equal=not given)


@cache
def if_family(family: int) -> bytes:
    """Go on for packets of one family."""
    return nft.meta(nft.NFT_META_NFPROTO) + nft.compare(bytes((NFPROTO[family],)))


@cache
def if_protocol(protocol: int, *, equal: bool = True) -> bytes:
    """Go on for packets of one transport protocol, behind IPv6's extension headers too."""
    return nft.meta(nft.NFT_META_L4PROTO) + nft.compare(bytes((protocol,)), equal=equal)


def log(prefix: str) -> bytes:
    """Write to the kernel's log, so much per rule at most."""
    return nft.limit(LOG_PACKETS, LOG_SECONDS, LOG_BURST) + nft.log(prefix)


def address(family: int, *, source: bool, register: int = nft.NFT_REG_1) -> bytes:
    """Load an address."""
    return nft.payload(
        nft.NFT_PAYLOAD_NETWORK_HEADER, ADDRESS_OFFSET[family, source], ADDRESS_BYTES[family], register
    )


def in_network(network: IPv4Network | IPv6Network, *, source: bool, inside: bool = True) -> bytes:
    """Go on if the address is (not) in a network; the family must be known. Nothing for /0."""
    length, rest = divmod(network.prefixlen, 8)
    if rest:
        bits = network.netmask.packed
        return (
            address(network.version, source=source)
            + nft.mask(bits)
            + nft.compare(network.network_address.packed, equal=inside)
        )
    if not length:
        return b""
    offset = ADDRESS_OFFSET[network.version, source]
    return nft.payload(nft.NFT_PAYLOAD_NETWORK_HEADER, offset, length) + nft.compare(
        network.network_address.packed[:length], equal=inside
    )


def port(*, source: bool, register: int = nft.NFT_REG_1) -> bytes:
    """Load a port; the protocol must be one that has ports."""
    return nft.payload(nft.NFT_PAYLOAD_TRANSPORT_HEADER, PORT_OFFSET[source], 2, register)


class Rendering:
    """Rules of one policy for one hook. `used` collects the sets that they name."""

    def __init__(self, verdicts: Verdicts, find_set: FindSet, find_tag: Callable[[SetID], bytes]) -> None:
        self._verdicts = verdicts
        self._find_set = find_set
        self._find_tag = find_tag
        self.used: set[KernelSet] = set()

    def rules(self, policy: Iterable[Rule]) -> tuple[bytes, ...]:
        """All rules in order, each as many as it has alternatives."""
        found: list[bytes] = []
        for rule in policy:
            end = self._verdicts.of(rule.action)
            for family in _families(rule):
                self._write(rule, family, end, found)
        return tuple(found)

    def _write(self, rule: Rule, family: int | None, end: bytes, found: list[bytes]) -> None:
        """Append a rule's alternatives for one family, or for both; none when nothing can match."""
        addresses = self._addresses(rule.source, family, source=True)
        if addresses is None:
            return
        destination = self._addresses(rule.destination, family, source=False)
        if destination is None:
            return
        addresses += destination
        source_ports = self._ports(rule.source, family, source=True)
        destination_ports = self._ports(rule.destination, family, source=False)
        tail = end
        if rule.icmp is not None or rule.not_icmp is not None:
            tail = _icmp(rule.icmp, equal=True) + _icmp(rule.not_icmp, equal=False) + end
        for protocol in _protocols(rule):
            head = _head(family, protocol, rule.not_protocol)
            for of_source in source_ports:
                found += [
                    b"".join((head, addresses, of_source, of_destination, tail))
                    for of_destination in destination_ports
                ]

    def _addresses(self, peer: Peer, family: int | None, *, source: bool) -> bytes | None:
        """Conditions on a side's address; None when no address of the family can fulfil them."""
        if family is None or not (peer.sets or peer.networks or peer.not_networks or peer.not_sets):
            return b""
        found = b""
        if peer.networks:
            matching = _of(peer.networks, family)
            if not matching:
                return None
            if len(matching) == 1:
                found += in_network(matching[0], source=source)
            else:
                found += self._lookup(LiteralNetworks(matching, family), address(family, source=source))
        excluded = _of(peer.not_networks, family) if peer.not_networks else ()
        if excluded and any(network.prefixlen == 0 for network in excluded):
            return None
        if len(excluded) > 1:
            literal = LiteralNetworks(excluded, family)
            found += self._lookup(literal, address(family, source=source), inverted=True)
        elif excluded:
            found += in_network(excluded[0], source=source, inside=False)
        for identity in peer.sets:
            members = self._find_set(identity, SetKind.NETWORKS, family)
            if members is None:
                return None
            found += self._member(members, family, source=source)
        for identity in peer.not_sets:
            members = self._find_set(identity, SetKind.NETWORKS, family)
            if members is not None:
                found += self._member(members, family, source=source, inverted=True)
        return found

    def _member(self, members: KernelSet, family: int, *, source: bool, inverted: bool = False) -> bytes:
        """Look an address up in a set of policy."""
        if not isinstance(members, SharedSet):
            return self._lookup(members, address(family, source=source), inverted=inverted)
        self.used.add(members)
        return self._find_tag(members.id).join(_share_frame(family, source, inverted))

    def _ports(self, peer: Peer, family: int | None, *, source: bool) -> list[bytes]:
        """Alternative conditions on a side's port; an empty list when none can be fulfilled."""
        if not (
            peer.ports or peer.not_ports or peer.named_ports or peer.not_named_ports or peer.service_ports
        ):
            return _ANY_PORT
        common = b""
        if peer.not_ports:
            common += self._numbered(peer.not_ports, source=source, inside=False)
        for identity in peer.not_named_ports:
            common += self._named(identity, family, source=source, inverted=True) or b""
        for identity in peer.service_ports:
            match = self._named(identity, family, source=source)
            if match is None:
                return []
            common += match
        if not peer.ports and not peer.named_ports:
            return [common]
        alternatives = [self._numbered(peer.ports, source=source)] if peer.ports else []
        named = (self._named(identity, family, source=source) for identity in peer.named_ports)
        alternatives += [match for match in named if match is not None]
        return [common + match for match in alternatives]

    def _numbered(self, ports: tuple[PortRange, ...], *, source: bool, inside: bool = True) -> bytes:
        if len(ports) > 1:
            return self._lookup(LiteralPorts(ports), port(source=source), inverted=not inside)
        return _if_port(ports[0], source, inside)

    def _named(
        self, identity: SetID, family: int | None, *, source: bool, inverted: bool = False
    ) -> bytes | None:
        """Address, protocol and port together in a set; None when the family has no members."""
        members = None if family is None else self._find_set(identity, SetKind.NAMED_PORT, family)
        if members is None or family is None:
            return None
        protocol_register = _BEHIND_TAG + ADDRESS_BYTES[family] // 4
        port_register = protocol_register + 1
        load = (
            nft.constant(self._find_tag(identity))
            + address(family, source=source, register=_BEHIND_TAG)
            + nft.meta(nft.NFT_META_L4PROTO, protocol_register)
            + port(source=source, register=port_register)
        )
        return self._lookup(members, load, inverted=inverted)

    def _lookup(self, members: KernelSet, load: bytes, *, inverted: bool = False) -> bytes:
        self.used.add(members)
        return load + nft.lookup(members.name, inverted=inverted)


@cache
def _head(family: int | None, protocol: int | None, not_protocol: int | None) -> bytes:
    """What a rule begins with."""
    head = b"" if family is None else if_family(family)
    if protocol is not None:
        head += if_protocol(protocol)
    return head if not_protocol is None else head + if_protocol(not_protocol, equal=False)


@cache
def _share_frame(family: int, source: bool, inverted: bool) -> tuple[bytes, bytes]:
    """What stands before and behind a set's tag where an address is looked up in a shared set."""
    name = SharedSet(SetID(""), SetKind.NETWORKS, family).name
    load = address(family, source=source, register=_BEHIND_TAG)
    return nft.constant(b""), load + nft.lookup(name, inverted=inverted)


@lru_cache(maxsize=4096)
def _if_port(ports: PortRange, source: bool, inside: bool) -> bytes:
    first, last = ports
    if first == last:
        return port(source=source) + nft.compare(first.to_bytes(2, "big"), equal=inside)
    bounds = first.to_bytes(2, "big"), last.to_bytes(2, "big")
    return port(source=source) + nft.within(*bounds, inside=inside)


def _of(networks: Iterable[Network], family: int) -> tuple[Network, ...]:
    return tuple(network for network in networks if network.version == family)


def _families(rule: Rule) -> tuple[int | None, ...]:
    """Families that need a rule of their own; (None,) when one serves both."""
    if rule.ip_version is not None:
        return (rule.ip_version,)
    if rule.icmp is not None or rule.not_icmp is not None:
        return (6,) if rule.protocol == ICMP6 else (4,)
    for peer in (rule.source, rule.destination):
        if (
            peer.networks
            or peer.not_networks
            or peer.sets
            or peer.not_sets
            or peer.named_ports
            or peer.not_named_ports
            or peer.service_ports
        ):
            return FAMILIES
    return (None,)


def _protocols(rule: Rule) -> tuple[int | None, ...]:
    """Protocols that need a rule of their own. A port says nothing without a protocol that has ports."""
    if rule.protocol is not None:
        return (rule.protocol,)
    if rule.icmp is not None or rule.not_icmp is not None:
        return (ICMP6,) if rule.ip_version == 6 else (ICMP4,)
    if any(
        peer.ports or peer.not_ports or peer.named_ports or peer.not_named_ports or peer.service_ports
        for peer in (rule.source, rule.destination)
    ):
        return PORT_PROTOCOLS
    return (None,)


def _icmp(match: ICMP | None, *, equal: bool) -> bytes:
    """Type, and code if given; both stand at the start of the header (RFC 792, RFC 4443)."""
    if match is None:
        return b""
    content = bytes((match.type,)) if match.code is None else bytes((match.type, match.code))
    return nft.payload(nft.NFT_PAYLOAD_TRANSPORT_HEADER, 0, len(content)) + nft.compare(content, equal=equal)
