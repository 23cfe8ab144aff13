"""The server's socket: for root alone, and proof against what anybody writes into it."""

import asyncio
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.cni.node import (
    CONFIG,
    TestNode,
    assert_nothing_is_left,
    path,
    running,
)
from tests.integration.dataplane.namespaces import Namespace
from tortie.cni import shim

pytestmark = pytest.mark.root


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
async def reachable_node(open_directory: Path) -> AsyncIterator[TestNode]:
    async with running(open_directory) as made:
        yield made


async def test_the_socket_is_for_root_alone(reachable_node: TestNode) -> None:
    sock = reachable_node.directory / "cni.sock"
    assert stat.S_IMODE(sock.stat().st_mode) == 0o600
    # Another user is refused even where the file's mode lets it pass: the caller's identity decides.
    sock.chmod(0o666)
    ask = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(10)\n"
        "os.setuid(int(sys.argv[2])); s.connect(sys.argv[1])\n"
        "try:\n    s.sendall(b'\\0\\0\\0\\1x'); print(len(s.recv(10)))\n"
        "except ConnectionError:\n    print(0)"
    )
    for user, refused in (("65534", True), ("0", False)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ask, str(sock), user, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        assert (output == b"0\n") == refused


async def exchange(node: TestNode, data: bytes, *, hang_up: bool = False) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(node.directory / "cni.sock"))
    writer.write(data)
    if hang_up:
        writer.write_eof()
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer


async def test_requests_that_are_too_large_cut_short_or_garbage_get_an_error(node: TestNode) -> None:
    too_large = await exchange(node, (shim.MAX_REQUEST + 1).to_bytes(4, "big"))
    cut_short = await exchange(node, b"\0\0\1\0abc", hang_up=True)
    garbage = await exchange(node, b"\0\0\0\3abc")
    for answer, code in ((too_large, 7), (cut_short, 5), (garbage, 6)):
        assert answer[0] == 1
        assert f'"code":{code}'.encode() in answer
    assert (await node.cni("DEL"))[0] == 0


async def test_a_killed_agents_socket_file_does_not_stop_the_next(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "cni.sock"))
    stale.close()
    async with running(tmp_path) as node:
        assert await node.cni("DEL") == (0, {})


async def test_a_caller_that_is_killed_does_not_disturb_the_agent(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    process = await asyncio.create_subprocess_exec(
        node.directory / "bin" / "calico",
        env={
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": path(sandboxes[0]),
            "CNI_ARGS": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
            "TORTIE_CNI_SOCKET": str(node.directory / "cni.sock"),
        },
        stdin=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(str(CONFIG).replace("'", '"').encode())
    process.stdin.close()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert await node.cni("DEL", pod="web") == (0, {})
    await assert_nothing_is_left(node)
