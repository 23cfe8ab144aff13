"""Which IPAM objects are garbage: a picture of the cluster and what was seen before in, decisions out. Pure.

Nothing is garbage at first sight, except what belonged to a node that is gone:

- an address whose pod does not own it must be seen so for the whole grace period, and every address of its
  handle with it (all or none);
- a handle that holds nothing, and an affinity that is unconfirmed or without its block, must stay unchanged
  for the grace period;
- a block without an address must be seen so twice in a row with nothing written in between, and a node that
  exists keeps its last one of each family, as long as a pool contains it.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tortie.controllers.picture import Allocation, Picture, judge
from tortie.ipam import block as blocks
from tortie.ipam.block import Network
from tortie.ipam.pools import parse_network
from tortie.ipam.request import Address
from tortie.model.constants import AFFINITY_TYPE_HOST
from tortie.model.names import handle_name
from tortie.model.resources import BlockAffinity, IPAMBlock, IPAMHandle


@dataclass(frozen=True, slots=True)
class Leak:
    """All addresses of one handle; `handle_id` is None for an address that has none."""

    handle_id: str | None
    allocations: tuple[Allocation, ...]
    orphaned: bool  # its node is gone

    def sequences(self) -> dict[Network, dict[Address, int | None]]:
        """What to release, by block."""
        found: dict[Network, dict[Address, int | None]] = defaultdict(dict)
        for allocation in self.allocations:
            found[allocation.block][allocation.address] = allocation.sequence
        return dict(found)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, in this order. `suspects`: seen without an owner, not for long enough yet."""

    leaks: tuple[Leak, ...] = ()
    cooled: tuple[Network, ...] = ()
    idle_handles: tuple[IPAMHandle, ...] = ()
    empty_blocks: tuple[IPAMBlock, ...] = ()
    affinities: tuple[BlockAffinity, ...] = ()
    suspects: tuple[Allocation, ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier scans saw: since when (seconds of a monotonic clock), by what identifies an unchanged
    thing."""

    since: Mapping[Hashable, float] = field(default_factory=dict)
    empty: frozenset[Hashable] = frozenset()


def decide(
    picture: Picture,
    memory: Memory,
    now: datetime,
    seconds: float,
    grace: float,
    cooldown: timedelta = timedelta(),
) -> tuple[Decision, Memory]:
    """One scan. `now` is the time of day, for the cool-down; `seconds` a monotonic clock's, for `grace`."""
    since: dict[Hashable, float] = {}

    def long_enough(key: Hashable) -> bool:
        since[key] = memory.since.get(key, seconds)
        return seconds - since[key] >= grace

    leaks, suspects = _leaks(picture, long_enough)
    empty_now = {_version(block) for block in picture.blocks.values() if blocks.is_empty(block)}
    decision = Decision(
        leaks=tuple(leaks),
        cooled=tuple(
            cidr for cidr, block in picture.blocks.items() if blocks.thaw(block, now, cooldown) is not block
        ),
        idle_handles=tuple(
            handle for handle in _idle_handles(picture) if long_enough(("handle", *_identity(handle)))
        ),
        empty_blocks=tuple(_unused_blocks(picture, memory.empty & empty_now)),
        affinities=tuple(
            affinity
            for affinity in _odd_affinities(picture)
            if affinity.spec.node not in picture.nodes or long_enough(("affinity", *_identity(affinity)))
        ),
        suspects=tuple(suspects),
    )
    return decision, Memory(since, frozenset(empty_now))


def _leaks(picture: Picture, long_enough: Callable[[Hashable], bool]) -> tuple[list[Leak], list[Allocation]]:
    by_handle: dict[Hashable, list[Allocation]] = defaultdict(list)
    for allocation in picture.allocations():
        by_handle[allocation.handle_id or allocation.key].append(allocation)
    leaks: list[Leak] = []
    suspects: list[Allocation] = []
    for held in by_handle.values():
        verdicts = {
            judge(
                item, item.node in picture.nodes, picture.pods.get(item.pod) if item.pod is not None else None
            )
            for item in held
        }
        if "valid" in verdicts:
            continue
        waited = [long_enough(("address", item.key)) for item in held]  # each is remembered
        if verdicts == {"orphaned"} or all(waited):
            leaks.append(Leak(held[0].handle_id, tuple(held), verdicts == {"orphaned"}))
        else:
            suspects += held
    return leaks, suspects


def _idle_handles(picture: Picture) -> Iterable[IPAMHandle]:
    busy = {handle_name(item.handle_id) for item in picture.allocations() if item.handle_id}
    return (handle for handle in picture.handles if handle.metadata.name not in busy)


def _unused_blocks(picture: Picture, twice_empty: frozenset[Hashable]) -> list[IPAMBlock]:
    """Empty blocks that their node can do without."""
    pools = [network for pool in picture.pools if (network := parse_network(pool.spec.cidr)) is not None]
    remaining: dict[tuple[str | None, int], int] = defaultdict(int)
    for cidr, block in picture.blocks.items():
        remaining[blocks.owner(block), cidr.version] += 1
    found: list[IPAMBlock] = []
    for cidr, block in sorted(picture.blocks.items(), key=lambda pair: blocks.position(pair[0])):
        node = blocks.owner(block)
        if not blocks.is_empty(block) or (node is None and block.spec.affinity):
            continue  # in use, or a load balancer's
        gone = node is None or node not in picture.nodes
        pooled = any(blocks.within(cidr, pool) for pool in pools)
        if gone or (_version(block) in twice_empty and (remaining[node, cidr.version] > 1 or not pooled)):
            found.append(block)
            remaining[node, cidr.version] -= 1
    return found


def _odd_affinities(picture: Picture) -> Iterable[BlockAffinity]:
    """Affinities of nodes that are not confirmed, or whose block is another's or nobody's."""
    for affinity in picture.affinities:
        if affinity.spec.type != AFFINITY_TYPE_HOST:
            continue
        cidr = parse_network(affinity.spec.cidr)
        block = picture.blocks.get(cidr) if cidr is not None else None
        ours = block is not None and blocks.belongs_to(block, affinity.spec.node)
        if affinity.spec.state != "confirmed" or not ours:
            yield affinity


def _version(block: IPAMBlock) -> Hashable:
    """Differs after every write."""
    return block.metadata.uid, block.spec.cidr, block.spec.sequence_number


def _identity(resource: IPAMHandle | BlockAffinity) -> tuple[str, str, str]:
    """Differs after every write."""
    return resource.metadata.name, resource.metadata.uid, resource.metadata.resource_version
