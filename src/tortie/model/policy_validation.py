"""What may not stand in a policy object: Calico's rules, and a refusal of what would not be enforced.

Admission (`tortiectl`, webhooks) refuses an object with any problem. The policy core does not trust that
anybody asked: `tortie.policy.compile` says what it does with an object that got in all the same.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import singledispatch
from typing import Final, TypeVar

import msgspec

from tortie.model import checks
from tortie.model.policies import (
    EGRESS,
    INGRESS,
    EntityRule,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    GlobalNetworkSet,
    HostEndpoint,
    NetworkPolicy,
    NetworkPolicySpec,
    NetworkSet,
    Rule,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    Tier,
)
from tortie.model.policy_kubernetes import kubernetes_spec_problems
from tortie.model.policy_natives import KubernetesNetworkPolicy
from tortie.model.policy_values import (
    ICMP,
    ICMPV6,
    PROTOCOLS_WITH_PORTS,
    parse_address,
    parse_network,
    parse_port,
    protocol_number,
)
from tortie.model.problems import Problem
from tortie.model.resources import Resource
from tortie.model.selectors import SelectorError, parse

T = TypeVar("T")
Findings = Iterator[Problem]

ACTIONS: Final = ("Allow", "Deny", "Log", "Pass")
TYPES: Final = (INGRESS, EGRESS)
STAGED_ACTIONS: Final = ("", "Set", "Delete", "Learn", "Ignore")
DEFAULT_ACTIONS: Final = ("", "Deny", "Pass")
PERFORMANCE_HINTS: Final = ("AssumeNeededOnEveryNode",)
# Orders of the tiers that exist without anybody's doing (Calico's API server creates them with these).
TIER_ORDERS: Final = {"default": 1_000_000, "kube-admin": 1_000, "kube-baseline": 10_000_000}

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")  # RFC 1123
_MAX_NAME: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_MAX_LABEL: Final = 63
_INTERFACE: Final = re.compile(r"[a-zA-Z0-9_.-]{1,15}")  # IFNAMSIZ - 1, linux/if.h
_KUBERNETES: Final = "knp.default."
_NAMESPACE_LABEL: Final = "projectcalico.org/namespace"
_MAX_ICMP_TYPE: Final = 254  # 255 stands for "any" in netfilter (ip_tables)
_MAX_ICMP_CODE: Final = 255


def policy_problems(resource: Resource) -> list[Problem]:
    """Everything that is wrong with a policy object; empty for a kind that has no rules of its own."""
    return [*_metadata(resource), *_kind(resource)]


@singledispatch
def _kind(resource: Resource) -> Findings:
    yield from ()


def rule_problems(rule: Rule, path: str, *, direction: str, namespaced: bool) -> Findings:
    """What is wrong with one rule of a Calico policy. `direction` is Ingress or Egress."""
    yield from _one_of(f"{path}.action", rule.action, ACTIONS)
    if rule.http is not None:
        text = msgspec.json.encode(rule.http).decode()
        yield Problem(
            f"{path}.http", text, "is not supported, for nothing on the data path reads HTTP; remove it"
        )
    if rule.metadata is not None:
        yield from checks.annotations(f"{path}.metadata.annotations", rule.metadata.annotations)
    yield from _versions(rule, path)
    yield from _protocols(rule, path)
    yield from _entity(rule.source, f"{path}.source")
    yield from _entity(rule.destination, f"{path}.destination")
    yield from _services(rule, path, direction, namespaced)


# --- metadata ----------------------------------------------------------------------------------------------


def _metadata(resource: Resource) -> Findings:
    name = resource.metadata.name
    if isinstance(resource, Tier):
        if not _LABEL.fullmatch(name) or len(name) > _MAX_LABEL:
            rule = f"must be 1 to {_MAX_LABEL} of a-z, 0-9 and '-', and begin and end with a letter or digit"
            yield Problem("metadata.name", name, rule)
    elif not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        parts = "each part beginning and ending with a letter or digit"
        rule = f"must be 1 to {_MAX_NAME} of a-z, 0-9, '-' and '.', {parts}"
        yield Problem("metadata.name", name, rule)
    if resource.resource_type.namespaced and not resource.metadata.namespace:
        yield Problem("metadata.namespace", "", "must name a namespace")
    if isinstance(resource, GlobalNetworkPolicy | StagedGlobalNetworkPolicy) and name.startswith(_KUBERNETES):
        rule = f"must not begin with {_KUBERNETES}, which stands for Kubernetes' own policies"
        yield Problem("metadata.name", name, rule)
    yield from checks.labels("metadata.labels", resource.metadata.labels)
    yield from checks.annotations("metadata.annotations", resource.metadata.annotations)


# --- values ------------------------------------------------------------------------------------------------


def _one_of(path: str, value: str, allowed: Sequence[str]) -> Findings:
    if value not in allowed:
        yield Problem(path, value, f"must be one of {', '.join(item for item in allowed if item)}")


def _parsed(path: str, value: T, parser: Callable[[T], object]) -> Findings:
    try:
        parser(value)
    except ValueError as error:
        yield Problem(path, str(value), str(error))


def _selector(path: str, text: str) -> Findings:
    try:
        parse(text)
    except SelectorError as error:
        yield Problem(
            path, text, f"must be a selector, but at character {error.position + 1}: {error.reason}"
        )


def _plain_selector(path: str, text: str) -> Findings:
    """A selector where `global()` has no meaning."""
    yield from _selector(path, text)
    if "global(" in text:
        yield Problem(path, text, "must not contain global(), which belongs into a rule's namespaceSelector")


def _network(path: str, text: str) -> Findings:
    """A CIDR without bits after its prefix, for Calico refuses others in rules."""
    try:
        network = parse_network(text)
    except ValueError as error:
        yield Problem(path, text, str(error))
        return
    if "/" not in text:
        yield Problem(path, text, f"must have a prefix length: write {network}")
    elif parse_address(text.partition("/")[0]) != network.network_address:
        yield Problem(path, text, f"must have no bits after its prefix: write {network}")


def _each(path: str, values: Iterable[T], check: Callable[[str, T], Findings]) -> Findings:
    for position, value in enumerate(values):
        yield from check(f"{path}[{position}]", value)


def _types(path: str, types: list[str]) -> Findings:
    for position, value in enumerate(types):
        yield from _one_of(f"{path}[{position}]", value, TYPES)
        if value in types[:position]:
            yield Problem(f"{path}[{position}]", value, "must not stand there twice")


# --- rules -------------------------------------------------------------------------------------------------


def _number(protocol: int | str | None) -> int | None:
    """None also for what is no protocol: that is said elsewhere."""
    try:
        return None if protocol is None else protocol_number(protocol)
    except ValueError:
        return None


def _versions(rule: Rule, path: str) -> Findings:
    if rule.ip_version not in (None, 4, 6):
        yield Problem(f"{path}.ipVersion", str(rule.ip_version), "must be 4 or 6")
    version: int | None = rule.ip_version
    for field, protocol in (("protocol", rule.protocol), ("notProtocol", rule.not_protocol)):
        wanted = {ICMP: 4, ICMPV6: 6}.get(_number(protocol) or 0)
        if wanted is not None and rule.ip_version not in (None, wanted):
            yield Problem(f"{path}.ipVersion", str(rule.ip_version), f"must be {wanted} with this {field}")
    for field, nets in (
        ("source.nets", rule.source.nets),
        ("source.notNets", rule.source.not_nets),
        ("destination.nets", rule.destination.nets),
        ("destination.notNets", rule.destination.not_nets),
    ):
        for position, text in enumerate(nets):
            try:
                found = parse_network(text).version
            except ValueError:
                continue  # said by _entity
            if version is None:
                version = found
            elif version != found:
                reason = f"must be of IPv{version}, as the rest of the rule"
                yield Problem(f"{path}.{field}[{position}]", text, reason)


def _protocols(rule: Rule, path: str) -> Findings:
    if rule.protocol is not None:
        yield from _parsed(f"{path}.protocol", rule.protocol, protocol_number)
    if rule.not_protocol is not None:
        yield from _parsed(f"{path}.notProtocol", rule.not_protocol, protocol_number)
    number = _number(rule.protocol)
    if number not in PROTOCOLS_WITH_PORTS:
        for side, entity in (("source", rule.source), ("destination", rule.destination)):
            for field, ports in (("ports", entity.ports), ("notPorts", entity.not_ports)):
                if ports:
                    reason = "needs the rule's protocol to be TCP, UDP or SCTP"
                    yield Problem(f"{path}.{side}.{field}", ", ".join(map(str, ports)), reason)
    for field, icmp in (("icmp", rule.icmp), ("notICMP", rule.not_icmp)):
        if icmp is None:
            continue
        place = f"{path}.{field}"
        if number not in (ICMP, ICMPV6):
            protocol = "" if rule.protocol is None else str(rule.protocol)
            yield Problem(place, protocol, "needs the rule's protocol to be ICMP or ICMPv6")
        if icmp.type is None and icmp.code is not None:
            yield Problem(f"{place}.type", "", "must be given: a code means nothing without it")
        elif icmp.type is not None and not 0 <= icmp.type <= _MAX_ICMP_TYPE:
            yield Problem(f"{place}.type", str(icmp.type), f"must be from 0 to {_MAX_ICMP_TYPE}")
        if icmp.code is not None and not 0 <= icmp.code <= _MAX_ICMP_CODE:
            yield Problem(f"{place}.code", str(icmp.code), f"must be from 0 to {_MAX_ICMP_CODE}")


def _entity(entity: EntityRule, path: str) -> Findings:
    yield from _each(f"{path}.nets", entity.nets, _network)
    yield from _each(f"{path}.notNets", entity.not_nets, _network)
    yield from _plain_selector(f"{path}.selector", entity.selector)
    yield from _plain_selector(f"{path}.notSelector", entity.not_selector)
    yield from _namespace_selector(f"{path}.namespaceSelector", entity.namespace_selector)
    for field, ports in (("ports", entity.ports), ("notPorts", entity.not_ports)):
        for position, port in enumerate(ports):
            yield from _parsed(f"{path}.{field}[{position}]", port, parse_port)
    if entity.service_accounts is not None:
        place = f"{path}.serviceAccounts"
        yield from _plain_selector(f"{place}.selector", entity.service_accounts.selector)
        for position, name in enumerate(entity.service_accounts.names):
            if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
                yield Problem(f"{place}.names[{position}]", name, "must be the name of a ServiceAccount")


def _namespace_selector(path: str, text: str) -> Findings:
    yield from _selector(path, text)
    if "global(" in text and text.strip(" \t()") != "global":
        yield Problem(path, text, "must be global() alone, or not contain it")


def _services(rule: Rule, path: str, direction: str, namespaced: bool) -> Findings:
    wrong, right = ("destination", "source") if direction == INGRESS else ("source", "destination")
    for side, entity in (("source", rule.source), ("destination", rule.destination)):
        services = entity.services
        if services is None:
            continue
        place = f"{path}.{side}.services"
        shown = f"{services.namespace}/{services.name}" if services.namespace else services.name
        if side == wrong:
            yield Problem(place, shown, f"belongs into the {right} of an {direction.lower()} rule")
        if not services.name:
            yield Problem(f"{place}.name", "", "must name a Service")
        if not namespaced and not services.namespace:
            yield Problem(f"{place}.namespace", "", "must be given in a global policy")
        for field, value in (
            ("selector", entity.selector),
            ("notSelector", entity.not_selector),
            ("namespaceSelector", entity.namespace_selector),
            ("serviceAccounts", entity.service_accounts),
            ("nets", entity.nets),
            ("notNets", entity.not_nets),
            ("ports", side == "destination" and entity.ports),
            ("notPorts", side == "destination" and entity.not_ports),
        ):
            if value:
                yield Problem(place, shown, f"must not stand beside {field}")


def _policy(spec: NetworkPolicySpec, *, namespaced: bool) -> Findings:
    yield from _plain_selector("spec.selector", spec.selector)
    yield from _plain_selector("spec.serviceAccountSelector", spec.service_account_selector)
    yield from _types("spec.types", spec.types)
    yield from _each(
        "spec.performanceHints",
        spec.performance_hints,
        lambda path, hint: _one_of(path, hint, PERFORMANCE_HINTS),
    )
    if spec.tier and not _LABEL.fullmatch(spec.tier):
        yield Problem("spec.tier", spec.tier, "must be the name of a Tier")
    if spec.order is not None and spec.order != spec.order:
        yield Problem("spec.order", str(spec.order), "must be a number")
    for direction, rules in ((INGRESS, spec.ingress), (EGRESS, spec.egress)):
        for position, rule in enumerate(rules):
            path = f"spec.{direction.lower()}[{position}]"
            yield from rule_problems(rule, path, direction=direction, namespaced=namespaced)


def _global_policy(spec: GlobalNetworkPolicySpec) -> Findings:
    yield from _policy(spec, namespaced=False)
    yield from _plain_selector("spec.namespaceSelector", spec.namespace_selector)
    if spec.do_not_track and spec.pre_dnat:
        yield Problem("spec.preDNAT", "true", "must not stand beside doNotTrack")
    if spec.pre_dnat and spec.egress:
        yield Problem("spec.egress", f"{len(spec.egress)} rules", "must be empty with preDNAT")
    if spec.pre_dnat and EGRESS in spec.types:
        yield Problem("spec.types", EGRESS, "must be Ingress alone with preDNAT")
    if (spec.do_not_track or spec.pre_dnat) and not spec.apply_on_forward:
        yield Problem("spec.applyOnForward", "false", "must be true with doNotTrack or preDNAT")


# --- kinds -------------------------------------------------------------------------------------------------


@_kind.register
def _network_policy(resource: NetworkPolicy) -> Findings:
    yield from _policy(resource.spec, namespaced=True)


@_kind.register
def _global_network_policy(resource: GlobalNetworkPolicy) -> Findings:
    yield from _global_policy(resource.spec)


@_kind.register
def _staged_network_policy(resource: StagedNetworkPolicy) -> Findings:
    spec = resource.spec
    yield from _staged(spec.staged_action, spec, type(spec)(tier=spec.tier, staged_action="Delete"))
    yield from _policy(spec, namespaced=True)


@_kind.register
def _staged_global_network_policy(resource: StagedGlobalNetworkPolicy) -> Findings:
    spec = resource.spec
    yield from _staged(spec.staged_action, spec, type(spec)(tier=spec.tier, staged_action="Delete"))
    yield from _global_policy(spec)


@_kind.register
def _staged_kubernetes_policy(resource: StagedKubernetesNetworkPolicy) -> Findings:
    spec = resource.spec
    yield from _staged(spec.staged_action, spec, type(spec)(staged_action="Delete"))
    yield from kubernetes_spec_problems(spec)


@_kind.register
def _kubernetes_policy(resource: KubernetesNetworkPolicy) -> Findings:
    yield from kubernetes_spec_problems(resource.spec)


def _staged(action: str, spec: object, empty: object) -> Findings:
    yield from _one_of("spec.stagedAction", action, STAGED_ACTIONS)
    if action == "Delete" and spec != empty:
        yield Problem("spec.stagedAction", action, "must stand alone (beside tier): it names what goes away")


@_kind.register
def _tier(resource: Tier) -> Findings:
    yield from _one_of("spec.defaultAction", resource.spec.default_action, DEFAULT_ACTIONS)
    wanted = TIER_ORDERS.get(resource.metadata.name)
    if wanted is not None and resource.spec.order != wanted:
        order = "" if resource.spec.order is None else str(resource.spec.order)
        yield Problem("spec.order", order, f"must be {wanted} for tier {resource.metadata.name}")


@_kind.register
def _host_endpoint(resource: HostEndpoint) -> Findings:
    spec = resource.spec
    if not spec.node:
        yield Problem("spec.node", "", "must name the node")
    if not spec.interface_name and not spec.expected_ips:
        yield Problem(
            "spec.interfaceName", "", "must be given, or expectedIPs, to tell which interface is meant"
        )
    if spec.interface_name and spec.interface_name != "*" and not _INTERFACE.fullmatch(spec.interface_name):
        rule = "must be '*' or an interface's name: 1 to 15 of a-z, A-Z, 0-9, '_', '.' and '-'"
        yield Problem("spec.interfaceName", spec.interface_name, rule)
    for position, text in enumerate(spec.expected_ips):
        yield from _parsed(f"spec.expectedIPs[{position}]", text, parse_address)
    for position, profile in enumerate(spec.profiles):
        if not _NAME.fullmatch(profile) or len(profile) > _MAX_NAME:
            yield Problem(f"spec.profiles[{position}]", profile, "must be the name of a Profile")
    for position, port in enumerate(spec.ports):
        path = f"spec.ports[{position}]"
        yield from _parsed(f"{path}.port", port.port, parse_port)
        if not port.name or isinstance(_port_or_none(port.name), tuple):
            yield Problem(f"{path}.name", port.name, "must be a name that rules can use")
        if _number(port.protocol) not in PROTOCOLS_WITH_PORTS:
            yield Problem(f"{path}.protocol", str(port.protocol), "must be TCP, UDP or SCTP")


def _port_or_none(name: str) -> tuple[int, int] | str | None:
    try:
        return parse_port(name)
    except ValueError:
        return (0, 0)  # no name either


@_kind.register
def _network_set(resource: NetworkSet) -> Findings:
    yield from _set_problems(resource, resource.spec.nets)


@_kind.register
def _global_network_set(resource: GlobalNetworkSet) -> Findings:
    yield from _set_problems(resource, resource.spec.nets)


def _set_problems(resource: Resource, nets: list[str]) -> Findings:
    for position, text in enumerate(nets):
        yield from _parsed(f"spec.nets[{position}]", text, parse_network)
    if _NAMESPACE_LABEL in resource.metadata.labels:
        value = resource.metadata.labels[_NAMESPACE_LABEL]
        yield Problem(
            f"metadata.labels[{_NAMESPACE_LABEL}]", value, "is given by the namespace, not by a label"
        )
