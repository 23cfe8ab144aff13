"""QEMU processes of a lab: found, started, ended, and never another process."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

from ansible_collections.tortie.cluster.plugins.module_utils.lab_commands import CommandError
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import NETNS_ROOT, Lab
from ansible_collections.tortie.cluster.plugins.module_utils.lab_vm_plan import QEMU, pid_file

END_SECONDS = 15.0
START_SECONDS = 60.0


def arguments_of(pid: int, proc: Path = Path("/proc")) -> list[str]:
    """The arguments of a process; none when there is no such process, or only its remains (a zombie)."""
    try:
        text = (proc / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [os.fsdecode(item) for item in text.split(b"\0")[:-1]]


def pid_file_of(arguments: list[str]) -> Path | None:
    """The pid file that a QEMU with these arguments was told to write, or None for any other program."""
    if not arguments or Path(arguments[0]).name != QEMU or "-pidfile" not in arguments[:-1]:
        return None
    return Path(arguments[arguments.index("-pidfile") + 1])


def running(lab: Lab, proc: Path = Path("/proc")) -> dict[str, int]:
    """Process ids of the lab's machines by node name.

    The processes' own arguments decide, not a file: a number that a killed run left behind may belong to
    anybody now, and a machine that was started just before may not have written its number yet.
    """
    found = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        path = pid_file_of(arguments_of(int(entry.name), proc))
        if path is not None and path.parent.parent == lab.directory / "nodes":
            found[path.parent.name] = int(entry.name)
    return found


def namespace_of(pid: int) -> int:
    """Inode of a process's network namespace; 0 when it has ended."""
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except (FileNotFoundError, ProcessLookupError):
        return 0


def end(lab: Lab, node: str) -> bool:
    """Kill a node's machine and wait until it is gone; whether there was one.

    The process is held by a descriptor (pidfd_open(2)) before it is looked at again, so that the signal
    cannot reach a later one with its number.
    """
    pid = running(lab).get(node)
    if pid is None:
        return False
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if pid_file_of(arguments_of(pid)) != pid_file(lab, node):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not select.select([handle], [], [], END_SECONDS)[0]:
            raise CommandError(f"The machine {node} (process {pid}) did not end within {END_SECONDS:.0f} s.")
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def start(lab: Lab, node: str, arguments: list[str]) -> None:
    """Start QEMU in the switch's namespace; returns when it runs. CommandError with what it said."""
    command = ["nsenter", f"--net={NETNS_ROOT / lab.switch}", *arguments]
    try:
        # Its output goes to a file: QEMU keeps standard error, and a pipe would be waited for.
        with (lab.volume_dir(node) / "qemu.log").open("w+b") as log:
            status = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                check=False,
                timeout=START_SECONDS,
            ).returncode
            log.seek(0)
            said = log.read().decode(errors="replace").strip()
    except FileNotFoundError as error:
        raise CommandError(missing_qemu()) from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"QEMU for {node} did not start within {START_SECONDS:.0f} s.") from error
    if status == 127:  # nsenter's answer when it does not find the program
        raise CommandError(missing_qemu())
    if status != 0:
        raise CommandError(f"QEMU for {node} did not start: {said[-600:]}")


def missing_qemu() -> str:
    """The sentence for a machine without QEMU."""
    return (
        f"{QEMU} is not installed, but LAB=vms needs it; `LAB=vms make up` installs it, and so does "
        "`LAB=vms lab/deps.sh` (packages qemu-system-x86 and qemu-utils)."
    )
