"""Steps that run side by side, and what is left of them."""

import sys
from pathlib import Path

import pytest
from lab import LabError, kubeconfig, steps


def python(title: str, code: str) -> steps.Step:
    return steps.Step(title, [sys.executable, "-c", code], {"STEP": title})


def test_result_is_the_last_line_of_each_steps_output(tmp_path: Path) -> None:
    made = steps.run_together(
        {
            "one": python("one", "print('noise'); print('/cache/one'); print()"),
            "two": python("two", "import os; print(os.environ['STEP'])"),
        },
        tmp_path,
    )
    assert made == {"one": "/cache/one", "two": "two"}


def test_failed_step_shows_the_end_of_its_output_and_the_others_finish(tmp_path: Path) -> None:
    marker = tmp_path / "finished"
    work = {
        "bad": python("Bad step", "import sys; print('the reason', file=sys.stderr); sys.exit(3)"),
        "good": python("Good step", f"import time; time.sleep(0.5); open({str(marker)!r}, 'w').close()"),
    }
    with pytest.raises(steps.StepError, match=r"(?s)Bad step: failed .*exit status 3.*the reason"):
        steps.run_together(work, tmp_path / "logs")
    assert marker.exists()


def test_failed_shown_step_raises(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(steps.StepError, match="exit status 2"):
        steps.run_shown(python("Shown", "import sys; sys.exit(2)"))
    assert "==> Shown" in capfd.readouterr().out


def test_kubeconfig_points_to_the_loopback_and_keeps_the_rest() -> None:
    text = "clusters:\n- cluster:\n    server: https://10.30.200.1:6443\n  name: kubernetes\n"
    assert kubeconfig.for_loopback(text, 7443) == text.replace("10.30.200.1:6443", "127.0.0.1:7443")


def test_kubeconfig_without_server_is_refused() -> None:
    with pytest.raises(LabError, match="names no server"):
        kubeconfig.for_loopback("clusters: []\n", 6443)
