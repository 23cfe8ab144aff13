"""What may not stand in the kinds that only etcd stores (WorkloadEndpoint, Profile), and in a Node's spec."""

import re
from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Any, Final

from tortie.model import checks
from tortie.model.checks import Findings
from tortie.model.endpoints import IPNAT, EndpointPort, QoSControls, WorkloadEndpointSpec
from tortie.model.felix_rules import dscp
from tortie.model.nodeinfo import parse_mac
from tortie.model.policies import EGRESS, INGRESS
from tortie.model.policy_validation import rule_problems
from tortie.model.policy_values import PROTOCOLS_WITH_PORTS, protocol_number
from tortie.model.problems import Problem
from tortie.model.profile import ProfileSpec

_INTERFACE: Final = re.compile(r"[a-zA-Z0-9_.-]{1,15}")  # IFNAMSIZ - 1, linux/if.h
# Least and most of what is set (not 0), as tc and nftables take it; Calico's bounds.
_LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "bandwidth": (1000, 10**15),  # bit/s
    "burst": (1000, 34_359_738_360),  # bits: tc counts bytes in 32 bits
    "peakrate": (1010, 101 * 10**13),  # bit/s
    "minburst": (1000, 10**8),  # bytes
    "packet_rate": (1, 10**4),
    "packet_burst": (1, 10**4),
    "max_connections": (1, 2**32 - 1),
}
_CONTAINER: Final = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?")


def endpoint_problems(spec: WorkloadEndpointSpec) -> Findings:
    """A WorkloadEndpoint's spec."""
    if not _INTERFACE.fullmatch(spec.interface_name):
        rule = "must be an interface's name: 1 to 15 of a-z, A-Z, 0-9, '_', '.' and '-'"
        yield Problem("spec.interfaceName", spec.interface_name, rule)
    if spec.container_id and not _CONTAINER.fullmatch(spec.container_id):
        rule = "must be letters, digits and '-', with a letter or digit at each end"
        yield Problem("spec.containerID", spec.container_id, rule)
    own: set[str] = set()
    for index, text in enumerate(spec.ip_networks):
        network = checks.network(text)
        if network is None or network.prefixlen != network.max_prefixlen:
            yield Problem(f"spec.ipNetworks[{index}]", text, "must be one address, such as 10.5.0.3/32")
        else:
            own.add(str(network.network_address))
    for index, nat in enumerate(spec.ip_nats):
        yield from _nat(f"spec.ipNATs[{index}]", nat, own)
    for index, port in enumerate(spec.ports):
        yield from _port(f"spec.ports[{index}]", port)
    yield from checks.address("spec.ipv4Gateway", spec.ipv4_gateway, 4)
    yield from checks.address("spec.ipv6Gateway", spec.ipv6_gateway, 6)
    yield from _mac("spec.mac", spec.mac)
    for index, text in enumerate(spec.allow_spoofed_source_prefixes):
        yield from checks.cidr(f"spec.allowSpoofedSourcePrefixes[{index}]", text, bare=True)
    if spec.qos_controls is not None:
        yield from _limits("spec.qosControls", spec.qos_controls)


def _mac(path: str, text: str) -> Findings:
    try:
        parse_mac(text or "00:00:00:00:00:00")
    except ValueError:
        yield Problem(path, text, "must be a MAC address such as ee:ee:ee:ee:ee:ee")


def _limits(path: str, limits: QoSControls) -> Findings:
    for wire, name in zip(limits.__struct_encode_fields__, limits.__struct_fields__, strict=True):
        value = getattr(limits, name)
        if name == "dscp":
            if value is not None:
                yield from dscp(f"{path}.{wire}", value)
        elif value:
            least, most = _LIMITS[name.partition("_")[2]]
            yield from checks.between(f"{path}.{wire}", value, least, most)


def _nat(path: str, nat: IPNAT, own: set[str]) -> Findings:
    try:
        internal, external = ip_address(nat.internal), ip_address(nat.external)
    except ValueError:
        shown = f"{nat.internal}, {nat.external}"
        yield Problem(path, shown, "must have two addresses, internalIP and externalIP")
        return
    if internal.version != external.version:
        yield Problem(f"{path}.externalIP", nat.external, f"must be IPv{internal.version}, as internalIP is")
    if str(internal) not in own:
        yield Problem(f"{path}.internalIP", nat.internal, "must be one of spec.ipNetworks")


def _port(path: str, port: EndpointPort) -> Findings:
    if not port.name and not port.host_port:
        yield Problem(f"{path}.name", "", "must be set, unless hostPort is")
    yield from checks.port(f"{path}.port", port.port)
    yield from checks.port(f"{path}.hostPort", port.host_port, least=0)
    yield from checks.address(f"{path}.hostIP", port.host_ip)
    try:
        known = protocol_number(port.protocol) in PROTOCOLS_WITH_PORTS and not port.protocol.isdigit()
    except ValueError:
        known = False
    if not known:
        yield Problem(f"{path}.protocol", port.protocol, "must be TCP, UDP or SCTP")


def profile_problems(spec: ProfileSpec) -> Findings:
    """A Profile's spec."""
    yield from checks.labels("spec.labelsToApply", spec.labels_to_apply)
    for direction, rules in ((INGRESS, spec.ingress), (EGRESS, spec.egress)):
        for index, rule in enumerate(rules):
            path = f"spec.{direction.lower()}[{index}]"
            yield from rule_problems(rule, path, direction=direction, namespaced=False)


def node_problems(spec: Mapping[str, Any]) -> Findings:
    """A Node's spec as a document: what goes into annotations. Whatever is no text is said elsewhere."""
    bgp = spec.get("bgp")
    if isinstance(bgp, dict):
        yield from _interface("spec.bgp.ipv4Address", bgp.get("ipv4Address"), 4)
        yield from _interface("spec.bgp.ipv6Address", bgp.get("ipv6Address"), 6)
        yield from _address("spec.bgp.ipv4IPIPTunnelAddr", bgp.get("ipv4IPIPTunnelAddr"), 4)
        # RFC 4456: a route reflector's cluster has four octets, written like an address.
        cluster = bgp.get("routeReflectorClusterID")
        yield from _address("spec.bgp.routeReflectorClusterID", cluster, 4)
    for field, version in (("ipv4VXLANTunnelAddr", 4), ("ipv6VXLANTunnelAddr", 6)):
        yield from _address(f"spec.{field}", spec.get(field), version)
    wireguard = spec.get("wireguard")
    if isinstance(wireguard, dict):
        for field, version in (("interfaceIPv4Address", 4), ("interfaceIPv6Address", 6)):
            yield from _address(f"spec.wireguard.{field}", wireguard.get(field), version)


def _address(path: str, value: object, version: int) -> Findings:
    if value is not None:
        yield from checks.address(path, str(value), version)


def _interface(path: str, value: object, version: int) -> Findings:
    """An address, with its subnet's prefix length or without."""
    if value is None:
        return
    found: IPv4Interface | IPv6Interface | None
    try:
        found = ip_interface(str(value))
    except ValueError:
        found = None
    if found is None or found.version != version:
        example = "192.0.2.1/24" if version == 4 else "2001:db8::1/64"
        yield Problem(path, str(value), f"must be an IPv{version} address with its prefix, such as {example}")
