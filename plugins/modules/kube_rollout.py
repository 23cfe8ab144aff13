#!/usr/bin/python
"""Ansible module: wait for a DaemonSet and its nodes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_rollout
short_description: Wait until a DaemonSet is complete and every node is Ready
version_added: 0.1.0
author: Tortie contributors
description:
  - Returns when the current template of a DaemonSet is ready on every node and every node is Ready.
  - Otherwise it fails in bounded time and says for each node what is in the way, with the end of a log.
  - Never changes anything.
options:
  name:
    description: The DaemonSet.
    type: str
    required: true
  namespace:
    description: Its namespace.
    type: str
    default: kube-system
  timeout:
    description: Seconds to wait at most.
    type: int
    default: 300
  kubeconfig:
    description: Credentials of an administrator.
    type: path
    default: /etc/kubernetes/admin.conf
  log_lines:
    description: How many lines of a log the failure shows.
    type: int
    default: 5
attributes:
  check_mode:
    description: Looks once and reports; it neither waits nor fails, since nothing was changed before it.
    support: full
requirements:
  - kubectl on the host
"""

EXAMPLES = r"""
- name: Wait for the network
  tortie.cluster.kube_rollout:
    name: calico-node
    timeout: 120
"""

RETURN = r"""
complete:
  description: Whether nothing was in the way at the end.
  returned: success
  type: bool
obstacles:
  description: What was in the way (check mode only; otherwise this is the failure).
  returned: success
  type: list
  elements: str
seconds:
  description: How long it waited.
  returned: success
  type: int
"""

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import kube_apply, kube_rollout

REQUEST_TIMEOUT = 20  # seconds
PAUSE = 1.0


def look(module: AnsibleModule, command: list[str]) -> list[kube_rollout.Obstacle]:
    """The obstacles of this moment; an API server that does not answer is one."""
    name, namespace = module.params["name"], module.params["namespace"]
    arguments = ["get", "daemonsets,pods,nodes", "--namespace", namespace, "-o", "json"]
    status, stdout, stderr = module.run_command([*command, *arguments])
    if status != 0:
        return [kube_rollout.Obstacle("", kube_apply.refusal("read the cluster's state", stderr).rstrip("."))]
    return kube_rollout.obstacles(name, kube_apply.parse_objects(stdout).values())


def log_of(module: AnsibleModule, command: list[str], obstacle: kube_rollout.Obstacle) -> list[str]:
    """The last lines of the log that explains an obstacle; none when there is none."""
    if not obstacle.pod:
        return []
    arguments = ["logs", "--namespace", module.params["namespace"], obstacle.pod]
    arguments += ["--container", obstacle.container, f"--tail={module.params['log_lines']}"]
    if obstacle.previous:
        arguments.append("--previous")
    status, stdout, _stderr = module.run_command([*command, *arguments])
    return [line.strip() for line in stdout.splitlines() if line.strip()] if status == 0 else []


def run(module: AnsibleModule) -> dict[str, Any]:
    """Wait; return the module's result or fail."""
    kubeconfig, timeout = module.params["kubeconfig"], module.params["timeout"]
    if module.check_mode and not Path(kubeconfig).exists():
        return {"changed": False, "complete": False, "obstacles": ["There is no cluster yet."], "seconds": 0}
    program = module.get_bin_path("kubectl", required=True, opt_dirs=["/usr/local/bin", "/opt/bin"])
    command = [program, "--kubeconfig", kubeconfig, f"--request-timeout={REQUEST_TIMEOUT}s"]
    start = time.monotonic()
    while True:
        found = look(module, command)
        waited = int(time.monotonic() - start)
        if not found or module.check_mode:
            sentences = [item.sentence() for item in found]
            return {"changed": False, "complete": not found, "obstacles": sentences, "seconds": waited}
        if waited >= timeout:
            break
        time.sleep(PAUSE)
    sentences = [item.sentence(log_of(module, command, item)) for item in found]
    module.fail_json(
        msg=f"DaemonSet {module.params['name']} is not complete after {timeout} s. {' '.join(sentences)}",
        obstacles=sentences,
    )
    raise AssertionError("fail_json does not return")


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "namespace": {"type": "str", "default": "kube-system"},
            "timeout": {"type": "int", "default": 300},
            "kubeconfig": {"type": "path", "default": "/etc/kubernetes/admin.conf"},
            "log_lines": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    module.exit_json(**run(module))


if __name__ == "__main__":
    main()
