"""Kubernetes NetworkPolicy (and its staged form) in terms of Calico's model.

It stands in tier `default` at order 1000. A label's value goes into a selector as a value, never through
text: before 1.24 the API server lets any characters into matchExpressions.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from tortie.model.constants import LABEL_ORCHESTRATOR
from tortie.model.policies import DEFAULT_TIER, EGRESS, INGRESS
from tortie.model.policy_kubernetes import KubernetesRule, KubernetesSpec, rule_problems, selector_problems
from tortie.model.policy_natives import (
    IPBlock,
    KubernetesPeer,
    KubernetesPolicyPort,
    LabelSelector,
    LabelSelectorRequirement,
)
from tortie.model.policy_values import TCP, parse_network, parse_port, protocol_number
from tortie.model.problems import Problem
from tortie.model.selectors import ALL, Equal, Has, In, Node, Not, Selector, all_of, equals, of_node
from tortie.policy.compile import (
    EMPTY_PEER,
    CompiledPolicy,
    RuleSets,
    UnreadableError,
    merged,
    namespaces,
    of_namespace,
)
from tortie.policy.sets import NamedPortSet, SelectorSet
from tortie.policy.state import Action, Peer, PolicyKey, PolicyRules, PortRange, Rule, SetID

ORDER: Final = 1000.0
PODS: Final = equals(LABEL_ORCHESTRATOR, "k8s")

Ports = tuple[
    int | None, tuple[PortRange, ...], tuple[str, ...]
]  # protocol, numbers, names; None, (), (): all


def compile_kubernetes(
    key: PolicyKey, spec: KubernetesSpec, staged_action: str = ""
) -> tuple[CompiledPolicy | None, list[Problem]]:
    """The policy, or None when its podSelector cannot be read; a rule that cannot be read is left out."""
    problems: list[Problem] = []
    try:
        selector = all_of(of_namespace(key.namespace), PODS, _labels(spec.pod_selector, "spec.podSelector"))
    except UnreadableError as error:
        return None, [error.problem]
    # The API server fills in policyTypes. Where it is absent, Ingress is meant, and Egress if it has rules.
    types = set(spec.policy_types or ()) or {INGRESS, *([EGRESS] if spec.egress else [])}
    if not types <= {INGRESS, EGRESS}:
        types = {INGRESS, EGRESS}
    sets = RuleSets()
    incoming = _rules(spec.ingress or () if INGRESS in types else (), INGRESS, key.namespace, sets, problems)
    outgoing = _rules(spec.egress or () if EGRESS in types else (), EGRESS, key.namespace, sets, problems)
    policy = CompiledPolicy(
        key=key,
        selector=selector,
        tier=DEFAULT_TIER,
        order=ORDER,
        ingress=INGRESS in types,
        egress=EGRESS in types,
        rules=PolicyRules(tuple(rule for _, rule in incoming), tuple(rule for _, rule in outgoing)),
        sets=sets.found,
        origins={INGRESS: tuple(path for path, _ in incoming), EGRESS: tuple(path for path, _ in outgoing)},
        forward=True,
        staged_action=staged_action,
    )
    return policy, problems


def _rules(
    rules: Iterable[KubernetesRule], direction: str, namespace: str, sets: RuleSets, problems: list[Problem]
) -> list[tuple[str, Rule]]:
    """Each rule with the path of the written one, which may make several."""
    found: list[tuple[str, Rule]] = []
    for position, rule in enumerate(rules):
        path = f"spec.{direction.lower()}[{position}]"
        wrong = list(rule_problems(rule, path, "from" if direction == INGRESS else "to"))
        if wrong:
            problems += wrong
            continue
        own = RuleSets()
        try:
            found += [(path, made) for made in _rule(rule, path, direction, namespace, own)]
        except UnreadableError as error:
            problems.append(error.problem)
            continue
        sets.found.update(own.found)
    return found


def _rule(rule: KubernetesRule, path: str, direction: str, namespace: str, sets: RuleSets) -> list[Rule]:
    """One rule for each protocol and peer."""
    found = []
    for protocol, numbers, names in _ports(rule.ports or ()):
        for peer in rule.peers or (None,):
            selector, side = _peer(peer, path, namespace, sets)
            if direction == INGRESS:
                # The names are looked up at the destination: the pods that the policy is for.
                named = _named(names, protocol, ALL, sets)
                target = Peer(ports=numbers, named_ports=named) if numbers or named else EMPTY_PEER
                found.append(Rule(Action.ALLOW, protocol=protocol, source=side, destination=target))
            else:
                target = Peer(
                    networks=side.networks,
                    not_networks=side.not_networks,
                    sets=side.sets,
                    ports=numbers,
                    named_ports=_named(names, protocol, selector, sets),
                )
                found.append(Rule(Action.ALLOW, protocol=protocol, destination=target))
    return found


def _named(
    names: Iterable[str], protocol: int | None, selector: Selector, sets: RuleSets
) -> tuple[SetID, ...]:
    if protocol is None:
        return ()
    return tuple(sets.add(NamedPortSet(selector, name, protocol)) for name in names)


def _ports(ports: Iterable[KubernetesPolicyPort]) -> list[Ports]:
    """Ports by protocol, in the order of the protocols' numbers. No ports at all: everything."""
    by_protocol: dict[int, list[PortRange | str] | None] = {}
    for port in ports:
        protocol = protocol_number(port.protocol) if port.protocol else TCP
        if port.port is None:
            by_protocol[protocol] = None  # every port of the protocol, whatever else is listed
            continue
        listed = by_protocol.setdefault(protocol, [])
        if listed is None:
            continue
        parsed = parse_port(port.port)
        if port.end_port is not None and not isinstance(parsed, str):
            parsed = (parsed[0], port.end_port)
        listed.append(parsed)
    if not by_protocol:
        return [(None, (), ())]
    found: list[Ports] = []
    for protocol, listed in sorted(by_protocol.items()):
        numbers = [entry for entry in listed or () if not isinstance(entry, str)]
        names = dict.fromkeys(entry for entry in listed or () if isinstance(entry, str))
        found.append((protocol, merged(numbers), tuple(names)))
    return found


