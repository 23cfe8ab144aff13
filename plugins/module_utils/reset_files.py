# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""The part of a reset that is files: ours go, replaced ones come back, folders are emptied of what the
cluster put there. Never crosses into another file system: what is mounted below is unmounted first, or the
folder stays.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ansible_collections.tortie.cluster.plugins.module_utils import (
    containerd,
    host,
    host_settings,
    kubelet_unit,
    managed_files,
    reset_record,
)
from ansible_collections.tortie.cluster.plugins.module_utils.reset_action import (
    Action,
    Machine,
    ResetError,
    answer,
    command,
    runs,
)
from ansible_collections.tortie.cluster.plugins.module_utils.reset_record import ABSENT, EMPTY, under

CRICTL_CONFIG = "/etc/crictl.yaml"
CONTAINERD_FILES = (containerd.CONFIG, CRICTL_CONFIG)
KUBELET_FILES = (kubelet_unit.UNIT, kubelet_unit.KUBEADM_DROP_IN, kubelet_unit.ENVIRONMENT_DROP_IN)
# The sysctl file last: without a record it is what says that the roles have been here.
SETTINGS_FILES = (
    host_settings.NETWORK_MANAGER_FILE,
    host_settings.NETWORKD_FILE,
    host_settings.NETWORKD_LINKS_FILE,
    host_settings.MODULES_FILE,
    host_settings.SYSCTL_FILE,
)
HOSTS_BLOCK = "nodes of the cluster"

# Nobody but kubelet, kubeadm and our network writes these; without a record they are emptied all the same.
UNAMBIGUOUS = (
    "/etc/kubernetes",
    "/run/calico",
    "/var/lib/calico",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/kubeadm",
    "/var/log/pods",
)
# Mounts below these belong to pods: volumes, sandboxes' shared memory, root file systems, network namespaces.
POD_MOUNTS = (
    "/var/lib/kubelet/",
    "/run/containerd/io.containerd.grpc.v1.cri/",
    "/run/containerd/io.containerd.runtime.v2.task/k8s.io/",
    "/var/lib/containerd/io.containerd.grpc.v1.cri/",
)
POD_NAMESPACES = "/run/netns/cni-"


def marked_files(root: str = "/") -> list[str]:
    """Those of our files that bear our mark."""
    certificates = under(root, containerd.CERTS_FOLDER)
    mirrors = [
        f"{containerd.CERTS_FOLDER}/{path.parent.name}/hosts.toml"
        for path in certificates.glob("*/hosts.toml")
    ]
    paths = (*KUBELET_FILES, *CONTAINERD_FILES, *mirrors, "/etc/kubernetes/kubeadm.yaml", *SETTINGS_FILES)
    return [path for path in paths if is_marked(path, root)]


def is_marked(path: str, root: str = "/") -> bool:
    """Whether the file is there and begins with our mark."""
    return (managed_files.read_text(str(under(root, path))) or "").startswith(managed_files.MARK)


def give_back(path: str, root: str = "/") -> None:
    """Restore what stood there before us, or remove our file."""
    if not reset_record.restore_original(path, root):
        under(root, path).unlink(missing_ok=True)


def file_actions(machine: Machine, paths: tuple[str, ...] | list[str]) -> list[Action]:
    """Give back each of the files that is ours."""
    actions = []
    for path in paths:
        if is_marked(path, machine.root):
            kept = under(machine.root, reset_record.ORIGINALS + path).exists()
            verb = "restore" if kept else "remove"
            actions.append(Action(f"{verb} {path}", partial(give_back, path, machine.root)))
    return actions


# --- mounts and trees


def unescape(text: str) -> str:
    """A path of /proc/self/mountinfo: blank, tab, newline and backslash are octal there."""
    for code, character in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        text = text.replace("\\" + code, character)
    return text


def mount_points(mountinfo: str) -> list[str]:
    """Mount points, in the order in which they were mounted (proc(5))."""
    return [unescape(line.split()[4]) for line in mountinfo.splitlines() if len(line.split()) > 4]


def mounts(machine: Machine) -> list[Action]:
    """Unmount what pods left mounted, innermost first."""
    if not machine.cluster_is_ours:
        return []
    found = [
        path
        for path in reversed(mount_points(host.read("/proc/self/mountinfo")))
        if path.startswith(POD_MOUNTS) or path.startswith(POD_NAMESPACES)
    ]
    actions = [Action(f"unmount {path}", partial(unmount, path)) for path in found]
    actions += [
        Action(f"remove {path}", partial(path.unlink, missing_ok=True))
        for path in sorted(Path("/run/netns").glob("cni-*"))
    ]
    return actions


