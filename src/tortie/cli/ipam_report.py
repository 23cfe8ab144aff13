"""How full pools and blocks are, and who holds an address: IPAM objects in, numbers and text out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from tortie.cli.tables import boxed
from tortie.model.resources import IPAMBlock, IPPool

HEADINGS: Final = ("GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE")


@dataclass(frozen=True, slots=True)
class Usage:
    """Addresses of a pool or a block; `total` counts every address of `cidr`."""

    grouping: str
    cidr: IPv4Network
    used: int

    @property
    def total(self) -> int:
        """Number of addresses."""
        return self.cidr.num_addresses

    @property
    def free(self) -> int:
        """Addresses that nobody holds, whether or not a node has claimed their block."""
        return self.total - self.used

    def cells(self) -> tuple[str, str, str, str, str]:
        """One row under HEADINGS."""
        return (
            self.grouping,
            str(self.cidr),
            str(self.total),
            _share(self.used, self.total),
            _share(self.free, self.total),
        )


def _share(part: int, whole: int) -> str:
    return f"{part} ({round(100 * part / whole)}%)"


def usages(pools: Iterable[IPPool], blocks: Iterable[IPAMBlock], show_blocks: bool = False) -> list[Usage]:
    """Pools by address, each followed by its blocks when `show_blocks`."""
    living = sorted(
        ((IPv4Network(block.spec.cidr), block) for block in blocks if not block.spec.deleted),
        key=lambda pair: pair[0],
    )
    found: list[Usage] = []
    for cidr in sorted(_ipv4_cidrs(pools)):
        inside = [
            Usage("Block", network, _allocated(block)) for network, block in living if network.subnet_of(cidr)
        ]
        found.append(Usage("IP Pool", cidr, sum(usage.used for usage in inside)))
        if show_blocks:
            found += inside
    return found


def _ipv4_cidrs(pools: Iterable[IPPool]) -> Iterator[IPv4Network]:
    return (IPv4Network(pool.spec.cidr) for pool in pools if ":" not in pool.spec.cidr)


def _allocated(block: IPAMBlock) -> int:
    return sum(1 for index in block.spec.allocations if index is not None)


def usage_table(rows: Sequence[Usage]) -> str:
    """The table of `ipam show`."""
    return boxed(HEADINGS, [usage.cells() for usage in rows], right=(2,))


def holder(address: IPv4Address, pools: Iterable[IPPool], blocks: Iterable[IPAMBlock]) -> str:
    """A few lines about one address: in use and by whom, free, or outside every pool."""
    if not any(address in cidr for cidr in _ipv4_cidrs(pools)):
        return f"{address} is in no IP pool\n"
    for block in blocks:
        cidr = IPv4Network(block.spec.cidr)
        if block.spec.deleted or address not in cidr:
            continue
        index = block.spec.allocations[int(address) - int(cidr.network_address)]
        if index is None:
            break
        attribute = block.spec.attributes[index]
        lines = [f"IP {address} is in use", "Attributes:"]
        lines += [f"  {name}: {value}" for name, value in sorted((attribute.secondary or {}).items())]
        lines += [f"  handle: {attribute.handle_id or 'none'}", f"  block: {cidr}"]
        lines += [f"  block affinity: {block.spec.affinity or 'none'}"]
        return "\n".join(lines) + "\n"
    return f"{address} is not assigned\n"
