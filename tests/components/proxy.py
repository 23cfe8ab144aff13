"""A TCP forwarder on loopback whose connections a test can cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Proxy:
    """Forwards 127.0.0.1:`port` to `address`:`target`."""

    def __init__(self, target: int, address: str = "127.0.0.1") -> None:
        self.port = 0
        self.accepted = 0  # connections so far
        self._target = target
        self._address = address
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Accept connections, on the same port as before."""
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Accept no more connections; those that exist stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self) -> int:
        """Reset every connection; how many there were."""
        writers = list(self._writers)
        for writer in writers:
            writer.transport.abort()
        self._writers.clear()
        return len(writers) // 2

    async def close(self) -> None:
        """End everything."""
        await self.refuse()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        upstream_reader, upstream_writer = await asyncio.open_connection(self._address, self._target)
        pair = {writer, upstream_writer}
        self._writers |= pair
        directions = [_copy(reader, upstream_writer), _copy(upstream_reader, writer)]
        for direction in directions:
            task = asyncio.create_task(direction)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def proxy_to(target: int, address: str = "127.0.0.1") -> AsyncIterator[Proxy]:
    """A proxy that is open, closed at the end."""
    proxy = Proxy(target, address)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
