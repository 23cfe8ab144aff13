"""Filters of role tortie: its settings put into deploy/'s manifests, and the default pool as they want it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.tortie.cluster.plugins.module_utils import manifests

DOCUMENTATION = r"""
name: tortie_manifests
short_description: Put the role's settings into the network's manifests
version_added: 0.1.0
author: Tortie contributors
description:
  - Returns copies of the documents with image and environment of the DaemonSet calico-node replaced.
  - A setting that is out of range, or that the manifest has no place for, is an error.
positional: settings
options:
  _input:
    description: The documents of deploy/, parsed.
    type: list
    elements: dict
    required: true
  settings:
    description:
      - Keys image, image_id, pool_cidr, block_size, encapsulation, encapsulation_mode, mtu,
        ip_autodetection_method, nat_outgoing and as_number, all of them.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the documents that the role would apply
  ansible.builtin.debug:
    msg: "{{ documents | from_yaml_all | tortie.cluster.tortie_manifests(settings) }}"
  vars:
    documents: "{{ lookup('ansible.builtin.file', 'deploy/tortie.yaml') }}"
"""

RETURN = r"""
_value:
  description: The documents.
  type: list
  elements: dict
"""


def tortie_manifests(documents: Any, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`documents | tortie.cluster.tortie_manifests(settings)`."""
    try:
        return manifests.render(documents, settings)
    except manifests.SettingsError as error:
        raise AnsibleFilterError(str(error)) from error


def tortie_pool_patch(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings | tortie.cluster.tortie_pool_patch`: an element of kube_apply's parameter `patches`."""
    try:
        return manifests.pool_patch(settings)
    except manifests.SettingsError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for in a filter plugin file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter names without the collection's prefix."""
        return {"tortie_manifests": tortie_manifests, "tortie_pool_patch": tortie_pool_patch}
