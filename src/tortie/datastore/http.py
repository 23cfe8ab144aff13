"""What both network backends need of HTTP."""

import socket
from collections.abc import AsyncGenerator
from typing import Final

import aiohttp

# TCP keep-alive of a watch, seconds: a peer that vanished without a word is noticed after 15 + 3 * 5.
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


async def lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """Complete lines of any length (StreamReader.readline has a limit); an unfinished last one is dropped."""
    rest = bytearray()
    async for chunk in content.iter_any():
        rest += chunk
        if b"\n" in chunk:
            *lines, tail = bytes(rest).split(b"\n")
            rest = bytearray(tail)
            for line in lines:
                if line:
                    yield line


def keep_alive(response: aiohttp.ClientResponse) -> None:
    """Let the kernel notice when the peer of a long answer vanishes."""
    connection = response.connection
    if connection is None or connection.transport is None:
        return  # the answer is complete already
    sock = connection.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def reason(error: Exception) -> str:
    """What to say about an error that may have no text."""
    return str(error) or type(error).__name__
