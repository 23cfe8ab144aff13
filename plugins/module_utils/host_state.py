# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""A machine's state as text that two moments can be compared by: the sections of `take` hold sorted lines.

What changes by itself, or is not the machine's own, is left out. The lists below are all of it, each with its
reason; docs/reset.md shows them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible_collections.tortie.cluster.plugins.module_utils import host, reset_files

FOLDERS = ("/etc", "/opt", "/usr/local", "/usr/libexec", "/var/lib", "/var/log/pods", "/var/log/containers")

# Paths (with everything below) whose content changes by itself.
VOLATILE_PATHS = {
    "/etc/ld.so.cache": "rebuilt by ldconfig",
    "/etc/resolv.conf": "written by DHCP clients",
    "/var/lib/NetworkManager": "leases and timestamps of NetworkManager",
    "/var/lib/chrony": "drift of the clock",
    "/var/lib/dhcp": "leases",
    "/var/lib/logrotate": "date of the last rotation",
    "/var/lib/private": "systemd's services keep state there",
    "/var/lib/systemd": "random seed, clock, timers, core dumps",
    "/var/lib/ucf": "registry of configuration files, rewritten by package operations",
}
# And these, when packages that came with the installation stay.
PACKAGE_PATHS = {
    "/var/lib/apt": "package lists",
    "/var/lib/dpkg": "package database",
    "/var/lib/rpm": "package database",
    "/var/lib/dnf": "package database",
}
# Its databases change with everything that it does: only whether there is anything counts, and what a
# running one says that it holds.
CONTAINERD, CONTAINERD_DATA = "containerd.service", "/var/lib/containerd"
# Kernel settings that count, draw lots or tell the time.
VOLATILE_SYSCTLS = {
    r"fs\.(dentry-state|inode-nr|inode-state|file-nr|aio-nr|quota\..*|epoll\..*)": "counters",
    r"fs\.binfmt_misc\..*": "registered by other services",
    r"kernel\.(ns_last_pid|random\..*|pty\.nr|threads-max)": "counters and random numbers",
    r"kernel\.sched_domain\..*": "measured by the scheduler",
    r"net\.netfilter\.nf_conntrack_count": "counter",
    r"net\.ipv[46]\.route\.flush|vm\.(stat_refresh|compact_memory)": "an order, not a value",
    r"net\.ipv6\.conf\..*\.stable_secret": "cannot be read until it is set",
    r"net\.ipv4\.tcp_fastopen_key": "random",
    r"net\.ipv4\.(tcp_mem|udp_mem)": "computed from free memory",
    r"sunrpc\..*": "loaded by other services",
}
# systemd units that come and go with sessions, timers and requests, and a point of the boot that kubelet's
# unit asks for: once reached it stays so, and does nothing.
VOLATILE_UNITS = re.compile(
    r".*@.*\.service|session-.*\.scope|user-.*\.slice|run-.*\.(scope|service)|.*\.device|.*\.timer|.*\.mount"
    r"|systemd-(tmpfiles-clean|hostnamed|timedated|journal-flush|udev-settle|fsck.*|random-seed)\.service"
    r"|network-online\.target|(apt|dpkg|man-db|logrotate|e2scrub|fstrim|motd).*"
)
# Fields of links, addresses and routes that count or tell the time.
VOLATILE_FIELDS = {
    "valid_life_time", "preferred_life_time", "stats", "stats64", "ifindex", "link_index", "expires",
    "num_tx_queues", "num_rx_queues", "gc_timer", "hello_timer", "tcn_timer", "topology_change_timer",
}  # fmt: skip
COUNTERS = re.compile(r"\[\d+:\d+\]")


def matches(name: str, patterns: dict[str, str]) -> bool:
    """Whether one of the patterns takes the whole name."""
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def take(packages_stay: bool) -> dict[str, list[str]]:
    """Every section of the machine's state."""
    sections: dict[str, Callable[[], list[str]]] = {
        "addresses": lambda: _ip_lines("address", "show"),
        "files": lambda: files(packages_stay),
        "images": images,
        "iptables": iptables,
        "links": lambda: _ip_lines("link", "show"),
        "mounts": mounts,
        "nftables": nftables,
        "packages": lambda: (
            [] if packages_stay else [f"{n} {v}" for n, v in host.installed_packages().items()]
        ),
        "routes": lambda: [
            *_ip_lines("-4", "route", "show", "table", "all"),
            *_ip_lines("-6", "route", "show", "table", "all"),
        ],
        "rules": lambda: [*_ip_lines("-4", "rule", "show"), *_ip_lines("-6", "rule", "show")],
        "sets": lambda: _lines("ipset", "list", "-name"),
        "swap": lambda: host.parse_swaps(host.read("/proc/swaps")),
        "sysctls": sysctls,
        "units": units,
    }
    return {name: sorted(look()) for name, look in sections.items()}


