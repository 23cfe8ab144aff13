from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tortie.datastore import codec
from tortie.ipam import block as blocks
from tortie.ipam.request import Address
from tortie.model.resources import IPAMBlock

CIDR = IPv4Network("10.5.0.64/29")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
COOLDOWN = timedelta(seconds=60)


def empty() -> IPAMBlock:
    return blocks.new_block(CIDR, "n1", NOW, 7)


def test_new_block_is_all_free_and_belongs_to_its_node() -> None:
    block = empty()
    assert block.metadata.name == "10-5-0-64-29"
    assert block.spec.affinity == "host:n1"
    assert block.spec.affinity_claim_time == "2026-01-02T03:04:05Z"
    assert block.spec.sequence_number == 7
    assert block.spec.unallocated == list(range(8))
    assert block.spec.allocations == [None] * 8
    assert blocks.is_empty(block)
    assert blocks.free_count(block) == 8
    assert blocks.belongs_to(block, "n1")
    assert not blocks.belongs_to(block, "n")


def test_assign_gives_the_first_free_addresses_and_records_who_has_them() -> None:
    block, addresses = blocks.assign(empty(), 2, "net.c1", {"pod": "web"})
    assert addresses == [IPv4Address("10.5.0.64"), IPv4Address("10.5.0.65")]
    assert blocks.addresses_of(block, "net.c1") == addresses
    assert block.spec.sequence_number == 8
    assert block.spec.sequence_number_for_allocation == {"0": 7, "1": 7}
    holder = blocks.holders(block)[addresses[0]]
    assert (holder.handle_id, holder.secondary) == ("net.c1", {"pod": "web"})
    assert len(block.spec.attributes) == 1


def test_assign_leaves_its_argument_alone() -> None:
    block = empty()
    before = msgspec.json.encode(block)
    changed, _addresses = blocks.assign(block, 3, "h", {})
    blocks.release_handle(changed, "h")
    assert msgspec.json.encode(block) == before


def test_assign_from_a_full_block_gives_what_is_left() -> None:
    block, _ = blocks.assign(empty(), 7, "a", {})
    block, addresses = blocks.assign(block, 3, "b", {})
    assert addresses == [IPv4Address("10.5.0.71")]
    block, addresses = blocks.assign(block, 1, "c", {})
    assert addresses == []
    assert [attribute.handle_id for attribute in block.spec.attributes] == ["a", "b"]


def test_assign_address_gives_a_certain_one_once() -> None:
    block = blocks.assign_address(empty(), IPv4Address("10.5.0.70"), "a", {})
    assert blocks.addresses_of(block, "a") == [IPv4Address("10.5.0.70")]
    with pytest.raises(blocks.AddressInUseError, match=r"10\.5\.0\.70"):
        blocks.assign_address(block, IPv4Address("10.5.0.70"), "b", {})
    with pytest.raises(blocks.BlockError, match=r"not in block 10\.5\.0\.64/29"):
        blocks.assign_address(block, IPv4Address("10.5.0.72"), "b", {})


def test_released_address_is_reused_last() -> None:
    block, (first,) = blocks.assign(empty(), 1, "a", {})
    block, _released = blocks.release_handle(block, "a")
    block, later = blocks.assign(block, 8, "b", {})
    assert later[-1] == first
    assert block.spec.unallocated == []
    assert [int(x) - int(CIDR.network_address) for x in later] == [1, 2, 3, 4, 5, 6, 7, 0]


def test_release_drops_attributes_that_nobody_needs_and_renumbers_the_rest() -> None:
    block, _ = blocks.assign(empty(), 1, "a", {})
    block, _ = blocks.assign(block, 2, "b", {})
    block, _ = blocks.assign(block, 1, "c", {})
    block, addresses = blocks.release_handle(block, "a")
    assert addresses == [IPv4Address("10.5.0.64")]
    assert [attribute.handle_id for attribute in block.spec.attributes] == ["b", "c"]
    assert block.spec.allocations[:4] == [None, 0, 0, 1]
    assert "0" not in block.spec.sequence_number_for_allocation


def test_release_with_the_sequence_number_of_an_earlier_holder_frees_nothing() -> None:
    block, (address,) = blocks.assign(empty(), 1, "a", {})
    seen = blocks.sequence_of(block, address)
    block, _ = blocks.release_handle(block, "a")
    block = blocks.assign_address(block, address, "b", {})
    with pytest.raises(blocks.StaleReleaseError, match=str(address)):
        blocks.release(block, {address: seen})
    block = blocks.release(block, {address: blocks.sequence_of(block, address)})
    assert blocks.is_empty(block)


def test_release_is_all_or_none() -> None:
    block, (one, two) = blocks.assign(empty(), 2, "a", {})
    with pytest.raises(blocks.StaleReleaseError):
        blocks.release(block, {one: None, two: 999})
    assert blocks.addresses_of(block, "a") == [one, two]


def test_release_of_a_free_address_is_no_error() -> None:
    block = blocks.release(empty(), {IPv4Address("10.5.0.64"): 3})
    assert block.spec.unallocated == list(range(8))


def test_touch_changes_nothing_but_the_sequence_number() -> None:
    block = blocks.touch(empty())
    assert block.spec.sequence_number == 8
    block.spec.sequence_number = 7
    assert block == empty()


def test_block_survives_the_wire() -> None:
    block, _ = blocks.assign(empty(), 3, "a", {"node": "n1"})
    assert codec.decode(IPAMBlock, codec.encode(block)) == block