def unmount(path: str) -> None:
    """Unmount, unless it went together with another mount of the same tree."""
    if path in mount_points(host.read("/proc/self/mountinfo")):
        command("umount", path)


def empty_folder(folder: Path, device: int, keep: frozenset[str] = frozenset()) -> None:
    """Remove everything in a folder of this file system but the folders to keep. Raises ResetError."""
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if not entry.is_dir(follow_symlinks=False):
                Path(entry.path).unlink(missing_ok=True)
                continue
            if entry.stat(follow_symlinks=False).st_dev != device:
                raise ResetError(f"{entry.path} is another file system; unmount it, and reset again.")
            empty_folder(Path(entry.path), device, keep)
            if entry.path not in keep:
                Path(entry.path).rmdir()


def remove_tree(
    folder: Path, keep_itself: bool, keep: frozenset[str] = frozenset(), mode: int | None = None
) -> None:
    """Remove a folder with its content; a mount point is only emptied. mode: of one that stays."""
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    empty_folder(folder, folder.stat().st_dev, keep)
    if keep_itself:
        if mode is not None:
            folder.chmod(mode)
        return
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:  # a mount point
            raise


def has_content(folder: Path, keep: frozenset[str]) -> bool:
    """Whether there is anything in it but the folders to keep."""
    return any(
        files or any(str(Path(place, name)) not in keep for name in folders)
        for place, folders, files in os.walk(folder)
    )


def trees(machine: Machine) -> list[Action]:
    """Empty or remove the folders that installation and cluster have filled."""
    actions: list[Action] = []
    if not machine.cluster_is_ours:
        return actions
    record = machine.record
    paths = UNAMBIGUOUS if record is None else reset_record.DATA_FOLDERS
    for path in paths:
        before = EMPTY if record is None else record.paths.get(path, EMPTY)
        # containerd's data goes with containerd, in its own phase.
        if before not in (ABSENT, EMPTY) or path == "/var/lib/containerd":
            continue
        place = under(machine.root, path)
        known = record.paths if record is not None else {}
        keep = frozenset(str(under(machine.root, name)) for name, state in known.items() if state == EMPTY)
        stays = before == EMPTY or os.path.ismount(place)
        # Without a record an empty folder may be somebody's: it stays.
        if place.is_dir() and (has_content(place, keep) or not stays):
            verb = "empty" if stays else "remove"
            mode = record.modes.get(path) if record is not None else None
            actions.append(Action(f"{verb} {path}", partial(remove_tree, place, stays, keep, mode)))
    return actions


# --- programs and plugins


