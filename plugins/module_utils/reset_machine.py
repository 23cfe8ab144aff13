# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""A reset as a whole: the phases in their order. docs/reset.md says why it is this one."""

from __future__ import annotations

from functools import partial

from ansible_collections.tortie.cluster.plugins.module_utils import (
    host,
    reset_files,
    reset_kernel,
    reset_network,
    reset_pods,
    reset_record,
)
from ansible_collections.tortie.cluster.plugins.module_utils.reset_action import (
    Action,
    Machine,
    Outcome,
    Phase,
    run_phases,
)

# Nothing below a pod may be removed while it runs; the record goes last, because a reset that was cut off
# needs it to finish.
PHASES = (
    Phase("kubelet", reset_pods.kubelet, essential=True),
    Phase("pods", reset_pods.pods, essential=True),
    Phase("cgroups", reset_pods.cgroups),
    Phase("images", reset_pods.images),
    Phase("containerd", reset_pods.containerd),
    Phase("network", reset_network.network),
    Phase("filters", reset_network.filters),
    Phase("empty chains", reset_network.empty_chains),
    Phase("empty tables", reset_network.empty_tables),
    Phase("mounts", reset_files.mounts, essential=True),
    Phase("folders", reset_files.trees),
    Phase("programs", reset_files.programs),
    Phase("packages", reset_files.packages),
    Phase("repositories", reset_files.repositories),
    Phase("names and swap", reset_files.mixed_files),
    Phase("swap", reset_kernel.swap),
    Phase("settings files", reset_files.settings_files),
    Phase("kernel settings", reset_kernel.settings),
    Phase("kernel modules", reset_kernel.modules),
    Phase("empty folders", reset_files.parents),
)


def look(remove_packages: bool) -> Machine:
    """What a reset must know of this machine. Raises ValueError when the record is broken."""
    record = reset_record.load()
    return Machine(
        record=record,
        ours=record is not None or bool(reset_files.marked_files()),
        container=host.in_container(),
        remove_packages=remove_packages,
    )


def forget(machine: Machine) -> list[Action]:
    """Remove the record."""
    if not (reset_record.under(machine.root, reset_record.FOLDER)).exists():
        return []
    return [Action(f"remove {reset_record.FOLDER}", partial(reset_record.forget, machine.root))]


def reset(machine: Machine, look_only: bool) -> Outcome:
    """Do it. The record stays when something failed: the next reset needs it."""
    outcome = run_phases(PHASES, machine, look_only)
    if not outcome.failed:
        last = run_phases([Phase("record", forget)], machine, look_only)
        outcome.done += last.done
        outcome.failed += last.failed
    return outcome
