"""What may not stand in FelixConfiguration and KubeControllersConfiguration. Call `validation.problems`."""

import re
from collections.abc import Mapping
from typing import Final

from tortie.model import checks
from tortie.model.bgp_validation import PROGRAM_ROUTES
from tortie.model.checks import Findings
from tortie.model.cluster import KubeControllersConfiguration, NodeController
from tortie.model.felix import FelixConfiguration, FelixConfigurationSpec, ProtoPort
from tortie.model.problems import Problem

_MAX_VNI: Final = 2**24 - 1  # RFC 7348: 24 bits
_MAX_PROTOCOL: Final = 255  # linux/rtnetlink.h: rtm_protocol is one octet
_MOST_MTU: Final = 65535  # the length field of an IPv4 header
_PORT_RANGE: Final = re.compile(r"(\d{1,5})(?::(\d{1,5}))?")
_HOST: Final = re.compile(r"[a-zA-Z0-9:._+-]{1,64}")  # Calico's bound
_LOG_LEVELS: Final = ("None", *checks.LOG_LEVELS, "Panic")

_ENUMS: Final[Mapping[str, tuple[str, ...]]] = {
    "programClusterRoutes": PROGRAM_ROUTES,
    "routeSource": ("CalicoIPAM", "WorkloadIPs"),
    "ipForwarding": checks.SWITCH,
    "defaultEndpointToHostAction": ("Drop", "Accept", "Return"),
    "chainInsertMode": ("Insert", "Append"),
    "iptablesFilterAllowAction": ("Accept", "Return"),
    "iptablesMangleAllowAction": ("Accept", "Return"),
    "iptablesFilterDenyAction": ("Drop", "Reject"),
    "nftablesMode": ("Auto", "Enabled", "Disabled"),
    "workloadSourceSpoofing": ("Disabled", "Any"),
    "serviceLoopPrevention": ("Drop", "Reject", "Disabled"),
    "floatingIPs": checks.SWITCH,
    "natOutgoingExclusions": ("IPPoolsOnly", "IPPoolsAndHostIPs"),
    "logSeverityScreen": (*checks.LOG_LEVELS, "Trace"),
    "logSeverityFile": (*checks.LOG_LEVELS, "Trace"),
    "logSeveritySys": (*checks.LOG_LEVELS, "Trace"),
}
_DURATIONS: Final = (
    "routeRefreshInterval",
    "interfaceRefreshInterval",
    "iptablesRefreshInterval",
    "nftablesRefreshInterval",
    "reportingInterval",
    "reportingTTL",
    "endpointReportingDelay",
)
_NUMBERS: Final[Mapping[str, tuple[int, int]]] = {
    "ipipMTU": (0, _MOST_MTU),
    "vxlanMTU": (0, _MOST_MTU),
    "vxlanMTUV6": (0, _MOST_MTU),
    "wireguardMTU": (0, _MOST_MTU),
    "vxlanPort": (1, checks.MAX_PORT),
    "vxlanVNI": (1, _MAX_VNI),
    "wireguardListeningPort": (1, checks.MAX_PORT),
    "deviceRouteProtocol": (0, _MAX_PROTOCOL),
    "healthPort": (0, checks.MAX_PORT),
    "prometheusMetricsPort": (0, checks.MAX_PORT),
}


def _wire_values(spec: FelixConfigurationSpec) -> dict[str, object]:
    names = zip(spec.__struct_encode_fields__, spec.__struct_fields__, strict=True)
    return {wire: getattr(spec, name) for wire, name in names}


def felix_problems(configuration: FelixConfiguration) -> Findings:
    """A FelixConfiguration."""
    spec = configuration.spec
    values = _wire_values(spec)
    for name, allowed in _ENUMS.items():
        yield from checks.one_of(f"spec.{name}", str(values[name]), allowed)
    for name in _DURATIONS:
        yield from checks.duration(f"spec.{name}", str(values[name]))
    for name, (least, most) in _NUMBERS.items():
        value = values[name]
        if isinstance(value, int):
            yield from checks.between(f"spec.{name}", value, least, most)
    yield from checks.selector("spec.nodeSelector", spec.node_selector)
    yield from checks.regex("spec.mtuIfacePattern", spec.mtu_iface_pattern)
    for prefix in filter(None, spec.interface_prefix.split(",")):
        yield from checks.interface("spec.interfacePrefix", prefix)
    if spec.wireguard_interface_name:
        yield from checks.interface("spec.wireguardInterfaceName", spec.wireguard_interface_name)
    yield from checks.address("spec.deviceRouteSourceAddress", spec.device_route_source_address, 4)
    yield from checks.address("spec.deviceRouteSourceAddressIPv6", spec.device_route_source_address_ipv6, 6)
    yield from checks.address("spec.natOutgoingAddress", spec.nat_outgoing_address, 4)
    if spec.prometheus_metrics_host and not _HOST.fullmatch(spec.prometheus_metrics_host):
        rule = "must be a host's name or address: at most 64 of letters, digits, '.', ':', '_', '+' and '-'"
        yield Problem("spec.prometheusMetricsHost", spec.prometheus_metrics_host, rule)
    for index, item in enumerate(spec.external_nodes_list):
        yield from checks.cidr(f"spec.externalNodesList[{index}]", item, 4, bare=True)
    yield from _port_range("spec.natPortRange", spec.nat_port_range)
    for index, ports in enumerate(spec.kube_node_port_ranges or ()):
        yield from _port_range(f"spec.kubeNodePortRanges[{index}]", ports)
    for index, failsafe in enumerate(spec.failsafe_inbound_host_ports or ()):
        yield from _failsafe(f"spec.failsafeInboundHostPorts[{index}]", failsafe)
    for index, failsafe in enumerate(spec.failsafe_outbound_host_ports or ()):
        yield from _failsafe(f"spec.failsafeOutboundHostPorts[{index}]", failsafe)


