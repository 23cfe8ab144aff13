"""The table of benchmarks."""

import importlib

from bench import run
from bench.measurement import Measurement
from bench.run import Run

LINES = [
    Measurement(name="fast", unit="ms", ours=1.0, peer=4.0, peer_name="other", wanted=2.0, samples=9),
    Measurement(name="slow", unit="ms", ours=4.0, peer=4.0, peer_name="other", wanted=2.0, explanation="why"),
    Measurement(name="alone", unit="MB", ours=151.0, limit=150.0),
]


def test_the_table_tells_ratio_promise_and_reason() -> None:
    text = run.render({"example": Run(date="2030-01-01", machine="a machine", measurements=LINES)})
    assert "| fast | 1 | 4 (other) | ms | 4.00x | 2x: kept | 9 |" in text
    assert "| slow | 4 | 4 (other) | ms | 1.00x | 2x: **missed** |  |" in text
    assert "| alone | 151 |  | MB |  | at most 150 MB: **missed** |  |" in text
    assert "- slow: why" in text
    assert "2030-01-01; a machine." in text


def test_every_module_that_measures_is_found_and_no_other() -> None:
    names = run.benchmarks()
    assert "cni" in names
    assert not {"run", "measurement", "cni_share"} & set(names)
    for name in names:
        assert callable(importlib.import_module(f"bench.{name}").measure)


def test_an_unknown_name_is_refused_with_the_choices() -> None:
    assert run.main(["no-such-benchmark"]) == 2
