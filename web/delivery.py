"""What all streams of one event loop share: settings, the hub, the timer wheel, the drain flag."""

from __future__ import annotations

import asyncio

from redis.asyncio.connection import AbstractConnection

from shared import wire
from shared.connections import link_pool
from shared.pages import Page, most_entries
from shared.settings import Settings
from web.admission import Place, read_after
from web.hub import Hub, Topic
from web.merge import Merge
from web.reader import Reader
from web.servers import OneServer
from web.wheel import Wheel

TICKS_PER_KEEPALIVE = 20
LONGEST_TICK_SECONDS = 0.25


class Delivery:
    """Built inside the loop that it serves; `aclose` it there."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.draining = False
        self.keepalive_seconds = settings.sse_keepalive_seconds
        self._page_entries = most_entries(settings.event_max_bytes)
        self.now = asyncio.get_running_loop().time
        self._pool = link_pool(settings.require_redis_url())
        self.hub = Hub(lambda hub: OneServer(self._connect, hub))
        tick_seconds = min(self.keepalive_seconds / TICKS_PER_KEEPALIVE, LONGEST_TICK_SECONDS)
        self._wheel: Wheel[Reader] = Wheel(Reader.due, tick_seconds)

    def watch(self, reader: Reader) -> None:
        """Has a reader do what is due, from now on; ends it where the process is stopping."""
        self._wheel.add(reader, min(reader.renew_at, reader.expires_at))
        if self.draining:
            _send_away(reader)

    async def read_after(self, place: Place, merge: Merge, topic: Topic) -> Page:
        """The next page of a user's stream; see `admission.read_after`."""
        limit = merge.want(self._page_entries)
        return await read_after(place.link, place.user_id, merge.position, limit, topic.observe)

    def drain(self) -> None:
        """Ends every stream, each with a jittered `retry:`, and takes no new one."""
        self.draining = True
        for topic in self.hub.topics:
            for reader in list(topic.readers):
                _send_away(reader)

    async def aclose(self) -> None:
        """Ends the links to Redis."""
        self._wheel.stop()
        await self.hub.aclose()

    async def _connect(self) -> AbstractConnection:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()  # type: ignore[no-untyped-call]
        return connection


def _send_away(reader: Reader) -> None:
    reader.end(wire.retry_frame(*wire.RETRY_DRAINED_MS))
