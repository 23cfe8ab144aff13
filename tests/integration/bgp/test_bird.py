"""Real BIRDs on three machines, two of them in one subnet, with the configuration that the agent writes."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from lab import debs

from tests.components.carrier import wait_for_carrier
from tests.integration.bgp.nodes import Machine, eventually, machines, running
from tortie.agent.bird import Bird
from tortie.bgp.config import BirdConfig, MeshPeer, protocol_name, render
from tortie.bgp.control import BirdControl, BirdError
from tortie.routing.pools import Pool

pytestmark = pytest.mark.root

N = IPv4Network
ADDRESSES = {"n1": "10.30.200.1", "n2": "10.30.200.2", "n3": "10.30.201.3"}
POOLS = frozenset(
    {
        Pool(N("10.5.0.0/16"), ipip="Always"),
        Pool(N("10.6.0.0/16"), vxlan="Always"),
        Pool(N("10.7.0.0/16"), ipip="CrossSubnet"),
        Pool(N("10.8.0.0/16")),
        Pool(N("10.9.0.0/16"), bgp_export=False),
    }
)


def block(pool: int, number: int) -> IPv4Network:
    return N(f"10.{pool}.{number}.0/26")


def config_of(name: str, *extra: IPv4Network) -> BirdConfig:
    number = int(name[1:])
    return BirdConfig(
        address=IPv4Interface(f"{ADDRESSES[name]}/24"),
        pools=POOLS,
        blocks=frozenset({*(block(pool, number) for pool in (5, 6, 7, 8, 9)), *extra}),
        peers=frozenset(MeshPeer(IPv4Address(peer)) for other, peer in ADDRESSES.items() if other != name),
    )


@dataclass
class Speaker:
    """A machine with BIRD: its files, and the process while it runs."""

    machine: Machine
    directory: Path
    program: Path
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    pid: int = 0

    @property
    def control(self) -> BirdControl:
        return BirdControl(self.directory / "bird.ctl")

    def configure(self, config: BirdConfig) -> None:
        (self.directory / "bird.cfg").write_text(render(config))

    def start(self, *options: str) -> None:
        words: list[str | Path] = [
            self.program,
            "-f",
            "-s",
            self.directory / "bird.ctl",
            "-c",
            self.directory / "bird.cfg",
            *options,
        ]
        process = self.stack.enter_context(running(self.machine, words, self.directory / "bird.log"))
        self.pid = process.pid  # setpriv, nsenter and env become BIRD, each in turn

    def kernel(self, destination: IPv4Network) -> list[dict[str, Any]]:
        """Routes to exactly `destination`."""
        return self.machine.net.routes("exact", str(destination))

    def wait_for_sessions(self) -> None:
        """Until there is one to each other machine."""
        others = set(ADDRESSES.values()) - {self.machine.address}
        eventually(f"sessions of {self.machine.name}", lambda: self.established() == others)

    def recovered(self) -> bool:
        """All sessions are back, and nothing is held back any more."""
        try:
            return len(self.established()) == len(ADDRESSES) - 1 and not self.control.status().recovering
        except BirdError:
            return False

    def established(self) -> set[str]:
        try:
            return {str(peer.address) for peer in self.control.peers() if peer.established}
        except BirdError:
            return set()


def add_tunnel(machine: Machine) -> None:
    net, number = machine.net, int(machine.name[1:])
    net.ip("link", "add", "tunl0", "type", "vxlan", "id", "77", "dstport", "4789", "local", machine.address)
    net.ip("address", "add", f"10.5.{number}.1/32", "dev", "tunl0")
    net.ip("link", "set", "tunl0", "up")


def tunnel_index(machine: Machine) -> int:
    links: list[dict[str, Any]] = json.loads(machine.net.ip("-j", "link"))
    return sum(link["ifindex"] for link in links if link["ifname"] == "tunl0")


def prepare(machine: Machine) -> None:
    """The part of the agent that BIRD depends on: a device named tunl0, and blackholes of the own blocks.

    This kernel may lack IP-in-IP; a VXLAN device of that name serves, for routes are written by name only.
    """
    net, number = machine.net, int(machine.name[1:])
    add_tunnel(machine)
    for pool in (5, 6, 7, 8, 9):
        net.ip("route", "add", "blackhole", str(block(pool, number)), "proto", "80")


@pytest.fixture(scope="module")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Speaker]]:
    """Three BIRDs in full mesh, every session Established."""
    program = debs.extract("bird2") / "usr/sbin/bird"
    with machines(ADDRESSES) as nodes, contextlib.ExitStack() as stack:
        made = {}
        for name, machine in nodes.items():
            prepare(machine)
            speaker = Speaker(machine, tmp_path_factory.mktemp(name), program)
            stack.callback(speaker.stack.close)
            speaker.configure(config_of(name))
            speaker.start()
            made[name] = speaker
        for speaker in made.values():
            speaker.wait_for_sessions()
        yield made


def next_hop(routes: list[dict[str, Any]]) -> tuple[str, str, str, bool]:
    """Gateway, device, protocol and onlink of the only route."""
    (route,) = routes
    return route["gateway"], route["dev"], route["protocol"], "onlink" in route.get("flags", [])


def wait_for_route(speaker: Speaker, destination: IPv4Network) -> list[dict[str, Any]]:
    return eventually(f"route to {destination}", lambda: speaker.kernel(destination))


def test_ipip_block_goes_out_of_tunl0_to_the_peer_wherever_it_is(speakers: dict[str, Speaker]) -> None:
    one = speakers["n1"]
    assert next_hop(wait_for_route(one, block(5, 2))) == ("10.30.200.2", "tunl0", "bird", True)
    assert next_hop(wait_for_route(one, block(5, 3))) == ("10.30.201.3", "tunl0", "bird", True)


def test_cross_subnet_block_of_a_neighbour_goes_out_of_the_link(speakers: dict[str, Speaker]) -> None:
    one = speakers["n1"]
    assert next_hop(wait_for_route(one, block(7, 2))) == ("10.30.200.2", "eth0", "bird", False)
    assert next_hop(wait_for_route(one, block(7, 3))) == ("10.30.201.3", "tunl0", "bird", True)


def test_unencapsulated_block_follows_the_way_to_the_peer(speakers: dict[str, Speaker]) -> None:
    one = speakers["n1"]
    assert next_hop(wait_for_route(one, block(8, 2))) == ("10.30.200.2", "eth0", "bird", False)
    assert next_hop(wait_for_route(one, block(8, 3))) == ("10.30.200.254", "eth0", "bird", False)


def test_vxlan_block_arrives_by_bgp_but_stays_out_of_the_kernel(speakers: dict[str, Speaker]) -> None:
    one = speakers["n1"]
    wait_for_route(one, block(5, 2))
    assert block(6, 2) in one.control.imported(protocol_name(IPv4Address("10.30.200.2")))
    assert one.kernel(block(6, 2)) == []


def test_block_of_a_pool_without_export_is_not_announced(speakers: dict[str, Speaker]) -> None:
    one = speakers["n1"]
    wait_for_route(one, block(5, 2))
    imported = one.control.imported(protocol_name(IPv4Address("10.30.200.2")))
    assert imported == [block(5, 2), block(6, 2), block(7, 2), block(8, 2)]
    assert one.control.exported(protocol_name(IPv4Address("10.30.200.2"))) == [
        block(5, 1),
        block(6, 1),
        block(7, 1),
        block(8, 1),
    ]


def test_bird_writes_nothing_to_the_kernel_but_blocks_of_peers(speakers: dict[str, Speaker]) -> None:
    one = speakers["n1"]
    wait_for_route(one, block(8, 3))
    ours = {route["dst"] for route in one.machine.net.routes("proto", "bird")}
    assert ours == {str(block(pool, number)) for pool in (5, 7, 8) for number in (2, 3)}


def test_own_block_keeps_the_agents_blackhole(speakers: dict[str, Speaker]) -> None:
    (route,) = speakers["n1"].kernel(block(5, 1))
    assert (route["type"], route["protocol"]) == ("blackhole", "80")


def test_new_block_reaches_the_peers_and_goes_again_while_sessions_stay(speakers: dict[str, Speaker]) -> None:
    one, two = speakers["n1"], speakers["n2"]
    since = {peer.name: peer.since for peer in one.control.peers()}
    two.configure(config_of("n2", block(8, 77)))
    two.control.configure()
    wait_for_route(one, block(8, 77))
    two.configure(config_of("n2"))
    two.control.configure()
    eventually("withdrawal", lambda: not one.kernel(block(8, 77)))
    assert {peer.name: peer.since for peer in one.control.peers()} == since
    assert all(peer.established for peer in one.control.peers())


@contextlib.contextmanager
def local_pod(machine: Machine, address: str, name: str = "cali0123456789a") -> Iterator[None]:
    """A pod's link and route, as CNI ADD makes them."""
    peer = name.replace("cali", "peer")
    machine.net.ip("link", "add", name, "type", "veth", "peer", "name", peer)
    try:
        for end in (name, peer):
            machine.net.ip("link", "set", end, "up")
        wait_for_carrier(machine.net.ip, name, peer)
        machine.net.ip("route", "add", address, "dev", name, "scope", "link", "proto", "80")
        yield
    finally:
        machine.net.ip("link", "del", name)


