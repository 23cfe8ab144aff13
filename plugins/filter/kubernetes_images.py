# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Which images a Kubernetes version, or a bundle, has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.tortie.cluster.plugins.module_utils import kube_versions


def pause_image(version: str, manifest: Mapping[str, Any], repository: str = "") -> str:
    """Reference of the pause image: the bundle's when there is a manifest, else this version's, from
    `repository` if that is given.
    """
    image = _image_named(manifest, "pause")
    if image:
        return image
    try:
        image = kube_versions.pause_image(version)
    except kube_versions.VersionError as error:
        raise AnsibleFilterError(f"{error} Then set containerd_sandbox_image.") from error
    return f"{repository.rstrip('/')}/{image.rpartition('/')[2]}" if repository else image


def has_image(manifest: Mapping[str, Any], name: str) -> bool:
    """Whether the bundle has an image of this name. Without a manifest every image can be had: from the
    registry.
    """
    return not manifest or _image_named(manifest, name) != ""


def _image_named(manifest: Mapping[str, Any], name: str) -> str:
    for artifact in manifest.get("artifacts", []):
        if artifact["kind"] == "image" and artifact["name"] == name:
            return str(artifact["image"])
    return ""


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {"pause_image": pause_image, "has_image": has_image}
