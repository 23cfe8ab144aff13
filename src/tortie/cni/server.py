"""The agent's end of the CNI socket: one connection per request, as docs/architecture.md describes."""

import asyncio
import contextlib
import logging
import os
import select
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tortie.cni import errors
from tortie.cni.cluster import Watched
from tortie.cni.config import decode
from tortie.cni.delegate import HOST_ROOT
from tortie.cni.errors import CNIError
from tortie.cni.guard import EndpointPolicy, FloatingAddresses
from tortie.cni.interfaces import WorkloadDataplane
from tortie.cni.plugin import AddressAllocator, Plugin
from tortie.cni.shim import MAX_REQUEST, VERSIONS
from tortie.dataplane.netlink import DataplaneError
from tortie.dataplane.workload import Workloads
from tortie.datastore.interface import Datastore, DatastoreError

log = logging.getLogger(__name__)

BACKLOG: Final = 512
CONNECTIONS: Final = 256  # served at the same time; more wait in the backlog
TRANSFER_SECONDS: Final = 10.0  # to send a request, or to take an answer
REPLAY_SECONDS: Final = 10.0
ACCEPT_AGAIN_SECONDS: Final = 0.5
_LENGTH: Final = struct.Struct("!I")
_PEER: Final = struct.Struct("3i")  # struct ucred: process, user, group
_MAX_DESCRIPTORS: Final = 4  # one is expected; more are closed


class CNIServer:
    """Listens for the shim on this node.

    `default_mtu` is asked at each ADD without an `mtu` of its own (0: not known yet). `policy` has a pod's
    policy put in force before its ADD is answered, `floating` its floating addresses. `watched` saves round
    trips. `limited` says in a sentence why pods that run may have limited connectivity, empty when they have
    not: STATUS passes it on.
    `host_root` is the host's file system, for IPAM plugins that a DEL out of the journal calls.
    """

    def __init__(
        self,
        *,
        socket_path: Path,
        journal_dir: Path,
        node: str,
        datastore: Datastore,
        allocator: AddressAllocator,
        default_mtu: Callable[[], int],
        workloads: WorkloadDataplane | None = None,
        policy: EndpointPolicy | None = None,
        floating: FloatingAddresses | None = None,
        watched: Watched | None = None,
        limited: Callable[[], str] | None = None,
        host_root: Path = HOST_ROOT,
    ) -> None:
        self._path = socket_path
        self._plugin = Plugin(
            node=node,
            datastore=datastore,
            allocator=allocator,
            workloads=workloads or Workloads(),
            journal_dir=journal_dir,
            default_mtu=default_mtu,
            policy=policy,
            floating=floating,
            watched=watched,
            limited=limited,
            host_root=host_root,
        )
        self.listening = asyncio.Event()

    async def replay_journal(self) -> int:
        """Carry out DELs that waited for the agent; return how many."""
        return await self._plugin.replay_journal()

    async def serve(self) -> None:
        """Serve until cancelled; the journal is replayed at the start and every ten seconds."""
        listener = _listen(self._path)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._replay_forever())
                group.create_task(self._retell_until_done())
                self._plugin.bury()
                self.listening.set()
                await self._accept_forever(listener, group)
        finally:
            self.listening.clear()
            self._path.unlink(missing_ok=True)
            listener.close()
            await self._plugin.close()

    async def retell(self) -> bool:
        """Write pods' annotations that an earlier process did not come to; return whether that went well."""
        try:
            await self._plugin.retell()
        except (DatastoreError, DataplaneError) as error:
            log.warning("annotations that may be missing are not written, trying again: %s", error)
            return False
        return True

    async def _retell_until_done(self) -> None:
        while True:
            if await self.retell():
                return
            await asyncio.sleep(REPLAY_SECONDS)

    async def _replay_forever(self) -> None:
        while True:
            try:
                done = await self._plugin.replay_journal()
                if done:
                    log.info("carried out %d DELs of the journal", done)
            except Exception:
                log.exception("replaying the CNI journal failed; it is tried again in %.0f s", REPLAY_SECONDS)
            await asyncio.sleep(REPLAY_SECONDS)

    async def _accept_forever(self, listener: socket.socket, group: asyncio.TaskGroup) -> None:
        loop, places = asyncio.get_running_loop(), asyncio.Semaphore(CONNECTIONS)
        while True:
            await places.acquire()
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors, or the caller went away
                places.release()
                log.error("cannot accept a CNI request, trying again: %s", error)
                await asyncio.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            task = group.create_task(self._serve_connection(connection))
            task.add_done_callback(lambda _: places.release())

    async def _serve_connection(self, connection: socket.socket) -> None:
        with connection:
            connection.setblocking(False)
            process, user = _peer(connection)
            if user != 0:
                log.warning("refused process %d of user %d on the CNI socket: it is for root", process, user)
                return
            descriptors: list[int] = []
            try:
                payload = await _receive(connection, descriptors)
                _take_namespace(connection, process, payload, descriptors)
                namespace = descriptors[0] if descriptors else None
                status, output = await self._plugin.handle(payload, namespace, process)
            except CNIError as error:
                status, output = 1, errors.answer(error, VERSIONS[-1])
            except (OSError, TimeoutError) as error:
                log.warning("a CNI request broke off: %s", error)
                return
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            await _answer(connection, bytes([status]) + output)


