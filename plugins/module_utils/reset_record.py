# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""What a machine was like before the first change of the roles, so that a reset can give it back.

One file, RECORD, written before anything else and deleted last; beside it, below ORIGINALS, copies of other
people's files that the roles replaced. Every note is on disk before the change that it is about. A machine
on which the roles have been at work without a record gets none: what it would say would be wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ansible_collections.tortie.cluster.plugins.module_utils import host, reset_nft

FOLDER = "/var/lib/tortie"
RECORD = f"{FOLDER}/before.json"
ORIGINALS = f"{FOLDER}/originals"

CNI_BIN_DIR = "/opt/cni/bin"
CNI_CONF_DIR = "/etc/cni/net.d"
# What the network's init container puts into the two folders (src/tortie/cni/installer.py).
CNI_PROGRAMS = ("bandwidth", "calico", "calico-ipam", "host-local", "loopback", "portmap")
CNI_CONFIGS = ("10-calico.conflist", "calico-kubeconfig")

# Folders that installation or cluster fill; what they held before decides what a reset takes out of them.
DATA_FOLDERS = (
    "/etc/kubernetes",
    "/opt/containerd",
    "/root/.kube",
    "/run/calico",
    "/usr/libexec/kubernetes",
    "/var/cache/tortie",
    "/var/lib/calico",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/kubeadm",
    "/var/log/pods",
)
# Folders in which single files of ours lie; one that was not there goes again when nothing else is in it.
PARENT_FOLDERS = (
    "/etc/NetworkManager",
    "/etc/NetworkManager/conf.d",
    "/etc/apt/keyrings",
    "/etc/containerd",
    "/etc/containerd/certs.d",
    "/etc/modules-load.d",
    "/etc/sysctl.d",
    "/etc/systemd/network",
    "/etc/systemd/networkd.conf.d",
    "/etc/systemd/system/kubelet.service.d",
    "/etc/systemd/system/multi-user.target.wants",
    "/usr/libexec",
)
REPOSITORY_FILES = (
    "/etc/apt/keyrings/kubernetes.asc",
    "/etc/apt/sources.list.d/kubernetes.list",
    "/etc/yum.repos.d/containerd.repo",
    "/etc/yum.repos.d/kubernetes.repo",
)
# Written by kubelet (container manager), kube-proxy and the network's agent while they run.
CLUSTER_SYSCTLS = (
    "kernel.keys.root_maxbytes",
    "kernel.keys.root_maxkeys",
    "kernel.panic",
    "kernel.panic_on_oops",
    "net.ipv4.conf.all.arp_announce",
    "net.ipv4.conf.all.arp_ignore",
    "net.ipv4.conf.all.route_localnet",
    "net.ipv4.ip_forward",
    "net.ipv4.vs.conn_reuse_mode",
    "net.ipv4.vs.conntrack",
    "net.ipv4.vs.expire_nodest_conn",
    "net.ipv4.vs.expire_quiescent_template",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
)
SERVICES = ("containerd.service", "kubelet.service")
# One of these before the first change: somebody else has made a node of this machine.
CLUSTER_CREDENTIALS = ("/etc/kubernetes/admin.conf", "/etc/kubernetes/kubelet.conf")

ABSENT, EMPTY, FILLED = "absent", "empty", "filled"


