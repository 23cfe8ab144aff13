#!/usr/bin/python
"""Ansible module: wait for a DaemonSet, its nodes and a Deployment beside it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_rollout
short_description: Wait until a DaemonSet, and a Deployment beside it, is complete and every node is Ready
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
  deployment:
    description: A Deployment of the same namespace that has to be complete, too; empty for none.
    type: str
    default: ''
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
  - kubectl on the host, which reads the kubeconfig
"""

EXAMPLES = r"""
- name: Wait for the network
  tortie.cluster.kube_rollout:
    name: calico-node
    deployment: calico-kube-controllers
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
from ansible_collections.tortie.cluster.plugins.module_utils import kube_api, kube_rollout

REQUEST_TIMEOUT = 20  # seconds
PAUSE = 0.5  # seconds; a look costs the API server a few milliseconds


def look(api: kube_api.Api, module: AnsibleModule) -> list[kube_rollout.Obstacle]:
    """The obstacles of this moment; an API server that does not answer is one."""
    name, namespace = module.params["name"], module.params["namespace"]
    deployment = module.params["deployment"]
    try:
        objects = api.items(kube_api.object_path("apps/v1", "daemonsets", namespace))
        if deployment:
            objects += api.items(kube_api.object_path("apps/v1", "deployments", namespace))
        objects += api.items(kube_api.object_path("v1", "pods", namespace))
        objects += api.items(kube_api.object_path("v1", "nodes"))
    except kube_api.ApiError as error:
        return [kube_rollout.Obstacle("", f"Cannot read the cluster's state: {error}")]
    found = kube_rollout.obstacles(name, objects)
    # Its pod may run on any node: what keeps a node from being Ready is said first.
    return found or (kube_rollout.deployment_obstacles(deployment, objects) if deployment else [])


def log_of(api: kube_api.Api, module: AnsibleModule, obstacle: kube_rollout.Obstacle) -> list[str]:
    """The last lines of the log that explains an obstacle; none when there is none."""
    if not obstacle.pod:
        return []
    path = kube_api.object_path("v1", "pods", module.params["namespace"], obstacle.pod)
    query = {"container": obstacle.container, "tailLines": str(module.params["log_lines"])}
    if obstacle.previous:
        query["previous"] = "true"
    try:
        text = api.text(f"{path}/log", **query)
    except kube_api.ApiError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


def run(module: AnsibleModule) -> dict[str, Any]:
    """Wait; return the module's result or fail."""
    kubeconfig, timeout = module.params["kubeconfig"], module.params["timeout"]
    if module.check_mode and not Path(kubeconfig).exists():
        return {"changed": False, "complete": False, "obstacles": ["There is no cluster yet."], "seconds": 0}
    program = module.get_bin_path("kubectl", required=True, opt_dirs=["/usr/local/bin", "/opt/bin"])
    try:
        access = kube_api.access(kubeconfig, program, module.run_command, module.tmpdir)
    except kube_api.ApiError as error:
        module.fail_json(msg=f"{error}.")
    api = kube_api.Api(access, REQUEST_TIMEOUT)
    start = time.monotonic()
    while True:
        found = look(api, module)
        waited = int(time.monotonic() - start)
        if not found or module.check_mode:
            sentences = [item.sentence() for item in found]
            return {"changed": False, "complete": not found, "obstacles": sentences, "seconds": waited}
        if waited >= timeout:
            break
        time.sleep(PAUSE)
    sentences = [item.sentence(log_of(api, module, item)) for item in found]
    module.fail_json(
        msg=f"{_awaited(module)} not complete after {timeout} s. {' '.join(sentences)}",
        obstacles=sentences,
    )
    raise AssertionError("fail_json does not return")


def _awaited(module: AnsibleModule) -> str:
    name, deployment = module.params["name"], module.params["deployment"]
    return f"DaemonSet {name} and Deployment {deployment} are" if deployment else f"DaemonSet {name} is"


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "namespace": {"type": "str", "default": "kube-system"},
            "deployment": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 300},
            "kubeconfig": {"type": "path", "default": "/etc/kubernetes/admin.conf"},
            "log_lines": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    module.exit_json(**run(module))


if __name__ == "__main__":
    main()
