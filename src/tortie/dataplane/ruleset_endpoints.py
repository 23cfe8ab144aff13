"""Chains of endpoints: tiers, profiles and what comes after, as jumps to the chains of policies.

Allowed is `accept`, which ends this base chain only: the other side's policy, and every other table on the
node, still has its word. Falling out of a chain is never "allowed": the base chains drop what comes back.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from tortie.dataplane import nfnetlink_expressions as nft
from tortie.dataplane.nfnetlink_objects import Element
from tortie.dataplane.ruleset_names import digest, interface_key, interface_label, policy_chain
from tortie.dataplane.ruleset_rules import TCP, UDP, clear_mark, if_family, if_mark, in_network
from tortie.model.constants import INTERFACE_PREFIX, VXLAN_PORT
from tortie.policy.state import HostRules, Network, PolicyKey, TierRules, WorkloadRules

WILDCARD = "*"  # the host endpoint of every interface that has no other


class Purpose(StrEnum):
    """For which hook and direction a policy's rules are written; the prefix of its chain's name."""

    __hash__ = str.__hash__  # that of an enumeration is written in Python, and asked often

    INGRESS = "pi"
    EGRESS = "po"
    UNTRACKED_INGRESS = "ui"
    UNTRACKED_EGRESS = "uo"
    PRE_DNAT = "di"

    @property
    def ingress(self) -> bool:
        """Whether the policy's ingress rules are meant."""
        return self in _OF_INGRESS


_OF_INGRESS = frozenset({Purpose.INGRESS, Purpose.UNTRACKED_INGRESS, Purpose.PRE_DNAT})


@dataclass(frozen=True, slots=True)
class Failsafe:
    """A port that a host endpoint's policy never closes; from (to) `networks` only, if given."""

    protocol: int
    port: int
    networks: tuple[Network, ...] = ()


# Felix's defaults: ssh, DHCP, DNS, BGP, etcd, Typha, API server; 6666 and 6667 are old ports of etcd.
_BOTH = tuple(Failsafe(TCP, port) for port in (179, 2379, 2380, 5473, 6443, 6666, 6667))
FAILSAFE_INBOUND = (Failsafe(TCP, 22), Failsafe(UDP, 68), *_BOTH)
FAILSAFE_OUTBOUND = (Failsafe(UDP, 53), Failsafe(UDP, 67), *_BOTH)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the ruleset depends on beside the policies.

    `endpoint_to_host`: what becomes of pods' traffic to their own node that their egress policy allows
    (Accept and Return are the same in nftables: other tables have their word anyway). `mark_mask`: bits of
    the packet's and the connection's mark that are ours; three are needed. `service_networks`: packets to
    these that nobody translated are dropped instead of forwarded. `tunnel_peers`: who may send IP-in-IP and
    VXLAN to this node; None leaves both to the host's own rules.
    """

    interface_prefix: str = INTERFACE_PREFIX
    endpoint_to_host: Literal["Accept", "Return", "Drop"] = "Accept"
    mark_mask: int = 0xFFFF0000
    service_networks: tuple[Network, ...] = ()
    service_loop: Literal["Drop", "Reject", "Disabled"] = "Drop"
    failsafe_inbound: tuple[Failsafe, ...] = FAILSAFE_INBOUND
    failsafe_outbound: tuple[Failsafe, ...] = FAILSAFE_OUTBOUND
    tunnel_peers: frozenset[Network] | None = None
    vxlan_port: int = VXLAN_PORT
    log_prefix: str = "calico-packet: "

    def __post_init__(self) -> None:
        """Raise ValueError for a mask with fewer than three bits."""
        if self.mark_mask.bit_count() < 3 or self.mark_mask >> 32:
            raise ValueError(
                f"mark_mask {self.mark_mask:#x} leaves too few marks: give at least 3 of 32 bits"
            )

    def same_in_policies(self, other: "Settings") -> bool:
        """Whether rules of policies and endpoints are the same with other settings."""
        return (self.mark_mask, self.log_prefix) == (other.mark_mask, other.log_prefix)

    def _bit(self, number: int) -> int:
        mask = self.mark_mask
        for _ in range(number):
            mask &= mask - 1
        return mask & -mask

    @property
    def accepted(self) -> int:
        """Packet mark: allowed by an untracked or pre-DNAT policy, so that host policy is done with it."""
        return self._bit(0)

    @property
    def passed(self) -> int:
        """Packet mark: the tier is left (Pass)."""
        return self._bit(1)

    @property
    def translated(self) -> int:
        """Packet mark: sent by the node to an address that was translated; asked about behind the routing. It
        is the same bit as the connection mark `cut`."""
        return self._bit(2)

    @property
    def cut(self) -> int:
        """Connection mark: policy denies this connection since it was established."""
        return self._bit(2)


# Verdict maps and sets of the base chains.
FROM_WORKLOAD = "from_workload"
TO_WORKLOAD = "to_workload"
WORKLOADS = "workloads"
SOURCES = {4: "sources4", 6: "sources6"}
SOURCE_NETWORKS = "source_networks"


class HostMap(StrEnum):
    """Verdict maps by interface of the host, and prefixes of the chains that they lead to."""

    INPUT = "hi"
    OUTPUT = "ho"
    FORWARD_IN = "hfi"
    FORWARD_OUT = "hfo"
    UNTRACKED_IN = "hui"
    UNTRACKED_OUT = "huo"
    PRE_DNAT = "hdi"

    @property
    def map(self) -> str:
        """The map's name."""
        return f"host_{self.name.lower()}"

    def chain(self, interface: str) -> str:
        """The chain of an interface."""
        return f"any_{self}" if interface == WILDCARD else f"{self}_{interface_label(interface)}"


