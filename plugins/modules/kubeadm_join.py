#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Join a machine to a cluster as a worker."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubeadm_join
short_description: Join a worker node with kubeadm
description:
  - Runs C(kubeadm join). Whether a machine must join is found out beforehand by
    M(tortie.cluster.missing_nodes), so that a token
    exists only when it is needed; this module always joins.
  - The cluster's certificate authority is always checked by its hash. The token is handed over in a
    file that only root can
    read and that is removed afterwards.
  - What an earlier join that was cut off has left (kubelet's configuration, the authority's
    certificate) is removed first.
options:
  node_name:
    description: The node's name in the cluster.
    type: str
    required: true
  node_ip:
    description: Address of kubelet.
    type: str
    required: true
  version:
    description: Kubernetes version without v.
    type: str
    required: true
  endpoint:
    description: The host:port of the API server.
    type: str
    required: true
  token:
    description: Bootstrap token.
    type: str
    required: true
  ca_cert_hashes:
    description: Hashes of the authority's public key, C(sha256:<hex>).
    type: list
    elements: str
    required: true
  kubelet_args:
    description: More arguments of this node's kubelet.
    type: dict
    default: {}
  ignore_preflight_errors:
    description: Names of kubeadm's preflight checks that may fail.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that the node may take to join.
    type: int
    default: 300
attributes:
  check_mode:
    support: full
    description: Says that the node would join.
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Join
  tortie.cluster.kubeadm_join:
    node_name: worker-01
    node_ip: 10.30.200.2
    version: 1.31.4
    endpoint: 10.30.200.1:6443
    token: "{{ token }}"
    ca_cert_hashes: ["{{ hash }}"]
"""

RETURN = r"""
removed:
  description: What an earlier join had left and was removed.
  returned: changed
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import host, kubeadm, kubeadm_run, yaml_text

# Beyond kubeadm's own time for discovery and bootstrap: preflight checks and images.
REST_SECONDS = 120

ARGUMENTS: dict[str, Any] = {
    "node_name": {"type": "str", "required": True},
    "node_ip": {"type": "str", "required": True},
    "version": {"type": "str", "required": True},
    "endpoint": {"type": "str", "required": True},
    "token": {"type": "str", "required": True, "no_log": True},
    "ca_cert_hashes": {"type": "list", "elements": "str", "required": True},
    "kubelet_args": {"type": "dict", "default": {}},
    "ignore_preflight_errors": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 300},
}


def remains() -> list[Path]:
    """What an earlier join has left."""
    return [path for path in map(Path, kubeadm_run.JOIN_REMAINS) if path.exists() or path.is_symlink()]


def join(params: dict[str, Any], lock: int) -> None:
    """Run kubeadm join. Raises KubeadmError, ValueError, OSError."""
    node = kubeadm.NodeSettings(
        params["node_name"], params["node_ip"], params["version"], kubelet_args=params["kubelet_args"]
    )
    document = kubeadm.join_document(
        node, params["endpoint"], params["token"], params["ca_cert_hashes"], params["timeout"]
    )
    left = remains()
    if left:
        host.output("systemctl", "stop", "kubelet.service")
        for path in left:
            path.unlink()
    command = ["kubeadm", "join", f"--config={kubeadm_run.JOIN_CONFIG}"]
    if params["ignore_preflight_errors"]:
        command.append("--ignore-preflight-errors=" + ",".join(params["ignore_preflight_errors"]))
    try:
        kubeadm_run.write_private(kubeadm_run.JOIN_CONFIG, yaml_text.documents([document]))
        kubeadm_run.run_logged(command, "join.log", params["timeout"] + REST_SECONDS, lock)
    finally:
        Path(kubeadm_run.JOIN_CONFIG).unlink(missing_ok=True)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    left = [str(path) for path in remains()]
    try:
        if not module.check_mode:
            with kubeadm_run.alone(module.params["timeout"] + REST_SECONDS) as lock:
                join(module.params, lock)
    except (kubeadm_run.KubeadmError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, removed=left)


if __name__ == "__main__":
    main()
