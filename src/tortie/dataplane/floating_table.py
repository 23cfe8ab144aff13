"""The nftables table that translates floating addresses, as the kernel's own messages.

    chain prerouting, output   dnat ip to ip daddr map @external4         what comes in, what the node sends
    chain postrouting          snat ip to ip saddr . ip daddr map @own4   a pod that speaks to itself

and the same for IPv6. Connections are translated by their first packet, in both directions; what a pod sends
by itself keeps its source. A pod that calls its own floating address would get a packet from itself, and drop
it: such packets come from the floating address instead. The priorities are just ahead of kube-proxy's, where
Calico inserts its chains. The table is there only while a floating address is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from tortie.dataplane import nfnetlink_dumps as dumps
from tortie.dataplane import nfnetlink_expressions as nft
from tortie.dataplane import nfnetlink_objects as objects
from tortie.dataplane.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, attributes, text
from tortie.dataplane.nfnetlink import (
    NFNL_SUBSYS_NFTABLES,
    NFPROTO_INET,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    Netfilter,
    be32,
    block,
    body,
    items,
)
from tortie.dataplane.nfnetlink_objects import Hook
from tortie.model.floating import Address

TABLE: Final = "tortie_floating"
PREROUTING: Final = Hook(objects.HOOK_PREROUTING, -105)  # linux/netfilter_ipv4.h: NF_IP_PRI_NAT_DST is -100
OUTPUT: Final = Hook(objects.HOOK_OUTPUT, -105)
POSTROUTING: Final = Hook(objects.HOOK_POSTROUTING, 95)  # NF_IP_PRI_NAT_SRC is 100
BASE_CHAINS: Final = {"prerouting": PREROUTING, "output": OUTPUT, "postrouting": POSTROUTING}
EXTERNAL: Final = {4: "external4", 6: "external6"}
OWN: Final = {4: "own4", 6: "own6"}

# linux/netfilter/nf_tables.h
_NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME, _NFTA_CHAIN_HOOK, _NFTA_CHAIN_POLICY, _NFTA_CHAIN_TYPE = 1, 3, 4, 5, 7
_NFTA_HOOK_HOOKNUM, _NFTA_HOOK_PRIORITY = 1, 2
_NFTA_SET_TABLE, _NFTA_SET_NAME, _NFTA_SET_FLAGS, _NFTA_SET_KEY_TYPE, _NFTA_SET_KEY_LEN = 1, 2, 3, 4, 5
_NFTA_SET_DATA_TYPE, _NFTA_SET_DATA_LEN, _NFTA_SET_ID = 6, 7, 10
_NFTA_ELEM_TABLE, _NFTA_ELEM_SET, _NFTA_ELEM_ELEMENTS = 1, 2, 3
_NFTA_ELEM_KEY, _NFTA_ELEM_DATA, _NFTA_DATA_VALUE = 1, 2, 1
_NFTA_LOOKUP_SET, _NFTA_LOOKUP_SREG, _NFTA_LOOKUP_DREG, _NFTA_LOOKUP_FLAGS = 1, 2, 3, 5
_NFTA_NAT_TYPE, _NFTA_NAT_FAMILY, _NFTA_NAT_REG_ADDR_MIN, _NFTA_NAT_REG_ADDR_MAX = 1, 2, 3, 4
_NFTA_NAT_FLAGS = 7
_NFT_NAT_SNAT, _NFT_NAT_DNAT = 0, 1
_NF_NAT_RANGE_MAP_IPS = 1  # linux/netfilter/nf_nat.h

_PROTOCOL: Final = {4: NFPROTO_IPV4, 6: NFPROTO_IPV6}
_LENGTH: Final = {4: 4, 6: 16}
_SOURCE: Final = {4: 12, 6: 8}  # bytes into the header: RFC 791 section 3.1, RFC 8200 section 3
_DESTINATION: Final = {4: 16, 6: 24}
_TYPE: Final = {4: objects.TYPE_IPADDR, 6: objects.TYPE_IP6ADDR}
_TYPE_BITS: Final = 6

Content = dict[str, dict[bytes, bytes]]  # by map: key to address, as in registers


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the kernel holds: whether there is a table of that name, what is not as we make it (sentences),
    and the elements of the maps, when they could be read."""

    present: bool = False
    differences: tuple[str, ...] = ()
    content: Content = field(default_factory=dict)


def content(translations: Mapping[Address, Address], hairpins: Mapping[Address, Address]) -> Content:
    """The maps for these translations (floating address to pod's own, and for a pod's own address the
    floating one that it is to see as its caller)."""
    wanted: Content = {name: {} for names in (EXTERNAL, OWN) for name in names.values()}
    for external, internal in translations.items():
        wanted[EXTERNAL[external.version]][external.packed] = internal.packed
    for internal, external in hairpins.items():
        wanted[OWN[internal.version]][internal.packed * 2] = external.packed
    return wanted


