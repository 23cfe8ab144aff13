"""What may not stand in a Kubernetes NetworkPolicy. The API server checks the same for its own kind, but
nobody for a StagedKubernetesNetworkPolicy."""

from collections.abc import Iterator
from typing import Final, Protocol

from tortie.model.policies import EGRESS, INGRESS
from tortie.model.policy_natives import (
    IPBlock,
    KubernetesNetworkPolicyEgressRule,
    KubernetesNetworkPolicyIngressRule,
    KubernetesPeer,
    KubernetesPolicyPort,
    LabelSelector,
    LabelSelectorRequirement,
)
from tortie.model.policy_values import PROTOCOLS_WITH_PORTS, parse_network, parse_port, protocol_number
from tortie.model.problems import Problem

Findings = Iterator[Problem]
KubernetesRule = KubernetesNetworkPolicyIngressRule | KubernetesNetworkPolicyEgressRule

WITH_VALUES: Final = ("In", "NotIn")
WITHOUT_VALUES: Final = ("Exists", "DoesNotExist")


class KubernetesSpec(Protocol):
    """What a NetworkPolicy and its staged form have in common."""

    @property
    def pod_selector(self) -> LabelSelector:
        """Pods that the policy is for."""

    @property
    def ingress(self) -> list[KubernetesNetworkPolicyIngressRule] | None:
        """What is allowed to come in."""

    @property
    def egress(self) -> list[KubernetesNetworkPolicyEgressRule] | None:
        """What is allowed to go out."""

    @property
    def policy_types(self) -> list[str] | None:
        """Ingress, Egress."""


def kubernetes_spec_problems(spec: KubernetesSpec) -> Findings:
    """Everything that is wrong with the spec."""
    yield from selector_problems(spec.pod_selector, "spec.podSelector")
    for position, value in enumerate(spec.policy_types or ()):
        if value not in (INGRESS, EGRESS):
            yield Problem(f"spec.policyTypes[{position}]", value, "must be Ingress or Egress")
    for position, incoming in enumerate(spec.ingress or ()):
        yield from rule_problems(incoming, f"spec.ingress[{position}]", "from")
    for position, outgoing in enumerate(spec.egress or ()):
        yield from rule_problems(outgoing, f"spec.egress[{position}]", "to")


def rule_problems(rule: KubernetesRule, path: str, field: str) -> Findings:
    """What is wrong with one rule; `field` is `from` or `to`."""
    for position, peer in enumerate(rule.peers or ()):
        yield from _peer(peer, f"{path}.{field}[{position}]")
    for position, port in enumerate(rule.ports or ()):
        yield from _port(port, f"{path}.ports[{position}]")


def selector_problems(selector: LabelSelector, path: str) -> Findings:
    """What is wrong with a label selector."""
    for position, requirement in enumerate(selector.match_expressions or ()):
        yield from _requirement(requirement, f"{path}.matchExpressions[{position}]")


def _requirement(requirement: LabelSelectorRequirement, path: str) -> Findings:
    if not requirement.key:
        yield Problem(f"{path}.key", "", "must name a label")
    if requirement.operator not in WITH_VALUES + WITHOUT_VALUES:
        allowed = ", ".join(WITH_VALUES + WITHOUT_VALUES)
        yield Problem(f"{path}.operator", requirement.operator, f"must be one of {allowed}")
    if requirement.operator in WITH_VALUES and not requirement.values:
        yield Problem(f"{path}.values", "", f"must not be empty with {requirement.operator}")
    if requirement.operator in WITHOUT_VALUES and requirement.values:
        yield Problem(f"{path}.values", ", ".join(requirement.values), "must be empty with this operator")


def _peer(peer: KubernetesPeer, path: str) -> Findings:
    if peer.ip_block is not None:
        if peer.pod_selector is not None or peer.namespace_selector is not None:
            yield Problem(f"{path}.ipBlock", peer.ip_block.cidr, "must not stand beside a selector")
        yield from _block(peer.ip_block, f"{path}.ipBlock")
    elif peer.pod_selector is None and peer.namespace_selector is None:
        yield Problem(path, "", "must have a podSelector, a namespaceSelector or an ipBlock")
    if peer.pod_selector is not None:
        yield from selector_problems(peer.pod_selector, f"{path}.podSelector")
    if peer.namespace_selector is not None:
        yield from selector_problems(peer.namespace_selector, f"{path}.namespaceSelector")


def _block(block: IPBlock, path: str) -> Findings:
    try:
        network = parse_network(block.cidr)
    except ValueError as error:
        yield Problem(f"{path}.cidr", block.cidr, str(error))
        return
    for position, text in enumerate(block.excluded or ()):
        try:
            hole = parse_network(text)
        except ValueError as error:
            yield Problem(f"{path}.except[{position}]", text, str(error))
            continue
        inside = (
            hole.version == network.version
            and hole.network_address in network
            and hole.prefixlen > network.prefixlen
        )
        if not inside:
            yield Problem(f"{path}.except[{position}]", text, f"must lie within {network} and be smaller")


def _port(port: KubernetesPolicyPort, path: str) -> Findings:
    if port.protocol is not None:
        try:
            if protocol_number(port.protocol) not in PROTOCOLS_WITH_PORTS:
                raise ValueError("must be TCP, UDP or SCTP")
        except ValueError as error:
            yield Problem(f"{path}.protocol", port.protocol, str(error))
    if port.port is None:
        if port.end_port is not None:
            yield Problem(f"{path}.endPort", str(port.end_port), "needs port")
        return
    try:
        first = parse_port(port.port)
    except ValueError as error:
        yield Problem(f"{path}.port", str(port.port), str(error))
        return
    if port.end_port is None:
        return
    if isinstance(first, str):
        yield Problem(f"{path}.endPort", str(port.end_port), "needs port to be a number")
    elif not first[0] <= port.end_port <= 65535:
        yield Problem(f"{path}.endPort", str(port.end_port), "must be from port to 65535")
