# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Run kubeadm and kubectl on a node, in bounded time, with errors that carry the end of the log.

How a half-made control plane is known: while `kubeadm init` runs, its configuration is in PARTIAL; it is
renamed to CONFIG when init has ended well. A CONFIG says that this machine holds a cluster (never reset
by us); a PARTIAL says that init was cut off before anybody could have joined, so that the machine may be
reset and init run anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = "/etc/kubernetes"
CONFIG = f"{FOLDER}/kubeadm.yaml"
PARTIAL = f"{FOLDER}/kubeadm.yaml.partial"
JOIN_CONFIG = f"{FOLDER}/kubeadm-join.yaml"
ADMIN_CONF = f"{FOLDER}/admin.conf"
CA_CERT = f"{FOLDER}/pki/ca.crt"
LOG_FOLDER = "/var/log/kubeadm"
LOCK = "/run/tortie-kubeadm.lock"

# What a worker holds of a cluster that it was joined to; `kubeadm join` refuses to start while any of it is
# there.
JOIN_REMAINS = (
    f"{FOLDER}/kubelet.conf",
    f"{FOLDER}/bootstrap-kubelet.conf",
    CA_CERT,
    "/var/lib/kubelet/pki/kubelet-client-current.pem",
    JOIN_CONFIG,
)

TAIL_LINES = 25
KUBECTL_SECONDS = 10
POLL_SECONDS = 1.0
# The programs may have been put there by packages or by a bundle; ssh sessions of some distributions lack
# the second.
PATH = "/usr/bin:/usr/local/bin:/usr/sbin:/usr/local/sbin:/sbin:/bin"


class KubeadmError(Exception):
    """kubeadm or kubectl failed; the message is a sentence and the end of the log."""


@dataclass(frozen=True)
class ControlPlaneState:
    """made: init has ended well; half_made: init of ours was cut off; foreign: somebody else's files;
    answers: its API is ready.
    """

    made: bool
    half_made: bool
    foreign: bool
    answers: bool


@contextlib.contextmanager
def alone(seconds: float) -> Iterator[int]:
    """Keep a second run off this machine: it would take the first one's unfinished work for a half-made
    control plane.

    Yields the lock's descriptor, which kubeadm is to inherit: when we are killed and kubeadm goes on, the
    lock stays until it ends. Waits that many seconds for another run. Raises KubeadmError.
    """
    end = time.monotonic() + seconds
    with Path(LOCK).open("w", encoding="ascii") as stream:
        while not _locked(stream.fileno()):
            if time.monotonic() >= end:
                raise KubeadmError(
                    f"another run has been making a node of this host for {seconds:.0f} seconds; see its"
                    f" log in {LOG_FOLDER}."
                )
            time.sleep(POLL_SECONDS)
        yield stream.fileno()


def _locked(descriptor: int) -> bool:
    """Take the lock if it is free."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def environment() -> dict[str, str]:
    """The environment for kubeadm and kubectl."""
    return {**os.environ, "PATH": PATH, "AWS_EC2_METADATA_DISABLED": "true"}


def run_logged(command: Sequence[str], log: str, timeout: int, lock: int) -> None:
    """Run a program with its output in `LOG_FOLDER`/log. Raises KubeadmError with the log's end when it
    fails or takes too long.
    """
    folder = Path(LOG_FOLDER)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / log
    path.unlink(missing_ok=True)
    shown = " ".join(command[:2])
    with os.fdopen(
        os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as stream:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
                pass_fds=(lock,),
            )
        except FileNotFoundError as error:
            raise KubeadmError(
                f"{command[0]} is not installed on this host; run the role kubernetes before this one."
            ) from error
        try:
            status = process.wait(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise KubeadmError(
                f"'{shown}' did not end within {timeout} seconds. The end of {path}:\n{tail(path)}"
            ) from error
    if status != 0:
        raise KubeadmError(f"'{shown}' ended with status {status}. The end of {path}:\n{tail(path)}")


def tail(path: Path) -> str:
    """The last lines of a log."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """What kubectl prints, asked with the administrator's credentials. Raises KubeadmError."""
    command = ["kubectl", f"--kubeconfig={ADMIN_CONF}", f"--request-timeout={KUBECTL_SECONDS}s", *arguments]
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            env=environment(),
            timeout=2 * KUBECTL_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise KubeadmError(
            "kubectl is not installed on this host; run the role kubernetes before this one."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise KubeadmError(
            f"kubectl {arguments[0]} did not end within {2 * KUBECTL_SECONDS} seconds."
        ) from error
    if done.returncode != 0:
        raise KubeadmError(
            f"kubectl {' '.join(arguments[:3])} failed: {' '.join(done.stderr.split())[-600:]}"
        )
    return done.stdout


def kubectl_json(*arguments: str) -> Any:
    """What kubectl prints with -o json. Raises KubeadmError."""
    return json.loads(kubectl(*arguments, "-o", "json"))


def api_ready() -> bool:
    """Whether the API server answers the administrator that it is ready."""
    try:
        return kubectl("get", "--raw", "/readyz").strip() == "ok"
    except KubeadmError:
        return False


def wait_for_api(seconds: float) -> bool:
    """Poll api_ready; the first time at once."""
    end = time.monotonic() + seconds
    while not api_ready():
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def control_plane_state(wait: float) -> ControlPlaneState:
    """Look at this machine. A control plane that should be there is given `wait` seconds to answer (it may
    just have booted).
    """
    made = Path(CONFIG).exists()
    half_made = Path(PARTIAL).exists() and not made
    manifests = Path(FOLDER, "manifests")
    traces = Path(ADMIN_CONF).exists() or (manifests.is_dir() and any(manifests.glob("*.yaml")))
    foreign = traces and not made and not half_made
    answers = Path(ADMIN_CONF).exists() and not half_made and wait_for_api(wait)
    return ControlPlaneState(made, half_made, foreign, answers)


def write_private(path: str, text: str) -> None:
    """Write a file that only root may read, replacing what is there in one step."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(
        os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as stream:
        stream.write(text)
    temporary.replace(target)


def registered_nodes() -> list[str]:
    """Names of the nodes that the API server knows."""
    return [str(item["metadata"]["name"]) for item in kubectl_json("get", "nodes")["items"]]
