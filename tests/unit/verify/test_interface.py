"""/proc/net/route and /proc/net/arp as a pod has them."""

from tortie.verify.interface import Neighbour, Route, parse_neighbours, parse_routes

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101FEA9\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0101FEA9\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
other\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
ARP = """\
IP address       HW type     Flags       HW address            Mask     Device
169.254.1.1      0x1         0x6         ee:ee:ee:ee:ee:ee     *        eth0
192.0.2.9        0x1         0x2         02:00:00:00:00:09     *        eth0
192.0.2.8        0x1         0x6         02:00:00:00:00:08     *        other
"""


def test_routes_of_the_interface_with_their_gateways() -> None:
    assert parse_routes(ROUTES, "eth0") == [Route("0.0.0.0/0", "169.254.1.1"), Route("169.254.1.1/32", "")]
    assert parse_routes(ROUTES, "other") == [Route("10.0.2.0/24", "")]


def test_permanent_neighbours_are_told_from_learned_ones() -> None:
    assert parse_neighbours(ARP, "eth0") == [
        Neighbour("169.254.1.1", "ee:ee:ee:ee:ee:ee", permanent=True),
        Neighbour("192.0.2.9", "02:00:00:00:00:09", permanent=False),
    ]
