# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Look at a machine without changing it: the parsers are pure, the readers take the root of the file system.

What a kernel can do is tried in a network namespace of a child process, so that nothing of the trial is left
behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

COMMAND_SECONDS = 20  # more than any of the commands here takes on an emulated machine
TCP_LISTEN = "0A"  # linux/tcp_states.h: TCP_LISTEN = 10
CAP_SYS_RESOURCE = 24  # linux/capability.h

# Device kinds by our name for the encapsulation, with the arguments that create one without an underlying
# link.
TUNNEL_TRIALS: Mapping[str, tuple[str, ...]] = {
    "ipip": ("ipip", "local", "127.0.0.1", "remote", "127.0.0.2"),
    "vxlan": ("vxlan", "id", "4096", "dstport", "4789", "local", "127.0.0.1"),
}
# A device of this name in the node's own namespace proves the feature.
TUNNEL_DEVICES: Mapping[str, str] = {"ipip": "tunl0", "vxlan": "vxlan.calico"}


# --- parsers
# --------------------------------------------------------------------------------------------------------


def parse_os_release(text: str) -> dict[str, str]:
    """os-release(5) as a dictionary."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            found[key] = value.strip().strip("\"'")
    return found


def os_family(release: Mapping[str, str]) -> str:
    """`Debian`, `RedHat`, or the distribution's own id when it belongs to neither."""
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    if "debian" in names or "ubuntu" in names:
        return "Debian"
    if {"rhel", "fedora", "centos"} & set(names):
        return "RedHat"
    return release.get("ID", "unknown")


def parse_links(text: str) -> list[dict[str, Any]]:
    """`ip -json -details address show` as [{name, mtu, kind, up, addresses: ["a.b.c.d/length"]}], IPv4 only,
    in kernel order.
    """
    links = []
    for link in json.loads(text or "[]"):
        if not link.get("ifname"):
            continue
        addresses = [
            f"{item['local']}/{item['prefixlen']}"
            for item in link.get("addr_info", [])
            if item.get("family") == "inet"
        ]
        links.append(
            {
                "name": link["ifname"],
                "mtu": int(link.get("mtu", 0)),
                "kind": str(link.get("linkinfo", {}).get("info_kind", "")),
                "up": "UP" in link.get("flags", []),
                "addresses": addresses,
            }
        )
    return links


def parse_listeners(text: str) -> dict[int, str]:
    """/proc/net/tcp or tcp6: socket inode by listening port."""
    found: dict[int, str] = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == TCP_LISTEN:
            found.setdefault(int(fields[1].rpartition(":")[2], 16), fields[9])
    return found


def parse_swaps(text: str) -> list[str]:
    """/proc/swaps: the devices and files in use."""
    return [line.split()[0] for line in text.splitlines()[1:] if line.strip()]


