#!/usr/bin/python
"""Ansible module: what a node's kernel, BIRD and files say about the network."""

from __future__ import annotations

DOCUMENTATION = r"""
module: network_facts
short_description: Read a node's links, routes, neighbours, BGP sessions and masquerading
version_added: 0.1.0
author: Tortie contributors
description:
  - Asks the kernel (iproute2, nft, /proc) and BIRD (its control socket) and returns plain data.
  - It never fails because something is missing; what could not be read is told in RV(network.errors),
    RV(network.bird_error) and RV(network.masquerade_error).
options:
  addresses:
    description: IPv4 addresses for which the kernel's path (device, gateway) is wanted.
    type: list
    elements: str
    default: []
  bird_socket:
    description: BIRD's control socket.
    type: path
    default: /var/run/calico/bird.ctl
attributes:
  check_mode:
    description: It only reads.
    support: full
"""

EXAMPLES = r"""
- name: Read what the node says about its network
  tortie.cluster.network_facts:
    addresses: [10.30.200.2]
  register: node
"""

RETURN = r"""
network:
  description: The facts.
  returned: always
  type: dict
  contains:
    nodename: {description: Content of /var/lib/calico/nodename., type: str}
    mtu_file: {description: Content of /var/lib/calico/mtu., type: int}
    links: {description: Links by name., type: dict}
    routes: {description: IPv4 routes of the main table., type: list, elements: dict}
    neighbours: {description: IPv4 neighbours., type: list, elements: dict}
    fdb: {description: Forwarding entries of the VXLAN device., type: list, elements: dict}
    sessions: {description: BGP sessions with the networks they imported., type: list, elements: dict}
    bird_error: {description: Why BIRD could not be asked., type: str}
    masquerade: {description: What our nftables tables masquerade., type: dict}
    masquerade_error: {description: Why nftables could not be asked., type: str}
    paths: {description: Device and gateway by address., type: dict}
    errors: {description: What could not be read., type: list, elements: str}
"""

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import verify_bird, verify_kernel
from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import Masquerade, NodeFacts

NODENAME_FILE = Path("/var/lib/calico/nodename")
MTU_FILE = Path("/var/lib/calico/mtu")
VXLAN_DEVICE = "vxlan.calico"
TABLE_PREFIX = "tortie"


class Reader:
    """Runs commands and keeps the sentences about those that failed."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self.errors: list[str] = []

    def json(self, *command: str) -> list[dict[str, Any]]:
        """The JSON list that `command` prints; an empty list, and an error kept, when it fails."""
        status, output, error = self._module.run_command(list(command))
        if status != 0:
            self.errors.append(f"{' '.join(command)}: {error.strip() or f'exit status {status}'}")
            return []
        loaded = json.loads(output or "[]")
        return loaded if isinstance(loaded, list) else [loaded]

    def text(self, path: Path) -> str:
        """The file's content; empty, and an error kept, when it cannot be read."""
        try:
            return path.read_text().strip()
        except OSError as error:
            self.errors.append(f"{path}: {error.strerror}")
            return ""


def read_masquerade(reader: Reader) -> Masquerade:
    """Our nftables tables and what they masquerade."""
    listing = reader.json("nft", "-j", "list", "tables")
    tables = [entry["table"] for top in listing for entry in top.get("nftables", []) if "table" in entry]
    ours = [(table["family"], table["name"]) for table in tables if table["name"].startswith(TABLE_PREFIX)]
    rulesets = [
        top for family, name in ours for top in reader.json("nft", "-j", "list", "table", family, name)
    ]
    return verify_kernel.parse_masquerade([f"{family} {name}" for family, name in ours], rulesets)


def collect(module: AnsibleModule) -> NodeFacts:
    """Everything, whatever is missing."""
    reader = Reader(module)
    links = verify_kernel.parse_links(reader.json("ip", "-j", "-d", "address", "show"))
    fdb = reader.json("bridge", "-j", "fdb", "show", "dev", VXLAN_DEVICE) if VXLAN_DEVICE in links else []
    for entry in fdb:
        entry.setdefault("ifname", VXLAN_DEVICE)
    mtu = reader.text(MTU_FILE)
    facts = NodeFacts(
        nodename=reader.text(NODENAME_FILE),
        mtu_file=int(mtu) if mtu.isdecimal() else 0,
        links=links,
        routes=verify_kernel.parse_routes(
            reader.json("ip", "-N", "-j", "-4", "route", "show", "table", "main")
        ),
        neighbours=verify_kernel.parse_neighbours(
            reader.json("ip", "-j", "-4", "neighbour", "show", "nud", "all")
        ),
        fdb=verify_kernel.parse_fdb(fdb),
        sessions=[],
        bird_error="",
        masquerade=None,
        masquerade_error="",
        paths={
            address: verify_kernel.parse_path(reader.json("ip", "-j", "-4", "route", "get", address))
            for address in module.params["addresses"]
        },
        errors=reader.errors,
    )
    try:
        facts["sessions"] = verify_bird.sessions(module.params["bird_socket"])
    except verify_bird.BirdError as error:
        facts["bird_error"] = str(error)
    if module.get_bin_path("nft") is None:
        facts["masquerade_error"] = "the node has no nft command"
    else:
        facts["masquerade"] = read_masquerade(reader)
    return facts


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "addresses": {"type": "list", "elements": "str", "default": []},
            "bird_socket": {"type": "path", "default": verify_bird.SOCKET},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LANG": "C", "LC_ALL": "C"}
    module.exit_json(changed=False, network=collect(module))


if __name__ == "__main__":
    main()
