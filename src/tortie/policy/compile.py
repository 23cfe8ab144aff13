"""From a policy as a user wrote it to rules as the dataplane takes them. Pure, one policy at a time.

A stored policy may be wrong all the same, for the API server checks little. What cannot be read must not open
anything, so:

- a policy whose own selectors cannot be read selects nobody, as if it were not there: whom to close off is
  exactly what it fails to say. It is reported.
- a rule that cannot be read and allows (or logs) is left out. One that denies, passes, or has an unknown
  action denies everything from its place on. Both are reported.
- a direction in `types` that does not exist counts as both directions.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from tortie.model.constants import LABEL_NAMESPACE, LABEL_SERVICE_ACCOUNT
from tortie.model.policies import (
    DEFAULT_TIER,
    EGRESS,
    INGRESS,
    EntityRule,
    GlobalNetworkPolicySpec,
    ICMPFields,
    NetworkPolicySpec,
)
from tortie.model.policies import Port as WrittenPort
from tortie.model.policies import Rule as WrittenRule
from tortie.model.policy_values import (
    ICMP,
    ICMPV6,
    PROTOCOLS_WITH_PORTS,
    parse_network,
    parse_port,
    protocol_number,
)
from tortie.model.problems import Problem
from tortie.model.selectors import (
    ALL,
    Everything,
    Has,
    In,
    Node,
    Not,
    Selector,
    SelectorError,
    all_of,
    equals,
    of_node,
    parse,
    prefixed,
    rewritten,
)
from tortie.policy import state
from tortie.policy.items import PREFIX_NAMESPACE, PREFIX_SERVICE_ACCOUNT
from tortie.policy.sets import NamedPortSet, SelectorSet, ServiceSet, SetDefinition
from tortie.policy.state import (
    Action,
    Network,
    Peer,
    PolicyKey,
    PolicyRules,
    PortRange,
    Rule,
    SetID,
)

DENY_ALL: Final = Rule(Action.DENY)
NO_ORDER: Final = math.inf  # a policy or tier without order comes last

_ACTIONS: Final = {action.value: action for action in Action}
_ICMP_VERSIONS: Final = {ICMP: 4, ICMPV6: 6}


class UnreadableError(ValueError):
    """A part of a policy that cannot be rendered."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True)
class CompiledPolicy:
    """One policy, ready to be matched with endpoints. `sets` is what its rules name, `origins` the path of
    the written rule for each of its rules, by direction.

    At most one of `untracked` and `pre_dnat` holds; then it concerns host endpoints only.
    """

    key: PolicyKey
    selector: Selector
    tier: str = DEFAULT_TIER
    order: float = NO_ORDER
    ingress: bool = True
    egress: bool = True
    rules: PolicyRules = field(default_factory=PolicyRules)
    sets: dict[SetID, SetDefinition] = field(default_factory=dict)
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    untracked: bool = False
    pre_dnat: bool = False
    forward: bool = False
    staged_action: str = ""  # not empty: not enforced

    @property
    def host_only(self) -> bool:
        """Whether workloads never see it."""
        return self.untracked or self.pre_dnat

    @cached_property
    def placement(self) -> tuple[object, ...]:
        """Everything but the rules: whom it is for, and where it stands among others."""
        return (
            self.selector.text,
            self.tier,
            self.order,
            self.ingress,
            self.egress,
            self.untracked,
            self.pre_dnat,
            self.forward,
            self.staged_action,
        )

    @cached_property
    def sort_key(self) -> tuple[float, str]:
        """Place within its tier: by order, then name, namespace and kind as one text."""
        key = self.key
        return self.order, f"{key.name}/{key.namespace}/{key.kind}"


@dataclass(slots=True)
class RuleSets:
    """Collects the sets that a policy's rules name."""

    found: dict[SetID, SetDefinition] = field(default_factory=dict)

    def add(self, definition: SetDefinition) -> SetID:
        """Its id."""
        self.found[definition.id] = definition
        return definition.id


