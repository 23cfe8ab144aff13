"""What policy asks of one node: the message between `tortie.policy` (pure) and the dataplane.

Everything is a value. A `PolicyState` describes the whole, a `PolicyDelta` what changed; applying the delta
to the old state gives the new one. Names inside (sets, policies, interfaces) are identifiers, not text for a
ruleset: a policy's name comes from a user, and the dataplane writes a digest of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple, NewType

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
PortRange = tuple[int, int]  # first and last, both included

SetID = NewType("SetID", str)  # digest of what the set stands for: equal selectors share a set


class Action(StrEnum):
    """What a rule does with a packet. NEXT_TIER leaves the tier, LOG goes on with the next rule."""

    ALLOW = "Allow"
    DENY = "Deny"
    LOG = "Log"
    NEXT_TIER = "Pass"


class SetKind(StrEnum):
    """What a set's members are."""

    __hash__ = str.__hash__  # that of an enumeration is written in Python, and asked often

    NETWORKS = "networks"  # Network; an address is a /32 or /128
    NAMED_PORT = "named-port"  # NamedPort: address, protocol, port


@dataclass(frozen=True, slots=True, order=True)
class NamedPort:
    """One endpoint's port; `protocol` is a number of IANA's registry (6 TCP, 17 UDP, 132 SCTP)."""

    address: Address
    protocol: int
    port: int


Member = Network | NamedPort


@dataclass(frozen=True, slots=True)
class ICMP:
    """Type and, unless None, code. The rule's ip_version says ICMP or ICMPv6."""

    type: int
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """One side of a rule. Everything that is given must match; of `networks`, and of ports, any one.

    A packet's port matches when it is in `ports` or its (address, protocol, port) is in one of
    `named_ports`. `sets`: the address must be in every one. The `not_` fields must not match.
    """

    networks: tuple[Network, ...] = ()
    not_networks: tuple[Network, ...] = ()
    sets: tuple[SetID, ...] = ()
    not_sets: tuple[SetID, ...] = ()
    ports: tuple[PortRange, ...] = ()
    named_ports: tuple[SetID, ...] = ()
    not_ports: tuple[PortRange, ...] = ()
    not_named_ports: tuple[SetID, ...] = ()
    service_ports: tuple[SetID, ...] = ()  # NAMED_PORT sets: address, protocol and port must be in every one


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `protocol` is a number. A field that is None or empty matches everything."""

    action: Action
    ip_version: int | None = None  # 4 or 6
    protocol: int | None = None
    not_protocol: int | None = None
    source: Peer = field(default_factory=Peer)
    destination: Peer = field(default_factory=Peer)
    icmp: ICMP | None = None
    not_icmp: ICMP | None = None


class PolicyKey(NamedTuple):
    """A policy or profile. `kind` is the API's: `NetworkPolicy`, `KubernetesNetworkPolicy`, `Profile`...

    A tuple, because it is hashed and compared all the time: a dataclass does that in Python.
    """

    kind: str
    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class PolicyRules:
    """The rules of a policy or profile. `ingress` is what comes to the endpoint it selects."""

    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class TierRules:
    """The policies of a tier that select the endpoint, in order. A packet that none of them decides is
    denied, or with `default_pass` goes to the next tier; a direction without policies skips the tier."""

    name: str
    ingress: tuple[PolicyKey, ...] = ()
    egress: tuple[PolicyKey, ...] = ()
    default_pass: bool = False


@dataclass(frozen=True, slots=True)
class WorkloadRules:
    """What applies to one pod's interface. `addresses` are the only sources it may send from, with
    `allowed_sources` beside them. After the tiers decided nothing, or where none applies, the profiles
    are asked; what they do not allow is denied."""

    interface: str
    addresses: tuple[Network, ...] = ()
    allowed_sources: tuple[Network, ...] = ()
    tiers: tuple[TierRules, ...] = ()
    profiles: tuple[PolicyKey, ...] = ()


@dataclass(frozen=True, slots=True)
class HostRules:
    """What applies to one interface of the host; interface `*` means every one that has no other.

    `normal` traffic of the host itself (then profiles, then denied); `forward` what is routed through, only
    policies with applyOnForward (denied only by a policy's or a tier's word: without tiers, allowed);
    `untracked` before connection tracking, stateless both ways; `pre_dnat` before destination NAT, ingress
    only. Untracked and pre-DNAT tiers have no end-of-tier verdict.
    """

    interface: str
    addresses: tuple[Network, ...] = ()
    normal: tuple[TierRules, ...] = ()
    forward: tuple[TierRules, ...] = ()
    untracked: tuple[TierRules, ...] = ()
    pre_dnat: tuple[TierRules, ...] = ()
    profiles: tuple[PolicyKey, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyState:
    """Everything on one node. Every key that an endpoint names is in `policies`, every set that a rule
    names in `sets`."""

    sets: Mapping[SetID, tuple[SetKind, frozenset[Member]]] = field(default_factory=dict)
    policies: Mapping[PolicyKey, PolicyRules] = field(default_factory=dict)
    workloads: Mapping[str, WorkloadRules] = field(default_factory=dict)  # by interface
    hosts: Mapping[str, HostRules] = field(default_factory=dict)  # by interface


@dataclass(frozen=True, slots=True)
class SetChange:
    """Members that joined and left a set that stays."""

    added: frozenset[Member] = frozenset()
    removed: frozenset[Member] = frozenset()


@dataclass(frozen=True, slots=True)
class PolicyDelta:
    """What changed. New sets come whole, and are gone only when no rule names them any more."""

    new_sets: Mapping[SetID, tuple[SetKind, frozenset[Member]]] = field(default_factory=dict)
    changed_sets: Mapping[SetID, SetChange] = field(default_factory=dict)
    gone_sets: frozenset[SetID] = frozenset()
    policies: Mapping[PolicyKey, PolicyRules] = field(default_factory=dict)  # new or changed
    gone_policies: frozenset[PolicyKey] = frozenset()
    workloads: Mapping[str, WorkloadRules] = field(default_factory=dict)  # new or changed
    gone_workloads: frozenset[str] = frozenset()
    hosts: Mapping[str, HostRules] = field(default_factory=dict)
    gone_hosts: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(
            self.new_sets
            or self.changed_sets
            or self.gone_sets
            or self.policies
            or self.gone_policies
            or self.workloads
            or self.gone_workloads
            or self.hosts
            or self.gone_hosts
        )
