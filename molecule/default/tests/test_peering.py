"""BGP sessions of each node, as its BIRD tells over the control socket."""

import re
from typing import Any

import pytest
from testinfra.host import Host


def bird(host: Host, command: str) -> str:
    """BIRD's answer to a command. BIRD hangs up when its client does: the sleep keeps our side open."""
    socket = "UNIX-CONNECT:/var/run/calico/bird.ctl"
    answer: str = host.check_output(f"(printf '%%s\\n' %s; sleep 0.5) | socat - {socket}", command)
    return answer


@pytest.fixture(name="sessions")
def _sessions(host: Host) -> dict[str, tuple[str, str]]:
    """By neighbour address: the protocol's name and its BGP state."""
    sessions = {}
    # Every protocol of the answer begins with code 1002.
    for protocol in re.split(r"^1002-", bird(host, "show protocols all"), flags=re.MULTILINE):
        neighbour = re.search(r"Neighbor address:\s+(\S+)", protocol)
        state = re.search(r"BGP state:\s+(\S+)", protocol)
        if neighbour and state:
            sessions[neighbour.group(1)] = (protocol.split()[0], state.group(1))
    return sessions


def test_there_is_an_established_session_with_every_other_node(
    sessions: dict[str, tuple[str, str]], cluster: Any, node: Any
) -> None:
    states = {address: state for address, (_name, state) in sessions.items()}
    assert states == {str(peer.address): "Established" for peer in cluster.peers(node.name)}


def test_each_session_brings_its_peers_blocks_and_no_others(
    host: Host, sessions: dict[str, tuple[str, str]], cluster: Any, node: Any
) -> None:
    for peer in cluster.peers(node.name):
        name, _state = sessions[str(peer.address)]
        answer = bird(host, f"show route protocol {name}")
        networks = re.findall(r"^(?:1007-| )(\d+\.\d+\.\d+\.\d+/\d+)\s", answer, flags=re.MULTILINE)
        assert sorted(networks) == sorted(peer.blocks)
