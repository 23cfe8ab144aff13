"""What a host endpoint says of a connection: the stages that a packet goes through at the node's interface.

The order is the data path's (`tortie.dataplane.ruleset_base`): untracked policy before connection tracking,
pre-DNAT policy before destination NAT, then what is for the node itself (failsafe ports, policy, profiles)
or what it forwards (policy with applyOnForward). Translation is not computed: packets stay as they are given.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from tortie.model.policies import HostEndpoint
from tortie.model.policy_values import protocol_name
from tortie.model.resources import Resource
from tortie.policy.evaluate import Direction, Packet, Verdict, endpoint_verdict
from tortie.policy.hosts import assign
from tortie.policy.items import host_item
from tortie.policy.snapshot import snapshot
from tortie.policy.state import Address, HostRules, Network, PolicyState, TierRules


class Stage(StrEnum):
    """A place where a host endpoint has a word, as the API calls it."""

    UNTRACKED = "doNotTrack"
    PRE_DNAT = "preDNAT"
    NORMAL = "host"
    FORWARD = "applyOnForward"


@dataclass(frozen=True, slots=True)
class FailsafePort:
    """A port that a host endpoint's policy does not close; from (to) `networks` only, if there are any."""

    protocol: int
    port: int
    networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Failsafes:
    """What a node's settings say; see FelixConfiguration."""

    inbound: tuple[FailsafePort, ...] = ()
    outbound: tuple[FailsafePort, ...] = ()


@dataclass(frozen=True, slots=True)
class StageWord:
    """What one stage says. `decided` ends the way through the stages; without it the next one is asked."""

    stage: Stage
    verdict: Verdict
    decided: bool


@dataclass(frozen=True, slots=True)
class HostView:
    """A host endpoint that is in force, with its node's whole state. The interface's name is not known of an
    endpoint that is found by its addresses."""

    name: str
    node: str
    interface: str
    addresses: tuple[Address, ...]
    rules: HostRules
    state: PolicyState


def host_view(resources: Iterable[Resource], name: str) -> HostView:
    """The host endpoint called `name`. Raise ValueError when it does not exist or has no interface."""
    objects = list(resources)
    hosts = [item for item in objects if isinstance(item, HostEndpoint)]
    found = next((item for item in hosts if item.metadata.name == name), None)
    if found is None:
        known = ", ".join(sorted(item.metadata.name for item in hosts)) or "none"
        raise ValueError(f"HostEndpoint {name} does not exist; there are: {known}")
    item = host_item(found)
    addresses = tuple(network.network_address for network in item.networks)
    if not (item.interface or addresses):
        raise ValueError(f"HostEndpoint {name} has neither interfaceName nor expectedIPs: it is for nothing")
    interface = item.interface or f"the interface with {addresses[0]}"
    # Others by address are left aside: where their interfaces are, only the node knows.
    interfaces = {} if item.interface else {interface: frozenset(addresses)}
    rivals = [host_item(other) for other in hosts if other.spec.node == found.spec.node]
    winner = assign(rivals, interfaces).endpoints.get(interface)
    if winner is None or winner.id != item.id:
        other_name = winner.id[2] if winner is not None else "another"
        raise ValueError(
            f"HostEndpoint {name} is not in force: {interface} of {found.spec.node} has {other_name} already"
        )
    state = snapshot(objects, found.spec.node, interfaces=interfaces)
    return HostView(name, found.spec.node, interface, addresses, state.hosts[interface], state)


def host_words(
    view: HostView, direction: Direction, packet: Packet, failsafes: Failsafes, *, forwarded: bool
) -> tuple[StageWord, ...]:
    """The words of the stages, in order; the last one decides. INGRESS is what comes in by the interface."""
    words: list[StageWord] = []
    rules = view.rules
    ingress = direction is Direction.INGRESS
    early = []
    if ingress or not forwarded:  # what is forwarded out passes no hook of the node's own output
        early.append((Stage.UNTRACKED, rules.untracked))
    if ingress:
        early.append((Stage.PRE_DNAT, rules.pre_dnat))
    failsafe = _failsafe(packet, direction, failsafes)
    for stage, tiers in early:
        if not any(_keys(tier, direction) for tier in tiers):
            continue
        word = _early(view, stage, tiers, direction, packet, failsafe)
        words.append(word)
        if word.decided:
            return tuple(words)
    if forwarded:
        words.append(_forward(view, direction, packet))
    elif failsafe:
        words.append(StageWord(Stage.NORMAL, Verdict(True, failsafe), decided=True))
    else:
        verdict = endpoint_verdict(view.state, rules.normal, rules.profiles, direction, packet)
        words.append(StageWord(Stage.NORMAL, verdict, decided=True))
    return tuple(words)


def _early(
    view: HostView,
    stage: Stage,
    tiers: tuple[TierRules, ...],
    direction: Direction,
    packet: Packet,
    failsafe: str,
) -> StageWord:
    """These tiers have no verdict at their end: what no rule decides goes on."""
    if failsafe:
        return StageWord(stage, Verdict(True, failsafe), decided=False)
    open_ended = tuple(replace(tier, default_pass=True) for tier in tiers)
    verdict = endpoint_verdict(view.state, open_ended, (), direction, packet)
    if verdict.policy is not None:
        return StageWord(stage, verdict, decided=True)
    goes_on = replace(verdict, allowed=True, reason=f"No policy with {stage} decides it; it goes on.")
    return StageWord(stage, goes_on, decided=False)


def _forward(view: HostView, direction: Direction, packet: Packet) -> StageWord:
    verdict = endpoint_verdict(view.state, view.rules.forward, (), direction, packet)
    if verdict.policy is None and not verdict.tier:
        reason = "No policy with applyOnForward decides it; what is forwarded is allowed then."
        verdict = replace(verdict, allowed=True, reason=reason)
    return StageWord(Stage.FORWARD, verdict, decided=True)


def _failsafe(packet: Packet, direction: Direction, failsafes: Failsafes) -> str:
    """A sentence, when a failsafe port lets it through."""
    ingress = direction is Direction.INGRESS
    peer = packet.source if ingress else packet.destination
    for item in failsafes.inbound if ingress else failsafes.outbound:
        if (item.protocol, item.port) != (packet.protocol, packet.destination_port):
            continue
        if not item.networks or any(peer in network for network in item.networks):
            which = "Inbound" if ingress else "Outbound"
            return (
                f"{protocol_name(item.protocol)} port {item.port} is a failsafe port "
                f"(failsafe{which}HostPorts): no policy of a host endpoint closes it."
            )
    return ""


def _keys(tier: TierRules, direction: Direction) -> bool:
    return bool(tier.ingress if direction is Direction.INGRESS else tier.egress)
