"""Ports, protocols and networks as policies write them. Each parser raises ValueError whose text says what is
allowed, as the `rule` of a `Problem`."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from tortie.model.policies import Port, Protocol

# IANA's protocol numbers.
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58
SCTP: Final = 132
UDPLITE: Final = 136

PROTOCOL_NUMBERS: Final = {
    "TCP": TCP,
    "UDP": UDP,
    "ICMP": ICMP,
    "ICMPv6": ICMPV6,
    "SCTP": SCTP,
    "UDPLite": UDPLITE,
}
PROTOCOL_NAMES: Final = {number: name for name, number in PROTOCOL_NUMBERS.items()}
PROTOCOLS_WITH_PORTS: Final = frozenset({TCP, UDP, SCTP})

_BY_LOWER_CASE: Final = {name.lower(): number for name, number in PROTOCOL_NUMBERS.items()}
_MAX_PROTOCOL: Final = 255
_MAX_PORT: Final = 65535
_PORT_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_PORT_RULE: Final = f"must be a port from 1 to {_MAX_PORT}, a range such as '80:90', or the name of a port"


def protocol_number(protocol: Protocol) -> int:
    """1 to 255. Names count in any case; a number may be text."""
    if isinstance(protocol, str):
        known = _BY_LOWER_CASE.get(protocol.lower())
        if known is not None:
            return known
        number = int(protocol) if protocol.isascii() and protocol.isdigit() else 0
    else:
        number = protocol
    if not 1 <= number <= _MAX_PROTOCOL:
        names = ", ".join(PROTOCOL_NUMBERS)
        raise ValueError(f"must be one of {names}, or a number from 1 to {_MAX_PROTOCOL}")
    return number


def protocol_name(number: int) -> str:
    """The name as policies write it, else the number."""
    return PROTOCOL_NAMES.get(number, str(number))


def parse_port(port: Port) -> tuple[int, int] | str:
    """First and last port, or the name of a port."""
    if isinstance(port, int):
        first = last = port
    elif ":" in port:
        first_text, _, last_text = port.partition(":")
        first, last = _port_number(first_text), _port_number(last_text)
    elif port.isascii() and port.isdigit():
        first = last = int(port)
    elif _PORT_NAME.fullmatch(port):
        return port
    else:
        raise ValueError(_PORT_RULE)
    if not 1 <= first <= _MAX_PORT or not 1 <= last <= _MAX_PORT:
        raise ValueError(_PORT_RULE)
    if first > last:
        raise ValueError("must have its lower port first")
    return first, last


def _port_number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(_PORT_RULE)
    return int(text)


@lru_cache(maxsize=65536)
def parse_network(text: str) -> IPv4Network | IPv6Network:
    """A CIDR or an address (a /32 or /128); bits after the prefix are dropped. Prefix lengths are decimal."""
    address, slash, length = text.partition("/")
    if slash and not (length.isascii() and length.isdigit()):
        raise ValueError("must be an address with a prefix length, such as 10.0.0.0/8 or 2001:db8::/32")
    try:
        if "%" in address:
            raise ValueError("a zone")
        return ip_network(text, strict=False)
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 network, such as 10.0.0.0/8 or 2001:db8::/32") from None


def parse_address(text: str) -> IPv4Address | IPv6Address:
    """One address, without a prefix length."""
    try:
        if "%" in text:
            raise ValueError("a zone")
        return ip_address(text)
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address") from None
