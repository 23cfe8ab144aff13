"""Root file systems that cannot be made."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

_SCRIPT = """
from lab import LabError, rootfs
try:
    rootfs.ensure("refused", ["no-package-is-called-this"])
except LabError as error:
    print(error)
"""


def test_failure_is_told_to_whoever_waits(tmp_path: Path) -> None:
    """mmdebstrap ends its whole process group by SIGHUP when it fails; ours is another."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TORTIE_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # without the fix it would end these tests
    )
    assert done.returncode == 0, done.stderr
    assert "could not make refused-" in done.stdout
    assert "no-package-is-called-this" in done.stdout
    assert not list((tmp_path / "rootfs").iterdir())
