"""A machine's process is told by its own arguments, never by a number in a file."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import lab_plan, lab_vm_process
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import Lab

from tests.unit.lab.test_lab_plan import parameters

QEMU = "/usr/bin/qemu-system-x86_64"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return replace(lab_plan.lab_from_params(parameters()), directory=tmp_path / "lab")


def process(proc: Path, pid: int, *arguments: str) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "cmdline").write_bytes(b"".join(argument.encode() + b"\0" for argument in arguments))


def test_machines_are_found_by_their_pid_file_argument(lab: Lab, tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    nodes = lab.directory / "nodes"
    process(proc, 10, QEMU, "-m", "1024", "-pidfile", str(nodes / "worker-01" / "pid"), "-daemonize")
    process(proc, 11, QEMU, "-pidfile", "/elsewhere/nodes/worker-01/pid")
    process(proc, 12, "/bin/cat", "-pidfile", str(nodes / "master-01" / "pid"))
    process(proc, 13)  # a zombie
    (proc / "self").mkdir()
    assert lab_vm_process.running(lab, proc) == {"worker-01": 10}


def test_argument_without_value_is_no_machine() -> None:
    assert lab_vm_process.pid_file_of([QEMU, "-pidfile"]) is None
    assert lab_vm_process.pid_file_of([]) is None


def test_stale_pid_file_of_another_process_ends_nobody(lab: Lab) -> None:
    folder = lab.volume_dir("worker-01")
    folder.mkdir(parents=True)
    (folder / "pid").write_text(f"{os.getpid()}\n")
    assert lab_vm_process.end(lab, "worker-01") is False


def test_missing_qemu_is_said_with_the_packages() -> None:
    assert "qemu-system-x86 and qemu-utils" in lab_vm_process.missing_qemu()
