"""What a Node object says about the network: Calico's annotations as typed values."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Final, TypeVar

from tortie.model.constants import (
    ANNOTATION_AS_NUMBER,
    ANNOTATION_IPIP_TUNNEL,
    ANNOTATION_IPV4_ADDRESS,
    ANNOTATION_VXLAN_MAC,
    ANNOTATION_VXLAN_TUNNEL,
)
from tortie.model.resources import Node

_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MAX_AS_NUMBER: Final = 2**32 - 1  # RFC 6793: four octets
_AS_DOT: Final = re.compile(r"(\d{1,5})\.(\d{1,5})")  # RFC 5396 asdot: high.low, 16 bits each

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class BGPNode:
    """A node as routing and BGP see it. A field is None when its annotation is absent or invalid; `problems`
    has one sentence for each invalid one."""

    name: str
    ipv4: IPv4Interface | None = None  # the node's address with its subnet's prefix length
    ipip_tunnel: IPv4Address | None = None
    vxlan_tunnel: IPv4Address | None = None
    vxlan_mac: str | None = None  # lower case, colons
    as_number: int | None = None  # None means the cluster's default
    problems: tuple[str, ...] = ()


def parse_as_number(text: str) -> int:
    """AS number in plain or asdot notation (RFC 5396). Raise ValueError when it is not 1..4294967295."""
    dotted = _AS_DOT.fullmatch(text)
    if dotted:
        high, low = int(dotted[1]), int(dotted[2])
        if high > 0xFFFF or low > 0xFFFF:
            raise ValueError(f"{text!r} has a half above 65535")
        number = (high << 16) | low
    else:
        number = int(text)
    if not 1 <= number <= _MAX_AS_NUMBER:
        raise ValueError(f"{text!r} is not between 1 and {_MAX_AS_NUMBER}")
    return number


def parse_mac(text: str) -> str:
    """A MAC address in lower case with colons. Raise ValueError."""
    mac = text.lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise ValueError(f"{text!r} is not six hexadecimal octets")
    return mac


def parse_node(node: Node) -> BGPNode:
    """Read the annotations of `node`. Never raises: what cannot be read is None and named in `problems`."""
    annotations = node.metadata.annotations
    problems: list[str] = []

    def read(key: str, parse: Callable[[str], V]) -> V | None:
        text = annotations.get(key, "").strip()
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as error:
            problems.append(
                f"Node {node.metadata.name}: annotation {key} has the value {text!r} ({error}); "
                "calico-node writes it when it starts: remove the annotation and restart its pod there."
            )
            return None

    return BGPNode(
        name=node.metadata.name,
        ipv4=read(ANNOTATION_IPV4_ADDRESS, IPv4Interface),
        ipip_tunnel=read(ANNOTATION_IPIP_TUNNEL, IPv4Address),
        vxlan_tunnel=read(ANNOTATION_VXLAN_TUNNEL, IPv4Address),
        vxlan_mac=read(ANNOTATION_VXLAN_MAC, parse_mac),
        as_number=read(ANNOTATION_AS_NUMBER, parse_as_number),
        problems=tuple(problems),
    )
