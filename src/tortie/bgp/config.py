"""BIRD 2 configuration of one node (BIRD >= 2.0.12, which brought the route attribute `onlink`): pure text.

Only numbers, addresses and prefixes that were parsed before reach the text, never a string that a user wrote,
so nothing needs quoting.

Who writes what: BIRD writes to the kernel only what it learned over BGP (pools with IP-in-IP or without
encapsulation). The agent writes VXLAN routes and the blackholes of the node's own blocks; BIRD knows the own
blocks as static routes, to announce them. An address of another node's block that a pod here has is announced
from the kernel's route to that pod: it is announced when the pod is really here, and only then.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from tortie.model.constants import DEFAULT_AS_NUMBER, INTERFACE_PREFIX, IPIP_DEVICE
from tortie.routing.pools import Pool, pool_of

BGP_PORT = 179  # RFC 4271 section 8.1.1

# BIRD prefers the greater number. It gives 100 to routes of BGP and 10 to those it finds in the kernel: a pod
# that is here must win against what a peer has not withdrawn yet. Nothing else has this number.
LOCAL_POD_PREFERENCE = 210

# Seconds. BIRD holds back route updates for this long when it restarts and a peer stays away.
GRACEFUL_RESTART_WAIT = 20
# Seconds. RFC 4271 section 10 suggests 90; BIRD's own default (240) keeps a dead node's routes for 4 minutes.
# An outage of 60 s ends half of the sessions, some a few seconds after it: TCP has backed off, and speaks too
# late. Long-lived graceful restart (RFC 9494) would keep the routes, but a dead node's, too, 120 s longer.
HOLD_TIME = 90


@dataclass(frozen=True, slots=True, order=True)
class MeshPeer:
    """Another node of the full mesh."""

    address: IPv4Address
    as_number: int = DEFAULT_AS_NUMBER


@dataclass(frozen=True, slots=True)
class BirdConfig:
    """Everything that the configuration depends on. `address` is the node's own, with its subnet's length."""

    address: IPv4Interface
    as_number: int = DEFAULT_AS_NUMBER
    port: int = BGP_PORT
    pools: frozenset[Pool] = frozenset()
    blocks: frozenset[IPv4Network] = frozenset()
    tunnels: frozenset[IPv4Address] = frozenset()  # own tunnel addresses; they may be of another's block
    peers: frozenset[MeshPeer] = frozenset()
    debug: bool = False


def protocol_name(peer: IPv4Address) -> str:
    """Name of the BGP protocol for a mesh peer; tools tell the kind of a peer by it."""
    return "Mesh_" + str(peer).replace(".", "_")


def listens_only(own: IPv4Address, peer: IPv4Address) -> bool:
    """Whether this side of a session waits to be called: when the peer's address is greater AS A STRING.

    Numeric order would leave 10.0.0.9 and 10.0.0.10 both waiting when one of them runs Calico.
    """
    return str(peer) > str(own)


def render(config: BirdConfig) -> str:
    """The whole configuration file. Equal input gives equal text, whatever the order of its parts."""
    # The most specific pool first, so that each route meets the pool it belongs to.
    pools = sorted(config.pools, key=lambda pool: (-pool.cidr.prefixlen, pool))
    sections = [
        _globals(config.address.ip, config.debug),
        _filters(config.address.network, pools, sorted(config.blocks)),
        _protocols(config.address.network, _announced(config, pools)),
        _mesh(config, config.address.ip),
    ]
    return "\n".join(sections)


def _globals(own: IPv4Address, debug: bool) -> str:
    lines = [
        "# Written by tortie-agent; changes are overwritten.",
        "log stderr { debug, trace, info, remote, warning, error, auth, fatal, bug };"
        if debug
        else "log stderr { info, remote, warning, error, auth, fatal, bug };",
        f"router id {own};",
        "timeformat protocol iso long;",
        "timeformat log iso long;",
        f"graceful restart wait {GRACEFUL_RESTART_WAIT};",
    ]
    if debug:
        lines.append("debug protocols { states, events };")
    return "\n".join(lines) + "\n"


def _prefixes(networks: Iterable[IPv4Network]) -> str:
    """A prefix set with everything within the networks. BIRD knows no empty one: give it at least one."""
    return f"[ {', '.join(f'{network}+' for network in networks)} ]"


def _within(pools: Sequence[Pool], action: str) -> list[str]:
    """A clause for routes within any of the pools; none without pools."""
    return [f"  if net ~ {_prefixes(pool.cidr for pool in pools)} then {action}"] if pools else []


def _pods_outside_own_blocks(pools: Sequence[Pool], blocks: Sequence[IPv4Network]) -> list[str]:
    """Clauses that take from the kernel the routes to local pods whose addresses no own block announces."""
    if not pools:
        return []
    outside = f" && !(net ~ {_prefixes(blocks)})" if blocks else ""
    mark = f"{{ preference = {LOCAL_POD_PREFERENCE}; accept; }}"
    return [
        f'  if ifname ~ "{INTERFACE_PREFIX}*" && net.len = 32{outside} then {{',
        *("  " + line for pool in pools for line in _within([pool], mark if pool.bgp_export else "reject;")),
        "  }",
    ]


def _kernel_action(pool: Pool, subnet: IPv4Network) -> str:
    """What the kernel export filter does with a block of `pool`."""
    if pool.vxlan != "Never":
        return "reject;"
    if pool.ipip == "Never":
        return "accept;"
    # The order of these assignments matters: setting the interface forgets the gateway, and a gateway off
    # the interface's subnet is refused unless onlink is already set.
    tunnel = f'ifname = "{IPIP_DEVICE}"; onlink = true; gw = bgp_next_hop; accept;'
    if pool.ipip == "CrossSubnet":
        return f"{{ if bgp_next_hop ~ {subnet} then accept; {tunnel} }}"
    return f"{{ {tunnel} }}"


def _filters(subnet: IPv4Network, pools: Sequence[Pool], blocks: Sequence[IPv4Network]) -> str:
    lines = [
        "# What goes into the kernel: blocks of other nodes, unless the agent routes them (VXLAN).",
        "filter kernel_export {",
        "  if source != RTS_BGP then reject;",
        *(line for pool in pools for line in _within([pool], _kernel_action(pool, subnet))),
        "  reject;",
        "}",
        "",
        "# Alien routes serve to resolve next hops in other subnets (the default route above all). Of those",
        "# in the pools, pods here whose address is of no own block are announced one by one.",
        "filter kernel_import {",
        *_pods_outside_own_blocks(pools, blocks),
        *_within(pools, "reject;"),
        "  accept;",
        "}",
        "",
        "filter mesh_import {",
        *_within(pools, "accept;"),
        "  reject;",
        "}",
        "",
        "filter mesh_export {",
        '  if proto = "own_blocks" then accept;',
        f"  if source = RTS_INHERIT && preference = {LOCAL_POD_PREFERENCE} then accept;",
        "  reject;",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _announced(config: BirdConfig, pools: Sequence[Pool]) -> list[IPv4Network]:
    """Own blocks, and own tunnel addresses outside of them, as far as their pools let BGP announce them."""
    tunnels = {
        IPv4Network(address)
        for address in config.tunnels
        if not any(address in block for block in config.blocks)
    }
    wanted = sorted(config.blocks | tunnels)
    return [network for network in wanted if (pool := pool_of(network, pools)) and pool.bgp_export]


def _protocols(subnet: IPv4Network, announced: Sequence[IPv4Network]) -> str:
    lines = [
        "protocol device {",
        "  scan time 2;",
        "}",
        "",
        "# Only the subnet that the node speaks to its peers on.",
        "protocol direct {",
        "  ipv4;",
        f"  interface {subnet};",
        "}",
        "",
        "protocol kernel {",
        "  learn;",
        "  persist;",
        "  graceful restart;",
        "  scan time 2;",
        "  # As Calico's BIRD writes routes; BIRD 2 would give them metric 32, so that any other route wins.",
        "  metric 0;",
        "  ipv4 {",
        "    import filter kernel_import;",
        "    export filter kernel_export;",
        "  };",
        "}",
        "",
        "protocol static own_blocks {",
        "  ipv4;",
        *(f"  route {block} blackhole;" for block in announced),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _mesh(config: BirdConfig, own: IPv4Address) -> str:
    lines = [
        "template bgp mesh {",
        f"  local {own} port {config.port} as {config.as_number};",
        "  multihop;",
        "  graceful restart on;",
        f"  hold time {HOLD_TIME};",
        "  connect delay time 2;",
        "  connect retry time 5;",
        "  error wait time 2, 5;",
        "  ipv4 {",
        "    gateway recursive;",
        "    next hop self;",
        "    add paths on;",
        "    import filter mesh_import;",
        "    export filter mesh_export;",
        "  };",
        "}",
    ]
    for peer in sorted(config.peers):
        lines += [
            "",
            f"protocol bgp {protocol_name(peer.address)} from mesh {{",
            f"  neighbor {peer.address} port {config.port} as {peer.as_number};",
        ]
        if listens_only(own, peer.address):
            lines.append("  passive on;")
        lines.append("}")
    return "\n".join(lines) + "\n"
