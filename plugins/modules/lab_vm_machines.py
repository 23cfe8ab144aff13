#!/usr/bin/python
"""The machines of a lab of virtual machines."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_vm_machines
short_description: The machines of a lab of virtual machines
description:
  - One QEMU process per node, on a tap of the bridge in the lab's switch (M(tortie.cluster.lab_network)).
  - A machine is left alone as long as it runs with the processors and memory that it should have; one that
    has ended is started again with its disk.
  - Hardware acceleration is used when a kernel has really booted with it; the answer is remembered in the
    lab's folder.
  - Returns when ssh answers and systemd has finished booting on every machine. One that does not answer in
    time is killed and booted again.
  - With O(state=absent) removes all machines of the lab, those of nodes no longer in O(nodes) too.
extends_documentation_fragment: tortie.cluster.lab
options:
  image:
    description: Folder with C(disk.img), C(vmlinuz) and C(initrd.img). Needed with O(state=present).
    type: path
  cpus:
    description: Processors by node name; 2 for a node that is not named.
    type: dict
    default: {}
  memory_mib:
    description: Memory in MiB by node name; 2048 for a node that is not named.
    type: dict
    default: {}
  accelerator:
    description: Whether a processor runs the machines' code (V(kvm)) or QEMU translates it (V(tcg)).
    type: str
    choices: [auto, kvm, tcg]
    default: auto
  boot_timeout:
    description: Seconds that a machine may take to answer.
    type: int
    default: 90
  tries:
    description: How often a machine is booted before it counts as broken.
    type: int
    default: 4
author: Tortie contributors (@tortie)
"""

EXAMPLES = r"""
- name: Start the machines
  tortie.cluster.lab_vm_machines:
    name: tortie
    directory: /srv/tortie/.lab
    image: /root/.cache/tortie/machines/e409c5287768
    nodes:
      - {name: master-01, address: 10.30.200.1}
    cpus: {master-01: 2}
    memory_mib: {master-01: 2048}
"""

RETURN = r"""
actions:
  description: What was done (in check mode, would be), by node.
  type: dict
  returned: when O(state=present)
accelerator:
  description: What the machines that were started run with.
  type: str
  returned: when a machine was started
reason:
  description: Why it was chosen.
  type: str
  returned: when a machine was started
seconds:
  description: How long each machine took to answer, tries included.
  type: dict
  returned: when a machine was started
retries:
  description: A sentence for each time that a machine was killed and booted again.
  type: list
  elements: str
  returned: when a machine was started
removed:
  description: Machines that were removed.
  type: list
  elements: str
  returned: when O(state=absent)
"""

import shutil
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import lab_vm_accelerator, lab_vm_machine
from ansible_collections.tortie.cluster.plugins.module_utils.lab_commands import CommandError, run
from ansible_collections.tortie.cluster.plugins.module_utils.lab_machine import for_each
from ansible_collections.tortie.cluster.plugins.module_utils.lab_network import exclusive, owned_by_other
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import (
    LAB_ARGUMENTS,
    Lab,
    Node,
    PlanError,
    lab_from_params,
)
from ansible_collections.tortie.cluster.plugins.module_utils.lab_vm_plan import (
    QEMU,
    Image,
    Machine,
    machines,
    size_problems,
    space_problem,
)
from ansible_collections.tortie.cluster.plugins.module_utils.lab_vm_process import missing_qemu


def check_room(lab: Lab, wanted: list[Machine], actions: dict[str, str], accelerator: str) -> None:
    """PlanError when the machines to start do not fit on this one."""
    starting = [m for m in wanted if m.node.name in actions]
    # A machine that is about to be replaced gives back what it has.
    fresh = [m for m in starting if actions[m.node.name] in ("create", "start")]
    available = lab_vm_machine.available_memory_mib()
    problems = size_problems(fresh, accelerator, lab_vm_machine.processors(), available)
    disks = sum(actions[m.node.name] in ("create", "recreate") for m in starting)
    space = space_problem(lab.directory, disks, lab_vm_machine.free_space_mib(lab.directory))
    problems += [space] if space else []
    if problems:
        raise PlanError(" ".join(problems))


