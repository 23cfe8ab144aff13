# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""The nodes of the cluster from the variables of their hosts.

A node's name has its default (the host's own, in lower case) in the role kubernetes; the variables of other
hosts do not carry it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

HostVars = Mapping[str, Mapping[str, Any]]


def node_name(host: str, hostvars: HostVars) -> str:
    """The node's name in the cluster."""
    return str(hostvars[host].get("kubernetes_node_name", host.lower()))


def cluster_nodes(hosts: Iterable[str], hostvars: HostVars) -> list[dict[str, str]]:
    """`[{address, name}]` of these hosts, from the inventory alone."""
    return [
        {"address": str(hostvars[host]["kubernetes_node_ip"]), "name": node_name(host, hostvars)}
        for host in hosts
    ]


def worker_nodes(hosts: Iterable[str], hostvars: HostVars) -> list[dict[str, Any]]:
    """`[{name, joined}]` of these hosts, which must have been looked at (module host_probe)."""
    return [
        {
            "name": node_name(host, hostvars),
            "joined": bool(hostvars[host]["ansible_facts"]["host_probe"]["joined"]),
        }
        for host in hosts
    ]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {"cluster_nodes": cluster_nodes, "worker_nodes": worker_nodes}
