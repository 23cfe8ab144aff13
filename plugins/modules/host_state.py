#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Write down a machine's state, to compare two moments."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_state
short_description: A machine's state as text
description:
  - Links, addresses, routes, rules, nftables and iptables rulesets, sets, kernel settings, mounts, swap,
    systemd units, packages, and files below /etc, /opt, /usr/local, /usr/libexec and /var/lib with their
    digests.
  - Leaves out what changes by itself; docs/reset.md has the list. Changes nothing.
options:
  packages_stay:
    description: Leave out packages and their databases, because packages that have come are to stay.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Write down what the machine is like
  tortie.cluster.host_state:
  register: before
"""

RETURN = r"""
state:
  description: Sorted lines by section.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import host_state


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"packages_stay": {"type": "bool", "default": False}}, supports_check_mode=True
    )
    try:
        state = host_state.take(module.params["packages_stay"])
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"The machine's state cannot be read: {error}")
    module.exit_json(changed=False, state=state)


if __name__ == "__main__":
    main()
