"""Daemons that a test run starts: they end with it, whatever happens."""

import contextlib
import os
import random
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_STOP_SECONDS = 10.0
_PORTS = (10000, 32768)  # the ephemeral ones begin where this ends
_CHANCE = random.SystemRandom()
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")  # util-linux; prctl(2) PR_SET_PDEATHSIG


@contextlib.contextmanager
def daemon(command: Sequence[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in its own process group, output to `log`.

    The group is killed at the end; the process itself also when this one dies.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_DIE_WITH_PARENT, *(str(word) for word in command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(
    ready: Callable[[], bool],
    process: subprocess.Popen[bytes],
    log: Path,
    wait: Callable[[], None],
    tries: int,
) -> None:
    """Poll `ready`, with `wait` between tries.

    Raise RuntimeError with the log's end if the process dies or is not ready in time.
    """
    for _try in range(tries):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with status {process.returncode}:\n{tail(log)}")
        if ready():
            return
        wait()
    raise RuntimeError(f"{process.args!r} is not ready:\n{tail(log)}")


def tail(log: Path, lines: int = 30) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """TCP ports that are free now, all different. Between this and their use somebody else may take one.

    They lie below the ephemeral range (ip-sysctl: ip_local_port_range): the outgoing connection of a client
    that tries again and again could otherwise hold the port of the very daemon it waits for.
    """
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            sock = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                sock.bind((address, _CHANCE.randrange(*_PORTS)))
                found.append(sock.getsockname()[1])
        return found
