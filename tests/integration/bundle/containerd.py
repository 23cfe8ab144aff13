"""A real containerd with the CRI plugin, in a directory of its own."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import debs

START_SECONDS = 30

CONFIG = """
version = 2
root = "{directory}/root"
state = "{directory}/state"
[grpc]
  address = "{directory}/sock"
[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{directory}/cni"
    conf_dir = "{directory}/net.d"
"""


@dataclass(frozen=True)
class Containerd:
    """A running daemon and what is needed to talk to it."""

    socket: Path
    path: str  # PATH with ctr in it

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": self.path}

    def ctr(self, *arguments: str) -> str:
        command = ["ctr", "-a", str(self.socket), "-n", "k8s.io", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env=self.environment()
        ).stdout


@contextmanager
def running() -> Iterator[Containerd]:
    """Start the daemon out of Debian's package, which is not installed, and end it."""
    programs = f"{debs.extract('containerd')}/usr/bin:{debs.extract('runc')}/usr/sbin"
    path = f"{programs}:{os.environ['PATH']}"
    # A socket's path has at most 108 bytes (unix(7)); pytest's directories are longer than one likes.
    with tempfile.TemporaryDirectory(prefix="tA-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        (directory / "config.toml").write_text(CONFIG.format(directory=directory))
        command = ["containerd", "--config", str(directory / "config.toml")]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PATH": path})
        daemon = Containerd(directory / "sock", path)
        try:
            _wait(daemon, process, directory / "log")
            yield daemon
        finally:
            process.terminate()
            process.wait()


def _wait(daemon: Containerd, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers. Raises AssertionError with the end of the log."""
    deadline = time.monotonic() + START_SECONDS
    command = ["ctr", "-a", str(daemon.socket), "version"]
    while process.poll() is None and time.monotonic() < deadline:
        if (
            subprocess.run(command, capture_output=True, check=False, env=daemon.environment()).returncode
            == 0
        ):
            return
        time.sleep(0.1)
    raise AssertionError(f"containerd did not start: {log.read_text()[-2000:]}")
