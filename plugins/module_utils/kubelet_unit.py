# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""kubelet's systemd unit as text. Packages bring a unit of their own; then only our drop-in is written."""

from __future__ import annotations

from collections.abc import Mapping

UNIT = "/etc/systemd/system/kubelet.service"
KUBEADM_DROP_IN = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf"
ENVIRONMENT_DROP_IN = "/etc/systemd/system/kubelet.service.d/20-tortie.conf"


def unit_files(program: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Text by path. program: kubelet's path, empty when a package brings the unit."""
    files = {}
    if program:
        files[UNIT] = _unit(program)
        files[KUBEADM_DROP_IN] = _kubeadm_drop_in(program)
    if environment:
        lines = [f'Environment="{name}={value}"' for name, value in sorted(environment.items())]
        files[ENVIRONMENT_DROP_IN] = "\n".join(["[Service]", *lines]) + "\n"
    return files


def _unit(program: str) -> str:
    # StartLimitIntervalSec=0: until kubeadm has written kubelet's configuration, kubelet ends at once;
    # systemd must keep trying.
    return f"""[Unit]
Description=kubelet, the agent of Kubernetes on this node
After=network-online.target containerd.service
Wants=network-online.target containerd.service
StartLimitIntervalSec=0

[Service]
ExecStart={program}
Restart=always
RestartSec=5

[Install]
WantedBy=multi-user.target
"""


def _kubeadm_drop_in(program: str) -> str:
    # The files are the ones that kubeadm writes; the first ExecStart= empties the unit's list.
    folder = "/etc/kubernetes"
    kubeconfigs = f"--bootstrap-kubeconfig={folder}/bootstrap-kubelet.conf --kubeconfig={folder}/kubelet.conf"
    return f"""[Service]
Environment="KUBELET_KUBECONFIG_ARGS={kubeconfigs}"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart={program} $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"""