@dataclass
class Record:
    """paths: ABSENT, EMPTY (a folder with folders at most) or FILLED by path; modes: permissions of the
    empty ones; sysctls: value by name;
    modules: loaded; links: `{mtu, up, addresses}` by name; nft_tables: `<family> <name>`; nft_chains:
    `<family> <table> <name>`;
    services: `{load, active, enabled}` by unit; images: names in containerd's namespace k8s.io, None when
    it could not be asked; loaded: names of the images that we have imported;
    swaps: devices that we switched off; programs: SHA-256 by path of what came from the bundle;
    packages: installed by us; pool: the pods' addresses; drop_containerd: containerd's data is to be removed,
    decided while it ran.
    """

    paths: dict[str, str] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    links: dict[str, dict[str, Any]] = field(default_factory=dict)
    nft_tables: list[str] = field(default_factory=list)
    nft_chains: list[str] = field(default_factory=list)
    services: dict[str, dict[str, str]] = field(default_factory=dict)
    images: list[str] | None = None
    loaded: list[str] = field(default_factory=list)
    swaps: list[str] = field(default_factory=list)
    programs: dict[str, str] = field(default_factory=dict)
    packages: list[str] = field(default_factory=list)
    pool: str = ""
    cni_bin_dir: str = CNI_BIN_DIR
    cni_conf_dir: str = CNI_CONF_DIR
    foreign_cluster: bool = False
    drop_containerd: bool = False

    def was_absent(self, path: str) -> bool:
        """Whether nothing was there; a path that was not looked at counts as having been there."""
        return self.paths.get(path) == ABSENT


def under(root: str, path: str) -> Path:
    """The path as it is below the root of this machine's file system."""
    return Path(root, path.lstrip("/"))


