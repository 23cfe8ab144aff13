"""How large a packet may be: pure arithmetic on the link's MTU. All numbers are bytes of IPv4 packet."""

from collections.abc import Iterable
from typing import Final

from tortie.model.constants import IPIP_OVERHEAD, VXLAN_OVERHEAD
from tortie.routing.pools import Pool, TunnelKind, tunnels_in_use

_OVERHEAD: Final[dict[TunnelKind, int]] = {"ipip": IPIP_OVERHEAD, "vxlan": VXLAN_OVERHEAD}
_NAMES: Final[dict[TunnelKind, str]] = {"ipip": "IP-in-IP", "vxlan": "VXLAN"}
# RFC 791: every host accepts datagrams of 576 octets; below it TCP over IPv4 suffers.
SMALLEST_MTU: Final = 576


class MTUError(ValueError):
    """The configured MTU does not fit; the message is a sentence for the operator."""


def pod_mtu(link_mtu: int, pools: Iterable[Pool], configured: int) -> int:
    """MTU of pods on a node whose link has `link_mtu`: `configured`, or when that is 0 the largest that fits
    every encapsulation in use. Raise MTUError when `configured` does not fit."""
    kinds = tunnels_in_use(pools)
    overhead = max((_OVERHEAD[kind] for kind in kinds), default=0)
    largest = link_mtu - overhead
    if configured == 0:
        return largest
    if configured > largest:
        reason = (
            f"the node's link has {link_mtu} and {' and '.join(_NAMES[kind] for kind in sorted(kinds))} "
            f"{'needs' if len(kinds) == 1 else 'need up to'} {overhead}"
            if kinds
            else f"the node's link has {link_mtu}"
        )
        raise MTUError(
            f"CNI_MTU is {configured}, but {reason}: set it to at most {largest}, to 0 (automatic), "
            "or raise the MTU of the link on every node."
        )
    if configured < SMALLEST_MTU:
        raise MTUError(f"CNI_MTU is {configured}; it must be 0 (automatic) or at least {SMALLEST_MTU}.")
    return configured


def tunnel_mtu(kind: TunnelKind, link_mtu: int, configured: int) -> int:
    """MTU of a tunnel device: `configured`, or when that is 0 what the link leaves."""
    return configured or link_mtu - _OVERHEAD[kind]
