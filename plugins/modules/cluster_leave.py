#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Take nodes out of a cluster that goes on without them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_leave
short_description: Drain nodes and delete them from the cluster
description:
  - Runs on a control plane node. Drains each node for a bounded time, so that its pods move and give their
    addresses back, and then deletes it.
  - Does what it can. What does not work becomes a warning, because the machines are reset in any case.
options:
  nodes:
    description: Names of the nodes in the cluster.
    type: list
    elements: str
    required: true
  drain_timeout:
    description: Seconds for the draining of each node; 0 deletes without draining.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Take a worker out
  tortie.cluster.cluster_leave:
    nodes: [worker-01]
"""

RETURN = r"""
deleted:
  description: Names of the nodes that were (or would be) deleted.
  returned: always
  type: list
  elements: str
"""

import subprocess
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import kubeadm_run

GRACE_SECONDS = 30  # beyond what kubectl is told, until it is ended


def drain(node: str, seconds: int) -> str:
    """Move the node's pods; a sentence when that does not work in time, else an empty text."""
    command = ["kubectl", f"--kubeconfig={kubeadm_run.ADMIN_CONF}", "drain", node, f"--timeout={seconds}s"]
    command += ["--ignore-daemonsets", "--delete-emptydir-data", "--force"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=kubeadm_run.environment(),
            timeout=seconds + GRACE_SECONDS,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return f"node {node} was not drained ({error}); its pods end with it."
    if done.returncode != 0:
        words = " ".join(done.stderr.split())[-400:]
        return f"node {node} was not drained within {seconds} seconds ({words}); its pods end with it."
    return ""


def leave(module: AnsibleModule, params: dict[str, Any]) -> list[str]:
    """Names of the nodes that were deleted; what does not work is warned about."""
    try:
        present = [name for name in params["nodes"] if name in kubeadm_run.registered_nodes()]
    except kubeadm_run.KubeadmError as error:
        module.warn(f"The cluster does not answer, so the nodes were not deleted from it: {error}")
        return []
    if module.check_mode:
        return present
    deleted = []
    for name in present:
        problem = drain(name, params["drain_timeout"]) if params["drain_timeout"] > 0 else ""
        if problem:
            module.warn(problem)
        try:
            kubeadm_run.kubectl("delete", "node", name, "--ignore-not-found")
            deleted.append(name)
        except kubeadm_run.KubeadmError as error:
            module.warn(f"node {name} was not deleted from the cluster: {error}")
    return deleted


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "list", "elements": "str", "required": True},
            "drain_timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    deleted = leave(module, module.params)
    lines = "".join(f"node {name}\n" for name in deleted)
    module.exit_json(changed=bool(deleted), deleted=deleted, diff={"before": lines, "after": ""})


if __name__ == "__main__":
    main()
