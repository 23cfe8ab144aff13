from ipaddress import IPv4Address, IPv4Interface

import pytest

from tortie.model.nodeinfo import BGPNode, parse_as_number, parse_mac, parse_node
from tortie.model.resources import Metadata, Node


def node_with(**annotations: str) -> Node:
    full = {f"projectcalico.org/{key}": value for key, value in annotations.items()}
    return Node(metadata=Metadata(name="n1", annotations=full))


def test_node_without_annotations_has_nothing_but_its_name() -> None:
    assert parse_node(node_with()) == BGPNode(name="n1")


def test_all_annotations_are_read() -> None:
    node = node_with(
        IPv4Address="10.30.200.1/24",
        IPv4IPIPTunnelAddr="10.5.0.1",
        IPv4VXLANTunnelAddr="10.5.0.2",
        VXLANTunnelMACAddr="66:AA:BB:CC:DD:EE",
        ASNumber="64512",
    )
    assert parse_node(node) == BGPNode(
        name="n1",
        ipv4=IPv4Interface("10.30.200.1/24"),
        ipip_tunnel=IPv4Address("10.5.0.1"),
        vxlan_tunnel=IPv4Address("10.5.0.2"),
        vxlan_mac="66:aa:bb:cc:dd:ee",
        as_number=64512,
    )


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("IPv4Address", "10.30.200.1/33", "ipv4"),
        ("IPv4Address", "fd00::1/64", "ipv4"),
        ("IPv4IPIPTunnelAddr", "10.5.0", "ipip_tunnel"),
        ("IPv4VXLANTunnelAddr", "10.5.0.2/32", "vxlan_tunnel"),
        ("VXLANTunnelMACAddr", "66:aa", "vxlan_mac"),
        ("ASNumber", "0", "as_number"),
        ("ASNumber", "many", "as_number"),
    ],
)
def test_invalid_annotation_leaves_its_field_empty_and_is_named(key: str, value: str, field: str) -> None:
    parsed = parse_node(node_with(**{key: value}))
    assert getattr(parsed, field) is None
    (problem,) = parsed.problems
    assert f"projectcalico.org/{key}" in problem
    assert value in problem
    assert "n1" in problem


def test_one_invalid_annotation_does_not_hide_the_others() -> None:
    parsed = parse_node(node_with(IPv4Address="nonsense", IPv4VXLANTunnelAddr="10.5.0.2"))
    assert parsed.vxlan_tunnel == IPv4Address("10.5.0.2")


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), ("64512", 64512), ("4294967295", 2**32 - 1), ("1.10", 65546)]
)
def test_as_number_is_plain_or_dotted(text: str, number: int) -> None:
    assert parse_as_number(text) == number


@pytest.mark.parametrize("text", ["0", "-1", "4294967296", "1.65536", "65536.1", "0.0", "", "1.2.3"])
def test_as_number_outside_its_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_as_number(text)


def test_mac_is_normalised() -> None:
    assert parse_mac("66-AA-BB-CC-DD-EE") == "66:aa:bb:cc:dd:ee"
