"""What the metrics say."""

from datetime import UTC, datetime
from ipaddress import ip_network

from tests.components import ipam_audit as audit
from tortie.controllers.counting import Metrics, count
from tortie.controllers.picture import Picture, by_network
from tortie.ipam import block as blocks
from tortie.model.resources import IPAMBlock

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def a_block(cidr: str, node: str, *holders: str) -> IPAMBlock:
    block = blocks.new_block(ip_network(cidr), node, NOW, 1)
    for number, holder in enumerate(holders):
        block, _ = blocks.assign(block, 1, f"{cidr}-{number}", {"node": holder} if holder else {})
    return block


PICTURE = Picture(
    nodes=frozenset({"n1", "n2"}),
    pods={},
    blocks=by_network(
        [
            a_block("10.5.0.0/28", "n1", "n1", "n1", "n2"),
            a_block("10.5.0.16/28", "n1"),
            a_block("10.5.0.32/28", "n2", "n2", ""),
            a_block("10.9.0.0/28", "n2", "n2"),
        ]
    ),
    pools=(audit.pool("10.5.0.0/24", 28, "four"), audit.pool("fd00:5::/120", 124, "six")),
    reserved=tuple(
        map(
            ip_network,
            ("10.5.0.0/30", "10.5.0.2", "10.5.0.128/25", "10.0.0.0/29", "fd00::/16", "10.6.0.0/16"),
        )
    ),
)


def test_addresses_and_blocks_are_counted_by_pool_and_node() -> None:
    counts = count(PICTURE)
    assert dict(counts.in_use) == {
        ("four", "n1"): 2,
        ("four", "n2"): 2,
        ("four", "unknown_node"): 1,
        ("no_ippool", "n2"): 1,
    }
    assert dict(counts.borrowed) == {("four", "n2"): 1}
    assert dict(counts.blocks) == {("four", "n1"): 2, ("four", "n2"): 1, ("no_ippool", "n2"): 1}


def test_reserved_addresses_of_a_pool_are_counted_once() -> None:
    counts = count(PICTURE)
    assert counts.sizes == {"four": 256, "six": 256}
    assert counts.reserved == {"four": 4 + 128, "six": 256}


def test_what_is_no_longer_there_disappears_from_the_metrics() -> None:
    metrics = Metrics()
    metrics.show(count(PICTURE))
    place = {"ippool": "four", "node": "n1"}
    assert metrics.registry.get_sample_value("ipam_allocations_in_use", place) == 2
    assert metrics.registry.get_sample_value("ipam_ippool_reserved", {"ippool": "four"}) == 132
    metrics.show(count(Picture(frozenset(), {}, {})))
    assert metrics.registry.get_sample_value("ipam_allocations_in_use", place) is None
    assert metrics.registry.get_sample_value("ipam_ippool_size", {"ippool": "four"}) is None
