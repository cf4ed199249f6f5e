"""Clients of event streams as a browser is one, many on one event loop: each parses what comes,
keeps its cursor, and comes back with it when a response ends."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import httptools
import redis
from anyio.from_thread import start_blocking_portal

from shared import keys
from tests.signing import hs256

LONGEST_RETRY_SECONDS = 0.5  # a test has no time for what a server asks of real clients


class Follower:
    """One client, from the beginning of its user's journal unless it is told a cursor."""

    def __init__(self, url: str, user: str, cursor: str = "0-0", *, signed_in: bool = True) -> None:
        self.user = user
        self.cursor = cursor
        self.ids: list[str] = []  # of events, and the reasons of notices between them
        self.numbers: list[int] = []
        self.notices: list[dict[str, Any]] = []
        self.keepalives = 0
        self.answers: Counter[int] = Counter()
        self.open = False
        self._address = urlsplit(url)
        self._token = hs256(user) if signed_in else None
        self._retry_seconds = LONGEST_RETRY_SECONDS
        self._rest = b""

    async def run(self) -> None:
        """Follows until it is cancelled."""
        loop = asyncio.get_running_loop()
        host, port = self._address.hostname or "", self._address.port or 80
        while True:
            try:
                transport, answer = await loop.create_connection(lambda: _Answer(self), host, port)
            except OSError:
                await asyncio.sleep(self._retry_seconds)
                continue
            try:
                transport.write(self._request())
                await answer.over
            finally:
                self.open = False
                transport.abort()
            await asyncio.sleep(self._retry_seconds)

    def start(self, status: int) -> None:
        """A response begins."""
        self.answers[status] += 1
        self.open = status == 200
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Takes a piece of a response's body."""
        if self.open:
            *blocks, self._rest = (self._rest + data).split(b"\n\n")
            for block in blocks:
                self._take_block(block)

    def _take_block(self, block: bytes) -> None:
        fields = dict(line.partition(b": ")[::2] for line in block.split(b"\n"))
        if b"data" in fields:
            self._take_event(json.loads(fields[b"data"]))
        if b"id" in fields:
            self.cursor = fields[b"id"].decode()
        if b"retry" in fields:
            self._retry_seconds = min(LONGEST_RETRY_SECONDS, int(fields[b"retry"]) / 1000)
        if block == b": keepalive":
            self.keepalives += 1

    def _take_event(self, event: dict[str, Any]) -> None:
        if event["type"] == "backlog.truncated":
            self.notices.append(event["payload"])
            self.ids.append(event["payload"]["reason"])
        else:
            self.ids.append(event["id"])
            self.numbers.append(event["payload"]["n"])

    def _request(self) -> bytes:
        lines = ["GET /api/events HTTP/1.1", f"Host: {self._address.netloc}"]
        if self._token is not None:
            lines.append(f"Authorization: Bearer {self._token}")
        return "\r\n".join([*lines, f"Last-Event-ID: {self.cursor}", "\r\n"]).encode()


class _Answer(asyncio.Protocol):
    """One response; `over` is set at its end."""

    def __init__(self, follower: Follower) -> None:
        self.over = asyncio.get_running_loop().create_future()
        self._follower = follower
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.on_message_complete()

    def on_headers_complete(self) -> None:
        self._follower.start(self._parser.get_status_code())

    def on_body(self, data: bytes) -> None:
        self._follower.take(data)

    def on_message_complete(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


@contextmanager
def following(followers: Iterable[Follower]) -> Iterator[None]:
    """Runs clients, on a thread of their own, for the block."""
    with start_blocking_portal(name="followers") as portal:
        running = [portal.start_task_soon(follower.run) for follower in followers]
        try:
            yield
            for one in running:
                if one.done():
                    one.result()  # a client that failed says so
        finally:
            for one in running:
                one.cancel()


@dataclass(frozen=True)
class Deviation:
    """What differs between journals and what their followers got."""

    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0


def journal(client: redis.Redis, user: str) -> list[str]:
    """The ids of a user's events, in order."""
    rows: Any = client.xrange(keys.stream(user))
    return [entry_id.decode() for entry_id, _ in rows]


def deviation(followers: Sequence[Follower], journals: dict[str, list[str]]) -> Deviation:
    """Compares what every follower got with its user's journal."""
    lost = doubled = out_of_order = 0
    for follower in followers:
        place = {entry_id: n for n, entry_id in enumerate(journals[follower.user])}
        lost += len(place.keys() - set(follower.ids))
        doubled += len(follower.ids) - len(set(follower.ids))
        way = [place.get(entry_id, -1) for entry_id in follower.ids]
        out_of_order += sum(after < before for before, after in pairwise(way))
    return Deviation(lost, doubled, out_of_order)
