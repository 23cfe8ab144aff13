"""Which pools may serve a request, and which blocks a node tries in them. Pure."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final

from tortie.model.resources import AllowedUse, IPPool

# A pool without allowedUses serves these.
_DEFAULT_USES: Final[tuple[AllowedUse, ...]] = ("Workload", "Tunnel")
# Calico's limits for the prefix length of an IPv4 block.
_MIN_BLOCK_SIZE: Final = 20
_MAX_BLOCK_SIZE: Final = 32

_KEY: Final = r"[A-Za-z0-9_./-]+"
_TEXT: Final = r"""(?:"[^"]*"|'[^']*')"""
_ALL: Final = re.compile(r"all\(\s*\)|")
_HAS: Final = re.compile(rf"(!?)\s*has\(\s*({_KEY})\s*\)")
_COMPARE: Final = re.compile(rf"({_KEY})\s*(==|!=)\s*({_TEXT})")
_MEMBER: Final = re.compile(rf"({_KEY})\s+(in|not in)\s+\{{([^{{}}]*)\}}")


@dataclass(frozen=True, slots=True)
class Eligible:
    """A pool that may serve the request."""

    name: str
    network: IPv4Network
    block_size: int  # prefix length of its blocks

    def __str__(self) -> str:
        return f"{self.name} ({self.network}, blocks of /{self.block_size})"


@dataclass(frozen=True, slots=True)
class Selection:
    """`rejected` says for each other pool, in one clause, why it may not serve the request."""

    eligible: tuple[Eligible, ...]
    rejected: tuple[str, ...]


class SelectorError(ValueError):
    """The selector is outside what is understood here."""


def select(
    pools: Iterable[IPPool], use: AllowedUse, labels: Mapping[str, str], requested: bool = False
) -> Selection:
    """The pools that may give an address for `use` to a node with `labels`, in order of name.

    `requested`: the pools were asked for by name (a pod's annotation, the CNI configuration); then node
    selector and assignment mode do not matter, but a disabled pool stays disabled.
    """
    eligible: list[Eligible] = []
    rejected: list[str] = []
    for pool in sorted(pools, key=lambda item: item.metadata.name):
        reason = _reason_against(pool, use, labels, requested)
        if reason:
            rejected.append(f"{pool.metadata.name} {reason}")
        else:
            spec = pool.spec
            eligible.append(Eligible(pool.metadata.name, IPv4Network(spec.cidr), spec.block_size))
    return Selection(tuple(eligible), tuple(rejected))


def needs_labels(pools: Iterable[IPPool]) -> bool:
    """Whether some pool's node selector asks for more than `all()`."""
    return any(not _ALL.fullmatch(pool.spec.node_selector.strip()) for pool in pools)


def _reason_against(pool: IPPool, use: AllowedUse, labels: Mapping[str, str], requested: bool) -> str:
    spec = pool.spec
    if spec.disabled:
        return "is disabled"
    if use not in (spec.allowed_uses or _DEFAULT_USES):
        return f"does not allow the use {use} (allowedUses: {', '.join(spec.allowed_uses or _DEFAULT_USES)})"
    reason = _range_problem(spec.cidr, spec.block_size)
    if reason or requested:
        return reason
    if spec.assignment_mode == "Manual":
        return "gives addresses only on request (assignmentMode Manual)"
    try:
        return (
            "" if matches(spec.node_selector, labels) else f"does not select this node ({spec.node_selector})"
        )
    except SelectorError as error:
        return f"has a nodeSelector that is not understood: {error}"


def _range_problem(cidr: str, block_size: int) -> str:
    try:
        pool_network = IPv4Network(cidr)
    except ValueError:
        return f"has the CIDR {cidr}, which is not an IPv4 network"
    least = max(_MIN_BLOCK_SIZE, pool_network.prefixlen)
    if not least <= block_size <= _MAX_BLOCK_SIZE:
        return f"has blockSize {block_size}, which must be {least} to {_MAX_BLOCK_SIZE} for {cidr}"
    return ""


def matches(selector: str, labels: Mapping[str, str]) -> bool:
    """Evaluate a selector: terms joined by `&&`, each `all()`, `has(k)`, `!has(k)`, `k == "v"`, `k != "v"`,
    `k in {"a", "b"}` or `k not in {...}`. Raise SelectorError for anything else."""
    # All terms before the first answer: a selector is either understood as a whole or not at all.
    answers = [_term_matches(term.strip(), labels) for term in selector.split("&&")]
    return all(answers)


def _term_matches(term: str, labels: Mapping[str, str]) -> bool:
    if _ALL.fullmatch(term):
        return True
    if found := _HAS.fullmatch(term):
        return (found[2] in labels) is not bool(found[1])
    if found := _COMPARE.fullmatch(term):
        return (labels.get(found[1]) == found[3][1:-1]) is (found[2] == "==")
    if (found := _MEMBER.fullmatch(term)) and re.fullmatch(rf"\s*({_TEXT}\s*(,\s*{_TEXT}\s*)*)?", found[3]):
        values = [text[1:-1] for text in re.findall(_TEXT, found[3])]
        return (labels.get(found[1]) in values) is (found[2] == "in")
    raise SelectorError(f"{term!r} (understood: all(), has(), ==, !=, in, not in, joined by &&)")


def candidate_blocks(pool: Eligible, node: str) -> Iterator[IPv4Network]:
    """Every block of the pool once, from a place that depends on the node's name on, wrapping around.

    So nodes that start together rarely try the same block, and a node that returns tries its old one first.
    """
    count = 1 << (pool.block_size - pool.network.prefixlen)
    start = int.from_bytes(hashlib.sha256(node.encode()).digest()[:8], "big") % count
    step = 1 << (32 - pool.block_size)
    first = int(pool.network.network_address)
    for index in itertools.chain(range(start, count), range(start)):
        yield IPv4Network((first + index * step, pool.block_size))


def overlaps(pools: Sequence[IPPool]) -> list[tuple[str, str]]:
    """Names of the pools that have addresses in common, pair by pair. Invalid pools are left out."""
    networks = [
        (pool.metadata.name, IPv4Network(pool.spec.cidr))
        for pool in pools
        if not _range_problem(pool.spec.cidr, pool.spec.block_size)
    ]
    return [
        (left, right)
        for (left, one), (right, other) in itertools.combinations(sorted(networks), 2)
        if one.overlaps(other)
    ]
