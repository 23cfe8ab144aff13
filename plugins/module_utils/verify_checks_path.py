"""Layers between two nodes: bgp, route, neighbour."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.tortie.cluster.plugins.module_utils.verify_check import (
    IPIP_DEVICE,
    RTPROT_BIRD,
    RTPROT_TORTIE,
    VXLAN_DEVICE,
    Check,
    Subject,
    View,
    encapsulation,
    mode,
)
from ansible_collections.tortie.cluster.plugins.module_utils.verify_checks_node import NO_FACTS
from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import (
    Neighbour,
    Pool,
    Route,
    Session,
)

PROTOCOLS = {RTPROT_BIRD: "bird", RTPROT_TORTIE: "80"}


@dataclass(frozen=True)
class NextHop:
    """What a route to a peer's block has to look like."""

    device: str
    gateway: str
    protocol: int
    tunnel: bool

    def __str__(self) -> str:
        """As `ip route` writes it."""
        onlink = " onlink" if self.tunnel else ""
        return f"via {self.gateway} dev {self.device} proto {PROTOCOLS[self.protocol]}{onlink}"


def next_hop(view: View, name: str, peer: str, pool: Pool) -> NextHop | None:
    """The expected next hop from node `name` to a block of `peer` in `pool`; None when unknown."""
    kind, address = encapsulation(pool), view.address(peer)
    writer = RTPROT_TORTIE if kind == "vxlan" else RTPROT_BIRD
    direct = kind == "none" or (mode(pool) == "CrossSubnet" and view.same_subnet(name, peer))
    if direct:
        if view.same_subnet(name, peer):
            device, _link = view.link(name)
            gateway = address
        else:
            path = view.facts[name]["paths"].get(address)
            device, gateway = (path["device"], path["gateway"]) if path else ("", "")
        return NextHop(device, gateway, writer, tunnel=False) if device and gateway else None
    if kind == "vxlan":
        vtep = view.node(peer)["annotations"].get("IPv4VXLANTunnelAddr", "")
        return NextHop(VXLAN_DEVICE, vtep, writer, tunnel=True) if vtep else None
    return NextHop(IPIP_DEVICE, address, writer, tunnel=True) if address else None


def tunnelled_by_vxlan(view: View, name: str, peer: str) -> bool:
    """Whether traffic from `name` to any block of `peer` goes through vxlan.calico."""
    pools = [view.pool_of(block) for block in view.blocks(peer)]
    return any(
        encapsulation(pool) == "vxlan" and not (mode(pool) == "CrossSubnet" and view.same_subnet(name, peer))
        for pool in pools
        if pool is not None
    )


def check_bgp(view: View) -> list[Check]:
    """Every node has an Established session with every other, and that session brought the other's blocks."""
    checks = []
    for name in view.names:
        if name in view.facts and view.facts[name]["bird_error"]:
            hint = f"on {name}: is calico-node running? ls -l /var/run/calico/bird.ctl"
            checks.append(
                Subject("bgp", name).judge("BIRD", False, "answers", view.facts[name]["bird_error"], hint)
            )
    for name, peer in view.pairs:
        subject = Subject("bgp", name, peer)
        if name not in view.facts:
            checks.append(subject.skip("session", NO_FACTS))
        elif view.facts[name]["bird_error"]:
            checks.append(subject.skip("session", "BIRD does not answer on the node"))
        else:
            checks += _check_session(view, subject)
    return checks


def _check_session(view: View, subject: Subject) -> list[Check]:
    address = view.address(subject.peer)
    sessions = view.facts[subject.node]["sessions"]
    session: Session | None = next((s for s in sessions if address and s["peer"] == address), None)
    hint = (
        f"on {subject.node}: tortiectl node status; TCP port 179 must be open "
        f"between {view.address(subject.node)} and {address or subject.peer}"
    )
    if session is None:
        found = f"sessions with {', '.join(s['peer'] for s in sessions) or 'nobody'}"
        return [subject.judge("session", False, f"a session with {address or subject.peer}", found, hint)]
    state = " ".join(part for part in (session["bgp_state"], session["info"]) if part)
    established = session["bgp_state"] == "Established"
    checks = [
        subject.judge(
            "session", established, "Established", session["bgp_state"] if established else state, hint
        )
    ]
    for block in view.blocks(subject.peer):
        pool = view.pool_of(block)
        if pool is not None and pool["disable_bgp_export"]:
            checks.append(subject.skip(f"carries {block}", f"pool {pool['name']} has disableBGPExport"))
            continue
        carried = block in session["networks"]
        checks.append(
            subject.judge(
                f"carries {block}",
                carried,
                block,
                block if carried else session["networks"],
                f"does BIRD on {subject.peer} export the block? /etc/calico/bird.cfg in its calico-node pod",
            )
        )
    return checks


