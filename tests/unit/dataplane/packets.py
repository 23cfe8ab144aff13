"""A packet's way through the rendered table: an interpreter of nf_tables' expressions, as the kernel has one.

It reads the bytes that would be sent to the kernel, and knows nothing of policy. What it does not know is an
error, so that a rule cannot pass by being misread. Numbers: linux/netfilter/nf_tables.h.
"""

import struct
import sys
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from tortie.dataplane import nfnetlink_expressions as nft
from tortie.dataplane import ruleset_base as base
from tortie.dataplane.netlink import as_text, attributes
from tortie.dataplane.nfnetlink import items
from tortie.dataplane.nfnetlink_objects import (
    HOOK_FORWARD,
    HOOK_INPUT,
    HOOK_OUTPUT,
    HOOK_POSTROUTING,
    HOOK_PREROUTING,
    Element,
)
from tortie.dataplane.ruleset import Ruleset
from tortie.dataplane.ruleset_names import IFNAMSIZ

TCP, UDP, ICMP4, ICMP6 = 6, 17, 1, 58
ACCEPT, DROP = "accept", "drop"
_NFPROTO = {4: 2, 6: 10}  # NFPROTO_IPV4, NFPROTO_IPV6
_REGISTERS = 80  # bytes: NFT_REG_VERDICT's 16, then 64
_FIRST_OF_32 = nft.NFT_REG32_00


@dataclass(frozen=True, slots=True)
class Packet:
    """What arrives at a hook. `state`: bits of the connection's state, 0 where nothing is tracked.
    `translated`: its destination was changed (IPS_DST_NAT). `first_oif`: where the node's own packet would
    have left before that; the output hook sees no other."""

    source: str = "10.1.0.1"
    destination: str = "10.2.0.2"
    protocol: int = TCP
    sport: int = 40000
    dport: int = 80
    icmp: tuple[int, int] = (8, 0)
    iif: str = ""
    oif: str = ""
    first_oif: str = ""
    state: int = nft.CT_NEW
    connection_mark: int = 0
    translated: bool = False
    mark: int = 0

    @property
    def ends(self) -> tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address]:
        """Source and destination."""
        return ip_address(self.source), ip_address(self.destination)

    @property
    def network_header(self) -> bytes:
        """Only the addresses count: RFC 791 and RFC 8200 say where they stand."""
        source, destination = self.ends
        return bytes(12 if source.version == 4 else 8) + source.packed + destination.packed

    @property
    def transport_header(self) -> bytes:
        """Ports, or ICMP's type and code."""
        if self.protocol in (ICMP4, ICMP6):
            return bytes(self.icmp) + bytes(6)
        return struct.pack(">HH", self.sport, self.dport) + bytes(4)


@dataclass(slots=True)
class Outcome:
    """What became of a packet, and what was done on the way."""

    verdict: str = ACCEPT
    mark: int = 0
    logs: list[str] = field(default_factory=list)
    untracked: bool = False
    rejected: bool = False

    @property
    def accepted(self) -> bool:
        """Whether it goes on."""
        return self.verdict == ACCEPT


