# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""What a machine needs before it can be a node, as a plan: files, kernel modules, kernel settings, swap.

`Wanted` says what should be, `plan` compares it with the machine and changes nothing, `carry_out` makes it
so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.tortie.cluster.plugins.module_utils import (
    host,
    managed_files,
    networkd,
    reset_record,
)
from ansible_collections.tortie.cluster.plugins.module_utils.managed_files import FileChange

MODULES_FILE = "/etc/modules-load.d/90-tortie.conf"
SYSCTL_FILE = "/etc/sysctl.d/90-tortie.conf"
NETWORK_MANAGER_FILE = "/etc/NetworkManager/conf.d/90-tortie.conf"
NETWORKD_FILE = "/etc/systemd/networkd.conf.d/90-tortie.conf"
NETWORKD_LINKS_FILE = "/etc/systemd/network/05-tortie.network"
HOSTS_FILE = "/etc/hosts"
FSTAB = "/etc/fstab"


class HostSettingsError(Exception):
    """The machine cannot be made what was asked; the message says why and what to do."""


@dataclass(frozen=True)
class Wanted:
    """modules: names; sysctls: value by dotted name; links: name patterns that network services must
    leave alone; hosts: (address, name) pairs for /etc/hosts, None leaves that file alone; swap_off: no
    swap now and at boot.
    """

    modules: Sequence[str]
    sysctls: Mapping[str, str]
    links: Sequence[str]
    hosts: Sequence[tuple[str, str]] | None
    swap_off: bool
    root: str = "/"


@dataclass(frozen=True)
class Plan:
    """What is to be done; all empty when the machine is as wanted."""

    files: list[FileChange] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    sysctls: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> (live value, wanted value)
    swaps: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.files or self.modules or self.sysctls or self.swaps)

    def diff(self) -> list[dict[str, str]]:
        """Every change in the shape of ansible's --diff."""
        found = [change.diff() for change in self.files]
        if self.modules:
            found.append(
                {
                    "before": "",
                    "after": "".join(f"{name}\n" for name in self.modules),
                    "before_header": "modules",
                    "after_header": "modules",
                }
            )
        if self.sysctls:
            found.append(
                {
                    "before": "".join(f"{name} = {live}\n" for name, (live, _wanted) in self.sysctls.items()),
                    "after": "".join(
                        f"{name} = {wanted}\n" for name, (_live, wanted) in self.sysctls.items()
                    ),
                    "before_header": "kernel settings",
                    "after_header": "kernel settings",
                }
            )
        if self.swaps:
            found.append(
                {
                    "before": "".join(f"{name}\n" for name in self.swaps),
                    "after": "",
                    "before_header": "swap",
                    "after_header": "swap",
                }
            )
        return found

    def services(self) -> list[dict[str, str]]:
        """`{name, state}` of the systemd units that the role tells to read their files again."""
        touched = {change.path for change in self.files}
        units = []
        if NETWORK_MANAGER_FILE in touched:
            units.append({"name": "NetworkManager.service", "state": "reloaded"})
        return units

    @property
    def networkd(self) -> bool:
        """Whether systemd-networkd must read its files again."""
        return any(change.path in (NETWORKD_FILE, NETWORKD_LINKS_FILE) for change in self.files)


def file_bodies(wanted: Wanted, network_manager: bool, networkd: bool) -> dict[str, str]:
    """The text of every file that is ours alone, by path."""
    bodies = {
        MODULES_FILE: "".join(f"{name}\n" for name in wanted.modules),
        SYSCTL_FILE: "".join(f"{name} = {value}\n" for name, value in sorted(wanted.sysctls.items())),
    }
    if network_manager and wanted.links:
        patterns = ";".join(f"interface-name:{link}" for link in wanted.links)
        bodies[NETWORK_MANAGER_FILE] = f"[keyfile]\nunmanaged-devices+={patterns}\n"
    if networkd and wanted.links:
        # Without these networkd removes routes and rules that it did not make whenever it configures a link.
        bodies[NETWORKD_FILE] = "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n"
        bodies[NETWORKD_LINKS_FILE] = f"[Match]\nName={' '.join(wanted.links)}\n\n[Link]\nUnmanaged=yes\n"
    return bodies