def load(root: str = "/") -> Record | None:
    """The record, or None. Raises ValueError with a sentence when the file is not one."""
    text = host.read(RECORD, root)
    if not text:
        return None
    try:
        values = json.loads(text)
        known = {item.name for item in fields(Record)}
        return Record(**{name: value for name, value in values.items() if name in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{RECORD} is not readable ({error}); a reset cannot know what this machine was like. Remove the"
            " file to reset without it."
        ) from error


def save(record: Record, root: str = "/") -> None:
    """Write the record; a reader sees the old one or the new one."""
    _write(under(root, RECORD), (json.dumps(asdict(record), indent=1, sort_keys=True) + "\n").encode())


def note_sysctls(before: Mapping[str, str], root: str = "/") -> None:
    """Remember values that are about to be changed for the first time."""
    record = load(root)
    new = {} if record is None else {n: v for n, v in before.items() if v and n not in record.sysctls}
    if record is not None and new:
        record.sysctls.update(new)
        save(record, root)


def note_swaps(devices: Iterable[str], root: str = "/") -> None:
    """Remember swap that is about to be switched off."""
    record = load(root)
    new = [] if record is None else [device for device in devices if device not in record.swaps]
    if record is not None and new:
        record.swaps.extend(new)
        save(record, root)


def note_programs(digests: Mapping[str, str], root: str = "/") -> None:
    """Remember programs (SHA-256 by path) that are about to be written; keep what they replace."""
    record = load(root)
    if record is None:
        return
    for path in digests:
        if path not in record.programs:
            keep_original(path, root)
    if any(record.programs.get(path) != digest for path, digest in digests.items()):
        record.programs.update(digests)
        save(record, root)


def note_images(names: Iterable[str], root: str = "/") -> None:
    """Remember images that are about to be imported."""
    record = load(root)
    new = [] if record is None else sorted(set(names) - set(record.loaded))
    if record is not None and new:
        record.loaded = sorted({*record.loaded, *new})
        save(record, root)


def note_packages(names: Iterable[str], root: str = "/") -> bool:
    """Remember packages that the roles have installed; whether that was news."""
    record = load(root)
    new = [] if record is None else sorted(set(names) - set(record.packages))
    if record is not None and new:
        record.packages = sorted({*record.packages, *new})
        save(record, root)
    return bool(new)


def keep_original(path: str, root: str = "/") -> None:
    """Copy somebody else's file that is about to be replaced, with mode and owner; the first copy stays."""
    source, copy = under(root, path), under(root, ORIGINALS + path)
    if not under(root, RECORD).exists() or copy.exists() or not source.is_file():
        return
    status = source.stat()
    _write(copy, source.read_bytes(), status.st_mode & 0o7777)
    os.chown(copy, status.st_uid, status.st_gid)


def restore_original(path: str, root: str = "/") -> bool:
    """Put a kept copy back; whether there was one."""
    target, copy = under(root, path), under(root, ORIGINALS + path)
    if not copy.exists():
        return False
    status = copy.stat()
    _write(target, copy.read_bytes(), status.st_mode & 0o7777)
    os.chown(target, status.st_uid, status.st_gid)
    return True


def forget(root: str = "/") -> None:
    """Remove record and copies; the record first would leave copies that nobody knows."""
    shutil.rmtree(under(root, ORIGINALS), ignore_errors=True)
    under(root, RECORD).unlink(missing_ok=True)
    folder = under(root, FOLDER)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def folder_states(path: str, root: str = "/") -> dict[str, str]:
    """State by path: of the folder and, when there are no files in it, of the folders in it."""
    place = under(root, path)
    if not place.exists():
        return {path: ABSENT}
    if not place.is_dir():
        return {path: FILLED}
    inner: dict[str, str] = {}
    for folder, folders, files in os.walk(place):
        if files or any(Path(folder, name).is_symlink() for name in folders):
            return {path: FILLED}
        inner.update({str(Path(path, Path(folder, name).relative_to(place))): EMPTY for name in folders})
    return {path: EMPTY, **inner}


def take(cni_bin_dir: str, cni_conf_dir: str, pool: str, root: str = "/") -> Record:
    """Look at the machine."""
    record = Record(pool=pool, cni_bin_dir=cni_bin_dir, cni_conf_dir=cni_conf_dir)
    for path in DATA_FOLDERS:
        record.paths.update(folder_states(path, root))
        if record.paths[path] == EMPTY:
            record.modes[path] = under(root, path).stat().st_mode & 0o7777
    parents = {str(parent) for folder in (cni_bin_dir, cni_conf_dir) for parent in Path(folder).parents}
    singles = {
        *PARENT_FOLDERS,
        *REPOSITORY_FILES,
        *(parents - {"/"}),
        cni_bin_dir,
        cni_conf_dir,
        *(f"{cni_bin_dir}/{name}" for name in CNI_PROGRAMS),
        *(f"{cni_conf_dir}/{name}" for name in CNI_CONFIGS),
    }
    for path in sorted(singles - set(record.paths)):
        record.paths[path] = FILLED if under(root, path).exists() else ABSENT
    record.foreign_cluster = any(under(root, path).exists() for path in CLUSTER_CREDENTIALS)
    for name in CLUSTER_SYSCTLS:
        value = " ".join(host.read("/proc/sys/" + name.replace(".", "/"), root).split())
        if value:
            record.sysctls[name] = value
    record.modules = loaded_modules(root)
    status, text = host.output("ip", "-json", "-details", "address", "show")
    for link in host.parse_links(text if status == 0 else "[]"):
        record.links[link["name"]] = {name: link[name] for name in ("mtu", "up", "addresses")}
    ruleset = reset_nft.read()
    record.nft_tables = [" ".join(table) for table in ruleset.tables]
    record.nft_chains = [" ".join(chain) for chain in ruleset.chains]
    record.services = {unit: unit_state(unit) for unit in SERVICES}
    if Path("/run/containerd/containerd.sock").exists():
        status, text = host.output("ctr", "--namespace", "k8s.io", "images", "ls", "-q")
        record.images = text.split() if status == 0 else None
    return record


def begin(record: Record, root: str = "/") -> None:
    """Write a new record, and then copies of what the network's init container would replace."""
    save(record, root)
    for folder, names in ((record.cni_bin_dir, CNI_PROGRAMS), (record.cni_conf_dir, CNI_CONFIGS)):
        for name in names:
            keep_original(f"{folder}/{name}", root)


def loaded_modules(root: str = "/") -> list[str]:
    """Names of the kernel modules that are loaded."""
    return sorted(line.split()[0] for line in host.read("/proc/modules", root).splitlines() if line.strip())


def unit_state(unit: str) -> dict[str, str]:
    """`load`, `active` and `enabled` of a systemd unit, in systemd's words."""
    _status, text = host.output("systemctl", "show", unit, "--property=LoadState,ActiveState,UnitFileState")
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {
        "load": found.get("LoadState", ""),
        "active": found.get("ActiveState", ""),
        "enabled": found.get("UnitFileState", ""),
    }


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