class Kernel:
    """A ruleset as a kernel that packets can be sent to."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.ruleset = ruleset

    def chain(self, name: str, packet: Packet) -> Outcome:
        """One base chain, or another; falling out of its end is accept."""
        walk = _Walk(self.ruleset, packet)
        verdict = walk.run(name)
        walk.outcome.verdict = DROP if verdict == DROP else ACCEPT
        walk.outcome.mark = walk.mark
        return walk.outcome

    def incoming(self, packet: Packet) -> Outcome:
        """To the node itself."""
        return self._hooks(packet, HOOK_PREROUTING, HOOK_INPUT)

    def outgoing(self, packet: Packet) -> Outcome:
        """From the node itself."""
        return self._hooks(packet, HOOK_OUTPUT, HOOK_POSTROUTING)

    def forwarded(self, packet: Packet) -> Outcome:
        """Through the node."""
        return self._hooks(packet, HOOK_PREROUTING, HOOK_FORWARD, HOOK_POSTROUTING)

    def _hooks(self, packet: Packet, *hooks: int) -> Outcome:
        total = Outcome(mark=packet.mark)
        for hook in hooks:
            known = [(place.priority, name) for name, place in base.BASE_CHAINS.items() if place.hook == hook]
            for _, name in sorted(known):
                seen = replace(
                    packet,
                    mark=total.mark,
                    oif=_known_oif(packet, hook),
                    state=0 if total.untracked or name.startswith("raw_") else packet.state,
                )
                found = self.chain(name, seen)
                total.mark = found.mark
                total.logs += found.logs
                total.untracked |= found.untracked
                total.rejected |= found.rejected
                if not found.accepted:
                    total.verdict = DROP
                    return total
        return total


def _known_oif(packet: Packet, hook: int) -> str:
    """The interface it leaves by, where the hook knows it."""
    if hook in (HOOK_PREROUTING, HOOK_INPUT):
        return ""
    return packet.first_oif or packet.oif if hook == HOOK_OUTPUT else packet.oif


class _Walk:
    def __init__(self, ruleset: Ruleset, packet: Packet) -> None:
        self._ruleset = ruleset
        self._packet = packet
        self._registers = bytearray(_REGISTERS)
        self.mark = packet.mark
        self.outcome = Outcome()

    def run(self, chain: str) -> str | None:
        """accept, drop, or None when it came to the end."""
        for rule in self._ruleset.chains[chain]:
            code, target = self._rule(rule)
            if code == nft.NFT_JUMP:
                found = self.run(target)
                if found is not None:
                    return found
            elif code == nft.NFT_RETURN:
                return None
            elif code is not None:
                return {nft.NF_ACCEPT: ACCEPT, nft.NF_DROP: DROP}[code]
        return None

    def _rule(self, rule: bytes) -> tuple[int | None, str]:
        for _, expression in items(rule):
            content = attributes(expression)
            data = attributes(content.get(2, b""))
            name = as_text(content[1])
            if name == "immediate":
                return _verdict(data[2])
            if name == "reject":
                self.outcome.rejected = True
                return nft.NF_DROP, ""
            if name == "lookup" and 3 in data:
                element = self._find(data)
                if element is None:
                    return None, ""
                assert element.code is not None
                return element.code, element.chain
            if not self._goes_on(name, data):
                return None, ""
        return None, ""

    def _goes_on(self, name: str, data: dict[int, bytes]) -> bool:
        match name:
            case "meta" if 3 in data:
                assert _number(data[2]) == nft.NFT_META_MARK
                self.mark = int.from_bytes(self._load(_number(data[3]), 4), _HOST)
            case "meta":
                self._store(_number(data[1]), self._meta(_number(data[2])))
            case "ct":
                self._store(_number(data[1]), self._connection(_number(data[2])))
            case "payload":
                return self._payload(data)
            case "bitwise":
                self._bitwise(data)
            case "cmp":
                wanted = attributes(data[3])[1]
                equal = self._load(_number(data[1]), len(wanted)) == wanted
                return equal == (_number(data[2]) == nft.NFT_CMP_EQ)
            case "range":
                first, last = attributes(data[3])[1], attributes(data[4])[1]
                inside = first <= self._load(_number(data[1]), len(first)) <= last
                return inside == (_number(data[2]) == nft.NFT_RANGE_EQ)
            case "lookup":
                inverted = bool(_number(data.get(5, bytes(4))) & nft.NFT_LOOKUP_F_INV)
                return (self._find(data) is not None) != inverted
            case "log":
                self.outcome.logs.append(as_text(data[2]))
            case "notrack":
                self.outcome.untracked = True
            case "limit":
                return True  # one packet is always within it
            case _:
                raise AssertionError(f"expression {name} is not known here")
        return True

    def _meta(self, key: int) -> bytes:
        packet = self._packet
        match key:
            case nft.NFT_META_MARK:
                return self.mark.to_bytes(4, _HOST)
            case nft.NFT_META_IIFNAME:
                return packet.iif.encode().ljust(IFNAMSIZ, b"\0")
            case nft.NFT_META_OIFNAME:
                return packet.oif.encode().ljust(IFNAMSIZ, b"\0")
            case nft.NFT_META_NFPROTO:
                return bytes((_NFPROTO[packet.ends[0].version], 0, 0, 0))
            case nft.NFT_META_L4PROTO:
                return bytes((packet.protocol, 0, 0, 0))
        raise AssertionError(f"meta {key} is not known here")

    def _connection(self, key: int) -> bytes:
        packet = self._packet
        match key:
            case nft.NFT_CT_STATE:
                return packet.state.to_bytes(4, _HOST)
            case nft.NFT_CT_STATUS:
                return (nft.IPS_DST_NAT if packet.translated else 0).to_bytes(4, _HOST)
            case nft.NFT_CT_MARK:
                return packet.connection_mark.to_bytes(4, _HOST)
        raise AssertionError(f"ct {key} is not known here")

    def _payload(self, data: dict[int, bytes]) -> bool:
        of_network = _number(data[2]) == nft.NFT_PAYLOAD_NETWORK_HEADER
        header = self._packet.network_header if of_network else self._packet.transport_header
        offset, length = _number(data[3]), _number(data[4])
        if offset + length > len(header):
            return False
        self._store(_number(data[1]), header[offset : offset + length])
        return True

    def _bitwise(self, data: dict[int, bytes]) -> None:
        length = _number(data[3])
        assert _number(data[6]) == nft.NFT_BITWISE_MASK_XOR
        mask, flip = attributes(data[4])[1], attributes(data[5])[1]
        value = self._load(_number(data[1]), length)
        self._store(_number(data[2]), bytes(v & m ^ x for v, m, x in zip(value, mask, flip, strict=True)))

    def _find(self, data: dict[int, bytes]) -> Element | None:
        register = _number(data[2])
        for element in self._ruleset.members[as_text(data[1])]:
            key = self._load(register, len(element.key))
            if element.key <= key <= (element.last or element.key):
                return element
        return None

    def _load(self, register: int, length: int) -> bytes:
        start = _offset(register)
        return bytes(self._registers[start : start + length])

    def _store(self, register: int, value: bytes) -> None:
        padded = value.ljust(-(-len(value) // 4) * 4, b"\0")
        start = _offset(register)
        self._registers[start : start + len(padded)] = padded


_HOST: Final = sys.byteorder


def _number(data: bytes) -> int:
    """Numbers of nf_tables' attributes are in network order."""
    return int.from_bytes(data, "big")


def _offset(register: int) -> int:
    """Where a register begins; the verdict's 16 bytes come first."""
    return 16 + (register - _FIRST_OF_32) * 4 if register >= _FIRST_OF_32 else register * 16


def _verdict(data: bytes) -> tuple[int, str]:
    verdict = attributes(attributes(data)[2])
    (code,) = struct.unpack(">i", verdict[1])
    return code, as_text(verdict[2]) if 2 in verdict else ""
