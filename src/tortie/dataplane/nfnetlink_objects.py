"""Tables, chains, rules, sets and elements of nf_tables: what they are, and messages that make them.

Everything that is made belongs to a table of family inet. Numbers and names: linux/netfilter/nf_tables.h.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from tortie.dataplane.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    attribute,
    text,
)
from tortie.dataplane.nfnetlink import (
    NFNL_SUBSYS_NFTABLES,
    NFPROTO_INET,
    be32,
    block,
    body,
)
from tortie.dataplane.nfnetlink_expressions import ZEROS, map_verdict_head, value, verdict_data

NFT_MSG_NEWTABLE = 0
NFT_MSG_GETTABLE = 1
NFT_MSG_DELTABLE = 2
NFT_MSG_NEWCHAIN = 3
NFT_MSG_GETCHAIN = 4
NFT_MSG_DELCHAIN = 5
NFT_MSG_NEWRULE = 6
NFT_MSG_GETRULE = 7
NFT_MSG_DELRULE = 8
NFT_MSG_NEWSET = 9
NFT_MSG_GETSET = 10
NFT_MSG_DELSET = 11
NFT_MSG_NEWSETELEM = 12
NFT_MSG_GETSETELEM = 13
NFT_MSG_DELSETELEM = 14
NFT_MSG_GETGEN = 16

NFT_SET_ANONYMOUS = 0x1  # belongs to one rule and goes with it
NFT_SET_INTERVAL = 0x4
NFT_SET_MAP = 0x8
NFT_SET_ELEM_INTERVAL_END = 1
NFT_DATA_VERDICT = 0xFFFFFF00
NFT_TABLE_F_DORMANT = 1

# enum nft_* attributes
NFTA_TABLE_NAME, NFTA_TABLE_FLAGS = 1, 2
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE = 1, 3, 4, 5, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS = 1, 2, 4
NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_FLAGS, NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN = 1, 2, 3, 4, 5
NFTA_SET_DATA_TYPE, NFTA_SET_ID, NFTA_SET_USERDATA = 6, 10, 13
NFTA_ELEM_TABLE, NFTA_ELEM_SET, NFTA_ELEM_ELEMENTS = 1, 2, 3
NFTA_ELEM_KEY, NFTA_ELEM_DATA, NFTA_ELEM_FLAGS = 1, 2, 3
NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN = 1, 2, 1, 2
NFTA_GEN_ID = 1

# Data types as nft(8) numbers them, so that it prints sets as people know them; the kernel does not care.
TYPE_IPADDR = 7
TYPE_IP6ADDR = 8
TYPE_INET_PROTOCOL = 12
TYPE_INET_SERVICE = 13
TYPE_MARK = 19
TYPE_IFNAME = 41
_TYPE_BITS = 6
# What nft(8) keeps with a set: type 0 (byte order of keys), 4 bytes, 1 (host). It prints no names without.
_HOST_ORDER = struct.pack("=BBI", 0, 4, 1)

# linux/netfilter.h, NF_INET_*
HOOK_PREROUTING = 0
HOOK_INPUT = 1
HOOK_FORWARD = 2
HOOK_OUTPUT = 3
HOOK_POSTROUTING = 4
POLICY_ACCEPT = 1

_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
# An attribute's length has 16 bits: a list of elements must stay below.
LIST_BYTES = 60000


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain is attached; its policy is always accept."""

    hook: int
    priority: int


@dataclass(frozen=True, slots=True)
class SetType:
    """What a set holds: its key's fields as (data type, bytes), whether keys are ranges, whether it is a
    verdict map. Each field of a key takes a multiple of 4 bytes."""

    fields: tuple[tuple[int, int], ...]
    interval: bool = False
    verdicts: bool = False

    @property
    def key_type(self) -> int:
        """The number that nft(8) shows the key's type by."""
        number = 0
        for kind, _length in self.fields:
            number = number << _TYPE_BITS | kind
        return number

    @property
    def key_length(self) -> int:
        """Bytes of a key."""
        if len(self.fields) == 1:
            return self.fields[0][1]
        return sum(length + (-length % 4) for _kind, length in self.fields)

    @property
    def flags(self) -> int:
        """NFT_SET_* flags."""
        return (NFT_SET_INTERVAL if self.interval else 0) | (NFT_SET_MAP if self.verdicts else 0)


class Element(NamedTuple):
    """One element: `key` as in a register; in a set of ranges, `last` is the range's last key.
    `code` and `chain`: the verdict, in a verdict map."""

    key: bytes
    last: bytes = b""
    code: int | None = None
    chain: str = ""


