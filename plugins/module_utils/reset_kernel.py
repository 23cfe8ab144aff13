# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""The part of a reset that is kernel settings, kernel modules and swap: back to what the record says."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from ansible_collections.tortie.cluster.plugins.module_utils import host, host_settings
from ansible_collections.tortie.cluster.plugins.module_utils.reset_action import (
    Action,
    Machine,
    ResetError,
)

# What a cluster and its network load, directly or as what these stand on. Others stay, whoever loaded them.
CLUSTER_MODULES = re.compile(
    r"ipip|tunnel4|ip_tunnel|vxlan|ip6_udp_tunnel|udp_tunnel|br_netfilter|bridge|stp|llc|overlay|veth|dummy"
    r"|nf_\w+|nft_\w+|nfnetlink\w*|x_tables|xt_\w+|ip6?_tables|ip6?table_\w+|ip6?t_\w+|ip_set\w*|ip_vs\w*"
)


def settings(machine: Machine) -> list[Action]:
    """Kernel settings that differ from what they were."""
    record = machine.record
    actions = []
    for name, value in sorted(record.sysctls.items()) if record else ():
        live = host_settings.live_value(name, machine.root)
        if live is not None and live != value:
            deed = partial(_write, host_settings.sysctl_path(name, machine.root), value)
            actions.append(Action(f"set {name} to {value} (was {live})", deed))
    return actions


def _write(path: Path, value: str) -> None:
    path.write_text(value + "\n", encoding="ascii")


def parse_modules(text: str) -> dict[str, int]:
    """/proc/modules: number of users by name; -1 where the module cannot be removed at all."""
    found = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 3:
            found[fields[0]] = -1 if "[permanent]" in fields[3] else int(fields[2])
    return found


def superfluous(modules: dict[str, int], before: list[str]) -> list[str]:
    """Modules of a cluster that nobody uses and that were not loaded before."""
    return sorted(
        name
        for name, users in modules.items()
        if users == 0 and name not in before and CLUSTER_MODULES.fullmatch(name)
    )


def modules(machine: Machine) -> list[Action]:
    """Unload what the cluster had loaded and nobody uses. A container's modules are its machine's."""
    if machine.record is None or machine.container:
        return []
    names = superfluous(parse_modules(host.read("/proc/modules", machine.root)), machine.record.modules)
    deed = partial(_unload, list(machine.record.modules))
    return [Action(f"unload kernel modules {' '.join(names)} and what they used", deed)] if names else []


def _unload(before: list[str]) -> None:
    """Modules that others stood on come free when these are gone; a module in use stays."""
    refused: set[str] = set()
    while True:
        names = set(superfluous(parse_modules(host.read("/proc/modules")), before)) - refused
        if not names:
            return
        refused |= {name for name in names if host.output("rmmod", name)[0] != 0}


def swap(machine: Machine) -> list[Action]:
    """Switch on the swap that the roles had switched off, where the device is still there."""
    record = machine.record
    on = host.parse_swaps(host.read("/proc/swaps", machine.root))
    gone = [device for device in (record.swaps if record else []) if device not in on]
    return [
        Action(f"switch swap on {device} on", partial(_swap_on, device))
        for device in gone
        if Path(device).exists()
    ]


def _swap_on(device: str) -> None:
    if host.output("swapon", device)[0] != 0:
        raise ResetError(f"'swapon {device}' fails; see 'dmesg' on this host.")