def check_route(view: View) -> list[Check]:
    """Every node has the right route to every block of every other node."""
    checks = []
    for name, peer in view.pairs:
        subject = Subject("route", name, peer)
        if name not in view.facts:
            checks.append(subject.skip("routes", NO_FACTS))
            continue
        blocks = view.blocks(peer)
        if not blocks:
            checks.append(subject.skip("routes", f"{peer} has no block"))
        checks += [_check_route(view, subject, block) for block in blocks]
    return checks


def _check_route(view: View, subject: Subject, block: str) -> Check:
    pool = view.pool_of(block)
    if pool is None:
        return subject.skip(block, "no pool contains the block")
    wanted = next_hop(view, subject.node, subject.peer, pool)
    found = [route for route in view.facts[subject.node]["routes"] if route["destination"] == block]
    writer = "BIRD writes it from the session" if encapsulation(pool) != "vxlan" else "the agent writes it"
    hint = (
        f"on {subject.node}: ip route show {block}; {writer}; "
        "kubectl -n kube-system logs -l k8s-app=calico-node"
    )
    if wanted is None:
        return subject.judge(
            block, False, "a known next hop", f"no tunnel or node address of {subject.peer}", hint
        )
    return subject.judge(
        block,
        len(found) == 1 and _matches(found[0], wanted),
        wanted,
        "; ".join(_describe(route) for route in found) or "no route",
        hint,
    )


def _matches(route: Route, wanted: NextHop) -> bool:
    same = (route["kind"], route["device"], route["gateway"], route["protocol"]) == (
        "unicast",
        wanted.device,
        wanted.gateway,
        wanted.protocol,
    )
    return same and (route["onlink"] or not wanted.tunnel)


def _describe(route: Route) -> str:
    words = [] if route["kind"] == "unicast" else [route["kind"]]
    words += ["via", route["gateway"]] if route["gateway"] else []
    words += ["dev", route["device"]] if route["device"] else []
    words += ["proto", PROTOCOLS.get(route["protocol"], str(route["protocol"]))]
    return " ".join(words + (["onlink"] if route["onlink"] else []))


def check_neighbour(view: View) -> list[Check]:
    """For VXLAN: the peer's VTEP is a permanent neighbour, and its MAC leads to the peer's node address."""
    checks = []
    for name, peer in view.pairs:
        subject = Subject("neighbour", name, peer)
        if not tunnelled_by_vxlan(view, name, peer):
            checks.append(subject.skip("VTEP", "no VXLAN between these nodes"))
        elif name not in view.facts:
            checks.append(subject.skip("VTEP", NO_FACTS))
        else:
            checks += _check_vtep(view, subject)
    return checks


def _check_vtep(view: View, subject: Subject) -> list[Check]:
    facts, peer = view.facts[subject.node], view.node(subject.peer)
    vtep = peer["annotations"].get("IPv4VXLANTunnelAddr", "")
    mac = peer["annotations"].get("VXLANTunnelMACAddr", "")
    hint = f"on {subject.node}: ip neighbour show dev {VXLAN_DEVICE}; bridge fdb show dev {VXLAN_DEVICE}"
    entries = [n for n in facts["neighbours"] if n["device"] == VXLAN_DEVICE and n["address"] == vtep]
    behind = [n for n in facts["fdb"] if n["device"] == VXLAN_DEVICE and n["mac"] == mac]
    return [
        subject.judge(
            "neighbour",
            bool(mac) and [(n["mac"], n["permanent"]) for n in entries] == [(mac, True)],
            f"{vtep or 'VTEP'} lladdr {mac or '(annotation missing)'} permanent",
            [_entry(n) for n in entries],
            hint,
        ),
        subject.judge(
            "FDB",
            bool(mac) and [n["address"] for n in behind] == [view.address(subject.peer)],
            f"{mac or '(annotation missing)'} dst {view.address(subject.peer)}",
            [f"{n['mac']} dst {n['address']}" for n in behind],
            hint,
        ),
    ]


def _entry(neighbour: Neighbour) -> str:
    permanent = " permanent" if neighbour["permanent"] else ""
    return f"{neighbour['address']} lladdr {neighbour['mac']}{permanent}"
