"""A proxy that can lose what it carries, as a router that was switched off does: nobody is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal


class Proxy:
    """Carries bytes to a server. What was connected while it was `silent` is never heard again.

    `lost` counts what it has not carried on.
    """

    def __init__(self, host: str, port: int) -> None:
        self.silent = False
        self.accepted = 0
        self.lost = 0
        self._server = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    async def start(self) -> int:
        """Listens; returns the port."""
        self._listener = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Closes everything."""
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there, back = await asyncio.open_connection(*self._server)
            lost: list[bool] = [False]
            try:
                await asyncio.wait(
                    [
                        asyncio.ensure_future(self._pump(reader, back, lost)),
                        asyncio.ensure_future(self._pump(there, writer, lost)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                back.transport.abort()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, drain: asyncio.StreamWriter, lost: list[bool]
    ) -> None:
        while data := await source.read(65536):
            lost[0] = lost[0] or self.silent
            if lost[0]:
                self.lost += 1
            else:
                drain.write(data)


@contextmanager
def proxied(url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy in front of a server, and the URL that leads through it."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    proxy = Proxy(parts.hostname, parts.port)
    with start_blocking_portal(name="proxy") as portal:
        port = portal.call(proxy.start)
        try:
            yield proxy, url.replace(f":{parts.port}/", f":{port}/")
        finally:
            portal.call(proxy.stop)
