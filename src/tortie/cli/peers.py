"""The report of `node status`: BGP sessions in, text out."""

from collections.abc import Sequence
from typing import Final

from tortie.bgp.control import BGPPeerStatus
from tortie.cli.tables import boxed

HEADINGS: Final = ("PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO")

# The agent names BIRD's protocols as Calico does.
_TYPES: Final = {"Mesh_": "node-to-node mesh", "Node_": "node specific", "Global_": "global"}


def peer_type(protocol: str) -> str:
    """What kind of peer a protocol's name stands for."""
    return next((words for prefix, words in _TYPES.items() if protocol.startswith(prefix)), "unknown")


def protocol_state(peer: BGPPeerStatus) -> str:
    """BIRD's own state of the protocol: up when routes flow, down when it is switched off, else start."""
    if peer.established:
        return "up"
    return "down" if peer.state == "Down" else "start"


def peer_cells(peer: BGPPeerStatus) -> tuple[str, str, str, str, str]:
    """One row under HEADINGS; INFO is the BGP state and, unless established, why."""
    reason = "" if peer.established or peer.info in ("", peer.state) else f" {peer.info}"
    return (
        str(peer.address) if peer.address else peer.name,
        peer_type(peer.name),
        protocol_state(peer),
        peer.since,
        peer.state + reason,
    )


def status_report(peers: Sequence[BGPPeerStatus]) -> str:
    """The whole output for a BIRD that answers."""
    if not peers:
        return "Calico process is running.\n\nIPv4 BGP status\nNo IPv4 peers found.\n"
    table = boxed(HEADINGS, [peer_cells(peer) for peer in peers])
    return f"Calico process is running.\n\nIPv4 BGP status\n{table}"
