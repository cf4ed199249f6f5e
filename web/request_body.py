"""Request bodies for Flask, whole before a thread is taken: slow uploaders then hold none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from tempfile import SpooledTemporaryFile
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]

IN_MEMORY_BYTES = 256 * 1024
PIECE_BYTES = 64 * 1024


class ClientGone(Exception):
    """The client left before its request was whole."""


class RequestBody:
    """A body that was read from a connection; one over 256 KiB lies on disk. Close it."""

    def __init__(self) -> None:
        self.size = 0
        self._file = SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115
        self._left = 0

    async def read(self, receive: Receive, limit_bytes: int) -> bool:
        """Reads to the end; False where there is more than the limit.

        Raises:
            ClientGone: the connection ended first.
        """
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            self.size += len(piece)
            if self.size > limit_bytes:
                return False
            self._file.write(piece)
            more = message.get("more_body", False)
        self._file.seek(0)
        self._left = self.size
        return True

    async def receive(self) -> Message:
        """Gives the body again, in ASGI's form."""
        piece = self._file.read(PIECE_BYTES)
        self._left -= len(piece)
        return {"type": "http.request", "body": piece, "more_body": self._left > 0}

    def close(self) -> None:
        """Removes the file."""
        self._file.close()
