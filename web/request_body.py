"""Request bodies for Flask, whole before a thread is taken: slow uploaders then hold none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from tempfile import SpooledTemporaryFile
from typing import Any

from shared.settings import Settings
from web.refusal import Refusal, body_too_large, too_large
from web.request import Request

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]

IN_MEMORY_BYTES = 256 * 1024
PIECE_BYTES = 64 * 1024
MOST_BYTES = 64 * 1024  # of any body but an upload's
FORM_OVERHEAD_BYTES = 1024 * 1024  # part headers; the files themselves are counted exactly


def is_upload(request: Request) -> bool:
    """Whether this is the one request that may be large."""
    return (request.method, request.path) == ("POST", "/api/sources")


def most_bytes(request: Request, settings: Settings) -> int:
    """How many bytes the body may have."""
    return settings.upload_max_bytes + FORM_OVERHEAD_BYTES if is_upload(request) else MOST_BYTES


def over_limit(request: Request, settings: Settings) -> Refusal:
    """What a request is told whose body has more."""
    if is_upload(request):
        return too_large(settings.upload_max_bytes)
    return body_too_large(MOST_BYTES)


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
