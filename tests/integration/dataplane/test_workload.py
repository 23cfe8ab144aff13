"""Pods' interfaces against real kernels in network namespaces."""

import errno
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest

from tests.integration.dataplane.namespaces import Namespace, namespaces
from tortie.dataplane import netns, rtnetlink
from tortie.dataplane.netlink import DataplaneError, NetlinkError, Socket
from tortie.dataplane.workload import InterfaceExistsError, Workloads, _create
from tortie.dataplane.workload_link import Departure, WorkloadLink

pytestmark = pytest.mark.root


@pytest.fixture
def place() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """A host that forwards, entered by this thread, and the namespaces of two pods."""
    with namespaces(3) as (host, first, second):
        host.exec("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        host.ip("link", "set", "lo", "up")
        host.ip("addr", "add", "192.0.2.1/32", "dev", "lo")
        with netns.entered(host.fd):
            yield host, first, second


Place = tuple[Namespace, Namespace, Namespace]


def link(pod: Namespace, number: int = 1, **changes: str) -> WorkloadLink:
    name = changes.get("host_name", f"cali{number}")
    owner = changes.get("owner", f"container{number}")
    ifname = changes.get("ifname", "eth0")
    return WorkloadLink(name, pod.fd, ifname, (IPv4Address("10.5.0.0") + number,), 1440, owner, "net")


def both_families(pod: Namespace, number: int = 1) -> WorkloadLink:
    wanted = link(pod, number)
    return replace(wanted, addresses=(*wanted.addresses, IPv6Address("fd00:5::") + number))


def remove(*departures: Departure) -> None:
    Workloads().detach(departures)
    Workloads().bury()


def test_two_pods_reach_each_other_and_the_host_without_a_bridge(place: Place) -> None:
    host, first, second = place
    Workloads().add(link(first, 1))
    Workloads().add(link(second, 2))
    assert first.reaches("10.5.0.2", size=1440 - 28)
    assert second.reaches("10.5.0.1")
    assert host.reaches("10.5.0.1")
    assert {item["linkinfo"]["info_kind"] for item in host.json("link") if "linkinfo" in item} == {"veth"}


def test_the_first_packet_to_a_pod_arrives_though_it_is_sent_at_once(place: Place) -> None:
    host, pod, _ = place
    workloads, lost = Workloads(), 0
    with links_in_motion(host):
        for number in range(1, 41):
            wanted = replace(link(pod, number), host_name="cali1")
            workloads.add(wanted, workloads.begin(replace(wanted, addresses=())))
            lost += not arrives(pod, str(wanted.addresses[0]))
            remove(Departure("cali1", wanted.owner, "eth0", "net"))
    assert lost == 0


@contextmanager
def links_in_motion(host: Namespace) -> Iterator[None]:
    """Other links are made and deleted all the time: what the kernel does about carriers has to wait."""
    churn = "while :; do ip link add churn0 up type veth peer name churn1 up; ip link del churn0; done"
    process = subprocess.Popen(
        ["ip", "netns", "exec", host.name, "sh", "-c", churn], stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def arrives(pod: Namespace, address: str) -> bool:
    """Whether the only packet to the pod does."""
    with netns.entered(pod.fd):
        receiver = socket.socket(type=socket.SOCK_DGRAM)
    with receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
        receiver.bind((address, 0))
        receiver.settimeout(1)
        sender.sendto(b"first", receiver.getsockname())
        with suppress(TimeoutError):
            return receiver.recv(16) == b"first"
        return False


def test_both_ends_are_as_promised(place: Place) -> None:
    host, pod, _ = place
    ends = Workloads().add(link(pod))
    (outer,), (inner,) = host.json("link", "show", "cali1"), pod.json("addr", "show", "eth0")
    assert (outer["address"], outer["ifalias"], outer["mtu"]) == (
        "ee:ee:ee:ee:ee:ee",
        "container1/eth0/net",
        1440,
    )
    assert (ends.host_index, ends.mac, ends.index) == (outer["ifindex"], inner["address"], inner["ifindex"])
    assert inner["mtu"] == 1440
    addresses = [
        (item["local"], item["prefixlen"]) for item in inner["addr_info"] if item["family"] == "inet"
    ]
    assert addresses == [("10.5.0.1", 32)]
    routes = {route["dst"]: route for route in pod.json("route")}
    assert routes.keys() == {"default", "169.254.1.1"}
    assert routes["default"]["gateway"] == "169.254.1.1"
    (neighbour,) = pod.json("neigh", "show", "nud", "permanent")
    assert (neighbour["dst"], neighbour["lladdr"]) == ("169.254.1.1", "ee:ee:ee:ee:ee:ee")
    (route,) = host.json("route")
    assert (route["dst"], route["dev"], route["protocol"], route["scope"]) == (
        "10.5.0.1",
        "cali1",
        "80",
        "link",
    )
    for setting, value in (("proxy_arp", 1), ("forwarding", 1), ("route_localnet", 1), ("rp_filter", 2)):
        assert host.exec("cat", f"/proc/sys/net/ipv4/conf/cali1/{setting}") == f"{value}\n"
    assert host.exec("cat", "/proc/sys/net/ipv4/neigh/cali1/proxy_delay") == "0\n"
    assert pod.exec("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
    assert any("UP" in item["flags"] for item in pod.json("link", "show", "lo"))


def test_hardware_address_and_forwarding_follow_the_wish(place: Place) -> None:
    _, pod, _ = place
    ends = Workloads().add(replace(link(pod), mac="0a:00:00:00:00:07", forward=True))
    assert ends.mac == "0a:00:00:00:00:07"
    assert pod.exec("cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"


def test_a_second_add_leaves_the_interface_alone_and_answers_the_same(place: Place) -> None:
    host, pod, _ = place
    first = Workloads().add(link(pod))
    assert Workloads().add(link(pod)) == first
    assert Workloads().check(link(pod)) == []
    assert host.devices() == ["cali1"]


def test_what_is_begun_without_addresses_is_completed_with_them(place: Place) -> None:
    host, pod, _ = place
    wanted = link(pod)
    begun = Workloads().begin(replace(wanted, addresses=()))
    assert begun is not None
    assert not any("UP" in item["flags"] for item in host.json("link", "show", "cali1"))
    assert Workloads().addresses(Departure("cali1", wanted.owner, "eth0", wanted.network)) == ()
    ends = Workloads().add(wanted, begun)
    assert (ends.host_index, ends.index) == (begun.host_index, begun.index)
    assert Workloads().check(wanted) == []
    assert Workloads().addresses(Departure("cali1", wanted.owner, "eth0", wanted.network)) == wanted.addresses
    assert Workloads().addresses(Departure("cali1", "another", "eth0", wanted.network)) == ()


def test_what_is_begun_and_not_completed_can_be_taken_away(place: Place) -> None:
    host, pod, _ = place
    wanted = link(pod)
    begun = Workloads().begin(replace(wanted, addresses=()))
    assert begun is not None
    begun.close()
    assert Workloads().detach([Departure("cali1", wanted.owner, "eth0", wanted.network)]) == set()
    Workloads().bury()
    assert (host.devices(), pod.devices()) == ([], [])


def test_nothing_is_begun_where_something_stands_already(place: Place) -> None:
    host, pod, new = place
    first = Workloads().add(link(pod))
    assert Workloads().begin(replace(link(pod), addresses=())) is None
    assert Workloads().begin(replace(link(new, owner="new"), addresses=())) is None
    assert Workloads().add(link(pod)) == first
    assert host.devices() == ["cali1"]


def test_a_stale_host_end_of_an_earlier_sandbox_is_replaced(place: Place) -> None:
    _, old, new = place
    Workloads().add(link(old, owner="old"))
    Workloads().add(link(new, owner="new"))
    assert old.devices() == []
    assert Workloads().check(link(new, owner="new")) == []


def test_a_name_that_is_taken_in_the_container_is_refused_and_nothing_is_left(place: Place) -> None:
    host, pod, _ = place
    pod.ip("link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
    with pytest.raises(InterfaceExistsError, match="has an interface named eth0 already"):
        Workloads().add(link(pod))
    assert host.devices() == []
    assert set(pod.devices()) == {"eth0", "peer0"}


def test_an_interface_whose_other_end_is_just_being_deleted_is_waited_for(place: Place) -> None:
    """Between listing and unlisting its two ends the kernel may be asked: the host's is gone first."""
    host, pod, other = place
    peer = ("peer", "name", "eth0", "netns", pod.name)
    other.ip("link", "add", "index", "4711", "name", "peer0", "type", "veth", *peer)
    burial = threading.Timer(0.05, lambda: other.ip("link", "del", "peer0"))
    burial.start()
    Workloads().add(link(pod))
    burial.join()
    assert Workloads().check(link(pod)) == []
    assert host.devices() == ["cali1"]


def test_a_second_interface_of_one_container_is_refused_and_the_first_stays(place: Place) -> None:
    _, pod, _ = place
    Workloads().add(link(pod))
    with pytest.raises(InterfaceExistsError, match="has interface eth0 in this network already"):
        Workloads().add(link(pod, ifname="net1"))
    assert Workloads().check(link(pod)) == []


def test_an_address_that_somebody_else_routes_is_refused_and_nothing_is_left(place: Place) -> None:
    host, pod, _ = place
    host.ip("link", "add", "other", "up", "type", "veth", "peer", "name", "far")
    host.ip("route", "add", "10.5.0.1/32", "dev", "other")
    with pytest.raises(DataplaneError, match=r"10\.5\.0\.1/32.*routed to other already"):
        Workloads().add(link(pod))
    assert set(host.devices()) == {"other", "far"}
    assert pod.devices() == []


def test_a_route_that_a_dead_pod_left_gives_way(place: Place) -> None:
    host, old, new = place
    Workloads().add(link(old, 1))
    Workloads().add(replace(link(new, 2), addresses=(IPv4Address("10.5.0.1"),)))
    (route,) = host.json("route")
    assert route["dev"] == "cali2"
    assert new.reaches("169.254.1.1") is False  # nobody has that address; it is a next hop only
    assert host.reaches("10.5.0.1")


def test_a_failure_inside_the_pod_takes_the_host_end_away(place: Place) -> None:
    host, pod, _ = place
    pod.ip("link", "set", "lo", "up")
    pod.ip("route", "add", "default", "dev", "lo")
    with pytest.raises(DataplaneError, match=r"0\.0\.0\.0/0 in the container"):
        Workloads().add(link(pod))
    assert host.devices() == []
    assert pod.devices() == []
    assert host.json("route") == []


def test_a_namespace_that_is_none_is_refused(place: Place) -> None:
    host, _, _ = place
    with Path(os.devnull).open() as file, pytest.raises(OSError, match="not a network namespace"):
        Workloads().add(WorkloadLink("cali1", file.fileno(), "eth0", (IPv4Address("10.5.0.1"),), 1440, "c"))
    assert host.devices() == []


def test_an_agent_killed_half_way_leaves_nothing_that_stops_the_next_add_or_del(place: Place) -> None:
    host, pod, other = place
    child = os.fork()
    if child == 0:
        with Socket() as sock:
            sock.request(_create(link(pod)))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert host.devices() == ["cali1"]
    Workloads().add(link(other, owner="next"))
    assert Workloads().check(link(other, owner="next")) == []
    assert pod.devices() == []


def test_del_removes_a_half_made_interface(place: Place) -> None:
    host, pod, _ = place
    with Socket() as sock:
        sock.request(_create(link(pod)))
    remove(Departure("cali1", "container1", "eth0", "net"))
    assert host.devices() == []


def test_del_is_repeatable_and_spares_the_successor(place: Place) -> None:
    host, pod, _ = place
    Workloads().add(link(pod, owner="new"))
    assert Workloads().detach([Departure("cali1", "old", "eth0", "net")]) == {"cali1"}
    Workloads().bury()
    assert host.devices() == ["cali1"]
    for _ in range(2):
        remove(Departure("cali1", "new", "eth0", "net"))
    assert host.devices() == []
    assert pod.devices() == []
    assert host.json("route") == []


def test_many_interfaces_leave_together_and_no_other_goes(place: Place) -> None:
    host, _, _ = place
    with namespaces(8) as pods:
        for number, pod in enumerate(pods, 1):
            Workloads().add(link(pod, number))
        leaving = [Departure(f"cali{number}", f"container{number}", "eth0", "net") for number in range(1, 8)]
        remove(*leaving, Departure("cali99", "container99", "eth0", "net"))
        assert host.devices() == ["cali8"]
        assert Workloads().check(link(pods[7], 8)) == []


def test_check_names_everything_that_is_wrong(place: Place) -> None:
    host, pod, _ = place
    wanted = link(pod)
    Workloads().add(wanted)
    for namespace, tampering, finding in (
        (host, ("link", "set", "cali1", "mtu", "1300"), "cali1 has MTU 1300, not 1440"),
        (host, ("route", "del", "10.5.0.1/32"), "the node has no route 10.5.0.1/32"),
        (host, ("link", "set", "cali1", "alias", "x"), "cali1 belongs to x"),
        (host, ("link", "set", "cali1", "address", "0a:00:00:00:00:01"), "cali1 has hardware address 0a:"),
        (host, ("link", "set", "cali1", "down"), "cali1 is down"),
        (pod, ("neigh", "del", "169.254.1.1", "dev", "eth0"), "no permanent neighbour 169.254.1.1"),
        (pod, ("route", "del", "default"), "the container has no route 0.0.0.0/0"),
        (pod, ("addr", "add", "10.9.9.9/32", "dev", "eth0"), "eth0 has addresses 10.5.0.1/32, 10.9.9.9/32"),
        (host, ("link", "del", "cali1"), "the container has no interface eth0"),
    ):
        namespace.ip(*tampering)
        assert any(finding in problem for problem in Workloads().check(wanted)), tampering


def test_a_pod_of_both_families_is_reached_over_both_at_once(place: Place) -> None:
    host, first, second = place
    host.ip("addr", "add", "fd00:9::1/128", "dev", "lo", "nodad")
    host.exec("sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1")
    first.exec("sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1")
    Workloads().add(both_families(first, 1))
    Workloads().add(both_families(second, 2))
    for address in ("fd00:5::2", "fd00:9::1", "10.5.0.2"):
        assert first.reaches(address, size=1200)
    assert host.reaches("fd00:5::1")
    assert Workloads().check(both_families(first, 1)) == []
    assert Workloads().add(both_families(first, 1)).host_name == "cali1"
    (route,) = first.json("-6", "route", "show", "default")
    assert (route["gateway"], route["dev"]) == ("fe80::ecee:eeff:feee:eeee", "eth0")
    for name, value in (("proxy_ndp", 1), ("accept_ra", 0), ("accept_dad", 0), ("forwarding", 1)):
        assert host.exec("cat", f"/proc/sys/net/ipv6/conf/cali1/{name}") == f"{value}\n"
    remove(Departure("cali1", "container1", "eth0", "net"), Departure("cali2", "container2", "eth0", "net"))
    assert host.devices() == []
    assert [item for item in host.json("-6", "route") if item["dst"].startswith("fd00:5")] == []


def test_nothing_waits_for_address_resolution(place: Place) -> None:
    host, pod, _ = place
    ends = Workloads().add(both_families(pod))
    entries = {(item["dst"], item["lladdr"]) for item in host.json("neigh", "show", "nud", "permanent")}
    assert entries == {("10.5.0.1", ends.mac), ("fd00:5::1", ends.mac)}
    (inner,) = pod.json("-6", "addr", "show", "eth0")
    usable = ["tentative" not in item for item in inner["addr_info"] if item["scope"] == "global"]
    assert usable == [True]


def test_check_names_what_is_wrong_with_ipv6(place: Place) -> None:
    host, pod, _ = place
    wanted = both_families(pod)
    Workloads().add(wanted)
    for namespace, tampering, finding in (
        (host, ("-6", "route", "del", "fd00:5::1/128"), "the node has no route fd00:5::1/128"),
        (pod, ("-6", "route", "del", "default"), "the container has no route ::/0"),
        (pod, ("neigh", "del", "fe80::ecee:eeff:feee:eeee", "dev", "eth0"), "no permanent neighbour fe80::"),
        (pod, ("addr", "del", "fd00:5::1/128", "dev", "eth0"), "eth0 has addresses 10.5.0.1/32, not only"),
    ):
        namespace.ip(*tampering)
        assert any(finding in problem for problem in Workloads().check(wanted)), tampering


def test_other_destinations_replace_the_default_route(place: Place) -> None:
    _, pod, _ = place
    Workloads().add(replace(link(pod), routes=(IPv4Network("10.0.0.0/8"),)))
    assert {route["dst"] for route in pod.json("route")} == {"169.254.1.1", "10.0.0.0/8"}


def test_a_detached_interface_answers_no_more_and_frees_its_name_at_once(place: Place) -> None:
    host, pod, successor = place
    Workloads().add(link(pod))
    assert Workloads().detach([Departure("cali1", "container1", "eth0", "net")]) == set()
    assert host.json("route") == []
    assert not any(name == "cali1" for name in host.devices())
    assert Workloads().standing() == []
    Workloads().add(link(successor, owner="next"))
    assert [item.owner for item in Workloads().standing()] == ["next"]
    Workloads().bury()
    assert host.devices() == ["cali1"]
    assert pod.devices() == []
    assert Workloads().check(link(successor, owner="next")) == []


def test_a_container_may_have_its_interface_again_before_the_old_one_is_buried(place: Place) -> None:
    host, pod, _ = place
    Workloads().add(link(pod))
    Workloads().detach([Departure("cali1", "container1", "eth0", "net")])
    Workloads().add(link(pod))
    assert Workloads().check(link(pod)) == []
    assert host.devices() == ["cali1"]


def test_a_pair_has_one_queue_at_each_end_whatever_the_number_of_processors(place: Place) -> None:
    host, pod, _ = place
    Workloads().add(link(pod))
    for (end,) in (host.json("-d", "link", "show", "cali1"), pod.json("-d", "link", "show", "eth0")):
        assert (end["num_tx_queues"], end["num_rx_queues"]) == (1, 1)


def test_an_address_of_the_kernels_kind_is_chosen_for_the_containers_end(place: Place) -> None:
    _, first, second = place
    macs = {Workloads().add(link(pod, number)).mac for number, pod in enumerate((first, second), 1)}
    assert len(macs) == 2
    for mac in macs:
        assert int(mac[:2], 16) & 0b11 == 0b10  # IEEE 802: locally administered, and of one station


def test_a_refused_pair_is_refused_as_such_although_the_name_can_be_looked_up(place: Place) -> None:
    _, pod, _ = place
    with Socket() as sock:
        sock.request(_create(link(pod)))
        with pytest.raises(NetlinkError, match="create veth cali1") as refused:
            rtnetlink.make_veth(sock, _create(link(pod)), "cali1")
        assert refused.value.code == errno.EEXIST
        assert rtnetlink.link_by_name(sock, "cali1").name == "cali1"  # no answer is left over


def test_queues_are_those_that_were_asked_for(place: Place) -> None:
    host, pod, _ = place
    Workloads().add(replace(link(pod), queues=3))
    (outer,) = host.json("link", "show", "cali1")
    assert (outer["num_tx_queues"], outer["num_rx_queues"]) == (3, 3)
