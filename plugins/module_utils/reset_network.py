# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""The part of a reset that is the kernel's network: devices, routes, rules, sets, tables of ours. The node's
own links, addresses and routes are never touched, so that a session over ssh lives through it.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.tortie.cluster.plugins.module_utils import host, reset_iptables, reset_nft
from ansible_collections.tortie.cluster.plugins.module_utils.reset_action import (
    Action,
    Machine,
    ResetError,
    answer,
    command,
    runs,
)

WORKLOAD_DEVICE = re.compile(r"cali[0-9a-f]{11}")
VXLAN_DEVICE, IPIP_DEVICE, IPVS_DEVICE = "vxlan.calico", "tunl0", "kube-ipvs0"
PROTOCOL_BIRD, PROTOCOL_OURS = "12", "80"  # linux/rtnetlink.h: RTPROT_BIRD; 80 is ours
# rtnetlink's RTN_BLACKHOLE, as `ip -N` prints it.
BLACKHOLE = "6"
OUR_TABLES = re.compile(r"tortie.*|kube-proxy")  # kube-proxy's is that of its nftables mode (from 1.31)
OUR_SETS = re.compile(r"KUBE-.*|cali.*")
# The tables that iptables-nft makes on first use (iptables-nft(8)).
IPTABLES_TABLES = ("filter", "mangle", "nat", "raw", "security")
VARIANTS = ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")


def network(machine: Machine) -> list[Action]:
    """Everything of ours in the kernel's network: first what leads packets, then the devices."""
    if not machine.ours:
        return []
    return [*rules(), *routes(machine), *devices(machine)]


def filters(machine: Machine) -> list[Action]:
    """iptables, nftables and sets; apart from the devices, so that one failing keeps the other not back."""
    if not machine.ours:
        return []
    return [*iptables(machine), *nft_tables(), *ip_sets()]


def _links() -> list[dict[str, Any]]:
    text = answer("ip", "-json", "-details", "link", "show")
    links: list[dict[str, Any]] = json.loads(text or "[]")
    return [link for link in links if link.get("ifname")]


def devices(machine: Machine) -> list[Action]:
    """Delete our devices; tunl0 is the kernel's, and gets back what it had."""
    actions = []
    for link in _links():
        name, kind = str(link["ifname"]), str(link.get("linkinfo", {}).get("info_kind", ""))
        ours = bool(
            (kind == "veth" and WORKLOAD_DEVICE.fullmatch(name))
            or (kind == "vxlan" and name == VXLAN_DEVICE)
            or (kind == "dummy" and name == IPVS_DEVICE)
        )
        if ours:
            actions.append(Action(f"delete device {name}", partial(_delete_device, name)))
        elif name == IPIP_DEVICE:
            actions += _tunnel(machine, link)
    return actions


def _delete_device(name: str) -> None:
    # The other end of a veth pair goes with its namespace, at any moment.
    if host.output("ip", "link", "delete", name)[0] != 0 and Path("/sys/class/net", name).exists():
        raise ResetError(f"the kernel does not delete it; see 'ip -details link show {name}'.")


def _tunnel(machine: Machine, link: dict[str, Any]) -> list[Action]:
    """tunl0's addresses, MTU and state as they were; without a record, none and down."""
    before = machine.record.links.get(IPIP_DEVICE, {}) if machine.record else {}
    text = answer("ip", "-json", "-details", "address", "show", "dev", IPIP_DEVICE)
    now: dict[str, Any] = next(iter(host.parse_links(text or "[]")), {})
    extra = [a for a in now.get("addresses", []) if a not in before.get("addresses", [])]
    actions = [
        Action(f"delete address {a} of {IPIP_DEVICE}", runs("ip", "address", "delete", a, "dev", IPIP_DEVICE))
        for a in extra
    ]
    if now.get("up") and not before.get("up", False):
        actions.append(Action(f"set {IPIP_DEVICE} down", runs("ip", "link", "set", IPIP_DEVICE, "down")))
    mtu = before.get("mtu")
    if mtu is not None and int(link.get("mtu", mtu)) != mtu:
        actions.append(
            Action(f"set {IPIP_DEVICE} mtu {mtu}", runs("ip", "link", "set", IPIP_DEVICE, "mtu", str(mtu)))
        )
    return actions


def is_our_route(route: dict[str, Any], pool: ipaddress.IPv4Network | None) -> bool:
    """A route of `ip -N -json route`: of our protocol, or BIRD's on our devices or within the pods' pool."""
    protocol = str(route.get("protocol", ""))
    if protocol == PROTOCOL_OURS:
        return True
    if protocol != PROTOCOL_BIRD:
        return False
    device = str(route.get("dev", ""))
    if WORKLOAD_DEVICE.fullmatch(device) or device in (VXLAN_DEVICE, IPIP_DEVICE):
        return True
    try:
        return pool is not None and ipaddress.IPv4Network(route["dst"]).subnet_of(pool)
    except ValueError:
        return False  # `default`, or IPv6


