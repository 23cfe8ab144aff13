"""Masquerading of traffic that leaves the pools: one nftables table of our own, loaded in one transaction.

Priority 110 (srcnat + 10) is Calico's: whoever else translates the source, kube-proxy above all, comes first.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses, summarize_address_range
from typing import Any

from tortie.dataplane import nft
from tortie.routing.state import Masquerade

TABLE = "tortie_nat"
CHAIN = "postrouting"
PRIORITY = 110
RULES = (
    "ip daddr @pools return",
    # Random ports: of two packets that pick the same port at the same time one is lost (DNS over UDP).
    "ip saddr @sources masquerade fully-random",
)


@dataclass(frozen=True, slots=True)
class SetMasquerade:
    """Load the table, or remove it when there is nothing to masquerade."""

    masquerade: Masquerade

    def __str__(self) -> str:
        if not self.masquerade.sources:
            return f"remove nftables table {TABLE}"
        sources = ", ".join(map(str, sorted(self.masquerade.sources)))
        pools = ", ".join(map(str, sorted(self.masquerade.pools)))
        return f"masquerade {sources} except to {pools}"


@dataclass(frozen=True, slots=True)
class LoadedMasquerade:
    """What the kernel holds. `content` is None when the table is there but is not as we write it."""

    present: bool = False
    content: Masquerade | None = None


def _collapsed(networks: Iterable[IPv4Network]) -> frozenset[IPv4Network]:
    """The same addresses without overlap: an interval set takes no overlapping elements."""
    return frozenset(collapse_addresses(networks))


def normal(masquerade: Masquerade) -> Masquerade:
    """The form that is loaded and read back: without overlap, and empty when nothing is masqueraded."""
    if not masquerade.sources:
        return Masquerade()
    return Masquerade(_collapsed(masquerade.sources), _collapsed(masquerade.pools))


def change(loaded: LoadedMasquerade, desired: Masquerade) -> SetMasquerade | None:
    """What has to be done, or None."""
    wanted = normal(desired)
    if not wanted.sources:
        return SetMasquerade(wanted) if loaded.present else None
    return None if loaded.content == wanted else SetMasquerade(wanted)


def _mark(rule: str) -> str:
    """A rule's comment: it tells our rules from anything else, however nftables prints them."""
    return "tortie:" + hashlib.sha256(rule.encode()).hexdigest()[:16]


def _set(name: str, networks: Iterable[IPv4Network]) -> str:
    elements = ", ".join(map(str, sorted(networks)))
    return (
        f"set {name} {{ type ipv4_addr; flags interval;"
        + (f" elements = {{ {elements} }};" if elements else "")
        + " }"
    )


def script(masquerade: Masquerade) -> str:
    """The nftables transaction. Its only variable parts are networks, typed as such."""
    wanted = normal(masquerade)
    clear = f"add table ip {TABLE}\ndelete table ip {TABLE}\n"
    if not wanted.sources:
        return clear
    rules = "\n".join(f'  {rule} comment "{_mark(rule)}"' for rule in RULES)
    return (
        f"{clear}table ip {TABLE} {{\n"
        f" {_set('pools', wanted.pools)}\n {_set('sources', wanted.sources)}\n"
        f" chain {CHAIN} {{\n"
        f"  type nat hook postrouting priority {PRIORITY}; policy accept;\n{rules}\n }}\n}}\n"
    )


def read() -> LoadedMasquerade:
    """What the kernel holds in the calling thread's network namespace. Raise DataplaneError."""
    objects = nft.list_table("ip", TABLE)
    return LoadedMasquerade() if objects is None else LoadedMasquerade(True, parse(objects))


def load(masquerade: Masquerade) -> None:
    """Replace the table in one transaction; established connections keep their translation."""
    nft.run(script(masquerade))


def parse(objects: Iterable[Mapping[str, Any]]) -> Masquerade | None:
    """The content of the table, or None when it is not of our making. `objects` as of `nft -j list table`."""
    sets: dict[str, frozenset[IPv4Network]] = {}
    marks: list[str] = []
    chains: list[tuple[object, ...]] = []
    for item in objects:
        if "set" in item:
            elements = item["set"].get("elem", [])
            sets[item["set"]["name"]] = _collapsed(
                network for element in elements for network in _networks(element)
            )
        elif "rule" in item:
            marks.append(str(item["rule"].get("comment", "")))
        elif "chain" in item:
            chain = item["chain"]
            chains.append(tuple(chain.get(key) for key in ("name", "type", "hook", "prio", "policy")))
    ours = (
        chains == [(CHAIN, "nat", "postrouting", PRIORITY, "accept")]
        and marks == [_mark(rule) for rule in RULES]
        and sets.keys() == {"pools", "sources"}
    )
    return Masquerade(sets["sources"], sets["pools"]) if ours else None


def _networks(element: Any) -> list[IPv4Network]:
    """One element of a set: an address, a prefix or a range."""
    if isinstance(element, str):
        return [IPv4Network(element)]
    if "prefix" in element:
        return [IPv4Network((element["prefix"]["addr"], element["prefix"]["len"]))]
    first, last = element["range"]
    return list(summarize_address_range(IPv4Address(first), IPv4Address(last)))
