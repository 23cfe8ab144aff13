"""Make a lab's API server reachable at 127.0.0.1: a small TCP forwarder between two network namespaces.

    forward.py --namespace /run/netns/tortie-sw --target 10.30.200.1:6443 --port 6443 --record .lab/api.json

It listens in the namespace it is started in and connects from inside `--namespace`. The first process binds,
writes the record and supervises a worker, which it starts again when it dies. The record is JSON: `pid` and
`start_time` of the supervisor, `port` that it got, `wanted` port, `target`, `namespace_inode`.
"""

import argparse
import asyncio
import ctypes
import json
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

# linux/sched.h, linux/prctl.h
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1

CONNECT_TIMEOUT = 5.0
CHUNK = 65536
RESTART_DELAY = 1.0

log = logging.getLogger("forward")


@dataclass(frozen=True, slots=True)
class Target:
    """Where connections go: an address inside the namespace."""

    host: str
    port: int


def parse_target(text: str) -> Target:
    """`address:port` as a Target; argparse turns the ValueError into a usage error."""
    host, separator, port = text.rpartition(":")
    if not separator or not host:
        raise ValueError(f"{text!r} is not address:port")
    return Target(host, int(port))


def listen(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1:`port`, or on a free port when that one is taken."""
    for candidate in (port, 0):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", candidate))
        except OSError as error:
            listener.close()
            if candidate == 0:
                raise
            log.warning("127.0.0.1:%d cannot be had (%s): taking a free port", candidate, error.strerror)
            continue
        listener.listen(128)
        return listener
    raise AssertionError("unreachable: the last candidate returns or raises")


def start_time(pid: int) -> int:
    """Start time of a process in clock ticks since boot: field 22 of /proc/<pid>/stat (proc(5))."""
    # The second field is the command in parentheses and may contain anything, so count from the last one.
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def enter_namespace(path: Path) -> None:
    """Move the calling process into a network namespace; sockets made before stay where they are."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(descriptor)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until end of file, then close this direction only: the other side may still be talking."""
    try:
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except ConnectionError as error:
        log.debug("connection ended: %s", error)
        writer.close()


async def handle(target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection; when the target does not answer the client sees its connection closed."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            upstream_reader, upstream_writer = await asyncio.open_connection(target.host, target.port)
    except OSError as error:
        log.warning("%s:%d does not answer: %s", target.host, target.port, error or "time-out")
        writer.close()
        return
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(reader, upstream_writer))
            group.create_task(_pump(upstream_reader, writer))
    finally:
        upstream_writer.close()
        writer.close()


async def serve(listener: socket.socket, target: Target) -> None:
    """Accept connections until cancelled."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handle(target, reader, writer)

    server = await asyncio.start_server(client, sock=listener)
    async with server:
        await server.serve_forever()


def work(listener: socket.socket, namespace: Path, target: Target) -> None:
    """The worker: ends with its supervisor, whatever ends that one."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    enter_namespace(namespace)
    asyncio.run(serve(listener, target))


def supervise(listener: socket.socket, namespace: Path, target: Target) -> None:
    """Keep a worker running for as long as the namespace exists. SIGTERM ends both (SystemExit)."""
    worker = 0

    def end(_signal: int, _frame: object) -> None:
        if worker:
            os.kill(worker, signal.SIGKILL)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    while namespace.exists():
        worker = os.fork()
        if worker == 0:
            work(listener, namespace, target)
            os._exit(0)
        _, status = os.waitpid(worker, 0)
        worker = 0
        log.warning("worker ended with %d: starting another", os.waitstatus_to_exitcode(status))
        time.sleep(RESTART_DELAY)
    log.info("%s is gone: nothing left to forward to", namespace)


def write_record(path: Path, record: dict[str, object]) -> None:
    """Write the record in one step, so that a reader sees it whole."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(record) + "\n")
    partial.rename(path)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns when the namespace is gone, or exits on SIGTERM."""
    parser = argparse.ArgumentParser(description="Forward 127.0.0.1:port into a network namespace.")
    parser.add_argument("--namespace", type=Path, required=True, help="path of the namespace to connect from")
    parser.add_argument(
        "--target", type=parse_target, required=True, help="address:port inside the namespace"
    )
    parser.add_argument(
        "--port", type=int, required=True, help="port to listen on; a free one when it is taken"
    )
    parser.add_argument("--record", type=Path, required=True, help="file that says what was started")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    listener = listen(options.port)
    record = {
        "pid": os.getpid(),
        "start_time": start_time(os.getpid()),
        "port": listener.getsockname()[1],
        "wanted": options.port,
        "target": f"{options.target.host}:{options.target.port}",
        "namespace_inode": options.namespace.stat().st_ino,
    }
    write_record(options.record, record)
    supervise(listener, options.namespace, options.target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