def hosts_lines(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """hosts(5) lines, in the inventory's order; a dotted name's first label is an alias."""
    lines = []
    for address, name in pairs:
        short = name.partition(".")[0]
        lines.append(f"{address} {name}" if short == name else f"{address} {name} {short}")
    return lines


def sysctl_path(name: str, root: str) -> Path:
    """The file of a kernel setting. A name that contains a slash uses it as the separator (interface names
    have dots).
    """
    return Path(root, "proc/sys", name if "/" in name else name.replace(".", "/"))


def live_value(name: str, root: str) -> str | None:
    """The kernel's value with single blanks between its fields, or None when there is no such setting."""
    try:
        return " ".join(sysctl_path(name, root).read_text(encoding="ascii").split())
    except FileNotFoundError:
        return None


def plan(wanted: Wanted, network_manager: bool, networkd: bool) -> Plan:
    """Compare the machine with what is wanted."""
    result = Plan()
    for path, body in file_bodies(wanted, network_manager, networkd).items():
        change = managed_files.whole_file(_under(wanted.root, path), body)
        if change:
            result.files.append(change)
    if wanted.hosts is not None:
        path = _under(wanted.root, HOSTS_FILE)
        before = managed_files.read_text(path)
        change = FileChange(
            path,
            before,
            managed_files.with_block(before or "", "nodes of the cluster", hosts_lines(wanted.hosts)),
        )
        if change:
            result.files.append(change)
    result.modules.extend(name for name in wanted.modules if host.feature_state(name) != "present")
    for name, value in sorted(wanted.sysctls.items()):
        live = live_value(name, wanted.root)
        if live != value:
            result.sysctls[name] = (live or "", value)
    if wanted.swap_off:
        fstab = _under(wanted.root, FSTAB)
        text = managed_files.read_text(fstab)
        if text is not None and managed_files.without_swap(text) != text:
            result.files.append(FileChange(fstab, text, managed_files.without_swap(text)))
        result.swaps.extend(host.parse_swaps(host.read("/proc/swaps", wanted.root)))
    return result


def carry_out(todo: Plan, root: str) -> None:
    """Do it, modules before the settings that they bring."""
    for change in todo.files:
        managed_files.apply(change)
    problem = networkd.restart() if todo.networkd else ""
    if problem:
        raise HostSettingsError(problem)
    for name in todo.modules:
        status, _output = host.output("modprobe", name)
        if status != 0:
            raise HostSettingsError(
                f"kernel module {name} (node_kernel_modules) cannot be loaded (modprobe ended with"
                f" {status}); install the package with the "
                "kernel's further modules (kernel-modules-extra, linux-modules-extra), or load it on the"
                " machine that this container runs on."
            )
    reset_record.note_swaps(todo.swaps, root)
    # A setting of a module that has just come is noted with the value that it came with.
    before = {name: live_value(name, root) or "" for name in todo.sysctls}
    reset_record.note_sysctls(before, root)
    for name, (_live, value) in todo.sysctls.items():
        path = sysctl_path(name, root)
        try:
            path.write_text(value + "\n", encoding="ascii")
        except OSError as error:
            raise HostSettingsError(
                f"kernel setting {name} cannot be set to {value} ({error.strerror}); set it on the machine"
                " by hand (in a container: on its "
                "host), or take it out of node_sysctls."
            ) from error
        live = live_value(name, root)
        if live != value:
            raise HostSettingsError(
                f"kernel setting {name} was set to {value} but reads {live}; correct its value in"
                " node_sysctls."
            )
    for device in todo.swaps:
        status, _output = host.output("swapoff", device)
        if status != 0:
            raise HostSettingsError(
                f"swap on {device} cannot be switched off (is there memory enough?); free memory, or set"
                " node_manage_swap to false."
            )


def _under(root: str, path: str) -> str:
    return path if root == "/" else str(Path(root, path.lstrip("/")))
