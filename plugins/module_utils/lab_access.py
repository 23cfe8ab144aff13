"""Keys and ssh configuration of a lab: generated once, kept in the lab's folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ansible_collections.tortie.cluster.plugins.module_utils.lab_commands import run
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import (
    VOLUMES,
    Lab,
    Node,
    render_ssh_config,
)


def user_key(lab: Lab) -> Path:
    """The private key that logs in to every node."""
    return lab.directory / "ssh" / "id_ed25519"


def host_key(lab: Lab, node: Node) -> Path:
    """A node's own private key; its folder is mounted into the node."""
    return lab.volume_dir(node.name) / "ssh" / "ssh_host_ed25519_key"


def missing_keys(lab: Lab) -> list[Path]:
    """Private keys that have to be made."""
    keys = [user_key(lab), *(host_key(lab, node) for node in lab.nodes)]
    return [key for key in keys if not (key.exists() and key.with_suffix(".pub").exists())]


def make_key(path: Path) -> None:
    """A new ed25519 key without passphrase. It appears complete or not at all: the public half goes first."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(path.name + ".partial")
    for leftover in (partial, partial.with_name(partial.name + ".pub")):
        leftover.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(partial)])
    partial.with_name(partial.name + ".pub").rename(path.with_suffix(".pub"))
    partial.rename(path)


def wanted_files(lab: Lab) -> dict[Path, str]:
    """Every text file of the lab's access, by path. The keys must exist."""
    public = user_key(lab).with_suffix(".pub").read_text()
    files = {lab.volume_dir(node.name) / "ssh" / "authorized_keys": public for node in lab.nodes}
    files[lab.directory / "ssh" / "known_hosts"] = "".join(
        "{} {}\n".format(node.name, " ".join(host_key(lab, node).with_suffix(".pub").read_text().split()[:2]))
        for node in lab.nodes
    )
    files[lab.ssh_config] = render_ssh_config(lab)
    return files


def outdated_files(lab: Lab) -> dict[Path, str]:
    """Those of `wanted_files` that are missing or differ."""
    return {p: t for p, t in wanted_files(lab).items() if not p.exists() or p.read_text() != t}


def write_file(path: Path, text: str) -> None:
    """Write a file that only its owner reads, in one step."""
    partial = path.with_name(path.name + ".partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(text)
    partial.rename(path)


def wipe_volumes(lab: Lab, node: str) -> None:
    """Empty a node's volumes: they belong to one life of its container."""
    for volume in VOLUMES:
        path = lab.volume_dir(node) / volume
        if path.exists():
            shutil.rmtree(path)


def files_of_lab(lab: Lab) -> list[Path]:
    """What exists of the lab below its folder; other files there (reports) are left alone."""
    names = ("nodes", "ssh", "ssh_config", "kubeconfig", "api.json", "forward.log", "bin", "logs")
    return [lab.directory / name for name in names if (lab.directory / name).exists()]


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