def compile_policy(
    key: PolicyKey, spec: NetworkPolicySpec, staged_action: str = ""
) -> tuple[CompiledPolicy | None, list[Problem]]:
    """A Calico policy; `key.namespace` is empty for a global one. None when it cannot select anybody."""
    problems: list[Problem] = []
    try:
        selector = _policy_selector(spec, key.namespace)
    except UnreadableError as error:
        return None, [error.problem]
    wide = spec if isinstance(spec, GlobalNetworkPolicySpec) else None
    untracked = wide is not None and wide.do_not_track
    pre_dnat = wide is not None and wide.pre_dnat and not untracked
    types = set(spec.types)
    if not types <= {INGRESS, EGRESS} or not types:
        types = {INGRESS, EGRESS}
    ingress, egress = INGRESS in types or pre_dnat, EGRESS in types and not pre_dnat
    sets = RuleSets()
    incoming = _rules(spec.ingress if ingress else (), INGRESS, key.namespace, sets, problems)
    outgoing = _rules(spec.egress if egress else (), EGRESS, key.namespace, sets, problems)
    policy = CompiledPolicy(
        key=key,
        selector=selector,
        tier=spec.tier or DEFAULT_TIER,
        order=NO_ORDER if spec.order is None else float(spec.order),
        ingress=ingress,
        egress=egress,
        rules=PolicyRules(tuple(incoming.values()), tuple(outgoing.values())),
        sets=sets.found,
        origins={INGRESS: tuple(incoming), EGRESS: tuple(outgoing)},
        untracked=untracked,
        pre_dnat=pre_dnat,
        forward=wide is None or wide.apply_on_forward,
        staged_action=staged_action,
    )
    return policy, problems


def fail_closed(action: str) -> Rule | None:
    """What stands in for a rule that cannot be read."""
    return None if action in (Action.ALLOW, Action.LOG) else DENY_ALL


def _rules(
    rules: Iterable[WrittenRule], direction: str, namespace: str, sets: RuleSets, problems: list[Problem]
) -> dict[str, Rule]:
    """The rules by the path of the written one."""
    found: dict[str, Rule] = {}
    for position, written in enumerate(rules):
        path = f"spec.{direction.lower()}[{position}]"
        own = RuleSets()
        try:
            rule: Rule | None = _rule(written, path, namespace, own)
        except UnreadableError as error:
            problems.append(error.problem)
            rule = fail_closed(written.action)
        else:
            sets.found.update(own.found)
        if rule is not None:
            found[path] = rule
    return found


# --- selectors -------------------------------------------------------------------------------------------


def read_selector(text: str, path: str) -> Selector:
    """Raise UnreadableError."""
    try:
        return parse(text)
    except SelectorError as error:
        reason = f"must be a selector, but at character {error.position + 1}: {error.reason}"
        raise UnreadableError(Problem(path, text, reason)) from error


def _policy_selector(spec: NetworkPolicySpec, namespace: str) -> Selector:
    """Whom the policy is for."""
    parts = [read_selector(spec.selector, "spec.selector")]
    if namespace:
        parts.append(of_namespace(namespace))
    if isinstance(spec, GlobalNetworkPolicySpec) and spec.namespace_selector:
        written = read_selector(spec.namespace_selector, "spec.namespaceSelector")
        parts.append(prefixed(written, PREFIX_NAMESPACE))
    if spec.service_account_selector:
        written = read_selector(spec.service_account_selector, "spec.serviceAccountSelector")
        parts.append(prefixed(written, PREFIX_SERVICE_ACCOUNT))
    return all_of(*parts)


@lru_cache(maxsize=4096)
def of_namespace(namespace: str) -> Selector:
    """Everything that lives in a namespace."""
    return equals(LABEL_NAMESPACE, namespace)


