"""tortie-probe: a small HTTP server that looks at the network from inside a pod.

It runs in the pods that the verification creates and is asked from the pod's own node. Every answer is JSON:

    /healthz                          {"node": ..., "pod": ..., "client": address the request came from}
    /interface[?name=eth0]            MTU, MAC, address, routes and neighbours of the pod's interface
    /tcp?host=&port=                  {"connected": bool, "detail": ...}
    /fetch?host=&port=                /healthz of another probe, asked from here
    /icmp?host=&size=&df=1            {"outcome": "reply" | "emsgsize" | "timeout" | "error", ...}
    /pmtu?host=&low=&high=            {"largest": bytes or null, "above": outcome of one byte more}
    /resolve?name=                    {"addresses": [...], "detail": ...}

`seconds` (default 2) bounds each attempt. It needs the capability NET_RAW and nothing else.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from tortie.verify.icmp import LARGEST, SMALLEST, Echo, echo, largest_passing
from tortie.verify.interface import read_interface

DEFAULT_PORT: Final = 8080
DEFAULT_SECONDS: Final = 2.0
LONGEST_SECONDS: Final = 10.0
ATTEMPTS: Final = 2  # a single lost packet must not read as a small MTU
REQUEST_SECONDS: Final = 5.0  # for the request itself, so that an idle client holds nothing
REQUEST_LIMIT: Final = 8192  # bytes of request line and headers
ANSWER_LIMIT: Final = 65536  # bytes of another probe's answer

Answer = dict[str, Any]


class BadRequestError(Exception):
    """A parameter is missing or out of range; the text says which and what is allowed."""


class Parameters:
    """The query of one request, checked as it is read."""

    def __init__(self, query: Mapping[str, str]) -> None:
        self._query = query

    def text(self, name: str, default: str | None = None) -> str:
        """A string that must not be empty."""
        value = self._query.get(name) or default
        if not value:
            raise BadRequestError(f"parameter {name} is missing; give {name}=<value>")
        return value

    def address(self, name: str) -> str:
        """An IPv4 address."""
        value = self.text(name)
        try:
            return str(IPv4Address(value))
        except AddressValueError as error:
            raise BadRequestError(f"parameter {name} is {value!r}, not an IPv4 address; give one") from error

    def number(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """An integer in [low, high]."""
        value = self.text(name, None if default is None else str(default))
        if not value.isdecimal() or not low <= int(value) <= high:
            raise BadRequestError(f"parameter {name} is {value!r}; give a number from {low} to {high}")
        return int(value)

    def seconds(self) -> float:
        """How long one attempt may take."""
        value = self.text("seconds", str(DEFAULT_SECONDS))
        try:
            seconds = float(value)
        except ValueError as error:
            raise BadRequestError(f"parameter seconds is {value!r}, not a number") from error
        if not 0 < seconds <= LONGEST_SECONDS:
            raise BadRequestError(
                f"parameter seconds is {value}; give more than 0 and at most {LONGEST_SECONDS:g}"
            )
        return seconds


def _reason(error: OSError) -> str:
    """The kernel's word; asyncio puts its own sentence into strerror, and resolver errors have no errno."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


async def healthz(_parameters: Parameters, client: str) -> Answer:
    """Who answers, and from which address the question came (it shows whether something translated it)."""
    return {"node": os.environ.get("NODE_NAME", ""), "pod": os.environ.get("POD_NAME", ""), "client": client}


async def interface(parameters: Parameters, _client: str) -> Answer:
    """The pod's interface."""
    name = parameters.text("name", "eth0")
    try:
        return read_interface(name).as_json()
    except OSError as error:
        raise BadRequestError(
            f"interface {name} cannot be read: {error.strerror}; name one that exists"
        ) from error


async def tcp(parameters: Parameters, _client: str) -> Answer:
    """Whether a TCP connection opens."""
    host, port, seconds = parameters.text("host"), parameters.number("port", 1, 65535), parameters.seconds()
    try:
        async with asyncio.timeout(seconds):
            _reader, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return {"connected": False, "detail": f"no answer from {host}:{port} in {seconds:g} s"}
    except OSError as error:
        return {"connected": False, "detail": f"{host}:{port}: {_reason(error)}"}
    writer.close()
    return {"connected": True, "detail": ""}


async def fetch(parameters: Parameters, _client: str) -> Answer:
    """Another probe's /healthz: payload in both directions, and the source address that arrived there."""
    host, port, seconds = parameters.text("host"), parameters.number("port", 1, 65535), parameters.seconds()
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET /healthz HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                await writer.drain()
                received = await reader.read(ANSWER_LIMIT)
                while not reader.at_eof() and len(received) < ANSWER_LIMIT:
                    received += await reader.read(ANSWER_LIMIT - len(received))
            finally:
                writer.close()
        _head, _separator, body = received.partition(b"\r\n\r\n")
        return {"connected": True, "detail": "", "answer": json.loads(body)}
    except TimeoutError:
        return {"connected": False, "detail": f"no answer from {host}:{port} in {seconds:g} s"}
    except OSError as error:
        return {"connected": False, "detail": f"{host}:{port}: {_reason(error)}"}
    except ValueError:
        return {"connected": False, "detail": f"{host}:{port} answered something that is not JSON"}


