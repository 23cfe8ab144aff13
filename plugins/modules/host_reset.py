#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Make a machine what it was before the roles."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_reset
short_description: Make a machine what it was before it became a node
description:
  - Stops kubelet and its pods, and removes what the roles, kubeadm and the network have left, guided by the
    record that M(tortie.cluster.host_record) wrote before the first change, and by the marks in our files.
  - Removes nothing that it cannot know as ours. Without a record, kernel settings, packages, programs and
    containerd's data stay as they are.
  - May be cut off anywhere; the next run finishes.
options:
  remove_packages:
    description: Also remove the packages that the roles have installed, and their repositories.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says what would be removed.
  diff_mode:
    support: full
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Reset the machine
  tortie.cluster.host_reset:
"""

RETURN = r"""
removed:
  description: What was (or would be) removed or restored, a line each, in order.
  returned: always
  type: list
  elements: str
notes:
  description: What stays although it looks like ours, and why.
  returned: always
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import kubeadm_run, reset_machine

# A run that is making a node of this host at the moment is waited for this long.
LOCK_SECONDS = 60.0


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"remove_packages": {"type": "bool", "default": False}}, supports_check_mode=True
    )
    try:
        machine = reset_machine.look(module.params["remove_packages"])
        if module.check_mode:
            outcome = reset_machine.reset(machine, look_only=True)
        else:
            with kubeadm_run.alone(LOCK_SECONDS):
                outcome = reset_machine.reset(machine, look_only=False)
    except (kubeadm_run.KubeadmError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    lines = "".join(f"{line}\n" for line in outcome.done)
    result: dict[str, Any] = {
        "changed": bool(outcome.done),
        "removed": outcome.done,
        "notes": machine.notes,
        "diff": {"before": lines, "after": "", "before_header": "to remove", "after_header": "to remove"},
    }
    for note in machine.notes:
        module.warn(note)
    if outcome.failed:
        sentences = "\n".join(f"- {line}" for line in outcome.failed)
        module.fail_json(
            msg=f"The host is not reset yet; correct this and reset again:\n{sentences}", **result
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
