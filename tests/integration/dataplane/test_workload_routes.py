"""Routes to pods that somebody took away, against a real kernel."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from tests.integration.dataplane.namespaces import Namespace, namespaces
from tortie.dataplane import netns, rtnetlink
from tortie.dataplane.netlink import Socket
from tortie.dataplane.workload import Workloads
from tortie.dataplane.workload_link import Departure, WorkloadEnds, WorkloadLink
from tortie.dataplane.workload_routes import AttachedPod, restore

pytestmark = pytest.mark.root

ADDRESSES = (IPv4Address("10.5.0.1"), IPv6Address("fd00:5::1"))
POD = AttachedPod("cali1", "container1", ADDRESSES)
Place = tuple[Namespace, Namespace, WorkloadEnds]


@pytest.fixture
def place() -> Iterator[Place]:
    """A host, entered by this thread, a pod's namespace, and the pod's interface between them."""
    with namespaces(2) as (host, pod):
        host.ip("link", "set", "lo", "up")
        host.ip("addr", "add", "192.0.2.1/32", "dev", "lo")
        host.ip("addr", "add", "2001:db8::1/128", "dev", "lo", "nodad")
        with netns.entered(host.fd):
            link = WorkloadLink("cali1", pod.fd, "eth0", ADDRESSES, 1440, "container1", "net")
            yield host, pod, Workloads().add(link)


def reached(host: Namespace) -> list[bool]:
    return [host.reaches(str(address)) for address in ADDRESSES]


def neighbours(host: Namespace) -> set[tuple[str, str]]:
    return {
        (item["dst"], item["lladdr"])
        for item in host.json("neigh", "show", "dev", "cali1", "nud", "permanent")
    }


def test_nothing_is_done_while_nothing_is_missing(place: Place) -> None:
    host, _, _ = place
    assert restore([POD]) == []
    assert reached(host) == [True, True]


def test_a_route_that_was_deleted_comes_back(place: Place) -> None:
    host, _, _ = place
    host.ip("route", "del", "10.5.0.1")
    assert restore([POD]) == ["add route 10.5.0.1 dev cali1"]
    assert reached(host) == [True, True]
    assert host.json("route", "show", "10.5.0.1")[0]["protocol"] == "80"


def test_a_device_that_was_down_gets_everything_back(place: Place) -> None:
    host, _, ends = place
    before = neighbours(host)
    host.ip("link", "set", "cali1", "down")
    assert restore([POD]) == []  # whoever took it down may have meant it
    host.ip("link", "set", "cali1", "up")
    assert neighbours(host) == set()
    assert restore([POD]) == ["add route 10.5.0.1 dev cali1", "add route fd00:5::1 dev cali1"]
    assert neighbours(host) == before == {(str(address), ends.mac) for address in ADDRESSES}
    assert reached(host) == [True, True]


def test_another_containers_device_is_left_alone(place: Place) -> None:
    host, _, _ = place
    host.ip("route", "del", "10.5.0.1")
    assert restore([AttachedPod("cali1", "container0", ADDRESSES)]) == []
    assert restore([AttachedPod("cali2", "container1", ADDRESSES)]) == []
    Workloads().detach([Departure("cali1", "container1", "eth0", "net")])
    assert restore([POD]) == []
    assert host.json("route") == []


def test_an_address_that_somebody_routes_elsewhere_stays_there(place: Place) -> None:
    host, _, _ = place
    host.ip("route", "del", "10.5.0.1")
    host.ip("route", "add", "10.5.0.1", "dev", "lo")
    assert restore([POD]) == []
    assert [item["dev"] for item in host.json("route", "show", "10.5.0.1")] == ["lo"]


def test_the_other_ends_hardware_address_is_told(place: Place) -> None:
    _, _, ends = place
    with Socket() as sock:
        assert rtnetlink.peer_mac(sock, ends.host_index) == ends.mac
        assert rtnetlink.peer_mac(sock, 1) == ""  # lo has no other end
