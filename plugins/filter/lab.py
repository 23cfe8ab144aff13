"""Filters that read the lab's nodes out of an inventory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError


def lab_nodes(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Name and address of every host: its `kubernetes_node_ip`, or else its `ansible_host`."""
    nodes = []
    for host in hosts:
        variables = hostvars[host]
        address = variables.get("kubernetes_node_ip") or variables.get("ansible_host")
        if not address:
            raise AnsibleFilterError(
                f"host {host} has no address: set kubernetes_node_ip (or ansible_host) in the inventory."
            )
        nodes.append({"name": str(host), "address": str(address)})
    return nodes


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {"lab_nodes": lab_nodes}
