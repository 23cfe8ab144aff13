#!/usr/bin/python
"""The machines of a container lab."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_machines
short_description: The machines of a container lab
description:
  - One podman container per node, with systemd as its first process, in the node's network namespace.
  - A container is left alone as long as it runs in its namespace; a stopped one is started again.
  - Returns when ssh answers and systemd has finished booting on every node.
  - With O(state=absent) removes all containers of the lab, those of nodes no longer in O(nodes) too.
extends_documentation_fragment: tortie.cluster.lab
options:
  image:
    description: Image for containers that have to be made. Needed with O(state=present).
    type: str
  boot_timeout:
    description: Seconds that a node may take to boot.
    type: int
    default: 90
author: Tortie contributors (@tortie)
"""

EXAMPLES = r"""
- name: Start the machines
  tortie.cluster.lab_machines:
    name: tortie
    directory: /srv/tortie/.lab
    image: localhost/tortie-lab-node:5ba612c40b5f
    nodes:
      - {name: master-01, address: 10.30.200.1}
"""

RETURN = r"""
actions:
  description: What was done (in check mode, would be), by node.
  type: dict
  returned: when O(state=present)
removed:
  description: Containers that were removed.
  type: list
  elements: str
  returned: when O(state=absent)
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import lab_machine
from ansible_collections.tortie.cluster.plugins.module_utils.lab_commands import CommandError
from ansible_collections.tortie.cluster.plugins.module_utils.lab_network import exclusive, owned_by_other
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import (
    LAB_ARGUMENTS,
    Lab,
    Node,
    PlanError,
    lab_from_params,
)


def ensure_present(lab: Lab, image: str, boot_timeout: int, check: bool) -> dict[str, Any]:
    """The module's result for machines that should run."""
    actions = lab_machine.planned_actions(lab)
    if not check:

        def bring_up(node: Node) -> None:
            if node.name in actions:
                lab_machine.apply(lab, node, actions[node.name], image)
            lab_machine.wait_until_booted(lab, node, boot_timeout)

        lab_machine.for_each(list(lab.nodes), bring_up)
    return {"changed": bool(actions), "actions": actions}


def ensure_absent(lab: Lab, check: bool) -> dict[str, Any]:
    """The module's result for machines that should not exist. Another folder's lab of the same name stays."""
    if owned_by_other(lab):
        return {"changed": False, "removed": []}
    names = [container.name for container in lab_machine.containers(lab).values()]
    if not check:
        lab_machine.remove_containers(lab)
        lab_machine.tidy_idle_podman()
    return {"changed": bool(names), "removed": names}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            **LAB_ARGUMENTS,
            "image": {"type": "str"},
            "boot_timeout": {"type": "int", "default": 90},
        },
        required_if=[("state", "present", ("image",))],
        supports_check_mode=True,
    )
    try:
        lab = lab_from_params(module.params)
        with exclusive(lab):
            if module.params["state"] == "present":
                image, boot_timeout = module.params["image"], module.params["boot_timeout"]
                result = ensure_present(lab, image, boot_timeout, module.check_mode)
            else:
                result = ensure_absent(lab, module.check_mode)
    except (CommandError, PlanError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
