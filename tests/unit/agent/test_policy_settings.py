"""Settings of the policy table, from FelixConfiguration, BGPConfiguration, nodes and the environment."""

from ipaddress import IPv4Interface, IPv4Network

from tortie.agent.policy_settings import felix_spec, table_settings
from tortie.dataplane.ruleset import Failsafe, Settings
from tortie.model.bgp import ServiceCIDR
from tortie.model.felix import FelixConfiguration, FelixConfigurationSpec, ProtoPort
from tortie.model.nodeinfo import BGPNode
from tortie.model.resources import BGPConfigurationSpec, Metadata
from tortie.policy.state import Network
from tortie.routing.compute import Cluster
from tortie.routing.pools import Pool

OWN = BGPNode("n1", IPv4Interface("10.30.200.1/24"))
OTHER = BGPNode("n2", IPv4Interface("10.30.200.2/24"))
PLAIN = Cluster((OWN, OTHER, BGPNode("n3")), (Pool(IPv4Network("10.5.0.0/16")),))
TUNNELLED = Cluster(PLAIN.nodes, (Pool(IPv4Network("10.5.0.0/16"), vxlan="CrossSubnet"),))


def felix(name: str, action: str = "", loop: str = "") -> FelixConfiguration:
    spec = FelixConfigurationSpec(default_endpoint_to_host_action=action, service_loop_prevention=loop)
    return FelixConfiguration(metadata=Metadata(name=name), spec=spec)


def of(spec: FelixConfigurationSpec, cluster: Cluster = PLAIN) -> Settings:
    return table_settings(OWN, cluster, spec, BGPConfigurationSpec(), None)


def test_without_configuration_the_defaults_hold() -> None:
    assert of(FelixConfigurationSpec()) == Settings()


def test_node_overrides_the_default_only_in_what_it_sets() -> None:
    spec = felix_spec(
        [
            felix("default", action="Drop", loop="Reject"),
            felix("node.n1", action="Return"),
            felix("node.n2", loop="Disabled"),
        ],
        "n1",
    )
    assert (spec.default_endpoint_to_host_action, spec.service_loop_prevention) == ("Return", "Reject")


def test_environment_goes_before_the_configuration() -> None:
    spec = FelixConfigurationSpec(default_endpoint_to_host_action="DROP")
    assert of(spec).endpoint_to_host == "Drop"
    assert table_settings(OWN, PLAIN, spec, BGPConfigurationSpec(), "Accept").endpoint_to_host == "Accept"


def test_empty_list_of_failsafe_ports_means_none_and_an_absent_one_the_default() -> None:
    assert of(FelixConfigurationSpec(failsafe_inbound_host_ports=[])).failsafe_inbound == ()
    ports = [
        ProtoPort(protocol="UDP", port=68),
        ProtoPort(port=22, net="10.0.0.0/8"),
        ProtoPort(protocol="tcp", port=22, net="nonsense"),  # left out: not a port that is open to everybody
        ProtoPort(protocol="sctp", port=9),
        ProtoPort(protocol="icmp", port=8),  # has no ports
    ]
    settings = of(FelixConfigurationSpec(failsafe_inbound_host_ports=ports))
    assert settings.failsafe_inbound == (
        Failsafe(17, 68),
        Failsafe(6, 22, (IPv4Network("10.0.0.0/8"),)),
        Failsafe(132, 9),
    )
    assert settings.failsafe_outbound == Settings().failsafe_outbound


def test_service_ranges_come_from_the_bgp_configuration() -> None:
    bgp = BGPConfigurationSpec(
        service_cluster_ips=[ServiceCIDR(cidr="10.96.0.0/12"), ServiceCIDR(cidr="nonsense")],
        service_external_ips=[ServiceCIDR(cidr="192.0.2.0/24")],
    )
    settings = table_settings(OWN, PLAIN, FelixConfigurationSpec(), bgp, None)
    assert settings.service_networks == (IPv4Network("10.96.0.0/12"), IPv4Network("192.0.2.0/24"))


def test_only_nodes_may_send_to_a_tunnel_and_without_tunnel_nothing_is_said() -> None:
    nodes: frozenset[Network] = frozenset({IPv4Network("10.30.200.1/32"), IPv4Network("10.30.200.2/32")})
    assert of(FelixConfigurationSpec(), TUNNELLED).tunnel_peers == nodes
    assert of(FelixConfigurationSpec()).tunnel_peers is None
