"""The node's own tunnel addresses: assigned when a pool needs the tunnel, released when none does."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from typing import Final

from tortie.agent.startup import Identity, annotate, get_node
from tortie.datastore.interface import Datastore
from tortie.ipam.allocator import Allocator
from tortie.ipam.errors import AddressError
from tortie.ipam.pools import select
from tortie.ipam.request import Address, AddressRequest
from tortie.model.constants import ANNOTATION_IPIP_TUNNEL, ANNOTATION_VXLAN_MAC, ANNOTATION_VXLAN_TUNNEL
from tortie.model.names import tunnel_handle_id, vtep_mac
from tortie.model.nodeinfo import BGPNode
from tortie.model.resources import IPPool, Node
from tortie.routing.pools import TunnelKind

log = logging.getLogger(__name__)

_KINDS: Final[tuple[TunnelKind, ...]] = ("ipip", "vxlan")
_ATTRIBUTE_TYPES: Final[dict[TunnelKind, str]] = {"ipip": "ipipTunnelAddress", "vxlan": "vxlanTunnelAddress"}


class TunnelAddresses:
    """Keeps the addresses of this node's tunnels and announces them in its annotations."""

    def __init__(self, datastore: Datastore, allocator: Allocator, identity: Identity) -> None:
        self._datastore = datastore
        self._allocator = allocator
        self._name = identity.node.name
        self._held: dict[TunnelKind, IPv4Address] = {}
        self._done: frozenset[TunnelKind] | None = None  # the kinds in use when `ensure` last succeeded

    def own(self, node: BGPNode) -> BGPNode:
        """`node` with what this agent knows for sure about its tunnels."""
        vxlan = self._held.get("vxlan")
        return replace(
            node,
            ipip_tunnel=self._held.get("ipip"),
            vxlan_tunnel=vxlan,
            vxlan_mac=vtep_mac(self._name) if vxlan else None,
        )

    def doubt(self) -> None:
        """Let the next `ensure` look whether the addresses are still ours. They are released when the Node is
        deleted, and whoever registers it again runs on; also when somebody releases them by hand."""
        self._done = None

    async def ensure(self, kinds: frozenset[TunnelKind], pools: Sequence[IPPool]) -> bool:
        """Hold exactly one address for each kind in use; return whether something changed.

        Raise NoAddressError or a DatastoreError; calling again continues where it failed.
        """
        if self._done == kinds:
            return False
        node = await get_node(self._datastore, self._name)
        for kind in _KINDS:
            if kind in kinds:
                self._held[kind] = await self._assign(kind, node, pools)
            else:
                self._held.pop(kind, None)
                await self._allocator.release_handle(tunnel_handle_id(kind, self._name))
        await annotate(self._datastore, node, self.annotations())
        self._done = kinds
        return True

    async def _assign(self, kind: TunnelKind, node: Node, pools: Sequence[IPPool]) -> IPv4Address:
        of_kind = [pool for pool in pools if _encapsulates(pool, kind)]
        names = {item.name for item in select(of_kind, "Tunnel", node.metadata.labels).eligible}
        request = AddressRequest(
            handle_id=tunnel_handle_id(kind, self._name),
            attributes={"node": self._name, "type": _ATTRIBUTE_TYPES[kind]},
            use="Tunnel",
            # None eligible: let the allocator choose among all pools, or explain why it cannot.
            pools=[pool.metadata.name for pool in of_kind if pool.metadata.name in names] or None,
        )
        held = self._held.get(kind)
        (address,) = await self._regain(request, held, of_kind) or await self._allocator.assign(request)
        assert isinstance(address, IPv4Address)
        if self._held.get(kind) != address:
            log.info("Tunnel address of %s: %s", kind, address)
        return address

    async def _regain(
        self, request: AddressRequest, held: IPv4Address | None, pools: Sequence[IPPool]
    ) -> Sequence[Address]:
        """The address that the tunnel has now: peers route to it. Nothing when it is another's by now."""
        if held is None or not any(held in ip_network(pool.spec.cidr) for pool in pools):
            return ()
        try:
            return await self._allocator.assign(replace(request, addresses=(held,)))
        except AddressError as error:
            log.warning("The tunnel's address %s is lost, another one follows: %s", held, error)
            return ()

    def annotations(self) -> dict[str, str | None]:
        """What the Node's annotations shall say about its tunnels; None for an absent one."""
        ipip, vxlan = self._held.get("ipip"), self._held.get("vxlan")
        return {
            ANNOTATION_IPIP_TUNNEL: str(ipip) if ipip else None,
            ANNOTATION_VXLAN_TUNNEL: str(vxlan) if vxlan else None,
            ANNOTATION_VXLAN_MAC: vtep_mac(self._name) if vxlan else None,
        }


def _encapsulates(pool: IPPool, kind: TunnelKind) -> bool:
    """Whether addresses of the pool can be of the tunnel; all tunnels are IPv4's."""
    if ":" in pool.spec.cidr:
        return False
    mode = pool.spec.ipip_mode if kind == "ipip" else pool.spec.vxlan_mode
    return mode != "Never"
