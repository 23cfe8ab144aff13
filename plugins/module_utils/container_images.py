"""Images in containerd's store, through its client ctr.

An image is there when its name leads to a configuration of the wanted digest: the name alone may be an older
image, and the digest that `ctr images ls` shows is the manifest's, which depends on how the image came in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

# (command) -> (exit status, standard output, standard error)
Run = Callable[[Sequence[str]], "tuple[int, str, str]"]

DEFAULT_SOCKET = "/run/containerd/containerd.sock"
# Where the CRI plugin, and so the kubelet, looks for images.
KUBERNETES_NAMESPACE = "k8s.io"


class ContainerdError(Exception):
    """containerd did not do it; the message is a sentence for the user."""


@dataclass(frozen=True)
class Store:
    """One namespace of one containerd."""

    run: Run
    socket: str = DEFAULT_SOCKET
    namespace: str = KUBERNETES_NAMESPACE

    def ctr(self, *arguments: str) -> str:
        """Standard output of ctr. Raises ContainerdError."""
        # ctr would try for ten seconds.
        if not Path(self.socket).exists():
            raise ContainerdError(
                f"There is no containerd at {self.socket}; start it, or set socket to where it listens."
            )
        command = ["ctr", "--address", self.socket, "--namespace", self.namespace, *arguments]
        status, output, error = self.run(command)
        if status != 0:
            detail = (error or output).strip()[-500:]
            raise ContainerdError(
                f"'ctr {' '.join(arguments[:2])}' failed: {detail}; is containerd at {self.socket} running?"
            )
        return output

    def image_ids(self, names: Sequence[str]) -> dict[str, str]:
        """Image IDs ("sha256:...") of those of the names that the store has completely."""
        if not names:
            return {}
        listing = self.ctr("images", "ls", *(f"name=={name}" for name in names))
        found = {}
        for name, digest in parse_listing(listing).items():
            image_id = self._config_digest(digest)
            if image_id is not None:
                found[name] = image_id
        return found

    def _config_digest(self, digest: str) -> str | None:
        """Where a manifest or an index of manifests leads; None when the store lacks parts of it."""
        try:
            document = json.loads(self.ctr("content", "get", digest))
        except (ContainerdError, ValueError):
            # The store has the name but not the content: as good as absent.
            return None
        if "config" in document:
            return str(document["config"]["digest"])
        for entry in document.get("manifests", ()):
            # An index may list manifests of other architectures, which were not fetched.
            image_id = self._config_digest(entry["digest"])
            if image_id is not None:
                return image_id
        return None

    def load(self, archive: str, name: str, image_id: str | None) -> None:
        """Import an archive and make sure that it gave the wanted image. Raises ContainerdError."""
        self.ctr("images", "import", archive)
        got = self.image_ids([name]).get(name)
        if got is None:
            raise ContainerdError(
                f"{archive} was imported and holds no image {name}; check name, or save the image again."
            )
        if image_id is not None and got != image_id:
            raise ContainerdError(
                f"{archive} holds another {name}: its ID is {got}, and {image_id} is wanted."
            )


def parse_listing(text: str) -> dict[str, str]:
    """Names and manifest digests of `ctr images ls`: REF TYPE DIGEST SIZE PLATFORMS LABELS."""
    found = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 3 and fields[2].startswith("sha256:"):
            found[fields[0]] = fields[2]
    return found


def diff_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """Ansible's diff of two states, one sorted line per item."""
    return {
        "before": "".join(f"{key} {value}\n" for key, value in sorted(before.items())),
        "after": "".join(f"{key} {value}\n" for key, value in sorted(after.items())),
    }
