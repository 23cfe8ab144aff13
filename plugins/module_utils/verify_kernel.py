"""The kernel's own words (iproute2 and nft JSON, /proc) turned into the facts of verify_shapes."""

from __future__ import annotations

from typing import Any

from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import (
    Link,
    Masquerade,
    Neighbour,
    Path,
    Route,
    Vxlan,
)

Json = dict[str, Any]

# Kinds by name (ip -d) and by RTN_ number of linux/rtnetlink.h (ip -N).
ROUTE_KINDS = {"1": "unicast", "6": "blackhole"}
ANY = "0.0.0.0/0"


def parse_links(entries: list[Json]) -> dict[str, Link]:
    """`ip -j -d address show`."""
    links: dict[str, Link] = {}
    for entry in entries:
        if not entry:
            continue
        links[entry["ifname"]] = Link(
            mtu=entry["mtu"],
            up="UP" in entry.get("flags", []),
            mac=entry.get("address", ""),
            addresses=[
                f"{address['local']}/{address['prefixlen']}"
                for address in entry.get("addr_info", [])
                if address.get("family") == "inet" and "local" in address
            ],
            vxlan=_vxlan(entry.get("linkinfo", {})),
        )
    return links


def _vxlan(linkinfo: Json) -> Any:
    if linkinfo.get("info_kind") != "vxlan":
        return None
    data = linkinfo.get("info_data", {})
    return Vxlan(
        vni=int(data.get("id", 0)),
        port=int(data.get("port", 0)),
        local=data.get("local", ""),
        parent=data.get("link", ""),
    )


def parse_routes(entries: list[Json]) -> list[Route]:
    """`ip -N -j -4 route show table main`: numbers instead of names, so that no rt_protos file matters."""
    routes = []
    for entry in entries:
        if not entry:
            continue
        destination = entry["dst"]
        kind = str(entry.get("type", "unicast"))
        routes.append(
            Route(
                destination=_cidr(destination),
                device=entry.get("dev", ""),
                gateway=entry.get("gateway", ""),
                protocol=int(entry.get("protocol", 3)),  # iproute2 leaves out RTPROT_BOOT
                kind=ROUTE_KINDS.get(kind, kind),
                onlink="onlink" in entry.get("flags", []),
            )
        )
    return routes


def _cidr(destination: str) -> str:
    if destination == "default":
        return ANY
    return destination if "/" in destination else destination + "/32"


def parse_neighbours(entries: list[Json]) -> list[Neighbour]:
    """`ip -j -4 neighbour show nud all`."""
    return [
        Neighbour(
            device=entry["dev"],
            address=entry["dst"],
            mac=entry.get("lladdr", ""),
            permanent="PERMANENT" in entry.get("state", []),
        )
        for entry in entries
        if entry
    ]


def parse_fdb(entries: list[Json]) -> list[Neighbour]:
    """`bridge -j fdb show dev X`: entries that lead to another node (with `dst`)."""
    return [
        Neighbour(
            device=entry.get("ifname", ""),
            address=entry["dst"],
            mac=entry.get("mac", ""),
            permanent=entry.get("state", "") == "permanent",
        )
        for entry in entries
        if entry and "dst" in entry
    ]


def parse_path(entries: list[Json]) -> Path:
    """`ip -j route get A`; a local address leaves through lo."""
    first = entries[0] if entries else {}
    return Path(device=first.get("dev", ""), gateway=first.get("gateway", ""))


def parse_masquerade(tables: list[str], rulesets: list[Json]) -> Masquerade:
    """`nft -j list table` of each of our tables: is there a masquerade, and for which source networks."""
    objects = [entry for ruleset in rulesets for entry in ruleset.get("nftables", [])]
    sets = {entry["set"]["name"]: entry["set"].get("elem", []) for entry in objects if "set" in entry}
    networks: set[str] = set()
    masquerades = False
    for rule in (entry["rule"] for entry in objects if "rule" in entry):
        if not any("masquerade" in statement for statement in rule["expr"]):
            continue
        masquerades = True
        for value in _sources(rule["expr"]):
            elements = (
                sets.get(value[1:], []) if isinstance(value, str) and value.startswith("@") else [value]
            )
            networks |= {_network(element) for element in elements}
    return Masquerade(tables=tables, masquerades=masquerades, networks=sorted(networks))


def _sources(statements: list[Json]) -> list[Any]:
    """What `ip saddr` is compared with in a rule: set names (@name), addresses, prefixes."""
    matches = [statement["match"] for statement in statements if "match" in statement]
    return [
        match["right"]
        for match in matches
        if match["op"] == "==" and match["left"] == {"payload": {"protocol": "ip", "field": "saddr"}}
    ]


def _network(element: Any) -> str:
    """An element of a set as CIDR; a range of addresses, which is none, as `first-last`."""
    if isinstance(element, dict) and "prefix" in element:
        return f"{element['prefix']['addr']}/{element['prefix']['len']}"
    if isinstance(element, dict) and "range" in element:
        return "-".join(element["range"])
    return f"{element}/32"


def fragments_created(snmp: str) -> int:
    """FragCreates of the text of /proc/net/snmp (RFC 1213 ipFragCreates): names, then values."""
    lines = [line.split() for line in snmp.splitlines() if line.startswith("Ip:")]
    if len(lines) != 2 or "FragCreates" not in lines[0]:
        raise ValueError("/proc/net/snmp has no Ip: FragCreates")
    return int(lines[1][lines[0].index("FragCreates")])
