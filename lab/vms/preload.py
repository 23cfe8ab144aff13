"""Container images put into a root file system by this machine's own processor.

A machine that is emulated needs minutes to unpack a cluster's images. The store is the very one that the
machine's containerd finds later; the roles then look for each image by digest, as everywhere, and find
it.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab import LabError, debs

START_SECONDS = 30.0
STOP_SECONDS = 30.0
# kubelet's images (the CRI plugin's namespace).
NAMESPACE = "k8s.io"

CONFIG = """\
version = 2
root = "{store}"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{folder}/sock"
[ttrpc]
  address = "{folder}/ttrpc"
"""


class PreloadError(LabError):
    """An image could not be unpacked."""


def load(root: Path, archives: Sequence[Path]) -> None:
    """Import image archives into the containerd store of the root file system at `root`."""
    with _containerd(root / "var" / "lib" / "containerd") as ctr:
        for archive in archives:
            answer = subprocess.run(
                [*ctr, "images", "import", str(archive)], capture_output=True, text=True, check=False
            )
            if answer.returncode != 0:
                raise PreloadError(f"containerd cannot import {archive}: {answer.stderr.strip()[-500:]}")


@contextmanager
def _containerd(store: Path) -> Iterator[list[str]]:
    """A containerd on `store`; yields the command line of its client."""
    programs = debs.extract("containerd") / "usr" / "bin"
    # A socket's path has at most 108 bytes (unix(7)): the cache's folder may be longer.
    with tempfile.TemporaryDirectory(prefix="tortie-preload-") as name:
        folder = Path(name)
        (folder / "config.toml").write_text(CONFIG.format(store=store, folder=folder))
        command = [str(programs / "containerd"), "--config", str(folder / "config.toml")]
        log = folder / "log"
        with log.open("wb") as output:
            # It ends with us, also when we are killed.
            daemon = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        ctr = [str(programs / "ctr"), "--address", str(folder / "sock"), "--namespace", NAMESPACE]
        try:
            _wait(ctr, daemon, log)
            yield ctr
        finally:
            daemon.terminate()
            try:
                daemon.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _wait(ctr: Sequence[str], daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while daemon.poll() is None and time.monotonic() < deadline:
        # ctr itself waits ten seconds for a socket that is not there.
        answer = subprocess.run(
            [*ctr, "version"], capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"}
        )
        if answer.returncode == 0:
            return
        time.sleep(0.1)
    raise PreloadError(f"containerd did not start to take the images: {log.read_text()[-1000:]}")
