"""ICMP echo of an exact packet size, with or without the don't-fragment flag, and a search for the path MTU.

Sizes are whole IPv4 packets in bytes: 20 header (RFC 791, no options), 8 ICMP header (RFC 792), then payload.
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Final, Literal

IPV4_HEADER: Final = 20
ICMP_HEADER: Final = 8
SMALLEST: Final = IPV4_HEADER + ICMP_HEADER
LARGEST: Final = 65535  # the total length field of IPv4 has 16 bits

# linux/in.h; the socket module does not export them.
IP_MTU_DISCOVER: Final = 10
IP_MTU: Final = 14
IP_PMTUDISC_DONT: Final = 0
IP_PMTUDISC_DO: Final = 2

# RFC 792.
ECHO_REPLY: Final = 0
ECHO_REQUEST: Final = 8

Outcome = Literal["reply", "emsgsize", "timeout", "error"]

_sequences = count()


@dataclass(frozen=True, slots=True)
class Echo:
    """What became of one echo request. `path_mtu`: what the kernel knows of the path afterwards, or 0."""

    outcome: Outcome
    detail: str = ""
    path_mtu: int = 0


def checksum(data: bytes) -> int:
    """Internet checksum (RFC 1071) of `data`."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def echo_request(identifier: int, sequence: int, size: int) -> bytes:
    """The ICMP part of an echo request whose IPv4 packet has `size` bytes."""
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(
            f"size is {size}, but an echo request has {SMALLEST} to {LARGEST} bytes; give another size"
        )
    payload = bytes(index % 256 for index in range(size - SMALLEST))
    unsummed = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identifier, sequence) + payload
    return unsummed[:2] + struct.pack("!H", checksum(unsummed)) + unsummed[4:]


def is_reply(packet: bytes, identifier: int, sequence: int) -> bool:
    """Whether `packet` (IPv4 header included, as raw sockets deliver it) answers that request."""
    if len(packet) < SMALLEST:
        return False
    header = (packet[0] & 0x0F) * 4
    if len(packet) < header + ICMP_HEADER:
        return False
    kind, _code, _sum, their_identifier, their_sequence = struct.unpack_from("!BBHHH", packet, header)
    return (kind, their_identifier, their_sequence) == (ECHO_REPLY, identifier, sequence)


async def echo(host: str, size: int, *, dont_fragment: bool, seconds: float) -> Echo:
    """Send one echo request of `size` bytes to the address `host` and wait `seconds` for its reply.

    `emsgsize` means that this kernel refused the packet, or a router sent "fragmentation needed": both reach
    a connected raw socket as EMSGSIZE when IP_MTU_DISCOVER is IP_PMTUDISC_DO (net/ipv4/raw.c).
    """
    identifier, sequence = os.getpid() & 0xFFFF, next(_sequences) & 0xFFFF
    request = echo_request(identifier, sequence, size)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP) as raw:
        raw.setsockopt(
            socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO if dont_fragment else IP_PMTUDISC_DONT
        )
        try:
            raw.connect((host, 0))
            async with asyncio.timeout(seconds):
                await loop.sock_sendall(raw, request)
                while not is_reply(await loop.sock_recv(raw, LARGEST), identifier, sequence):
                    continue
        except TimeoutError:
            return Echo("timeout", f"no reply from {host} in {seconds:g} s", _path_mtu(raw))
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                return Echo("emsgsize", f"{size} bytes to {host}: message too long", _path_mtu(raw))
            return Echo("error", f"{size} bytes to {host}: {error.strerror}")
        return Echo("reply", "", _path_mtu(raw))


def _path_mtu(raw: socket.socket) -> int:
    """IP_MTU of a connected socket; 0 when it is not connected (ENOTCONN)."""
    try:
        return raw.getsockopt(socket.IPPROTO_IP, IP_MTU)
    except OSError:
        return 0


async def largest_passing(low: int, high: int, passes: Callable[[int], Awaitable[bool]]) -> int | None:
    """The largest size in [low, high] that passes, None when not even `low` does.

    `passes` must be monotone: what passes at one size passes at every smaller one. The two sizes at the top
    come first, because on a sound path `high` is refused and `high - 1` passes; then it is a binary search.
    """
    if low > high:
        raise ValueError(f"low is {low} and high is {high}; low must not be above high")
    if await passes(high):
        return high
    refused = high
    if high - 1 > low:
        if await passes(high - 1):
            return high - 1
        refused = high - 1
    if refused == low or not await passes(low):
        return None
    passing = low
    while refused - passing > 1:
        middle = (passing + refused) // 2
        if await passes(middle):
            passing = middle
        else:
            refused = middle
    return passing
