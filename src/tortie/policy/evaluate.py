"""What a policy state says of one packet: the same questions that the kernel asks, in the same order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tortie.policy.state import (
    ICMP,
    Action,
    Address,
    Member,
    NamedPort,
    Peer,
    PolicyKey,
    PolicyRules,
    PolicyState,
    PortRange,
    Rule,
    SetID,
    SetKind,
    TierRules,
)

Sets = Mapping[SetID, tuple[SetKind, frozenset[Member]]]


class Direction(StrEnum):
    """Seen from the endpoint."""

    INGRESS = "Ingress"
    EGRESS = "Egress"


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection. A port or type that is None matches no rule that asks for one."""

    source: Address
    destination: Address
    protocol: int
    source_port: int | None = None
    destination_port: int | None = None
    icmp: ICMP | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A rule that matched; `rule` counts the rules of its policy and direction from 0. `tier` is empty for a
    profile's."""

    tier: str
    policy: PolicyKey
    rule: int
    action: Action


@dataclass(frozen=True, slots=True)
class Verdict:
    """The last step decides; without one, `reason` says what did. `tier` is where it was decided, empty when
    the profiles did or nothing applied."""

    allowed: bool
    reason: str
    tier: str = ""
    steps: tuple[Step, ...] = ()

    @property
    def policy(self) -> PolicyKey | None:
        """The policy or profile that decides; None when a default does."""
        last = self.steps[-1] if self.steps else None
        return last.policy if last is not None and last.action in (Action.ALLOW, Action.DENY) else None

    @property
    def rule(self) -> int | None:
        """The position of the rule that decides."""
        return self.steps[-1].rule if self.policy is not None else None


@dataclass(slots=True)
class _Walk:
    state: PolicyState
    direction: Direction
    packet: Packet
    steps: list[Step] = field(default_factory=list)

    def rules_of(self, key: PolicyKey) -> tuple[Rule, ...]:
        rules = self.state.policies.get(key, PolicyRules())
        return rules.ingress if self.direction is Direction.INGRESS else rules.egress

    def ask(self, tier: str, key: PolicyKey) -> Action | None:
        """What the policy says: ALLOW, DENY, NEXT_TIER, or None when it does not decide."""
        for position, rule in enumerate(self.rules_of(key)):
            if not rule_matches(rule, self.packet, self.state.sets):
                continue
            self.steps.append(Step(tier, key, position, rule.action))
            if rule.action is not Action.LOG:
                return rule.action
        return None

    def verdict(self, allowed: bool, reason: str, tier: str = "") -> Verdict:
        return Verdict(allowed, reason, tier, tuple(self.steps))


def workload_verdict(state: PolicyState, interface: str, direction: Direction, packet: Packet) -> Verdict:
    """What happens to `packet` at a pod's interface. An unknown interface is closed."""
    rules = state.workloads.get(interface)
    if rules is None:
        return Verdict(
            False, f"Interface {interface} is not known on this node: what is not known is closed."
        )
    return endpoint_verdict(state, rules.tiers, rules.profiles, direction, packet)


def endpoint_verdict(
    state: PolicyState,
    tiers: tuple[TierRules, ...],
    profiles: tuple[PolicyKey, ...],
    direction: Direction,
    packet: Packet,
) -> Verdict:
    """Tiers in order, then profiles, then denied."""
    walk = _Walk(state, direction, packet)
    for tier in tiers:
        policies = tier.ingress if direction is Direction.INGRESS else tier.egress
        decided: Action | None = None
        for key in policies:
            decided = walk.ask(tier.name, key)
            if decided is Action.ALLOW or decided is Action.DENY:
                verb = "allows" if decided is Action.ALLOW else "denies"
                reason = f"{describe(key)} in tier {tier.name} {verb} it."
                return walk.verdict(decided is Action.ALLOW, reason, tier.name)
            if decided is Action.NEXT_TIER:
                break
        if policies and decided is None and not tier.default_pass:
            reason = f"No rule of tier {tier.name} matches, and what its policies do not decide is denied."
            return walk.verdict(False, reason, tier.name)
    for key in profiles:
        decided = walk.ask("", key)
        if decided is Action.ALLOW or decided is Action.DENY:
            verb = "allows" if decided is Action.ALLOW else "denies"
            return walk.verdict(decided is Action.ALLOW, f"No policy decides it; {describe(key)} {verb} it.")
    return walk.verdict(False, "No policy decides it, and no profile allows it.")


def describe(key: PolicyKey) -> str:
    """A policy as people call it."""
    return f"{key.kind} {key.namespace}/{key.name}" if key.namespace else f"{key.kind} {key.name}"


def rule_matches(rule: Rule, packet: Packet, sets: Sets) -> bool:
    """Whether everything that `rule` asks for holds."""
    if rule.ip_version not in (None, packet.source.version):
        return False
    if rule.protocol not in (None, packet.protocol):
        return False
    if rule.not_protocol is not None and rule.not_protocol == packet.protocol:
        return False
    if rule.icmp is not None and not _icmp_matches(rule.icmp, packet.icmp):
        return False
    if rule.not_icmp is not None and _icmp_matches(rule.not_icmp, packet.icmp):
        return False
    return _peer_matches(
        rule.source, packet.source, packet.protocol, packet.source_port, sets
    ) and _peer_matches(rule.destination, packet.destination, packet.protocol, packet.destination_port, sets)


def _icmp_matches(wanted: ICMP, found: ICMP | None) -> bool:
    return found is not None and found.type == wanted.type and wanted.code in (None, found.code)


def _peer_matches(peer: Peer, address: Address, protocol: int, port: int | None, sets: Sets) -> bool:
    if peer.networks and not any(address in network for network in peer.networks):
        return False
    if any(address in network for network in peer.not_networks):
        return False
    if not all(_has_address(sets, set_id, address) for set_id in peer.sets):
        return False
    if any(_has_address(sets, set_id, address) for set_id in peer.not_sets):
        return False
    named = None if port is None else NamedPort(address, protocol, port)
    if (peer.ports or peer.named_ports) and not (
        _in_ranges(peer.ports, port) or any(_has_port(sets, set_id, named) for set_id in peer.named_ports)
    ):
        return False
    if _in_ranges(peer.not_ports, port) or any(
        _has_port(sets, set_id, named) for set_id in peer.not_named_ports
    ):
        return False
    return all(_has_port(sets, set_id, named) for set_id in peer.service_ports)


def _in_ranges(ranges: tuple[PortRange, ...], port: int | None) -> bool:
    return port is not None and any(first <= port <= last for first, last in ranges)


def _has_address(sets: Sets, set_id: SetID, address: Address) -> bool:
    return any(not isinstance(member, NamedPort) and address in member for member in sets[set_id][1])


def _has_port(sets: Sets, set_id: SetID, port: NamedPort | None) -> bool:
    return port in sets[set_id][1]
