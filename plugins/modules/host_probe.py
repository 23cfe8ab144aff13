#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Look at a machine without changing it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_probe
short_description: Look at a machine that is to become a node
description:
  - Reads what the later roles and M(tortie.cluster.judge_hosts) need to know, in one round trip, and
    changes nothing.
  - What the kernel can do is tried in a network namespace of a child process. A kernel module that is
    not loaded is
    looked for with a dry run of modprobe and never loaded.
options:
  ports:
    description: TCP ports for which to report who listens on them.
    type: list
    elements: int
    default: []
attributes:
  check_mode:
    support: full
    description: Runs the same way in check mode.
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Look at the machines
  tortie.cluster.host_probe:
    ports: [6443, 10250]
"""

RETURN = r"""
ansible_facts:
  description: >-
    One fact C(host_probe), a dictionary with architecture, cgroup, features, links, packages, tunnels
    and more.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import host


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"ports": {"type": "list", "elements": "int", "default": []}},
        supports_check_mode=True,
    )
    module.exit_json(changed=False, ansible_facts={"host_probe": host.probe(module.params["ports"])})


if __name__ == "__main__":
    main()
