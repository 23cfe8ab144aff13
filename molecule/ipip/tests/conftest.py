"""Fixtures of molecule/shared/cluster_fixtures.py, and the figures that the tests of faults write down."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))
pytest_plugins = ["cluster_fixtures"]

REPORT = Path(os.environ["LAB_REPORT"])


@pytest.fixture(scope="session", name="note")
def _note() -> Iterator[Callable[[str], None]]:
    """Write a line down: it stands at the end of the run, and in the report's folder."""
    lines: list[str] = []
    yield lines.append
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text("".join(f"{line}\n" for line in lines))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures of this run."""
    if REPORT.exists():
        terminalreporter.section("figures")
        terminalreporter.write(REPORT.read_text())


def pytest_sessionstart() -> None:
    """An earlier run's figures are not this one's."""
    REPORT.unlink(missing_ok=True)