FAILSAFE_IN = "failsafe_in"
FAILSAFE_OUT = "failsafe_out"
FAILSAFE_UNTRACKED_IN = "failsafe_untracked_in"
FAILSAFE_UNTRACKED_OUT = "failsafe_untracked_out"

PolicyUse = tuple[Purpose, PolicyKey]
Passes = Callable[[PolicyUse], bool]
DROP = nft.verdict(nft.NF_DROP)
ACCEPT = nft.verdict(nft.NF_ACCEPT)


@dataclass(frozen=True, slots=True)
class EndpointParts:
    """What one endpoint adds to the table. `chains` may be those of other endpoints too; `policies` are the
    chains that they jump to."""

    chains: dict[str, tuple[bytes, ...]]
    elements: dict[str, set[Element]]
    policies: dict[str, PolicyUse]


@dataclass(frozen=True, slots=True)
class Way:
    """A workload's way through tiers and profiles in one direction: a chain that all share to which the same
    policies apply in the same order."""

    chain: str
    rules: tuple[bytes, ...]
    policies: dict[str, PolicyUse]


def way_chain(purpose: Purpose, tiers: Iterable[TierRules], profiles: Iterable[PolicyKey]) -> str:
    """The chain's name: a digest of what is asked. `in_` is for what a workload receives, `out_` for what it
    sends."""
    ingress = purpose.ingress
    steps = []
    for tier in tiers:
        keys = tier.ingress if ingress else tier.egress
        if keys:
            steps += [policy_chain(purpose, key) for key in keys]
            steps.append("pass" if tier.default_pass else "drop")
    steps += [policy_chain(purpose, key) for key in profiles]
    return f"{'in' if ingress else 'out'}_{digest(' '.join(steps))}"


class TierWriter:
    """Writes the rules that go through tiers; remembers which policies they jump to."""

    def __init__(self, settings: Settings, passes: Passes) -> None:
        self._settings = settings
        self._passes = passes
        self.used: dict[str, PolicyUse] = {}  # by chain

    def tiers(
        self, tiers: Iterable[TierRules], purpose: Purpose, *, end_of_tier: bool
    ) -> tuple[list[bytes], bool]:
        """Jumps to each tier's policies; `end_of_tier`: then the tier's own verdict. The second part of the
        answer says whether a packet can come to what follows.

        A Pass sets a mark and returns, so behind the first policy that can pass, the rest of its tier is
        done only without the mark. Tiers in which nothing passes carry no trace of it.
        """
        found: list[bytes] = []
        ingress = purpose.ingress
        for tier in tiers:
            keys = tier.ingress if ingress else tier.egress
            passing = False
            for key in keys:
                chain, use = policy_chain(purpose, key), (purpose, key)
                self.used[chain] = use
                enter = nft.jump(chain)
                if not passing and self._passes(use):
                    found.append(clear_mark(self._settings.passed))
                    passing = True
                    found.append(enter)
                else:
                    found.append(self._unless_passed(enter, guarded=passing))
            if keys and end_of_tier and not tier.default_pass:
                found.append(self._unless_passed(DROP, guarded=passing))
                if not passing:
                    return found, False
        return found, True

    def tiers_and_profiles(
        self, tiers: Iterable[TierRules], profiles: Iterable[PolicyKey], purpose: Purpose
    ) -> list[bytes]:
        """Tiers, then the profiles, then drop."""
        found, goes_on = self.tiers(tiers, purpose, end_of_tier=True)
        return [*found, *self.profiles(profiles, purpose)] if goes_on else found

    def profiles(self, profiles: Iterable[PolicyKey], purpose: Purpose) -> list[bytes]:
        """Jumps to the profiles, and drop."""
        found = []
        for key in profiles:
            chain = policy_chain(purpose, key)
            self.used[chain] = (purpose, key)
            found.append(nft.jump(chain))
        return [*found, DROP]

    def _unless_passed(self, rule: bytes, *, guarded: bool) -> bytes:
        return if_mark(self._settings.passed, given=False) + rule if guarded else rule


