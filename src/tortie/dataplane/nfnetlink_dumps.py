"""Tables, chains, rules, sets and elements of nf_tables as the kernel has them: read, and compared with ours.

Numbers and names: linux/netfilter/nf_tables.h.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tortie.dataplane.netlink import as_text, attributes, text
from tortie.dataplane.nfnetlink import NFPROTO_INET, Netfilter, as_be32, body, items
from tortie.dataplane.nfnetlink_objects import (
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETGEN,
    NFT_MSG_GETRULE,
    NFT_MSG_GETSET,
    NFT_MSG_GETSETELEM,
    NFT_MSG_GETTABLE,
    NFT_SET_ELEM_INTERVAL_END,
    NFTA_CHAIN_HOOK,
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_POLICY,
    NFTA_CHAIN_TABLE,
    NFTA_CHAIN_TYPE,
    NFTA_DATA_VALUE,
    NFTA_DATA_VERDICT,
    NFTA_ELEM_DATA,
    NFTA_ELEM_ELEMENTS,
    NFTA_ELEM_FLAGS,
    NFTA_ELEM_KEY,
    NFTA_ELEM_SET,
    NFTA_ELEM_TABLE,
    NFTA_GEN_ID,
    NFTA_HOOK_HOOKNUM,
    NFTA_HOOK_PRIORITY,
    NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_TABLE,
    NFTA_SET_FLAGS,
    NFTA_SET_KEY_LEN,
    NFTA_SET_NAME,
    NFTA_SET_TABLE,
    NFTA_TABLE_FLAGS,
    NFTA_TABLE_NAME,
    NFTA_VERDICT_CHAIN,
    NFTA_VERDICT_CODE,
    Element,
    Hook,
    SetType,
    message_type,
)

_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_USERS = struct.pack("=H", 6)  # NFTA_CHAIN_USE


def generation(kernel: Netfilter) -> int:
    """The number of the last transaction of anybody in this namespace."""
    answer = kernel.get(message_type(NFT_MSG_GETGEN), body(0), "read the ruleset's generation")
    return as_be32(attributes(answer)[NFTA_GEN_ID])


def next_generation(number: int) -> int:
    """The number of the transaction after that one; 0 is left out (nf_tables_commit)."""
    return (number + 1) & 0xFFFFFFFF or 1


class FoundChain(NamedTuple):
    """A chain in the kernel; `hook` and `kind` (`filter`...) only of a base chain."""

    name: str
    hook: Hook | None = None
    policy: int | None = None
    kind: str = ""


def table_flags(kernel: Netfilter, table: str) -> int | None:
    """NFT_TABLE_F_* of the table; None without it."""
    for _, data in kernel.dump(message_type(NFT_MSG_GETTABLE), body(NFPROTO_INET), "list tables"):
        found = attributes(data)
        if as_text(found[NFTA_TABLE_NAME]) == table:
            return as_be32(found[NFTA_TABLE_FLAGS]) if NFTA_TABLE_FLAGS in found else 0
    return None


def chains(kernel: Netfilter, table: str, family: int = NFPROTO_INET) -> list[FoundChain]:
    """The table's chains."""
    found = []
    begin = text(NFTA_CHAIN_TABLE, table)
    for _, data in kernel.dump(message_type(NFT_MSG_GETCHAIN), body(family), f"list chains of {table}"):
        if data.startswith(begin) and (name := _plain_chain(data, len(begin))):
            found.append(FoundChain(name))
            continue
        chain = attributes(data)
        if as_text(chain[NFTA_CHAIN_TABLE]) != table:
            continue
        if NFTA_CHAIN_HOOK not in chain:
            found.append(FoundChain(as_text(chain[NFTA_CHAIN_NAME])))
            continue
        at = attributes(chain[NFTA_CHAIN_HOOK])
        priority = struct.unpack("!i", at[NFTA_HOOK_PRIORITY])[0]
        hook = Hook(as_be32(at[NFTA_HOOK_HOOKNUM]), priority)
        policy = as_be32(chain[NFTA_CHAIN_POLICY]) if NFTA_CHAIN_POLICY in chain else None
        kind = as_text(chain.get(NFTA_CHAIN_TYPE, b""))
        found.append(FoundChain(as_text(chain[NFTA_CHAIN_NAME]), hook, policy, kind))
    return found


