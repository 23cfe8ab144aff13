"""FelixConfiguration: settings of the agent on the nodes.

All 188 settings: those of Calico's current version and the two about the lock of iptables that it had before.
What each may hold, and whether this agent heeds it, stands in `felix_settings`. None or "" means not set: the
agent's default holds. Durations are text as Go writes it ("90s").
"""

from msgspec import Struct, field

from tortie.model.base import CRD_GROUP_VERSION, Resource, ResourceType


class ProtoPort(Struct, omit_defaults=True, kw_only=True):
    """A failsafe port: protocol TCP or UDP, port number, optionally only for a CIDR."""

    protocol: str = ""
    port: int
    net: str = ""


class RouteTableRange(Struct, kw_only=True):
    """Indices of Linux routing tables, both ends included."""

    min: int
    max: int


class HealthTimeout(Struct, kw_only=True):
    """How long a part of the agent may be silent before it counts as dead."""

    name: str
    timeout: str


class ConntrackTimeouts(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """When eBPF's entries of connections end: durations, or Auto for the kernel's own."""

    creation_grace_period: str = ""
    generic_timeout: str = ""
    icmp_timeout: str = ""
    tcp_established: str = ""
    tcp_fins_seen: str = ""
    tcp_reset_seen: str = ""
    tcp_syn_sent: str = ""
    udp_timeout: str = ""


class FelixConfigurationSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """`failsafe_*_host_ports` None means the built-in list, an empty list means none at all."""

    node_selector: str = ""
    # interfaces and devices
    interface_prefix: str = ""  # comma-separated
    interface_exclude: str = ""  # comma-separated names, or /regular expression/
    mtu_iface_pattern: str = ""  # regular expression
    require_mtu_file: bool | None = field(default=None, name="requireMTUFile")
    ipip_enabled: bool | None = None
    ipip_mtu: int | None = field(default=None, name="ipipMTU")
    vxlan_enabled: bool | None = None
    vxlan_mtu: int | None = field(default=None, name="vxlanMTU")
    vxlan_mtu_v6: int | None = field(default=None, name="vxlanMTUV6")
    vxlan_port: int | None = None
    vxlan_vni: int | None = field(default=None, name="vxlanVNI")
    wireguard_enabled: bool | None = None
    wireguard_enabled_v6: bool | None = None
    wireguard_host_encryption_enabled: bool | None = None
    wireguard_interface_name: str = ""
    wireguard_interface_name_v6: str = ""
    wireguard_keep_alive: str = ""
    wireguard_listening_port: int | None = None
    wireguard_listening_port_v6: int | None = None
    wireguard_mtu: int | None = field(default=None, name="wireguardMTU")
    wireguard_mtu_v6: int | None = field(default=None, name="wireguardMTUV6")
    wireguard_routing_rule_priority: int | None = None
    wireguard_threading_enabled: bool | None = None
    feature_detect_override: str = ""  # name=true,name=false,...
    feature_gates: str = ""  # name=value,...
    ipv6_support: bool | None = None
    use_internal_dataplane_driver: bool | None = None
    dataplane_driver: str = ""  # file name
    dataplane_watchdog_timeout: str = ""
    netlink_timeout: str = ""
    aws_src_dst_check: str = ""
    local_subnet_l2_reachability: str = ""
    local_subnet_l2_reachability_refresh_interval: str = ""
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
    route_table_range: RouteTableRange | None = None
    route_table_ranges: list[RouteTableRange] = field(default_factory=list)
    ipv4_normal_route_priority: int | None = None
    ipv4_elevated_route_priority: int | None = None
    ipv6_normal_route_priority: int | None = None
    ipv6_elevated_route_priority: int | None = None
    live_migration_route_convergence_time: str = ""
    external_nodes_list: list[str] = field(default_factory=list)
    ip_forwarding: str = ""
    # policy
    default_endpoint_to_host_action: str = ""
    failsafe_inbound_host_ports: list[ProtoPort] | None = None
    failsafe_outbound_host_ports: list[ProtoPort] | None = None
    chain_insert_mode: str = ""
    iptables_backend: str = ""
    iptables_refresh_interval: str = ""
    iptables_post_write_check_interval: str = ""
    iptables_lock_file_path: str = ""
    iptables_lock_timeout: str = ""
    iptables_lock_probe_interval: str = ""
    iptables_mark_mask: int | None = None
    iptables_filter_allow_action: str = ""
    iptables_mangle_allow_action: str = ""
    iptables_filter_deny_action: str = ""
    nftables_mode: str = ""
    nftables_refresh_interval: str = ""
    nftables_mark_mask: int | None = None
    nftables_filter_allow_action: str = ""
    nftables_mangle_allow_action: str = ""
    nftables_filter_deny_action: str = ""
    ipsets_refresh_interval: str = ""
    max_ipset_size: int | None = None
    disable_conntrack_invalid_check: bool | None = None
    workload_source_spoofing: str = ""
    allow_vxlan_packets_from_workloads: bool | None = field(
        default=None, name="allowVXLANPacketsFromWorkloads"
    )
    allow_ipip_packets_from_workloads: bool | None = field(default=None, name="allowIPIPPacketsFromWorkloads")
    log_prefix: str = ""
    log_action_rate_limit: str = ""  # number/unit
    log_action_rate_limit_burst: int | None = None
    service_loop_prevention: str = ""
    floating_ips: str = field(default="", name="floatingIPs")
    kube_node_port_ranges: list[int | str] | None = None
    policy_sync_path_prefix: str = ""
    sidecar_acceleration_enabled: bool | None = None
    istio_ambient_mode: str = ""
    istio_dscp_mark: int | str | None = field(default=None, name="istioDSCPMark")
    windows_manage_firewall_rules: str = ""
    xdp_enabled: bool | None = None
    xdp_refresh_interval: str = ""
    generic_xdp_enabled: bool | None = field(default=None, name="genericXDPEnabled")
    # address translation
    nat_outgoing_address: str = ""
    nat_outgoing_exclusions: str = ""
    nat_port_range: int | str | None = None
    iptables_nat_outgoing_interface_filter: str = field(default="", name="iptablesNATOutgoingInterfaceFilter")
    # eBPF
    bpf_enabled: bool | None = None
    bpf_attach_type: str = ""
    bpf_ctlb_log_filter: str = field(default="", name="bpfCTLBLogFilter")
    bpf_connect_time_load_balancing: str = ""
    bpf_connect_time_load_balancing_enabled: bool | None = None
    bpf_conntrack_log_level: str = ""
    bpf_conntrack_mode: str = ""
    bpf_conntrack_timeouts: ConntrackTimeouts | None = None
    bpf_dsr_optout_cidrs: list[str] = field(default_factory=list, name="bpfDSROptoutCIDRs")
    bpf_data_iface_pattern: str = ""
    bpf_disable_gro_for_ifaces: str = field(default="", name="bpfDisableGROForIfaces")
    bpf_disable_unprivileged: bool | None = None
    bpf_enforce_rpf: str = field(default="", name="bpfEnforceRPF")
    bpf_exclude_cidrs_from_nat: list[str] = field(default_factory=list, name="bpfExcludeCIDRsFromNAT")
    bpf_export_buffer_size_mb: int | None = field(default=None, name="bpfExportBufferSizeMB")
    bpf_ext_to_service_connmark: int | None = None
    bpf_external_service_mode: str = ""
    bpf_force_track_packets_from_ifaces: list[str] = field(default_factory=list)
    bpf_host_conntrack_bypass: bool | None = None
    bpf_host_networked_nat_without_ctlb: str = field(default="", name="bpfHostNetworkedNATWithoutCTLB")
    bpf_ip_frag_timeout: str = field(default="", name="bpfIPFragTimeout")
    bpf_ip_fragment_reassembly_enabled: bool | None = field(
        default=None, name="bpfIPFragmentReassemblyEnabled"
    )
    bpf_jit_hardening: str = field(default="", name="bpfJITHardening")
    bpf_kube_proxy_healthz_port: int | None = None
    bpf_kube_proxy_iptables_cleanup_enabled: bool | None = None
    bpf_kube_proxy_min_sync_period: str = ""
    bpf_l3_iface_pattern: str = ""
    bpf_log_filters: dict[str, str] = field(default_factory=dict)  # device, or all, weps, heps: a pcap filter
    bpf_log_level: str = ""
    bpf_maglev_max_endpoints_per_service: int | None = None
    bpf_maglev_max_services: int | None = None
    bpf_map_size_conntrack: int | None = None
    bpf_map_size_conntrack_cleanup_queue: int | None = None
    bpf_map_size_conntrack_scaling: str = ""
    bpf_map_size_ipsets: int | None = field(default=None, name="bpfMapSizeIPSets")
    bpf_map_size_ifstate: int | None = field(default=None, name="bpfMapSizeIfState")
    bpf_map_size_nat_affinity: int | None = field(default=None, name="bpfMapSizeNATAffinity")
    bpf_map_size_nat_backend: int | None = field(default=None, name="bpfMapSizeNATBackend")
    bpf_map_size_nat_frontend: int | None = field(default=None, name="bpfMapSizeNATFrontend")
    bpf_map_size_per_cpu_conntrack: int | None = None
    bpf_map_size_route: int | None = None
    bpf_overlay_host_source_ip: str = field(default="", name="bpfOverlayHostSourceIP")
    bpf_psnat_ports: int | str | None = field(default=None, name="bpfPSNATPorts")
    bpf_policy_debug_enabled: bool | None = None
    bpf_profiling: str = ""
    bpf_redirect_to_peer: str = ""
    cgroup_v2_path: str = ""
    # OpenStack
    metadata_addr: str = ""  # a host, or none
    metadata_port: int | None = None
    openstack_region: str = ""
    endpoint_reporting_enabled: bool | None = None
    endpoint_reporting_delay: str = ""
    reporting_interval: str = ""
    reporting_ttl: str = field(default="", name="reportingTTL")
    # operation
    log_severity_screen: str = ""
    log_severity_file: str = ""
    log_severity_sys: str = ""
    log_file_path: str = ""
    log_debug_filename_regex: str = ""
    health_enabled: bool | None = None
    health_host: str | None = None
    health_port: int | None = None
    health_timeout_overrides: list[HealthTimeout] = field(default_factory=list)
    prometheus_metrics_enabled: bool | None = None
    prometheus_metrics_host: str = ""
    prometheus_metrics_port: int | None = None
    prometheus_metrics_ca_file: str = field(default="", name="prometheusMetricsCAFile")
    prometheus_metrics_cert_file: str = ""
    prometheus_metrics_key_file: str = ""
    prometheus_metrics_client_auth: str = ""
    prometheus_go_metrics_enabled: bool | None = None
    prometheus_process_metrics_enabled: bool | None = None
    prometheus_wireguard_metrics_enabled: bool | None = field(
        default=None, name="prometheusWireGuardMetricsEnabled"
    )
    endpoint_status_path_prefix: str = ""
    usage_reporting_enabled: bool | None = None
    usage_reporting_initial_delay: str = ""
    usage_reporting_interval: str = ""
    flow_logs_collector_debug_trace: bool | None = None
    flow_logs_flush_interval: str = ""
    flow_logs_goldmane_server: str = ""
    flow_logs_local_reporter: str = ""
    flow_logs_policy_evaluation_mode: str = ""
    debug_disable_log_dropping: bool | None = None
    debug_host: str = ""
    debug_memory_profile_path: str = ""
    debug_port: int | None = None
    debug_simulate_calc_graph_hang_after: str = ""
    debug_simulate_dataplane_apply_delay: str = ""
    debug_simulate_dataplane_hang_after: str = ""
    go_gc_threshold: int | None = field(
        default=None, name="goGCThreshold"
    )  # percent; -1 switches collection off
    go_max_procs: int | None = None
    go_memory_limit_mb: int | None = field(default=None, name="goMemoryLimitMB")


class FelixConfiguration(Resource, kw_only=True):
    """Names that count: `default`, `node.<node name>`, and any other with a node selector."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "FelixConfiguration", "felixconfigurations")
    spec: FelixConfigurationSpec
