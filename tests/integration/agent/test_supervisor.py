"""The container's first process, with children that are real processes and misbehave."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.processes import daemon
from tests.integration.bgp.nodes import eventually

pytestmark = pytest.mark.root

DRIVER = """
import sys
from pathlib import Path
from tortie.agent.logfmt import set_up_logging
from tortie.agent.supervisor import Child, Supervisor

set_up_logging("INFO")
home = Path(sys.argv[1])
children = [
    Child("steady", ["sleep", "1000"]),
    Child("crashing", ["sh", "-c", "exit 3"]),
    Child("missing", ["no-such-program"]),
    Child("waiting", ["sleep", "2000"], (home / "go").exists),
    Child("parent", ["sh", "-c", "(sleep 0.1 &) ; exec sleep 3000"]),
    Child("deaf", ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]),
]

def before_stop():
    for child in children:
        child.kill(15)

sys.exit(Supervisor(children, before_stop).run())
"""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """Output of a supervisor that is process 1 of a process namespace."""
    path = tmp_path / "log"
    source = Path(__file__).parents[3] / "src"
    isolate = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command: list[str | Path] = [
        *isolate,
        "env",
        f"PYTHONPATH={source}",
        sys.executable,
        "-c",
        DRIVER,
        tmp_path,
    ]
    with daemon(command, path) as process:
        eventually("the first children", lambda: "Started deaf" in path.read_text())
        (tmp_path / "outer").write_text(str(process.pid))
        yield path
        for pid in children_of(process.pid):  # process 1 of the namespace: all others end with it
            os.kill(pid, signal.SIGKILL)


def inner_pid(log: Path) -> int:
    """Process id, seen from here, of the supervisor: the only child of unshare."""
    outer = int((log.parent / "outer").read_text())
    return int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])


def children_of(pid: int) -> dict[int, str]:
    """State letters of the children of a process."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        int(child): Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] for child in pids
    }


def test_crashing_child_is_started_again_and_again_while_others_run_on(log: Path) -> None:
    eventually("three starts", lambda: log.read_text().count("Started crashing") >= 3)
    assert "crashing ended: exit status 3" in log.read_text()
    assert log.read_text().count("Started steady") == 1


def test_killed_child_is_named_with_its_signal(log: Path) -> None:
    supervisor = inner_pid(log)
    steady = next(
        pid
        for pid in children_of(supervisor)
        if Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001000\x00"
    )
    os.kill(steady, signal.SIGKILL)
    eventually("a new one", lambda: log.read_text().count("Started steady") == 2)
    assert "steady ended: killed by SIGKILL" in log.read_text()


def test_missing_program_is_reported_and_retried(log: Path) -> None:
    eventually("two attempts", lambda: log.read_text().count("Cannot start missing (no-such-program)") >= 2)


def test_child_is_held_back_until_it_may_start(log: Path) -> None:
    eventually("some time", lambda: log.read_text().count("Started crashing") >= 2)
    assert "Started waiting" not in log.read_text()
    (log.parent / "go").touch()
    eventually("the start", lambda: "Started waiting" in log.read_text())


def test_orphans_leave_no_zombies(log: Path) -> None:
    eventually("some time", lambda: log.read_text().count("Started crashing") >= 3)
    supervisor = inner_pid(log)
    eventually("no zombie", lambda: "Z" not in children_of(supervisor).values())


def test_end_is_passed_on_and_who_ignores_it_is_killed(log: Path) -> None:
    os.kill(inner_pid(log), signal.SIGTERM)
    eventually("the end", lambda: "did not end" in log.read_text())
    text = log.read_text()
    assert "steady ended: killed by SIGTERM" in text
    assert re.search(r"deaf \(pid \d+\) did not end in 5 s: killed", text)
