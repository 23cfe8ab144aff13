#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Make a machine ready to be a node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_config
short_description: Make a machine ready to be a node
description:
  - Kernel modules, kernel settings, swap, the names of the other nodes, and files that tell network
    services to leave
    our devices alone. Writes only files of its own and blocks that it has marked.
  - A kernel module counts as present when it is loaded or built in. A kernel setting is written only
    where its live value differs.
options:
  modules:
    description: Kernel modules to load now and at boot.
    type: list
    elements: str
    default: []
  sysctls:
    description: Kernel settings, now and at boot.
    type: dict
    default: {}
  unmanaged_links:
    description: Name patterns of the links that NetworkManager and systemd-networkd must leave alone.
    type: list
    elements: str
    default: []
  hosts:
    description: Nodes for /etc/hosts. Without this option the file is left alone.
    type: list
    elements: dict
    suboptions:
      address:
        description: The node's address.
        type: str
        required: true
      name:
        description: The node's name.
        type: str
        required: true
  swap_off:
    description: Switch swap off now and at boot (lines of /etc/fstab become comments).
    type: bool
    default: false
  network_manager:
    description: Whether NetworkManager runs here.
    type: bool
    default: false
  networkd:
    description: Whether systemd-networkd runs here.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Prepare the machine
  tortie.cluster.host_config:
    modules: [overlay, br_netfilter]
    sysctls:
      net.ipv4.ip_forward: "1"
    unmanaged_links: ["cali*", tunl0, vxlan.calico]
    swap_off: true
"""

RETURN = r"""
services:
  description: Name and state (reloaded or restarted) of the systemd units that must read their changed files.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import host_settings

HOST_OPTIONS = {"address": {"type": "str", "required": True}, "name": {"type": "str", "required": True}}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "modules": {"type": "list", "elements": "str", "default": []},
            "sysctls": {"type": "dict", "default": {}},
            "unmanaged_links": {"type": "list", "elements": "str", "default": []},
            "hosts": {"type": "list", "elements": "dict", "options": HOST_OPTIONS},
            "swap_off": {"type": "bool", "default": False},
            "network_manager": {"type": "bool", "default": False},
            "networkd": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    hosts = module.params["hosts"]
    wanted = host_settings.Wanted(
        modules=module.params["modules"],
        sysctls={name: " ".join(str(value).split()) for name, value in module.params["sysctls"].items()},
        links=module.params["unmanaged_links"],
        hosts=None if hosts is None else [(item["address"], item["name"]) for item in hosts],
        swap_off=module.params["swap_off"],
    )
    try:
        todo = host_settings.plan(wanted, module.params["network_manager"], module.params["networkd"])
        if todo and not module.check_mode:
            host_settings.carry_out(todo, wanted.root)
    except (host_settings.HostSettingsError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(todo), diff=todo.diff(), services=todo.services())


if __name__ == "__main__":
    main()
