#!/usr/bin/python
"""The network of a container lab."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_network
short_description: The network of a container lab
description:
  - One network namespace with a bridge, and one for every node, joined by veth pairs.
  - The machine's own network is not touched.
  - Makes what is missing, also after a run that was killed half-way.
  - With O(state=absent) ends the processes in the lab's namespaces and deletes these.
extends_documentation_fragment: tortie.cluster.lab
author: Tortie contributors (@tortie)
"""

EXAMPLES = r"""
- name: Make the network
  tortie.cluster.lab_network:
    name: tortie
    directory: /srv/tortie/.lab
    nodes:
      - {name: master-01, address: 10.30.200.1}
      - {name: worker-01, address: 10.30.200.2}
"""

RETURN = r"""
commands:
  description: Commands that were run, or would be in check mode.
  type: list
  elements: str
  returned: when O(state=present)
namespaces:
  description: Namespaces that were removed.
  type: list
  elements: str
  returned: when O(state=absent)
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import lab_network
from ansible_collections.tortie.cluster.plugins.module_utils.lab_commands import CommandError, run
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import (
    LAB_ARGUMENTS,
    Lab,
    PlanError,
    lab_from_params,
)


def ensure_present(lab: Lab, check: bool) -> dict[str, Any]:
    """The module's result for a lab that should exist."""
    if not check:
        lab_network.claim(lab)
        lab_network.remove_broken_namespaces(lab)
    commands = lab_network.missing_commands(lab, lab_network.observe(lab))
    if commands and not check:
        for command in commands:
            run(command)
        # br_netfilter, where loaded, is on by default in a new namespace: look again at what came with it.
        for command in lab_network.missing_commands(lab, lab_network.observe(lab)):
            run(command)
    return {"changed": bool(commands), "commands": [" ".join(command) for command in commands]}


def ensure_absent(lab: Lab, check: bool) -> dict[str, Any]:
    """The module's result for a lab that should not exist. A lab of the same name in another folder stays."""
    if lab_network.owned_by_other(lab):
        return {"changed": False, "namespaces": []}
    names = lab_network.existing_namespaces(lab)
    changed = bool(names) or lab.run_dir.exists()
    if not check:
        for name in names:
            lab_network.delete_namespace(name)
        lab_network.release(lab)
    return {"changed": changed, "namespaces": names}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=LAB_ARGUMENTS, supports_check_mode=True)
    try:
        lab = lab_from_params(module.params)
        act = ensure_present if module.params["state"] == "present" else ensure_absent
        with lab_network.exclusive(lab):
            result = act(lab, module.check_mode)
    except (CommandError, PlanError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
