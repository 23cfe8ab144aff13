# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""nftables over netlink, as far as a reset needs it: which tables and chains there are, which chains do
nothing, and deleting both. A host need not have the program nft. Message layout: linux/netfilter/nf_tables.h
and nfnetlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

NETLINK_NETFILTER = 12  # linux/netlink.h
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFT_MSG_GETTABLE, NFT_MSG_DELTABLE, NFT_MSG_GETCHAIN, NFT_MSG_DELCHAIN, NFT_MSG_GETRULE = 1, 2, 4, 5, 7
NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY = 1, 3, 4, 5
NFTA_RULE_TABLE, NFTA_RULE_CHAIN = 1, 2
NF_ACCEPT = 1  # linux/netfilter.h
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLA_TYPE_MASK = 0x3FFF
SECONDS = 20.0

# linux/netfilter.h: NFPROTO_*
FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
NUMBERS = {name: number for number, name in FAMILIES.items()}


class NftError(OSError):
    """The kernel refused; the message is a sentence."""


@dataclass(frozen=True)
class Ruleset:
    """tables: (family, name) in kernel order; chains: (family, table, name); idle: those chains that do
    nothing: base chains with the policy accept and without a rule.
    """

    tables: list[tuple[str, str]] = field(default_factory=list)
    chains: list[tuple[str, str, str]] = field(default_factory=list)
    idle: frozenset[tuple[str, str, str]] = frozenset()


def read() -> Ruleset:
    """The kernel's tables and chains. A kernel without nftables has none. Raises OSError."""
    try:
        tables = [(family, _text(found[NFTA_TABLE_NAME])) for family, found in _dump(NFT_MSG_GETTABLE)]
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):
            return Ruleset()
        raise
    chains, idle = [], set()
    accept = struct.pack(">I", NF_ACCEPT)
    for family, found in _dump(NFT_MSG_GETCHAIN):
        chain = (family, _text(found[NFTA_CHAIN_TABLE]), _text(found[NFTA_CHAIN_NAME]))
        chains.append(chain)
        if NFTA_CHAIN_HOOK in found and found.get(NFTA_CHAIN_POLICY, accept) == accept:
            idle.add(chain)
    for family, found in _dump(NFT_MSG_GETRULE):
        idle.discard((family, _text(found[NFTA_RULE_TABLE]), _text(found[NFTA_RULE_CHAIN])))
    return Ruleset(tables, chains, frozenset(idle))


def delete_table(family: str, name: str) -> None:
    """Delete a table with everything in it. One that is gone already is no error. Raises NftError."""
    _delete(NFT_MSG_DELTABLE, family, _attribute(NFTA_TABLE_NAME, name), f"table {family} {name}")


def delete_chain(family: str, table: str, name: str) -> None:
    """Delete a chain; the kernel refuses while it has rules. Raises NftError."""
    attributes = _attribute(NFTA_CHAIN_TABLE, table) + _attribute(NFTA_CHAIN_NAME, name)
    _delete(NFT_MSG_DELCHAIN, family, attributes, f"chain {family} {table} {name}")


def _delete(kind: int, family: str, attributes: bytes, shown: str) -> None:
    """One deletion in a transaction of its own (changes are taken in batches only)."""
    batch = (
        _message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 1, 0, NFNL_SUBSYS_NFTABLES)
        + _message(
            NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_REQUEST | NLM_F_ACK, 2, NUMBERS[family], 0, attributes
        )
        + _message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, 3, 0, NFNL_SUBSYS_NFTABLES)
    )
    with _socket() as connection:
        connection.send(batch)
        for answer, body in _messages(connection.recv(65536)):
            code = -struct.unpack_from("i", body)[0] if answer == NLMSG_ERROR else 0
            if code not in (0, errno.ENOENT):
                raise NftError(code, f"nftables does not delete {shown}: {os.strerror(code)}")


def _socket() -> socket.socket:
    connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    connection.settimeout(SECONDS)
    return connection


def _dump(kind: int) -> Iterator[tuple[str, dict[int, bytes]]]:
    """Family and attributes of every object."""
    with _socket() as connection:
        connection.send(_message(NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_REQUEST | NLM_F_DUMP, 1, 0, 0))
        while True:
            for answer, body in _messages(connection.recv(1 << 17)):
                if answer == NLMSG_DONE:
                    return
                if answer == NLMSG_ERROR:
                    code = -struct.unpack_from("i", body)[0]
                    raise NftError(code, f"nftables cannot be read: {os.strerror(code)}")
                yield FAMILIES.get(body[0], str(body[0])), _attributes(body[4:])


def _message(kind: int, flags: int, sequence: int, family: int, resource: int, payload: bytes = b"") -> bytes:
    """struct nlmsghdr and struct nfgenmsg (family, version 0, resource in network order)."""
    body = struct.pack("BB", family, 0) + struct.pack(">H", resource) + payload
    return struct.pack("IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def _attribute(kind: int, text: str) -> bytes:
    value = text.encode() + b"\0"
    return struct.pack("HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 16:
        length, kind = struct.unpack_from("IH", data)
        yield kind, data[16:length]
        data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("HH", data)
        if length < 4:
            break
        found[kind & NLA_TYPE_MASK] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
