"""Lookup: what image an archive on the controller holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.tortie.cluster.plugins.module_utils import image_archive

DOCUMENTATION = r"""
name: tortie_image_archive
short_description: Name and id of the image in an archive on the controller
version_added: 0.1.0
author: Tortie contributors
description:
  - Reads C(<archive>.json) beside the archive, or else the archive's own manifest.
options:
  _terms:
    description: Paths of archives made by C(podman save).
    required: true
"""

EXAMPLES = r"""
- name: Show what would be loaded
  ansible.builtin.debug:
    msg: "{{ lookup('tortie.cluster.tortie_image_archive', 'tortie-node.tar').name }}"
"""

RETURN = r"""
_raw:
  description: For each archive its name, image_id (sha256 and 64 digits) and file (absolute path).
  type: list
  elements: dict
"""


class LookupModule(LookupBase):
    """What Ansible looks for in a lookup plugin file."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[dict[str, str]]:
        """One description per path."""
        try:
            return [image_archive.describe(Path(term).expanduser()).as_dict() for term in terms]
        except image_archive.ArchiveError as error:
            raise AnsibleError(str(error)) from error
