#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Load a container image from an archive into containerd."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_image
short_description: Load a container image from an archive into containerd
version_added: 0.1.0
description:
  - Runs on the node. Imports the archive unless containerd has an image of that name and that ID already.
  - Images are compared by the digest of their configuration, so a rebuilt one of the same name is loaded.
options:
  name:
    description: Full reference with tag, as V(registry.example/name:tag).
    type: str
    required: true
  archive:
    description: docker-archive or OCI archive on the node. Needed only when the image must be loaded.
    type: path
  image_id:
    description: The image's ID, V(sha256:...). Without it the archive's own counts, and without archive any.
    type: str
  state:
    description: V(query) only looks; RV(missing) then says whether the archive must be copied to the node.
    type: str
    choices: [present, query]
    default: present
  namespace:
    description: containerd's namespace.
    type: str
    default: k8s.io
  socket:
    description: containerd's socket.
    type: path
    default: /run/containerd/containerd.sock
attributes:
  check_mode:
    support: full
    description: Says whether the image would be loaded; the archive need not be on the node yet.
  diff_mode:
    support: full
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Load the network's image
  tortie.cluster.container_image:
    name: localhost/tortie:0.1.0
    archive: /var/cache/tortie/tortie.tar
    image_id: sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
"""

RETURN = r"""
missing:
  description: Whether the image was absent, or another one, when the module began.
  returned: success
  type: bool
image_id:
  description: ID of the image that is there now; empty when there is none.
  returned: success
  type: str
"""

import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import image_archive, reset_record
from ansible_collections.tortie.cluster.plugins.module_utils.container_images import (
    ContainerdError,
    Store,
    diff_of,
)

IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
# A registry (or localhost) before the first slash, and a tag: containerd does not guess either.
REFERENCE = re.compile(r"[^/\s]+/[^\s@]+:[\w][\w.-]*")


def wanted_id(archive: str | None, image_id: str | None) -> str | None:
    """The ID to look for, from the parameter or else the archive; None takes any. Raises ArchiveError."""
    if image_id is not None or archive is None or not Path(archive).is_file():
        return image_id
    return image_archive.describe(Path(archive), "archive").image_id


def check(name: str, image_id: str | None) -> str | None:
    """A sentence about parameters that cannot work, or None."""
    if not REFERENCE.fullmatch(name):
        return (
            f"name is {name!r}; write the full reference with registry and tag, like localhost/tortie:0.1.0."
        )
    if image_id is not None and not IMAGE_ID.fullmatch(image_id):
        return f"image_id is {image_id!r}; it must be sha256: and 64 hexadecimal digits."
    return None


def load(store: Store, archive: str | None, name: str, image_id: str | None) -> None:
    """Import the archive. Raises ContainerdError."""
    if archive is None or not Path(archive).is_file():
        raise ContainerdError(
            f"The image {name} is not on this node, and archive is {archive!r}, which is no file; copy the"
            " archive there."
        )
    reset_record.note_images([name])
    store.load(archive, name, image_id)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "archive": {"type": "path"},
            "image_id": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "query"], "default": "present"},
            "namespace": {"type": "str", "default": "k8s.io"},
            "socket": {"type": "path", "default": "/run/containerd/containerd.sock"},
        },
        supports_check_mode=True,
    )
    name, archive = module.params["name"], module.params["archive"]
    problem = check(name, module.params["image_id"])
    if problem is not None:
        module.fail_json(msg=problem)
    store = Store(module.run_command, module.params["socket"], module.params["namespace"])
    wanted = module.params["state"] == "present"
    try:
        image_id = wanted_id(archive, module.params["image_id"])
        before = store.image_ids([name]).get(name, "")
        missing = not before or (image_id is not None and before != image_id)
        if missing and wanted and not module.check_mode:
            load(store, archive, name, image_id)
            before_and_after = before, store.image_ids([name]).get(name, "")
        else:
            before_and_after = before, before
    except (ContainerdError, image_archive.ArchiveError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=missing and wanted,
        missing=missing,
        image_id=before_and_after[1],
        diff=diff_of({name: before or "absent"}, {name: (image_id or "any") if missing else before}),
    )


if __name__ == "__main__":
    main()
