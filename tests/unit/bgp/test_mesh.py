"""Who peers with whom, from the cluster's state."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from tortie.bgp.config import MeshPeer
from tortie.bgp.mesh import cluster_settings, mesh_config
from tortie.model.nodeinfo import BGPNode
from tortie.model.resources import BGPConfiguration, BGPConfigurationSpec, Metadata
from tortie.routing.compute import Cluster
from tortie.routing.pools import BlockClaim, Pool
from tortie.routing.state import HostLink

OWN = BGPNode("n1", IPv4Interface("10.30.200.1/24"))
LINK = HostLink("eth0", 2, 1500, IPv4Interface("10.30.200.1/24"))
CLUSTER = Cluster(
    nodes=(
        OWN,
        BGPNode("n2", IPv4Interface("10.30.200.2/24"), as_number=65002),
        BGPNode("n3", IPv4Interface("10.30.201.3/24")),
        BGPNode("n4"),
    ),
    pools=(Pool(IPv4Network("10.5.0.0/16")),),
    claims=(
        BlockClaim(IPv4Network("10.5.1.0/26"), "n1"),
        BlockClaim(IPv4Network("10.5.2.0/26"), "n2"),
    ),
)


def test_every_other_node_with_an_address_is_a_peer() -> None:
    outcome = mesh_config(OWN, LINK, CLUSTER, BGPConfigurationSpec())
    assert outcome.problems == ()
    assert outcome.config.peers == {
        MeshPeer(IPv4Address("10.30.200.2"), 65002),
        MeshPeer(IPv4Address("10.30.201.3"), 64512),
    }
    assert outcome.config.blocks == {IPv4Network("10.5.1.0/26")}
    assert outcome.config.as_number == 64512


def test_cluster_wide_as_and_port_apply_where_a_node_says_nothing() -> None:
    settings = BGPConfigurationSpec(as_number=65100, listen_port=1179)
    config = mesh_config(OWN, LINK, CLUSTER, settings).config
    assert (config.as_number, config.port) == (65100, 1179)
    assert {peer.as_number for peer in config.peers} == {65002, 65100}
    own = replace(OWN, as_number=65001)
    assert mesh_config(own, LINK, CLUSTER, settings).config.as_number == 65001


def test_mesh_switched_off_has_no_peers_but_keeps_blocks() -> None:
    config = mesh_config(OWN, LINK, CLUSTER, BGPConfigurationSpec(node_to_node_mesh_enabled=False)).config
    assert config.peers == frozenset()
    assert config.blocks == {IPv4Network("10.5.1.0/26")}


def test_tunnel_addresses_of_the_node_are_passed_on() -> None:
    own = replace(OWN, ipip_tunnel=IPv4Address("10.5.1.1"), vxlan_tunnel=IPv4Address("10.5.2.1"))
    config = mesh_config(own, LINK, CLUSTER, BGPConfigurationSpec()).config
    assert config.tunnels == {IPv4Address("10.5.1.1"), IPv4Address("10.5.2.1")}


def test_node_that_announces_a_taken_address_is_no_peer() -> None:
    twins = (BGPNode("n5", IPv4Interface("10.30.200.1/24")), BGPNode("n6", IPv4Interface("10.30.200.2/24")))
    outcome = mesh_config(OWN, LINK, replace(CLUSTER, nodes=CLUSTER.nodes + twins), BGPConfigurationSpec())
    assert len(outcome.config.peers) == 2
    assert ["n5" in outcome.problems[0], "n6" in outcome.problems[1]] == [True, True]


def test_only_the_default_bgp_configuration_counts() -> None:
    other = BGPConfiguration(metadata=Metadata(name="node.n1"), spec=BGPConfigurationSpec(as_number=1))
    default = BGPConfiguration(metadata=Metadata(name="default"), spec=BGPConfigurationSpec(as_number=2))
    assert cluster_settings([other, default]).as_number == 2
    assert cluster_settings([other]).as_number == 64512