def _plain_chain(data: bytes, offset: int) -> str:
    """The name of a chain that is attached nowhere, of which there may be thousands: the kernel writes name,
    handle (12 bytes) and number of users in this order. A base chain's hook stands before the users: nothing
    then, as for any other order."""
    if len(data) < offset + 24:
        return ""
    length, kind = _ATTRIBUTE.unpack_from(data, offset)
    users = offset + length + (-length % 4) + 12
    if kind != NFTA_CHAIN_NAME or data[users + 2 : users + 4] != _USERS:
        return ""
    return data[offset + 4 : offset + length - 1].decode(errors="replace")


def rules(kernel: Netfilter, table: str) -> dict[str, list[bytes]]:
    """Expressions of the table's rules by chain, in order."""
    found: dict[str, list[bytes]] = {}
    request = body(NFPROTO_INET, text(NFTA_RULE_TABLE, table))
    for _, data in kernel.dump(message_type(NFT_MSG_GETRULE), request, f"list rules of {table}"):
        rule = attributes(data)
        if as_text(rule[NFTA_RULE_TABLE]) == table:
            found.setdefault(as_text(rule[NFTA_RULE_CHAIN]), []).append(rule.get(NFTA_RULE_EXPRESSIONS, b""))
    return found


@dataclass(frozen=True, slots=True)
class FoundSet:
    """A set in the kernel."""

    name: str
    flags: int
    key_length: int


def sets(kernel: Netfilter, table: str) -> list[FoundSet]:
    """The table's sets and maps."""
    request = body(NFPROTO_INET, text(NFTA_SET_TABLE, table))
    return [
        FoundSet(
            as_text(found[NFTA_SET_NAME]),
            as_be32(found[NFTA_SET_FLAGS]) if NFTA_SET_FLAGS in found else 0,
            as_be32(found[NFTA_SET_KEY_LEN]),
        )
        for found in (
            attributes(data)
            for _, data in kernel.dump(message_type(NFT_MSG_GETSET), request, f"list sets of {table}")
        )
    ]


def elements(kernel: Netfilter, table: str, name: str, kind: SetType) -> set[Element]:
    """The elements of a set of this type."""
    request = body(NFPROTO_INET, text(NFTA_ELEM_TABLE, table), text(NFTA_ELEM_SET, name))
    found = [
        _parsed(item)
        for _, data in kernel.dump(message_type(NFT_MSG_GETSETELEM), request, f"list elements of set {name}")
        for attribute_kind, part in items(data)
        if attribute_kind == NFTA_ELEM_ELEMENTS
        for _, item in items(part)
    ]
    return _paired(found) if kind.interval else {element for element, _ in found}


def _parsed(data: bytes) -> tuple[Element, bool]:
    """An element as the kernel has it, and whether it is a mark behind a range."""
    element = attributes(data)
    key = attributes(element[NFTA_ELEM_KEY])[NFTA_DATA_VALUE] if NFTA_ELEM_KEY in element else b""
    end = NFTA_ELEM_FLAGS in element and bool(as_be32(element[NFTA_ELEM_FLAGS]) & NFT_SET_ELEM_INTERVAL_END)
    if NFTA_ELEM_DATA not in element:
        return Element(key), end
    found = attributes(attributes(element[NFTA_ELEM_DATA]).get(NFTA_DATA_VERDICT, b""))
    code = struct.unpack("!i", found[NFTA_VERDICT_CODE])[0] if NFTA_VERDICT_CODE in found else 0
    return Element(key, b"", code, as_text(found.get(NFTA_VERDICT_CHAIN, b""))), end


def _paired(found: Sequence[tuple[Element, bool]]) -> set[Element]:
    """Ranges from first keys and marks. Where one range touches the next, the mark comes first."""
    ranges: set[Element] = set()
    first: bytes | None = None
    for element, end in sorted(found, key=lambda item: (item[0].key, not item[1])):
        if end and first is not None:
            last = (int.from_bytes(element.key, "big") - 1).to_bytes(len(first), "big")
            ranges.add(Element(first, last))
            first = None
        elif not end:
            first = element.key
    if first is not None:
        ranges.add(Element(first, b"\xff" * len(first)))
    return ranges


def same_expressions(wanted: bytes, found: bytes) -> bool:
    """Whether a rule in the kernel does what was asked for. Bytes are equal on the kernels that this was
    written on; another one may order attributes differently or add some that are zero."""
    return wanted == found or _tree(wanted) == _tree(found)


def _tree(expressions: bytes) -> list[tuple[str, object]]:
    tree: list[tuple[str, object]] = []
    for _, item in items(expressions):
        expression = attributes(item)
        content = attributes(expression.get(2, b""))
        tree.append(
            (as_text(expression[1]), {kind: data for kind, data in content.items() if data.strip(b"\0")})
        )
    return tree