def _peer(peer: KubernetesPeer | None, path: str, namespace: str, sets: RuleSets) -> tuple[Selector, Peer]:
    """The selector of the peer's pods (`all()` for a block of addresses), and the match for its addresses."""
    if peer is None:
        return ALL, EMPTY_PEER
    if peer.ip_block is not None:
        return ALL, _block(peer.ip_block)
    parts = [PODS]
    if peer.namespace_selector is None:
        parts.append(of_namespace(namespace))
    else:
        parts.append(namespaces(_labels(peer.namespace_selector, f"{path}.namespaceSelector")))
    if peer.pod_selector is not None:
        parts.append(_labels(peer.pod_selector, f"{path}.podSelector"))
    selector = all_of(*parts)
    return selector, Peer(sets=(sets.add(SelectorSet(selector)),))


def _block(block: IPBlock) -> Peer:
    return Peer(
        networks=(parse_network(block.cidr),),
        not_networks=tuple(parse_network(text) for text in block.excluded or ()),
    )


def label_selector(selector: LabelSelector) -> Selector:
    """A policy's podSelector, or a peer's, as Calico's. Raise UnreadableError."""
    return _labels(selector, "spec.podSelector")


def _labels(selector: LabelSelector, path: str) -> Selector:
    """A label selector as Calico's. Raise UnreadableError."""
    for problem in selector_problems(selector, path):
        raise UnreadableError(problem)
    labels = tuple(sorted((selector.match_labels or {}).items()))
    found = _match_labels(labels)
    for requirement in selector.match_expressions or ():
        found = all_of(found, of_node(_requirement(requirement)))
    return found


@lru_cache(maxsize=8192)
def _match_labels(labels: tuple[tuple[str, str], ...]) -> Selector:
    return all_of(*(of_node(Equal(label, value)) for label, value in labels))


def _requirement(requirement: LabelSelectorRequirement) -> Node:
    values = frozenset(requirement.values or ())
    match requirement.operator:
        case "In":
            return In(requirement.key, values)
        case "NotIn":
            return In(requirement.key, values, negated=True)
        case "Exists":
            return Has(requirement.key)
        case _:
            return Not(Has(requirement.key))