def compare(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """`<section>: - line` for what is gone and `+ line` for what is new; empty when both are the same."""
    found = []
    for section in sorted({*before, *after}):
        old, new = set(before.get(section, [])), set(after.get(section, []))
        found += [f"{section}: - {line}" for line in sorted(old - new)]
        found += [f"{section}: + {line}" for line in sorted(new - old)]
    return found


def _lines(*command: str) -> list[str]:
    status, text = host.output(*command)
    return text.splitlines() if status == 0 else []


def _ip_lines(*arguments: str) -> list[str]:
    """One line for each object of `ip -json`, without what counts or tells the time."""
    status, text = host.output("ip", "-N", "-json", "-details", *arguments)
    items = json.loads(text or "[]") if status == 0 else []
    return [json.dumps(_steady(item), sort_keys=True) for item in items if item]


def _steady(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _steady(value) for key, value in item.items() if key not in VOLATILE_FIELDS}
    return [_steady(value) for value in item] if isinstance(item, list) else item


def nftables() -> list[str]:
    """`nft list ruleset` with the table in front of each line; counters are left out."""
    lines, table = [], ""
    for line in _lines("nft", "--stateless", "list", "ruleset"):
        if line.startswith("table "):
            table = line.rstrip(" {")
        if line.strip() not in ("", "}") and not line.startswith("#"):
            lines.append(f"{table}: {line.strip()}")
    return lines


def iptables() -> list[str]:
    """What each back end prints, for the tables that the kernel has; looking must not load a module."""
    lines = []
    for variant in ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"):
        six, legacy = variant.startswith("ip6"), variant.endswith("legacy")
        if legacy and not host.read(f"/proc/net/ip{'6' if six else ''}_tables_names"):
            continue
        if shutil.which(f"{variant}-save"):
            saved = [line for line in _lines(f"{variant}-save") if not line.startswith("#")]
            lines += [f"{variant}: {COUNTERS.sub('', line)}" for line in saved if line != "COMMIT"]
    return lines


def mounts() -> list[str]:
    """Mount point, file system and source of every mount."""
    lines = []
    for line in host.read("/proc/self/mountinfo").splitlines():
        left, _dash, right = line.partition(" - ")
        point = reset_files.unescape(left.split()[4])
        if not re.match(r"/run/(user|credentials)/|/tmp/", point):
            lines.append(f"{point} {right.split()[0]} {right.split()[1]}")
    return lines


def units() -> list[str]:
    """Installed unit files with their state, and units with what they are doing."""
    lines = []
    for line in _lines("systemctl", "list-unit-files", "--no-legend", "--no-pager", "--plain"):
        name, state = line.split()[:2]
        if not VOLATILE_UNITS.fullmatch(name):
            lines.append(f"file {name} {state}")
    for line in _lines("systemctl", "list-units", "--all", "--no-legend", "--no-pager", "--plain"):
        name, load, active, sub = line.split()[:4]
        # A unit that is only mentioned by others comes and goes from systemd's memory.
        if not VOLATILE_UNITS.fullmatch(name) and active not in ("inactive",) and load == "loaded":
            lines.append(f"unit {name} {active} {sub}")
    return lines


def sysctls() -> list[str]:
    """Every readable kernel setting."""
    lines, top = [], Path("/proc/sys")
    for folder, folders, names in os.walk(top):
        if folder == "/proc/sys/fs" and "binfmt_misc" in folders:
            folders.remove("binfmt_misc")  # looking into it would mount it
        for name in names:
            path = Path(folder, name)
            dotted = str(path.relative_to(top)).replace(".", "\0").replace("/", ".").replace("\0", "/")
            if matches(dotted, VOLATILE_SYSCTLS) or not path.stat().st_mode & stat.S_IRUSR:
                continue
            value = " ".join(host.read(str(path)).split())
            lines.append(f"{dotted} = {value}")
    return lines


def images() -> list[str]:
    """Images and containers of every namespace of a containerd that runs."""
    lines = []
    for name in _lines("ctr", "namespaces", "ls", "-q") if host.service_runs(CONTAINERD) else ():
        for kind in ("images", "containers"):
            lines += [
                f"{name} {kind} {item}" for item in _lines("ctr", "--namespace", name, kind, "ls", "-q")
            ]
    return lines


def files(packages_stay: bool) -> list[str]:
    """Path, kind, mode, owner and digest of everything below FOLDERS that is not volatile."""
    skip = {*VOLATILE_PATHS, *(PACKAGE_PATHS if packages_stay else ())}
    return [line for folder in FOLDERS for line in _tree(Path(folder), skip)]


def _tree(path: Path, skip: set[str]) -> Iterator[str]:
    if str(path) in skip:
        return
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    head = f"{path} {stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    if stat.S_ISLNK(status.st_mode):
        yield f"{head} -> {path.readlink()}"
    elif stat.S_ISREG(status.st_mode):
        yield f"{head} {_digest(path)}"
    else:
        yield head
    if str(path) == CONTAINERD_DATA and any(path.iterdir()):
        yield f"{path} is not empty"
    elif stat.S_ISDIR(status.st_mode):
        for child in sorted(path.iterdir()):
            yield from _tree(child, skip)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:16]
