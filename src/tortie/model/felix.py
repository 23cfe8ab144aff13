"""FelixConfiguration: settings of the agent on the nodes.

Calico has 188 of them. Typed is what this agent reads or what people check for; every other one is kept as it
is when an object is written back. None or "" means not set: the agent's default holds. Durations are text as
Go writes it ("90s").
"""

from msgspec import Struct, field

from tortie.model.base import CRD_GROUP_VERSION, Resource, ResourceType


class ProtoPort(Struct, omit_defaults=True, kw_only=True):
    """A failsafe port: protocol TCP or UDP, port number, optionally only for a CIDR."""

    protocol: str = ""
    port: int
    net: str = ""


class FelixConfigurationSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """`failsafe_*_host_ports` None means the built-in list, an empty list means none at all."""

    node_selector: str = ""
    # interfaces and devices
    interface_prefix: str = ""  # comma-separated
    interface_exclude: str = ""
    mtu_iface_pattern: str = field(default="", name="mtuIfacePattern")  # regular expression
    ipip_enabled: bool | None = field(default=None, name="ipipEnabled")
    ipip_mtu: int | None = field(default=None, name="ipipMTU")
    vxlan_enabled: bool | None = field(default=None, name="vxlanEnabled")
    vxlan_mtu: int | None = field(default=None, name="vxlanMTU")
    vxlan_mtu_v6: int | None = field(default=None, name="vxlanMTUV6")
    vxlan_port: int | None = field(default=None, name="vxlanPort")
    vxlan_vni: int | None = field(default=None, name="vxlanVNI")
    wireguard_enabled: bool | None = None
    wireguard_enabled_v6: bool | None = None
    wireguard_mtu: int | None = field(default=None, name="wireguardMTU")
    wireguard_listening_port: int | None = None
    wireguard_interface_name: str = ""
    feature_detect_override: str = ""
    ipv6_support: bool | None = field(default=None, name="ipv6Support")
    # routes
    device_route_protocol: int | None = None
    device_route_source_address: str = ""
    device_route_source_address_ipv6: str = field(default="", name="deviceRouteSourceAddressIPv6")
    remove_external_routes: bool | None = None
    program_cluster_routes: str = ""
    route_source: str = ""
    route_refresh_interval: str = ""
    interface_refresh_interval: str = ""
    route_sync_disabled: bool | None = None
    external_nodes_list: list[str] = field(default_factory=list, name="externalNodesList")
    ip_forwarding: str = field(default="", name="ipForwarding")
    # policy
    default_endpoint_to_host_action: str = ""
    failsafe_inbound_host_ports: list[ProtoPort] | None = None
    failsafe_outbound_host_ports: list[ProtoPort] | None = None
    chain_insert_mode: str = ""
    iptables_refresh_interval: str = ""
    iptables_filter_allow_action: str = ""
    iptables_mangle_allow_action: str = ""
    iptables_filter_deny_action: str = ""
    nftables_mode: str = ""
    nftables_refresh_interval: str = ""
    workload_source_spoofing: str = ""
    allow_vxlan_packets_from_workloads: bool | None = field(
        default=None, name="allowVXLANPacketsFromWorkloads"
    )
    allow_ipip_packets_from_workloads: bool | None = field(default=None, name="allowIPIPPacketsFromWorkloads")
    log_prefix: str = ""
    service_loop_prevention: str = ""
    floating_ips: str = field(default="", name="floatingIPs")
    kube_node_port_ranges: list[int | str] | None = None
    # address translation
    nat_outgoing_address: str = field(default="", name="natOutgoingAddress")
    nat_outgoing_exclusions: str = field(default="", name="natOutgoingExclusions")
    nat_port_range: int | str | None = field(default=None, name="natPortRange")
    # operation
    log_severity_screen: str = ""
    log_severity_file: str = ""
    log_severity_sys: str = ""
    health_enabled: bool | None = None
    health_host: str | None = None
    health_port: int | None = None
    prometheus_metrics_enabled: bool | None = None
    prometheus_metrics_host: str = ""
    prometheus_metrics_port: int | None = None
    prometheus_go_metrics_enabled: bool | None = None
    prometheus_process_metrics_enabled: bool | None = None
    reporting_interval: str = ""
    reporting_ttl: str = field(default="", name="reportingTTL")
    endpoint_reporting_enabled: bool | None = None
    endpoint_reporting_delay: str = ""
    endpoint_status_path_prefix: str = ""
    policy_sync_path_prefix: str = ""
    usage_reporting_enabled: bool | None = None
    bpf_enabled: bool | None = field(default=None, name="bpfEnabled")


class FelixConfiguration(Resource, kw_only=True):
    """Names that count: `default`, `node.<node name>`, and any other with a node selector."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "FelixConfiguration", "felixconfigurations")
    spec: FelixConfigurationSpec
