"""What is hostile, broken or full: bounded time, the right code, no traceback, and service goes on."""

import asyncio
import json
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.components.proxy import Proxy
from tests.integration.cni.node import CONFIG, TestNode, running
from tests.integration.dataplane.namespaces import Namespace, namespaces
from tortie.cni import installer
from tortie.datastore.memory import Fault, MemoryDatastore

pytestmark = pytest.mark.root

BARE = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_TYPE": "calico"}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with running(tmp_path) as made:
        yield made


@pytest.fixture
def sandbox() -> Iterator[Namespace]:
    with namespaces(1) as (made,):
        yield made


# --- bytes on the socket ---


async def talk(path: Path, data: bytes, *, close: bool = True) -> bytes:
    """Send bytes as the shim would, and read the answer to its end."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        async with asyncio.timeout(60):
            writer.write(data)
            if close:
                writer.write_eof()
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def framed(payload: bytes) -> bytes:
    return struct.pack("!I", len(payload)) + payload


def judge(answer: bytes, log: pytest.LogCaptureFixture) -> None:
    """An answer is nothing, or a CNI error that is not a defect of ours."""
    assert "unexpected error" not in log.text
    if answer:
        assert answer[0] in (0, 1)
        error = json.loads(answer[1:] or b"{}")
        assert error.get("code") != 100, error


WORDS = st.sampled_from(
    [*(f"{key}={value}" for key, value in BARE.items()), "CNI_NETNS=/proc/self/ns/net", "CNI_NETNS_FD=0",
     "CNI_NETNS_FD=99999", "CNI_NETNS_FD=-1", "CNI_NETNS_FD=../../1/ns/net", "CNI_COMMAND=DEL",
     "CNI_COMMAND=GC", "CNI_COMMAND=STATUS", "CNI_COMMAND=CHECK", "CNI_ARGS=;;=;",
     "CNI_ARGS=K8S_POD_NAME=a;K8S_POD_NAMESPACE=b",
     "CNI_CONTAINERID=../../x", "CNI_IFNAME=", "=", ""]
)  # fmt: skip
ITEMS = st.lists(WORDS.map(str.encode) | st.binary(max_size=12), max_size=8).map(b"\0".join)
TEXTS = st.binary(max_size=40) | st.just(json.dumps(CONFIG).encode()) | st.just(json.dumps([CONFIG]).encode())
PAYLOADS = st.binary(max_size=60) | st.tuples(ITEMS, TEXTS).map(b"\0\0".join)
STREAMS = st.binary(max_size=40) | PAYLOADS.map(framed) | PAYLOADS.map(lambda data: framed(data)[:-3])


async def test_no_bytes_on_the_socket_stop_the_server(
    node: TestNode, sandbox: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    sock = node.directory / "cni.sock"

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(STREAMS)
    def send(data: bytes) -> None:
        judge(asyncio.run_coroutine_threadsafe(talk(sock, data), loop).result(90), caplog)

    await asyncio.to_thread(send)
    await node.idle()
    assert await node.allocated() == 0
    await node.add_pod("web")
    assert (await node.cni("ADD", netns=str(sandbox.path), pod="web"))[0] == 0


async def test_silent_and_broken_callers_do_not_keep_others_waiting(
    node: TestNode, sandbox: Namespace
) -> None:
    sock = node.directory / "cni.sock"
    connections = []
    for number in range(100):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(sock))
        if number % 2:
            connection.sendall(b"\0\0\1")
        connections.append(connection)
    try:
        await node.add_pod("web")
        assert (await node.cni("ADD", netns=str(sandbox.path), pod="web"))[0] == 0
    finally:
        for connection in connections:
            connection.close()


async def test_a_length_beyond_the_limit_is_refused_at_once(node: TestNode) -> None:
    answer = await talk(node.directory / "cni.sock", struct.pack("!I", 1 << 31), close=False)
    assert json.loads(answer[1:])["code"] == 7


async def test_a_descriptor_number_that_the_caller_does_not_have_is_refused(node: TestNode) -> None:
    items = BARE | {"CNI_NETNS": "/x", "CNI_NETNS_FD": "987654"}
    payload = b"\0".join(f"{key}={value}".encode() for key, value in items.items())
    answer = await talk(node.directory / "cni.sock", framed(payload + b"\0\0{}"), close=False)
    error = json.loads(answer[1:])
    assert error["code"] == 5
    assert "hostPID" in error["msg"]


# --- what the runtime passes ---


@pytest.mark.parametrize("shim", [installer.FAST_SHIM, installer.PORTABLE_SHIM], ids=["perl", "python"])
async def test_no_input_of_the_shim_gives_anything_but_a_cni_answer(
    node: TestNode, shim: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = node.directory / "bin" / "calico"
    installer.install_binaries(
        installer.Settings(bin_dir=plugin.parent, skip_binaries=frozenset(installer.PLUGINS), shim=shim)
    )
    names = st.sampled_from(
        ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_ARGS", "CNI_NETNS", "CNI_PATH"]
    )
    values = st.binary(max_size=20).filter(lambda value: b"\0" not in value)
    paths = {
        b"TORTIE_CNI_SOCKET": bytes(node.directory / "cni.sock"),
        b"TORTIE_CNI_JOURNAL": bytes(node.journal),
    }
    base = {key.encode(): value.encode() for key, value in BARE.items()}

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.dictionaries(names.map(str.encode), values, max_size=4), TEXTS)
    def call(changes: dict[bytes, bytes], text: bytes) -> None:
        done = subprocess.run(
            [plugin], input=text, env=base | changes | paths, capture_output=True, timeout=90, check=False
        )
        assert done.stderr == b""
        judge(bytes([done.returncode]) + done.stdout, caplog)

    await asyncio.to_thread(call)


# --- who may connect ---


async def test_a_pod_cannot_reach_the_socket(node: TestNode) -> None:
    """Not over the network, not by a name in its own file system, not as a user namespace's root."""
    sock = node.directory / "cni.sock"
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(9); s.connect({str(sock)!r}); "
    ask = code + "s.sendall(b'\\0\\0\\0\\1x'); print(len(s.recv(9)))"
    python = ["/usr/bin/python3", "-IS", "-c"]
    # A pod's file system does not have the node's /var/run/calico.
    hide = f'mount -t tmpfs none {node.directory} && exec /usr/bin/python3 -IS -c "$0"'
    alone = ["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", hide, ask]
    done = await asyncio.to_thread(subprocess.run, alone, capture_output=True, text=True, check=False)
    assert "FileNotFoundError" in done.stderr
    # Root of a user namespace is nobody here, even with the file in reach.
    for directory in (node.directory, *node.directory.parents):
        directory.chmod(directory.stat().st_mode | 0o755)
    sock.chmod(0o666)
    mapped = ["setpriv", "--reuid=65534", "--clear-groups", "unshare", "--user", "--map-root-user", *python]
    done = await asyncio.to_thread(
        subprocess.run, [*mapped, ask], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() in ("", "0"), done
    assert "PermissionError" not in done.stderr
    listening = node.host.exec("ss", "-Htlnu")
    assert listening.strip() == ""


# --- file systems ---


@contextmanager
def full(directory: Path) -> Iterator[Callable[[], None]]:
    """A file system without a free block; calling it makes room."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", directory], check=True)
    filler = directory / "filler"
    try:
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(b"\0" * (1 << 20))
        yield filler.unlink
    finally:
        subprocess.run(["umount", directory], check=True)


def remount(directory: Path) -> None:
    """Let it take writes."""
    subprocess.run(["mount", "-o", "remount,rw", directory], check=True)


@contextmanager
def read_only(directory: Path) -> Iterator[Callable[[], None]]:
    """A file system that takes no writes; calling it makes it writable."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", directory], check=True)
    try:
        yield lambda: remount(directory)
    finally:
        subprocess.run(["umount", directory], check=True)


