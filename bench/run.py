"""Run the benchmarks: `python -m bench.run [names]`, all of them without a name.

A benchmark is a module `bench/<name>.py` with a function `measure`. What is measured replaces what that
benchmark measured before in bench/results.json; docs/benchmarks.md is written from it.
"""

import ast
import importlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.measurement import Measurement

DIRECTORY: Final = Path(__file__).parent
RESULTS: Final = DIRECTORY / "results.json"
TABLE: Final = DIRECTORY.parent / "docs" / "benchmarks.md"

_INTRODUCTION: Final = """# Benchmarks

Written by `python -m bench.run` (`make bench`); do not edit. Both sides of a line were measured in the same
run, in turns, on the same machine: the ratio says more than the times, which go up and down with whatever
else the machine does. "better by" is how many times better ours is than the other side; a promise is kept
when it reaches what is promised.
"""


class Run(msgspec.Struct, kw_only=True):
    """One benchmark's results, and where and when they were measured."""

    date: str
    machine: str
    measurements: list[Measurement]


def benchmarks() -> list[str]:
    """Names of all benchmarks: modules here that define `measure`."""
    found: list[str] = []
    for path in sorted(DIRECTORY.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "measure" for node in tree.body):
            found.append(path.stem)
    return found


def machine() -> str:
    """Processor, cores, kernel, and how busy the machine is with other things."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
            break
    load = os.getloadavg()[0]
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, load {load:.1f} before"


def run(name: str) -> Run:
    """Run one benchmark."""
    where, when = machine(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    module: Any = importlib.import_module(f"bench.{name}")
    return Run(date=when, machine=where, measurements=module.measure())


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def promise(line: Measurement) -> str:
    """What is promised, and whether it is kept."""
    parts = [f"{number(line.wanted)}x"] if line.wanted is not None else []
    if line.limit is not None:
        parts.append(f"at most {number(line.limit)} {line.unit}")
    if not parts:
        return ""
    return f"{' and '.join(parts)}: {'kept' if line.kept else '**missed**'}"


def render(runs: dict[str, Run]) -> str:
    """The table of all results."""
    text = _INTRODUCTION
    for name, found in sorted(runs.items()):
        text += f"\n## {name}\n\n{found.date}; {found.machine}.\n\n"
        text += (
            "| what | ours | other | unit | better by | promised | samples |\n|---|---|---|---|---|---|---|\n"
        )
        notes: list[str] = []
        for line in found.measurements:
            other = f"{number(line.peer)} ({line.peer_name})" if line.peer is not None else ""
            ratio = f"{line.ratio:.2f}x" if line.ratio is not None else ""
            cells = [
                line.name,
                number(line.ours),
                other,
                line.unit,
                ratio,
                promise(line),
                str(line.samples or ""),
            ]
            text += f"| {' | '.join(cells)} |\n"
            if line.explanation:
                notes.append(f"- {line.name}: {line.explanation}")
        if notes:
            text += "\n" + "\n".join(notes) + "\n"
    return text


def read(path: Path) -> dict[str, Run]:
    """Earlier results; none when there is no file."""
    if not path.exists():
        return {}
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Run])


def main(arguments: Sequence[str]) -> int:
    """Run, write both files, and print what is not kept."""
    known = benchmarks()
    unknown = [name for name in arguments if name not in known]
    if unknown:
        print(f"There is no benchmark {', '.join(unknown)}; there are: {', '.join(known)}.", file=sys.stderr)
        return 2
    runs = read(RESULTS)
    for name in arguments or known:
        print(f"{name} ...", flush=True)
        runs[name] = run(name)
        RESULTS.write_text(json.dumps(msgspec.to_builtins(runs), indent=1, sort_keys=True) + "\n")
        TABLE.write_text(render(runs), encoding="utf-8")
        for line in runs[name].measurements:
            ratio = f", {line.ratio:.2f}x" if line.ratio is not None else ""
            verdict = "" if line.kept else "  MISSED"
            print(f"  {line.name}: {number(line.ours)} {line.unit}{ratio}{verdict}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
