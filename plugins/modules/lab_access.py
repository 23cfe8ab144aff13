#!/usr/bin/python
"""Keys and ssh configuration of a container lab."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_access
short_description: Keys and ssh configuration of a container lab
description:
  - Makes a user key, a host key for every node, known_hosts and an ssh_config.
  - The ssh_config reaches the nodes by name and by address.
  - With O(state=absent) removes what the lab keeps in its folder, and the folder when it is empty then.
extends_documentation_fragment: tortie.cluster.lab
author: Tortie contributors (@tortie)
"""

EXAMPLES = r"""
- name: Make keys and ssh configuration
  tortie.cluster.lab_access:
    name: tortie
    directory: /srv/tortie/.lab
    nodes:
      - {name: master-01, address: 10.30.200.1}
"""

RETURN = r"""
files:
  description: Files that were made, replaced or removed.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import lab_access
from ansible_collections.tortie.cluster.plugins.module_utils.lab_commands import CommandError
from ansible_collections.tortie.cluster.plugins.module_utils.lab_network import (
    exclusive,
    refuse_if_owned_by_other,
)
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import (
    LAB_ARGUMENTS,
    Lab,
    PlanError,
    lab_from_params,
)


def ensure_present(lab: Lab, check: bool) -> list[str]:
    """Paths that were (in check mode: would be) written."""
    refuse_if_owned_by_other(lab)
    keys = lab_access.missing_keys(lab)
    if check and keys:
        # What depends on the keys cannot be compared before they exist.
        return [str(path) for path in [*keys, lab.ssh_config]]
    lab.directory.mkdir(parents=True, exist_ok=True)
    for key in keys:
        lab_access.make_key(key)
    files = lab_access.outdated_files(lab)
    if not check:
        for path, text in files.items():
            lab_access.write_file(path, text)
    return [str(path) for path in [*keys, *files]]


def ensure_absent(lab: Lab, check: bool) -> list[str]:
    """Paths that were (in check mode: would be) removed."""
    files = lab_access.files_of_lab(lab)
    if not check:
        for path in files:
            lab_access.remove(path)
        if lab.directory.is_dir() and not any(lab.directory.iterdir()):
            lab.directory.rmdir()
    return [str(path) for path in files]


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=LAB_ARGUMENTS, supports_check_mode=True)
    try:
        lab = lab_from_params(module.params)
        act = ensure_present if module.params["state"] == "present" else ensure_absent
        with exclusive(lab):
            files = act(lab, module.check_mode)
    except (CommandError, PlanError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(files), files=files)


if __name__ == "__main__":
    main()
