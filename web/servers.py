"""Where a topic's Redis is: on one server for all. For a cluster see `web/shards.py`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Protocol

from shared.connections import connect_link
from web.link import Link


class Listener(Protocol):
    """Who learns of what arrives on the links."""

    def take_announcement(self, channel: bytes, data: bytes) -> None:
        """Takes one announcement."""

    def flush(self) -> None:
        """All that was received at once has been taken."""

    def lose(self, names: Iterable[str] | None = None) -> None:
        """Announcements on these topics, or all, may have been missed."""


class Servers(Protocol):
    """The links to Redis, and the subscriptions on them."""

    async def ready(self) -> None:
        """Returns once it is known where topics are; raises RedisUnavailable."""

    def link(self, topic: str) -> Link:
        """The link to the server that holds a topic's keys; raises RedisUnavailable."""

    def subscribe(self, topic: str) -> None:
        """Subscribes, now and whenever the link was lost."""

    def unsubscribe(self, topic: str) -> None:
        """Ends a subscription."""

    async def aclose(self) -> None:
        """Ends the links."""


class OneServer:
    """One Redis for everything."""

    def __init__(self, url: str, listener: Listener) -> None:
        self._topics: set[str] = set()
        self._link = Link(
            partial(connect_link, url),
            on_push=listener.take_announcement,
            on_pause=listener.flush,
            on_up=self._subscribe_all,
            on_down=listener.lose,
        )

    async def ready(self) -> None:
        """Returns at once."""

    def link(self, topic: str) -> Link:
        """The one link."""
        return self._link

    def subscribe(self, topic: str) -> None:
        """Subscribes, now and whenever the link was lost."""
        self._topics.add(topic)
        self._link.push("SUBSCRIBE", topic)

    def unsubscribe(self, topic: str) -> None:
        """Ends a subscription."""
        self._topics.discard(topic)
        self._link.push("UNSUBSCRIBE", topic)

    async def aclose(self) -> None:
        """Ends the link."""
        await self._link.aclose()

    def _subscribe_all(self) -> None:
        if self._topics:
            self._link.push("SUBSCRIBE", *self._topics)
