"""What BIRD's answers mean, from answers recorded from BIRD 2.0.12."""

import socket
import threading
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from tortie.bgp.control import BirdControl, BirdError, ReplyLine, parse_peers, parse_prefixes, parse_status

RECORDED = Path(__file__).parent / "recorded"


class RecordedBird:
    """A control socket that greets, reads one command, and answers with a recording."""

    def __init__(self, path: Path, answer: str) -> None:
        self.path = path
        self.commands: list[str] = []
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.sendall(b"0001 BIRD 2.0.12 ready.\n")
            self.commands.append(connection.recv(4096).decode())
            for start in range(0, len(self._answer), 50):  # an answer comes in pieces
                connection.sendall(self._answer[start : start + 50].encode())

    def close(self) -> None:
        self._thread.join(5)
        self._socket.close()


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


def ask(tmp_path: Path, answer: str) -> list[ReplyLine]:
    bird = RecordedBird(tmp_path / "bird.ctl", answer)
    try:
        return BirdControl(bird.path).command("show something")
    finally:
        bird.close()


def test_peers_have_state_since_and_route_counts(tmp_path: Path) -> None:
    peers = parse_peers(ask(tmp_path, recorded("protocols")))
    assert [peer.name for peer in peers] == ["Mesh_10_30_200_10", "Mesh_10_30_200_2", "Mesh_10_30_200_9"]
    down, up, passive = peers
    assert up.established
    assert (up.address, up.as_number, up.since) == (IPv4Address("10.30.200.2"), 64512, "2026-11-22 10:09:46")
    assert (up.imported, up.exported) == (2, 3)
    assert not passive.established
    assert (passive.state, passive.as_number) == ("Passive", 65001)
    assert passive.info == "Received: Administrative shutdown"
    assert (down.state, down.address) == ("Down", None)


def test_status_has_version_and_times(tmp_path: Path) -> None:
    status = parse_status(ask(tmp_path, recorded("status")))
    assert status.version == "2.0.12"
    assert status.router_id == "10.30.200.1"
    assert status.last_reboot == "2026-11-22 10:11:18.613"
    assert status.last_reconfiguration == "2026-11-22 10:12:18.613"
    assert not status.recovering


def test_status_tells_graceful_restart_recovery(tmp_path: Path) -> None:
    status = parse_status(ask(tmp_path, recorded("status-recovering")))
    assert status.recovering
    assert status.state == "Daemon is up and running"


def test_prefixes_of_show_route(tmp_path: Path) -> None:
    assert parse_prefixes(ask(tmp_path, recorded("routes"))) == [
        IPv4Network("10.5.2.0/26"),
        IPv4Network("10.8.2.0/26"),
    ]


def test_refused_command_is_an_error_with_birds_words(tmp_path: Path) -> None:
    with pytest.raises(BirdError, match=r"refused the command 'show something': .*unexpected GARBAGE"):
        ask(tmp_path, "0002-Reading configuration from x\n8002 x:80:1 syntax error, unexpected GARBAGE\n")


def test_answer_cut_short_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BirdError, match=r"middle of an answer"):
        ask(tmp_path, "1000-BIRD 2.0.12\n")


def test_absent_bird_is_an_error_that_names_the_socket(tmp_path: Path) -> None:
    with pytest.raises(BirdError, match=r"does not answer on .*none\.ctl"):
        BirdControl(tmp_path / "none.ctl").status()


def test_protocol_name_that_is_no_symbol_never_reaches_bird(tmp_path: Path) -> None:
    with pytest.raises(BirdError, match=r"is not the name of a BIRD protocol"):
        BirdControl(tmp_path / "none.ctl").imported("x all; configure")
