"""What the policy table depends on beside policies: FelixConfiguration, nodes and services. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, Literal

import msgspec

from tortie.dataplane.ruleset import Failsafe, Settings
from tortie.model.felix import FelixConfiguration, FelixConfigurationSpec, ProtoPort
from tortie.model.nodeinfo import BGPNode
from tortie.model.resources import BGPConfigurationSpec
from tortie.routing.compute import Cluster
from tortie.routing.pools import tunnels_in_use

EndpointToHost = Literal["Accept", "Return", "Drop"]

_ACTIONS: Final[dict[str, EndpointToHost]] = {"accept": "Accept", "return": "Return", "drop": "Drop"}
_LOOPS: Final[dict[str, Literal["Drop", "Reject", "Disabled"]]] = {
    "drop": "Drop",
    "reject": "Reject",
    "disabled": "Disabled",
}
_PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132}  # IANA protocol numbers


def felix_spec(configurations: Iterable[FelixConfiguration], node: str) -> FelixConfigurationSpec:
    """Settings of `default`, with what `node.<name>` sets in their place."""
    by_name = {item.metadata.name: item.spec for item in configurations}
    general = by_name.get("default", FelixConfigurationSpec())
    own = by_name.get(f"node.{node}")
    if own is None:
        return general
    unset = FelixConfigurationSpec()
    changed = {
        name: getattr(own, name)
        for name in own.__struct_fields__
        if getattr(own, name) != getattr(unset, name)
    }
    return msgspec.structs.replace(general, **changed)


def table_settings(
    own: BGPNode,
    cluster: Cluster,
    felix: FelixConfigurationSpec,
    bgp: BGPConfigurationSpec,
    endpoint_to_host: EndpointToHost | None,
) -> Settings:
    """Settings of the node `own`; what cannot be read keeps its default. `endpoint_to_host`, from the
    environment, goes before FelixConfiguration."""
    settings = Settings()
    action = _ACTIONS.get(felix.default_endpoint_to_host_action.lower(), settings.endpoint_to_host)
    services = (*bgp.service_cluster_ips, *bgp.service_external_ips, *bgp.service_load_balancer_ips)
    peers = None
    if tunnels_in_use(cluster.pools):
        peers = frozenset(
            IPv4Network(node.ipv4.ip) for node in (*cluster.nodes, own) if node.ipv4 is not None
        )
    return replace(
        settings,
        endpoint_to_host=endpoint_to_host or action,
        service_networks=_networks([item.cidr for item in services]),
        service_loop=_LOOPS.get(felix.service_loop_prevention.lower(), settings.service_loop),
        failsafe_inbound=_failsafe(felix.failsafe_inbound_host_ports, settings.failsafe_inbound),
        failsafe_outbound=_failsafe(felix.failsafe_outbound_host_ports, settings.failsafe_outbound),
        tunnel_peers=peers,
    )


def _failsafe(ports: Sequence[ProtoPort] | None, default: tuple[Failsafe, ...]) -> tuple[Failsafe, ...]:
    """None means the default, an empty list none at all."""
    if ports is None:
        return default
    return tuple(
        Failsafe(protocol, port.port, _networks([port.net]) if port.net else ())
        for port in ports
        if (protocol := _PROTOCOLS.get(port.protocol.lower() or "tcp"))
        and 0 < port.port < 65536
        and (not port.net or _networks([port.net]))
    )


def _networks(texts: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Those that are networks, each once and in order."""
    found: set[IPv4Network | IPv6Network] = set()
    for text in texts:
        try:
            found.add(ip_network(text, strict=False))
        except ValueError:
            continue
    return tuple(sorted(found, key=lambda item: (item.version, int(item.network_address), item.prefixlen)))