def _listen(path: Path) -> socket.socket:
    """The listening socket, for root only. A socket file left by a killed agent is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)  # never, not even for a moment, may others connect
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    listener.listen(BACKLOG)
    return listener


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end."""
    process, user, _group = _PEER.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    )
    return int(process), int(user)


def _take_namespace(connection: socket.socket, process: int, payload: bytes, descriptors: list[int]) -> None:
    """Open the namespace that the shim holds open, when it cannot pass the descriptor itself.

    The shim waits for our answer: while its end of the connection is open, the process id is its own.
    Raise CNIError.
    """
    number = decode(payload)[0].get("CNI_NETNS_FD", "")
    if descriptors or not number:
        return
    if not (number.isascii() and number.isdigit() and len(number) < 8):
        raise CNIError(
            errors.BAD_ENVIRONMENT, f"CNI_NETNS_FD is {number!a}; it must be a descriptor's number"
        )
    try:
        descriptors.append(os.open(f"/proc/{process}/fd/{number}", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise CNIError(
            errors.IO_FAILURE,
            f"the namespace that the CNI plugin (process {process}) holds open cannot be opened: "
            f"{error.strerror}; the agent's pod needs hostPID: true",
        ) from error
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    if poll.poll(0):
        raise CNIError(errors.IO_FAILURE, "the CNI plugin ended within its request")


async def _receive(connection: socket.socket, descriptors: list[int]) -> bytes:
    """The request; descriptors that come along are appended to `descriptors`, for the caller to close.

    Raise CNIError when it is too large or cut short, TimeoutError when it does not come.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(TRANSFER_SECONDS):
        try:
            data, received = _receive_now(connection)  # it is there already, usually
        except BlockingIOError:
            await _readable(connection)
            data, received = _receive_now(connection)
        descriptors += received
        while len(data) < _LENGTH.size:
            data += await _more(loop, connection)
        (length,) = _LENGTH.unpack_from(data)
        if length > MAX_REQUEST:
            raise CNIError(
                errors.BAD_CONFIG, f"the request has {length} bytes; at most {MAX_REQUEST} are served"
            )
        parts, missing = [data[_LENGTH.size :]], length + _LENGTH.size - len(data)
        while missing > 0:
            parts.append(await _more(loop, connection))
            missing -= len(parts[-1])
    return b"".join(parts)[:length]


def _receive_now(connection: socket.socket) -> tuple[bytes, list[int]]:
    data, received, _flags, _address = socket.recv_fds(
        connection, 1 << 16, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
    )
    return data, received


async def _more(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes:
    data = await loop.sock_recv(connection, 1 << 16)
    if not data:
        raise CNIError(errors.IO_FAILURE, "the CNI plugin closed the connection within its request")
    return data


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, wake)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


async def _answer(connection: socket.socket, data: bytes) -> None:
    """Send the answer. A shim that is gone was given up by the runtime, which sends a DEL next."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(TRANSFER_SECONDS):
            await asyncio.get_running_loop().sock_sendall(connection, data)
