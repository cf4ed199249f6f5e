"""A proxy before Redis that counts round trips: what is sent before an answer came counts once.

So a pipeline is one, as it is for the program that waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal

CHUNK_BYTES = 1 << 16


class RoundTrips:
    """What went to and fro through the proxy."""

    def __init__(self) -> None:
        self.count = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Starts to carry what comes to a server."""

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(host, port)
            state = _Turn()
            pumps = (
                asyncio.ensure_future(self._pump(reader, back, state, is_request=True)),
                asyncio.ensure_future(self._pump(there, writer, state, is_request=False)),
            )
            self._tasks.update(pumps)
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            back.transport.abort()
            writer.transport.abort()

        return await asyncio.start_server(carry, "127.0.0.1", 0)

    async def close(self, server: asyncio.Server) -> None:
        """Ends everything that is carried."""
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        drain: asyncio.StreamWriter,
        turn: _Turn,
        *,
        is_request: bool,
    ) -> None:
        while data := await source.read(CHUNK_BYTES):
            if is_request and not turn.is_waiting:
                self.count += 1
            turn.is_waiting = is_request
            drain.write(data)


class _Turn:
    """Whether a connection waits for an answer."""

    is_waiting = False


@contextmanager
def counted(url: str) -> Iterator[tuple[RoundTrips, str]]:
    """Counts for the block, and the URL that leads through the proxy."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    trips = RoundTrips()
    with start_blocking_portal(name="round-trips") as portal:
        server = portal.call(trips.listen, parts.hostname, parts.port)
        port = server.sockets[0].getsockname()[1]
        try:
            yield trips, url.replace(f":{parts.port}", f":{port}")
        finally:
            portal.call(trips.close, server)
