"""What ADD answers, in the shape of the configuration's version (CNI SPEC, section 5), and its reading."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

import msgspec

from tortie.cni.config import Request
from tortie.cni.errors import BAD_CONFIG, CNIError
from tortie.cni.netconf import interface_of
from tortie.dataplane.workload_link import DEFAULT_ROUTES, Address, Network, WorkloadEnds

# Up to these every address says its family.
_WITH_FAMILY = frozenset({"0.3.1", "0.4.0"})


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a container gets: addresses, IPv4 first, and where it sends to.

    Of each family at most one; only another IPAM plugin may give several."""

    addresses: tuple[Address, ...]
    routes: tuple[Network, ...] = DEFAULT_ROUTES
    dns: dict[str, Any] = field(default_factory=dict)


def host_prefix(address: Address) -> str:
    """The address as a network of its own: /32 or /128."""
    return f"{address}/{address.max_prefixlen}"


def render(request: Request, assignment: Assignment, ends: WorkloadEnds | None, mtu: int) -> bytes:
    """The answer to ADD as JSON. `ends` is None for an address plugin; `mtu` is in bytes."""
    version = request.config.cni_version
    ips: list[dict[str, Any]] = []
    for address in assignment.addresses:
        ip: dict[str, Any] = {"address": host_prefix(address)}
        if version in _WITH_FAMILY:
            ip["version"] = str(address.version)
        if ends is not None:
            ip["interface"] = 1
        ips.append(ip)
    answer: dict[str, Any] = {"cniVersion": version, "ips": ips, "dns": assignment.dns}
    if ends is not None:
        node: dict[str, Any] = {"name": ends.host_name, "mac": ends.host_mac}
        container: dict[str, Any] = {"name": request.ifname, "mac": ends.mac, "sandbox": request.netns}
        if version == "1.1.0":
            node["mtu"] = container["mtu"] = mtu
        answer["interfaces"] = [node, container]
    return msgspec.json.encode(answer) + b"\n"


def previous_addresses(request: Request) -> tuple[Address, ...]:
    """The addresses that ADD answered for this interface, from prevResult, IPv4 first. Raise CNIError."""
    previous = request.config.prev_result
    if previous is None or not previous.ips:
        raise CNIError(BAD_CONFIG, "CHECK needs prevResult with the address that ADD answered")
    ours = {number for number, item in enumerate(previous.interfaces) if item.name == request.ifname}
    found = [
        interface_of(item.address, "prevResult.ips").ip
        for item in previous.ips
        if not request.makes_interface or item.interface is None or item.interface in ours
    ]
    if not found:
        raise CNIError(BAD_CONFIG, f"prevResult has no address of interface {request.ifname}")
    return in_order(found)


def in_order(addresses: Sequence[Address]) -> tuple[Address, ...]:
    """IPv4 first."""
    return tuple(sorted(addresses, key=lambda address: not isinstance(address, IPv4Address)))