def message_type(message: int) -> int:
    """The type of a message (NFT_MSG_*) of nf_tables."""
    return NFNL_SUBSYS_NFTABLES << 8 | message


def new_table(table: str) -> Message:
    """Make the table unless it is there; wake it if it is dormant."""
    return Message(
        message_type(NFT_MSG_NEWTABLE),
        NLM_F_CREATE,
        body(NFPROTO_INET, text(NFTA_TABLE_NAME, table), be32(NFTA_TABLE_FLAGS, 0)),
        f"make table {table}",
    )


def delete_table(table: str) -> Message:
    """Delete the table with all it holds."""
    return Message(
        message_type(NFT_MSG_DELTABLE),
        0,
        body(NFPROTO_INET, text(NFTA_TABLE_NAME, table)),
        f"delete table {table}",
    )


def new_base_chain(table: str, chain: str, hook: Hook) -> Message:
    """Make a base chain, or set its policy back to accept when it is there."""
    return Message(
        message_type(NFT_MSG_NEWCHAIN),
        NLM_F_CREATE,
        body(
            NFPROTO_INET,
            text(NFTA_CHAIN_TABLE, table),
            text(NFTA_CHAIN_NAME, chain),
            block(
                NFTA_CHAIN_HOOK,
                be32(NFTA_HOOK_HOOKNUM, hook.hook),
                be32(NFTA_HOOK_PRIORITY, hook.priority),
            ),
            be32(NFTA_CHAIN_POLICY, POLICY_ACCEPT),
            text(NFTA_CHAIN_TYPE, "filter"),
        ),
        f"make base chain {chain}",
    )


def new_chain(table: str, chain: str) -> Message:
    """Make a chain; it must not be there."""
    return Message(
        message_type(NFT_MSG_NEWCHAIN),
        NLM_F_CREATE | NLM_F_EXCL,
        body(NFPROTO_INET, text(NFTA_CHAIN_TABLE, table), text(NFTA_CHAIN_NAME, chain)),
        f"make chain {chain}",
    )


def delete_chain(table: str, chain: str) -> Message:
    """Delete a chain that nothing refers to, with its rules."""
    return Message(
        message_type(NFT_MSG_DELCHAIN),
        0,
        body(NFPROTO_INET, text(NFTA_CHAIN_TABLE, table), text(NFTA_CHAIN_NAME, chain)),
        f"delete chain {chain}",
    )


def append_rule(table: str, chain: str, expressions: bytes, number: int) -> Message:
    """Append a rule; `number` is its place in the chain, for an error's text."""
    return Message(
        _NEW_RULE,
        NLM_F_CREATE | NLM_F_APPEND,
        _rule_head(table, chain) + attribute(NFTA_RULE_EXPRESSIONS, expressions),
        f"add rule {number} of chain {chain}",
    )


_NEW_RULE = message_type(NFT_MSG_NEWRULE)


def _rule_head(table: str, chain: str) -> bytes:
    name = chain.encode()
    return _rule_frame(table, len(name)) + name + ZEROS[len(name) & 3]


@cache
def _rule_frame(table: str, length: int) -> bytes:
    """What stands before the name of a rule's chain."""
    head = body(NFPROTO_INET, text(NFTA_RULE_TABLE, table), text(NFTA_RULE_CHAIN, "-" * length))
    return head[: -length - len(ZEROS[length & 3])]


def delete_rules(table: str, chain: str | None = None) -> Message:
    """Delete every rule of a chain, or of the table."""
    where = text(NFTA_RULE_CHAIN, chain) if chain is not None else b""
    return Message(
        message_type(NFT_MSG_DELRULE),
        0,
        body(NFPROTO_INET, text(NFTA_RULE_TABLE, table), where),
        f"flush {'table ' + table if chain is None else 'chain ' + chain}",
    )


def new_set(table: str, name: str, kind: SetType) -> Message:
    """Make a set; it must not be there."""
    return Message(
        message_type(NFT_MSG_NEWSET),
        NLM_F_CREATE | NLM_F_EXCL,
        body(
            NFPROTO_INET,
            text(NFTA_SET_TABLE, table),
            text(NFTA_SET_NAME, name),
            be32(NFTA_SET_FLAGS, kind.flags),
            be32(NFTA_SET_KEY_TYPE, kind.key_type),
            be32(NFTA_SET_KEY_LEN, kind.key_length),
            be32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT) if kind.verdicts else b"",
            be32(NFTA_SET_ID, 1),
            attribute(NFTA_SET_USERDATA, _HOST_ORDER) if kind.fields[0][0] == TYPE_IFNAME else b"",
        ),
        f"make set {name}",
    )


