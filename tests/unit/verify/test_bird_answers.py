"""BIRD's control protocol and what its answers mean; the answers were recorded from BIRD 2.0.12."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils.verify_bird import (
    BirdClient,
    BirdError,
    parse_networks,
    parse_protocols,
    sessions,
)

PROTOCOLS = """\
2002-Name       Proto      Table      State  Since         Info
1002-device1    Device     ---        up     2026-11-22 10:11:18
1006-
1002-own_blocks Static     master4    up     2026-11-22 10:11:18
1006-  Channel ipv4
     State:          UP
1002-Mesh_10_30_200_2 BGP        ---        up     2026-11-22 10:09:46  Established
1006-  BGP state:          Established
     Neighbor address: 10.30.200.2
     Neighbor AS:      64512
1002-Mesh_10_30_200_9 BGP        ---        start  10:10:07.123  Passive  Received: Administrative shutdown
1006-  BGP state:          Passive
     Neighbor address: 10.30.200.9
     Last error:       Received: Administrative shutdown
1002-Mesh_10_30_200_10 BGP        ---        down   2026-11-22 10:10:07
1006-
0000
"""
ROUTES = """\
1007-Table master4:
 10.8.2.0/26          unicast [Mesh_10_30_200_2 10:09:46.394] * (100) [i]
 \tvia 10.30.200.2 on e1
                      unicast [Mesh_10_30_200_2 10:09:46.394] (100) [i]
 \tvia 10.30.200.3 on e1
 10.5.2.0/26          unreachable [Mesh_10_30_200_2 10:09:46.394] * (100) [i]
0000
"""


def lines(answer: str) -> list[str]:
    """The answer as BirdClient.ask gives it."""
    return [line[5:] if line[:4].isdigit() else line[1:] for line in answer.splitlines()]


@contextmanager
def server(path: Path, answers: dict[str, str]) -> Iterator[None]:
    """A control socket that greets and gives each command its answer, a few bytes at a time."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        connection, _address = listener.accept()
        with connection:
            connection.sendall(b"0001 BIRD 2.0.12 ready.\n")
            while command := connection.recv(4096).decode().strip():
                answer = answers[command].encode()
                for start in range(0, len(answer), 37):
                    connection.sendall(answer[start : start + 37])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(5)
        listener.close()


def test_sessions_have_neighbour_state_and_reason() -> None:
    found = {session["name"]: session for session in parse_protocols(lines(PROTOCOLS))}
    assert set(found) == {"Mesh_10_30_200_2", "Mesh_10_30_200_9", "Mesh_10_30_200_10"}
    assert (found["Mesh_10_30_200_2"]["peer"], found["Mesh_10_30_200_2"]["bgp_state"]) == (
        "10.30.200.2",
        "Established",
    )
    assert found["Mesh_10_30_200_9"]["bgp_state"] == "Passive"
    assert "Administrative shutdown" in found["Mesh_10_30_200_9"]["info"]
    assert (found["Mesh_10_30_200_10"]["peer"], found["Mesh_10_30_200_10"]["bgp_state"]) == ("", "")


def test_attributes_of_another_protocol_do_not_leak_into_a_session() -> None:
    session = "1002-Mesh_1 BGP --- up 10:00:00 Established\n"
    text = session + "1002-rpki1 RPKI --- up 10:00:00\n1006-\n     Neighbor address: 192.0.2.1\n0000\n"
    assert [session["peer"] for session in parse_protocols(lines(text))] == [""]


def test_networks_are_listed_once_whatever_their_paths() -> None:
    assert parse_networks(lines(ROUTES)) == ["10.8.2.0/26", "10.5.2.0/26"]


def test_networks_of_an_empty_table_are_none() -> None:
    assert parse_networks(lines("0000\n")) == []


def test_sessions_are_asked_for_their_routes_one_by_one(tmp_path: Path) -> None:
    answers = {"show protocols all": PROTOCOLS.replace("\n0000\n", "\n0000 \n")}
    for name in ("Mesh_10_30_200_2", "Mesh_10_30_200_9", "Mesh_10_30_200_10"):
        answers[f"show route protocol {name}"] = "0000 \n"
    answers["show route protocol Mesh_10_30_200_2"] = ROUTES.replace("\n0000\n", "\n0000 \n")
    with server(tmp_path / "bird.ctl", answers):
        found = {session["name"]: session["networks"] for session in sessions(str(tmp_path / "bird.ctl"))}
    assert found == {
        "Mesh_10_30_200_2": ["10.8.2.0/26", "10.5.2.0/26"],
        "Mesh_10_30_200_9": [],
        "Mesh_10_30_200_10": [],
    }


def test_refused_command_is_an_error_with_birds_own_words(tmp_path: Path) -> None:
    with (
        server(tmp_path / "bird.ctl", {"nonsense": "9001 syntax error, unexpected CF_SYM_UNDEFINED\n"}),
        BirdClient(str(tmp_path / "bird.ctl")) as bird,
        pytest.raises(BirdError, match="syntax error"),
    ):
        bird.ask("nonsense")


def test_missing_socket_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(BirdError, match=r"none\.ctl: No such file"):
        sessions(str(tmp_path / "none.ctl"))
