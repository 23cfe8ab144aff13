"""Start and end the process that forwards 127.0.0.1 to the lab's API server, and never another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.tortie.cluster.plugins.module_utils.lab_commands import CommandError
from ansible_collections.tortie.cluster.plugins.module_utils.lab_network import wait_for
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import NETNS_ROOT, Lab


@dataclass(frozen=True)
class Record:
    """What a forwarder wrote about itself. `start_time` tells it from a later process with the same pid."""

    pid: int
    start_time: int
    port: int
    wanted: int
    target: str
    namespace_inode: int


def parse_record(text: str) -> Record | None:
    """The record in `text`, or None when it is cut short or of another shape."""
    try:
        data: dict[str, Any] = json.loads(text)
        return Record(**data)
    except (ValueError, TypeError):
        return None


def read_record(path: Path) -> Record | None:
    """The record in a file, or None."""
    return parse_record(path.read_text()) if path.exists() else None


def process_start_time(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Start time in clock ticks since boot, field 22 of /proc/<pid>/stat (proc(5)); None without a process.

    A zombie counts as no process: it has ended and only waits for its parent.
    """
    try:
        stat = (proc / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses and may contain anything, so count from the last one.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def is_running(record: Record, proc: Path = Path("/proc")) -> bool:
    """Whether the very process that wrote the record still runs."""
    return process_start_time(record.pid, proc) == record.start_time


def record_path(lab: Lab) -> Path:
    """Where the lab's forwarder leaves its record."""
    return lab.directory / "api.json"


def serves(record: Record | None, target: str, port: int, namespace_inode: int) -> bool:
    """Whether a forwarder runs that does what is asked for."""
    return (
        record is not None
        and is_running(record)
        and (record.target, record.wanted, record.namespace_inode) == (target, port, namespace_inode)
    )


def namespace_inode(lab: Lab) -> int:
    """Inode of the switch's namespace now; 0 when there is none."""
    path = NETNS_ROOT / lab.switch
    return path.stat().st_ino if path.exists() else 0


def stop(lab: Lab) -> bool:
    """End the lab's forwarder; whether one was running. The record goes in any case."""
    path = record_path(lab)
    record = read_record(path)
    running = record is not None and is_running(record)
    if record is not None and running:
        os.kill(record.pid, signal.SIGTERM)
        wait_for(lambda: not is_running(record), 10.0, f"forwarder {record.pid} to end")
    path.unlink(missing_ok=True)
    return running


def start(lab: Lab, python: str, program: str, target: str, port: int) -> Record:
    """Start a forwarder and wait until it listens. CommandError with its log when it does not."""
    path = record_path(lab)
    log_path = lab.directory / "forward.log"
    path.unlink(missing_ok=True)
    command = [python, program, "--namespace", str(NETNS_ROOT / lab.switch), "--target", target]
    command += ["--port", str(port), "--record", str(path)]
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )

    def ready() -> bool:
        return process.poll() is not None or read_record(path) is not None

    wait_for(ready, 10.0, "the forwarder to listen")
    record = read_record(path)
    if record is None:
        lines = log_path.read_text().splitlines()
        raise CommandError("The forwarder to the API server ended at once: " + " / ".join(lines[-3:]))
    return record
