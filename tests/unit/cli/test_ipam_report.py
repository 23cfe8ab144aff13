"""Pool and block usage, and who holds an address."""

from ipaddress import IPv4Address, IPv4Network, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from tortie.cli.ipam_report import (
    Usage,
    borrowed_table,
    configuration_table,
    holder,
    usage_table,
    usages,
)
from tortie.model.resources import (
    AllocationAttribute,
    IPAMBlock,
    IPAMBlockSpec,
    IPAMConfigSpec,
    IPPool,
    IPPoolSpec,
    Metadata,
)

POOL = IPPool(metadata=Metadata(name="default"), spec=IPPoolSpec(cidr="10.5.0.0/16"))


def block(cidr: str, used: int, deleted: bool = False) -> IPAMBlock:
    """A block whose first `used` addresses are held."""
    size = ip_network(cidr).num_addresses
    attribute = AllocationAttribute(handle_id="k8s.1", secondary={"pod": "web-0", "namespace": "shop"})
    return IPAMBlock(
        metadata=Metadata(name=cidr),
        spec=IPAMBlockSpec(
            cidr=cidr,
            affinity="host:worker-01",
            allocations=[0] * used + [None] * (size - used),
            unallocated=list(range(used, size)),
            attributes=[attribute] if used else [],
            deleted=deleted,
        ),
    )


def test_pool_counts_the_addresses_of_its_blocks() -> None:
    found = usages([POOL], [block("10.5.0.64/26", 5), block("10.5.0.0/26", 2), block("10.6.0.0/26", 9)])
    assert found == [Usage("IP Pool", IPv4Network("10.5.0.0/16"), 7)]
    assert (found[0].total, found[0].free) == (65536, 65529)


def test_blocks_follow_their_pool_in_order_of_address() -> None:
    found = usages([POOL], [block("10.5.1.0/26", 1), block("10.5.0.0/26", 2)], show_blocks=True)
    assert [(usage.grouping, str(usage.cidr), usage.used) for usage in found] == [
        ("IP Pool", "10.5.0.0/16", 3),
        ("Block", "10.5.0.0/26", 2),
        ("Block", "10.5.1.0/26", 1),
    ]


def test_block_in_deletion_does_not_count() -> None:
    assert usages([POOL], [block("10.5.0.0/26", 3, deleted=True)], show_blocks=True) == [
        Usage("IP Pool", IPv4Network("10.5.0.0/16"), 0)
    ]


def test_table_shows_numbers_and_shares() -> None:
    assert usage_table(usages([POOL], [block("10.5.0.0/26", 16)], show_blocks=True)) == (
        "+----------+-------------+-----------+------------+--------------+\n"
        "| GROUPING |    CIDR     | IPS TOTAL | IPS IN USE |   IPS FREE   |\n"
        "+----------+-------------+-----------+------------+--------------+\n"
        "| IP Pool  | 10.5.0.0/16 |     65536 | 16 (0%)    | 65520 (100%) |\n"
        "| Block    | 10.5.0.0/26 |        64 | 16 (25%)   | 48 (75%)     |\n"
        "+----------+-------------+-----------+------------+--------------+\n"
    )


def test_address_in_use_shows_who_holds_it() -> None:
    assert holder(IPv4Address("10.5.0.1"), [POOL], [block("10.5.0.0/26", 2)]) == (
        "IP 10.5.0.1 is in use\n"
        "Attributes:\n"
        "  namespace: shop\n"
        "  pod: web-0\n"
        "  handle: k8s.1\n"
        "  block: 10.5.0.0/26\n"
        "  block affinity: host:worker-01\n"
    )


def test_free_address_of_a_block_and_of_the_pool_is_not_assigned() -> None:
    blocks = [block("10.5.0.0/26", 2), block("10.5.1.0/26", 1, deleted=True)]
    for address in ("10.5.0.2", "10.5.1.0", "10.5.9.9"):
        assert holder(IPv4Address(address), [POOL], blocks) == f"{address} is not assigned\n"


def test_address_outside_every_pool_is_said_to_be() -> None:
    assert holder(IPv4Address("10.6.0.1"), [POOL], []) == "10.6.0.1 is in no IP pool\n"


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 64)), unique_by=lambda pair: pair[0], max_size=8)
)
def test_used_and_free_add_up_on_every_row(blocks: list[tuple[int, int]]) -> None:
    rows = usages([POOL], [block(f"10.5.{third}.0/26", used) for third, used in blocks], show_blocks=True)
    assert rows[0].used == sum(row.used for row in rows[1:])
    assert all(row.used + row.free == row.total for row in rows)


def test_huge_ipv6_pool_fits_into_the_table_behind_the_ipv4_pools() -> None:
    six = IPPool(metadata=Metadata(name="six"), spec=IPPoolSpec(cidr="fd00:5::/64"))
    held = block("fd00:5::/122", 2)
    rows = usages([six, POOL], [held], show_blocks=True)
    assert [str(row.cidr) for row in rows] == ["10.5.0.0/16", "fd00:5::/64", "fd00:5::/122"]
    assert rows[1].used == 2
    assert "1.8447e+19" in usage_table(rows)


def test_borrowed_addresses_are_listed_with_borrower_and_owner() -> None:
    stored = block("10.5.0.0/30", 1)
    stored.spec.attributes[0].secondary = {"node": "worker-02", "pod": "web-0", "namespace": "shop"}
    (row,) = [line for line in borrowed_table([stored]).splitlines() if "10.5.0.0 " in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["10.5.0.0", "worker-02", "10.5.0.0/30", "worker-01", "pod", "shop/web-0"]
    stored.spec.attributes[0].secondary = {"node": "worker-01"}
    assert "10.5.0.0 " not in borrowed_table([stored])


def test_configuration_shows_what_a_limit_of_zero_means() -> None:
    text = configuration_table(IPAMConfigSpec(strict_affinity=True, ip_cooldown_seconds=30))
    values = dict(line.strip("| ").replace(" ", "").split("|") for line in text.splitlines()[3:-1])
    assert values == {
        "StrictAffinity": "true",
        "AutoAllocateBlocks": "true",
        "MaxBlocksPerHost": "0(meaning20)",
        "IPCooldownSeconds": "30",
    }


def test_address_that_cools_down_is_neither_in_use_nor_free() -> None:
    stored = block("10.5.0.0/30", 1)
    stored.spec.attributes[0].handle_id = None
    stored.spec.attributes[0].released_at = "2030-01-01T00:00:00Z"
    text = holder(IPv4Address("10.5.0.0"), [POOL], [stored])
    assert text == "IP 10.5.0.0 was released at 2030-01-01T00:00:00Z and is not given out again yet\n"
