"""Programs in bounded time, and the state of a control plane; kubectl and kubeadm are scripts here."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import kubeadm_run
from ansible_collections.tortie.cluster.plugins.module_utils.kubeadm_run import KubeadmError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every path below a folder; programs are found in its bin."""
    folder = tmp_path / "kubernetes"
    (folder / "manifests").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for name, value in {
        "FOLDER": str(folder),
        "CONFIG": str(folder / "kubeadm.yaml"),
        "PARTIAL": str(folder / "kubeadm.yaml.partial"),
        "ADMIN_CONF": str(folder / "admin.conf"),
        "LOG_FOLDER": str(tmp_path / "log"),
        "LOCK": str(tmp_path / "lock"),
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "POLL_SECONDS": 0.01,
    }.items():
        monkeypatch.setattr(kubeadm_run, name, value)
    # A program is looked for on our own PATH, before the environment for it is in force.
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def program(machine: Path, name: str, script: str) -> str:
    path = machine / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def runs(pid: str) -> bool:
    """Whether the process is there and no zombie (nobody may be left to reap it)."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def run(machine: Path, script: str, timeout: int = 20) -> None:
    with kubeadm_run.alone(1) as lock:
        kubeadm_run.run_logged([program(machine, "kubeadm", script), "init"], "init.log", timeout, lock)


def test_output_goes_to_a_log_that_only_root_reads(machine: Path) -> None:
    run(machine, "echo fine; echo more >&2")
    log = machine / "log/init.log"
    assert log.read_text() == "fine\nmore\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_failure_carries_status_and_the_log_s_end(machine: Path) -> None:
    with pytest.raises(KubeadmError) as failure:
        run(machine, "seq 100; echo the reason; exit 3")
    assert "ended with status 3" in str(failure.value)
    assert str(failure.value).endswith("the reason")
    assert "\n10\n" not in str(failure.value)


def test_program_that_hangs_is_ended_with_its_children(machine: Path) -> None:
    pid_file = machine / "pid"
    with pytest.raises(KubeadmError, match="did not end within 1 seconds"):
        run(machine, f"sleep 600 & echo $! > {pid_file}; echo started; wait", timeout=1)
    end = time.monotonic() + 30
    while runs(pid_file.read_text().strip()):
        assert time.monotonic() < end, "the child was left running"
        time.sleep(0.01)


def test_program_that_is_missing_is_said_with_the_role_that_brings_it(machine: Path) -> None:
    with kubeadm_run.alone(1) as lock, pytest.raises(KubeadmError, match="run the role kubernetes"):
        kubeadm_run.run_logged(["no-such-kubeadm"], "x.log", 5, lock)


def test_second_run_waits_and_then_gives_up_with_a_sentence(machine: Path) -> None:
    with kubeadm_run.alone(1), pytest.raises(KubeadmError, match="another run"), kubeadm_run.alone(0.05):
        pytest.fail("both runs hold the lock")


RUN_THAT_IS_KILLED = """
import sys
from ansible_collections.tortie.cluster.plugins.module_utils import kubeadm_run
folder = sys.argv[1]
kubeadm_run.LOCK, kubeadm_run.LOG_FOLDER = folder + "/lock", folder + "/log"
with kubeadm_run.alone(1) as lock:
    script = f"echo started > {folder}/started; read line < {folder}/fifo"
    kubeadm_run.run_logged(["sh", "-c", script], "x.log", 60, lock)
"""


def test_lock_outlives_a_killed_run_as_long_as_its_kubeadm(machine: Path) -> None:
    os.mkfifo(machine / "fifo")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections")}
    run_of_another = subprocess.Popen(
        [sys.executable, "-c", RUN_THAT_IS_KILLED, str(machine)], env=environment
    )
    end = time.monotonic() + 30
    while not (machine / "started").exists():
        assert time.monotonic() < end, "the other run did not start"
        time.sleep(0.01)
    run_of_another.kill()
    run_of_another.wait()
    with pytest.raises(KubeadmError, match="another run"), kubeadm_run.alone(0.05):
        pytest.fail("the lock was taken although kubeadm still ran")
    (machine / "fifo").write_text("end\n")
    with kubeadm_run.alone(30) as lock:
        assert lock > 0


@pytest.mark.parametrize(
    ("files", "answer", "expected"),
    [
        ([], "ok", (False, False, False, False)),
        (["kubeadm.yaml", "admin.conf"], "ok", (True, False, False, True)),
        (["kubeadm.yaml", "admin.conf"], "etcd failed", (True, False, False, False)),
        (["kubeadm.yaml.partial", "admin.conf", "manifests/etcd.yaml"], "ok", (False, True, False, False)),
        (["kubeadm.yaml.partial"], "ok", (False, True, False, False)),
        (["manifests/etcd.yaml"], "ok", (False, False, True, False)),
        (["admin.conf", "manifests/etcd.yaml"], "ok", (False, False, True, True)),
    ],
)
def test_state_of_a_control_plane_is_told_from_its_files_and_its_api(
    machine: Path, files: list[str], answer: str, expected: tuple[bool, bool, bool, bool]
) -> None:
    for name in files:
        (machine / "kubernetes" / name).write_text("x")
    program(machine, "kubectl", f"echo '{answer}'")
    state = kubeadm_run.control_plane_state(0.05)
    assert (state.made, state.half_made, state.foreign, state.answers) == expected


def test_private_file_is_root_s_alone_even_when_it_was_open_before(machine: Path) -> None:
    path = machine / "kubernetes/kubeadm-join.yaml"
    path.write_text("old")
    path.chmod(0o644)
    kubeadm_run.write_private(str(path), "token")
    assert path.read_text() == "token"
    assert path.stat().st_mode & 0o777 == 0o600


def test_error_of_kubectl_is_passed_on(machine: Path) -> None:
    program(machine, "kubectl", "echo 'nodes is forbidden' >&2; exit 1")
    with pytest.raises(KubeadmError, match="nodes is forbidden"):
        kubeadm_run.registered_nodes()
