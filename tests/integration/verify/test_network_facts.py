"""network_facts against a real kernel, real nftables and two real BIRDs in network namespaces."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import debs

from tests.integration.verify.wires import Wires, eventually, wires

pytestmark = pytest.mark.root

ADDRESS = {"one": "10.97.0.1", "two": "10.97.0.2"}
BLOCK = {"one": "10.5.0.0/26", "two": "10.5.0.64/26"}
VTEP_MAC = {"one": "66:aa:00:00:00:01", "two": "66:aa:00:00:00:02"}
VTEP = {"one": "10.5.0.1", "two": "10.5.0.65"}

BIRD = """
router id {own};
protocol device {{ }}
protocol static blocks {{ ipv4; route {block} blackhole; }}
protocol bgp Mesh_peer {{
  local {own} as 64512;
  neighbor {peer} as 64512;
  connect retry time 1; connect delay time 1;
  ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
"""


class Pair:
    """Namespaces `one` and `two` set up as the network would: VXLAN, routes, BIRD, masquerade in `one`."""

    def __init__(self, made: Wires, directory: Path) -> None:
        self.wires = made
        self.directory = directory
        self.bird = debs.extract("bird2") / "usr/sbin/bird"
        made.add("one")
        made.add("two")
        made.link("one", "two", "eth0", "eth0", 1500)
        for name, peer in (("one", "two"), ("two", "one")):
            made.ip(name, "address", "add", f"{ADDRESS[name]}/24", "dev", "eth0")
            self._vxlan(name, peer)
            self._start_bird(name, peer)

    def _vxlan(self, name: str, peer: str) -> None:
        device = ["vxlan.calico", "address", VTEP_MAC[name], "mtu", "1450", "type", "vxlan"]
        tunnel = ["id", "4096", "dstport", "4789", "local", ADDRESS[name], "dev", "eth0", "nolearning"]
        self.wires.ip(name, "link", "add", *device, *tunnel)
        self.wires.ip(name, "address", "add", f"{VTEP[name]}/32", "dev", "vxlan.calico")
        self.wires.ip(name, "link", "set", "vxlan.calico", "up")
        self.wires.ip(name, "route", "add", "blackhole", BLOCK[name], "proto", "80")
        onlink = ["dev", "vxlan.calico", "onlink", "proto", "80"]
        self.wires.ip(name, "route", "add", BLOCK[peer], "via", VTEP[peer], *onlink)
        neighbour = [VTEP[peer], "lladdr", VTEP_MAC[peer], "dev", "vxlan.calico", "nud", "permanent"]
        self.wires.ip(name, "neighbour", "add", *neighbour)
        fdb = ["bridge", "fdb", "add", VTEP_MAC[peer], "dev", "vxlan.calico", "dst", ADDRESS[peer]]
        self.wires.inside(name, *fdb)

    def _start_bird(self, name: str, peer: str) -> None:
        config = self.directory / f"{name}.conf"
        config.write_text(BIRD.format(own=ADDRESS[name], peer=ADDRESS[peer], block=BLOCK[name]))
        files = ["-c", str(config), "-s", str(self.socket(name)), "-P", str(self.directory / f"{name}.pid")]
        self.wires.start(name, str(self.bird), "-f", *files)

    def socket(self, name: str) -> Path:
        """BIRD's control socket of a namespace."""
        return self.directory / f"{name}.ctl"

