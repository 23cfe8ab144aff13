"""What `make test` says about its parts (lab/parts.sh): the last lines tell which test failed, and why."""

import subprocess
from pathlib import Path

PARTS = Path(__file__).parents[3] / "lab" / "parts.sh"

PYTEST_LOG = """\
..F                                                                      [100%]
=================================== FAILURES ===================================
E   AssertionError: assert 2 == 3
=========================== short test summary info ============================
SKIPPED [1] tests/unit/test_c.py:3: needs two processors
FAILED tests/unit/test_a.py::test_two_is_three - AssertionError: assert 2 == 3
ERROR tests/unit/test_b.py::test_started - OSError: no space
========================= 1 failed, 2 passed in 0.40s ==========================
"""
MOLECULE_LOG = """\
  │ TASK [preflight : Judge] ***
  │ \x1b[31m[ERROR]: Task failed: QEMU is missing\x1b[0m
  │ ok: [master-01]
"""


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script that has the functions, in a folder of its own."""
    command = ["bash", "-uo", "pipefail", "-c", f". {PARTS}\n{script}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)


def log_of(folder: Path, text: str) -> Path:
    """A file with what a part printed."""
    file = folder / "printed"
    file.write_text(text)
    return file


def test_parts_after_a_failed_one_run_and_the_whole_run_fails(tmp_path: Path) -> None:
    done = run(tmp_path, 'part "first" false; part "second" echo ran; summary')
    assert done.returncode == 1
    assert "\nran\n" in done.stdout
    assert "FAILED   first after" in done.stdout
    assert "passed   second in" in done.stdout
    assert "1 passed, 1 failed, 0 not run" in done.stdout


def test_a_run_of_passed_parts_succeeds_and_leaves_no_log(tmp_path: Path) -> None:
    done = run(tmp_path, 'part "first" echo ran; summary')
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_did_not_run_fails_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, 'part "first" true; skipped+=("second: no image"); summary')
    assert done.returncode == 1
    assert "not run  second: no image" in done.stdout


def test_the_summary_names_failed_tests_with_their_reasons_and_nothing_else(tmp_path: Path) -> None:
    printed = log_of(tmp_path, PYTEST_LOG)
    done = run(tmp_path, f'part "unit tests" bash -c "cat {printed}; exit 1"; summary')
    reasons = done.stdout[done.stdout.index("==> Tests") :]
    assert "FAILED tests/unit/test_a.py::test_two_is_three - AssertionError: assert 2 == 3\n" in reasons
    assert "ERROR tests/unit/test_b.py::test_started - OSError: no space\n" in reasons
    assert "SKIPPED" not in reasons
    assert "[100%]" not in reasons
    assert (tmp_path / "report/tests/unit-tests.log").read_text() == PYTEST_LOG


def test_the_summary_names_errors_of_plays_that_molecule_framed(tmp_path: Path) -> None:
    printed = log_of(tmp_path, MOLECULE_LOG)
    done = run(tmp_path, f'part "molecule" bash -c "cat {printed}; exit 1"; summary')
    reasons = done.stdout[done.stdout.index("==> Tests") :]
    assert "             [ERROR]: Task failed: QEMU is missing\n" in reasons
    assert "master-01" not in reasons


def test_a_part_may_fail_without_a_word(tmp_path: Path) -> None:
    done = run(tmp_path, 'part "silent" false; summary')
    assert "0 passed, 1 failed, 0 not run" in done.stdout
    assert done.stderr == ""


def test_a_process_left_behind_does_not_hold_up_the_next_part(tmp_path: Path) -> None:
    leaves_one = r'bash -c "sleep 20 & echo \$! >pid"'
    done = run(tmp_path, f'part "leaves one" {leaves_one}; part "next" true; kill "$(cat pid)"; summary')
    assert done.returncode == 0
    assert "passed   next" in done.stdout