@pytest.mark.parametrize(
    ("pool", "way"),
    [
        (5, ("10.30.200.2", "tunl0", "bird", True)),
        (7, ("10.30.200.2", "eth0", "bird", False)),
        (8, ("10.30.200.2", "eth0", "bird", False)),
    ],
    ids=["ipip", "cross-subnet", "none"],
)
def test_borrowed_address_leads_to_the_borrower_as_long_as_the_pod_is_there(
    speakers: dict[str, Speaker], pool: int, way: tuple[str, str, str, bool]
) -> None:
    one, two, three = speakers["n1"], speakers["n2"], speakers["n3"]
    address = N(f"10.{pool}.1.9/32")  # of n1's block
    with local_pod(two.machine, str(address)):
        assert next_hop(wait_for_route(one, address)) == way
        wait_for_route(three, address)
        (blackhole,) = one.kernel(block(pool, 1))
        assert blackhole["type"] == "blackhole"
        (local,) = two.kernel(address)
        assert (local["dev"], local["protocol"]) == ("cali0123456789a", "80")
    eventually("withdrawal", lambda: not one.kernel(address) and not three.kernel(address))


def test_other_pods_get_no_route_of_their_own_at_the_peers(speakers: dict[str, Speaker]) -> None:
    one, two = speakers["n1"], speakers["n2"]
    own_block, vxlan, not_exported, no_pool, witness = (
        N(address) for address in ("10.5.2.9", "10.6.1.9", "10.9.1.9", "10.99.1.9", "10.8.1.9")
    )
    with contextlib.ExitStack() as pods:
        for number, address in enumerate((own_block, vxlan, not_exported, no_pool, witness)):
            pods.enter_context(local_pod(two.machine, str(address), f"cali0000000000{number}"))
        wait_for_route(one, witness)  # by then BIRD has read the others, too
        announced = two.control.exported(protocol_name(IPv4Address("10.30.200.1")))
        # The peers' agents route VXLAN; BGP carries all the same.
        assert {address for address in announced if address.prefixlen == 32} == {vxlan, witness}
        assert not any(one.kernel(address) for address in (own_block, vxlan, not_exported, no_pool))
    eventually("withdrawal", lambda: not one.kernel(witness))


