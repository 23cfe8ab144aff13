"""Steps of a long run: each says what it does, how it fares while it works, and how long it took."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab import LabError

POLL_INTERVAL = 0.2
# Seconds between signs of life of a step whose output goes to a file.
HEARTBEAT = 15.0
TAIL_LINES = 25


class StepError(LabError):
    """A step failed."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command with a title that says what it does. `environment` is added to the process's own."""

    title: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Running:
    step: Step
    process: subprocess.Popen[bytes]
    log: Path
    started: float
    next_sign: float


def seconds(duration: float) -> str:
    """A duration as people read it."""
    return f"{duration:.0f} s" if duration >= 10 else f"{duration:.1f} s"


def _say(text: str) -> None:
    print(f"==> {text}", flush=True)


def run_shown(step: Step) -> None:
    """Run a step with its output on the terminal. StepError when it fails."""
    _say(f"{step.title} …")
    started = time.monotonic()
    status = subprocess.run(step.command, env={**os.environ, **step.environment}, check=False).returncode
    taken = seconds(time.monotonic() - started)
    if status != 0:
        raise StepError(
            f"{step.title}: failed after {taken} (exit status {status}); the lines above say why."
        )
    _say(f"{step.title} … done in {taken}")


def run_together(steps: Mapping[str, Step], logs: Path) -> dict[str, str]:
    """Run steps at the same time, output to `logs`/<key>.log; the last line of each one's output, by key.

    All are waited for, also when one fails: a half-filled cache is worth completing. Then StepError with the
    end of the failed step's log.
    """
    logs.mkdir(parents=True, exist_ok=True)
    running = {key: _start(step, logs / f"{key}.log") for key, step in steps.items()}
    failures = []
    while running:
        for key, job in list(running.items()):
            status = job.process.poll()
            now = time.monotonic()
            if status is not None:
                del running[key]
                taken = seconds(now - job.started)
                if status == 0:
                    _say(f"{job.step.title} … done in {taken}")
                else:
                    failures.append(_describe_failure(job, status, taken))
            elif now >= job.next_sign:
                job.next_sign = now + HEARTBEAT
                said = _lines(job.log)[-1:]
                _say(
                    f"{job.step.title}: {seconds(now - job.started)} so far"
                    + "".join(f" · {line}" for line in said)
                )
        time.sleep(POLL_INTERVAL)
    if failures:
        raise StepError("\n".join(failures))
    return {key: "".join(_lines(logs / f"{key}.log")[-1:]) for key in steps}


def _start(step: Step, log: Path) -> _Running:
    _say(f"{step.title} …")
    with log.open("wb") as output:
        process = subprocess.Popen(
            step.command,
            env={**os.environ, **step.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    now = time.monotonic()
    return _Running(step, process, log, now, now + HEARTBEAT)


def _lines(log: Path) -> list[str]:
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()]


def _describe_failure(job: _Running, status: int, taken: str) -> str:
    tail = "\n".join("    " + line for line in _lines(job.log)[-TAIL_LINES:])
    return f"{job.step.title}: failed after {taken} (exit status {status}); end of {job.log}:\n{tail}"
