"""Looks after all open message streams of an event loop, with one query for all of them.

With each keepalive, since a last announcement may be lost and a writer may have died; and every
half second for those whose announcements can't be heard: Redis is away, or push is turned off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from shared import wire
from shared.errors import PostgresUnavailable, RedisUnavailable
from shared.message_pages import Standing
from web.hub import Hub
from web.message_journal import MessageJournal
from web.message_table import MessageTable
from web.topic import Topic

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5


class MessageWatch:
    """Made inside the loop that it serves; `aclose` it there."""

    def __init__(self, hub: Hub, table: MessageTable, keepalive_seconds: float) -> None:
        self._hub = hub
        self._table = table
        self._keepalive_seconds = keepalive_seconds
        self._tick_seconds = min(POLL_SECONDS, keepalive_seconds)
        self._topics: dict[Topic, MessageJournal] = {}
        self._doubtful: set[Topic] = set()  # announcements may have been missed
        self._losses = hub.losses
        self._looked_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def add(self, topic: Topic, journal: MessageJournal, *, is_heard: bool) -> None:
        """Looks after a topic for as long as somebody is interested in it."""
        self._topics[topic] = journal
        if not is_heard:
            self._doubtful.add(topic)
        if self._task is None or self._task.done():
            self._looked_at = asyncio.get_running_loop().time()
            self._losses = self._hub.losses
            self._task = asyncio.ensure_future(self._run())

    async def aclose(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while self._topics:
            await asyncio.sleep(self._tick_seconds)
            try:
                await self._look()
            except PostgresUnavailable:
                log.info("Postgres can't be reached; open answers wait for it")
            except Exception:  # the task's edge
                log.exception("open answers can't be looked after")

    async def _look(self) -> None:
        self._topics = {topic: j for topic, j in self._topics.items() if topic.interested}
        if self._losses != self._hub.losses:
            self._losses = self._hub.losses
            self._doubtful.update(self._topics)
        self._doubtful &= self._topics.keys()
        unheard = {topic for topic in self._topics if not await self._is_heard(topic)}
        now = asyncio.get_running_loop().time()
        is_time = now >= self._looked_at + self._keepalive_seconds
        due = set(self._topics) if is_time else unheard | self._doubtful
        if due:
            await self._compare(due)
            self._doubtful = unheard
        if is_time:
            self._looked_at = now

    async def _is_heard(self, topic: Topic) -> bool:
        """Whether its announcements arrive: asked for again where that is in doubt."""
        name = topic.journal.topic
        if not self._hub.hears(name):
            return False
        if topic not in self._doubtful:
            return True
        return await listens(self._hub, name)

    async def _compare(self, topics: Iterable[Topic]) -> None:
        journals = {topic: self._topics[topic] for topic in topics}
        heard = {topic: topic.tail.position for topic in journals}
        asked = [(journal.message_id, journal.user_id) for journal in journals.values()]
        standings = await self._table.standings(asked)
        for topic, journal in journals.items():
            standing = standings.get(journal.message_id)
            _tell(topic, standing, heard[topic])
            if standing is not None and standing.stale:
                await self._table.end_stale(journal.message_id)


def _tell(topic: Topic, standing: Standing | None, heard: str) -> None:
    """Tells a topic how far its message is.

    Args:
        topic: the message's.
        standing: None where it is gone.
        heard: how far its announcements were when that was asked for.
    """
    if standing is None or standing.last_sequence < int(heard or wire.BEFORE_FIRST):
        topic.lose()  # what was announced is not there: its readers look themselves
    elif standing.finished:
        topic.finish(str(standing.last_sequence))
    else:
        topic.reach(str(standing.last_sequence))


async def listens(hub: Hub, topic: str) -> bool:
    """Waits until a subscription that was asked for stands; False where Redis is away."""
    try:
        await hub.link(topic).ping()
    except RedisUnavailable:
        return False
    return hub.hears(topic)
