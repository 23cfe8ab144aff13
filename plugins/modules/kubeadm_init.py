#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Make a control plane out of a machine with kubeadm, once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubeadm_init
short_description: Make the first control plane node with kubeadm
description:
  - Renders one kubeadm configuration and runs C(kubeadm init) when this machine is no control plane yet.
  - While init runs, its configuration is /etc/kubernetes/kubeadm.yaml.partial; it becomes
    /etc/kubernetes/kubeadm.yaml when init has
    ended well. A run that was cut off is therefore known, reset with C(kubeadm reset), and begun anew.
  - A control plane that is there is never reset or changed. When the settings would render another
    configuration than the one
    that it was made from, the module warns and shows the difference.
  - A control plane that somebody else made is accepted when its API answers, and refused otherwise.
options:
  node_name:
    description: The node's name in the cluster.
    type: str
    required: true
  node_ip:
    description: Address of kubelet and API server.
    type: str
    required: true
  version:
    description: Kubernetes version without v.
    type: str
    required: true
  endpoint:
    description: The host:port that everybody joins through.
    type: str
    required: true
  service_cidr:
    description: Range of the services' addresses.
    type: str
    required: true
  pod_cidr:
    description: Range of the pods' addresses.
    type: str
    required: true
  cgroup_driver:
    description: Cgroup driver of every kubelet.
    type: str
    choices: [systemd, cgroupfs]
    required: true
  cert_sans:
    description: More names and addresses for the API server's certificate.
    type: list
    elements: str
    default: []
  dns_domain:
    description: The cluster's DNS domain.
    type: str
    default: cluster.local
  image_repository:
    description: Registry and path of the control plane's images; empty is kubeadm's own.
    type: str
    default: ""
  fail_swap_on:
    description: Whether kubelet refuses to run while there is swap.
    type: bool
    default: true
  conntrack_writable:
    description: >-
      Whether kube-proxy may set the size of the connection table. False where any node is a
      container.
    type: bool
    default: true
  skip_phases:
    description: Phases of kubeadm init to leave out.
    type: list
    elements: str
    default: []
  ignore_preflight_errors:
    description: Names of kubeadm's preflight checks that may fail.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that the API server may take to come up.
    type: int
    default: 240
  api_server_args:
    description: More arguments of the API server.
    type: dict
    default: {}
  controller_manager_args:
    description: More arguments of the controller manager.
    type: dict
    default: {}
  scheduler_args:
    description: More arguments of the scheduler.
    type: dict
    default: {}
  etcd_args:
    description: More arguments of etcd.
    type: dict
    default: {}
  kubelet_args:
    description: More arguments of this node's kubelet.
    type: dict
    default: {}
  kubelet_config:
    description: Settings to merge into the KubeletConfiguration.
    type: dict
    default: {}
  kube_proxy_config:
    description: Settings to merge into the KubeProxyConfiguration.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Says what would be done.
  diff_mode:
    support: full
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Make the control plane
  tortie.cluster.kubeadm_init:
    node_name: master-01
    node_ip: 10.30.200.1
    version: 1.31.4
    endpoint: 10.30.200.1:6443
    service_cidr: 10.96.0.0/12
    pod_cidr: 10.5.0.0/16
    cgroup_driver: systemd
"""

RETURN = r"""
action:
  description: What was (or would be) done, one of C(init), C(reset and init), C(none).
  returned: always
  type: str
