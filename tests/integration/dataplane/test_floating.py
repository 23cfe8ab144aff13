"""Floating addresses in real kernels: connections from outside, from pods and from the node itself."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Final

import pytest

from tests.integration.dataplane.namespaces import Namespace, namespaces, wire
from tortie.dataplane import floating_table, masquerade, netns
from tortie.dataplane.floating import FloatingDataplane
from tortie.dataplane.netlink import DataplaneError
from tortie.dataplane.workload import Workloads
from tortie.dataplane.workload_link import Departure, WorkloadLink
from tortie.model.floating import Address
from tortie.routing.floating import FloatingDemand, FloatingPod
from tortie.routing.state import Masquerade

pytestmark = pytest.mark.root

FLOATING: Final[dict[int, Address]] = {4: IPv4Address("203.0.113.9"), 6: IPv6Address("2001:db8:9::9")}
OUTSIDE: Final = {4: "192.0.2.2", 6: "2001:db8::2"}
NODE: Final = {4: "192.0.2.1", 6: "2001:db8::1"}
PATIENCE: Final = 3.0  # seconds until a connection that nobody answers counts as lost
FAMILIES = pytest.mark.parametrize("version", [4, 6])


@dataclass
class Place:
    """A node with two pods, and a machine outside that sends everything to the node."""

    host: Namespace
    outside: Namespace
    pods: tuple[Namespace, Namespace]

    def address(self, number: int, version: int) -> Address:
        """A pod's own address."""
        first: Address = IPv4Address("10.5.0.1") if version == 4 else IPv6Address("fd00:5::1")
        return first + number

    def link(self, number: int) -> WorkloadLink:
        """A pod's interface."""
        addresses = self.address(number, 4), self.address(number, 6)
        pod = self.pods[number]
        return WorkloadLink(f"cali{number}", pod.fd, "eth0", addresses, 1440, f"container{number}", "net")

    def asks(self, number: int, *floating: Address) -> FloatingPod:
        """A pod's wish."""
        addresses = self.address(number, 4), self.address(number, 6)
        return FloatingPod(f"default/pod-{number}", f"cali{number}", addresses, floating)

    def ruleset(self) -> str:
        """Everything of nftables on the node."""
        return self.host.exec("nft", "list", "ruleset")

    def routes(self, version: int = 4) -> dict[str, str]:
        """The node's routes: destination to device."""
        found = self.host.json(f"-{version}", "route")
        return {item["dst"]: item["dev"] for item in found if "dev" in item}


