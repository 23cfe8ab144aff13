"""Which addresses are borrowed, read from blocks that come, change and go."""

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from tortie.model.resources import AllocationAttribute, IPAMBlock, IPAMBlockSpec
from tortie.routing.borrowed import Borrowed, BorrowedIndex, borrowed_in


def block(
    owner: str | None, *holders: str | None, cidr: str = "10.5.1.0/29", released: frozenset[int] = frozenset()
) -> IPAMBlock:
    """A block whose ordinal i is held by node `holders[i]`; those in `released` cool down."""
    attributes = [
        AllocationAttribute(
            handle_id=f"h{number}",
            secondary={"node": holder},
            released_at="2026-01-31T10:20:30Z" if number in released else None,
        )
        for number, holder in enumerate(holders)
        if holder
    ]
    indexes: list[int | None] = []
    for holder in holders:
        indexes.append(len([index for index in indexes if index is not None]) if holder else None)
    return IPAMBlock(
        spec=IPAMBlockSpec(
            cidr=cidr,
            affinity=f"host:{owner}" if owner else None,
            allocations=indexes + [None] * (8 - len(indexes)),
            unallocated=[],
            attributes=attributes,
        )
    )


def borrowed(*pairs: tuple[str, str]) -> frozenset[Borrowed]:
    return frozenset(Borrowed(IPv4Address(address), node) for address, node in pairs)


def test_address_of_another_node_than_the_owner_is_borrowed() -> None:
    assert borrowed_in(block("n1", "n1", "n2", None, "n3")) == borrowed(
        ("10.5.1.1", "n2"), ("10.5.1.3", "n3")
    )


def test_every_address_of_a_block_without_owner_is_borrowed() -> None:
    assert borrowed_in(block(None, "n1", "n2")) == borrowed(("10.5.1.0", "n1"), ("10.5.1.1", "n2"))


def test_address_that_cools_down_is_nobodys() -> None:
    assert borrowed_in(block("n1", "n2", "n3", released=frozenset({0}))) == borrowed(("10.5.1.1", "n3"))


def test_address_without_a_node_cannot_be_placed() -> None:
    item = block("n1", "n2")
    item.spec.attributes[0].secondary = {"pod": "x"}
    assert borrowed_in(item) == frozenset()
    item.spec.attributes[0].secondary = None
    assert borrowed_in(item) == frozenset()


def test_block_on_its_way_out_of_another_family_or_malformed_has_none() -> None:
    gone = block("n1", "n2")
    gone.spec.deleted = True
    assert borrowed_in(gone) == frozenset()
    assert borrowed_in(block("n1", "n2", cidr="fd00::/125")) == frozenset()
    assert borrowed_in(block("n1", "n2", cidr="10.5.1.1/29")) == frozenset()


def test_index_says_whether_a_borrowed_address_came_or_went() -> None:
    index = BorrowedIndex[str]()
    plain, lender = block("n1", "n1"), block("n2", "n3", cidr="10.5.2.0/29")
    assert index.update({"a": plain}) is False
    assert index.update({"a": block("n1", "n1", "n1")}) is False
    assert index.update({"a": plain, "b": lender}) is True
    assert index.addresses == borrowed(("10.5.2.0", "n3"))
    assert index.update({"a": plain, "b": block("n2", "n3", "n2", cidr="10.5.2.0/29")}) is False
    assert index.update({"a": plain}) is True
    assert index.addresses == frozenset()


holders = st.lists(st.sampled_from([None, "n1", "n2", "n3"]), max_size=8)
owners = st.sampled_from([None, "n1", "n2"])


@given(st.lists(st.dictionaries(st.integers(0, 3), st.tuples(owners, holders), max_size=4), max_size=6))
def test_index_knows_at_any_time_what_reading_all_blocks_would_find(
    history: list[dict[int, tuple[str | None, list[str | None]]]],
) -> None:
    index = BorrowedIndex[int]()
    standing: dict[int, tuple[tuple[str | None, list[str | None]], IPAMBlock]] = {}
    for moment in history:
        standing = {
            key: standing[key]
            if key in standing and standing[key][0] == wish
            else (wish, block(wish[0], *wish[1], cidr=f"10.5.{key}.0/29"))
            for key, wish in moment.items()
        }
        before = index.addresses
        changed = index.update({key: item for key, (_wish, item) in standing.items()})
        expected = frozenset().union(*(borrowed_in(item) for _wish, item in standing.values()))
        assert index.addresses == expected
        assert changed is (expected != before)