async def icmp(parameters: Parameters, _client: str) -> Answer:
    """One ICMP echo of an exact size."""
    result = await echo(
        parameters.address("host"),
        parameters.number("size", SMALLEST, LARGEST, 84),
        dont_fragment=parameters.number("df", 0, 1, 0) == 1,
        seconds=parameters.seconds(),
    )
    return asdict(result)


async def pmtu(parameters: Parameters, _client: str) -> Answer:
    """The largest packet with the don't-fragment flag that is answered, and what happens to one byte more."""
    host, seconds = parameters.address("host"), parameters.seconds()
    low, high = (
        parameters.number("low", SMALLEST, LARGEST, SMALLEST),
        parameters.number("high", SMALLEST, LARGEST),
    )
    if low > high:
        raise BadRequestError(f"parameter low is {low}, above high, {high}; give low at most high")
    outcomes: dict[int, Echo] = {}

    async def passes(size: int) -> bool:
        for _attempt in range(ATTEMPTS):
            outcomes[size] = await echo(host, size, dont_fragment=True, seconds=seconds)
            if outcomes[size].outcome in ("reply", "emsgsize"):
                break
        return outcomes[size].outcome == "reply"

    largest = await largest_passing(low, high, passes)
    above = None if largest is None or largest == high else outcomes[largest + 1].outcome
    lowest = outcomes.get(low)
    return {
        "largest": largest,
        "above": above,
        "attempts": len(outcomes),
        "detail": lowest.detail if largest is None and lowest is not None else "",
    }


async def resolve(parameters: Parameters, _client: str) -> Answer:
    """IPv4 addresses of a name, by the pod's own resolver."""
    name, seconds = parameters.text("name"), parameters.seconds()
    try:
        async with asyncio.timeout(seconds):
            found = await asyncio.get_running_loop().getaddrinfo(name, None, family=socket.AF_INET)
    except TimeoutError:
        return {"addresses": [], "detail": f"no answer for {name} in {seconds:g} s"}
    except OSError as error:
        return {"addresses": [], "detail": f"{name}: {error.strerror or error}"}
    return {"addresses": sorted({str(entry[4][0]) for entry in found}), "detail": ""}


ROUTES: Final[Mapping[str, Callable[[Parameters, str], Awaitable[Answer]]]] = {
    "/healthz": healthz,
    "/interface": interface,
    "/tcp": tcp,
    "/fetch": fetch,
    "/icmp": icmp,
    "/pmtu": pmtu,
    "/resolve": resolve,
}


async def answer(target: str, client: str) -> tuple[int, Answer]:
    """HTTP status and body for the request target (path and query)."""
    parts = urlsplit(target)
    handler = ROUTES.get(parts.path)
    if handler is None:
        return 404, {"error": f"there is no {parts.path}; ask one of {', '.join(ROUTES)}"}
    try:
        return 200, await handler(Parameters(dict(parse_qsl(parts.query))), client)
    except BadRequestError as error:
        return 400, {"error": str(error)}
    except OSError as error:
        return 500, {
            "error": f"{parts.path}: {error.strerror or error}; the pod needs the capability NET_RAW for ICMP"
        }


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, one request, one answer."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        method, target, *_version = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if method == "GET":
            status, body = await answer(target, writer.get_extra_info("peername")[0])
        else:
            status, body = 405, {"error": f"method {method} is not known here; use GET"}
        payload = json.dumps(body).encode()
        writer.write(
            f"HTTP/1.0 {status} {'OK' if status == 200 else 'Error'}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n".encode()
            + payload
        )
        await writer.drain()
    except (
        TimeoutError,
        OSError,
        ValueError,
        asyncio.IncompleteReadError,
        asyncio.LimitOverrunError,
    ) as error:
        print(f"tortie-probe: request dropped: {error or type(error).__name__}", file=sys.stderr, flush=True)
    finally:
        writer.close()


async def serve(host: str | None, port: int) -> None:
    """Answer until SIGTERM or SIGINT, which have no default action in process 1 of a pod."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await asyncio.start_server(handle, host, port, family=socket.AF_INET, limit=REQUEST_LIMIT)
    async with server:
        print(
            f"tortie-probe: listening on {host or 'every address'}, port {port}", file=sys.stderr, flush=True
        )
        await stop.wait()


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `tortie-probe`."""
    parser = argparse.ArgumentParser(
        prog="tortie-probe", description="Look at the network from inside a pod."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve", help="answer questions over HTTP")
    server.add_argument("--host", default=None, help="address to listen on (default: all addresses)")
    server.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"TCP port (default: {DEFAULT_PORT})")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(serve(options.host, options.port))
    except OSError as error:
        print(
            f"tortie-probe: cannot listen on port {options.port}: {error.strerror}; "
            "choose a free port with --port",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
