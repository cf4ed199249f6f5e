"""The hub: one live subscription per process, fanned out to all its readers.

It subscribes to a topic on first interest and unsubscribes after the last. What arrives at once is
joined once, and each live reader gets it in one write, the same bytes for all. Whenever something
may have been missed, readers are sent back to the journal: the journal is the buffer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from shared.errors import RedisUnavailable
from web.journal import Journal
from web.link import Link
from web.servers import Servers
from web.topic import Topic


class Hub:
    """All topics of one event loop.

    Args:
        make_servers: makes the links to Redis, given what to call.
        announces: whether anybody announces anything, instance-wide.
    """

    def __init__(self, make_servers: Callable[[Hub], Servers], announces: bool = True) -> None:
        self._topics: dict[bytes, Topic] = {}
        self._announced: set[Topic] = set()
        self._loop = asyncio.get_running_loop()
        self._announces = announces
        self.losses = 0  # how often announcements may have been missed
        self._servers = make_servers(self)

    def enter(self, journal: Journal) -> Topic:
        """Subscribes to a journal's topic, which is then of the first such journal that came.

        What is asked on its link from here on is answered after that.
        """
        name = journal.topic
        topic = self._topics.get(name.encode())
        if topic is None:
            topic = self._topics[name.encode()] = Topic(journal)
            self._servers.subscribe(name)
        topic.interested += 1
        return topic

    def leave(self, topic: Topic) -> None:
        """Ends one interest in a topic, and with the last the subscription."""
        topic.interested -= 1
        if not topic.interested:
            del self._topics[topic.journal.topic.encode()]
            self._servers.unsubscribe(topic.journal.topic)

    async def ready(self) -> None:
        """Returns once it is known where topics are; raises RedisUnavailable."""
        await self._servers.ready()

    def link(self, topic: str) -> Link:
        """The link to the server that holds a topic and all other keys of its user.

        Raises:
            RedisUnavailable: there is none just now.
        """
        return self._servers.link(topic)

    def hears(self, topic: str) -> bool:
        """Whether announcements on a topic can arrive: the link to its server stands."""
        try:
            return self._announces and self.link(topic).up.is_set()
        except RedisUnavailable:
            return False

    @property
    def topics(self) -> list[Topic]:
        """Those that somebody is interested in."""
        return list(self._topics.values())

    def take_announcement(self, channel: bytes, data: bytes) -> None:
        """Takes what Redis pushed on a topic's channel."""
        topic = self._topics.get(channel)
        if topic is None:
            return  # its last reader has just left
        if topic.take(data):
            self._announced.add(topic)

    def flush(self) -> None:
        """Sends on what was taken since the last time."""
        now = self._loop.time()
        for topic in self._announced:
            topic.flush(now)
        self._announced.clear()

    def lose(self, names: Iterable[str] | None = None) -> None:
        """The connection of these topics, or of all, was lost: anything may have been missed."""
        self.losses += 1
        wanted = None if names is None else set(names)
        for topic in self.topics:
            if wanted is None or topic.journal.topic in wanted:
                topic.lose()

    async def aclose(self) -> None:
        """Ends the links."""
        await self._servers.aclose()
