"""BIRD as the agent sees it: a configuration file and a control socket. The supervisor runs the process."""

import asyncio
import contextlib
import logging
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tortie.agent.startup import write_atomically
from tortie.bgp.control import BGPPeerStatus, BirdControl, BirdError
from tortie.model.constants import IPIP_DEVICE

log = logging.getLogger(__name__)

_CHECK_TIMEOUT: Final = 20.0  # seconds that `bird -p` may take


@dataclass(frozen=True, slots=True)
class BirdState:
    """What a running BIRD says."""

    peers: tuple[BGPPeerStatus, ...]
    recovering: bool


class Bird:
    """Keeps BIRD's configuration and asks for its state; one call at a time, each in a thread."""

    def __init__(self, program: str, config: Path, socket: Path, tunnel_index: Callable[[], int]) -> None:
        """`tunnel_index`: the kernel's index of tunl0, 0 while there is none."""
        self._tunnel_index = tunnel_index
        self._written_for = 0  # the tunnel's index when BIRD last wrote all routes with it in place
        self._program = program
        self._config = config
        self._control = BirdControl(socket)
        self._lock = asyncio.Lock()
        self._pending = True  # BIRD may run with an older file
        self._refusal = ""

    async def write(self, text: str) -> bool:
        """Put `text` in place if BIRD's own parser accepts it; return whether the file changed.

        Raise BirdError with the parser's words; the old file stays then.
        """
        async with self._lock:
            return await asyncio.to_thread(self._write, text)

    async def poll(self) -> tuple[BirdState, bool]:
        """Tell BIRD about a file that it has not read yet; return its state and whether it had to be told.

        Raise BirdError when it is away, or when the last configuration was refused.
        """
        async with self._lock:
            return await asyncio.to_thread(self._poll)

    def _write(self, text: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            if self._config.read_text() == text:
                self._refusal = ""
                return False
        self._config.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._check(text)
        except BirdError as error:
            self._refusal = str(error)
            raise
        self._refusal = ""
        write_atomically(self._config, text)
        self._pending = True
        return True

    def _poll(self) -> tuple[BirdState, bool]:
        if self._refusal:
            raise BirdError(self._refusal)
        told = self._pending
        if told:
            log.info("BIRD: %s", self._control.configure())
            self._pending = False
        status = self._control.status()
        if not status.recovering:
            self._follow_tunnel()
        return BirdState(tuple(self._control.peers()), status.recovering), told

    def _follow_tunnel(self) -> None:
        """Have BIRD write its routes again when the tunnel is a new device.

        The filter names the device. A route that arrives while there is none (after a boot BIRD may have its
        sessions before the agent has made the tunnel) is refused, once and for all; one through a device that
        somebody deleted is gone.
        """
        index = self._tunnel_index()
        if index == self._written_for:
            return
        if index == 0:
            self._written_for = 0
        elif self._control.interfaces().get(IPIP_DEVICE) == index:  # BIRD looks every two seconds
            self._control.write_routes_anew()
            self._written_for = index
            log.info("BIRD: routes written anew for device %s, index %d", IPIP_DEVICE, index)

    def _check(self, text: str) -> None:
        with tempfile.NamedTemporaryFile(
            "w", dir=self._config.parent, prefix=".bird.cfg.check."
        ) as candidate:
            candidate.write(text)
            candidate.flush()
            try:
                result = subprocess.run(
                    [self._program, "-p", "-c", candidate.name],
                    capture_output=True,
                    text=True,
                    timeout=_CHECK_TIMEOUT,
                    check=False,
                )
            except FileNotFoundError as error:
                raise BirdError(
                    f"BIRD_PROGRAM is {self._program!r}, which cannot be found: install BIRD 2 (>= 2.0.12), "
                    "or set CALICO_NETWORKING_BACKEND to vxlan or none."
                ) from error
            except subprocess.TimeoutExpired as error:
                raise BirdError(f"{self._program} -p did not finish in {_CHECK_TIMEOUT:.0f} s") from error
        if result.returncode:
            reason = result.stderr.strip() or f"exit status {result.returncode}"
            raise BirdError(f"BIRD does not accept the configuration written for it: {reason}")


def sessions_problem(state: BirdState, fresh: bool) -> str:
    """Why BGP does not count as ready; empty when it does.

    A `fresh` agent waits for all peers; one that has run for a while is content with any, so that one dead
    node does not make all others unready. A peer in its graceful restart is no reason either: its routes are
    in force. In a cluster of two that matters, for whoever rolls out a DaemonSet removes unready pods first,
    and both nodes would be without BIRD at once.
    """
    if state.recovering:
        return "BIRD waits for its peers to come back (graceful restart)"
    waiting = [peer for peer in state.peers if not (peer.established or peer.restarting)]
    if not waiting or (not fresh and len(waiting) < len(state.peers)):
        return ""
    return "no BGP session with " + ", ".join(_describe(waiting))


def _describe(peers: Sequence[BGPPeerStatus]) -> list[str]:
    return [
        f"{peer.address or peer.name} ({': '.join(dict.fromkeys((peer.state, peer.info)))})" for peer in peers
    ]
