"""Expressions of nf_tables rules as bytes: what `nft --debug=netlink` shows, one function each.

A rule is a sequence of expressions: load something into a register, compare it, then a verdict. Attributes
stand in the order in which the kernel dumps them, and those it adds are there, so that a rule that was read
back is the same bytes. Numbers and names: linux/netfilter/nf_tables.h.
"""

from functools import cache, lru_cache

from tortie.dataplane.netlink import attribute, text
from tortie.dataplane.nfnetlink import be32, be64, block

# Registers: NFT_REG_1.. have 16 bytes each; NFT_REG32_n addresses the same space in steps of 4 bytes.
NFT_REG_VERDICT = 0
NFT_REG_1 = 1
NFT_REG_2 = 2
NFT_REG32_00 = 8

NFT_JUMP = -3
NFT_GOTO = -4
NFT_RETURN = -5
NF_DROP = 0
NF_ACCEPT = 1

NFT_META_MARK = 3
NFT_META_IIFNAME = 6
NFT_META_OIFNAME = 7
NFT_META_NFPROTO = 15
NFT_META_L4PROTO = 16

NFT_CT_STATE = 0
NFT_CT_STATUS = 2
NFT_CT_MARK = 3
# Bits of NFT_CT_STATE (linux/netfilter/nf_conntrack_common.h): 1 << ctinfo % IP_CT_IS_REPLY + 1; invalid is 1
CT_INVALID = 1
CT_ESTABLISHED = 2
CT_RELATED = 4
CT_NEW = 8
IPS_DST_NAT = 1 << 5  # a bit of NFT_CT_STATUS, from the same header

NFT_PAYLOAD_NETWORK_HEADER = 1
NFT_PAYLOAD_TRANSPORT_HEADER = 2

NFT_CMP_EQ = 0
NFT_CMP_NEQ = 1
NFT_RANGE_EQ = 0
NFT_RANGE_NEQ = 1
NFT_LOOKUP_F_INV = 1
NFT_BITWISE_MASK_XOR = 0

NFT_REJECT_ICMPX_UNREACH = 2
NFT_REJECT_ICMPX_ADMIN_PROHIBITED = 3
NFT_LIMIT_PKTS = 0
LOG_WARNING = 4  # linux/kern_levels.h; the kernel does not dump it, being its default

_NFTA_EXPR_NAME = 1
_NFTA_EXPR_DATA = 2
_NFTA_LIST_ELEM = 1
_NFTA_DATA_VALUE = 1
_NFTA_DATA_VERDICT = 2
_NFTA_VERDICT_CODE = 1
_NFTA_VERDICT_CHAIN = 2


def expression(name: str, *content: bytes) -> bytes:
    """One element of a rule's list of expressions; those without parameters carry no data."""
    data = block(_NFTA_EXPR_DATA, *content) if content else b""
    return block(_NFTA_LIST_ELEM, text(_NFTA_EXPR_NAME, name), data)


def value(kind: int, data: bytes) -> bytes:
    """A constant (NFTA_DATA_VALUE) in attribute `kind`."""
    return block(kind, attribute(_NFTA_DATA_VALUE, data))


def verdict_data(kind: int, code: int, chain: str = "") -> bytes:
    """A verdict (NFTA_DATA_VERDICT) in attribute `kind`; jump and goto name a chain."""
    target = text(_NFTA_VERDICT_CHAIN, chain) if chain else b""
    return block(kind, block(_NFTA_DATA_VERDICT, be32(_NFTA_VERDICT_CODE, code), target))


@lru_cache(maxsize=1024)
def verdict(code: int, chain: str = "") -> bytes:
    """End the rule with a verdict."""
    return expression("immediate", be32(1, NFT_REG_VERDICT), verdict_data(2, code, chain))


def jump(chain: str) -> bytes:
    """Go on in `chain`, then here."""
    name = chain.encode()
    return _jump_head(len(name)) + name + ZEROS[len(name) & 3]


# What stands behind a string of 0, 1, 2 or 3 bytes more than a multiple of 4: its zero, and padding.
ZEROS = (bytes(4), bytes(3), bytes(2), bytes(1))


@cache
def _jump_head(length: int) -> bytes:
    """What stands before the name of a chain: lengths depend on that of the name alone."""
    return verdict(NFT_JUMP, "-" * length)[: -length - len(ZEROS[length & 3])]