"""

import difflib
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import (
    kubeadm,
    kubeadm_run,
    managed_files,
    yaml_text,
)

# Beyond the API server's own time: images, certificates, etcd, addons.
REST_SECONDS = 360
RESET_SECONDS = 180
# A control plane that has just booted needs its kubelet, etcd and API server before it answers.
BOOT_SECONDS = 90

ARGUMENTS: dict[str, Any] = {
    "node_name": {"type": "str", "required": True},
    "node_ip": {"type": "str", "required": True},
    "version": {"type": "str", "required": True},
    "endpoint": {"type": "str", "required": True},
    "service_cidr": {"type": "str", "required": True},
    "pod_cidr": {"type": "str", "required": True},
    "cgroup_driver": {"type": "str", "choices": ["systemd", "cgroupfs"], "required": True},
    "cert_sans": {"type": "list", "elements": "str", "default": []},
    "dns_domain": {"type": "str", "default": "cluster.local"},
    "image_repository": {"type": "str", "default": ""},
    "fail_swap_on": {"type": "bool", "default": True},
    "conntrack_writable": {"type": "bool", "default": True},
    "skip_phases": {"type": "list", "elements": "str", "default": []},
    "ignore_preflight_errors": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 240},
    "api_server_args": {"type": "dict", "default": {}},
    "controller_manager_args": {"type": "dict", "default": {}},
    "scheduler_args": {"type": "dict", "default": {}},
    "etcd_args": {"type": "dict", "default": {}},
    "kubelet_args": {"type": "dict", "default": {}},
    "kubelet_config": {"type": "dict", "default": {}},
    "kube_proxy_config": {"type": "dict", "default": {}},
}
CLUSTER_FIELDS = [
    "endpoint",
    "service_cidr",
    "pod_cidr",
    "cgroup_driver",
    "cert_sans",
    "dns_domain",
    "image_repository",
    "fail_swap_on",
    "conntrack_writable",
    "timeout",
    "api_server_args",
    "controller_manager_args",
    "scheduler_args",
    "etcd_args",
    "kubelet_config",
    "kube_proxy_config",
]


def rendered(params: dict[str, Any]) -> str:
    """kubeadm.yaml for these parameters."""
    node = kubeadm.NodeSettings(
        params["node_name"], params["node_ip"], params["version"], kubelet_args=params["kubelet_args"]
    )
    cluster = kubeadm.ClusterSettings(**{name: params[name] for name in CLUSTER_FIELDS})
    return managed_files.MARK + "\n" + yaml_text.documents(kubeadm.init_documents(node, cluster))


def initialise(params: dict[str, Any], text: str, reset_first: bool, lock: int) -> None:
    """Run kubeadm init to its end. Raises KubeadmError; what it leaves then is known by PARTIAL."""
    if reset_first:
        kubeadm_run.run_logged(["kubeadm", "reset", "--force"], "reset.log", RESET_SECONDS, lock)
    kubeadm_run.write_private(kubeadm_run.PARTIAL, text)
    command = ["kubeadm", "init", f"--config={kubeadm_run.PARTIAL}", "--skip-token-print"]
    if params["skip_phases"]:
        command.append("--skip-phases=" + ",".join(params["skip_phases"]))
    if params["ignore_preflight_errors"]:
        command.append("--ignore-preflight-errors=" + ",".join(params["ignore_preflight_errors"]))
    kubeadm_run.run_logged(command, "init.log", params["timeout"] + REST_SECONDS, lock)
    Path(kubeadm_run.PARTIAL).replace(kubeadm_run.CONFIG)


def drift(text: str) -> str:
    """How the configuration that the cluster was made from differs from the one that the settings give;
    empty: not at all.
    """
    before = managed_files.read_text(kubeadm_run.CONFIG)
    if before is None or before == text:
        return ""
    lines = difflib.unified_diff(
        before.splitlines(), text.splitlines(), "as made", "as set", lineterm="", n=1
    )
    return "\n".join(lines)


def accept(module: AnsibleModule, text: str, foreign: bool) -> None:
    """End the module, for there is a control plane that answers; differences and strangers get a warning."""
    difference = drift(text)
    if difference:
        module.warn(
            "The settings differ from those that the control plane was made with. kubeadm does not change"
            " a cluster that is"
            f" there, and nothing was done about it ({kubeadm_run.CONFIG}):\n{difference}"
        )
    if foreign:
        module.warn("This control plane was not made by this role; it is used as it is.")
    module.exit_json(changed=False, action="none")


def refusal(state: kubeadm_run.ControlPlaneState) -> str:
    """Why a control plane that does not answer is not made anew; empty: nothing stands against it."""
    if state.made:
        return (
            f"the control plane that was made on this host does not answer within {BOOT_SECONDS} seconds; see"
            " 'journalctl -u kubelet' and 'crictl ps -a' there. It is not made anew, because that would"
            " destroy the cluster."
        )
    if state.foreign:
        return (
            "/etc/kubernetes holds parts of a control plane that this role did not make and that does not"
            " answer; repair it,"
            " or remove it with 'kubeadm reset' on this host and run this again."
        )
    return ""


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        text = rendered(module.params)
        state = kubeadm_run.control_plane_state(BOOT_SECONDS)
        if state.answers:
            accept(module, text, state.foreign)
        if refusal(state):
            module.fail_json(msg=refusal(state))
        if not module.check_mode:
            with kubeadm_run.alone(module.params["timeout"] + REST_SECONDS) as lock:
                # Somebody else's run may have ended while we waited for it.
                state = kubeadm_run.control_plane_state(BOOT_SECONDS)
                if state.answers:
                    accept(module, text, state.foreign)
                initialise(module.params, text, state.half_made, lock)
    except (kubeadm_run.KubeadmError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    change = managed_files.FileChange(kubeadm_run.CONFIG, None, text)
    module.exit_json(changed=True, action="reset and init" if state.half_made else "init", diff=change.diff())


if __name__ == "__main__":
    main()
