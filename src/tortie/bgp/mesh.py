"""From the cluster's state to the BIRD configuration of one node: the full mesh of all nodes. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from tortie.bgp.config import BirdConfig, MeshPeer
from tortie.model.nodeinfo import BGPNode
from tortie.model.resources import BGPConfiguration, BGPConfigurationSpec
from tortie.routing.compute import Cluster, usable_claims
from tortie.routing.state import HostLink


@dataclass(frozen=True, slots=True)
class MeshOutcome:
    """What BIRD shall do, and one sentence for every node that had to be left out."""

    config: BirdConfig
    problems: tuple[str, ...]


def cluster_settings(configurations: Iterable[BGPConfiguration]) -> BGPConfigurationSpec:
    """The BGPConfiguration named `default`, or Calico's defaults when there is none."""
    for configuration in configurations:
        if configuration.metadata.name == "default":
            return configuration.spec
    return BGPConfigurationSpec()


def mesh_config(
    own: BGPNode, link: HostLink, cluster: Cluster, settings: BGPConfigurationSpec, debug: bool = False
) -> MeshOutcome:
    """Configuration of the node `own`, which speaks to its peers through `link`."""
    problems: list[str] = []
    overlaps: list[str] = []  # routing reports those already
    claims = usable_claims(own.name, cluster.claims, overlaps)
    peers = _peers(own, link.address.ip, cluster.nodes, settings, problems)
    return MeshOutcome(
        BirdConfig(
            address=link.address,
            as_number=own.as_number or settings.as_number,
            port=settings.listen_port,
            pools=frozenset(cluster.pools),
            blocks=frozenset(claim.block for claim in claims if claim.node == own.name),
            tunnels=frozenset(address for address in (own.ipip_tunnel, own.vxlan_tunnel) if address),
            peers=frozenset(peers),
            debug=debug,
        ),
        tuple(problems),
    )


def _peers(
    own: BGPNode,
    address: IPv4Address,
    nodes: Iterable[BGPNode],
    settings: BGPConfigurationSpec,
    problems: list[str],
) -> Iterable[MeshPeer]:
    if not settings.node_to_node_mesh_enabled:
        return
    taken = {address: own.name}
    for node in sorted(nodes, key=lambda node: node.name):
        if node.name == own.name or node.ipv4 is None:
            continue
        rival = taken.get(node.ipv4.ip)
        if rival:
            problems.append(
                f"Node {node.name} announces the address {node.ipv4.ip}, which node {rival} has already; no "
                "BGP session to the former. Check IP_AUTODETECTION_METHOD on both, or delete the node "
                "that is gone."
            )
            continue
        taken[node.ipv4.ip] = node.name
        yield MeshPeer(node.ipv4.ip, node.as_number or settings.as_number)
