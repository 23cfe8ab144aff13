#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Record what a machine is like before the roles change it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_record
short_description: Record what a machine is like before it becomes a node
description:
  - Writes /var/lib/tortie/before.json once, before the first change, so that M(tortie.cluster.host_reset) can
    give back what was. A machine on which files of the roles are already gets no record.
  - With O(packages_before) it notes which packages have been installed since, for a reset that is to remove
    them.
options:
  cni_bin_dir:
    description: Folder of the CNI plugins.
    type: str
    default: /opt/cni/bin
  cni_conf_dir:
    description: Folder of the CNI configuration.
    type: str
    default: /etc/cni/net.d
  pool:
    description: The pods' addresses, by which routes without encapsulation are known as ours.
    type: str
    default: ""
  packages_before:
    description: Names of the packages that were installed before the tasks just run.
    type: list
    elements: str
attributes:
  check_mode:
    support: full
    description: Says that a record would be written.
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Record what the machine is like
  tortie.cluster.host_record:
    pool: 10.5.0.0/16
"""

RETURN = r"""
record:
  description: Whether there is a record of this machine.
  returned: always
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import host, reset_files, reset_record


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "cni_bin_dir": {"type": "str", "default": reset_record.CNI_BIN_DIR},
            "cni_conf_dir": {"type": "str", "default": reset_record.CNI_CONF_DIR},
            "pool": {"type": "str", "default": ""},
            "packages_before": {"type": "list", "elements": "str"},
        },
        supports_check_mode=True,
    )
    before = module.params["packages_before"]
    try:
        record = reset_record.load()
        if before is not None:
            new = set(host.installed_packages()) - set(before)
            noted = not module.check_mode and reset_record.note_packages(new)
            module.exit_json(changed=noted, record=record is not None)
        wanted = record is None and not reset_files.marked_files()
        if wanted and not module.check_mode:
            reset_record.begin(
                reset_record.take(
                    module.params["cni_bin_dir"], module.params["cni_conf_dir"], module.params["pool"]
                )
            )
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=wanted, record=wanted or record is not None)


if __name__ == "__main__":
    main()