def changes(loaded: Loaded, wanted: Content) -> list[Message]:
    """One transaction that makes the table hold `wanted` and nothing else; empty when it does."""
    if not any(wanted.values()):
        return [objects.new_table(TABLE), objects.delete_table(TABLE)] if loaded.present else []
    if not loaded.present or loaded.differences:
        return list(_anew(wanted))
    messages: list[Message] = []
    for name, elements in wanted.items():
        held = loaded.content.get(name, {})
        gone = {key: value for key, value in held.items() if elements.get(key) != value}
        new = {key: value for key, value in elements.items() if held.get(key) != value}
        messages += _elements(objects.NFT_MSG_DELSETELEM, 0, name, gone)
        messages += _elements(objects.NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, name, new)
    return messages


def read(kernel: Netfilter) -> Loaded:
    """What the kernel holds in the socket's namespace. Raise NetlinkError."""
    flags = dumps.table_flags(kernel, TABLE)
    if flags is None:
        return Loaded()
    differences = list(_differences(kernel, flags))
    # The maps of a table that is not as we make it may be of any type: it is made anew.
    held = {} if differences else {name: _read_map(kernel, name) for name in _maps()}
    return Loaded(True, tuple(differences), held)


def externals(held: Content) -> dict[Address, Address]:
    """The translations in the maps."""
    return {
        IPv4Address(key) if version == 4 else IPv6Address(key): (
            IPv4Address(value) if version == 4 else IPv6Address(value)
        )
        for version, name in EXTERNAL.items()
        for key, value in held.get(name, {}).items()
    }


def _maps() -> dict[str, tuple[int, int]]:
    """Every map: its family, and how many addresses make a key."""
    return {EXTERNAL[version]: (version, 1) for version in EXTERNAL} | {
        OWN[version]: (version, 2) for version in OWN
    }


def _rules() -> dict[str, tuple[bytes, ...]]:
    destination = tuple(_translate_destination(version) for version in EXTERNAL)
    source = tuple(_translate_source(version) for version in OWN)
    return {"prerouting": destination, "output": destination, "postrouting": source}


def _family(version: int) -> bytes:
    return nft.meta(nft.NFT_META_NFPROTO) + nft.compare(bytes((_PROTOCOL[version],)))


def _look_up(name: str) -> bytes:
    """Replace register 1 by what the map has for it; without an entry, the rule ends."""
    return nft.expression(
        "lookup",
        text(_NFTA_LOOKUP_SET, name),
        be32(_NFTA_LOOKUP_SREG, nft.NFT_REG_1),
        be32(_NFTA_LOOKUP_DREG, nft.NFT_REG_1),
        be32(_NFTA_LOOKUP_FLAGS, 0),
    )


def _nat(kind: int, version: int) -> bytes:
    """Translate to the address in register 1."""
    return nft.expression(
        "nat",
        be32(_NFTA_NAT_TYPE, kind),
        be32(_NFTA_NAT_FAMILY, _PROTOCOL[version]),
        be32(_NFTA_NAT_REG_ADDR_MIN, nft.NFT_REG_1),
        be32(_NFTA_NAT_REG_ADDR_MAX, nft.NFT_REG_1),
        be32(_NFTA_NAT_FLAGS, _NF_NAT_RANGE_MAP_IPS),  # the kernel adds it by itself, and shows it
    )


def _translate_destination(version: int) -> bytes:
    load = nft.payload(nft.NFT_PAYLOAD_NETWORK_HEADER, _DESTINATION[version], _LENGTH[version])
    return _family(version) + load + _look_up(EXTERNAL[version]) + _nat(_NFT_NAT_DNAT, version)


def _translate_source(version: int) -> bytes:
    length = _LENGTH[version]
    # Source and destination side by side, as the map's keys: 4 bytes on are the next 32-bit register.
    behind = nft.NFT_REG32_00 + length // 4 if version == 4 else nft.NFT_REG_2
    load = nft.payload(nft.NFT_PAYLOAD_NETWORK_HEADER, _SOURCE[version], length)
    load += nft.payload(nft.NFT_PAYLOAD_NETWORK_HEADER, _DESTINATION[version], length, behind)
    return _family(version) + load + _look_up(OWN[version]) + _nat(_NFT_NAT_SNAT, version)


def _anew(wanted: Content) -> Iterator[Message]:
    yield objects.new_table(TABLE)
    yield objects.delete_table(TABLE)
    yield objects.new_table(TABLE)
    for name, hook in BASE_CHAINS.items():
        yield _base_chain(name, hook)
    for number, (name, (version, fields)) in enumerate(_maps().items(), 1):
        yield _map(name, version, fields, number)
    for chain, rules in _rules().items():
        yield from objects.rule_messages(TABLE, chain, rules)
    for name, elements in wanted.items():
        yield from _elements(objects.NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, name, elements)