def delete_set(table: str, name: str) -> Message:
    """Delete a set that no rule refers to, with its elements."""
    return Message(
        message_type(NFT_MSG_DELSET),
        0,
        body(NFPROTO_INET, text(NFTA_SET_TABLE, table), text(NFTA_SET_NAME, name)),
        f"delete set {name}",
    )


def add_elements(table: str, name: str, elements: Iterable[Element]) -> Iterator[Message]:
    """Add elements; none of them may be there."""
    return _elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, table, name, elements, "add to")


def delete_elements(table: str, name: str, elements: Iterable[Element]) -> Iterator[Message]:
    """Delete elements; all of them must be there."""
    return _elements(NFT_MSG_DELSETELEM, 0, table, name, elements, "delete from")


def flush_set(table: str, name: str) -> Message:
    """Delete all elements of a set."""
    return Message(
        message_type(NFT_MSG_DELSETELEM),
        0,
        body(NFPROTO_INET, text(NFTA_ELEM_TABLE, table), text(NFTA_ELEM_SET, name)),
        f"flush set {name}",
    )


def _elements(
    message: int, flags: int, table: str, name: str, elements: Iterable[Element], what: str
) -> Iterator[Message]:
    kind, tried = message_type(message), f"{what} set {name}"
    head = body(NFPROTO_INET, text(NFTA_ELEM_TABLE, table), text(NFTA_ELEM_SET, name))
    ordered = list(elements)
    if ordered and ordered[0].last:  # of ranges the kernel wants the lower first
        ordered.sort()
    parts: list[bytes] = []
    size = 0
    for part in map(_element, ordered):
        size += len(part)
        if size > LIST_BYTES:
            yield Message(kind, flags, head + block(NFTA_ELEM_ELEMENTS, *parts), tried)
            parts, size = [], len(part)
        parts.append(part)
    if parts:
        yield Message(kind, flags, head + block(NFTA_ELEM_ELEMENTS, *parts), tried)


@cache
def _element_frame(length: int) -> tuple[bytes, bytes]:
    """What stands before and behind a key of so many bytes, when an element is nothing but its key."""
    frame = attribute(1, value(NFTA_ELEM_KEY, bytes(length)))
    padding = -length % 4
    return frame[: len(frame) - length - padding], bytes(padding)


@cache
def _jump_frame(length: int, code: int, name_length: int) -> tuple[bytes, bytes]:
    """What stands before a key of so many bytes, and between it and a chain's name of so many."""
    verdict = map_verdict_head(code, name_length)
    behind = bytes(name_length) + ZEROS[name_length & 3]
    frame = attribute(1, value(NFTA_ELEM_KEY, bytes(length)) + verdict + behind)
    padding = -length % 4
    head = len(frame) - len(behind) - len(verdict) - padding - length
    return frame[:head], bytes(padding) + verdict


def _element(element: Element) -> bytes:
    key, last, code, chain = element
    if code is None:
        before, behind = _element_frame(len(key))
        wire = before + key + behind
    elif chain:
        name = chain.encode()
        before, between = _jump_frame(len(key), code, len(name))
        wire = before + key + between + name + ZEROS[len(name) & 3]
    else:
        wire = attribute(1, value(NFTA_ELEM_KEY, key) + verdict_data(NFTA_ELEM_DATA, code))
    if last:
        # The kernel has the first key, and a mark at the key behind the last; the highest key needs no mark.
        end = int.from_bytes(last, "big") + 1
        if end < 1 << 8 * len(last):
            end_key = value(NFTA_ELEM_KEY, end.to_bytes(len(last), "big"))
            wire += attribute(1, be32(NFTA_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END) + end_key)
    return wire


def rule_messages(table: str, chain: str, content: Sequence[bytes]) -> Iterator[Message]:
    """Append all rules of a chain."""
    if content:
        head = _rule_head(table, chain)
        flags = NLM_F_CREATE | NLM_F_APPEND
        for number, expressions in enumerate(content, 1):
            # What is in a list of expressions is padded already.
            size = _ATTRIBUTE.pack(4 + len(expressions), NFTA_RULE_EXPRESSIONS)
            tried = f"add rule {number} of chain {chain}"
            yield Message(_NEW_RULE, flags, head + size + expressions, tried)