@lru_cache(maxsize=4096)
def namespaces(selector: Selector) -> Selector:
    """Everything in the namespaces that a rule's namespaceSelector matches: `all()` is every namespace,
    `global()` what lives in none (host endpoints, global network sets)."""

    def leaf(node: Node) -> Node:
        if isinstance(node, Everything):
            return Has(LABEL_NAMESPACE) if node.name == "all" else Not(Has(LABEL_NAMESPACE))
        return node

    return rewritten(prefixed(selector, PREFIX_NAMESPACE), leaf)


def _entity_selector(entity: EntityRule, path: str, namespace: str) -> Selector | None:
    """One selector for what a rule's side says about labels; None when it says nothing.

    As soon as it says anything, notSelector included, a rule without namespaceSelector looks only into its
    policy's own namespace.
    """
    parts: list[Selector] = []
    if entity.namespace_selector:
        written = read_selector(entity.namespace_selector, f"{path}.namespaceSelector")
        parts.append(namespaces(written))
    accounts = entity.service_accounts
    if accounts is not None and accounts.selector:
        written = read_selector(accounts.selector, f"{path}.serviceAccounts.selector")
        parts.append(prefixed(written, PREFIX_SERVICE_ACCOUNT))
    if accounts is not None and accounts.names:
        parts.append(of_node(In(LABEL_SERVICE_ACCOUNT, frozenset(accounts.names))))
    if entity.selector:
        parts.append(read_selector(entity.selector, f"{path}.selector"))
    if namespace and not entity.namespace_selector and (parts or entity.not_selector):
        parts.insert(0, of_namespace(namespace))
    return all_of(*parts) if parts else None


# --- rules -----------------------------------------------------------------------------------------------


def _rule(written: WrittenRule, path: str, namespace: str, sets: RuleSets) -> Rule:
    """Raise UnreadableError."""
    action = _ACTIONS.get(written.action)
    if action is None:
        rule = f"must be one of {', '.join(_ACTIONS)}"
        raise UnreadableError(Problem(f"{path}.action", written.action, rule))
    if written.http is not None:
        reason = "is not supported, for nothing on the data path reads HTTP; remove it"
        raise UnreadableError(Problem(f"{path}.http", "", reason))
    if written.ip_version not in (None, 4, 6):
        raise UnreadableError(Problem(f"{path}.ipVersion", str(written.ip_version), "must be 4 or 6"))
    protocol = _protocol(written.protocol, f"{path}.protocol")
    version = written.ip_version
    if written.icmp is not None or written.not_icmp is not None:
        if protocol not in _ICMP_VERSIONS:
            shown = "" if written.protocol is None else str(written.protocol)
            raise UnreadableError(
                Problem(f"{path}.icmp", shown, "needs the rule's protocol to be ICMP or ICMPv6")
            )
        version = version or _ICMP_VERSIONS[protocol]
    return Rule(
        action=action,
        ip_version=version,
        protocol=protocol,
        not_protocol=_protocol(written.not_protocol, f"{path}.notProtocol"),
        source=_peer(written.source, f"{path}.source", namespace, protocol, sets),
        destination=_peer(written.destination, f"{path}.destination", namespace, protocol, sets),
        icmp=_icmp(written.icmp, f"{path}.icmp"),
        not_icmp=_icmp(written.not_icmp, f"{path}.notICMP"),
    )


def _protocol(protocol: int | str | None, path: str) -> int | None:
    if protocol is None:
        return None
    try:
        return protocol_number(protocol)
    except ValueError as error:
        raise UnreadableError(Problem(path, str(protocol), str(error))) from error


def _icmp(icmp: ICMPFields | None, path: str) -> state.ICMP | None:
    """`icmp: {}` matches every type: the protocol says it already."""
    if icmp is None or (icmp.type is None and icmp.code is None):
        return None
    if icmp.type is None:
        raise UnreadableError(Problem(f"{path}.type", "", "must be given: a code means nothing without it"))
    for name, value in (("type", icmp.type), ("code", icmp.code)):
        if value is not None and not 0 <= value <= 255:
            raise UnreadableError(Problem(f"{path}.{name}", str(value), "must be from 0 to 255"))
    return state.ICMP(icmp.type, icmp.code)


