"""Which of its addresses a node speaks to its peers with: a pure choice among the links of the host."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final, Literal, get_args

from tortie.dataplane.apply import HostInterface
from tortie.routing.state import HostLink

MethodKind = Literal[
    "first-found", "kubernetes-internal-ip", "interface", "skip-interface", "cidr", "can-reach"
]

# Links of container runtimes, of pod networks and of virtual machines: never a node's own.
_NOT_THE_NODES: Final = re.compile(
    "docker|cbr|dummy|podman|virbr|lxcbr|veth|lo|br-|cali|tunl|flannel|kube-ipvs|cni|"
    r"vxlan\.calico|vxlan-v6\.calico|wireguard\.cali|wg-v6\.cali|nodelocaldns"
)


class DetectionError(Exception):
    """No address qualifies; the message lists each candidate and why it was rejected."""


@dataclass(frozen=True, slots=True)
class Method:
    """IP_AUTODETECTION_METHOD. `values` are regular expressions, networks, or one host."""

    kind: MethodKind
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}={','.join(self.values)}" if self.values else self.kind


def parse_method(text: str) -> Method:
    """Parse and check IP_AUTODETECTION_METHOD. Raise ValueError with the reason."""
    kind, equals, rest = text.strip().partition("=")
    if kind not in get_args(MethodKind):
        raise ValueError(f"{kind!r} is no method")
    method = Method(_kind(kind), tuple(item.strip() for item in rest.split(",") if item.strip()))
    if kind in ("first-found", "kubernetes-internal-ip"):
        if equals:
            raise ValueError(f"{kind} takes no value")
        return method
    if not method.values:
        raise ValueError(f"{kind}= needs a value")
    if kind == "can-reach" and len(method.values) != 1:
        raise ValueError("can-reach= takes one host")
    for value in method.values:
        if kind in ("interface", "skip-interface"):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{value!r} is not a regular expression: {error}") from error
        if kind == "cidr":
            IPv4Network(value)
    return method


def _kind(text: str) -> MethodKind:
    return next(kind for kind in get_args(MethodKind) if kind == text)


def choose(
    method: Method,
    interfaces: Sequence[HostInterface],
    internal_ips: Sequence[IPv4Address] = (),
    source: IPv4Address | None = None,
) -> HostLink:
    """The first address (in the kernel's order) that qualifies; raise DetectionError when none does.

    `internal_ips` are the node's InternalIP addresses (kubernetes-internal-ip); `source` is the address that
    packets to the host of can-reach leave with. A link whose whole name matches `interface=` goes before one
    that matches in part, and an address with a subnet before a /32, which is rather a virtual one.
    """
    rejected: list[str] = []
    accepted: list[HostLink] = []
    for interface in sorted(interfaces, key=lambda interface: interface.index):
        reason = _reason_against_link(method, interface)
        if reason:
            rejected.append(f"{interface.name} ({reason})")
            continue
        for address in interface.addresses:
            reason = _reason_against_address(method, address.ip, internal_ips, source)
            if reason:
                rejected.append(f"{interface.name} {address} ({reason})")
            else:
                accepted.append(HostLink(interface.name, interface.index, interface.mtu, address))
    if not accepted:
        raise DetectionError(
            f"IP_AUTODETECTION_METHOD {method} finds no address of this node. Looked at: "
            f"{'; '.join(rejected) or 'nothing, there is no link'}. "
            "Choose another method, or set IP to the node's address."
        )
    return min(
        accepted,
        key=lambda link: (not _named_in_full(method, link.name), link.address.network.prefixlen == 32),
    )


def link_with_address(wanted: IPv4Interface, interfaces: Sequence[HostInterface]) -> HostLink:
    """The link that carries the address given by IP; raise DetectionError when none does."""
    for interface in interfaces:
        for address in interface.addresses:
            if address.ip == wanted.ip:
                return HostLink(interface.name, interface.index, interface.mtu, address)
    have = [f"{interface.name} {address}" for interface in interfaces for address in interface.addresses]
    raise DetectionError(
        f"IP is {wanted.ip}, but no link of this node has that address; it has {', '.join(have) or 'none'}. "
        "Set IP to one of them, or to autodetect."
    )


def _named_in_full(method: Method, name: str) -> bool:
    return method.kind == "interface" and any(re.fullmatch(value, name) for value in method.values)


def _matches(method: Method, name: str) -> bool:
    return any(re.search(value, name) for value in method.values)


def _reason_against_link(method: Method, interface: HostInterface) -> str:
    """Why none of this link's addresses qualifies; empty when one may."""
    patterns = " or ".join(method.values)
    if method.kind == "interface" and not _matches(method, interface.name):
        return f"its name does not match {patterns}"
    if method.kind == "skip-interface" and _matches(method, interface.name):
        return f"its name matches {patterns}"
    if method.kind in ("first-found", "skip-interface", "cidr") and _NOT_THE_NODES.match(interface.name):
        return "its name is one of container, pod or virtual machine networks"
    if not interface.up:
        return "it is down"
    return "" if interface.addresses else "it has no IPv4 address"


def _reason_against_address(
    method: Method, address: IPv4Address, internal_ips: Sequence[IPv4Address], source: IPv4Address | None
) -> str:
    """Why this address does not qualify; empty when it does."""
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        return "peers cannot reach such an address"
    if method.kind == "kubernetes-internal-ip" and address not in internal_ips:
        expected = ", ".join(str(ip) for ip in internal_ips) or "none is set yet"
        return f"not the node's InternalIP: {expected}"
    if method.kind == "can-reach" and address != source:
        leaves = f"packets to {method.values[0]} leave with {source}"
        return leaves if source else f"there is no route to {method.values[0]}"
    if method.kind == "cidr" and not any(address in IPv4Network(value) for value in method.values):
        return f"not within {' or '.join(method.values)}"
    return ""
