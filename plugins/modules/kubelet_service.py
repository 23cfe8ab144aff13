#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Make kubelet a service that starts at boot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubelet_service
short_description: Make kubelet a service
description:
  - Writes kubelet's systemd unit with the arguments that kubeadm relies on, or only a drop-in when a
    package brings the unit, and enables it.
  - Does not start it. Before kubeadm has run there is nothing to start, and kubeadm starts it.
options:
  program:
    description: Path of kubelet. Without it the unit is left to the package.
    type: path
  environment:
    description: Environment of kubelet.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Make kubelet a service
  tortie.cluster.kubelet_service:
    program: /usr/local/bin/kubelet
  notify: Restart kubelet
"""

RETURN = r"""
enabled:
  description: Whether the service had to be enabled.
  returned: always
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import host, kubelet_unit, managed_files

SERVICE = "kubelet.service"


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"program": {"type": "path"}, "environment": {"type": "dict", "default": {}}},
        supports_check_mode=True,
    )
    environment = {name: str(value) for name, value in module.params["environment"].items()}
    files = kubelet_unit.unit_files(module.params["program"] or "", environment)
    changes = [
        change for change in (managed_files.whole_file(path, text) for path, text in files.items()) if change
    ]
    enable = host.output("systemctl", "is-enabled", "--quiet", SERVICE)[0] != 0
    if not module.check_mode:
        try:
            for change in changes:
                managed_files.apply(change)
        except OSError as error:
            module.fail_json(msg=str(error))
        commands = ([["daemon-reload"]] if changes else []) + ([["enable", SERVICE]] if enable else [])
        for command in commands:
            status, _text = host.output("systemctl", *command)
            if status != 0:
                module.fail_json(
                    msg=(
                        f"'systemctl {' '.join(command)}' ended with status {status}; see 'journalctl -xe'"
                        " on this host."
                    )
                )
    module.exit_json(
        changed=bool(changes) or enable, enabled=enable, diff=[change.diff() for change in changes]
    )


if __name__ == "__main__":
    main()
