"""A pipe: one response on its way from the event loop to the thread of a WSGI server.

On the loop's side it is ASGI's `send` and `receive`, on the thread's the iterator that WSGI wants.
What waits in it is bounded by bytes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from anyio.from_thread import BlockingPortal

from web.outlet import Message

BUFFER_BYTES = 64 * 1024


class Pipe:
    """Made in the thread. `close()` ends the stream; so does the client, where that is seen.

    Args:
        portal: to the loop.
        connection: the client's socket, if known: watched for its end, and cut by `abort`. It is
            duplicated: Werkzeug, when the client has reset the connection, closes it and doesn't
            call `close()`, and its number is soon another's.
    """

    def __init__(self, portal: BlockingPortal, connection: socket.socket | None) -> None:
        self._portal = portal
        self._connection = _duplicate(connection)
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._ended = False
        self._changed = threading.Condition()
        self._space = asyncio.Event()
        self._left = asyncio.Event()

    async def send(self, message: Message) -> None:
        """ASGI's: hands a message on; waits while the thread is behind."""
        while self._bytes >= BUFFER_BYTES and not self._ended:
            self._space.clear()
            await self._space.wait()
        with self._changed:
            if not self._ended:
                self._messages.append(message)
                self._bytes += len(message.get("body", b""))
                self._changed.notify()

    async def receive(self) -> Message:
        """ASGI's: says that the client has left, once it has or the response has ended."""
        await self._left.wait()
        return {"type": "http.disconnect"}

    @property
    def transport(self) -> Pipe:
        """What can be aborted."""
        return self

    def abort(self) -> None:
        """Cuts the connection: a thread that is stuck writing to it is freed."""
        self._end()
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """On the loop: notices for the length of the block that the client leaves."""
        if self._connection is not None:
            asyncio.get_running_loop().add_reader(self._connection, self._look)
        try:
            yield
        finally:
            self._let_go()
            if self._connection is not None:
                self._connection.close()

    def next_message(self) -> Message | None:
        """In the thread: waits for the next message; None after the last."""
        with self._changed:
            while not self._messages and not self._ended:
                self._changed.wait()
            if not self._messages:
                return None
            message = self._messages.popleft()
            was_full = self._bytes >= BUFFER_BYTES
            self._bytes -= len(message.get("body", b""))
        if was_full:
            self._portal.start_task_soon(self._make_space)
        return message

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        message = self.next_message()
        if message is None:
            raise StopIteration
        if not message.get("more_body", False):
            self._ended = True
        return bytes(message.get("body", b""))

    def close(self) -> None:
        """In the thread, when the server is done with the response: returns once it is let go."""
        self._portal.call(self._let_go)

    async def _make_space(self) -> None:
        self._space.set()

    def _let_go(self) -> None:
        self._unwatch()
        self._end()

    def _unwatch(self) -> None:
        if self._connection is not None and self._connection.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._connection)

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._space.set()
        self._left.set()

    def _look(self) -> None:
        assert self._connection is not None
        try:
            has_left = self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return
        except OSError:
            has_left = True
        self._unwatch()  # what else it sent is not ours to read
        if has_left:
            self._end()


def _duplicate(connection: socket.socket | None) -> socket.socket | None:
    if connection is None or connection.fileno() < 0:
        return None
    return socket.socket(fileno=os.dup(connection.fileno()))  # also of TLS, whose bytes it sees