def _peer(entity: EntityRule, path: str, namespace: str, protocol: int | None, sets: RuleSets) -> Peer:
    if entity == _NOTHING:
        return EMPTY_PEER
    selector = _entity_selector(entity, path, namespace)
    members = [] if selector is None else [sets.add(SelectorSet(selector))]
    service_ports: list[SetID] = []
    if entity.services is not None:
        services = _service(entity, path, namespace)
        (service_ports if services.with_ports else members).append(sets.add(services))
    excluded = []
    if entity.not_selector:
        excluded.append(sets.add(SelectorSet(read_selector(entity.not_selector, f"{path}.notSelector"))))
    ports, named = _ports(entity.ports, f"{path}.ports", protocol, selector, sets)
    not_ports, not_named = _ports(entity.not_ports, f"{path}.notPorts", protocol, selector, sets)
    return Peer(
        networks=_networks(entity.nets, f"{path}.nets"),
        not_networks=_excluded(_networks(entity.not_nets, f"{path}.notNets")),
        sets=tuple(members),
        not_sets=tuple(excluded),
        ports=ports,
        named_ports=named,
        not_ports=not_ports,
        not_named_ports=not_named,
        service_ports=tuple(service_ports),
    )


_NOTHING: Final = EntityRule()
EMPTY_PEER: Final = Peer()
EVERYTHING: Final[Mapping[int, Network]] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


def _service(entity: EntityRule, path: str, namespace: str) -> ServiceSet:
    services = entity.services
    assert services is not None  # asked by the caller
    destination = path.endswith(".destination")
    shown = f"{services.namespace}/{services.name}"
    home = services.namespace or namespace
    if not services.name or not home:
        raise UnreadableError(Problem(f"{path}.services", shown, "must name a Service and its namespace"))
    if destination and (entity.ports or entity.not_ports):
        raise UnreadableError(Problem(f"{path}.services", shown, "must not stand beside ports"))
    return ServiceSet(home, services.name, with_ports=destination)


def _networks(texts: Iterable[str], path: str) -> tuple[Network, ...]:
    found = []
    for position, text in enumerate(texts):
        try:
            found.append(parse_network(text))
        except ValueError as error:
            raise UnreadableError(Problem(f"{path}[{position}]", text, str(error))) from error
    return tuple(found)


def _excluded(networks: tuple[Network, ...]) -> tuple[Network, ...]:
    """`notNets` of one IP version make a rule one of that version, as `nets` do: the other is excluded."""
    versions = {network.version for network in networks}
    return (*networks, EVERYTHING[10 - versions.pop()]) if len(versions) == 1 else networks


def _ports(
    ports: Sequence[WrittenPort],
    path: str,
    protocol: int | None,
    selector: Selector | None,
    sets: RuleSets,
) -> tuple[tuple[PortRange, ...], tuple[SetID, ...]]:
    """Numbers and, for names, sets of the ports that the rule's own side may have."""
    if not ports:
        return (), ()
    if protocol not in PROTOCOLS_WITH_PORTS:
        reason = "needs the rule's protocol to be TCP, UDP or SCTP"
        raise UnreadableError(Problem(path, ", ".join(map(str, ports)), reason))
    numbers: list[PortRange] = []
    named: list[SetID] = []
    for position, port in enumerate(ports):
        try:
            parsed = parse_port(port)
        except ValueError as error:
            raise UnreadableError(Problem(f"{path}[{position}]", str(port), str(error))) from error
        if isinstance(parsed, str):
            named.append(sets.add(NamedPortSet(selector or ALL, parsed, protocol)))
        else:
            numbers.append(parsed)
    return merged(numbers), tuple(dict.fromkeys(named))


def merged(ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """The same ports in as few ranges as possible, in ascending order."""
    found: list[PortRange] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)
