"""`node status` asks a real BIRD."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from lab import debs

from tests.integration.bgp.nodes import eventually, machines, running
from tortie.bgp.config import BirdConfig, MeshPeer, render

pytestmark = pytest.mark.root

SOURCE = Path(__file__).resolve().parents[3] / "src"
ADDRESSES = {"n1": "10.30.200.1", "n2": "10.30.200.2"}
NOBODY = "10.30.200.99"


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The control socket of a BIRD with one peer that answers and one that does not exist."""
    directory = Path(tmp_path_factory.mktemp("status"))
    program = debs.extract("bird2") / "usr/sbin/bird"
    with machines(ADDRESSES) as nodes, contextlib.ExitStack() as stack:
        for name, address in ADDRESSES.items():
            others = {*ADDRESSES.values(), NOBODY} - {address}
            peers = frozenset(MeshPeer(IPv4Address(other)) for other in others)
            config = directory / f"{name}.cfg"
            config.write_text(render(BirdConfig(address=IPv4Interface(f"{address}/24"), peers=peers)))
            words: list[str | Path] = [program, "-f", "-s", directory / f"{name}.ctl", "-c", config]
            stack.enter_context(running(nodes[name], words, directory / f"{name}.log"))
        yield directory / "n1.ctl"


def status(socket: Path) -> subprocess.CompletedProcess[str]:
    """The command's result."""
    command = [sys.executable, "-m", "tortie.cli.main", "node", "status", "--bird-socket", str(socket)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=SOURCE)


def rows(socket: Path) -> dict[str, list[str]]:
    """Cells of the table by peer address."""
    lines = [line for line in status(socket).stdout.splitlines() if line.startswith("| 10.")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_established_and_absent_peers_are_told_apart(socket: Path) -> None:
    eventually("an established session", lambda: rows(socket).get(ADDRESSES["n2"], [""])[-1] == "Established")
    found = rows(socket)
    assert found[ADDRESSES["n2"]][:2] == ["node-to-node mesh", "up"]
    assert found[NOBODY][:2] == ["node-to-node mesh", "start"]
    assert not found[NOBODY][3].startswith("Established")
    assert status(socket).returncode == 0
