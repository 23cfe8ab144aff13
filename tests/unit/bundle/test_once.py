"""Cache entries appear complete or not at all."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from lab import once


def _entries(directory: Path) -> list[str]:
    """What is there besides lock files."""
    return sorted(path.name for path in directory.iterdir() if not path.name.endswith(".lock"))


def test_entry_is_made_once(tmp_path: Path) -> None:
    calls: list[Path] = []

    def fill(directory: Path) -> None:
        calls.append(directory)
        (directory / "file").write_text("content")

    for _ in range(2):
        assert (once.make(tmp_path / "entry", fill) / "file").read_text() == "content"
    assert len(calls) == 1
    assert _entries(tmp_path) == ["entry"]


def test_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def fill(directory: Path) -> None:
        (directory / "half").write_text("content")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        once.make(tmp_path / "entry", fill)
    assert _entries(tmp_path) == []


def test_failure_keeps_the_older_entry(tmp_path: Path) -> None:
    once.make(tmp_path / "entry", lambda directory: (directory / "old").touch())

    def fill(directory: Path) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        once.make(tmp_path / "entry", fill, is_current=lambda _: False)
    assert [path.name for path in (tmp_path / "entry").iterdir()] == ["old"]


def test_outdated_entry_is_replaced(tmp_path: Path) -> None:
    once.make(tmp_path / "entry", lambda directory: (directory / "old").touch())
    fresh = once.make(
        tmp_path / "entry",
        lambda directory: (directory / "new").touch(),
        lambda path: (path / "new").exists(),
    )
    assert [path.name for path in fresh.iterdir()] == ["new"]
    assert _entries(tmp_path) == ["entry"]


def test_concurrent_callers_make_it_once(tmp_path: Path) -> None:
    calls: list[int] = []
    gate = threading.Barrier(4)

    def fill(directory: Path) -> None:
        calls.append(1)
        (directory / "file").touch()

    def work() -> None:
        gate.wait()
        once.make(tmp_path / "entry", fill)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_killed_process_leaves_no_entry_and_its_remains_go_next_time(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from lab import once\n"
        "def fill(directory):\n"
        "    (directory / 'half').touch()\n"
        "    print('filling', flush=True)\n"
        "    time.sleep(600)\n"
        "once.make(Path(sys.argv[1]), fill)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "entry")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"filling\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "entry").exists()
    assert len(_entries(tmp_path)) == 1
    once.make(tmp_path / "entry", lambda directory: (directory / "whole").touch())
    assert _entries(tmp_path) == ["entry"]