class Ways:
    """Finds the ways of workloads; each is written once. Those of policies that began or ceased to pass have
    to be forgotten."""

    def __init__(self, settings: Settings, passes: Passes) -> None:
        self._settings = settings
        self._passes = passes
        self._known: dict[str, Way] = {}

    def find(self, rules: WorkloadRules, purpose: Purpose) -> Way:
        """The way of a workload."""
        chain = way_chain(purpose, rules.tiers, rules.profiles)
        known = self._known.get(chain)
        if known is None:
            writer = TierWriter(self._settings, self._passes)
            content = writer.tiers_and_profiles(rules.tiers, rules.profiles, purpose)
            # The base chain drops what comes back, so the drop at the end can be saved.
            if content[-1] is DROP:
                del content[-1]
            known = self._known[chain] = Way(chain, tuple(content), writer.used)
        return known

    def forget(self, chains: Iterable[str]) -> None:
        """Write these ways anew when they are needed again."""
        for chain in chains:
            self._known.pop(chain, None)


def workload_parts(rules: WorkloadRules, ways: Ways) -> EndpointParts:
    """Chains and elements of a workload. Raise ValueError for a name that no interface can have."""
    key = interface_key(rules.interface)
    outward, inward = ways.find(rules, Purpose.EGRESS), ways.find(rules, Purpose.INGRESS)
    chains = {outward.chain: outward.rules, inward.chain: inward.rules}
    elements = {
        WORKLOADS: {Element(key)},
        FROM_WORKLOAD: {Element(key, b"", nft.NFT_JUMP, outward.chain)},
        TO_WORKLOAD: {Element(key, b"", nft.NFT_JUMP, inward.chain)},
    }
    _sources(rules, key, chains, elements)
    return EndpointParts(chains, elements, outward.policies | inward.policies)


def _sources(
    rules: WorkloadRules,
    key: bytes,
    chains: dict[str, tuple[bytes, ...]],
    elements: dict[str, set[Element]],
) -> None:
    """Sources it may send from: single addresses hashed with the interface, networks in a chain."""
    broad = []
    for network in (*rules.addresses, *rules.allowed_sources):
        if network.prefixlen == network.max_prefixlen:
            packed = network.network_address.packed
            elements.setdefault(SOURCES[network.version], set()).add(Element(key + packed))
        else:
            broad.append(if_family(network.version) + in_network(network, source=True) + ACCEPT)
    if broad:
        chain = f"sources_{interface_label(rules.interface)}"
        chains[chain] = tuple(broad)
        elements[SOURCE_NETWORKS] = {Element(key, code=nft.NFT_JUMP, chain=chain)}


def host_parts(rules: HostRules, settings: Settings, passes: Passes) -> EndpointParts:
    """Chains and elements of a host endpoint. A kind of traffic that it says nothing about is accepted by
    the map itself, so that the wildcard's policy does not apply to it."""
    writer = TierWriter(settings, passes)
    content: dict[HostMap, list[bytes]] = {
        HostMap.INPUT: _normal(writer, rules, Purpose.INGRESS, FAILSAFE_IN),
        HostMap.OUTPUT: _normal(writer, rules, Purpose.EGRESS, FAILSAFE_OUT),
    }
    for target, tiers, purpose, failsafe in (
        (HostMap.FORWARD_IN, rules.forward, Purpose.INGRESS, None),
        (HostMap.FORWARD_OUT, rules.forward, Purpose.EGRESS, None),
        (HostMap.UNTRACKED_IN, rules.untracked, Purpose.UNTRACKED_INGRESS, FAILSAFE_UNTRACKED_IN),
        (HostMap.UNTRACKED_OUT, rules.untracked, Purpose.UNTRACKED_EGRESS, FAILSAFE_UNTRACKED_OUT),
        (HostMap.PRE_DNAT, rules.pre_dnat, Purpose.PRE_DNAT, FAILSAFE_IN),
    ):
        through, _ = writer.tiers(tiers, purpose, end_of_tier=failsafe is None)
        if through:
            content[target] = [*([nft.jump(failsafe)] if failsafe else []), *through, ACCEPT]
    if rules.interface == WILDCARD:  # the base chains jump to each of them
        content = {target: content.get(target, [ACCEPT]) for target in HostMap}
    chains = {target.chain(rules.interface): tuple(lines) for target, lines in content.items()}
    elements: dict[str, set[Element]] = {}
    if rules.interface != WILDCARD:
        key = interface_key(rules.interface)
        for target in HostMap:
            chain = target.chain(rules.interface)
            verdict = (nft.NFT_JUMP, chain) if chain in chains else (nft.NF_ACCEPT, "")
            elements[target.map] = {Element(key, code=verdict[0], chain=verdict[1])}
    return EndpointParts(chains, elements, writer.used)


def _normal(writer: TierWriter, rules: HostRules, purpose: Purpose, failsafe: str) -> list[bytes]:
    return [nft.jump(failsafe), *writer.tiers_and_profiles(rules.normal, rules.profiles, purpose)]
