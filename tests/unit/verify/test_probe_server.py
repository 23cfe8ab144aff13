"""The probe's HTTP answers, as far as they need no privilege."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from tortie.verify.probe import answer, handle

CLIENT = "192.0.2.1"


async def request(port: int, text: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode())
    await writer.drain()
    received = await reader.read()
    writer.close()
    return received


async def served(text: str) -> tuple[str, Any]:
    """Status line and JSON body of the answer to a raw request."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        received = await request(server.sockets[0].getsockname()[1], text)
    head, _blank, body = received.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}" in head.decode()
    return head.decode().splitlines()[0], json.loads(body)


async def test_health_tells_node_pod_and_the_clients_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "node-1")
    monkeypatch.setenv("POD_NAME", "pod-1")
    status, body = await served("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == "HTTP/1.0 200 OK"
    assert body == {"node": "node-1", "pod": "pod-1", "client": "127.0.0.1"}


async def test_other_methods_and_unknown_paths_are_refused_with_what_is_known() -> None:
    assert (await served("POST /healthz HTTP/1.1\r\n\r\n"))[0] == "HTTP/1.0 405 Error"
    status, body = await served("GET /nothing HTTP/1.1\r\n\r\n")
    assert status == "HTTP/1.0 404 Error"
    assert "/pmtu" in body["error"]


@pytest.mark.parametrize("text", ["\r\n\r\n", "GET\r\n\r\n", "GET /" + "x" * 70000])
async def test_malformed_request_is_dropped_and_the_server_lives_on(text: str) -> None:
    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=8192)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with contextlib.suppress(ConnectionError):  # a reset, when the server has not read all of it
            assert await request(port, text) == b""
        assert b"200 OK" in await request(port, "GET /healthz HTTP/1.0\r\n\r\n")


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("/tcp?port=80", "host"),
        ("/tcp?host=192.0.2.1", "port"),
        ("/tcp?host=192.0.2.1&port=0", "port"),
        ("/tcp?host=192.0.2.1&port=x", "port"),
        ("/icmp?host=name&size=84", "host"),
        ("/icmp?host=192.0.2.1&size=27", "size"),
        ("/icmp?host=192.0.2.1&df=2", "df"),
        ("/icmp?host=192.0.2.1&seconds=0", "seconds"),
        ("/icmp?host=192.0.2.1&seconds=11", "seconds"),
        ("/icmp?host=192.0.2.1&seconds=soon", "seconds"),
        ("/pmtu?host=192.0.2.1", "high"),
        ("/pmtu?host=192.0.2.1&low=100&high=99", "low"),
        ("/interface?name=none0", "none0"),
        ("/resolve", "name"),
    ],
)
async def test_bad_parameter_is_named(target: str, named: str) -> None:
    status, body = await answer(target, CLIENT)
    assert status == 400
    assert named in body["error"]


async def test_fetch_of_something_that_is_no_probe_is_not_connected() -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _status, body = await answer(f"/fetch?host=127.0.0.1&port={port}", CLIENT)
    assert body["connected"] is False
    assert "not JSON" in body["detail"]


async def test_tcp_without_listener_says_refused() -> None:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    assert (await answer(f"/tcp?host=127.0.0.1&port={port}", CLIENT))[1] == {
        "connected": False,
        "detail": f"127.0.0.1:{port}: Connection refused",
    }


async def test_silent_peer_ends_after_the_given_seconds() -> None:
    released = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _status, body = await answer(f"/fetch?host=127.0.0.1&port={port}&seconds=0.2", CLIENT)
        released.set()
    assert body == {"connected": False, "detail": f"no answer from 127.0.0.1:{port} in 0.2 s"}


async def test_name_is_resolved_to_ipv4_addresses() -> None:
    assert (await answer("/resolve?name=localhost", CLIENT))[1] == {"addresses": ["127.0.0.1"], "detail": ""}