    def facts(self, name: str, **parameters: object) -> Any:
        """What the module returns in a namespace."""
        result = self.wires.module(name, "network_facts", bird_socket=str(self.socket(name)), **parameters)
        assert result["changed"] is False
        return result["network"]


@pytest.fixture(name="pair", scope="module")
def _pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with wires() as made:
        yield Pair(made, tmp_path_factory.mktemp("bird"))


def test_session_is_established_and_carries_the_peers_block(pair: Pair) -> None:
    eventually(
        lambda: pair.facts("one")["sessions"][0]["networks"] == [BLOCK["two"]],
        "the block arrives over BGP",
        40,
    )
    session = pair.facts("one")["sessions"][0]
    assert (session["name"], session["peer"]) == ("Mesh_peer", ADDRESS["two"])
    assert (session["bgp_state"], session["info"]) == ("Established", "Established")


def test_session_that_went_away_is_not_established_and_carries_nothing(pair: Pair) -> None:
    pair.wires.ip("two", "link", "set", "eth0", "down")
    try:
        subprocess.run(
            [
                str(debs.extract("bird2") / "usr/sbin/birdc"),
                "-s",
                str(pair.socket("one")),
                "restart",
                "Mesh_peer",
            ],
            check=True,
            capture_output=True,
        )
        session = pair.facts("one")["sessions"][0]
        assert session["bgp_state"] != "Established"
        assert session["networks"] == []
        assert session["peer"] == ADDRESS["two"]
    finally:
        pair.wires.ip("two", "link", "set", "eth0", "up")


def test_silent_bird_is_told_and_everything_else_is_read(pair: Pair) -> None:
    facts = pair.wires.module("one", "network_facts", bird_socket=str(pair.directory / "none.ctl"))["network"]
    assert facts["sessions"] == []
    assert "none.ctl" in facts["bird_error"]
    assert facts["routes"]


def test_links_have_addresses_mtu_state_and_the_tunnels_attributes(pair: Pair) -> None:
    links = pair.facts("one")["links"]
    assert links["eth0"]["addresses"] == [f"{ADDRESS['one']}/24"]
    assert (links["eth0"]["mtu"], links["eth0"]["up"]) == (1500, True)
    tunnel = links["vxlan.calico"]
    assert (tunnel["mtu"], tunnel["up"], tunnel["mac"]) == (1450, True, VTEP_MAC["one"])
    assert tunnel["addresses"] == [f"{VTEP['one']}/32"]
    assert tunnel["vxlan"] == {"vni": 4096, "port": 4789, "local": ADDRESS["one"], "parent": "eth0"}


def test_routes_have_device_gateway_protocol_number_kind_and_onlink(pair: Pair) -> None:
    routes = {route["destination"]: route for route in pair.facts("one")["routes"]}
    assert routes[BLOCK["two"]] == {
        "destination": BLOCK["two"],
        "device": "vxlan.calico",
        "gateway": VTEP["two"],
        "protocol": 80,
        "kind": "unicast",
        "onlink": True,
    }
    assert (routes[BLOCK["one"]]["kind"], routes[BLOCK["one"]]["protocol"]) == ("blackhole", 80)
    pair.wires.ip("one", "route", "add", "10.77.0.0/24", "via", ADDRESS["two"], "proto", "bird")
    pair.wires.ip("one", "route", "add", "10.77.1.1", "dev", "eth0")
    routes = {route["destination"]: route for route in pair.facts("one")["routes"]}
    assert routes["10.77.0.0/24"]["protocol"] == 12
    assert routes["10.77.0.0/24"]["onlink"] is False
    assert routes["10.77.1.1/32"]["protocol"] == 3


def test_neighbour_and_fdb_of_the_peers_vtep_are_permanent(pair: Pair) -> None:
    facts = pair.facts("one")
    assert {
        "device": "vxlan.calico",
        "address": VTEP["two"],
        "mac": VTEP_MAC["two"],
        "permanent": True,
    } in facts["neighbours"]
    assert {
        "device": "vxlan.calico",
        "address": ADDRESS["two"],
        "mac": VTEP_MAC["two"],
        "permanent": True,
    } in facts["fdb"]


def test_paths_are_the_kernels_own(pair: Pair) -> None:
    facts = pair.facts("one", addresses=[ADDRESS["two"], "10.5.0.70"])
    assert facts["paths"] == {
        ADDRESS["two"]: {"device": "eth0", "gateway": ""},
        "10.5.0.70": {"device": "vxlan.calico", "gateway": VTEP["two"]},
    }


def test_only_our_tables_count_as_masquerade(pair: Pair) -> None:
    other = "table ip other { chain c { type nat hook postrouting priority 100; masquerade; }; }\n"
    pair.wires.inside("one", "nft", "-f", "-", data=other)
    assert pair.facts("one")["masquerade"] == {"tables": [], "masquerades": False, "networks": []}
    ours = (
        "table ip tortie { set pools { type ipv4_addr; flags interval; elements = { 10.5.0.0/16 } }\n"
        "chain post { type nat hook postrouting priority 100;\n"
        "ip saddr @pools ip daddr != @pools masquerade; }; }\n"
    )
    pair.wires.inside("one", "nft", "-f", "-", data=ours)
    assert pair.facts("one")["masquerade"] == {
        "tables": ["ip tortie"],
        "masquerades": True,
        "networks": ["10.5.0.0/16"],
    }


def test_missing_files_are_told_as_errors(pair: Pair) -> None:
    facts = pair.facts("one")
    missing = [
        path for path in ("/var/lib/calico/mtu", "/var/lib/calico/nodename") if not Path(path).exists()
    ]
    assert [error.split(":")[0] for error in facts["errors"]] == missing
