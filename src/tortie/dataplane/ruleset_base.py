"""Base chains: what does not depend on policies, and in which order the kernel asks what.

Every chain is one look at the packet by its interface. What is established is accepted first; what comes from
or goes to a workload's interface that the maps do not know is dropped. So the rules stay closed while a pod's
are not there yet, and a packet that is on its way while a transaction is committed (it may look up a new
element with old chains, and find them empty) is dropped, never let through.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv6Network

from tortie.dataplane import nfnetlink_expressions as nft
from tortie.dataplane import ruleset_endpoints as ends
from tortie.dataplane.nfnetlink_objects import (
    HOOK_FORWARD,
    HOOK_INPUT,
    HOOK_OUTPUT,
    HOOK_POSTROUTING,
    HOOK_PREROUTING,
    TYPE_IFNAME,
    Hook,
    SetType,
)
from tortie.dataplane.ruleset_endpoints import ACCEPT, DROP, Failsafe, HostMap, Settings
from tortie.dataplane.ruleset_names import IFNAMSIZ
from tortie.dataplane.ruleset_rules import (
    ICMP6,
    UDP,
    address,
    clear_mark,
    if_family,
    if_mark,
    if_protocol,
    in_network,
    port,
    set_mark,
)
from tortie.dataplane.ruleset_sets import (
    ADDRESS_BYTES,
    ADDRESS_TYPE,
    FAMILIES,
    SHARED_SETS,
    KernelSet,
    LiteralNetworks,
    LiteralPorts,
)
from tortie.policy.state import Network

# Ahead of everybody's chains at the same place: iptables, kube-proxy, ufw and Docker are at -300, -150 and 0,
# firewalld 10 behind. forward_to stands behind forward_from, service_loop behind kube-proxy's reject.
RAW, MANGLE, FILTER = -305, -155, -10
BEHIND_OTHERS = 20
BASE_CHAINS = {
    "raw_prerouting": Hook(HOOK_PREROUTING, RAW),
    "raw_output": Hook(HOOK_OUTPUT, RAW),
    "mangle_prerouting": Hook(HOOK_PREROUTING, MANGLE),
    "input": Hook(HOOK_INPUT, FILTER),
    "input_to_host": Hook(HOOK_INPUT, FILTER + 1),
    "forward_from": Hook(HOOK_FORWARD, FILTER - 1),
    "forward_to": Hook(HOOK_FORWARD, FILTER),
    "service_loop": Hook(HOOK_FORWARD, BEHIND_OTHERS),
    "output": Hook(HOOK_OUTPUT, FILTER),
    "output_translated": Hook(HOOK_POSTROUTING, MANGLE),
}
WORKLOAD_SOURCES = "workload_sources"
WORKLOAD_EGRESS = "workload_egress"
WORKLOAD_INGRESS = "workload_ingress"

IPIP = 4  # IANA protocol number
# Neighbour and multicast discovery (RFC 4861, RFC 2710), without which IPv6 does not work at all. Between
# them stand router advertisements (134): a workload is no router, and could draw the node's traffic to it.
DISCOVERY_TYPES = ((130, 133), (135, 136))
LINK_LOCAL = "fe80::/10"

_IFNAME = (TYPE_IFNAME, IFNAMSIZ)
SETS = {
    ends.FROM_WORKLOAD: SetType((_IFNAME,), verdicts=True),
    ends.TO_WORKLOAD: SetType((_IFNAME,), verdicts=True),
    ends.SOURCE_NETWORKS: SetType((_IFNAME,), verdicts=True),
    ends.WORKLOADS: SetType((_IFNAME,)),
    **{
        ends.SOURCES[family]: SetType((_IFNAME, (ADDRESS_TYPE[family], ADDRESS_BYTES[family])))
        for family in FAMILIES
    },
    **{target.map: SetType((_IFNAME,), verdicts=True) for target in HostMap},
    **SHARED_SETS,
}

_U32 = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class BaseParts:
    """The chains (base chains and those that they share) and the sets that only they name."""

    chains: dict[str, tuple[bytes, ...]]
    used: frozenset[KernelSet]


def if_state(bits: int) -> bytes:
    """Go on if the connection's state is one of these (CT_*)."""
    return nft.conntrack(nft.NFT_CT_STATE) + nft.mask(_U32.pack(bits)) + nft.compare(bytes(4), equal=False)


def if_interface(key: int, prefix: str) -> bytes:
    """Go on if the interface's name begins with `prefix`."""
    return nft.meta(key) + nft.compare(prefix.encode())


def if_exactly(key: int, interface: str) -> bytes:
    """Go on if this is the interface."""
    return nft.meta(key) + nft.compare(interface.encode().ljust(IFNAMSIZ, b"\0"))


