#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Find out on a control plane node who must join."""

from __future__ import annotations

DOCUMENTATION = r"""
module: missing_nodes
short_description: Which of the given nodes must join the cluster
description:
  - Runs on a control plane node and changes nothing.
  - A node must join when the API server does not know it, or when the machine itself holds no
    credentials for the cluster.
options:
  nodes:
    description: The nodes to look for.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The node's name in the cluster.
        type: str
        required: true
      joined:
        description: Whether the machine holds kubelet's configuration and certificate.
        type: bool
        required: true
attributes:
  check_mode:
    support: full
    description: Runs the same way in check mode. Before there is a cluster, everybody is missing.
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Who must join
  tortie.cluster.missing_nodes:
    nodes:
      - {name: worker-01, joined: false}
"""

RETURN = r"""
missing:
  description: Names of the nodes that must join.
  returned: always
  type: list
  elements: str
ca_cert_hash:
  description: >-
    SHA-256 of the public key of the cluster's certificate authority, as C(sha256:<hex>); empty before
    there is a cluster.
  returned: always
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import ca_hash, kubeadm_run

NODE_OPTIONS = {"name": {"type": "str", "required": True}, "joined": {"type": "bool", "required": True}}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "list", "elements": "dict", "required": True, "options": NODE_OPTIONS}
        },
        supports_check_mode=True,
    )
    nodes = module.params["nodes"]
    if module.check_mode and not Path(kubeadm_run.ADMIN_CONF).exists():
        module.exit_json(changed=False, missing=[node["name"] for node in nodes], ca_cert_hash="")
    try:
        registered = kubeadm_run.registered_nodes()
        digest = ca_hash.spki_hash(Path(kubeadm_run.CA_CERT).read_text(encoding="ascii"))
    except (kubeadm_run.KubeadmError, ca_hash.CertificateError, OSError) as error:
        module.fail_json(msg=str(error))
    missing = [node["name"] for node in nodes if not node["joined"] or node["name"] not in registered]
    module.exit_json(changed=False, missing=missing, ca_cert_hash=digest)


if __name__ == "__main__":
    main()
