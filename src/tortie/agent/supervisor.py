"""First process of calico-node (`tortie-node`): keeps BIRD and the agent running, independent of each other.

It is ordinary process 1 work: start, wait, reap, restart with back-off, pass on the end. No thread, no event
loop: signals are blocked and waited for, so nothing is missed between two system calls.
"""

import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tortie.agent.logfmt import set_up_logging
from tortie.agent.settings import Settings, SettingsError, read_settings
from tortie.bgp.control import BirdControl, BirdError

log = logging.getLogger("tortie.agent.supervisor")

_SIGNALS: Final = frozenset({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_TICK: Final = 0.5  # seconds between looks at what may start
_FIRST_WAIT: Final = 0.5  # seconds before the first restart; doubled up to _LONGEST_WAIT
_LONGEST_WAIT: Final = 30.0
_LONG_RUN: Final = 60.0  # seconds; a process that ran this long starts again without penalty
_PATIENCE: Final = 5.0  # seconds that children have to end before they are killed
_BIRD_PATIENCE: Final = 2.0


@dataclass(slots=True)
class Child:
    """A process to keep running. `may_start` holds it back; `started` is told once it was started."""

    name: str
    arguments: Sequence[str]
    may_start: Callable[[], bool] = lambda: True
    before_start: Callable[[list[str]], list[str]] = lambda arguments: arguments
    pid: int = 0
    started_at: float = 0.0
    not_before: float = 0.0
    wait: float = field(default=_FIRST_WAIT)

    def start(self, now: float) -> None:
        """Start the process with default signal handling; a missing program counts as one that failed."""
        arguments = self.before_start(list(self.arguments))
        try:
            self.pid = os.posix_spawnp(
                arguments[0], arguments, os.environ, setsigmask=(), setsigdef=list(_SIGNALS)
            )
        except OSError as error:
            log.error("Cannot start %s (%s): %s", self.name, arguments[0], error.strerror)
            self.ended(now)
            return
        self.started_at = now
        log.info("Started %s, pid %d: %s", self.name, self.pid, " ".join(arguments))

    def ended(self, now: float) -> None:
        """The process is gone: start it again after a while that grows with each early end."""
        if self.pid and now - self.started_at >= _LONG_RUN:
            self.wait = _FIRST_WAIT
        self.pid = 0
        self.not_before = now + self.wait
        self.wait = min(self.wait * 2, _LONGEST_WAIT)

    def kill(self, number: signal.Signals) -> None:
        """Send a signal if it runs. Unreaped children keep their pid, so it cannot hit another process."""
        if self.pid:
            os.kill(self.pid, number)


class Supervisor:
    """Runs its children until SIGTERM or SIGINT. `before_stop` is called first then, with signals blocked."""

    def __init__(self, children: Sequence[Child], before_stop: Callable[[], None]) -> None:
        self._children = children
        self._before_stop = before_stop

    def run(self) -> int:
        """Supervise; return the exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        while not self._step():
            self._start_due()
        log.info("Stopping")
        self._before_stop()
        self._stop()
        return 0

    def _step(self) -> bool:
        """Wait for a signal or a tick, reap. Return whether to stop."""
        received = signal.sigtimedwait(_SIGNALS, _TICK)
        self._reap()
        return received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT)

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if not child.pid and now >= child.not_before and child.may_start():
                child.start(now)

    def _reap(self) -> None:
        """Collect every dead child, orphans that process 1 inherited included."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children:
                if child.pid == pid:
                    child.ended(time.monotonic())
                    log.warning("%s ended: %s", child.name, describe(status))

    def _stop(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while any(child.pid for child in self._children) and time.monotonic() < deadline:
            signal.sigtimedwait({signal.SIGCHLD}, 0.2)
            self._reap()
        for child in self._children:
            if child.pid:
                log.warning("%s (pid %d) did not end in %.0f s: killed", child.name, child.pid, _PATIENCE)
                child.kill(signal.SIGKILL)
                os.waitpid(child.pid, 0)
                child.pid = 0


def describe(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def bird_child(settings: Settings) -> Child:
    """BIRD, held back until the agent has written its configuration.

    It recovers by graceful restart (-R) when it ran before on this boot. The very first start has nothing to
    recover, and would only hold back routes until every peer has called.
    """
    paths = settings.paths
    arguments = [
        find_bird(settings),
        "-f",
        "-s",
        str(paths.bird_socket),
        "-c",
        str(paths.bird_config),
    ]

    def before_start(arguments: list[str]) -> list[str]:
        restarted = paths.bird_marker.exists()
        paths.bird_marker.touch()
        return [*arguments, "-R"] if restarted else arguments

    return Child("bird", arguments, paths.bird_config.exists, before_start)


def stop_function(agent: Child, bird: Child | None, settings: Settings) -> Callable[[], None]:
    """How to begin the end: SIGTERM for the agent, graceful restart for BIRD.

    BIRD never gets SIGTERM: that would withdraw its routes here and at its peers. When its socket is dead it
    is killed, which leaves the routes as well.
    """

    def before_stop() -> None:
        agent.kill(signal.SIGTERM)
        if bird is None or not bird.pid:
            return
        try:
            BirdControl(settings.paths.bird_socket, _BIRD_PATIENCE).shut_down_gracefully()
            log.info("Asked BIRD for a graceful restart")
        except BirdError as error:
            log.warning("BIRD is killed, its routes stay: %s", error)
            bird.kill(signal.SIGKILL)

    return before_stop


def find_bird(settings: Settings) -> str:
    """Path of the BIRD program: Debian puts it into /usr/sbin, which is not on everybody's PATH."""
    return (
        shutil.which(settings.bird_program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        or settings.bird_program
    )


def main() -> None:
    """Entry point of `tortie-node`."""
    set_up_logging("INFO")
    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        for sentence in str(error).splitlines():
            log.error("%s", sentence)
        sys.exit(1)
    settings.paths.run.mkdir(parents=True, exist_ok=True)
    agent = Child("agent", [sys.executable, "-m", "tortie.agent.main"])
    bird = bird_child(settings) if settings.backend == "bird" else None
    children = [agent] if bird is None else [agent, bird]
    sys.exit(Supervisor(children, stop_function(agent, bird, settings)).run())


if __name__ == "__main__":
    main()
