"""The hub: one live subscription per process, fanned out to all its readers.

It subscribes to a topic on first interest and unsubscribes after the last. What arrives at once is
joined once, and each live reader gets it in one write, the same bytes for all. Whenever something
may have been missed, readers are sent back to the journal: the journal is the buffer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from shared import wire
from shared.errors import RedisUnavailable
from web.journal import Journal
from web.link import Link
from web.merge import Merging, State, Tail
from web.outlet import Message, body
from web.servers import Servers

log = logging.getLogger(__name__)

# What announcements begin with that are no event's: one asks for the end of a connection, by its
# id; one says on which position of a journal nothing follows.
END = b"!end "
FINISHED = b"!finished "


class Streaming(Merging, Protocol):
    """A reader as the hub sees it."""

    @property
    def id(self) -> str:
        """The connection's id."""

    def send_now(self, message: Message) -> None:
        """Writes to it while it is live."""

    def catch_up(self) -> None:
        """Goes back to the journal: it was live, and was sent back."""

    def end(self, last_words: bytes) -> None:
        """Ends the stream."""


class Topic:
    """One journal's channel: its tail, and everybody who reads it.

    `ended_at` is the position on which nothing follows, '' while that is not known.
    """

    __slots__ = ("ended_at", "interested", "journal", "readers", "tail", "wrote_at")

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.ended_at = ""
        self.interested = 0
        self.readers: set[Streaming] = set()
        self.tail: Tail[Streaming] = Tail()
        self.wrote_at = 0.0  # to all live readers, of the loop's clock

    def observe(self, last_id: str) -> None:
        """Takes the journal's last id at the moment when Redis's reply with it arrives."""
        _send_back(self.tail.observe(last_id))

    def reach(self, last_id: str) -> None:
        """Takes a last id that was read in no order with the announcements."""
        _send_back(self.tail.reach(last_id))

    def lose(self) -> None:
        """Announcements may have been missed."""
        _send_back(self.tail.lose())

    def finish(self, last_id: str) -> None:
        """The journal ends there: whoever has all of it is done."""
        self.ended_at = last_id
        self.reach(last_id)
        self._end_if_over()

    def join(self, reader: Streaming) -> bytes:
        """Makes a level reader live, or returns what to send it first; see `Tail.join`."""
        frames = self.tail.join(reader)
        if self.ended_at and reader.merge.position == self.ended_at and not frames:
            self.tail.leave(reader, State.ENDED)
        self._forget_if_level()
        return frames

    def let_go(self, reader: Streaming, state: State) -> None:
        """Lets a reader go its own way; what is announced meanwhile is remembered for it."""
        self.tail.leave(reader, state)
        self.tail.keep = True

    def remove(self, reader: Streaming) -> None:
        """Forgets a reader that has ended."""
        self.readers.discard(reader)
        self.tail.leave(reader, State.ENDED)
        self._forget_if_level()

    def flush(self, now: float) -> None:
        """Sends what was announced to every live reader, in one write each."""
        frames = self.tail.take()
        if frames:  # else silence goes on
            self.wrote_at = now
            message = body(frames)
            for reader in list(self.tail.live):
                reader.send_now(message)
        if self.ended_at:
            self._end_if_over()

    def _end_if_over(self) -> None:
        if self.tail.sent != self.ended_at:
            return
        for reader in list(self.tail.live):
            self.tail.leave(reader, State.ENDED)
            reader.catch_up()

    def _forget_if_level(self) -> None:
        if len(self.tail.live) == len(self.readers):
            self.tail.forget()


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
        if data.startswith(b"!"):
            _take_word(topic, data)
            return
        try:
            prev, entry_id, frame = data.split(b" ", 2)
            if not topic.journal.is_position(entry_id):
                raise ValueError(entry_id)
            sent_back = topic.tail.announce(prev.decode("ascii"), entry_id.decode("ascii"), frame)
        except ValueError:
            log.warning("an announcement of another form is left out: %.60r", data)
            return
        self._announced.add(topic)
        _send_back(sent_back)

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


def _send_back(readers: Iterable[Streaming]) -> None:
    for reader in readers:
        reader.catch_up()


def _take_word(topic: Topic, data: bytes) -> None:
    if data.startswith(END):
        _end_connection(topic, data.removeprefix(END).decode())
    elif data.startswith(FINISHED) and topic.journal.is_position(data.removeprefix(FINISHED)):
        topic.finish(data.removeprefix(FINISHED).decode())
    else:
        log.warning("an announcement of another form is left out: %.60r", data)


def _end_connection(topic: Topic, connection_id: str) -> None:
    for reader in list(topic.readers):
        if reader.id == connection_id:
            reader.end(wire.ENDED)
