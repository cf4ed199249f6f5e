"""The ASGI face on a thread of this process, for tests that look inside."""

from __future__ import annotations

import asyncio
import importlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from tests.commands import wait_until
from web.delivery import Delivery


@dataclass(frozen=True)
class Hosted:
    """A server that takes connections, and the event loop that it runs on."""

    url: str
    loop: asyncio.AbstractEventLoop
    server: uvicorn.Server
    delivery: Delivery

    @property
    def unsent_bytes(self) -> list[int]:
        """What waits in each connection for its client to read."""
        connections = list(self.server.server_state.connections)
        return [connection.transport.get_write_buffer_size() for connection in connections]


@contextmanager
def hosted(send_buffer_bytes: int = 0) -> Iterator[Hosted]:
    """Runs uvicorn for the block, with the settings of the environment.

    Args:
        send_buffer_bytes: what the kernel may hold for a client, if not as much as it likes.
    """
    asgi = importlib.import_module("web.asgi")  # it reads the settings
    app = asgi.Application()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[listener])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        if send_buffer_bytes:  # each connection inherits it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        try:
            wait_until(lambda: server.started, "a server")
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Hosted(url, loops[0], server, app._delivery[1])
        finally:
            server.should_exit = True
            thread.join()