def parse_meminfo(text: str) -> int:
    """/proc/meminfo: memory in MiB."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)
    return int(match.group(1)) // 1024 if match else 0


def parse_packages(text: str) -> dict[str, str]:
    """Lines `name<TAB>version<TAB>status` (status empty for rpm): version by name of what is installed."""
    found = {}
    for line in text.splitlines():
        name, version, status = (*line.split("\t"), "", "")[:3]
        if name and (not status or status.endswith(" installed")):
            found[name] = version
    return found


def has_capability(status: str, capability: int) -> bool:
    """Whether /proc/<pid>/status lists a capability as effective."""
    match = re.search(r"^CapEff:\s+([0-9a-f]+)", status, re.MULTILINE)
    return match is not None and bool(int(match.group(1), 16) >> capability & 1)


# --- readers
# --------------------------------------------------------------------------------------------------------


def read(path: str, root: str = "/") -> str:
    """The file's text; empty when it is not there or cannot be read."""
    try:
        return (Path(root) / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def output(*command: str) -> tuple[int, str]:
    """Exit status and standard output; 127 when the program is missing, 124 when it took too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except FileNotFoundError:
        return 127, ""
    except subprocess.TimeoutExpired:
        return 124, ""
    return done.returncode, done.stdout


def module_state(name: str) -> str:
    """`present` (loaded or built in), `loadable`, or `absent` as far as the module files tell."""
    if Path("/sys/module", name).exists():
        return "present"
    builtin = read(f"/lib/modules/{platform.release()}/modules.builtin")
    if re.search(rf"/{re.escape(name)}\.ko", builtin):
        return "present"
    return "loadable" if output("modprobe", "-n", "-q", name)[0] == 0 else "absent"


def feature_state(name: str) -> str:
    """module_state, but features that show elsewhere count as present too (built-in code without parameters
    has no /sys/module entry).
    """
    if name == "br_netfilter" and Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        return "present"
    if name == "overlay" and re.search(r"\boverlay$", read("/proc/filesystems"), re.MULTILINE):
        return "present"
    return module_state(name)


def tunnel_state(encapsulation: str) -> str:
    """`present`, `loadable` or `absent`: whether the kernel can make the device.

    A module that is only loadable is not tried, because the trial would load it. Everything else is made
    for real in a new network namespace, which ends with the process that made it.
    """
    if Path("/sys/class/net", TUNNEL_DEVICES[encapsulation]).exists():
        return "present"
    state = module_state(encapsulation)
    if state == "loadable":
        return state
    status, _ignored = output(
        "unshare", "--net", "--", "ip", "link", "add", "trial0", "type", *TUNNEL_TRIALS[encapsulation]
    )
    return "present" if status == 0 else "absent"


def cgroups() -> dict[str, Any]:
    """The cgroup version and the driver that suits it.

    systemd is the driver wherever it runs the machine. The exception is a container on a version 1 host:
    there systemd has only its own hierarchy, and limits set through it never reach the other controllers.
    """
    version = 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1
    systemd = Path("/run/systemd/system").is_dir() and not (version == 1 and in_container())
    return {"version": version, "driver": "systemd" if systemd else "cgroupfs"}


def in_container() -> bool:
    """Whether systemd, or a container engine, says that this machine is a container."""
    return (
        Path("/run/systemd/container").exists()
        or Path("/run/.containerenv").exists()
        or Path("/.dockerenv").exists()
    )


def free_mib(path: str) -> int:
    """Free space in MiB where the path is, or will be."""
    where = Path(path)
    while not where.exists():
        where = where.parent
    return shutil.disk_usage(where).free // (1024 * 1024)


def port_owners(ports: Iterable[int]) -> dict[int, str]:
    """The program's name by port, for those of the ports on which somebody listens (empty name: not to be
    found).
    """
    wanted = set(ports)
    listeners = {**parse_listeners(read("/proc/net/tcp6")), **parse_listeners(read("/proc/net/tcp"))}
    busy = {inode: port for port, inode in listeners.items() if port in wanted}
    owners = dict.fromkeys(busy.values(), "")
    if not busy:
        return owners
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(descriptor.readlink())
                    port = busy.get(target[len("socket:[") : -1]) if target.startswith("socket:[") else None
                    if port is not None:
                        owners[port] = (process / "comm").read_text(encoding="utf-8").strip()
    return owners


def installed_packages() -> dict[str, str]:
    """Version by name of the installed packages, from dpkg or rpm."""
    status, text = output("dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Status}\n")
    if status == 127:
        status, text = output("rpm", "-qa", "--qf", "%{NAME}\t%{VERSION}-%{RELEASE}\n")
    return parse_packages(text)


def conntrack_writable() -> bool:
    """Whether kube-proxy may set nf_conntrack_max: in a container's network namespace it is read-only."""
    path = "/proc/sys/net/netfilter/nf_conntrack_max"
    return not Path(path).exists() or (os.access(path, os.W_OK) and not in_container())


def probe(ports: Iterable[int]) -> dict[str, Any]:
    """Everything that the later roles and the judgement need to know about this machine."""
    release = parse_os_release(read("/etc/os-release"))
    links_status, links = output("ip", "-json", "-details", "address", "show")
    return {
        "architecture": platform.machine(),
        "cgroup": cgroups(),
        "clock": time.time(),
        "conntrack_writable": conntrack_writable(),
        "container": in_container(),
        "distribution": f"{release.get('ID', 'unknown')} {release.get('VERSION_ID', '')}".strip(),
        "features": {name: feature_state(name) for name in ("overlay", "br_netfilter")},
        "free_mib": free_mib("/var/lib/containerd"),
        "ip_command": links_status != 127,
        "joined": joined(),
        "kernel": platform.release(),
        "links": parse_links(links if links_status == 0 else "[]"),
        "memory_mib": parse_meminfo(read("/proc/meminfo")),
        "network_manager": service_runs("NetworkManager.service"),
        "networkd": service_runs("systemd-networkd.service"),
        "oom_score_adjustable": has_capability(read("/proc/self/status"), CAP_SYS_RESOURCE),
        "os_family": os_family(release),
        "packages": installed_packages(),
        "ports": {str(port): owner for port, owner in port_owners(ports).items()},
        "python": platform.python_version(),
        "root": os.geteuid() == 0,
        "swaps": parse_swaps(read("/proc/swaps")),
        "systemd": Path("/run/systemd/system").is_dir(),
        "tunnels": {name: tunnel_state(name) for name in TUNNEL_TRIALS},
    }


def service_runs(unit: str) -> bool:
    """Whether systemd runs the unit. A folder below /run says nothing: tmpfiles.d(5) may have made it."""
    return output("systemctl", "is-active", "--quiet", unit)[0] == 0


def joined(root: str = "/") -> bool:
    """Whether the machine has what a node needs to speak to its API server: kubelet's configuration and
    client certificate.
    """
    certificate = Path(root, "var/lib/kubelet/pki/kubelet-client-current.pem")
    configuration = read("/etc/kubernetes/kubelet.conf", root)
    return "server:" in configuration and _is_pem(certificate)


def _is_pem(path: Path) -> bool:
    text: str | None = None
    with contextlib.suppress(OSError):
        text = path.read_text(encoding="utf-8", errors="replace")
    return text is not None and "BEGIN CERTIFICATE" in text
