"""Every setting of FelixConfiguration: what it may hold, and whether this agent heeds it. The one place that
says so: validation, the warning of `tortiectl` and its documentation come from here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tortie.model import checks
from tortie.model import felix_rules as rules
from tortie.model.bgp_validation import PROGRAM_ROUTES
from tortie.model.checks import Findings
from tortie.model.felix import FelixConfiguration, FelixConfigurationSpec
from tortie.model.felix_rules import Rule, duration, number, one_of
from tortie.model.problems import Problem

_MAX_INT32: Final = 2**31 - 1
_MAX_VNI: Final = 2**24 - 1  # RFC 7348: 24 bits
_MAX_PROTOCOL: Final = 255  # linux/rtnetlink.h: rtm_protocol is one octet
_MOST_MTU: Final = 65535  # the length field of an IPv4 header
_MOST_MAGLEV: Final = 3000  # Calico's bound: each service has a table
_LAST_RULE: Final = 32765  # the priority before that of the kernel's rule for table main
_MOST_BURST: Final = 9999  # Calico's bound
_LONGEST_SELECTOR: Final = 1024  # Calico's bound


@dataclass(frozen=True, slots=True)
class Setting:
    """`heeded`: this agent does what the setting says."""

    rule: Rule
    heeded: bool = False


_ANY: Final = Setting(rules.anything)
_DURATION: Final = Setting(duration)
_SWITCH: Final = Setting(one_of(*checks.SWITCH))
_PORT: Final = Setting(number(1, checks.MAX_PORT))
_PORT_OR_OFF: Final = Setting(number(0, checks.MAX_PORT))
_MTU: Final = Setting(number(0, _MOST_MTU))
_PRIORITY: Final = Setting(number(1, _MAX_INT32 - 1))
_SIZE: Final = Setting(number(1, _MAX_INT32))
_UNLIMITED: Final = Setting(number(-1, _MAX_INT32))
_MAGLEV: Final = Setting(number(1, _MOST_MAGLEV))
_LOG_LEVEL: Final = Setting(one_of(*checks.LOG_LEVELS, "Trace"))
_ALLOW: Final = Setting(one_of("Accept", "Return"))
_DENY: Final = Setting(one_of("Drop", "Reject"))
_REGEX: Final = Setting(rules.regex)
_INTERFACE: Final = Setting(rules.interface)
_CIDRS: Final = Setting(rules.cidrs())
_FILE: Final = Setting(rules.absolute_path)
_HOST: Final = Setting(rules.host)
_PORTS: Final = Setting(rules.port_range)
_MASK: Final = Setting(rules.mask)

SETTINGS: Final[Mapping[str, Setting]] = {
    "nodeSelector": Setting(rules.selector),
    "interfacePrefix": Setting(rules.prefixes),
    "interfaceExclude": Setting(rules.exclusions),
    "mtuIfacePattern": _REGEX,
    "requireMTUFile": _ANY,
    "ipipEnabled": _ANY,
    "ipipMTU": _MTU,
    "vxlanEnabled": _ANY,
    "vxlanMTU": _MTU,
    "vxlanMTUV6": _MTU,
    "vxlanPort": _PORT,
    "vxlanVNI": Setting(number(1, _MAX_VNI)),
    "wireguardEnabled": _ANY,
    "wireguardEnabledV6": _ANY,
    "wireguardHostEncryptionEnabled": _ANY,
    "wireguardInterfaceName": _INTERFACE,
    "wireguardInterfaceNameV6": _INTERFACE,
    "wireguardKeepAlive": _DURATION,
    "wireguardListeningPort": _PORT,
    "wireguardListeningPortV6": _PORT,
    "wireguardMTU": _MTU,
    "wireguardMTUV6": _MTU,
    "wireguardRoutingRulePriority": Setting(number(1, _LAST_RULE)),
    "wireguardThreadingEnabled": _ANY,
    "featureDetectOverride": Setting(rules.features),
    "featureGates": Setting(rules.key_values),
    "ipv6Support": _ANY,
    "useInternalDataplaneDriver": _ANY,
    "dataplaneDriver": _ANY,
    "dataplaneWatchdogTimeout": _DURATION,
    "netlinkTimeout": _DURATION,
    "awsSrcDstCheck": Setting(one_of("DoNothing", "Enable", "Disable")),
    "localSubnetL2Reachability": Setting(one_of("Disabled", "PodsAndLoadBalancers")),
    "localSubnetL2ReachabilityRefreshInterval": _DURATION,
    "deviceRouteProtocol": Setting(number(0, _MAX_PROTOCOL)),
    "deviceRouteSourceAddress": Setting(rules.address(4)),
    "deviceRouteSourceAddressIPv6": Setting(rules.address(6)),
    "removeExternalRoutes": _ANY,
    "programClusterRoutes": Setting(one_of(*PROGRAM_ROUTES)),
    "routeSource": Setting(one_of("CalicoIPAM", "WorkloadIPs")),
    "routeRefreshInterval": _DURATION,
    "interfaceRefreshInterval": _DURATION,
    "routeSyncDisabled": _ANY,
    "routeTableRange": Setting(rules.table_range),
    "routeTableRanges": Setting(rules.table_ranges),
    "ipv4NormalRoutePriority": _PRIORITY,
    "ipv4ElevatedRoutePriority": _PRIORITY,
    "ipv6NormalRoutePriority": _PRIORITY,
    "ipv6ElevatedRoutePriority": _PRIORITY,
    "liveMigrationRouteConvergenceTime": _DURATION,
    "externalNodesList": Setting(rules.cidrs(4)),
    "ipForwarding": _SWITCH,
    "defaultEndpointToHostAction": Setting(one_of("Drop", "Accept", "Return"), heeded=True),
    "failsafeInboundHostPorts": Setting(rules.each(rules.failsafe), heeded=True),
    "failsafeOutboundHostPorts": Setting(rules.each(rules.failsafe), heeded=True),
    "chainInsertMode": Setting(one_of("Insert", "Append")),
    "iptablesBackend": Setting(one_of("Legacy", "NFT", "Auto")),
    "iptablesRefreshInterval": _DURATION,
    "iptablesPostWriteCheckInterval": _DURATION,
    "iptablesLockFilePath": _FILE,
    "iptablesLockTimeout": _DURATION,
    "iptablesLockProbeInterval": _DURATION,
    "iptablesMarkMask": _MASK,
    "iptablesFilterAllowAction": _ALLOW,
    "iptablesMangleAllowAction": _ALLOW,
    "iptablesFilterDenyAction": _DENY,
    "nftablesMode": Setting(one_of("Auto", "Enabled", "Disabled")),
    "nftablesRefreshInterval": _DURATION,
    "nftablesMarkMask": _MASK,
    "nftablesFilterAllowAction": _ALLOW,
    "nftablesMangleAllowAction": _ALLOW,
    "nftablesFilterDenyAction": _DENY,
    "ipsetsRefreshInterval": _DURATION,
    "maxIpsetSize": _SIZE,
    "disableConntrackInvalidCheck": _ANY,
    "workloadSourceSpoofing": Setting(one_of("Disabled", "Any"), heeded=True),
    "allowVXLANPacketsFromWorkloads": _ANY,
    "allowIPIPPacketsFromWorkloads": _ANY,
    "logPrefix": Setting(rules.log_prefix),
    "logActionRateLimit": Setting(rules.rate),
    "logActionRateLimitBurst": Setting(number(0, _MOST_BURST)),
    "serviceLoopPrevention": Setting(one_of("Drop", "Reject", "Disabled"), heeded=True),
    "floatingIPs": Setting(one_of(*checks.SWITCH), heeded=True),
    "kubeNodePortRanges": Setting(rules.each(rules.port_range)),
    "policySyncPathPrefix": _ANY,
    "sidecarAccelerationEnabled": _ANY,
    "istioAmbientMode": _SWITCH,
    "istioDSCPMark": Setting(rules.dscp),
    "windowsManageFirewallRules": _SWITCH,
    "xdpEnabled": _ANY,
    "xdpRefreshInterval": _DURATION,
    "genericXDPEnabled": _ANY,
    "natOutgoingAddress": Setting(rules.address(4)),
    "natOutgoingExclusions": Setting(one_of("IPPoolsOnly", "IPPoolsAndHostIPs")),
    "natPortRange": _PORTS,
    "iptablesNATOutgoingInterfaceFilter": Setting(rules.devices),
    "bpfEnabled": _ANY,
    "bpfAttachType": Setting(one_of("TC", "TCX")),
    "bpfCTLBLogFilter": Setting(one_of("all")),
    "bpfConnectTimeLoadBalancing": Setting(one_of("TCP", "Enabled", "Disabled")),
    "bpfConnectTimeLoadBalancingEnabled": _ANY,
    "bpfConntrackLogLevel": Setting(one_of("Off", "Debug")),
    "bpfConntrackMode": Setting(one_of("Auto", "Userspace", "BPFProgram")),
    "bpfConntrackTimeouts": Setting(rules.conntrack_timeouts),
    "bpfDSROptoutCIDRs": _CIDRS,
    "bpfDataIfacePattern": _REGEX,
    "bpfDisableGROForIfaces": _REGEX,
    "bpfDisableUnprivileged": _ANY,
    "bpfEnforceRPF": Setting(one_of("Disabled", "Strict", "Loose")),
    "bpfExcludeCIDRsFromNAT": _CIDRS,
    "bpfExportBufferSizeMB": _SIZE,
    "bpfExtToServiceConnmark": Setting(number(0, rules.MAX_UINT32)),
    "bpfExternalServiceMode": Setting(one_of("Tunnel", "DSR")),
    "bpfForceTrackPacketsFromIfaces": Setting(rules.each(rules.devices)),
    "bpfHostConntrackBypass": _ANY,
    "bpfHostNetworkedNATWithoutCTLB": _SWITCH,
    "bpfIPFragTimeout": _DURATION,
    "bpfIPFragmentReassemblyEnabled": _ANY,
    "bpfJITHardening": Setting(one_of("Auto", "Strict")),
    "bpfKubeProxyHealthzPort": _PORT_OR_OFF,
    "bpfKubeProxyIptablesCleanupEnabled": _ANY,
    "bpfKubeProxyMinSyncPeriod": _DURATION,
    "bpfL3IfacePattern": _REGEX,
    "bpfLogFilters": Setting(rules.pcap_filters),
    "bpfLogLevel": Setting(one_of("Off", "Info", "Debug")),
    "bpfMaglevMaxEndpointsPerService": _MAGLEV,
    "bpfMaglevMaxServices": _MAGLEV,
    "bpfMapSizeConntrack": _SIZE,
    "bpfMapSizeConntrackCleanupQueue": _SIZE,
    "bpfMapSizeConntrackScaling": Setting(one_of("Disabled", "DoubleIfFull")),
    "bpfMapSizeIPSets": _SIZE,
    "bpfMapSizeIfState": _SIZE,
    "bpfMapSizeNATAffinity": _SIZE,
    "bpfMapSizeNATBackend": _SIZE,
    "bpfMapSizeNATFrontend": _SIZE,
    "bpfMapSizePerCpuConntrack": Setting(number(0, _MAX_INT32)),
    "bpfMapSizeRoute": _SIZE,
    "bpfOverlayHostSourceIP": Setting(one_of("TunnelAddress", "HostAddress")),
    "bpfPSNATPorts": _PORTS,
    "bpfPolicyDebugEnabled": _ANY,
    "bpfProfiling": _SWITCH,
    "bpfRedirectToPeer": Setting(one_of("Enabled", "Disabled", "L2Only")),
    "cgroupV2Path": _FILE,
    "metadataAddr": _HOST,
    "metadataPort": _PORT,
    "openstackRegion": _ANY,
    "endpointReportingEnabled": _ANY,
    "endpointReportingDelay": _DURATION,
    "reportingInterval": _DURATION,
    "reportingTTL": _DURATION,
    "logSeverityScreen": _LOG_LEVEL,
    "logSeverityFile": _LOG_LEVEL,
    "logSeveritySys": _LOG_LEVEL,
    "logFilePath": _ANY,
    "logDebugFilenameRegex": _REGEX,
    "healthEnabled": _ANY,
    "healthHost": _HOST,
    "healthPort": _PORT_OR_OFF,
    "healthTimeoutOverrides": Setting(rules.health_timeouts),
    "prometheusMetricsEnabled": _ANY,
    "prometheusMetricsHost": _HOST,
    "prometheusMetricsPort": _PORT_OR_OFF,
    "prometheusMetricsCAFile": _FILE,
    "prometheusMetricsCertFile": _FILE,
    "prometheusMetricsKeyFile": _FILE,
    "prometheusMetricsClientAuth": Setting(
        one_of(
            "NoClientCert", "RequireAnyClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
        )
    ),
    "prometheusGoMetricsEnabled": _ANY,
    "prometheusProcessMetricsEnabled": _ANY,
    "prometheusWireGuardMetricsEnabled": _ANY,
    "endpointStatusPathPrefix": _ANY,
    "usageReportingEnabled": _ANY,
    "usageReportingInitialDelay": _DURATION,
    "usageReportingInterval": _DURATION,
    "flowLogsCollectorDebugTrace": _ANY,
    "flowLogsFlushInterval": _DURATION,
    "flowLogsGoldmaneServer": _ANY,
    "flowLogsLocalReporter": _SWITCH,
    "flowLogsPolicyEvaluationMode": Setting(one_of("None", "Continuous")),
    "debugDisableLogDropping": _ANY,
    "debugHost": _HOST,
    "debugMemoryProfilePath": _ANY,
    "debugPort": _PORT_OR_OFF,
    "debugSimulateCalcGraphHangAfter": _DURATION,
    "debugSimulateDataplaneApplyDelay": _DURATION,
    "debugSimulateDataplaneHangAfter": _DURATION,
    "goGCThreshold": _UNLIMITED,
    "goMaxProcs": _UNLIMITED,
    "goMemoryLimitMB": _UNLIMITED,
}


def set_fields(spec: FelixConfigurationSpec) -> dict[str, object]:
    """The settings that are set, by their names in documents."""
    unset = FelixConfigurationSpec()
    names = zip(spec.__struct_encode_fields__, spec.__struct_fields__, strict=True)
    return {wire: value for wire, name in names if (value := getattr(spec, name)) != getattr(unset, name)}


def unheeded(spec: FelixConfigurationSpec) -> list[str]:
    """Settings that are set and that this agent does not heed."""
    return [name for name in set_fields(spec) if not SETTINGS[name].heeded]


def felix_problems(configuration: FelixConfiguration) -> Findings:
    """A FelixConfiguration."""
    name, spec = configuration.metadata.name, configuration.spec
    for field, value in set_fields(spec).items():
        yield from SETTINGS[field].rule(f"spec.{field}", value)
    if len(spec.node_selector) > _LONGEST_SELECTOR:
        rule = f"must have at most {_LONGEST_SELECTOR} characters"
        yield Problem("spec.nodeSelector", spec.node_selector, rule)
    if spec.node_selector and (name == "default" or name.startswith("node.")):
        rule = f"must not be set in {name}, which is for fixed nodes: give the object another name"
        yield Problem("spec.nodeSelector", spec.node_selector, rule)
    if spec.route_table_range is not None:
        both, shown = bool(spec.route_table_ranges), spec.route_table_range
        text = f"{shown.min}-{shown.max}"
        yield from checks.not_together("spec.routeTableRange", text, "spec.routeTableRanges", both=both)