def test_killed_bird_and_its_restart_lose_no_route_on_either_side(speakers: dict[str, Speaker]) -> None:
    one, two = speakers["n1"], speakers["n2"]
    wait_for_route(two, block(5, 1))
    os.kill(one.pid, signal.SIGKILL)
    eventually("the end of BIRD", lambda: not one.established())
    missing: list[str] = []

    def look() -> bool:
        missing.extend(
            speaker.machine.name
            for speaker, route in ((one, block(5, 2)), (two, block(5, 1)))
            if not speaker.kernel(route)
        )
        return one.recovered()

    for _ in range(20):
        assert not look()
    one.start("-R")
    eventually("recovery", look)
    look()
    assert missing == []


async def test_routes_are_written_again_when_the_tunnel_comes_late_or_is_another_device(
    speakers: dict[str, Speaker],
) -> None:
    one = speakers["n1"]
    net = one.machine.net
    wait_for_route(one, block(5, 2))
    bird = Bird(
        str(one.program),
        one.directory / "bird.cfg",
        one.directory / "bird.ctl",
        lambda: tunnel_index(one.machine),
    )
    await bird.poll()
    for _ in range(2):
        net.ip("link", "delete", "tunl0")
        await bird.poll()
        # What a session brings while there is no tunnel, BIRD cannot write.
        one.control.write_routes_anew()
        eventually("BIRD's words", lambda: "Invalid iface name" in (one.directory / "bird.log").read_text())
        assert one.kernel(block(5, 2)) == []
        add_tunnel(one.machine)

        for _attempt in range(100):
            await bird.poll()
            if one.kernel(block(5, 2)):
                break
            await asyncio.sleep(0.1)
        assert next_hop(one.kernel(block(5, 2))) == ("10.30.200.2", "tunl0", "bird", True)
        assert next_hop(one.kernel(block(7, 3))) == ("10.30.201.3", "tunl0", "bird", True)


