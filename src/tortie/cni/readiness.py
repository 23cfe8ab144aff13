"""readiness_gates: URLs that must answer before a pod gets its network, as kube-proxy's health check."""

import asyncio
from collections.abc import Sequence
from typing import Final

import aiohttp

from tortie.cni import errors
from tortie.cni.errors import CNIError

SECONDS: Final = 30.0  # Calico's
POLL_SECONDS: Final = 0.5
ATTEMPT_SECONDS: Final = 5.0


async def wait_for(gates: Sequence[str]) -> None:
    """Return when every URL answers with status 200. Raise CNIError when one does not in time."""
    if not gates:
        return
    waiting = dict.fromkeys(gates, "not asked yet")
    try:
        async with asyncio.timeout(SECONDS), aiohttp.ClientSession() as session:
            while True:
                for gate in list(waiting):
                    waiting[gate] = await _ask(session, gate)
                    if not waiting[gate]:
                        del waiting[gate]
                if not waiting:
                    return
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        shown = "; ".join(f"{gate}: {reason}" for gate, reason in waiting.items())
        raise CNIError(
            errors.TRY_LATER, f"readiness_gates do not answer within {SECONDS:.0f} seconds: {shown}"
        ) from error


async def _ask(session: aiohttp.ClientSession, gate: str) -> str:
    """Empty when the gate is open, else why not."""
    try:
        async with session.get(gate, timeout=aiohttp.ClientTimeout(total=ATTEMPT_SECONDS)) as answer:
            return "" if answer.status == 200 else f"status {answer.status}"
    except (aiohttp.ClientError, TimeoutError) as error:
        return str(error) or type(error).__name__
