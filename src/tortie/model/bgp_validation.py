"""What may not stand in a BGP object. `validation.problems` is what to call."""

import re
from ipaddress import ip_address
from typing import Final

from tortie.model import checks
from tortie.model.bgp import (
    BGPConfiguration,
    BGPConfigurationSpec,
    BGPFilterSpec,
    BGPPeerSpec,
    CalicoNodeStatusSpec,
    FilterOperation,
    FilterRule,
)
from tortie.model.checks import Findings
from tortie.model.problems import Problem

PROGRAM_ROUTES: Final = ("Enabled", "EnabledIPIPOnly", "EnabledNoEncapOnly", "Disabled")
_DEFAULT_AS: Final = BGPConfigurationSpec().as_number
_LONGEST_PERIOD: Final = 86400  # seconds: a day, Calico's bound
_MOST_OPERATIONS: Final = 10  # Calico's bound
_MOST_PRIORITY: Final = 2**31 - 2  # BIRD and the kernel keep a metric in 31 bits; Calico leaves out the last
_WILDCARD_INTERFACE: Final = re.compile(r"[a-zA-Z0-9_.*-]{1,15}")
_PEER: Final = re.compile(r"\[(?P<six>[^\]]+)\](:(?P<port6>\d+))?|(?P<four>[0-9.]+)(:(?P<port4>\d+))?")


def configuration_problems(configuration: BGPConfiguration) -> Findings:
    """A BGPConfiguration."""
    spec = configuration.spec
    yield from checks.as_number("spec.asNumber", spec.as_number)
    yield from checks.port("spec.listenPort", spec.listen_port)
    yield from checks.one_of("spec.logSeverityScreen", spec.log_severity_screen, checks.LOG_LEVELS)
    yield from checks.one_of("spec.bindMode", spec.bind_mode, ("None", "NodeIP"))
    aggregation = spec.service_load_balancer_aggregation
    yield from checks.one_of("spec.serviceLoadBalancerAggregation", aggregation, checks.SWITCH)
    yield from checks.one_of("spec.programClusterRoutes", spec.program_cluster_routes, PROGRAM_ROUTES)
    for name, blocks in (
        ("serviceClusterIPs", spec.service_cluster_ips),
        ("serviceExternalIPs", spec.service_external_ips),
        ("serviceLoadBalancerIPs", spec.service_load_balancer_ips),
    ):
        for index, block in enumerate(blocks):
            yield from checks.cidr(f"spec.{name}[{index}].cidr", block.cidr, bare=True)
    for index, pattern in enumerate(spec.ignored_interfaces):
        if not _WILDCARD_INTERFACE.fullmatch(pattern) or set(pattern) == {"*"}:
            yield Problem(
                f"spec.ignoredInterfaces[{index}]", pattern, "must name devices, with * as a part of the name"
            )
    yield from checks.address("spec.localWorkloadPeeringIPV4", spec.local_workload_peering_ipv4, 4)
    yield from checks.address("spec.localWorkloadPeeringIPV6", spec.local_workload_peering_ipv6, 6)
    for field, priority in (
        ("spec.ipv4NormalRoutePriority", spec.ipv4_normal_route_priority),
        ("spec.ipv6NormalRoutePriority", spec.ipv6_normal_route_priority),
    ):
        yield from checks.between(field, priority, 1, _MOST_PRIORITY)
    yield from _communities(spec)
    yield from _mesh(configuration)


def _communities(spec: BGPConfigurationSpec) -> Findings:
    names = [community.name for community in spec.communities]
    yield from checks.unique("spec.communities", names)
    for index, community in enumerate(spec.communities):
        if not community.name:
            yield Problem(f"spec.communities[{index}].name", "", "must be set")
        yield from checks.community(f"spec.communities[{index}].value", community.value)
    if spec.communities and not spec.prefix_advertisements:
        reason = "must not be set without spec.prefixAdvertisements, which alone use them"
        yield Problem("spec.communities", ", ".join(names), reason)
    for index, advertisement in enumerate(spec.prefix_advertisements):
        path = f"spec.prefixAdvertisements[{index}]"
        yield from checks.cidr(f"{path}.cidr", advertisement.cidr)
        if not advertisement.communities:
            yield Problem(f"{path}.communities", "", "must have a community's name or value")
        for number, value in enumerate(advertisement.communities):
            if value in names:
                continue
            if ":" in value:
                yield from checks.community(f"{path}.communities[{number}]", value)
            else:
                known = ", ".join(names) or "none"
                yield Problem(
                    f"{path}.communities[{number}]",
                    value,
                    f"must be a name of spec.communities (there: {known})",
                )


