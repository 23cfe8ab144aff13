#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Whether ordinary pods may run on a control plane node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: control_plane_taint
short_description: Allow or forbid ordinary pods on a control plane node
description:
  - Removes or restores the taint that kubeadm gives control plane nodes; its name follows the
    Kubernetes version. Other taints are kept.
options:
  node_name:
    description: The node's name in the cluster.
    type: str
    required: true
  version:
    description: Kubernetes version without v.
    type: str
    required: true
  schedulable:
    description: Whether ordinary pods may run there.
    type: bool
    required: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Let ordinary pods run on the control plane node
  tortie.cluster.control_plane_taint:
    node_name: master-01
    version: 1.31.4
    schedulable: true
"""

RETURN = r"""
taints:
  description: Keys and effects of the node's taints afterwards.
  returned: always
  type: list
  elements: str
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import kube_versions, kubeadm_run

EFFECT = "NoSchedule"
# kubectl's words for status 409, and how often a change is tried against it.
CONFLICT = "(Conflict)"
ATTEMPTS = 10


def wanted_taints(
    taints: list[dict[str, Any]], keys: Sequence[str], schedulable: bool
) -> list[dict[str, Any]]:
    """The node's taints as they should be; keys: the control plane taints of its version. Removal takes both
    names, because a node may be older than its version.
    """
    names = (kube_versions.MASTER, kube_versions.CONTROL_PLANE)
    if schedulable:
        return [taint for taint in taints if not (taint["key"] in names and taint["effect"] == EFFECT)]
    there = {taint["key"] for taint in taints if taint["effect"] == EFFECT}
    return [*taints, *({"key": key, "effect": EFFECT} for key in keys if key not in there)]


def described(taints: list[dict[str, Any]]) -> list[str]:
    """`key=value:effect` as kubectl writes it."""
    return [
        f"{taint['key']}{'=' + taint['value'] if taint.get('value') else ''}:{taint['effect']}"
        for taint in taints
    ]


def set_taints(
    name: str, keys: Sequence[str], schedulable: bool, check_mode: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make the node's taints as they should be; what they were and are. Raises KubeadmError.

    The resource version makes the API server refuse the change when somebody else, kubelet above all, changed
    the node in between; then the node is read again.
    """
    for attempt in range(1, ATTEMPTS + 1):
        node = kubeadm_run.kubectl_json("get", "node", name)
        before = node["spec"].get("taints", [])
        after = wanted_taints(before, keys, schedulable)
        if before == after or check_mode:
            break
        patch = {
            "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
            "spec": {"taints": after or None},
        }
        try:
            kubeadm_run.kubectl("patch", "node", name, "--type=merge", "-p", json.dumps(patch))
            break
        except kubeadm_run.KubeadmError as error:
            if CONFLICT not in str(error) or attempt == ATTEMPTS:
                raise
    return before, after


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "node_name": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "schedulable": {"type": "bool", "required": True},
        },
        supports_check_mode=True,
    )
    name = module.params["node_name"]
    if module.check_mode and not Path(kubeadm_run.ADMIN_CONF).exists():
        module.exit_json(changed=module.params["schedulable"], taints=[])
    try:
        keys = kube_versions.minor_of(module.params["version"]).taints
        before, after = set_taints(name, keys, module.params["schedulable"], module.check_mode)
    except (kubeadm_run.KubeadmError, ValueError) as error:
        module.fail_json(msg=str(error))
    shown = [f"{line}\n" for line in described(before)], [f"{line}\n" for line in described(after)]
    module.exit_json(
        changed=before != after,
        taints=described(after),
        diff={
            "before": "".join(shown[0]),
            "after": "".join(shown[1]),
            "before_header": f"taints of {name}",
            "after_header": f"taints of {name}",
        },
    )


if __name__ == "__main__":
    main()
