"""The plan: from any state of the kernel to the desired one, without touching what is not ours."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.dataplane.simulation import execute
from tortie.dataplane.links import (
    AddAddress,
    ConfigureLink,
    CreateIPIP,
    CreateVXLAN,
    DeleteAddress,
    DeleteLink,
)
from tortie.dataplane.masquerade import LoadedMasquerade, normal
from tortie.dataplane.plan import KernelState, plan
from tortie.dataplane.routes import DeleteRoute, SetRoute, is_ours
from tortie.dataplane.rtnetlink import (
    FORWARDING,
    RP_FILTER,
    RT_SCOPE_LINK,
    RTN_BLACKHOLE,
    Address,
    ForwardingEntry,
    KernelRoute,
    Link,
    Neighbour,
    VXLANAttributes,
)
from tortie.model.constants import RTPROT_BIRD, RTPROT_TORTIE
from tortie.routing.state import IPIPTunnel, Masquerade, NodeState, Route, VXLANPeer, VXLANTunnel

UPLINK = Link(index=2, name="eth0", mtu=1500, up=True)
POD = Link(index=3, name="cali0123456789a", mtu=1440, up=True, kind="veth")
TUNNEL = VXLANTunnel(IPv4Address("10.5.0.0"), "66:00:00:00:00:01", 1450, "eth0", IPv4Address("10.30.200.1"))
CONF = {FORWARDING: 1, RP_FILTER: 2}
VXLAN = Link(
    index=5,
    name="vxlan.calico",
    mtu=1450,
    up=True,
    mac=TUNNEL.mac,
    kind="vxlan",
    vxlan=VXLANAttributes(4096, 4789, IPv4Address("10.30.200.1"), 2, False),
    conf=CONF,
)
IPIP = Link(index=6, name="tunl0", mtu=1480, up=True, kind="ipip", conf=CONF)
PEER = VXLANPeer(IPv4Address("10.5.0.64"), "66:00:00:00:00:02", IPv4Address("10.30.200.2"))
BLOCK = IPv4Network("10.5.0.64/26")
ROUTE = Route(BLOCK, "vxlan.calico", IPv4Address("10.5.0.64"), onlink=True, source=TUNNEL.address)


def kernel(*links: Link) -> KernelState:
    return KernelState(links={link.name: link for link in (UPLINK, POD, *links)})


def converged_vxlan() -> KernelState:
    return replace(
        kernel(VXLAN),
        addresses=(Address(5, IPv4Interface("10.5.0.0/32")),),
        neighbours=(Neighbour(5, PEER.address, PEER.mac),),
        forwarding=(ForwardingEntry(5, PEER.mac, PEER.node),),
        routes=(
            KernelRoute(
                BLOCK, 5, IPv4Address("10.5.0.64"), RTPROT_TORTIE, onlink=True, source=TUNNEL.address
            ),
        ),
    )


WANTED = NodeState(vxlan=TUNNEL, routes=frozenset({ROUTE}), vxlan_peers=frozenset({PEER}))


def test_nothing_to_do_when_the_kernel_is_as_desired() -> None:
    assert not plan(converged_vxlan(), WANTED)


def test_an_empty_node_gets_device_then_entries_then_routes() -> None:
    steps = plan(kernel(), WANTED)
    assert [type(step) for step in steps.devices] == [CreateVXLAN, ConfigureLink, AddAddress]
    assert len(steps.entries) == 2
    assert steps.routes == (SetRoute(ROUTE, replace=False),)
    assert steps.removals == ()


def test_a_vxlan_device_with_another_vni_port_parent_local_mac_or_learning_is_replaced() -> None:
    settings = VXLAN.vxlan
    assert settings is not None
    for wrong in (
        replace(settings, vni=1),
        replace(settings, port=8472),
        replace(settings, parent=99),
        replace(settings, local=IPv4Address("10.30.200.9")),
        replace(settings, learning=True),
    ):
        steps = plan(
            replace(converged_vxlan(), links={"eth0": UPLINK, "vxlan.calico": replace(VXLAN, vxlan=wrong)}),
            WANTED,
        )
        assert steps.devices[:2] == (DeleteLink("vxlan.calico"), CreateVXLAN(TUNNEL))
        assert steps.routes == (SetRoute(ROUTE, replace=False),)  # the old one went with the device
        assert len(steps.entries) == 2
    other_mac = replace(VXLAN, mac="66:00:00:00:00:99")
    steps = plan(replace(converged_vxlan(), links={"eth0": UPLINK, "vxlan.calico": other_mac}), WANTED)
    assert steps.devices[0] == DeleteLink("vxlan.calico")


def test_mtu_and_state_of_a_vxlan_device_are_changed_in_place() -> None:
    bent = replace(VXLAN, mtu=1400, up=False)
    steps = plan(replace(converged_vxlan(), links={"eth0": UPLINK, "vxlan.calico": bent}), WANTED)
    assert steps.devices == (ConfigureLink("vxlan.calico", mtu=1450, up=True),)


def test_a_vxlan_device_that_is_not_desired_is_deleted_after_everything_else() -> None:
    steps = plan(converged_vxlan(), NodeState())
    assert steps.removals == (DeleteLink("vxlan.calico"),)
    assert steps.entries == ()
    assert [type(step) for step in steps.routes] == [DeleteRoute]


def test_a_route_takes_the_place_of_one_on_a_device_that_is_deleted_later() -> None:
    plain = Route(BLOCK, "eth0", IPv4Address("10.30.200.2"))
    assert plan(converged_vxlan(), NodeState(routes=frozenset({plain}))).routes == (
        SetRoute(plain, replace=True),
    )


def test_tunl0_is_made_configured_and_addressed() -> None:
    wanted = NodeState(ipip=IPIPTunnel(IPv4Address("10.5.0.1"), 1480))
    steps = plan(kernel(), wanted)
    assert steps.devices == (
        CreateIPIP(),
        ConfigureLink("tunl0", 1480, True, ((FORWARDING, 1), (RP_FILTER, 2))),
        AddAddress("tunl0", IPv4Interface("10.5.0.1/32")),
    )


def test_tunl0_keeps_one_address_only() -> None:
    old = Address(6, IPv4Interface("10.5.0.9/32"))
    wanted = NodeState(ipip=IPIPTunnel(IPv4Address("10.5.0.1"), 1480))
    steps = plan(replace(kernel(IPIP), addresses=(old,)), wanted)
    assert steps.devices == (AddAddress("tunl0", IPv4Interface("10.5.0.1/32")),)
    assert steps.removals == (DeleteAddress("tunl0", IPv4Interface("10.5.0.9/32")),)


def test_tunl0_is_emptied_and_set_down_but_not_deleted_when_it_is_not_desired() -> None:
    held = Address(6, IPv4Interface("10.5.0.1/32"))
    steps = plan(replace(kernel(IPIP), addresses=(held,)), NodeState())
    assert steps.removals == (
        DeleteAddress("tunl0", IPv4Interface("10.5.0.1/32")),
        ConfigureLink("tunl0", up=False),
    )
    idle = replace(IPIP, up=False)
    assert not plan(kernel(idle), NodeState())


def test_a_wrong_route_of_ours_is_replaced_and_a_stale_one_removed() -> None:
    wrong = KernelRoute(BLOCK, 2, IPv4Address("10.30.200.9"), RTPROT_TORTIE)
    stale = KernelRoute(IPv4Network("10.5.0.128/26"), protocol=RTPROT_TORTIE, type=RTN_BLACKHOLE)
    steps = plan(replace(converged_vxlan(), routes=(wrong, stale)), WANTED)
    assert steps.routes == (SetRoute(ROUTE, replace=True), DeleteRoute(stale, ""))


def test_a_route_of_bird_in_our_routes_place_is_replaced_without_a_gap() -> None:
    birds = KernelRoute(BLOCK, 2, IPv4Address("10.30.200.9"), RTPROT_BIRD)
    steps = plan(replace(converged_vxlan(), routes=(birds,)), WANTED)
    assert steps.routes == (SetRoute(ROUTE, replace=True),)


def test_routes_of_bird_and_of_pods_and_of_others_stay() -> None:
    for protocol, index in ((RTPROT_BIRD, 5), (RTPROT_BIRD, 2), (RTPROT_TORTIE, 3), (4, 2), (2, 5)):
        foreign = KernelRoute(IPv4Network("10.5.9.0/26"), index, protocol=protocol, scope=RT_SCOPE_LINK)
        state = converged_vxlan()
        assert not plan(replace(state, routes=(*state.routes, foreign)), WANTED), (protocol, index)


def test_a_stranger_on_vxlan_calico_is_removed() -> None:
    state = converged_vxlan()
    stranger = KernelRoute(IPv4Network("10.5.9.0/26"), 5, protocol=4, scope=RT_SCOPE_LINK)
    assert plan(replace(state, routes=(*state.routes, stranger)), WANTED).routes == (
        DeleteRoute(stranger, "vxlan.calico"),
    )


def test_a_peer_that_moved_to_another_node_gets_its_forwarding_entry_replaced() -> None:
    moved = replace(PEER, node=IPv4Address("10.30.200.7"))
    steps = plan(converged_vxlan(), replace(WANTED, vxlan_peers=frozenset({moved})))
    assert [str(step) for step in steps.entries] == [
        "set forwarding of 66:00:00:00:00:02 to 10.30.200.7 on vxlan.calico"
    ]
    assert steps.removals == ()


def test_a_learned_entry_is_made_permanent() -> None:
    state = replace(converged_vxlan(), neighbours=(Neighbour(5, PEER.address, PEER.mac, permanent=False),))
    assert len(plan(state, WANTED).entries) == 1


def test_forwarding_is_switched_on_when_it_is_off() -> None:
    assert plan(replace(kernel(), ip_forward=False), NodeState()).changes() == [
        "set net.ipv4.ip_forward to 1"
    ]


def test_every_change_reads_as_a_sentence_of_its_own() -> None:
    changes = plan(replace(kernel(IPIP), ip_forward=False), WANTED).changes()
    assert len(changes) == len(set(changes)) >= 8
    assert all("object at" not in change for change in changes)


# --- property: the plan, carried out, leads to the desired state, and to nothing else -----------------------

blocks = st.integers(0, 15).map(lambda number: IPv4Network((0x0A050000 + 64 * number, 26)))
gateways = st.integers(1, 4).map(lambda number: IPv4Address(0x0A1EC800 + number))
macs = st.integers(1, 4).map(lambda number: f"66:00:00:00:00:{number:02x}")


@st.composite
def desired_states(draw: st.DrawFn) -> NodeState:
    vxlan = draw(st.none() | st.builds(replace, st.just(TUNNEL), mtu=st.sampled_from([1450, 1400]), mac=macs))
    ipip = draw(st.none() | st.builds(IPIPTunnel, gateways, st.sampled_from([1480, 1440])))
    routes: dict[IPv4Network, Route] = {}
    for block in draw(st.lists(blocks, max_size=6)):
        devices = ["eth0"] + (["vxlan.calico"] if vxlan else [])
        unicast = st.builds(Route, st.just(block), st.sampled_from(devices), gateways, st.booleans())
        routes[block] = draw(unicast | st.just(Route(block, kind="blackhole")))
    peers = {
        peer.mac: peer for peer in draw(st.lists(st.builds(VXLANPeer, gateways, macs, gateways), max_size=4))
    }
    unique = {peer.address: peer for peer in peers.values()}
    pools = draw(st.frozensets(blocks, max_size=3))
    return NodeState(
        ipip=ipip,
        vxlan=vxlan,
        routes=frozenset(routes.values()),
        vxlan_peers=frozenset(unique.values()) if vxlan else frozenset(),
        masquerade=Masquerade(draw(st.frozensets(blocks, max_size=2)), pools),
    )


@st.composite
def kernel_states(draw: st.DrawFn) -> KernelState:
    links = {"eth0": UPLINK, POD.name: POD}
    addresses = [Address(2, IPv4Interface("10.30.200.1/24"))]
    indexes = [2, 3]
    for link in (VXLAN, IPIP):
        if draw(st.booleans()):
            links[link.name] = replace(
                link,
                mtu=draw(st.sampled_from([1450, 1480, 1400])),
                up=draw(st.booleans()),
                mac=draw(macs) if link is VXLAN else "",
                conf=draw(st.sampled_from([CONF, {}])),
            )
            indexes.append(link.index)
            addresses += [Address(link.index, IPv4Interface((held, 32))) for held in draw(st.sets(gateways))]
    route = st.builds(
        KernelRoute,
        blocks,
        st.sampled_from(indexes),
        gateways,
        st.sampled_from([RTPROT_TORTIE, RTPROT_BIRD, 4]),
        priority=st.sampled_from([0, 0, 32]),
        onlink=st.booleans(),
    )
    routes = draw(st.lists(route, max_size=8, unique_by=lambda item: (item.destination, item.priority)))
    entries = "vxlan.calico" in links
    return KernelState(
        links=links,
        addresses=tuple(addresses),
        routes=tuple(routes),
        neighbours=tuple(
            draw(
                st.lists(
                    st.builds(Neighbour, st.just(5), gateways, macs, st.booleans()),
                    max_size=4,
                    unique_by=lambda item: item.address,
                )
            )
        )
        if entries
        else (),
        forwarding=tuple(
            draw(
                st.lists(
                    st.builds(ForwardingEntry, st.just(5), macs, gateways, st.booleans()),
                    max_size=4,
                    unique_by=lambda item: (item.mac, item.destination),
                )
            )
        )
        if entries
        else (),
        ip_forward=draw(st.booleans()),
        masquerade=LoadedMasquerade(
            draw(st.just(True)), draw(st.none() | st.just(Masquerade(frozenset({BLOCK}), frozenset())))
        ),
    )


def foreign_routes(state: KernelState) -> set[KernelRoute]:
    names = {link.index: link.name for link in state.links.values()}
    return {route for route in state.routes if not is_ours(route, names.get(route.index, ""))}


@given(kernel_states(), desired_states())
def test_carrying_out_the_plan_reaches_the_desired_state(current: KernelState, desired: NodeState) -> None:
    taken = {route.destination for route in foreign_routes(current) if not route.priority}
    wanted = replace(
        desired, routes=frozenset(route for route in desired.routes if route.destination not in taken)
    )
    # A second pass may be needed where the kernel holds two entries in one place, as apply allows for.
    state = current
    for _ in range(3):
        steps = plan(state, wanted)
        if not steps:
            break
        state = execute(state, steps)
    assert plan(state, wanted).changes() == []
    assert state.masquerade.content == (normal(wanted.masquerade) if wanted.masquerade.sources else None)
    assert state.ip_forward
    assert ("vxlan.calico" in state.links) == (wanted.vxlan is not None)
    # What goes with a device that is deleted or set down is all that others may lose.
    survivors = {link.index for link in state.links.values() if link.up}
    assert {route for route in foreign_routes(current) if route.index in survivors} <= set(state.routes)


@given(kernel_states(), desired_states())
def test_the_uplink_and_pods_devices_are_never_touched(current: KernelState, desired: NodeState) -> None:
    state = execute(current, plan(current, desired)) if not _collides(current, desired) else current
    assert state.links["eth0"] == UPLINK
    assert state.links[POD.name] == POD
    assert Address(2, IPv4Interface("10.30.200.1/24")) in state.addresses


def _collides(current: KernelState, desired: NodeState) -> bool:
    taken = {route.destination for route in foreign_routes(current) if not route.priority}
    return any(route.destination in taken for route in desired.routes)
