"""MTU arithmetic: what fits through the link with each encapsulation."""

from ipaddress import IPv4Network

import pytest

from tortie.routing.mtu import MTUError, pod_mtu, tunnel_mtu
from tortie.routing.pools import Pool

IPIP = Pool(IPv4Network("10.5.0.0/16"), ipip="Always")
VXLAN = Pool(IPv4Network("10.6.0.0/16"), vxlan="CrossSubnet")
PLAIN = Pool(IPv4Network("10.7.0.0/16"))


@pytest.mark.parametrize(
    ("pools", "expected"),
    [([IPIP], 1480), ([VXLAN], 1450), ([PLAIN], 1500), ([IPIP, VXLAN, PLAIN], 1450), ([], 1500)],
)
def test_automatic_mtu_is_the_link_minus_the_largest_overhead(pools: list[Pool], expected: int) -> None:
    assert pod_mtu(1500, pools, 0) == expected


def test_configured_mtu_that_just_fits_is_taken() -> None:
    assert pod_mtu(1500, [IPIP], 1480) == 1480
    assert pod_mtu(1500, [IPIP], 1440) == 1440


def test_mtu_above_link_minus_overhead_names_variable_value_and_remedy() -> None:
    with pytest.raises(MTUError, match=r"CNI_MTU is 1481.*1500.*IP-in-IP needs 20.*at most 1480.*automatic"):
        pod_mtu(1500, [IPIP], 1481)


def test_mtu_above_the_link_without_encapsulation_is_refused() -> None:
    with pytest.raises(
        MTUError, match=r"CNI_MTU is 9000, but the node's link has 1500: set it to at most 1500"
    ):
        pod_mtu(1500, [PLAIN], 9000)


def test_tiny_mtu_is_refused() -> None:
    with pytest.raises(MTUError, match=r"CNI_MTU is 100; it must be 0 \(automatic\) or at least 576"):
        pod_mtu(1500, [PLAIN], 100)


def test_tunnel_device_follows_the_setting_or_its_own_overhead() -> None:
    assert tunnel_mtu("ipip", 1500, 0) == 1480
    assert tunnel_mtu("vxlan", 1500, 0) == 1450
    assert tunnel_mtu("vxlan", 1500, 1400) == 1400
