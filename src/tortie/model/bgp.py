"""BGP kinds of crd.projectcalico.org/v1. Durations are text as Go writes it ("90s", "1m30s")."""

from msgspec import Struct, field

from tortie.model.base import CRD_GROUP_VERSION, Resource, ResourceType


class SecretKeySelector(Struct, omit_defaults=True, kw_only=True):
    """A key of a Secret in calico-node's namespace."""

    key: str
    name: str = ""
    optional: bool | None = None


class BGPPassword(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Where a session's TCP MD5 password (RFC 2385) stands."""

    secret_key_ref: SecretKeySelector | None = None


class Community(Struct, omit_defaults=True, kw_only=True):
    """A name for a community value: `aa:nn` (RFC 1997) or `aa:nn:mm` (RFC 8092)."""

    name: str = ""
    value: str = ""


class PrefixAdvertisement(Struct, omit_defaults=True, kw_only=True):
    """Communities (names or values) to put on routes within a CIDR."""

    cidr: str = ""
    communities: list[str] = field(default_factory=list)


class ServiceCIDR(Struct, omit_defaults=True, kw_only=True):
    """A range of service addresses that may be advertised."""

    cidr: str = ""


class BGPConfigurationSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Cluster-wide BGP settings; the object named `default` counts, `node.<name>` overrides it for a node."""

    as_number: int = 64512
    node_to_node_mesh_enabled: bool = True
    listen_port: int = 179
    log_severity_screen: str = "Info"
    bind_mode: str = ""  # "None" or "NodeIP"; empty means None
    service_cluster_ips: list[ServiceCIDR] = field(default_factory=list, name="serviceClusterIPs")
    service_external_ips: list[ServiceCIDR] = field(default_factory=list, name="serviceExternalIPs")
    service_load_balancer_ips: list[ServiceCIDR] = field(default_factory=list, name="serviceLoadBalancerIPs")
    service_load_balancer_aggregation: str = ""  # "Enabled" or "Disabled"; empty means Enabled
    communities: list[Community] = field(default_factory=list)
    prefix_advertisements: list[PrefixAdvertisement] = field(default_factory=list)
    node_mesh_password: BGPPassword | None = None
    node_mesh_max_restart_time: str = ""
    ignored_interfaces: list[str] = field(default_factory=list)
    local_workload_peering_ipv4: str = field(default="", name="localWorkloadPeeringIPV4")
    local_workload_peering_ipv6: str = field(default="", name="localWorkloadPeeringIPV6")
    program_cluster_routes: str = ""  # "Enabled", "EnabledIPIPOnly", "EnabledNoEncapOnly", "Disabled"
    ipv4_normal_route_priority: int | None = field(default=None, name="ipv4NormalRoutePriority")
    ipv6_normal_route_priority: int | None = field(default=None, name="ipv6NormalRoutePriority")


class BGPConfiguration(Resource, kw_only=True):
    """Calico BGPConfiguration."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "BGPConfiguration", "bgpconfigurations")
    spec: BGPConfigurationSpec


class BGPPeerSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Which nodes (`node`, `node_selector`; neither: all) have a session with whom: `peer_ip` (address and
    maybe port), or `peer_selector` (nodes), or `local_workload_selector` (pods)."""

    node: str = ""
    node_selector: str = ""
    peer_ip: str = field(default="", name="peerIP")
    as_number: int | None = None
    peer_selector: str = ""
    local_workload_selector: str = ""
    local_as_number: int | None = field(default=None, name="localASNumber")
    keep_original_next_hop: bool = False
    next_hop_mode: str = ""  # "Auto", "Self", "Keep"
    password: BGPPassword | None = None
    source_address: str = ""  # "UseNodeIP" or "None"; empty means UseNodeIP
    max_restart_time: str = ""
    keepalive_time: str = ""
    num_allowed_local_as_numbers: int | None = field(default=None, name="numAllowedLocalASNumbers")
    ttl_security: int | None = field(default=None, name="ttlSecurity")  # hops; 0 and None switch it off
    filters: list[str] = field(default_factory=list)
    reachable_by: str = ""
    reverse_peering: str = ""  # "Auto" or "Manual"


class BGPPeer(Resource, kw_only=True):
    """Calico BGPPeer."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "BGPPeer", "bgppeers")
    spec: BGPPeerSpec


class PrefixLength(Struct, omit_defaults=True, kw_only=True):
    """Least and most prefix length that a route may have."""

    min: int | None = None
    max: int | None = None


class CommunityMatch(Struct, omit_defaults=True, kw_only=True):
    """Community values of which a route must have one; Calico takes exactly one."""

    values: list[str] = field(default_factory=list)


class AddCommunity(Struct, omit_defaults=True, kw_only=True):
    """Put a community on the route."""

    value: str = ""


class PrependASPath(Struct, omit_defaults=True, kw_only=True):
    """Put AS numbers in front of the route's AS path."""

    prefix: list[int] = field(default_factory=list)


class SetPriority(Struct, omit_defaults=True, kw_only=True):
    """Set the route's metric."""

    value: int | None = None


class FilterOperation(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One change to an accepted route; exactly one member is set."""

    add_community: AddCommunity | None = None
    prepend_as_path: PrependASPath | None = field(default=None, name="prependASPath")
    set_priority: SetPriority | None = None


class FilterRule(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One rule: all conditions that are set must hold. `match_operator` compares the route with `cidr`."""

    action: str  # "Accept" or "Reject"
    cidr: str = ""
    match_operator: str = ""  # "Equal", "NotEqual", "In", "NotIn"
    prefix_length: PrefixLength | None = None
    interface: str = ""  # may have * as a wildcard
    source: str = ""  # "RemotePeers" or empty
    peer_type: str = ""  # "eBGP", "iBGP" or empty
    communities: CommunityMatch | None = None
    as_path_prefix: list[int] = field(default_factory=list, name="asPathPrefix")
    priority: int | None = None
    operations: list[FilterOperation] = field(default_factory=list)


class BGPFilterSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Rules in order, for each direction and family."""

    export_v4: list[FilterRule] = field(default_factory=list)
    import_v4: list[FilterRule] = field(default_factory=list)
    export_v6: list[FilterRule] = field(default_factory=list)
    import_v6: list[FilterRule] = field(default_factory=list)


class BGPFilter(Resource, kw_only=True):
    """Calico BGPFilter."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "BGPFilter", "bgpfilters")
    spec: BGPFilterSpec


class BirdStatus(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """State of one BIRD; `state` is Ready or NotReady, the times are BIRD's own text."""

    state: str = ""
    version: str = ""
    router_id: str = field(default="", name="routerID")
    last_boot_time: str = ""
    last_reconfiguration_time: str = ""


class NodeAgentStatus(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """The daemons of a node."""

    bird_v4: BirdStatus | None = None
    bird_v6: BirdStatus | None = None


class NodePeer(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One session; `type` is NodeMesh, NodePeer or GlobalPeer."""

    peer_ip: str = field(default="", name="peerIP")
    type: str = ""
    state: str = ""
    since: str = ""


class NodeBGPStatus(Struct, rename="camel", kw_only=True):
    """Sessions of a node."""

    number_established_v4: int = 0
    number_not_established_v4: int = 0
    number_established_v6: int = 0
    number_not_established_v6: int = 0
    peers_v4: list[NodePeer] = field(default_factory=list)
    peers_v6: list[NodePeer] = field(default_factory=list)


class RouteSource(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Kernel, Static, Direct, NodeMesh or BGPPeer; the last two with the peer's address."""

    source_type: str = ""
    peer_ip: str = field(default="", name="peerIP")


class NodeRoute(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One route; `type` is FIB when the kernel uses it, else RIB."""

    type: str = ""
    destination: str = ""
    gateway: str = ""
    interface: str = ""
    learned_from: RouteSource | None = None


class NodeRouteStatus(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Routes of a node's BIRD."""

    routes_v4: list[NodeRoute] = field(default_factory=list)
    routes_v6: list[NodeRoute] = field(default_factory=list)


class CalicoNodeStatusSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What to report about a node: classes Agent, BGP, Routes; the period is in seconds, 0 switches off."""

    node: str = ""
    classes: list[str] = field(default_factory=list)
    update_period_seconds: int | None = None


class CalicoNodeStatusStatus(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """The report."""

    last_updated: str | None = None
    agent: NodeAgentStatus | None = None
    bgp: NodeBGPStatus | None = None
    routes: NodeRouteStatus | None = None


class CalicoNodeStatus(Resource, kw_only=True):
    """Calico CalicoNodeStatus."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "CalicoNodeStatus", "caliconodestatuses")
    spec: CalicoNodeStatusSpec
    status: CalicoNodeStatusStatus | None = None
