"""Which address a node takes, for each method."""

from ipaddress import IPv4Address, IPv4Interface

import pytest

from tortie.agent.autodetect import DetectionError, Method, choose, link_with_address, parse_method
from tortie.dataplane.apply import HostInterface


def interface(index: int, name: str, *addresses: str, up: bool = True) -> HostInterface:
    return HostInterface(name, index, 1500, up, tuple(IPv4Interface(address) for address in addresses))


HOST = [
    interface(1, "lo", "127.0.0.1/8"),
    interface(2, "eth0", "169.254.7.7/16", "10.0.0.5/32", "10.0.0.2/24"),
    interface(3, "eth1", "192.0.2.2/24"),
    interface(4, "eth10", "198.51.100.2/24"),
    interface(5, "docker0", "172.17.0.1/16"),
    interface(6, "eth2", "203.0.113.2/24", up=False),
    interface(7, "eth3"),
    interface(8, "cali0123456789a", "10.5.0.1/32"),
    interface(9, "vxlan.calico", "10.5.0.0/32"),
]


def address(method: str, internal: str = "", source: str = "") -> str:
    """The address that `method` chooses on HOST."""
    internal_ips = [IPv4Address(internal)] if internal else []
    link = choose(parse_method(method), HOST, internal_ips, IPv4Address(source) if source else None)
    return str(link.address)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("first-found", "10.0.0.2/24"),  # neither loopback, nor link-local, nor the /32 of a virtual address
        ("interface=eth1", "192.0.2.2/24"),  # not eth10, though the expression matches it in part
        ("interface=eth1.*", "192.0.2.2/24"),
        ("interface=^eth10$", "198.51.100.2/24"),
        ("interface=ens.*,eth10", "198.51.100.2/24"),
        ("interface=docker0", "172.17.0.1/16"),  # asked for by name
        ("skip-interface=eth0", "192.0.2.2/24"),
        ("skip-interface=eth0,eth1", "no match"),
        ("cidr=192.0.2.0/24", "192.0.2.2/24"),
        ("cidr=203.0.113.0/24,198.51.100.0/24", "198.51.100.2/24"),
    ],
)
def test_method_chooses(method: str, expected: str) -> None:
    if expected == "no match":
        with pytest.raises(DetectionError):
            address(method)
    else:
        assert address(method) == expected


def test_internal_ip_of_the_node_object() -> None:
    assert address("kubernetes-internal-ip", internal="198.51.100.2") == "198.51.100.2/24"
    with pytest.raises(
        DetectionError, match=r"eth0 10\.0\.0\.2/24 \(not the node's InternalIP: none is set yet\)"
    ):
        address("kubernetes-internal-ip")


def test_can_reach_takes_the_address_that_packets_leave_with() -> None:
    assert address("can-reach=198.51.100.9", source="198.51.100.2") == "198.51.100.2/24"
    with pytest.raises(DetectionError, match=r"there is no route to 198\.51\.100\.9"):
        address("can-reach=198.51.100.9")


def test_error_lists_every_candidate_with_its_reason() -> None:
    with pytest.raises(DetectionError) as error:
        address("cidr=10.99.0.0/16")
    text = str(error.value)
    for words in (
        "IP_AUTODETECTION_METHOD cidr=10.99.0.0/16",
        "lo (its name is one of container, pod or virtual machine networks)",
        "eth0 169.254.7.7/16 (peers cannot reach such an address)",
        "eth0 10.0.0.2/24 (not within 10.99.0.0/16)",
        "eth2 (it is down)",
        "eth3 (it has no IPv4 address)",
        "set IP to the node's address",
    ):
        assert words in text


def test_order_of_the_links_is_the_kernels() -> None:
    assert str(choose(Method("first-found"), list(reversed(HOST))).address) == "10.0.0.2/24"


def test_link_of_a_given_address() -> None:
    link = link_with_address(IPv4Interface("192.0.2.2/32"), HOST)
    assert (link.name, str(link.address), link.mtu) == ("eth1", "192.0.2.2/24", 1500)
    with pytest.raises(DetectionError, match=r"IP is 192\.0\.2\.3.*eth1 192\.0\.2\.2/24.*autodetect"):
        link_with_address(IPv4Interface("192.0.2.3/24"), HOST)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no method"),
        ("first", "'first' is no method"),
        ("first-found=eth0", "takes no value"),
        ("interface=", "needs a value"),
        ("interface=(", "not a regular expression"),
        ("skip-interface=eth0,[", "not a regular expression"),
        ("cidr=10.0.0.1/24", "has host bits set"),
        ("can-reach=a,b", "takes one host"),
    ],
)
def test_wrong_method_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_method(text)