def _port_range(path: str, value: int | str | None) -> Findings:
    if value is None or value in ("", 0):
        return
    found = _PORT_RANGE.fullmatch(str(value))
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last <= checks.MAX_PORT:
        yield Problem(path, str(value), "must be a port or a range such as 30000:32767")


def _failsafe(path: str, failsafe: ProtoPort) -> Findings:
    yield from checks.one_of(f"{path}.protocol", failsafe.protocol.upper(), ("TCP", "UDP", "SCTP"))
    yield from checks.port(f"{path}.port", failsafe.port, least=0)
    if failsafe.net:
        yield from checks.cidr(f"{path}.net", failsafe.net, bare=True)


def controllers_problems(configuration: KubeControllersConfiguration) -> Findings:
    """A KubeControllersConfiguration."""
    spec = configuration.spec
    yield from checks.named_default(configuration.metadata.name)
    yield from checks.one_of("spec.logSeverityScreen", spec.log_severity_screen, _LOG_LEVELS)
    yield from checks.one_of("spec.healthChecks", spec.health_checks, checks.SWITCH)
    yield from checks.duration("spec.etcdV3CompactionPeriod", spec.etcd_v3_compaction_period)
    yield from checks.port("spec.prometheusMetricsPort", spec.prometheus_metrics_port, least=0)
    yield from checks.port("spec.debugProfilePort", spec.debug_profile_port, least=0)
    controllers = spec.controllers
    for name, controller in (
        ("policy", controllers.policy),
        ("workloadEndpoint", controllers.workload_endpoint),
        ("serviceAccount", controllers.service_account),
        ("namespace", controllers.namespace),
    ):
        if controller is not None:
            period = controller.reconciler_period
            yield from checks.duration(f"spec.controllers.{name}.reconcilerPeriod", period)
    if controllers.node is not None:
        yield from _node_controller(controllers.node)
    if controllers.load_balancer is not None:
        yield from checks.one_of(
            "spec.controllers.loadBalancer.assignIPs",
            controllers.load_balancer.assign_ips,
            ("AllServices", "RequestedServicesOnly"),
        )
    if controllers.policy_migration is not None:
        mode = controllers.policy_migration.policy_name_migrator
        yield from checks.one_of("spec.controllers.policyMigration.enabled", mode, checks.SWITCH)


def _node_controller(controller: NodeController) -> Findings:
    path = "spec.controllers.node"
    yield from checks.duration(f"{path}.reconcilerPeriod", controller.reconciler_period)
    yield from checks.duration(f"{path}.leakGracePeriod", controller.leak_grace_period)
    yield from checks.one_of(f"{path}.syncLabels", controller.sync_labels, checks.SWITCH)
    host = controller.host_endpoint
    if host is None:
        return
    yield from checks.one_of(f"{path}.hostEndpoint.autoCreate", host.auto_create, checks.SWITCH)
    default = host.create_default_host_endpoint
    yield from checks.one_of(f"{path}.hostEndpoint.createDefaultHostEndpoint", default, checks.SWITCH)
    for index, template in enumerate(host.templates):
        place = f"{path}.hostEndpoint.templates[{index}]"
        if not template.interface_cidrs and not template.interface_pattern:
            yield Problem(f"{place}.interfaceCIDRs", "", "must be set, or interfacePattern")
        for number, cidr in enumerate(template.interface_cidrs):
            yield from checks.cidr(f"{place}.interfaceCIDRs[{number}]", cidr)
        yield from checks.regex(f"{place}.interfacePattern", template.interface_pattern)
        yield from checks.selector(f"{place}.nodeSelector", template.node_selector)