def test_graceful_shutdown_keeps_routes_here_and_at_the_peers(speakers: dict[str, Speaker]) -> None:
    one, two = speakers["n1"], speakers["n2"]
    one.control.shut_down_gracefully()
    eventually("the end of BIRD", lambda: not one.established())
    eventually("n2 to notice", lambda: "10.30.200.1" not in two.established())
    (left,) = [peer for peer in two.control.peers() if peer.address == IPv4Address("10.30.200.1")]
    assert left.restarting
    assert one.kernel(block(5, 2))
    assert two.kernel(block(5, 1))
    one.start("-R")
    eventually("recovery", one.recovered)
    assert one.kernel(block(5, 2))
    assert two.kernel(block(5, 1))
    eventually("its end", lambda: not any(peer.restarting for peer in two.control.peers()))


def test_fresh_bird_with_an_absent_peer_says_that_it_recovers_only_after_a_restart(
    speakers: dict[str, Speaker], tmp_path: Path
) -> None:
    lone = replace(config_of("n1"), port=1179)  # nobody answers there
    speaker = Speaker(speakers["n1"].machine, tmp_path, speakers["n1"].program)
    text = render(lone).replace("protocol kernel {\n", "protocol kernel {\n  kernel table 99;\n")
    (tmp_path / "bird.cfg").write_text(text)
    for options, recovering in (((), False), (("-R",), True)):
        with speaker.stack:
            speaker.start(*options)
            status = eventually("BIRD", lambda: _status(speaker))
            assert status.recovering is recovering


def _status(speaker: Speaker) -> Any:
    try:
        return speaker.control.status()
    except BirdError:
        return None


async def test_configuration_that_bird_refuses_never_replaces_the_good_one(
    speakers: dict[str, Speaker], tmp_path: Path
) -> None:
    bird = Bird(str(speakers["n1"].program), tmp_path / "bird.cfg", tmp_path / "bird.ctl", lambda: 0)
    good = render(config_of("n1"))
    assert await bird.write(good) is True
    assert await bird.write(good) is False
    with pytest.raises(BirdError, match=r"does not accept .*syntax error"):
        await bird.write(good + "nonsense\n")
    assert await asyncio.to_thread((tmp_path / "bird.cfg").read_text) == good
    assert await asyncio.to_thread(os.listdir, tmp_path) == ["bird.cfg"]
    with pytest.raises(BirdError, match=r"does not accept"):
        await bird.poll()


async def test_absent_bird_program_is_named_with_a_remedy(tmp_path: Path) -> None:
    bird = Bird("no-such-bird", tmp_path / "bird.cfg", tmp_path / "bird.ctl", lambda: 0)
    with pytest.raises(BirdError, match=r"BIRD_PROGRAM is 'no-such-bird'.*install BIRD 2"):
        await bird.write("x")


@pytest.mark.parametrize("pools", [frozenset(), POOLS])
async def test_every_configuration_is_accepted_by_bird(pools: frozenset[Pool], tmp_path: Path) -> None:
    program = debs.extract("bird2") / "usr/sbin/bird"
    bird = Bird(str(program), tmp_path / "bird.cfg", tmp_path / "bird.ctl", lambda: 0)
    base = BirdConfig(address=IPv4Interface("10.0.0.1/32"), pools=pools)
    assert await bird.write(render(base))
    assert await bird.write(render(replace(base, debug=True, as_number=4200000000, port=1790)))
    assert await bird.write(render(replace(config_of("n2"), pools=pools)))
