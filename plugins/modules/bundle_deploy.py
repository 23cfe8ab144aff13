#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_deploy
short_description: Install from a bundle on the controller
description:
  - Asks M(tortie.cluster.bundle_install) what the node lacks, transfers only that, has it installed
    (which verifies the
    checksums), and removes what was transferred. One round trip when nothing is lacking.
options:
  dir:
    description: The bundle's directory on the controller.
    type: path
    required: true
  artifacts:
    description: The manifest's entries to install.
    type: list
    elements: dict
    required: true
  bin_dir:
    description: Where programs go.
    type: path
    default: /usr/local/bin
  cni_dir:
    description: Where CNI plugins go.
    type: path
    default: /opt/cni/bin
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Install from the bundle
  tortie.cluster.bundle_deploy:
    dir: "{{ kubernetes_bundle_dir }}"
    artifacts: "{{ manifest.artifacts }}"
"""

RETURN = r"""
names:
  description: Names of the programs and plugins, and references of the images, that the node lacked.
  returned: success
  type: list
  elements: str
"""
