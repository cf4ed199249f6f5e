"""The hub: one live subscription per process, fanned out to all its connections.

It subscribes to a topic on first interest and unsubscribes after the last. Whenever it may have
missed something (its connection was lost, a reader's buffer ran over) it says so to the reader,
which goes back to the journal from its own cursor: the journal is the buffer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import redis
import redis.asyncio
from redis.asyncio.client import PubSub

from shared import wire
from shared.errors import RedisUnavailable
from web.merge import Announcement

log = logging.getLogger(__name__)

ACKNOWLEDGE_SECONDS = 0.75
HEALTH_CHECK_SECONDS = 10.0
RECONNECT_SECONDS = (0.05, 1.0)
BUFFER_BYTES = 256 * 1024
OWN_CHANNEL = "user:hub"  # keeps the connection subscribed while no topic is wanted


class Subscription:
    """One reader's share of a topic: what was announced and not yet taken, within bounds."""

    def __init__(self) -> None:
        self._pending: deque[Announcement] = deque()
        self._bytes = 0
        self._missed = False
        self._wake = asyncio.Event()

    def feed(self, announcement: Announcement) -> None:
        """Adds a live entry; a reader too slow for its buffer is sent back to the journal."""
        self._bytes += len(announcement.frame)
        if self._bytes > BUFFER_BYTES:
            self.miss()
        else:
            self._pending.append(announcement)
            self._wake.set()

    def miss(self) -> None:
        """Says that something may have been missed."""
        self._pending.clear()
        self._bytes = 0
        self._missed = True
        self._wake.set()

    def wake(self) -> None:
        """Makes `wait` return."""
        self._wake.set()

    def take(self) -> tuple[list[Announcement], bool]:
        """Returns what is pending, and whether something before it may have been missed."""
        taken, missed = list(self._pending), self._missed
        self._pending.clear()
        self._bytes = 0
        self._missed = False
        self._wake.clear()
        return taken, missed

    async def wait(self, timeout_seconds: float) -> bool:
        """Waits until there is something to take; False when the time is out."""
        try:
            await asyncio.wait_for(self._wake.wait(), timeout_seconds)
        except TimeoutError:
            return False
        return True


class _Topic:
    def __init__(self) -> None:
        self.readers: set[Subscription] = set()
        self.acknowledged = asyncio.Event()


class Hub:
    """All subscriptions of one event loop, on one Redis connection."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._topics: dict[str, _Topic] = {}
        self._pubsub: PubSub | None = None
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[Subscription]:
        """Subscribes for the length of the block, from Redis's acknowledgement on.

        Raises:
            RedisUnavailable: Redis did not acknowledge in time.
        """
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="eventstream-hub")
        subscription = Subscription()
        entry = self._topics.get(topic)
        is_new = entry is None
        if entry is None:
            entry = self._topics[topic] = _Topic()
        entry.readers.add(subscription)
        try:
            if is_new and self._pubsub is not None:
                await self._command(self._pubsub.subscribe, topic)
            try:
                await asyncio.wait_for(entry.acknowledged.wait(), ACKNOWLEDGE_SECONDS)
            except TimeoutError as error:
                raise RedisUnavailable from error
            yield subscription
        finally:
            entry.readers.discard(subscription)
            if not entry.readers and self._topics.get(topic) is entry:
                del self._topics[topic]
                if self._pubsub is not None:
                    await self._command(self._pubsub.unsubscribe, topic)

    def wake_all(self) -> None:
        """Wakes every reader, so that each sees that it should end."""
        for entry in self._topics.values():
            for reader in entry.readers:
                reader.wake()

    async def aclose(self) -> None:
        """Ends the subscription."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @staticmethod
    async def _command(command: Callable[[str], Awaitable[object]], topic: str) -> None:
        try:
            await command(topic)
        except (redis.RedisError, OSError) as error:
            log.info("the hub's connection is gone (%s); it subscribes again", error)

    async def _run(self) -> None:
        pause, longest = RECONNECT_SECONDS
        while True:
            try:
                async with self._client.pubsub() as pubsub:
                    wanted = [OWN_CHANNEL, *self._topics]
                    await pubsub.subscribe(*wanted)
                    self._pubsub = pubsub  # from here on subscribe() sends its own command
                    late = self._topics.keys() - set(wanted)
                    if late:
                        await pubsub.subscribe(*late)
                    pause = RECONNECT_SECONDS[0]
                    await self._read(pubsub)
            except (redis.RedisError, OSError) as error:
                log.warning("the hub lost Redis (%s)", error)
            except Exception:  # the task's edge: without it no stream would live
                log.exception("the hub failed; it subscribes again")
            finally:
                self._pubsub = None
            await asyncio.sleep(pause)
            pause = min(longest, pause * 2)

    async def _read(self, pubsub: PubSub) -> None:
        asked = False
        while True:
            message = await pubsub.get_message(timeout=HEALTH_CHECK_SECONDS)
            if message is None:
                if asked:
                    raise redis.ConnectionError("no answer to a ping")
                await pubsub.ping()
                asked = True
                continue
            asked = False
            entry = self._topics.get((message["channel"] or b"").decode())
            if entry is None:
                continue
            if message["type"] == "subscribe":
                self._acknowledge(entry)
            elif message["type"] == "message":
                self._announce(entry, message["data"])

    @staticmethod
    def _announce(entry: _Topic, data: bytes) -> None:
        try:
            prev, entry_id, frame = data.split(b" ", 2)
            announcement = Announcement(prev.decode("ascii"), entry_id.decode("ascii"), frame)
            wire.cursor_key(announcement.id)
        except ValueError:
            log.warning("an announcement of another form is left out: %.60r", data)
            return
        for reader in entry.readers:
            reader.feed(announcement)

    @staticmethod
    def _acknowledge(entry: _Topic) -> None:
        if entry.acknowledged.is_set():  # again, after a pause in which anything may have come
            for reader in entry.readers:
                reader.miss()
        entry.acknowledged.set()
