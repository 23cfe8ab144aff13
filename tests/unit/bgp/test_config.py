"""The BIRD configuration, read back as what it means."""

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.bgp.config import BirdConfig, MeshPeer, listens_only, protocol_name, render
from tortie.routing.pools import Pool


@dataclass(frozen=True)
class Session:
    """One BGP protocol of the file."""

    address: str
    port: int
    as_number: int
    passive: bool


def sessions(text: str) -> dict[str, Session]:
    """BGP protocols by name."""
    found = re.finditer(r"^protocol bgp (\w+) from mesh \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    result = {}
    for match in found:
        neighbor = re.search(r"neighbor (\S+) port (\d+) as (\d+);", match[2])
        assert neighbor
        result[match[1]] = Session(neighbor[1], int(neighbor[2]), int(neighbor[3]), "passive on;" in match[2])
    return result


def filter_lines(text: str, name: str) -> list[str]:
    """The statements of a filter."""
    match = re.search(rf"^filter {name} \{{\n(.*?)^\}}", text, re.MULTILINE | re.DOTALL)
    assert match
    return [line.strip() for line in match[1].splitlines()]


def blackholes(text: str) -> list[str]:
    """The blocks that are announced."""
    return re.findall(r"^  route (\S+) blackhole;", text, re.MULTILINE)


N = IPv4Network
TUNNEL = 'ifname = "tunl0"; onlink = true; gw = bgp_next_hop; accept;'
BASE = BirdConfig(
    address=IPv4Interface("10.0.0.10/24"),
    pools=frozenset({Pool(N("10.5.0.0/16"), ipip="Always")}),
    blocks=frozenset({N("10.5.1.0/26")}),
    peers=frozenset({MeshPeer(IPv4Address("10.0.0.9")), MeshPeer(IPv4Address("10.0.0.11"), 65001)}),
)


def test_mesh_has_one_session_per_peer_named_after_its_address() -> None:
    assert sessions(render(BASE)) == {
        "Mesh_10_0_0_9": Session("10.0.0.9", 179, 64512, passive=True),
        "Mesh_10_0_0_11": Session("10.0.0.11", 179, 65001, passive=True),
    }


@pytest.mark.parametrize(
    ("own", "peer", "passive"),
    [
        ("10.0.0.10", "10.0.0.9", True),  # "10.0.0.9" > "10.0.0.10" as strings, though not as numbers
        ("10.0.0.9", "10.0.0.10", False),
        ("10.30.200.1", "10.30.200.2", True),
        ("10.30.200.2", "10.30.200.1", False),
    ],
)
def test_the_lower_address_in_string_order_waits_to_be_called(own: str, peer: str, passive: bool) -> None:
    assert listens_only(IPv4Address(own), IPv4Address(peer)) is passive


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_exactly_one_side_of_a_session_calls(one: IPv4Address, other: IPv4Address) -> None:
    if one != other:
        assert listens_only(one, other) is not listens_only(other, one)


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_protocol_names_are_unique_symbols(one: IPv4Address, other: IPv4Address) -> None:
    assert re.fullmatch(r"Mesh_[0-9_]+", protocol_name(one))
    assert (protocol_name(one) == protocol_name(other)) is (one == other)


def test_own_as_and_port_stand_in_the_template() -> None:
    text = render(replace(BASE, as_number=65010, port=1790))
    assert "local 10.0.0.10 port 1790 as 65010;" in text
    assert {session.port for session in sessions(text).values()} == {1790}
    assert "router id 10.0.0.10;" in text


def test_kernel_routes_get_no_metric() -> None:
    kernel = render(BASE).partition("protocol kernel {")[2].partition("ipv4 {")[0]
    assert "metric 0;" in [line.strip() for line in kernel.splitlines()]


def test_ipip_route_gets_interface_then_onlink_then_gateway() -> None:
    assert filter_lines(render(BASE), "kernel_export") == [
        "if source != RTS_BGP then reject;",
        f"if net ~ [ 10.5.0.0/16+ ] then {{ {TUNNEL} }}",
        "reject;",
    ]


def test_cross_subnet_accepts_next_hops_of_the_own_subnet_as_they_are() -> None:
    text = render(replace(BASE, pools=frozenset({Pool(N("10.5.0.0/16"), ipip="CrossSubnet")})))
    assert filter_lines(text, "kernel_export")[1] == (
        f"if net ~ [ 10.5.0.0/16+ ] then {{ if bgp_next_hop ~ 10.0.0.0/24 then accept; {TUNNEL} }}"
    )


def test_vxlan_blocks_are_announced_but_not_written_to_the_kernel() -> None:
    text = render(replace(BASE, pools=frozenset({Pool(N("10.5.0.0/16"), vxlan="CrossSubnet")})))
    assert filter_lines(text, "kernel_export")[1] == "if net ~ [ 10.5.0.0/16+ ] then reject;"
    assert blackholes(text) == ["10.5.1.0/26"]


def test_unencapsulated_routes_are_taken_as_they_are() -> None:
    text = render(replace(BASE, pools=frozenset({Pool(N("10.5.0.0/16"))})))
    assert filter_lines(text, "kernel_export")[1] == "if net ~ [ 10.5.0.0/16+ ] then accept;"


def test_more_specific_pool_is_asked_first() -> None:
    pools = frozenset({Pool(N("10.0.0.0/8")), Pool(N("10.5.0.0/16"), vxlan="Always")})
    lines = filter_lines(render(replace(BASE, pools=pools)), "kernel_export")
    assert lines[1:3] == [
        "if net ~ [ 10.5.0.0/16+ ] then reject;",
        "if net ~ [ 10.0.0.0/8+ ] then accept;",
    ]


def test_blocks_of_pools_without_export_and_of_no_pool_are_not_announced() -> None:
    pools = frozenset({Pool(N("10.5.0.0/16")), Pool(N("10.6.0.0/16"), bgp_export=False)})
    blocks = frozenset({N("10.5.1.0/26"), N("10.6.1.0/26"), N("10.7.1.0/26")})
    assert blackholes(render(replace(BASE, pools=pools, blocks=blocks))) == ["10.5.1.0/26"]


def test_own_blocks_and_pods_outside_of_them_are_exported_and_only_pool_addresses_imported() -> None:
    text = render(BASE)
    assert filter_lines(text, "mesh_export") == [
        'if proto = "own_blocks" then accept;',
        "if source = RTS_INHERIT && preference = 210 then accept;",
        "reject;",
    ]
    assert filter_lines(text, "mesh_import") == ["if net ~ [ 10.5.0.0/16+ ] then accept;", "reject;"]


def test_pods_outside_the_own_blocks_are_taken_from_the_kernel_where_their_pool_lets_them() -> None:
    pools = frozenset({Pool(N("10.0.0.0/8")), Pool(N("10.6.0.0/16"), bgp_export=False)})
    assert filter_lines(render(replace(BASE, pools=pools)), "kernel_import") == [
        'if ifname ~ "cali*" && net.len = 32 && !(net ~ [ 10.5.1.0/26+ ]) then {',
        "if net ~ [ 10.6.0.0/16+ ] then reject;",
        "if net ~ [ 10.0.0.0/8+ ] then { preference = 210; accept; }",
        "}",
        "if net ~ [ 10.6.0.0/16+, 10.0.0.0/8+ ] then reject;",
        "accept;",
    ]
    lines = filter_lines(render(replace(BASE, blocks=frozenset())), "kernel_import")
    assert lines[0] == 'if ifname ~ "cali*" && net.len = 32 then {'


def test_tunnel_address_is_announced_alone_only_when_no_own_block_has_it() -> None:
    tunnels = frozenset({IPv4Address("10.5.1.7"), IPv4Address("10.5.9.7"), IPv4Address("10.99.0.1")})
    assert blackholes(render(replace(BASE, tunnels=tunnels))) == ["10.5.1.0/26", "10.5.9.7/32"]


def test_without_pools_no_empty_prefix_set_is_written() -> None:
    text = render(replace(BASE, pools=frozenset(), peers=frozenset()))
    assert "[ " not in text
    assert sessions(text) == {}
    assert blackholes(text) == []
