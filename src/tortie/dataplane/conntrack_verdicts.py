"""What policy says about a connection, computed from the loaded policies. Pure.

The kernel judges a connection's first packet. When policy changes afterwards, somebody has to judge the
connections that are there: that is done here, for workloads, with the same rules that the kernel has.
"""

from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

from tortie.dataplane.conntrack import Connection
from tortie.policy.state import (
    ICMP,
    Action,
    Address,
    Member,
    NamedPort,
    Network,
    Peer,
    PolicyKey,
    PolicyRules,
    PortRange,
    Rule,
    SetID,
    WorkloadRules,
)

_PORT_PROTOCOLS = (6, 17, 132, 136)  # TCP, UDP, SCTP, UDP-Lite


class Policies(Protocol):
    """Where rules and members come from: the ruleset that is in the kernel."""

    @property
    def policies(self) -> Mapping[PolicyKey, PolicyRules]:
        """Policies and profiles with their rules."""

    def set_members(self, identity: SetID) -> Collection[Member]:
        """Members of a set."""


class Judge:
    """Judges connections by one state of the policies. Short-lived: it keeps what it looked up."""

    def __init__(self, policies: Policies) -> None:
        self._rules = policies.policies
        self._policies = policies
        self._broad: dict[SetID, list[Network]] = {}
        self._hosts: dict[Address, Network] = {}

    def allows(self, workload: WorkloadRules, connection: Connection, *, ingress: bool) -> bool:
        """Whether the workload's policy allows the connection, as its receiver (ingress) or sender."""
        for tier in workload.tiers:
            keys = tier.ingress if ingress else tier.egress
            action = self._first(keys, connection, ingress=ingress)
            if action is Action.ALLOW:
                return True
            if action is Action.DENY or (action is None and keys and not tier.default_pass):
                return False
        return self._first(workload.profiles, connection, ingress=ingress) is Action.ALLOW

    def _first(self, keys: Iterable[PolicyKey], connection: Connection, *, ingress: bool) -> Action | None:
        for key in keys:
            policy = self._rules.get(key)
            if policy is None:
                continue
            for rule in policy.ingress if ingress else policy.egress:
                if rule.action is not Action.LOG and self.matches(rule, connection):
                    return rule.action
        return None

    def matches(self, rule: Rule, connection: Connection) -> bool:
        """Whether a rule matches the connection's first packet."""
        version, protocol = connection.source.version, connection.protocol
        return (
            rule.ip_version in (None, version)
            and rule.protocol in (None, protocol)
            and rule.not_protocol != protocol
            and (rule.icmp is None or _is(rule.icmp, connection))
            and (
                rule.not_icmp is None or (connection.icmp is not None and not _is(rule.not_icmp, connection))
            )
            and self._side(rule.source, connection.source, connection.source_port, protocol)
            and self._side(rule.destination, connection.destination, connection.destination_port, protocol)
        )

    def _side(self, peer: Peer, address: Address, port: int, protocol: int) -> bool:
        if peer.networks and not any(address in network for network in peer.networks):
            return False
        if any(address in network for network in peer.not_networks):
            return False
        if not all(self._holds(name, address) for name in peer.sets):
            return False
        if any(self._holds(name, address) for name in peer.not_sets):
            return False
        return self._port(peer, address, port, protocol)

    def _port(self, peer: Peer, address: Address, port: int, protocol: int) -> bool:
        wanted = bool(peer.ports or peer.named_ports)
        excluded = bool(peer.not_ports or peer.not_named_ports)
        if not (wanted or excluded or peer.service_ports):
            return True
        if protocol not in _PORT_PROTOCOLS:
            return False
        named = NamedPort(address, protocol, port)
        if wanted and not (
            _in(peer.ports, port) or any(named in self._members(name) for name in peer.named_ports)
        ):
            return False
        if _in(peer.not_ports, port) or any(named in self._members(name) for name in peer.not_named_ports):
            return False
        return all(named in self._members(name) for name in peer.service_ports)

    def _members(self, name: SetID) -> Collection[Member]:
        return self._policies.set_members(name)

    def _holds(self, name: SetID, address: Address) -> bool:
        host = self._hosts.get(address)
        if host is None:
            kind = IPv4Network if address.version == 4 else IPv6Network
            host = self._hosts[address] = kind(address)
        members = self._members(name)
        if host in members:
            return True
        broad = self._broad.get(name)
        if broad is None:
            broad = self._broad[name] = [
                item
                for item in members
                if not isinstance(item, NamedPort) and item.prefixlen < item.max_prefixlen
            ]
        return any(address in network for network in broad)


def _in(ranges: Iterable[PortRange], port: int) -> bool:
    return any(first <= port <= last for first, last in ranges)


def _is(match: ICMP, connection: Connection) -> bool:
    if connection.icmp is None:
        return False
    kind, code = connection.icmp
    return kind == match.type and match.code in (None, code)