def base_parts(settings: Settings, hosts: frozenset[str]) -> BaseParts:
    """All base chains. `hosts` are the interfaces of host endpoints: without any, none of their rules."""
    return _Base(settings, hosts).parts()


class _Base:
    def __init__(self, settings: Settings, hosts: frozenset[str]) -> None:
        self._settings = settings
        self._hosts = hosts
        self._used: set[KernelSet] = set()

    def parts(self) -> BaseParts:
        settings = self._settings
        prefix = settings.interface_prefix
        from_pod = if_interface(nft.NFT_META_IIFNAME, prefix)
        to_pod = if_interface(nft.NFT_META_OIFNAME, prefix)
        established = if_state(nft.CT_ESTABLISHED | nft.CT_RELATED) + ACCEPT
        cut = (
            nft.conntrack(nft.NFT_CT_MARK)
            + nft.mask(_U32.pack(settings.cut))
            + nft.compare(bytes(4), equal=False)
            + DROP
        )
        to_host = (from_pod + DROP,) if settings.endpoint_to_host == "Drop" else ()
        chains = {
            "raw_prerouting": (
                from_pod + nft.jump(WORKLOAD_SOURCES),
                *self._host(HostMap.UNTRACKED_IN),
            ),
            "raw_output": (to_pod + ACCEPT, *self._host(HostMap.UNTRACKED_OUT)),
            "mangle_prerouting": (
                from_pod + ACCEPT,
                *self._host(HostMap.PRE_DNAT, established),
            ),
            "input": (
                cut,
                established,
                *(from_pod + rule for rule in _discovery()),
                from_pod + nft.jump(WORKLOAD_EGRESS),
                *self._tunnels(source=True),
                *self._host(HostMap.INPUT),
            ),
            "input_to_host": (established, *to_host) if to_host else (),
            "forward_from": (
                cut,
                established,
                from_pod + nft.jump(WORKLOAD_EGRESS),
                *self._host(HostMap.FORWARD_IN),
            ),
            "forward_to": (
                established,
                to_pod + nft.jump(WORKLOAD_INGRESS),
                *self._host(HostMap.FORWARD_OUT),
            ),
            "service_loop": tuple(self._service_loop()),
            "output": (cut, established, *self._translated(), *self._output(to_pod)),
            "output_translated": (
                if_mark(settings.translated, given=False) + ACCEPT,
                clear_mark(settings.translated),
                *self._output(to_pod),
            )
            if self._hosts
            else (),
            WORKLOAD_SOURCES: tuple(_sources()),
            WORKLOAD_EGRESS: (
                if_state(nft.CT_INVALID) + DROP,
                if_protocol(IPIP) + DROP,  # a workload that could speak to tunnels would pass by policy
                if_protocol(UDP)
                + port(source=False)
                + nft.compare(settings.vxlan_port.to_bytes(2, "big"))
                + DROP,
                nft.meta(nft.NFT_META_IIFNAME) + nft.lookup_verdict(ends.FROM_WORKLOAD),
                DROP,
            ),
            WORKLOAD_INGRESS: (
                if_state(nft.CT_INVALID) + DROP,
                nft.meta(nft.NFT_META_OIFNAME) + nft.lookup_verdict(ends.TO_WORKLOAD),
                DROP,
            ),
        }
        if self._hosts:
            chains |= self._failsafes()
        return BaseParts(chains, frozenset(self._used))

    def _output(self, to_pod: bytes) -> list[bytes]:
        """What the node itself sends, by the interface it leaves by."""
        return [
            # The node reaches its own pods (kubelet's probes): who has the node needs no way in.
            to_pod + nft.meta(nft.NFT_META_OIFNAME) + nft.lookup(ends.WORKLOADS) + ACCEPT,
            to_pod + DROP,
            *self._tunnels(source=False),
            *self._host(HostMap.OUTPUT),
        ]

    def _translated(self) -> list[bytes]:
        """What the node sends to a service gets another destination in the output hook, and with it another
        interface, which the hook does not see. Host endpoints are asked behind the routing."""
        if not self._hosts:
            return []
        translated = (
            nft.conntrack(nft.NFT_CT_STATUS)
            + nft.mask(_U32.pack(nft.IPS_DST_NAT))
            + nft.compare(bytes(4), equal=False)
        )
        return [translated + set_mark(self._settings.translated) + ACCEPT]

    def _host(self, target: HostMap, *before: bytes) -> list[bytes]:
        """Host endpoints at one hook: the interface's own, else the wildcard's."""
        if not self._hosts:
            return []
        outward = target in (HostMap.OUTPUT, HostMap.FORWARD_OUT, HostMap.UNTRACKED_OUT)
        name = nft.NFT_META_OIFNAME if outward else nft.NFT_META_IIFNAME
        rules = [*before]
        if target not in (HostMap.UNTRACKED_IN, HostMap.UNTRACKED_OUT):
            rules.append(if_mark(self._settings.accepted, given=True) + ACCEPT)
        rules.append(nft.meta(name) + nft.lookup_verdict(target.map))
        if ends.WILDCARD in self._hosts:
            # Programs of the node talk to each other over lo; only an endpoint of that name closes it.
            rules.append(if_exactly(name, "lo") + ACCEPT)
            rules.append(nft.jump(target.chain(ends.WILDCARD)))
        return rules

    def _tunnels(self, *, source: bool) -> list[bytes]:
        """IP-in-IP and VXLAN between the nodes are not for host policy; from others they are dropped. Over
        IPv6 the nodes have no tunnels, and those that somebody else has (RFC 2473) are left alone."""
        peers = self._settings.tunnel_peers
        if peers is None:
            return []
        vxlan = (
            if_protocol(UDP) + port(source=False) + nft.compare(self._settings.vxlan_port.to_bytes(2, "big"))
        )
        literal = LiteralNetworks(tuple(sorted(n for n in peers if n.version == 4)), 4)
        self._used.add(literal)
        peer = address(4, source=source) + nft.lookup(literal.name)
        rules = [if_family(4) + tunnel + peer + ACCEPT for tunnel in (if_protocol(IPIP), vxlan)]
        if source:
            rules += [if_family(4) + tunnel + DROP for tunnel in (if_protocol(IPIP), vxlan)]
        return rules

    def _service_loop(self) -> list[bytes]:
        """Packets to a service that nobody translated would come back by the default route."""
        action = {"Drop": DROP, "Reject": nft.reject(), "Disabled": b""}[self._settings.service_loop]
        if not action:
            return []
        return [
            if_family(network.version) + in_network(network, source=False) + action
            for network in self._settings.service_networks
        ]

    def _failsafes(self) -> dict[str, tuple[bytes, ...]]:
        inbound, outbound = self._settings.failsafe_inbound, self._settings.failsafe_outbound
        return {
            ends.FAILSAFE_IN: tuple(self._failsafe(inbound, inward=True)),
            ends.FAILSAFE_OUT: tuple(self._failsafe(outbound, inward=False)),
            # Without connection tracking, answers have to be let through by themselves.
            ends.FAILSAFE_UNTRACKED_IN: (
                *self._failsafe(inbound, inward=True),
                *self._failsafe(outbound, inward=True, answers=True),
            ),
            ends.FAILSAFE_UNTRACKED_OUT: (
                *self._failsafe(outbound, inward=False),
                *self._failsafe(inbound, inward=False, answers=True),
            ),
        }

    def _failsafe(self, ports: tuple[Failsafe, ...], *, inward: bool, answers: bool = False) -> list[bytes]:
        """Accept ports, those of one protocol and one group of networks in one rule."""
        groups: dict[tuple[int, tuple[Network, ...]], set[int]] = {}
        for item in ports:
            groups.setdefault((item.protocol, item.networks), set()).add(item.port)
        rules = []
        for (protocol, networks), numbers in groups.items():
            literal = LiteralPorts(tuple((number, number) for number in sorted(numbers)))
            self._used.add(literal)
            match = if_protocol(protocol) + port(source=answers) + nft.lookup(literal.name)
            for network in networks or (None,):
                peer = (
                    b""
                    if network is None
                    else if_family(network.version) + in_network(network, source=inward)
                )
                rules.append(peer + match + ACCEPT)
        return rules


def _discovery() -> list[bytes]:
    return [
        if_family(6)
        + if_protocol(ICMP6)
        + nft.payload(nft.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1)
        + nft.within(bytes((first,)), bytes((last,)))
        + ACCEPT
        for first, last in DISCOVERY_TYPES
    ]


def _sources() -> list[bytes]:
    """What a workload may put into its packets as source. Asked before connection tracking, because an
    established connection's packets are accepted without a look at policy."""
    rules = [
        if_family(family)
        + nft.meta(nft.NFT_META_IIFNAME)
        + address(family, source=True, register=nft.NFT_REG_2)
        + nft.lookup(ends.SOURCES[family])
        + ACCEPT
        for family in FAMILIES
    ]
    rules.append(nft.meta(nft.NFT_META_IIFNAME) + nft.lookup_verdict(ends.SOURCE_NETWORKS))
    for source in (LINK_LOCAL, "::/128"):  # discovery alone uses these
        rules += [if_family(6) + in_network(IPv6Network(source), source=True) + rule for rule in _discovery()]
    return [*rules, DROP]
