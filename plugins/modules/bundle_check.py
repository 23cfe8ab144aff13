#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Verify a Kubernetes bundle before any host is touched."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_check
short_description: Verify a Kubernetes bundle
version_added: 0.1.0
description:
  - Reads the manifest of a bundle directory and compares every file with it. Changes nothing.
  - Meant for the controller (C(delegate_to=localhost), C(run_once=true)), before any host is touched.
  - Fails with every problem as a sentence of its own.
options:
  directory:
    description: The bundle's directory.
    type: path
    required: true
    aliases: [dir]
  version:
    description: Kubernetes version that the bundle must hold; any when empty.
    type: str
    default: ""
  architecture:
    description:
      - Architecture that the bundle must be for, V(amd64) or as C(uname -m) says V(x86_64); any when empty.
    type: str
    default: ""
  checksums:
    description: Compare the content of every file, too. Without it only the manifest is read.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: The module never changes anything.
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Verify the bundle
  tortie.cluster.bundle_check:
    directory: "{{ kubernetes_bundle_dir }}"
    version: "{{ kubernetes_version }}"
    architecture: "{{ ansible_facts['architecture'] }}"
  delegate_to: localhost
  run_once: true
  register: __kubernetes_bundle
"""

RETURN = r"""
version:
  description: Kubernetes version, without a leading v.
  returned: success
  type: str
  sample: 1.20.2
architecture:
  description: Go's name of the architecture.
  returned: success
  type: str
  sample: amd64
provider:
  description: What made the bundle.
  returned: success
  type: str
  sample: debian
images:
  description: Full references of the images.
  returned: success
  type: list
  elements: str
artifacts:
  description: The manifest's entries, to hand to M(tortie.cluster.bundle_install).
  returned: success
  type: list
  elements: dict
has_coredns:
  description: Whether CoreDNS is among the images. If not, kubeadm must skip the phase addon/coredns.
  returned: success
  type: bool
problems:
  description: What is wrong, one sentence each.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import bundle


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True, "aliases": ["dir"]},
            "version": {"type": "str", "default": ""},
            "architecture": {"type": "str", "default": ""},
            "checksums": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    directory = module.params["directory"]
    checked = None if module.params["checksums"] else ()
    problems = bundle.verify(
        directory, module.params["architecture"] or None, module.params["version"] or None, checked
    )
    if problems:
        module.fail_json(
            msg=f"The bundle {directory} cannot be used. {' '.join(problems)}", problems=problems
        )
    manifest = bundle.load(directory)
    document = manifest.as_dict()
    module.exit_json(
        changed=False,
        version=manifest.version,
        architecture=manifest.architecture,
        provider=manifest.provider,
        images=manifest.images(),
        artifacts=document["artifacts"],
        has_coredns=any(artifact.name == "coredns" for artifact in manifest.of_kind(bundle.IMAGE)),
        problems=[],
    )


if __name__ == "__main__":
    main()
