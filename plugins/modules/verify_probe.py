#!/usr/bin/python
"""Ansible module: what the probe pods of this node can reach."""

from __future__ import annotations

DOCUMENTATION = r"""
module: verify_probe
short_description: Ask the probe pods of this node what they can reach
version_added: 0.1.0
author: Tortie contributors
description:
  - Runs on a node and asks the node's own probe pods over HTTP, at their pod addresses.
  - The pods then try the target pods of all nodes (TCP, ICMP, largest packet with the don't-fragment flag),
    services and DNS.
  - It never fails because something does not work; that is told in RV(probe).
options:
  cluster:
    description: What M(tortie.cluster.verify_cluster) returned.
    type: dict
    required: true
  dns_name:
    description: Name that the pods resolve where the cluster has a DNS service.
    type: str
    default: kubernetes.default.svc.cluster.local
  settle:
    description: Seconds to retry what does not work yet.
    type: float
    default: 10.0
  nodename_file:
    description: File that holds the node's name.
    type: path
    default: /var/lib/calico/nodename
attributes:
  check_mode:
    description: It only sends packets.
    support: full
"""

EXAMPLES = r"""
- name: Ask the probe pods of each node
  tortie.cluster.verify_probe:
    cluster: "{{ hostvars[groups['control_plane'][0]]['cluster_facts']['cluster'] }}"
  register: probe
"""

RETURN = r"""
probe:
  description: What the pods could do.
  returned: always
  type: dict
  contains:
    interfaces: {description: The pods' eth0., type: dict}
    peers: {description: Result by node., type: dict}
    services: {description: Result by service., type: dict}
    dns_addresses: {description: What the name resolved to., type: list, elements: str}
    dns_detail: {description: Why it did not., type: str}
    fragments: {description: IPv4 fragments the node created meanwhile; -1 when unknown., type: int}
    errors: {description: Questions that got no answer., type: list, elements: str}
"""

from pathlib import Path
from typing import cast

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils.verify_kernel import fragments_created
from ansible_collections.tortie.cluster.plugins.module_utils.verify_probing import probe
from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import ClusterFacts

SNMP = Path("/proc/net/snmp")


def read_fragments() -> int:
    """Fragments created since boot in this network namespace; -1 when the kernel does not say."""
    try:
        return fragments_created(SNMP.read_text())
    except (OSError, ValueError):
        return -1


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "dict", "required": True},
            "dns_name": {"type": "str", "default": "kubernetes.default.svc.cluster.local"},
            "settle": {"type": "float", "default": 10.0},
            "nodename_file": {"type": "path", "default": "/var/lib/calico/nodename"},
        },
        supports_check_mode=True,
    )
    cluster = cast(ClusterFacts, module.params["cluster"])
    file = Path(module.params["nodename_file"])
    nodename = file.read_text().strip() if file.exists() else ""
    before = read_fragments()
    facts = probe(cluster, nodename, module.params["dns_name"], module.params["settle"])
    after = read_fragments()
    facts["fragments"] = after - before if before >= 0 and after >= 0 else -1
    module.exit_json(changed=False, probe=facts)


if __name__ == "__main__":
    main()