def sha256_of(path: Path) -> str:
    """Digest of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def package_of(path: str) -> str:
    """The installed package that brought the file; empty: none."""
    return answer("dpkg-query", "-S", path).partition(":")[0] or answer("rpm", "-qf", "--qf", "%{NAME}", path)


def programs(machine: Machine) -> list[Action]:
    """Programs of the bundle by content; CNI plugins and configuration by name and what was there before."""
    actions: list[Action] = []
    record = machine.record
    if record is None:
        return actions
    network = [
        *(f"{record.cni_bin_dir}/{name}" for name in reset_record.CNI_PROGRAMS),
        *(f"{record.cni_conf_dir}/{name}" for name in reset_record.CNI_CONFIGS),
    ]
    for path in sorted({*record.programs, *network}):
        place, kept = under(machine.root, path), under(machine.root, reset_record.ORIGINALS + path)
        if kept.exists():
            if not place.exists() or sha256_of(place) != sha256_of(kept):
                actions.append(Action(f"restore {path}", partial(give_back, path, machine.root)))
        elif place.is_file():
            # The network's init container replaces some of the bundle's plugins: content says nothing there.
            others = path not in network and sha256_of(place) != record.programs[path]
            owner = "" if others else package_of(path)
            if others or owner or (path in network and not record.was_absent(path)):
                machine.notes.append(
                    f"{path} stays: it is not what we installed"
                    + (f" but of package {owner}." if owner else ".")
                )
            else:
                actions.append(Action(f"remove {path}", partial(give_back, path, machine.root)))
    return actions


def parents(machine: Machine) -> list[Action]:
    """Folders that were not there before and hold nothing now, innermost first."""
    record = machine.record
    if record is None:
        return []
    data = {*reset_record.DATA_FOLDERS}
    gone = sorted((p for p, state in record.paths.items() if state == ABSENT and p not in data), reverse=True)
    return [
        Action(f"remove {path}", partial(_remove_if_empty, place))
        for path, place in _empty(gone, machine.root)
    ]


def _empty(paths: list[str], root: str) -> Iterator[tuple[str, Path]]:
    """Those of the paths that are folders without anything but others of them."""
    places = {str(under(root, path)) for path in paths}
    for path in paths:
        place = under(root, path)
        if (
            place.is_dir()
            and not place.is_symlink()
            and all(str(child) in places for child in place.iterdir())
        ):
            yield path, place


def _remove_if_empty(place: Path) -> None:
    try:
        place.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
            raise


# --- files of other people that we have written into


def mixed_files(machine: Machine) -> list[Action]:
    """Take our block out of /etc/hosts, and our comments off the swap lines of /etc/fstab."""
    if not machine.ours:
        return []
    changes = []
    for path, clean in ((host_settings.HOSTS_FILE, without_block), (host_settings.FSTAB, with_swap)):
        place = str(under(machine.root, path))
        text = managed_files.read_text(place)
        if text is not None and clean(text) != text:
            changes.append(managed_files.FileChange(place, text, clean(text)))
    return [Action(f"clean {change.path}", partial(managed_files.apply, change)) for change in changes]


def without_block(text: str) -> str:
    """hosts(5) without our block; unchanged when there is none."""
    begin = managed_files.BLOCK_BEGIN.format(name=HOSTS_BLOCK)
    return managed_files.with_block(text, HOSTS_BLOCK, []) if begin in text.splitlines() else text


def with_swap(text: str) -> str:
    """fstab(5) with the lines that we had made comments."""
    mark = managed_files.SWAP_MARK
    return "".join(line[len(mark) :] if line.startswith(mark) else line for line in text.splitlines(True))


def settings_files(machine: Machine) -> list[Action]:
    """Our files for network services, kernel modules and kernel settings; the services then read theirs
    again.
    """
    actions = file_actions(machine, SETTINGS_FILES)
    touched = {action.what.partition(" ")[2] for action in actions}
    if host_settings.NETWORK_MANAGER_FILE in touched and host.service_runs("NetworkManager.service"):
        actions.append(Action("reload NetworkManager", runs("systemctl", "reload", "NetworkManager.service")))
    networkd = {host_settings.NETWORKD_FILE, host_settings.NETWORKD_LINKS_FILE}
    if touched & networkd and host.service_runs("systemd-networkd.service"):
        # Not a restart: it would take everybody else's routes and rules away, which we had told it to leave
        # alone. That setting it keeps until it starts the next time.
        actions.append(Action("reload systemd-networkd", runs("networkctl", "reload")))
    return actions


def repositories(machine: Machine) -> list[Action]:
    """Package repositories that the roles have made known; they go with the packages."""
    record = machine.record
    if record is None or not machine.remove_packages:
        return []
    return [
        Action(f"remove {path}", partial(under(machine.root, path).unlink, missing_ok=True))
        for path in reset_record.REPOSITORY_FILES
        if record.was_absent(path) and under(machine.root, path).exists()
    ]


def packages(machine: Machine) -> list[Action]:
    """Packages that the roles have installed, with their configuration, if that is asked."""
    if machine.record is None or not machine.remove_packages:
        return []
    names = sorted(set(machine.record.packages) & set(host.installed_packages()))
    return [Action(f"remove package {' '.join(names)}", partial(remove_packages, names))] if names else []


def remove_packages(names: list[str]) -> None:
    """Remove exactly these. Raises ResetError when others would go with them."""
    if not answer("dpkg-query", "--version"):
        command("dnf", "remove", "--assumeyes", "--noautoremove", *names)
        return
    options = ["--assume-yes", "--allow-change-held-packages", "purge"]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    planned = command("apt-get", "--simulate", *options, *names, extra=quiet)
    going = {line.split()[1] for line in planned.splitlines() if line.startswith(("Purg ", "Remv "))}
    others = sorted(going - set(names))
    if others:
        raise ResetError(
            f"{', '.join(others)} would be removed with them, which the roles did not install; remove these"
            " yourself, or reset with reset_remove_packages=false."
        )
    command("apt-get", *options, *names, extra=quiet)
