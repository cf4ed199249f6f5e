"""The reader of `benchmarks/journal.py`: hears all announcements, and how late each event is."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import hiredis

_AT = re.compile(rb'"at":(\d+)')


class Reader:
    """Subscribed to every message, from when it is made until it is closed."""

    def __init__(self, redis_url: str) -> None:
        url = urlsplit(redis_url)
        self._socket = socket.create_connection((url.hostname or "", url.port or 0))
        self._socket.settimeout(0.2)
        self._latencies_ns: list[int] = []
        self._closing = False
        for words in (("AUTH", url.password or ""), ("PSUBSCRIBE", "message:*")):
            self._socket.sendall(_packed(*words))
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def forget(self) -> None:
        """Begins anew."""
        self._latencies_ns = []

    def close(self) -> list[float]:
        """Ends; returns the seconds that each event was late, sorted."""
        self._closing = True
        self._thread.join()
        self._socket.close()
        return sorted(ns / 1e9 for ns in self._latencies_ns)

    def _read(self) -> None:
        parser = hiredis.Reader()
        while not self._closing:
            try:
                parser.feed(self._socket.recv(262_144))
            except TimeoutError:
                continue
            now = time.monotonic_ns()
            while (reply := parser.gets()) is not False:
                if isinstance(reply, list) and reply[0] == b"pmessage":
                    self._latencies_ns += [now - int(at) for at in _AT.findall(reply[3])]


def quantile(values: Sequence[float], part: float) -> float:
    """The value that this part of the sorted values is not above."""
    return values[min(len(values) - 1, int(part * len(values)))] if values else float("inf")


def _packed(*words: str) -> bytes:
    strings = [f"${len(word)}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(strings)}".encode()