def route_arguments(route: dict[str, Any]) -> list[str]:
    """The arguments of `ip route delete` for exactly this route."""
    words = ["blackhole"] if str(route.get("type", "")) == BLACKHOLE else []
    words.append(str(route["dst"]))
    for key, option in (("gateway", "via"), ("dev", "dev"), ("table", "table"), ("metric", "metric")):
        if route.get(key) is not None:
            words += [option, str(route[key])]
    return [*words, "protocol", str(route["protocol"])]


def routes(machine: Machine) -> list[Action]:
    """Delete our routes, in every table."""
    text = machine.record.pool if machine.record else ""
    pool = ipaddress.IPv4Network(text) if text else None
    actions = []
    for family in ("-4", "-6"):
        listing = answer("ip", "-N", family, "-json", "route", "show", "table", "all")
        for route in json.loads(listing or "[]"):
            if is_our_route(route, pool):
                words = route_arguments(route)
                deed = runs("ip", family, "route", "delete", *words)
                actions.append(Action(f"delete route {' '.join(words)}", deed))
    return actions


def rules() -> list[Action]:
    """Delete routing rules of our protocol."""
    actions = []
    for family in ("-4", "-6"):
        listing = answer("ip", "-N", family, "-json", "rule", "show")
        for rule in json.loads(listing or "[]"):
            if str(rule.get("protocol", "")) == PROTOCOL_OURS:
                words = ["priority", str(rule["priority"]), "protocol", PROTOCOL_OURS]
                actions.append(
                    Action(f"delete rule {' '.join(words)}", runs("ip", family, "rule", "delete", *words))
                )
    return actions


def iptables(machine: Machine) -> list[Action]:
    """Kubernetes' chains and the rules into them, of both back ends and both families."""
    actions = []
    for variant in VARIANTS:
        six, legacy = variant.startswith("ip6"), variant.endswith("legacy")
        names = host.read(f"/proc/net/ip{'6' if six else ''}_tables_names").split() if legacy else []
        if legacy and not names:
            continue  # iptables-legacy-save would load the modules of the tables it looks for
        if not shutil.which(f"{variant}-save"):
            if legacy:
                machine.notes.append(
                    f"The kernel has {variant} tables ({', '.join(names)}) and this host no {variant}-save:"
                    " they were not looked at."
                )
            continue
        found = reset_iptables.find(command(f"{variant}-save"))
        if found:
            count = sum(len(removal.chains) for removal in found.values())
            deed = partial(_restore, variant, reset_iptables.script(found))
            actions.append(Action(f"remove {count} chains of {variant} and the rules into them", deed))
    return actions


def _restore(variant: str, script: str) -> None:
    wait = ["--wait=60"] if variant.endswith("legacy") else []  # the other back end has no lock
    command(f"{variant}-restore", "--noflush", *wait, stdin=script)


def empty_chains(machine: Machine) -> list[Action]:
    """Base chains that iptables-nft made for Kubernetes: they do nothing now, and were not there before."""
    if machine.record is None:
        return []
    return [
        Action(f"delete empty chain {' '.join(chain)}", partial(reset_nft.delete_chain, *chain))
        for chain in sorted(reset_nft.read().idle)
        if chain[0] in ("ip", "ip6")
        and chain[1] in IPTABLES_TABLES
        and " ".join(chain) not in machine.record.nft_chains
    ]


def empty_tables(machine: Machine) -> list[Action]:
    """Tables that iptables-nft made for Kubernetes, once they have no chain."""
    if machine.record is None:
        return []
    ruleset = reset_nft.read()
    filled = {chain[:2] for chain in ruleset.chains}
    return [
        Action(f"delete empty table {' '.join(table)}", partial(reset_nft.delete_table, *table))
        for table in ruleset.tables
        if table[0] in ("ip", "ip6")
        and table[1] in IPTABLES_TABLES
        and table not in filled
        and " ".join(table) not in machine.record.nft_tables
    ]


def nft_tables() -> list[Action]:
    """nftables tables with our names."""
    return [
        Action(f"delete nftables table {family} {name}", partial(reset_nft.delete_table, family, name))
        for family, name in reset_nft.read().tables
        if OUR_TABLES.fullmatch(name) and family in reset_nft.NUMBERS
    ]


def ip_sets() -> list[Action]:
    """Sets of kube-proxy (mode ipvs)."""
    names = [name for name in answer("ipset", "list", "-name").split() if OUR_SETS.fullmatch(name)]
    return [Action(f"destroy set {name}", runs("ipset", "destroy", name)) for name in names]
