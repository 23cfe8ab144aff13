"""What decides whether floating addresses are in force, and who routes them."""

from ipaddress import IPv4Address

import pytest

from tortie.agent.floating import enabled
from tortie.agent.reconcile import Watches, take_snapshot
from tortie.datastore.memory import MemoryDatastore
from tortie.model.felix import FelixConfigurationSpec
from tortie.model.resources import BlockAffinity, BlockAffinitySpec, IPPool, IPPoolSpec, Metadata
from tortie.routing.borrowed import Borrowed


@pytest.mark.parametrize(
    ("value", "expected"), [("", False), ("Disabled", False), ("Enabled", True), ("enabled", True)]
)
def test_floating_addresses_are_off_until_felix_configuration_wants_them(value: str, expected: bool) -> None:
    assert enabled(FelixConfigurationSpec(floating_ips=value)) is expected


def test_agents_route_other_nodes_floating_addresses_only_in_pools_with_vxlan_and_outside_of_blocks() -> None:
    watches = Watches.of(MemoryDatastore())
    pools = {
        "plain": IPPoolSpec(cidr="10.99.0.0/24"),
        "tunnelled": IPPoolSpec(cidr="10.98.0.0/24", vxlan_mode="CrossSubnet"),
    }
    for name, spec in pools.items():
        watches.pools.items["", name] = IPPool(metadata=Metadata(name=name), spec=spec)
    known = Borrowed(IPv4Address("10.5.0.1"), "two")
    inside = Borrowed(IPv4Address("10.98.0.7"), "two")
    watches.affinities.items["", "two-10-98-0-64-26"] = BlockAffinity(
        spec=BlockAffinitySpec(cidr="10.98.0.64/26", node="three", state="confirmed")
    )
    elsewhere = ("10.99.0.7", "203.0.113.7", "10.98.0.64", "10.98.0.127")  # the last two within a block
    outside = {Borrowed(IPv4Address(address), "two") for address in elsewhere}
    snapshot = take_snapshot(watches, frozenset({known}), frozenset({inside, *outside}))
    assert snapshot.cluster.borrowed == {known, inside}
