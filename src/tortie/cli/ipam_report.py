"""How full pools and blocks are, who borrows, and who holds an address: IPAM objects in, text out. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tortie.cli.tables import boxed
from tortie.ipam import block as blocks
from tortie.ipam.block import Network
from tortie.ipam.pools import parse_network
from tortie.ipam.request import Address
from tortie.ipam.search import DEFAULT_MAX_BLOCKS
from tortie.model.resources import IPAMBlock, IPAMConfigSpec, IPPool

HEADINGS: Final = ("GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE")
_BORROWED: Final = ("IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO")


@dataclass(frozen=True, slots=True)
class Usage:
    """Addresses of a pool or a block; `total` counts every address of `cidr`. One that cools down is used."""

    grouping: str
    cidr: Network
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
            _number(self.total),
            _share(self.used, self.total),
            _share(self.free, self.total),
        )


def _number(value: int) -> str:
    """Seven digits at most: an IPv6 pool has more addresses than a table has room for."""
    return str(value) if value < 10**7 else f"{value:.4e}"


def _share(part: int, whole: int) -> str:
    return f"{_number(part)} ({round(100 * part / whole)}%)"


def usages(pools: Iterable[IPPool], stored: Iterable[IPAMBlock], show_blocks: bool = False) -> list[Usage]:
    """Pools by address, each followed by its blocks when `show_blocks`."""
    living = sorted(living_blocks(stored), key=lambda pair: blocks.position(pair[0]))
    found: list[Usage] = []
    for cidr in sorted(_networks(pools), key=blocks.position):
        inside = [
            Usage("Block", network, len(blocks.allocated(block)))
            for network, block in living
            if blocks.within(network, cidr)
        ]
        found.append(Usage("IP Pool", cidr, sum(usage.used for usage in inside)))
        if show_blocks:
            found += inside
    return found


def living_blocks(stored: Iterable[IPAMBlock]) -> Iterator[tuple[Network, IPAMBlock]]:
    """Blocks with their ranges, without those that are being deleted or whose CIDR is no network."""
    for block in stored:
        cidr = parse_network(block.spec.cidr)
        if cidr is not None and not block.spec.deleted:
            yield cidr, block


def _networks(pools: Iterable[IPPool]) -> Iterator[Network]:
    return (cidr for pool in pools if (cidr := parse_network(pool.spec.cidr)) is not None)


def usage_table(rows: Sequence[Usage]) -> str:
    """The table of `ipam show`."""
    return boxed(HEADINGS, [usage.cells() for usage in rows], right=(2,))


def borrowed_table(stored: Iterable[IPAMBlock]) -> str:
    """The table of `ipam show --show-borrowed`: addresses that a node holds in another one's block."""
    rows: list[tuple[str, ...]] = []
    for cidr, block in sorted(living_blocks(stored), key=lambda pair: blocks.position(pair[0])):
        owner = blocks.owner(block)
        for address, attribute in blocks.holders(block).items():
            facts = attribute.secondary or {}
            node = facts.get("node")
            if node is None or node == owner:
                continue
            if facts.get("pod"):
                kind, holder = "pod", f"{facts.get('namespace', '')}/{facts['pod']}"
            else:
                kind, holder = facts.get("type", "-"), attribute.handle_id or "-"
            rows.append((str(address), node, str(cidr), owner or "-", kind, holder))
    return boxed(_BORROWED, rows)


def configuration_table(config: IPAMConfigSpec) -> str:
    """The table of `ipam show --show-configuration`."""
    limit = config.max_blocks_per_host
    return boxed(
        ("PROPERTY", "VALUE"),
        [
            ("StrictAffinity", str(config.strict_affinity).lower()),
            ("AutoAllocateBlocks", str(config.auto_allocate_blocks).lower()),
            ("MaxBlocksPerHost", str(limit) if limit else f"0 (meaning {DEFAULT_MAX_BLOCKS})"),
            ("IPCooldownSeconds", str(config.ip_cooldown_seconds or 0)),
        ],
    )


def holder(address: Address, pools: Iterable[IPPool], stored: Iterable[IPAMBlock]) -> str:
    """A few lines about one address: in use and by whom, cooling down, free, or outside every pool."""
    if not any(address in cidr for cidr in _networks(pools)):
        return f"{address} is in no IP pool\n"
    for cidr, block in living_blocks(stored):
        attribute = blocks.allocated(block).get(address) if address in cidr else None
        if attribute is None:
            continue
        if blocks.is_cooling(attribute):
            return f"IP {address} was released at {attribute.released_at} and is not given out again yet\n"
        lines = [f"IP {address} is in use", "Attributes:"]
        lines += [f"  {name}: {value}" for name, value in sorted((attribute.secondary or {}).items())]
        lines += [f"  handle: {attribute.handle_id or 'none'}", f"  block: {cidr}"]
        lines += [f"  block affinity: {block.spec.affinity or 'none'}"]
        return "\n".join(lines) + "\n"
    return f"{address} is not assigned\n"