@pytest.mark.parametrize("broken", [full, read_only])
async def test_a_journal_that_cannot_be_written_is_no_obstacle_while_the_datastore_is_there(
    node: TestNode, sandbox: Namespace, broken: Callable[[Path], Any]
) -> None:
    await node.add_pod("web")
    assert (await node.cni("ADD", netns=str(sandbox.path), pod="web"))[0] == 0
    assert isinstance(node.datastore, MemoryDatastore)
    with broken(node.journal) as repair:
        node.datastore.inject = lambda _: Fault.UNAVAILABLE
        status, error = await node.cni("DEL", pod="web")
        assert (status, error["code"]) == (1, 11)
        assert "cannot be kept" in error["msg"]
        node.datastore.inject = None
        assert await node.cni("DEL", pod="web") == (0, {})
        assert await node.allocated() == 0
        # The shim, too, cannot keep a DEL: the runtime has to come again.
        await node.stop()
        status, error = await node.cni("DEL", pod="web")
        assert (status, error["code"]) == (1, 11)
        assert "cannot be kept" in error["msg"]
        repair()
        assert await node.cni("DEL", pod="web") == (0, {})
        await node.start()
        await node.idle()


# --- the API server ---


@asynccontextmanager
async def behind_proxy(tmp_path: Path) -> AsyncIterator[tuple[TestNode, Proxy]]:
    """A node whose API server is behind a proxy."""
    async with running(tmp_path, real_api_server=True, proxied=True) as node:
        assert node.proxy is not None
        yield node, node.proxy


async def test_an_api_server_that_is_away_slow_or_half_closed_costs_bounded_time_and_no_address(
    tmp_path: Path, sandbox: Namespace
) -> None:
    async with behind_proxy(tmp_path) as (node, proxy):
        assert node.api is not None
        pod = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        await asyncio.to_thread(node.api.request, "POST", "/api/v1/namespaces/default/pods", pod)
        where = str(sandbox.path)
        assert (await node.cni("ADD", netns=where, pod="web"))[0] == 0
        # Away: connections are refused, and those that exist are reset.
        await proxy.refuse()
        proxy.cut()
        assert await node.cni("DEL", pod="web") == (0, {})
        status, error = await node.cni("ADD", "c2", netns=where, pod="web")
        assert (status, error["code"]) == (1, 11), error
        assert node.journalled() != []
        await proxy.open()
        await node.idle()
        assert await node.handles() == []
        # Without a restart it goes on.
        assert (await node.cni("ADD", "c3", netns=where, pod="web"))[0] == 0
        # Cut again and again while a DEL is carried out.
        assert await node.cni("DEL", "c3", pod="web") == (0, {})
        for _ in range(10):
            proxy.cut()
            await asyncio.sleep(0.02)
        await node.idle()
        assert await node.handles() == []
        assert await node.allocated() == 0


def test_a_clock_that_jumps_does_not_shorten_the_shims_patience() -> None:
    """Waiting is counted in tries and in seconds of a monotonic clock; wall time is not asked for."""
    portable, fast = installer.PORTABLE_SHIM.read_text(), installer.FAST_SHIM.read_text()
    assert "time.time(" not in portable
    assert not any(word in fast for word in (" time;", " time -", "time()"))
