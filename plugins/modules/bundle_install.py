#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Install Kubernetes from a bundle on a node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_install
short_description: Install programs, CNI plugins and images from a Kubernetes bundle
version_added: 0.1.0
description:
  - Runs on the node. With O(state=query) it says which artifacts the node lacks, so that only those are
    copied to it; with O(state=present) it installs them from O(bundle_dir).
  - M(tortie.cluster.bundle_deploy) does both, and the copying, in one task.
  - A program is compared by content. It is replaced in one step, and only after the SHA-256 of what was
    written equals the manifest's.
  - An image is compared by the digest of its configuration, and imported into containerd's namespace k8s.io.
options:
  state:
    description: V(query) only looks, V(present) installs.
    type: str
    choices: [present, query]
    default: present
  artifacts:
    description: RV(tortie.cluster.bundle_check#module:artifacts).
    type: list
    elements: dict
    required: true
  bundle_dir:
    description: Directory on the node with the artifacts that it lacks, under their paths in the bundle.
    type: path
  kinds:
    description: What to install.
    type: list
    elements: str
    choices: [binary, cni-plugin, image]
    default: [binary, cni-plugin, image]
  names:
    description: Programs to install; all of the bundle when empty. Does not apply to CNI plugins and images.
    type: list
    elements: str
    default: []
  bin_dir:
    description: Where programs go.
    type: path
    default: /usr/local/bin
  kubelet_path:
    description: Where the kubelet goes, if not into O(bin_dir).
    type: path
  cni_dir:
    description: Where CNI plugins go.
    type: path
    default: /opt/cni/bin
  socket:
    description: containerd's socket.
    type: path
    default: /run/containerd/containerd.sock
attributes:
  check_mode:
    support: full
    description: Says what would be installed; the artifacts need not be on the node yet.
  diff_mode:
    support: full
author: Tortie contributors
"""

EXAMPLES = r"""
- name: See what this node lacks
  tortie.cluster.bundle_install:
    state: query
    artifacts: "{{ __kubernetes_bundle.artifacts }}"
  register: __kubernetes_lacking

- name: Install programs and plugins from a directory that the node has mounted
  tortie.cluster.bundle_install:
    artifacts: "{{ __kubernetes_bundle.artifacts }}"
    bundle_dir: /mnt/bundle
    kinds: [binary, cni-plugin]
"""

RETURN = r"""
missing:
  description: Paths within the bundle of what the node lacked when the module began.
  returned: success
  type: list
  elements: str
missing_dirs:
  description: Directories of RV(missing) within the bundle, parents first.
  returned: success
  type: list
  elements: str
names:
  description: Names of the programs and plugins, and references of the images, that the node lacked.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import bundle, bundle_files, reset_record
from ansible_collections.tortie.cluster.plugins.module_utils.container_images import (
    ContainerdError,
    Store,
    diff_of,
)


def artifacts_of(module: AnsibleModule) -> list[bundle.Artifact]:
    """The chosen artifacts. Raises BundleError when the list is not a manifest's."""
    artifacts = bundle.parse_artifacts(module.params["artifacts"], "artifacts")
    return bundle_files.select(artifacts, module.params["kinds"], module.params["names"])


def states(
    artifacts: list[bundle.Artifact], destinations: bundle_files.Destinations, store: Store
) -> tuple[dict[str, str], dict[str, str]]:
    """By artifact path: what is on the node, and what should be. Raises what the functions it calls do."""
    before, after = {}, {}
    images = [artifact for artifact in artifacts if artifact.kind == bundle.IMAGE]
    present = store.image_ids([artifact.image for artifact in images if artifact.image])
    for artifact in artifacts:
        if artifact.kind == bundle.IMAGE:
            before[artifact.path] = present.get(artifact.image or "", "absent")
            after[artifact.path] = artifact.image_id or before[artifact.path].replace("absent", "any")
        else:
            before[artifact.path] = bundle_files.state_of(destinations.of(artifact), artifact)
            after[artifact.path] = bundle_files.wanted_state(artifact)
    return before, after


def install(
    module: AnsibleModule,
    missing: list[bundle.Artifact],
    destinations: bundle_files.Destinations,
    store: Store,
) -> None:
    """Install what is missing. Raises BundleError, ContainerdError, OSError."""
    bundle_dir = module.params["bundle_dir"]
    programs = {str(destinations.of(a)): a.sha256 for a in missing if a.kind != bundle.IMAGE}
    reset_record.note_programs(programs)
    reset_record.note_images(a.image for a in missing if a.image)
    for artifact in missing:
        if artifact.kind != bundle.IMAGE:
            destination = destinations.of(artifact)
            bundle_files.install(bundle_dir, artifact, destination)
            module.set_default_selinux_context(str(destination), False)
            continue
        problems = bundle.problems_of(bundle_dir, artifact)
        if problems:
            raise bundle.BundleError(" ".join(problems))
        store.load(str(bundle.locate(bundle_dir, artifact)), artifact.image or "", artifact.image_id)


def parents_of(paths: list[str]) -> list[str]:
    """All directories above relative paths, parents before children."""
    found = {str(parent) for path in paths for parent in Path(path).parents if str(parent) != "."}
    return sorted(found)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "query"], "default": "present"},
            "artifacts": {"type": "list", "elements": "dict", "required": True},
            "bundle_dir": {"type": "path"},
            "kinds": {
                "type": "list",
                "elements": "str",
                "choices": list(bundle.KINDS),
                "default": list(bundle.KINDS),
            },
            "names": {"type": "list", "elements": "str", "default": []},
            "bin_dir": {"type": "path", "default": "/usr/local/bin"},
            "kubelet_path": {"type": "path"},
            "cni_dir": {"type": "path", "default": "/opt/cni/bin"},
            "socket": {"type": "path", "default": "/run/containerd/containerd.sock"},
        },
        required_if=[("state", "present", ("bundle_dir",))],
        supports_check_mode=True,
    )
    params: dict[str, Any] = module.params
    destinations = bundle_files.Destinations(
        bin_dir=params["bin_dir"],
        cni_dir=params["cni_dir"],
        kubelet_path=params["kubelet_path"] or str(Path(params["bin_dir"]) / "kubelet"),
    )
    store = Store(run=module.run_command, socket=params["socket"])
    try:
        artifacts = artifacts_of(module)
        before, after = states(artifacts, destinations, store)
        missing = [artifact for artifact in artifacts if before[artifact.path] != after[artifact.path]]
        wanted = params["state"] == "present"
        if wanted and not module.check_mode:
            install(module, missing, destinations, store)
    except (bundle.BundleError, ContainerdError, OSError) as error:
        module.fail_json(msg=str(error))
    paths = [artifact.path for artifact in missing]
    module.exit_json(
        changed=wanted and bool(missing),
        missing=paths,
        missing_dirs=parents_of(paths),
        names=[artifact.image or artifact.name for artifact in missing],
        diff=diff_of({path: before[path] for path in paths}, {path: after[path] for path in paths}),
    )


if __name__ == "__main__":
    main()