@pytest.fixture
def place() -> Iterator[Place]:
    """Entered by this thread: the node's namespace."""
    with namespaces(4) as (host, outside, first, second):
        wire(host, outside, "up0")
        host.exec("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for end, address in ((host, NODE[6]), (outside, OUTSIDE[6])):
            end.ip("addr", "add", f"{address}/64", "dev", "up0", "nodad")
        outside.ip("route", "add", "default", "via", NODE[4])
        outside.ip("-6", "route", "add", "default", "via", NODE[6])
        with netns.entered(host.fd):
            made = Place(host, outside, (first, second))
            for number in range(2):
                Workloads().add(made.link(number))
            yield made


@contextlib.contextmanager
def served(namespace: Namespace, address: Address, kind: socket.SocketKind) -> Iterator[socket.socket]:
    """A server's socket."""
    with netns.entered(namespace.fd):
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        listener = socket.socket(family, kind)
    with listener:
        listener.settimeout(PATIENCE)
        listener.bind((str(address), 8080))
        if kind == socket.SOCK_STREAM:
            listener.listen()
        yield listener


def caller(namespace: Namespace, target: Address, listener: socket.socket) -> str | None:
    """Call `target`; the address that the server sees, None when nobody answers."""
    with netns.entered(namespace.fd):
        family = socket.AF_INET if target.version == 4 else socket.AF_INET6
        client = socket.socket(family, socket.SOCK_STREAM)
    with client:
        client.settimeout(PATIENCE)
        try:
            client.connect((str(target), 8080))
        except OSError:
            return None
        assert client.getpeername()[0] == str(target)
        connection, peer = listener.accept()
        with connection:
            connection.sendall(b"answer")
            assert client.recv(6) == b"answer"
        return str(peer[0])


@FAMILIES
def test_the_outside_reaches_the_pod_and_the_pod_sees_who_calls(place: Place, version: int) -> None:
    floating, own = FLOATING[version], place.address(0, version)
    applied = FloatingDataplane().apply(FloatingDemand((place.asks(0, floating),)))
    assert not applied.state.refused
    with served(place.pods[0], own, socket.SOCK_STREAM) as listener:
        assert caller(place.outside, floating, listener) == OUTSIDE[version]
        assert caller(place.outside, own, listener) == OUTSIDE[version]
    assert place.routes(version)[str(floating)] == "cali0"


@FAMILIES
def test_what_the_pod_sends_by_itself_keeps_its_source(place: Place, version: int) -> None:
    FloatingDataplane().apply(FloatingDemand((place.asks(0, FLOATING[version]),)))
    with served(place.outside, ip_address(OUTSIDE[version]), socket.SOCK_STREAM) as listener:
        assert caller(place.pods[0], ip_address(OUTSIDE[version]), listener) == str(place.address(0, version))


@FAMILIES
def test_a_pod_reaches_itself_by_its_floating_address_and_sees_it_as_the_caller(
    place: Place, version: int
) -> None:
    floating = FLOATING[version]
    second = floating + 1  # it has two; the first one as text is its name towards itself
    FloatingDataplane().apply(FloatingDemand((place.asks(0, second, floating),)))
    with served(place.pods[0], place.address(0, version), socket.SOCK_STREAM) as listener:
        for target in (floating, second):
            assert caller(place.pods[0], target, listener) == str(min(str(floating), str(second)))


@FAMILIES
def test_a_pod_reaches_another_pod_by_its_floating_address(place: Place, version: int) -> None:
    FloatingDataplane().apply(FloatingDemand((place.asks(0, FLOATING[version]),)))
    with served(place.pods[0], place.address(0, version), socket.SOCK_STREAM) as listener:
        assert caller(place.pods[1], FLOATING[version], listener) == str(place.address(1, version))


@FAMILIES
def test_the_node_reaches_the_pod_by_its_floating_address(place: Place, version: int) -> None:
    FloatingDataplane().apply(FloatingDemand((place.asks(0, FLOATING[version]),)))
    with served(place.pods[0], place.address(0, version), socket.SOCK_STREAM) as listener:
        assert caller(place.host, FLOATING[version], listener) == NODE[version]


def test_masquerading_spares_calls_to_floating_addresses_of_this_node(place: Place) -> None:
    pools = frozenset({IPv4Network("10.5.0.0/16")})
    masquerade.load(Masquerade(pools, pools))
    FloatingDataplane().apply(FloatingDemand((place.asks(0, FLOATING[4]),)))
    with served(place.pods[0], place.address(0, 4), socket.SOCK_STREAM) as listener:
        assert caller(place.pods[1], FLOATING[4], listener) == str(place.address(1, 4))
        assert caller(place.pods[0], FLOATING[4], listener) == str(FLOATING[4])
    with served(place.outside, ip_address(OUTSIDE[4]), socket.SOCK_STREAM) as listener:
        assert caller(place.pods[0], ip_address(OUTSIDE[4]), listener) == NODE[4]


@FAMILIES
def test_a_flow_that_is_going_on_follows_the_address_to_another_pod(place: Place, version: int) -> None:
    dataplane, floating = FloatingDataplane(), FLOATING[version]
    dataplane.apply(FloatingDemand((place.asks(0, floating),)))
    with (
        served(place.pods[0], place.address(0, version), socket.SOCK_DGRAM) as first,
        served(place.pods[1], place.address(1, version), socket.SOCK_DGRAM) as second,
        netns.entered(place.outside.fd),
        socket.socket(first.family, socket.SOCK_DGRAM) as client,
    ):
        client.connect((str(floating), 8080))
        client.send(b"one")
        assert first.recv(8) == b"one"
        with netns.entered(place.host.fd):
            dataplane.apply(FloatingDemand((place.asks(1, floating),)))
        client.send(b"two")
        assert second.recv(8) == b"two"
    assert place.routes(version)[str(floating)] == "cali1"


def test_nothing_is_left_when_nobody_asks_any_more(place: Place) -> None:
    before = place.ruleset(), place.routes(4), place.routes(6)
    dataplane = FloatingDataplane()
    dataplane.apply(FloatingDemand((place.asks(0, *FLOATING.values()),)))
    assert place.ruleset() != before[0]
    dataplane.apply(FloatingDemand())
    assert (place.ruleset(), place.routes(4), place.routes(6)) == before
    assert not dataplane.holds_something


def test_nothing_is_left_of_a_pod_that_is_gone_though_the_api_still_tells_of_it(place: Place) -> None:
    dataplane = FloatingDataplane()
    demand = FloatingDemand((place.asks(0, FLOATING[4]),))
    dataplane.apply(demand)
    Workloads().detach([Departure("cali0", "container0", "eth0", "net")])
    assert dataplane.apply(demand).state.translations == {}
    assert floating_table.TABLE not in place.ruleset()
    assert str(FLOATING[4]) not in place.routes()
    Workloads().bury()


@pytest.mark.parametrize("known", [(), (1,)], ids=["unknown", "another pod's by now"])
def test_an_address_leads_to_what_is_behind_the_pods_device_whatever_the_api_knows(
    place: Place, known: tuple[int, ...]
) -> None:
    stale = replace(
        place.asks(0, *FLOATING.values()), internal=tuple(place.address(number, 4) for number in known)
    )
    translations = FloatingDataplane().apply(FloatingDemand((stale,))).state.translations
    assert {external.version: item.internal for external, item in translations.items()} == {
        version: place.address(0, version) for version in (4, 6)
    }


def test_another_agent_finds_what_the_first_one_left_and_changes_nothing(place: Place) -> None:
    demand = FloatingDemand((place.asks(0, *FLOATING.values()),))
    FloatingDataplane().apply(demand)
    before = place.ruleset(), place.routes(4), place.routes(6)
    applied = FloatingDataplane().apply(demand)
    assert (applied.changes, applied.repaired) == ((), ())
    assert (place.ruleset(), place.routes(4), place.routes(6)) == before


@pytest.mark.parametrize("wiped", [False, True])
def test_another_agent_takes_away_what_nobody_asks_for_and_spares_pods_own_routes(
    place: Place, wiped: bool
) -> None:
    before = place.routes(4), place.routes(6)
    FloatingDataplane().apply(FloatingDemand((place.asks(0, *FLOATING.values()),)))
    if wiped:
        place.host.exec("nft", "flush", "ruleset")
    FloatingDataplane().apply(FloatingDemand())
    assert floating_table.TABLE not in place.ruleset()
    assert (place.routes(4), place.routes(6)) == before


def test_half_of_a_change_is_completed_by_the_next_agent(place: Place) -> None:
    demand = FloatingDemand((place.asks(0, FLOATING[4]),))
    FloatingDataplane().apply(demand)
    place.host.ip("route", "del", str(FLOATING[4]))  # as if it had been killed before it
    assert FloatingDataplane().apply(demand).changes == (f"add route {FLOATING[4]} dev cali0",)
    assert place.routes()[str(FLOATING[4])] == "cali0"


TABLE = ("inet", floating_table.TABLE)
TAMPERING: dict[str, tuple[str, ...]] = {
    "table deleted": ("delete", "table", *TABLE),
    "rules deleted": ("flush", "table", *TABLE),
    "chain deleted": ("delete", "chain", *TABLE, "output"),
    "rule added": ("insert", "rule", *TABLE, "prerouting", "ip", "saddr", "192.0.2.2", "accept"),
    "foreign chain": ("add", "chain", *TABLE, "foreign"),
    "element deleted": ("delete", "element", *TABLE, "external4", "{ 203.0.113.9 }"),
    "element added": ("add", "element", *TABLE, "external4", "{ 203.0.113.10 : 10.5.0.1 }"),
    "own deleted": ("delete", "element", *TABLE, "own4", "{ 10.5.0.1 . 10.5.0.1 }"),
    "map added": ("add", "map", *TABLE, "foreign", "{ type ipv4_addr : ipv4_addr; }"),
    "dormant": ("add", "table", *TABLE, "{ flags dormant; }"),
}


@pytest.mark.parametrize("command", TAMPERING.values(), ids=TAMPERING.keys())
def test_tampering_is_found_told_and_repaired(place: Place, command: tuple[str, ...]) -> None:
    dataplane, demand = FloatingDataplane(), FloatingDemand((place.asks(0, FLOATING[4]),))
    dataplane.apply(demand)
    before = place.ruleset()
    if command[:2] == ("delete", "chain"):
        place.host.exec("nft", "flush", "chain", *TABLE, "output")
    place.host.exec("nft", *command)
    assert place.ruleset() != before
    applied = dataplane.apply(demand)
    assert applied.repaired
    assert place.ruleset() == before
    assert dataplane.apply(demand).repaired == ()
    with served(place.pods[0], place.address(0, 4), socket.SOCK_STREAM) as listener:
        assert caller(place.outside, FLOATING[4], listener) == OUTSIDE[4]


def test_what_is_missing_is_named(place: Place) -> None:
    dataplane = FloatingDataplane()
    dataplane.apply(FloatingDemand((place.asks(0, *FLOATING.values()),)))
    assert dataplane.differences("cali0") == []
    assert dataplane.differences("cali1") == []
    place.host.ip("route", "del", str(FLOATING[4]))
    place.host.exec("nft", "delete", "element", *TABLE, "external6", f"{{ {FLOATING[6]} }}")
    assert dataplane.differences("cali0") == [
        f"the node has no route {FLOATING[4]} dev cali0",
        f"floating address {FLOATING[6]} is not translated to {place.address(0, 6)}",
    ]
    place.host.exec("nft", "delete", "table", *TABLE)
    assert f"table {floating_table.TABLE} is gone" in dataplane.differences("cali0")


@pytest.mark.parametrize("address", [NODE[4], NODE[6], "10.5.0.2", "fd00:5::2"])
def test_an_address_that_somebody_on_the_node_has_cannot_float(place: Place, address: str) -> None:
    wanted = ip_address(address)
    taken = {place.address(1, version): "pod default/pod-1" for version in (4, 6)}
    before = place.routes(4), place.routes(6)
    state = FloatingDataplane().apply(FloatingDemand((place.asks(0, wanted),), taken)).state
    assert state.translations == {}
    assert address in state.refused["cali0", wanted]
    assert (place.routes(4), place.routes(6)) == before


def test_a_route_of_somebody_else_stays_and_the_address_is_refused(place: Place) -> None:
    place.host.ip("route", "add", f"{FLOATING[4]}/32", "via", OUTSIDE[4])
    place.host.ip("-6", "route", "add", f"{FLOATING[6]}/128", "via", OUTSIDE[6])
    state = FloatingDataplane().apply(FloatingDemand((place.asks(0, *FLOATING.values()),))).state
    for version, floating in FLOATING.items():
        assert "up0" in state.refused["cali0", floating]
        assert place.routes(version)[str(floating)] == "up0"
    assert floating_table.TABLE not in place.ruleset()


@pytest.mark.parametrize("protocol", ["bird", "80"])
def test_a_route_to_another_node_where_the_address_floated_gives_way(place: Place, protocol: str) -> None:
    place.host.ip("route", "add", f"{FLOATING[4]}/32", "via", OUTSIDE[4], "proto", protocol)
    state = FloatingDataplane().apply(FloatingDemand((place.asks(0, FLOATING[4]),))).state
    assert state.refused == {}
    assert place.routes()[str(FLOATING[4])] == "cali0"
    with served(place.pods[0], place.address(0, 4), socket.SOCK_STREAM) as listener:
        assert caller(place.outside, FLOATING[4], listener) == OUTSIDE[4]


@FAMILIES
def test_an_address_that_becomes_a_pods_own_floats_no_more_and_leads_to_that_pod(
    place: Place, version: int
) -> None:
    dataplane, own = FloatingDataplane(), place.address(1, version)
    departure = Departure("cali1", "container1", "eth0", "net")
    Workloads().detach([departure])
    Workloads().bury()
    dataplane.apply(FloatingDemand((place.asks(0, own),)))
    assert place.routes(version)[str(own)] == "cali0"
    Workloads().add(place.link(1))
    state = dataplane.apply(FloatingDemand((place.asks(0, own),), {own: "pod default/pod-1"})).state
    assert state.translations == {}
    assert place.routes(version)[str(own)] == "cali1"
    with served(place.pods[1], own, socket.SOCK_STREAM) as listener:
        assert caller(place.outside, own, listener) == OUTSIDE[version]


def test_of_two_pods_with_one_address_the_first_has_it_and_the_second_takes_over(place: Place) -> None:
    dataplane = FloatingDataplane()
    both = place.asks(0, FLOATING[4]), place.asks(1, FLOATING[4])
    state = dataplane.apply(FloatingDemand(both)).state
    assert state.translations[FLOATING[4]].interface == "cali0"
    assert "leads to pod default/pod-0" in state.waiting["cali1", FLOATING[4]]
    Workloads().detach([Departure("cali0", "container0", "eth0", "net")])
    dataplane.apply(FloatingDemand(both))
    with served(place.pods[1], place.address(1, 4), socket.SOCK_STREAM) as listener:
        assert caller(place.outside, FLOATING[4], listener) == OUTSIDE[4]
    Workloads().bury()


def test_many_addresses_fit(place: Place) -> None:
    many = [IPv4Address("198.18.0.0") + number for number in range(3000)]
    dataplane = FloatingDataplane()
    dataplane.apply(FloatingDemand((place.asks(0, *many),)))
    assert FloatingDataplane().apply(FloatingDemand((place.asks(0, *many),))).changes == ()
    with served(place.pods[0], place.address(0, 4), socket.SOCK_STREAM) as listener:
        assert caller(place.outside, many[-1], listener) == OUTSIDE[4]


def test_a_kernel_that_refuses_is_told_and_the_next_attempt_makes_up_for_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataplane, demand = FloatingDataplane(), FloatingDemand((place.asks(0, FLOATING[4]),))

    def broken(_translations: object, _hairpins: object) -> floating_table.Content:
        return {"nowhere": {b"\1\2\3\4": b"\5\6\7\10"}}

    with monkeypatch.context() as patch:
        patch.setattr(floating_table, "content", broken)
        with pytest.raises(DataplaneError, match="nowhere"):
            dataplane.apply(demand)
    assert dataplane.holds_something
    dataplane.apply(demand)
    with served(place.pods[0], place.address(0, 4), socket.SOCK_STREAM) as listener:
        assert caller(place.outside, FLOATING[4], listener) == OUTSIDE[4]