def test_reserved_addresses_are_passed_over_but_given_when_asked_for() -> None:
    reserved = [ip_network("10.5.0.64/30"), ip_network("10.5.0.70/32"), ip_network("fd00::/8")]
    assert blocks.free_count(empty(), reserved) == 3
    block, addresses = blocks.assign(empty(), 8, "a", {}, reserved)
    assert [str(address) for address in addresses] == ["10.5.0.68", "10.5.0.69", "10.5.0.71"]
    block = blocks.assign_address(block, ip_address("10.5.0.64"), "b", {})
    assert len(blocks.holders(block)) == 4


def test_released_addresses_cool_down_in_order_and_are_reused_last() -> None:
    block, (one, two, three) = blocks.assign(empty(), 3, "a", {"pod": "web"})
    block = blocks.release(block, {two: None}, NOW)
    block = blocks.release(block, {one: None}, NOW + timedelta(seconds=1))
    assert list(blocks.holders(block)) == [three]
    assert blocks.allocated(block)[two].released_at == "2026-01-02T03:04:05Z"
    assert blocks.allocated(block)[two].secondary == {"pod": "web"}
    assert blocks.thaw(block, NOW + timedelta(seconds=59), COOLDOWN) is block
    thawed = blocks.thaw(block, NOW + timedelta(seconds=61), COOLDOWN)
    assert thawed.spec.unallocated[-2:] == [1, 0]
    assert blocks.thaw(block, NOW - timedelta(days=1), COOLDOWN).spec.unallocated[-2:] == [1, 0]


def test_ipv6_block() -> None:
    block = blocks.new_block(ip_network("fd00:5::40/122"), "n1", NOW, 7)
    assert block.metadata.name == "fd00-5--40-122"
    block, (address,) = blocks.assign(block, 1, "a", {})
    assert str(address) == "fd00:5::40"
    assert blocks.block_of(address, 122) == ip_network("fd00:5::40/122")
    with pytest.raises(blocks.BlockError, match="not in block"):
        blocks.assign_address(block, IPv4Address("10.5.0.64"), "a", {})


class BlockMachine(RuleBasedStateMachine):
    """A block against the obvious model: a dictionary from address to handle."""

    def __init__(self) -> None:
        super().__init__()
        self.block = empty()
        self.model: dict[Address, str] = {}
        self.cooling: dict[Address, datetime] = {}
        self.now = NOW
        self.sequence = self.block.spec.sequence_number

    @rule(count=st.integers(0, 9), handle=st.sampled_from("abcd"), pod=st.sampled_from("xy"))
    def assign(self, count: int, handle: str, pod: str) -> None:
        self.block, addresses = blocks.assign(self.block, count, handle, {"pod": pod})
        assert len(addresses) == min(count, 8 - len(self.model) - len(self.cooling))
        assert not set(addresses) & (set(self.model) | set(self.cooling))
        self.model |= dict.fromkeys(addresses, handle)

    @rule(handle=st.sampled_from("abcd"))
    def release_handle(self, handle: str) -> None:
        self.block, addresses = blocks.release_handle(self.block, handle)
        assert set(addresses) == {address for address, holder in self.model.items() if holder == handle}
        self.model = {address: holder for address, holder in self.model.items() if holder != handle}

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def release_one(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.model)))
        self.block = blocks.release(self.block, {address: blocks.sequence_of(self.block, address)})
        del self.model[address]

    @rule(handle=st.sampled_from("abcd"))
    def release_handle_to_cool_down(self, handle: str) -> None:
        self.block, addresses = blocks.release_handle(self.block, handle, self.now)
        self.cooling |= dict.fromkeys(addresses, self.now)
        self.model = {address: holder for address, holder in self.model.items() if holder != handle}

    @rule(seconds=st.integers(0, 40))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def thaw(self) -> None:
        over = {address for address, since in self.cooling.items() if self.now - since >= COOLDOWN}
        thawed = blocks.thaw(self.block, self.now, COOLDOWN)
        assert (thawed is self.block) == (not over)
        self.block = thawed
        self.cooling = {address: since for address, since in self.cooling.items() if address not in over}

    @invariant()
    def block_agrees_with_the_model(self) -> None:
        spec = self.block.spec
        held = {address: holder.handle_id for address, holder in blocks.holders(self.block).items()}
        assert held == self.model
        free = {ordinal for ordinal, index in enumerate(spec.allocations) if index is None}
        assert sorted(spec.unallocated) == sorted(free)
        assert set(blocks.allocated(self.block)) == set(self.model) | set(self.cooling)
        assert set(spec.sequence_number_for_allocation) == {str(n) for n in range(8) if n not in free}
        assert {index for index in spec.allocations if index is not None} == set(range(len(spec.attributes)))
        assert spec.sequence_number >= self.sequence
        self.sequence = spec.sequence_number


TestBlockMachine = BlockMachine.TestCase
TestBlockMachine.settings = settings(deadline=None)


@settings(deadline=None)
@given(st.integers(20, 32))
def test_every_address_of_a_block_is_given_out_exactly_once(prefix: int) -> None:
    cidr = IPv4Network((int(IPv4Address("10.64.0.0")), prefix))
    block = blocks.new_block(cidr, "n", NOW, 1)
    _block, addresses = blocks.assign(block, cidr.num_addresses + 1, "h", {})
    assert addresses == list(cidr)
