"""A client that has little room for what it has not read yet, and reads only when it is told to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httptools

ROOM_BYTES = 16 * 1024


class SmallSocket:
    """One stream. `over` says that its end was noticed, `complete` that it ended as it should."""

    def __init__(self, url: str, cursor: str = "", room_bytes: int = ROOM_BYTES) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.over = False
        self.complete = False
        self._parser = httptools.HttpResponseParser(self)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room_bytes)
        self._socket.settimeout(10)
        self._socket.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        lines = ["GET /api/events HTTP/1.1", "Host: localhost", f"Last-Event-ID: {cursor}"]
        self._socket.sendall("\r\n".join([*lines, "\r\n"]).encode())

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.over = self.complete = True

    def read(self) -> None:
        """Reads a little of what is there; notices the end."""
        try:
            data = self._socket.recv(ROOM_BYTES)
        except ConnectionResetError:
            data = b""
        self.over = self.over or not data
        if data:
            self._parser.feed_data(data)

    def read_until(self, text: bytes) -> None:
        while text not in self.body[-64 * 1024 :]:
            assert not self.over
            self.read()

    @property
    def numbers(self) -> list[int]:
        """Those of the events that it has read."""
        parts = self.body.split(b'"payload":{"n":')[1:]
        return [int(part.partition(b",")[0]) for part in parts]

    def close(self) -> None:
        self._socket.close()


@contextmanager
def small_socket(url: str, cursor: str = "", room_bytes: int = ROOM_BYTES) -> Iterator[SmallSocket]:
    """Opens a stream, up to its first words."""
    small = SmallSocket(url, cursor, room_bytes)
    try:
        small.read_until(b": connected")
        yield small
    finally:
        small.close()
