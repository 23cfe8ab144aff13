import pytest

from tests.components import ipam_audit as audit
from tortie.cli.ipam_split import SplitError, chosen, parts
from tortie.model.resources import IPPool, IPPoolSpec, Metadata


def test_parts_cover_the_pool_and_keep_everything_else() -> None:
    spec = IPPoolSpec(
        cidr="10.5.0.0/16", block_size=28, vxlan_mode="Always", nat_outgoing=True, disabled=True
    )
    pool = IPPool(metadata=Metadata(name="p", uid="u", resource_version="7", labels={"a": "b"}), spec=spec)
    made = parts(pool, 4)
    assert [(item.metadata.name, item.spec.cidr) for item in made] == [
        ("split-p-0", "10.5.0.0/18"),
        ("split-p-1", "10.5.64.0/18"),
        ("split-p-2", "10.5.128.0/18"),
        ("split-p-3", "10.5.192.0/18"),
    ]
    for item in made:
        assert (item.metadata.uid, item.metadata.resource_version, item.metadata.labels) == (
            "",
            "",
            {"a": "b"},
        )
        assert (item.spec.vxlan_mode, item.spec.nat_outgoing, item.spec.disabled) == ("Always", True, True)
        assert item.spec.block_size == 28


def test_ipv6_pool_is_split_too() -> None:
    made = parts(audit.pool("fd00:5::/64", 122), 2)
    assert [item.spec.cidr for item in made] == ["fd00:5::/65", "fd00:5:0:0:8000::/65"]


@pytest.mark.parametrize(
    ("cidr", "number", "said"),
    [
        ("10.5.0.0/24", 3, "NUMBER is 3; it must be a power of two"),
        ("10.5.0.0/24", 1, "NUMBER is 1"),
        ("10.5.0.0/24", 0, "NUMBER is 0"),
        ("10.5.0.0/24", -2, "NUMBER is -2"),
        ("10.5.0.0/24", 8, "has 4 blocks of /26, so it cannot become 8 pools; 4 at most"),
        ("nonsense", 2, "no network"),
    ],
)
def test_pool_that_cannot_be_split_like_this_is_refused(cidr: str, number: int, said: str) -> None:
    with pytest.raises(SplitError, match=said):
        parts(audit.pool(cidr, 26), number)


def test_pool_is_found_by_name_or_by_cidr() -> None:
    pools = [audit.pool("10.5.0.0/16", 26, "a"), audit.pool("10.6.0.0/16", 26, "b")]
    assert chosen(pools, "b", None) is pools[1]
    assert chosen(pools, None, "10.5.0.0/16") is pools[0]
    with pytest.raises(SplitError, match=r"name c; there are: a \(10\.5\.0\.0/16\), b"):
        chosen(pools, "c", None)
    with pytest.raises(SplitError, match=r"CIDR 10\.5\.0\.0/17; there are"):
        chosen(pools, None, "10.5.0.0/17")
    with pytest.raises(SplitError, match="which is no network"):
        chosen(pools, None, "10.5")
