"""How many addresses and blocks are in use, by pool and node. Pure, up to the gauges that show it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import Counter as CounterMetric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from tortie.controllers.picture import Allocation, Picture
from tortie.ipam import block as blocks
from tortie.ipam.block import Network
from tortie.ipam.pools import parse_network

NO_POOL: Final = "no_ippool"  # what Calico calls blocks that no pool contains
NO_NODE: Final = "unknown_node"

Place = tuple[str, str]  # pool, node


@dataclass(frozen=True, slots=True)
class Counts:
    """`borrowed`: addresses that a node holds in a block which is not its own."""

    in_use: Mapping[Place, int]
    borrowed: Mapping[Place, int]
    blocks: Mapping[Place, int]
    sizes: Mapping[str, int]
    reserved: Mapping[str, int]


def count(picture: Picture) -> Counts:
    """The figures of a picture."""
    pools = _pools(picture)
    in_use: Counter[Place] = Counter()
    borrowed: Counter[Place] = Counter()
    per_node: Counter[Place] = Counter()
    for cidr, block in picture.blocks.items():
        per_node[pool_of(cidr, pools), blocks.owner(block) or NO_NODE] += 1
    for allocation in picture.allocations():
        place = place_of(allocation, pools)
        in_use[place] += 1
        if allocation.node and blocks.owner(picture.blocks[allocation.block]) != allocation.node:
            borrowed[place] += 1
    return Counts(
        in_use=in_use,
        borrowed=borrowed,
        blocks=per_node,
        sizes={name: network.num_addresses for name, network in pools.items()},
        reserved={name: _reserved_in(network, picture.reserved) for name, network in pools.items()},
    )


def places_of(picture: Picture, allocations: Iterable[Allocation]) -> Counter[Place]:
    """How many of these are where."""
    pools = _pools(picture)
    return Counter(place_of(allocation, pools) for allocation in allocations)


def place_of(allocation: Allocation, pools: Mapping[str, Network]) -> Place:
    """Where an address counts."""
    return pool_of(allocation.block, pools), allocation.node or NO_NODE


def pool_of(cidr: Network, pools: Mapping[str, Network]) -> str:
    """The name of the pool that contains the block."""
    return next((name for name, network in pools.items() if blocks.within(cidr, network)), NO_POOL)


def _pools(picture: Picture) -> dict[str, Network]:
    found = ((pool.metadata.name, parse_network(pool.spec.cidr)) for pool in picture.pools)
    return {name: network for name, network in found if network is not None}


def _reserved_in(pool: Network, reserved: Iterable[Network]) -> int:
    """How many addresses of the pool are reserved, each counted once."""
    four = [item for item in reserved if isinstance(item, IPv4Network) and item.version == pool.version]
    six = [item for item in reserved if isinstance(item, IPv6Network) and item.version == pool.version]
    merged: list[Network] = [*collapse_addresses(four), *collapse_addresses(six)]
    return sum(min(item.num_addresses, pool.num_addresses) for item in merged if item.overlaps(pool))


class Metrics:
    """All metrics of the controllers, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.in_use = self._gauge("ipam_allocations_in_use", "Addresses that somebody holds")
        self.borrowed = self._gauge(
            "ipam_allocations_borrowed", "Addresses that a node holds in another node's block"
        )
        self.candidates = self._gauge(
            "ipam_allocations_gc_candidates", "Addresses without an owner, within their grace period"
        )
        self.reclamations = CounterMetric(
            "ipam_allocations_gc_reclamations",
            "Addresses that garbage collection has released",
            ["ippool", "node"],
            registry=self.registry,
        )
        self.blocks = self._gauge("ipam_blocks", "Blocks that belong to a node")
        self.size = Gauge("ipam_ippool_size", "Addresses of the pool", ["ippool"], registry=self.registry)
        self.reserved = Gauge(
            "ipam_ippool_reserved",
            "Addresses of the pool that an IPReservation keeps back",
            ["ippool"],
            registry=self.registry,
        )
        self.scans = CounterMetric(
            "tortie_ipam_gc_scans", "Scans for garbage that were carried through", registry=self.registry
        )

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["ippool", "node"], registry=self.registry)

    def show(self, counts: Counts) -> None:
        """Set what a picture says."""
        for gauge, values in (
            (self.in_use, counts.in_use),
            (self.borrowed, counts.borrowed),
            (self.blocks, counts.blocks),
        ):
            show_places(gauge, values)
        for gauge, sizes in ((self.size, counts.sizes), (self.reserved, counts.reserved)):
            gauge.clear()
            for pool, number in sizes.items():
                gauge.labels(pool).set(number)


def show_places(gauge: Gauge, values: Mapping[Place, int]) -> None:
    """Set a gauge; places without a value disappear from it."""
    gauge.clear()
    for (pool, node), number in values.items():
        gauge.labels(pool, node).set(number)
