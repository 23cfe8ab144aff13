"""Messages of netfilter on the wire. The expected bytes are written out by hand from linux/netfilter/*.h."""

import errno
from ipaddress import IPv4Address

import pytest

from tortie.dataplane import conntrack, nfnetlink, nfnetlink_dumps, nfnetlink_objects
from tortie.dataplane import nfnetlink_expressions as nft
from tortie.dataplane.netlink import NetlinkError
from tortie.dataplane.nfnetlink import TransactionError
from tortie.dataplane.nfnetlink_objects import Element, Hook, SetType


def wire(*parts: str) -> bytes:
    """Bytes from hexadecimal text; spaces separate fields."""
    return bytes.fromhex("".join(parts).replace(" ", ""))


def test_numbers_are_in_network_order_and_padded_to_four_bytes() -> None:
    assert nfnetlink.be32(3, 0x01020304) == wire("0800 0300 01020304")
    assert nfnetlink.be32(3, -3) == wire("0800 0300 fffffffd")
    assert nfnetlink.be64(1, 10) == wire("0c00 0100 000000000000000a")
    assert nfnetlink.block(2, nfnetlink.be32(1, 1)) == wire("0c00 0200 0800 0100 00000001")


def test_a_load_and_a_comparison_are_the_kernels_expressions() -> None:
    # meta: NFTA_META_KEY 15 (nfproto), NFTA_META_DREG 1
    assert nft.meta(nft.NFT_META_NFPROTO) == wire(
        "2400 0100", "0900 0100 6d657461 00000000", "1400 0200", "0800 0200 0000000f", "0800 0100 00000001"
    )
    # cmp: NFTA_CMP_SREG 1, NFTA_CMP_OP 0 (equal), NFTA_CMP_DATA {NFTA_DATA_VALUE 02}
    assert nft.compare(b"\x02") == wire(
        "2c00 0100",
        "0800 0100 636d7000",
        "2000 0200",
        "0800 0100 00000001",
        "0800 0200 00000000",
        "0c00 0300 0500 0100 02000000",
    )


def test_verdicts_carry_code_and_chain() -> None:
    assert nft.verdict(nft.NF_ACCEPT) == wire(
        "3000 0100",
        "0e00 0100 696d6d656469617465000000",
        "1c00 0200",
        "0800 0100 00000000",
        "1000 0200 0c00 0200 0800 0100 00000001",
    )
    assert nft.jump("ab")[-24:] == wire("1800 0200", "1400 0200", "0800 0100 fffffffd", "0700 0200 61620000")


def test_an_expression_without_parameters_has_no_data() -> None:
    assert nft.notrack() == wire("1000 0100", "0c00 0100 6e6f747261636b00")


def test_a_verdict_map_is_made_with_its_key_and_data_types() -> None:
    message = nfnetlink_objects.new_set("t", "m", SetType(((41, 16),), verdicts=True))
    assert message.type == 10 << 8 | 9  # NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWSET
    assert message.body == wire(
        "01 00 0000",
        "0600 0100 74000000",
        "0600 0200 6d000000",
        "0800 0300 00000008",
        "0800 0400 00000029",
        "0800 0500 00000010",
        "0800 0600 ffffff00",
        "0800 0a00 00000001",
        "0a00 0d00 00 04 01000000 0000",
    )


def test_keys_of_several_fields_are_padded_and_typed_as_nft_does() -> None:
    kind = SetType(((7, 4), (12, 1), (13, 2)))
    assert kind.key_length == 12
    assert kind.key_type == (7 << 6 | 12) << 6 | 13
    assert SetType(((13, 2),)).key_length == 2


def test_a_range_is_its_first_key_and_a_mark_behind_its_last() -> None:
    (message,) = nfnetlink_objects.add_elements("t", "s", {Element(b"\x00\x50", b"\x00\x51")})
    assert message.body.endswith(
        wire(
            "2800 0300",
            "1000 0100 0c00 0100 0600 0100 00500000",
            "1800 0100 0800 0300 00000001 0c00 0100 0600 0100 00520000",
        )[4:]
    )
    # Nothing is behind the highest key.
    (last,) = nfnetlink_objects.add_elements("t", "s", {Element(b"\xff\x00", b"\xff\xff")})
    assert last.body.endswith(wire("1400 0300", "1000 0100 0c00 0100 0600 0100 ff000000"))


def test_long_lists_of_elements_are_split_below_the_length_of_an_attribute() -> None:
    members = {Element(number.to_bytes(4, "big")) for number in range(10000)}
    messages = list(nfnetlink_objects.add_elements("t", "s", members))
    assert len(messages) > 1
    assert all(len(message.body) < 1 << 16 for message in messages)
    assert sum(message.body.count(wire("0800 0100")) for message in messages) >= 10000


def test_a_base_chain_has_hook_priority_policy_and_type() -> None:
    message = nfnetlink_objects.new_base_chain("t", "c", Hook(2, -10))
    assert message.body == wire(
        "01 00 0000",
        "0600 0100 74000000",
        "0600 0300 63000000",
        "1400 0400 0800 0100 00000002 0800 0200 fffffff6",
        "0800 0500 00000001",
        "0b00 0700 66696c74657200 00",
    )


def test_rules_are_the_same_whatever_the_order_of_their_attributes() -> None:
    ours = nft.meta(nft.NFT_META_MARK) + nft.verdict(nft.NF_DROP)
    swapped = nft.expression("meta", nfnetlink.be32(1, 1), nfnetlink.be32(2, 3)) + nft.verdict(nft.NF_DROP)
    assert ours != swapped
    assert nfnetlink_dumps.same_expressions(ours, swapped)
    for other in (
        nft.meta(nft.NFT_META_MARK) + nft.verdict(nft.NF_ACCEPT),
        nft.meta(nft.NFT_META_IIFNAME) + nft.verdict(nft.NF_DROP),
        nft.verdict(nft.NF_DROP),
        ours + nft.verdict(nft.NF_DROP),
    ):
        assert not nfnetlink_dumps.same_expressions(ours, other)


def test_a_refused_transaction_names_the_first_message_and_counts_the_others() -> None:
    one = NetlinkError(errno.ENOENT, "add rule 3 of chain x")
    two = NetlinkError(errno.EEXIST, "make set y", "there is one")
    assert str(TransactionError([one])) == "add rule 3 of chain x: ENOENT: No such file or directory"
    assert str(TransactionError([one, two])).endswith("(and 1 more)")
    assert str(TransactionError([two, one])) == "make set y: EEXIST: File exists (there is one; and 1 more)"


def test_a_connection_is_marked_by_its_tuple() -> None:
    connection = conntrack.Connection(
        6, IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"), 1, 2, None, 0, wire("0800 0180 01020304")
    )
    message = conntrack.mark(connection, 0x40000, 0x40000)
    assert message.type == 1 << 8  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW
    assert message.body == wire(
        "02 00 0000", "0800 0180 01020304", "0800 0800 00040000", "0800 1500 00040000"
    )
    assert "10.0.0.1 port 1 to 10.0.0.2 port 2" in message.tried


@pytest.mark.parametrize("garbage", [b"", b"\x01", b"\x03\x00\x01\x00", b"\xff\xff\x01\x00abc"])
def test_garbage_ends_a_list_without_an_error(garbage: bytes) -> None:
    assert list(nfnetlink.items(garbage)) == []
