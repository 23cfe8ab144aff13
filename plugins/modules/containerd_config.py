#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Write containerd's configuration for the release that is installed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_config
short_description: Configure containerd for Kubernetes
description:
  - Writes /etc/containerd/config.toml in the format of the installed containerd (version 2 for 1.x,
    version 3 from 2.0 on),
    a hosts.toml for each registry that has mirrors, and /etc/crictl.yaml.
options:
  sandbox_image:
    description: The pause image, the same one that kubeadm uses for this Kubernetes version.
    type: str
    required: true
  systemd_cgroup:
    description: Whether systemd makes the containers' cgroups. Must agree with kubelet's cgroupDriver.
    type: bool
    required: true
  restrict_oom_score_adj:
    description: >-
      Never lower a container's oom_score_adj below containerd's own. Needed where CAP_SYS_RESOURCE is
      missing.
    type: bool
    required: true
  cni_bin_dir:
    description: Folder of the CNI plugins.
    type: str
    default: /opt/cni/bin
  cni_conf_dir:
    description: Folder of the CNI configuration.
    type: str
    default: /etc/cni/net.d
  registry_mirrors:
    description: Lists of mirror URLs by registry host.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Configure containerd
  tortie.cluster.containerd_config:
    sandbox_image: registry.example.org/pause:3.10
    systemd_cgroup: true
    restrict_oom_score_adj: false
  notify: Restart containerd
"""

RETURN = r"""
version:
  description: Major and minor version of the installed containerd; empty when there is none yet (check mode).
  returned: always
  type: str
restart:
  description: Whether containerd must be restarted to read what has changed.
  returned: always
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import containerd, host, managed_files

CRICTL_CONFIG = "/etc/crictl.yaml"
CRICTL_BODY = (
    "runtime-endpoint: unix:///run/containerd/containerd.sock\nimage-endpoint:"
    " unix:///run/containerd/containerd.sock\ntimeout: 10\n"
)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "sandbox_image": {"type": "str", "required": True},
            "systemd_cgroup": {"type": "bool", "required": True},
            "restrict_oom_score_adj": {"type": "bool", "required": True},
            "cni_bin_dir": {"type": "str", "default": "/opt/cni/bin"},
            "cni_conf_dir": {"type": "str", "default": "/etc/cni/net.d"},
            "registry_mirrors": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    status, text = host.output("containerd", "--version")
    if status != 0 and not module.check_mode:
        module.fail_json(
            msg=(
                "containerd does not run on this host ('containerd --version' failed); see"
                " containerd_packages."
            )
        )
    try:
        version = containerd.parse_version(text) if status == 0 else containerd.ASSUMED_VERSION
        settings = containerd.ContainerdSettings(
            sandbox_image=module.params["sandbox_image"],
            systemd_cgroup=module.params["systemd_cgroup"],
            restrict_oom_score_adj=module.params["restrict_oom_score_adj"],
            cni_bin_dir=module.params["cni_bin_dir"],
            cni_conf_dir=module.params["cni_conf_dir"],
            mirrors={
                registry: [str(url) for url in urls]
                for registry, urls in module.params["registry_mirrors"].items()
            },
        )
        main_file = managed_files.whole_file(containerd.CONFIG, containerd.render(version, settings))
        others = [
            managed_files.whole_file(path, body) for path, body in containerd.mirror_files(settings).items()
        ]
        others.append(managed_files.whole_file(CRICTL_CONFIG, CRICTL_BODY))
        changes = [change for change in (main_file, *others) if change]
        if not module.check_mode:
            for change in changes:
                managed_files.apply(change)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    # hosts.toml is read anew at each pull, config.toml only at start.
    module.exit_json(
        changed=bool(changes),
        diff=[change.diff() for change in changes],
        version="{}.{}".format(*version) if status == 0 else "",
        restart=bool(main_file),
    )


if __name__ == "__main__":
    main()