def _kind(message: int) -> int:
    return NFNL_SUBSYS_NFTABLES << 8 | message


def _base_chain(name: str, hook: Hook) -> Message:
    return Message(
        _kind(objects.NFT_MSG_NEWCHAIN),
        NLM_F_CREATE,
        body(
            NFPROTO_INET,
            text(_NFTA_CHAIN_TABLE, TABLE),
            text(_NFTA_CHAIN_NAME, name),
            block(
                _NFTA_CHAIN_HOOK,
                be32(_NFTA_HOOK_HOOKNUM, hook.hook),
                be32(_NFTA_HOOK_PRIORITY, hook.priority),
            ),
            be32(_NFTA_CHAIN_POLICY, objects.POLICY_ACCEPT),
            text(_NFTA_CHAIN_TYPE, "nat"),
        ),
        f"make chain {name} of table {TABLE}",
    )


def _map(name: str, version: int, fields: int, number: int) -> Message:
    key_type = 0
    for _ in range(fields):
        key_type = key_type << _TYPE_BITS | _TYPE[version]
    return Message(
        _kind(objects.NFT_MSG_NEWSET),
        NLM_F_CREATE | NLM_F_EXCL,
        body(
            NFPROTO_INET,
            text(_NFTA_SET_TABLE, TABLE),
            text(_NFTA_SET_NAME, name),
            be32(_NFTA_SET_FLAGS, objects.NFT_SET_MAP),
            be32(_NFTA_SET_KEY_TYPE, key_type),
            be32(_NFTA_SET_KEY_LEN, _LENGTH[version] * fields),
            be32(_NFTA_SET_DATA_TYPE, _TYPE[version]),
            be32(_NFTA_SET_DATA_LEN, _LENGTH[version]),
            be32(_NFTA_SET_ID, number),
        ),
        f"make map {name} of table {TABLE}",
    )


def _elements(message: int, flags: int, name: str, elements: Mapping[bytes, bytes]) -> Iterator[Message]:
    """At most so many in one message that the length of their list fits 16 bits."""
    parts = [
        block(1, nft.value(_NFTA_ELEM_KEY, key), nft.value(_NFTA_ELEM_DATA, value))
        for key, value in sorted(elements.items())
    ]
    if not parts:
        return
    step = objects.LIST_BYTES // max(map(len, parts))
    for start in range(0, len(parts), step):
        yield Message(
            _kind(message),
            flags,
            body(
                NFPROTO_INET,
                text(_NFTA_ELEM_TABLE, TABLE),
                text(_NFTA_ELEM_SET, name),
                block(_NFTA_ELEM_ELEMENTS, *parts[start : start + step]),
            ),
            f"change map {name} of table {TABLE}",
        )


def _read_map(kernel: Netfilter, name: str) -> dict[bytes, bytes]:
    request = body(NFPROTO_INET, text(_NFTA_ELEM_TABLE, TABLE), text(_NFTA_ELEM_SET, name))
    found: dict[bytes, bytes] = {}
    for _, data in kernel.dump(_kind(objects.NFT_MSG_GETSETELEM), request, f"list map {name}"):
        for kind, part in items(data):
            for _, item in items(part) if kind == _NFTA_ELEM_ELEMENTS else ():
                element = attributes(item)
                key = attributes(element.get(_NFTA_ELEM_KEY, b"")).get(_NFTA_DATA_VALUE, b"")
                found[key] = attributes(element.get(_NFTA_ELEM_DATA, b"")).get(_NFTA_DATA_VALUE, b"")
    return found


def _differences(kernel: Netfilter, flags: int) -> Iterator[str]:
    if flags & objects.NFT_TABLE_F_DORMANT:
        yield f"table {TABLE} is dormant: it translates nothing"
    held_chains = {chain.name: chain for chain in dumps.chains(kernel, TABLE)}
    for name in BASE_CHAINS.keys() | held_chains.keys():
        chain = held_chains.get(name)
        if chain is None:
            yield f"chain {name} of table {TABLE} is gone"
        elif (chain.hook, chain.kind, chain.policy) != (
            BASE_CHAINS.get(name),
            "nat",
            objects.POLICY_ACCEPT,
        ):
            yield f"chain {name} of table {TABLE} is not ours"
    held_rules = dumps.rules(kernel, TABLE)
    for name, wanted in _rules().items():
        found = held_rules.get(name, [])
        if len(found) != len(wanted) or not all(map(dumps.same_expressions, wanted, found)):
            yield f"the rules of chain {name} of table {TABLE} are not ours"
    held_maps = {item.name: (item.flags, item.key_length) for item in dumps.sets(kernel, TABLE)}
    if held_maps != {
        name: (objects.NFT_SET_MAP, _LENGTH[version] * fields) for name, (version, fields) in _maps().items()
    }:
        yield f"the maps of table {TABLE} are not ours"