def _mesh(configuration: BGPConfiguration) -> Findings:
    spec, name = configuration.spec, configuration.metadata.name
    yield from checks.duration("spec.nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time)
    if spec.node_mesh_password is not None and spec.node_mesh_password.secret_key_ref is None:
        yield Problem("spec.nodeMeshPassword", "{}", "must have a secretKeyRef")
    of_mesh = {
        "spec.nodeMeshPassword": spec.node_mesh_password is not None,
        "spec.nodeMeshMaxRestartTime": bool(spec.node_mesh_max_restart_time),
    }
    for field, is_set in of_mesh.items():
        if is_set and not spec.node_to_node_mesh_enabled:
            yield Problem(field, "set", "must not be set while spec.nodeToNodeMeshEnabled is false")
        if is_set and name != "default":
            yield Problem(field, "set", "must be set in the object named default only")
    if name != "default" and not spec.node_to_node_mesh_enabled:
        yield Problem("spec.nodeToNodeMeshEnabled", "false", "must be set in the object named default only")
    if name != "default" and spec.as_number != _DEFAULT_AS:
        yield Problem(
            "spec.asNumber", str(spec.as_number), "must be set in the object named default, or on the Node"
        )


def peer_problems(spec: BGPPeerSpec) -> Findings:
    """A BGPPeer."""
    yield from checks.selector("spec.nodeSelector", spec.node_selector)
    yield from checks.selector("spec.peerSelector", spec.peer_selector)
    yield from checks.selector("spec.localWorkloadSelector", spec.local_workload_selector)
    exclusive = (
        ("node", spec.node, "nodeSelector", spec.node_selector),
        ("peerIP", spec.peer_ip, "peerSelector", spec.peer_selector),
        ("peerIP", spec.peer_ip, "localWorkloadSelector", spec.local_workload_selector),
        ("peerSelector", spec.peer_selector, "localWorkloadSelector", spec.local_workload_selector),
        ("asNumber", str(spec.as_number or ""), "peerSelector", spec.peer_selector),
        ("keepOriginalNextHop", "true" * spec.keep_original_next_hop, "nextHopMode", spec.next_hop_mode),
    )
    for name, value, other, other_value in exclusive:
        both = bool(value and other_value)
        yield from checks.not_together(f"spec.{name}", value, f"spec.{other}", both=both)
    if not (spec.peer_ip or spec.peer_selector or spec.local_workload_selector):
        yield Problem("spec.peerIP", "", "must be set, or spec.peerSelector, or spec.localWorkloadSelector")
    version = 0
    if spec.peer_ip:
        version = _peer_version(spec.peer_ip)
        if not version:
            yield Problem(
                "spec.peerIP",
                spec.peer_ip,
                "must be an address, or one with a port: 192.0.2.1:179, [fd00::1]:179",
            )
        if spec.as_number is None:
            yield Problem("spec.asNumber", "", "must be set where spec.peerIP is")
    if spec.local_workload_selector and spec.as_number is None:
        yield Problem("spec.asNumber", "", "must be set where spec.localWorkloadSelector is")
    yield from checks.as_number("spec.asNumber", spec.as_number)
    yield from checks.as_number("spec.localASNumber", spec.local_as_number)
    yield from checks.one_of("spec.nextHopMode", spec.next_hop_mode, ("Auto", "Self", "Keep"))
    yield from checks.one_of("spec.sourceAddress", spec.source_address, ("UseNodeIP", "None"))
    yield from checks.one_of("spec.reversePeering", spec.reverse_peering, ("Auto", "Manual"))
    yield from checks.duration("spec.maxRestartTime", spec.max_restart_time)
    yield from checks.duration("spec.keepaliveTime", spec.keepalive_time)
    yield from checks.between(
        "spec.numAllowedLocalASNumbers", spec.num_allowed_local_as_numbers, 0, 2**31 - 1
    )
    yield from checks.between("spec.ttlSecurity", spec.ttl_security, 0, 255)  # an IP packet's TTL has 8 bits
    if spec.reachable_by and not spec.peer_ip:
        yield Problem("spec.reachableBy", spec.reachable_by, "must not be set without spec.peerIP")
    yield from checks.address("spec.reachableBy", spec.reachable_by, version)
    if spec.password is not None and spec.password.secret_key_ref is None:
        yield Problem("spec.password", "{}", "must have a secretKeyRef")


def _peer_version(text: str) -> int:
    """IP version of a peer's address with an optional port; 0 when it is none."""
    try:
        return ip_address(text).version
    except ValueError:
        found = _PEER.fullmatch(text)
    if found is None or not 1 <= int(found["port6"] or found["port4"] or 1) <= checks.MAX_PORT:
        return 0
    try:
        version = ip_address(found["six"] or found["four"]).version
    except ValueError:
        return 0
    return version if (version == 6) == bool(found["six"]) else 0


def filter_problems(spec: BGPFilterSpec) -> Findings:
    """A BGPFilter."""
    for name, version, rules in (
        ("exportV4", 4, spec.export_v4),
        ("importV4", 4, spec.import_v4),
        ("exportV6", 6, spec.export_v6),
        ("importV6", 6, spec.import_v6),
    ):
        for index, rule in enumerate(rules):
            yield from _filter_rule(rule, f"spec.{name}[{index}]", version)


def _filter_rule(rule: FilterRule, path: str, version: int) -> Findings:
    if rule.action not in ("Accept", "Reject"):
        yield Problem(f"{path}.action", rule.action, "must be one of Accept, Reject")
    operators = ("Equal", "NotEqual", "In", "NotIn")
    yield from checks.one_of(f"{path}.matchOperator", rule.match_operator, operators)
    if rule.cidr:
        yield from checks.cidr(f"{path}.cidr", rule.cidr, version)
    if bool(rule.cidr) != bool(rule.match_operator):
        missing = "matchOperator" if rule.cidr else "cidr"
        yield Problem(f"{path}.{missing}", "", "must be set, for cidr and matchOperator belong together")
    if rule.prefix_length is not None:
        longest = 32 if version == 4 else 128
        least, most = rule.prefix_length.min, rule.prefix_length.max
        yield from checks.between(f"{path}.prefixLength.min", least, 0, longest)
        yield from checks.between(f"{path}.prefixLength.max", most, 0, longest)
        if least is not None and most is not None and least > most:
            yield Problem(f"{path}.prefixLength.min", str(least), f"must not be above max ({most})")
        if not rule.cidr:
            yield Problem(f"{path}.cidr", "", "must be set where prefixLength is")
    if rule.interface and not _WILDCARD_INTERFACE.fullmatch(rule.interface):
        yield Problem(f"{path}.interface", rule.interface, "must name a device, with * as a wildcard")
    yield from checks.one_of(f"{path}.source", rule.source, ("RemotePeers",))
    yield from checks.one_of(f"{path}.peerType", rule.peer_type, ("eBGP", "iBGP"))
    yield from checks.between(f"{path}.priority", rule.priority, 1, _MOST_PRIORITY)
    for index, number in enumerate(rule.as_path_prefix):
        yield from checks.as_number(f"{path}.asPathPrefix[{index}]", number)
    if rule.communities is not None:
        if len(rule.communities.values) != 1:
            yield Problem(
                f"{path}.communities.values",
                ", ".join(rule.communities.values),
                "must have exactly one value",
            )
        for index, value in enumerate(rule.communities.values):
            yield from checks.community(f"{path}.communities.values[{index}]", value)
    if rule.operations and rule.action != "Accept":
        yield Problem(
            f"{path}.operations", f"{len(rule.operations)} operations", "must go with action Accept"
        )
    if len(rule.operations) > _MOST_OPERATIONS:
        yield Problem(
            f"{path}.operations", f"{len(rule.operations)} operations", f"must be {_MOST_OPERATIONS} at most"
        )
    for index, operation in enumerate(rule.operations):
        yield from _operation(operation, f"{path}.operations[{index}]")


def _operation(operation: FilterOperation, path: str) -> Findings:
    parts = (operation.add_community, operation.prepend_as_path, operation.set_priority)
    count = sum(part is not None for part in parts)
    if count != 1:
        yield Problem(path, f"{count} members", "must be one of addCommunity, prependASPath, setPriority")
    if operation.add_community is not None:
        yield from checks.community(f"{path}.addCommunity.value", operation.add_community.value)
    if operation.prepend_as_path is not None:
        for index, number in enumerate(operation.prepend_as_path.prefix):
            yield from checks.as_number(f"{path}.prependASPath.prefix[{index}]", number)
    if operation.set_priority is not None:
        yield from checks.between(
            f"{path}.setPriority.value", operation.set_priority.value, 1, _MOST_PRIORITY
        )


def node_status_problems(spec: CalicoNodeStatusSpec) -> Findings:
    """A CalicoNodeStatus."""
    if not spec.node:
        yield Problem("spec.node", "", "must name a node")
    if not spec.classes:
        yield Problem("spec.classes", "", "must have at least one of Agent, BGP, Routes")
    yield from checks.unique("spec.classes", spec.classes)
    for index, name in enumerate(spec.classes):
        yield from checks.one_of(f"spec.classes[{index}]", name, ("Agent", "BGP", "Routes"))
    yield from checks.between("spec.updatePeriodSeconds", spec.update_period_seconds, 0, _LONGEST_PERIOD)
