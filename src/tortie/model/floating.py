"""Floating addresses, which lead to a pod that does not have them itself: what the annotation says."""

import json
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from tortie.model.constants import ANNOTATION_FLOATING

Address = IPv4Address | IPv6Address


class FloatingError(Exception):
    """The pod cannot have a floating address that it asks for: a sentence."""


def parse_floating(text: str) -> tuple[Address, ...]:
    """The addresses of the pod annotation `floatingIPs`, in its order. Raise FloatingError."""
    said = f"annotation {ANNOTATION_FLOATING} is {text!a}"
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise FloatingError(f'{said}; it must be a JSON list of addresses, for example ["192.0.2.9"]')
    found: list[Address] = []
    for value in values:
        try:
            address = ip_address(value)
        except ValueError as error:
            raise FloatingError(
                f"{said}; {value!a} is not an address: write it without prefix length"
            ) from error
        if isinstance(address, IPv6Address) and address.scope_id:
            raise FloatingError(f"{said}; {value!a} names a zone, which means nothing here: remove it")
        if address in found:
            raise FloatingError(f"{said}; {address} stands in it twice: remove one")
        if not is_routable(address):
            raise FloatingError(f"{said}; {address} cannot be routed to a pod: choose a unicast address")
        found.append(address)
    return tuple(found)


def is_routable(address: Address) -> bool:
    """Whether an address can belong to one machine and be reached from another."""
    return not (
        address.is_unspecified
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or (address.version == 4 and (address.is_reserved or int(address) >> 24 == 0))
        or (isinstance(address, IPv6Address) and address.ipv4_mapped is not None)
    )