def ensure_present(module: AnsibleModule, lab: Lab) -> dict[str, Any]:
    """The module's result for machines that should run."""
    params = module.params
    wanted = machines(lab, params["cpus"], params["memory_mib"])
    switch = lab_vm_machine.switch_now(lab)
    commands = lab_vm_machine.tap_commands(lab, switch)
    actions = lab_vm_machine.planned_actions(lab, wanted, switch)
    changed = bool(commands or actions)
    if module.check_mode or not changed:
        if not module.check_mode:
            bring_up(module, lab, wanted, {}, None, "")
        return {"changed": changed, "actions": actions}
    if shutil.which(QEMU) is None:
        raise PlanError(missing_qemu())
    for command in commands:
        run(command)
    image = lab_vm_machine.keep_image(lab, Image(Path(params["image"])))
    chosen = lab_vm_accelerator.decide(lab, image, params["accelerator"])
    check_room(lab, wanted, actions, chosen.kind)
    seconds, retries = bring_up(module, lab, wanted, actions, image, chosen.kind)
    lab_vm_machine.drop_unused_images(lab)
    return {
        "changed": True,
        "actions": actions,
        "accelerator": chosen.kind,
        "reason": chosen.reason,
        "seconds": seconds,
        "retries": retries,
    }


def bring_up(
    module: AnsibleModule,
    lab: Lab,
    wanted: list[Machine],
    actions: dict[str, str],
    image: Image | None,
    accelerator: str,
) -> tuple[dict[str, int], list[str]]:
    """Do what is planned and wait for every machine; seconds by node, and what had to be tried again."""
    by_node = {machine.node: machine for machine in wanted}
    seconds: dict[str, int] = {}
    retries: list[str] = []

    def one(node: Node) -> None:
        started = time.monotonic()
        action = actions.get(node.name, "")
        recorded = lab_vm_machine.read_record(lab, node.name)
        used = image or lab_vm_machine.image_of(lab, recorded.image if recorded else "")
        kind = accelerator or lab_vm_accelerator.decide(lab, used, module.params["accelerator"]).kind
        timeout, tries = float(module.params["boot_timeout"]), module.params["tries"]
        lab_vm_machine.bring_up(lab, by_node[node], action, used, kind, tries, timeout, retries.append)
        seconds[node.name] = round(time.monotonic() - started)

    for_each(list(lab.nodes), one)
    for sentence in retries:
        module.warn(sentence)
    return seconds, retries


def ensure_absent(lab: Lab, check: bool) -> dict[str, Any]:
    """The module's result for machines that should not exist. Another folder's lab of the same name stays."""
    if owned_by_other(lab):
        return {"changed": False, "removed": []}
    names = lab_vm_machine.known_machines(lab)
    if not check:
        for name in names:
            lab_vm_machine.remove(lab, name)
        lab_vm_machine.remove_images(lab)
    return {"changed": bool(names), "removed": names}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            **LAB_ARGUMENTS,
            "image": {"type": "path"},
            "cpus": {"type": "dict", "default": {}},
            "memory_mib": {"type": "dict", "default": {}},
            "accelerator": {"type": "str", "choices": ["auto", "kvm", "tcg"], "default": "auto"},
            "boot_timeout": {"type": "int", "default": 90},
            "tries": {"type": "int", "default": 4},
        },
        required_if=[("state", "present", ("image",))],
        supports_check_mode=True,
    )
    try:
        lab = lab_from_params(module.params)
        # Waiting for another run includes its boots.
        with exclusive(lab, timeout=900.0):
            if module.params["state"] == "present":
                result = ensure_present(module, lab)
            else:
                result = ensure_absent(lab, module.check_mode)
    except (CommandError, PlanError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
