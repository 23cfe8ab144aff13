"""Tunnel addresses come and go with the pools that need them."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from tortie.agent.startup import Identity
from tortie.agent.tunnels import TunnelAddresses
from tortie.datastore.memory import MemoryDatastore
from tortie.ipam.allocator import Allocator
from tortie.ipam.errors import NoAddressError
from tortie.ipam.request import AddressRequest
from tortie.model.names import tunnel_handle_id, vtep_mac
from tortie.model.nodeinfo import BGPNode
from tortie.model.resources import IPAMHandle, IPPool, IPPoolSpec, Metadata, Node
from tortie.routing.state import HostLink

OWN = BGPNode("n1", IPv4Interface("10.0.0.1/24"))
IDENTITY = Identity(OWN, HostLink("eth0", 2, 1500, IPv4Interface("10.0.0.1/24")))
PLAIN = IPPool(metadata=Metadata(name="a-plain"), spec=IPPoolSpec(cidr="10.4.0.0/16"))
VXLAN = IPPool(metadata=Metadata(name="b-vxlan"), spec=IPPoolSpec(cidr="10.5.0.0/16", vxlan_mode="Always"))
IPIP = IPPool(metadata=Metadata(name="c-ipip"), spec=IPPoolSpec(cidr="10.6.0.0/16", ipip_mode="CrossSubnet"))


async def cluster(*pools: IPPool) -> MemoryDatastore:
    store = MemoryDatastore()
    await store.create(Node(metadata=Metadata(name="n1", labels={"zone": "a"})))
    for pool in pools:
        await store.create(pool)
    return store


def addresses(store: MemoryDatastore) -> TunnelAddresses:
    return TunnelAddresses(store, Allocator(store, "n1"), IDENTITY)


async def test_address_comes_from_a_pool_of_the_tunnels_kind_and_is_announced() -> None:
    store = await cluster(PLAIN, VXLAN)
    tunnels = addresses(store)
    assert await tunnels.ensure(frozenset({"vxlan"}), [PLAIN, VXLAN])
    own = tunnels.own(OWN)
    assert own.vxlan_tunnel in IPv4Network("10.5.0.0/16")
    assert own.vxlan_mac == vtep_mac("n1")
    annotations = (await store.get(Node, "n1")).metadata.annotations
    assert annotations == {
        "projectcalico.org/IPv4VXLANTunnelAddr": str(own.vxlan_tunnel),
        "projectcalico.org/VXLANTunnelMACAddr": vtep_mac("n1"),
    }
    assert not await tunnels.ensure(frozenset({"vxlan"}), [PLAIN, VXLAN])


async def test_restarted_agent_keeps_its_address() -> None:
    store = await cluster(VXLAN)
    first = addresses(store)
    await first.ensure(frozenset({"vxlan"}), [VXLAN])
    second = addresses(store)
    await second.ensure(frozenset({"vxlan"}), [VXLAN])
    assert second.own(OWN) == first.own(OWN)


async def test_address_that_was_released_is_taken_again() -> None:
    store = await cluster(VXLAN)
    tunnels = addresses(store)
    await tunnels.ensure(frozenset({"vxlan"}), [VXLAN])
    held = tunnels.own(OWN).vxlan_tunnel
    assert held is not None
    await Allocator(store, "other").release_handle(tunnel_handle_id("vxlan", "n1"))
    tunnels.doubt()
    await tunnels.ensure(frozenset({"vxlan"}), [VXLAN])
    assert tunnels.own(OWN).vxlan_tunnel == held
    assert [handle.spec.handle_id for handle in (await store.list(IPAMHandle)).items] == [
        tunnel_handle_id("vxlan", "n1")
    ]


async def test_address_that_is_anothers_by_now_is_replaced() -> None:
    store = await cluster(VXLAN)
    tunnels, others = addresses(store), Allocator(store, "n1")
    await tunnels.ensure(frozenset({"vxlan"}), [VXLAN])
    held = tunnels.own(OWN).vxlan_tunnel
    assert held is not None
    await others.release_handle(tunnel_handle_id("vxlan", "n1"))
    await others.assign(AddressRequest("net.pod", {}, addresses=(held,)))
    tunnels.doubt()
    await tunnels.ensure(frozenset({"vxlan"}), [VXLAN])
    found = tunnels.own(OWN).vxlan_tunnel
    assert found not in (None, held)
    annotations = (await store.get(Node, "n1")).metadata.annotations
    assert annotations["projectcalico.org/IPv4VXLANTunnelAddr"] == str(found)


async def test_tunnel_that_no_pool_needs_any_more_gives_its_address_back() -> None:
    store = await cluster(VXLAN, IPIP)
    tunnels = addresses(store)
    await tunnels.ensure(frozenset({"vxlan", "ipip"}), [VXLAN, IPIP])
    assert tunnels.own(OWN).ipip_tunnel in IPv4Network("10.6.0.0/16")
    assert await tunnels.ensure(frozenset({"ipip"}), [IPIP])
    own = tunnels.own(OWN)
    assert (own.vxlan_tunnel, own.vxlan_mac) == (None, None)
    handles = [handle.metadata.name for handle in (await store.list(IPAMHandle)).items]
    assert handles == ["ipip-tunnel-addr-n1"]
    assert list((await store.get(Node, "n1")).metadata.annotations) == [
        "projectcalico.org/IPv4IPIPTunnelAddr"
    ]


async def test_ipv6_pool_gives_no_tunnel_address() -> None:
    six = IPPool(metadata=Metadata(name="a-six"), spec=IPPoolSpec(cidr="fd00:5::/48", vxlan_mode="Always"))
    store = await cluster(six, VXLAN)
    tunnels = addresses(store)
    assert await tunnels.ensure(frozenset({"vxlan"}), [six, VXLAN])
    assert tunnels.own(OWN).vxlan_tunnel in IPv4Network("10.5.0.0/16")


async def test_pool_that_does_not_select_the_node_gives_no_tunnel_address() -> None:
    spec = IPPoolSpec(cidr="10.5.0.0/16", vxlan_mode="Always", node_selector='zone == "b"')
    pool = IPPool(metadata=Metadata(name="elsewhere"), spec=spec)
    store = await cluster(pool)
    with pytest.raises(NoAddressError, match="elsewhere"):
        await addresses(store).ensure(frozenset({"vxlan"}), [pool])


def test_node_without_addresses_announces_none() -> None:
    store = MemoryDatastore()
    stale = BGPNode("n1", IPv4Interface("10.0.0.1/24"), vxlan_tunnel=IPv4Address("10.5.9.9"))
    assert addresses(store).own(stale).vxlan_tunnel is None
    assert set(addresses(store).annotations().values()) == {None}
