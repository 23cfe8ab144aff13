#!/usr/bin/python
"""The way from 127.0.0.1 to the API server of a container lab."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_forward
short_description: The way from 127.0.0.1 to the API server of a container lab
description:
  - A process that listens on 127.0.0.1 and connects from inside the lab's network.
  - When O(port) is taken it listens on a free one; RV(port), and C(api.json) in the lab's folder, say which.
extends_documentation_fragment: tortie.cluster.lab
options:
  program:
    description: Path of the forwarder. Needed with O(state=present).
    type: path
  target:
    description: Address and port of the API server on the lab's network. Needed with O(state=present).
    type: str
  port:
    description: Port on 127.0.0.1.
    type: int
    default: 6443
author: Tortie contributors (@tortie)
"""

EXAMPLES = r"""
- name: Forward to the API server
  tortie.cluster.lab_forward:
    name: tortie
    directory: /srv/tortie/.lab
    program: /srv/tortie/lab/containers/forward.py
    target: 10.30.200.1:6443
    nodes:
      - {name: master-01, address: 10.30.200.1}
"""

RETURN = r"""
port:
  description: Port on 127.0.0.1 that leads to the API server; 0 in check mode when none is running.
  type: int
  returned: when O(state=present)
"""

import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import lab_forward
from ansible_collections.tortie.cluster.plugins.module_utils.lab_commands import CommandError
from ansible_collections.tortie.cluster.plugins.module_utils.lab_network import exclusive
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import (
    LAB_ARGUMENTS,
    Lab,
    PlanError,
    lab_from_params,
)


def ensure_present(module: AnsibleModule, lab: Lab) -> dict[str, Any]:
    """The module's result for a forwarder that should run."""
    target, port = module.params["target"], module.params["port"]
    record = lab_forward.read_record(lab_forward.record_path(lab))
    if record is not None and lab_forward.serves(record, target, port, lab_forward.namespace_inode(lab)):
        return {"changed": False, "port": record.port}
    if module.check_mode:
        return {"changed": True, "port": 0}
    lab_forward.stop(lab)
    record = lab_forward.start(lab, sys.executable, module.params["program"], target, port)
    if record.port != port:
        module.warn(
            f"Port {port} of 127.0.0.1 is taken, so the API server of lab {lab.name} is at "
            f"127.0.0.1:{record.port}; set LAB_API_PORT to choose another."
        )
    return {"changed": True, "port": record.port}


def ensure_absent(module: AnsibleModule, lab: Lab) -> dict[str, Any]:
    """The module's result for a forwarder that should not run."""
    record = lab_forward.read_record(lab_forward.record_path(lab))
    running = record is not None and lab_forward.is_running(record)
    if not module.check_mode:
        lab_forward.stop(lab)
    return {"changed": running}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            **LAB_ARGUMENTS,
            "program": {"type": "path"},
            "target": {"type": "str"},
            "port": {"type": "int", "default": 6443},
        },
        required_if=[("state", "present", ("program", "target"))],
        supports_check_mode=True,
    )
    try:
        lab = lab_from_params(module.params)
        act = ensure_present if module.params["state"] == "present" else ensure_absent
        with exclusive(lab):
            result = act(module, lab)
    except (CommandError, PlanError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
