"""What all streams of one event loop share: settings, the hub, the timer wheel, the drain flag."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

from shared import wire
from shared.pages import Page, most_entries
from shared.settings import Settings
from web.admission import lease_ms
from web.hub import Hub
from web.merge import Merge
from web.message_table import MessageTable
from web.message_watch import MessageWatch
from web.postgres import Postgres
from web.servers import OneServer, Servers
from web.shards import Shards
from web.topic import Topic
from web.watchers import Watchers
from web.wheel import Timed, Wheel

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
        self.hub = Hub(partial(_servers, settings), settings.enable_sse_push)
        self.watchers = Watchers(self.hub, self.keepalive_seconds, lease_ms(settings))
        self._postgres = Postgres(settings)
        self.messages = MessageTable(settings, self.hub, self._postgres)
        self.message_watch = MessageWatch(self.hub, self.messages, self.keepalive_seconds)
        self.open_here: Counter[str] = Counter()  # message streams by user
        tick_seconds = min(self.keepalive_seconds / TICKS_PER_KEEPALIVE, LONGEST_TICK_SECONDS)
        self._wheel = Wheel(tick_seconds)

    def watch(self, reader: Timed, when: float) -> None:
        """Has a reader do what is due at a time, and from then on."""
        self._wheel.add(reader, when)

    async def read_after(self, merge: Merge, topic: Topic) -> Page:
        """The next page of a reader's journal; raises as `Journal` says."""
        limit = merge.want(self._page_entries)
        return await topic.journal.read_after(merge.position, limit, topic)

    def drain(self) -> None:
        """Ends every stream, each with a jittered `retry:`, and takes no new one."""
        self.draining = True
        for topic in self.hub.topics:
            for reader in list(topic.readers):
                reader.end(wire.retry_frame(*wire.RETRY_DRAINED_MS))

    async def aclose(self) -> None:
        """Ends the links to Redis and the connections to Postgres."""
        self._wheel.stop()
        self.watchers.stop()
        await self.message_watch.aclose()
        await self._postgres.aclose()
        await self.hub.aclose()


def _servers(settings: Settings, hub: Hub) -> Servers:
    url = settings.require_redis_url()
    return Shards(url, hub) if settings.redis_cluster else OneServer(url, hub)
