# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""A reset as a list of phases. Each phase looks for what is there and gives actions; looking changes nothing.

Phases run one after the other, and each looks only when the ones before it have ended: so a reset that was
cut off anywhere is finished by the next one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.tortie.cluster.plugins.module_utils import host, kubeadm_run
from ansible_collections.tortie.cluster.plugins.module_utils.reset_record import Record

COMMAND_SECONDS = 120  # the slowest: an image removal or a stop of containerd on an emulated machine


class ResetError(Exception):
    """Something could not be removed; the message is a sentence with what to do."""


@dataclass(frozen=True)
class Action:
    """what: a line for the user, such as `remove /etc/kubernetes`; do: carries it out."""

    what: str
    do: Callable[[], None]


@dataclass
class Machine:
    """What a phase needs to know. record: None when there is none; ours: whether the roles have been here;
    container: kernel modules and settings of the whole machine are not ours to touch.
    """

    record: Record | None
    ours: bool
    container: bool
    root: str = "/"
    remove_packages: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def cluster_is_ours(self) -> bool:
        """Whether what kubeadm and kubelet have left here is ours to remove."""
        return self.ours and not (self.record is not None and self.record.foreign_cluster)


@dataclass(frozen=True)
class Phase:
    """essential: what comes after it must not begin when it failed."""

    name: str
    find: Callable[[Machine], list[Action]]
    essential: bool = False


@dataclass
class Outcome:
    """done: lines of what was (or would be) removed, in order; failed: sentences."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def run_phases(phases: Sequence[Phase], machine: Machine, look_only: bool) -> Outcome:
    """Find and carry out, phase by phase. An action that fails does not keep the others of its phase back."""
    outcome = Outcome()
    for phase in phases:
        try:
            actions = phase.find(machine)
        except (ResetError, OSError, ValueError) as error:
            outcome.failed.append(f"{phase.name}: {error}")
            actions = []
        for action in actions:
            if look_only:
                outcome.done.append(action.what)
                continue
            try:
                action.do()
                outcome.done.append(action.what)
            except (ResetError, OSError, ValueError) as error:
                outcome.failed.append(f"{action.what}: {error}")
        if outcome.failed and phase.essential and not look_only:
            break
    return outcome


def command(*arguments: str, stdin: str | None = None, extra: Mapping[str, str] | None = None) -> str:
    """Standard output of a program that must succeed. Raises ResetError with its words."""
    shown = " ".join(arguments[:4])
    try:
        done = subprocess.run(
            arguments,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            env={**kubeadm_run.environment(), **(extra or {})},
        )
    except FileNotFoundError as error:
        raise ResetError(f"there is no {arguments[0]} on this host; install it, and reset again.") from error
    except subprocess.TimeoutExpired as error:
        raise ResetError(f"'{shown}' did not end within {COMMAND_SECONDS} seconds; reset again.") from error
    if done.returncode != 0:
        words = " ".join((done.stderr or done.stdout).split())[-500:]
        raise ResetError(f"'{shown}' ended with status {done.returncode}: {words}")
    return done.stdout


def runs(*arguments: str) -> Callable[[], None]:
    """An action's deed: one command."""

    def deed() -> None:
        command(*arguments)

    return deed


def answer(*arguments: str) -> str:
    """Standard output, or an empty text when the program is missing or fails."""
    status, text = host.output(*arguments)
    return text if status == 0 else ""
