"""Attributes on the wire."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.dataplane import netlink, rtnetlink


@given(st.dictionaries(st.integers(1, 100), st.binary(max_size=40), max_size=8))
def test_attributes_are_read_as_they_were_written(values: dict[int, bytes]) -> None:
    wire = b"".join(netlink.attribute(kind, value) for kind, value in values.items())
    assert len(wire) % 4 == 0
    assert netlink.attributes(wire) == values


@given(st.binary(max_size=64))
def test_garbage_ends_the_reading_without_an_error(data: bytes) -> None:
    assert all(len(value) <= len(data) for value in netlink.attributes(data).values())


def test_nested_attributes_carry_the_flag_and_are_read_without_it() -> None:
    wire = netlink.nested(5, netlink.u32(1, 7), netlink.text(2, "veth"))
    assert wire[3] & 0x80
    inner = netlink.attributes(netlink.attributes(wire)[5])
    assert netlink.as_u32(inner[1]) == 7
    assert netlink.as_text(inner[2]) == "veth"


def test_an_error_says_what_was_tried_and_why_it_failed() -> None:
    error = netlink.NetlinkError(errno.EEXIST, "create veth cali1 with peer eth0", "name taken")
    assert str(error) == "create veth cali1 with peer eth0: EEXIST: File exists (name taken)"


def test_hardware_addresses_go_both_ways() -> None:
    assert rtnetlink.mac_text(rtnetlink.mac_bytes("ee:ee:ee:ee:ee:0a")) == "ee:ee:ee:ee:ee:0a"
    for bad in ("ee:ee", "", "ee:ee:ee:ee:ee:ee:ee", "xx:ee:ee:ee:ee:ee"):
        with pytest.raises(ValueError, match=r"\S"):
            rtnetlink.mac_bytes(bad)
