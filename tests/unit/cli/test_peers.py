"""The report of `node status`."""

from ipaddress import IPv4Address

from tortie.bgp.control import BGPPeerStatus
from tortie.cli.peers import peer_cells, status_report


def peer(
    name: str = "Mesh_10_30_200_2", state: str = "Established", info: str = "Established"
) -> BGPPeerStatus:
    """A session."""
    return BGPPeerStatus(name, IPv4Address("10.30.200.2"), 64512, state, "2026-01-31 10:20:30", info)


def test_established_peer_is_up() -> None:
    assert status_report([peer()]) == (
        "Calico process is running.\n\n"
        "IPv4 BGP status\n"
        "+--------------+-------------------+-------+---------------------+-------------+\n"
        "| PEER ADDRESS |     PEER TYPE     | STATE |        SINCE        |    INFO     |\n"
        "+--------------+-------------------+-------+---------------------+-------------+\n"
        "| 10.30.200.2  | node-to-node mesh | up    | 2026-01-31 10:20:30 | Established |\n"
        "+--------------+-------------------+-------+---------------------+-------------+\n"
    )


def test_peer_that_connects_shows_why_it_is_not_up() -> None:
    cells = peer_cells(peer(state="Active", info="Socket: Connection refused"))
    assert cells[2:] == ("start", "2026-01-31 10:20:30", "Active Socket: Connection refused")


def test_reason_that_only_repeats_the_state_is_left_out() -> None:
    assert peer_cells(peer(state="Passive", info="Passive"))[4] == "Passive"


def test_peer_that_is_switched_off_is_down() -> None:
    assert peer_cells(peer(state="Down", info=""))[2] == "down"


def test_type_of_a_peer_follows_from_its_name() -> None:
    names = ["Global_10_0_0_9", "Node_10_0_0_9", "Mesh_10_0_0_9", "other"]
    assert [peer_cells(peer(name))[1] for name in names] == [
        "global",
        "node specific",
        "node-to-node mesh",
        "unknown",
    ]


def test_node_without_peers_says_so() -> None:
    assert status_report([]).endswith("No IPv4 peers found.\n")