@cache
def map_verdict_head(code: int, length: int) -> bytes:
    """Likewise, in an element of a verdict map (NFTA_SET_ELEM_DATA)."""
    return verdict_data(2, code, "-" * length)[: -length - len(ZEROS[length & 3])]


@cache
def meta(key: int, register: int = NFT_REG_1) -> bytes:
    """Load what the kernel knows about the packet: an interface's name (16 bytes), mark, protocol."""
    return expression("meta", be32(2, key), be32(1, register))


def constant(data: bytes) -> bytes:
    """Load a constant of 4 bytes: the packet's mark, of which no bit is taken. The kernel has a shorter way,
    for which nft(8) has no words: it could not read its own listing any more."""
    return _constant_head() + data


@cache
def _constant_head() -> bytes:
    return (meta(NFT_META_MARK) + mask(bytes(4)))[:-4]


@cache
def set_meta(key: int, register: int = NFT_REG_1) -> bytes:
    """Store a register, as the packet's mark."""
    return expression("meta", be32(2, key), be32(3, register))


@cache
def conntrack(key: int, register: int = NFT_REG_1) -> bytes:
    """Load from the connection: state bits, mark."""
    return expression("ct", be32(2, key), be32(1, register))


@cache
def payload(base: int, offset: int, length: int, register: int = NFT_REG_1) -> bytes:
    """Load `length` bytes of a header. The rule does not match when the packet has none."""
    return expression("payload", be32(1, register), be32(2, base), be32(3, offset), be32(4, length))


@lru_cache(maxsize=65536)
def compare(data: bytes, *, equal: bool = True, register: int = NFT_REG_1) -> bytes:
    """Go on if the register's first bytes are (not) `data`."""
    return expression("cmp", be32(1, register), be32(2, NFT_CMP_EQ if equal else NFT_CMP_NEQ), value(3, data))


def within(first: bytes, last: bytes, *, inside: bool = True, register: int = NFT_REG_1) -> bytes:
    """Go on if the register is (not) between two values, both included."""
    operation = NFT_RANGE_EQ if inside else NFT_RANGE_NEQ
    return expression("range", be32(1, register), be32(2, operation), value(3, first), value(4, last))


def mask(bits: bytes, flip: bytes | None = None, register: int = NFT_REG_1) -> bytes:
    """register = (register & bits) ^ flip."""
    return expression(
        "bitwise",
        be32(1, register),
        be32(2, register),
        be32(3, len(bits)),
        be32(6, NFT_BITWISE_MASK_XOR),
        value(4, bits),
        value(5, bytes(len(bits)) if flip is None else flip),
    )


@lru_cache(maxsize=65536)
def lookup(set_name: str, *, inverted: bool = False, register: int = NFT_REG_1) -> bytes:
    """Go on if the register is (not) in the set."""
    return expression(
        "lookup",
        text(1, set_name),
        be32(2, register),
        be32(5, NFT_LOOKUP_F_INV if inverted else 0),
    )


def lookup_verdict(map_name: str, register: int = NFT_REG_1) -> bytes:
    """Follow the verdict that the map has for the register; without one, go on with the next rule."""
    return expression("lookup", text(1, map_name), be32(2, register), be32(3, NFT_REG_VERDICT), be32(5, 0))


def log(prefix: str) -> bytes:
    """Write the packet's headers to the kernel's log at level warning; `prefix` at most 127 bytes."""
    return expression("log", text(2, prefix), be32(5, LOG_WARNING))


def limit(packets: int, seconds: int, burst: int) -> bytes:
    """Go on for at most `packets` per `seconds`, with `burst` more at a time."""
    return expression(
        "limit", be64(1, packets), be64(2, seconds), be32(3, burst), be32(4, NFT_LIMIT_PKTS), be32(5, 0)
    )


def reject() -> bytes:
    """Answer with ICMP or ICMPv6 "administratively prohibited" and drop."""
    return expression(
        "reject",
        be32(1, NFT_REJECT_ICMPX_UNREACH),
        attribute(2, bytes((NFT_REJECT_ICMPX_ADMIN_PROHIBITED,))),
    )


def notrack() -> bytes:
    """Keep the packet out of connection tracking (raw priority only)."""
    return expression("notrack")
