"""A reader: one open stream, from its first page to its end.

While it is live the hub and the timer wheel write to it, and no task of its own runs but the
server's, which waits for the client to leave. Only one that has to catch up has a task. At any
moment it is either live or catching up, never both, so nothing is written twice.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from shared import wire
from shared.errors import PostgresUnavailable, RedisUnavailable
from web.delivery import Delivery
from web.merge import Merge, State
from web.outlet import Message, Outlet, body
from web.topic import Topic

log = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Observe = Callable[[str], None]

KEEPALIVE = body(wire.KEEPALIVE)
END_SECONDS = 1.0  # for the last words to a client


class Lease(Protocol):
    """A connection's place among those of its user, taken."""

    @property
    def id(self) -> str:
        """The connection's id."""

    def renew(
        self, cursor: str, *, lags: bool, observe: Observe, is_over: Callable[[], None]
    ) -> None:
        """Keeps it, without waiting; see `Place.renew`."""

    def give_back(self) -> None:
        """Gives it back at once."""


class Reader:
    """One connection. `id` names it; `merge` is its way through the journal.

    Args:
        delivery: what all streams of the loop share.
        topic: its journal's, in which an interest is held; given back at the end.
        place: its place among the user's connections, taken; given back at the end.
        outlet: a response that has begun.
        merge: where it stands, once it has got `first`.
        first: what to send it first.
        expires_at: when to end it, of the loop's clock.
    """

    __slots__ = (
        "__weakref__",
        "_delivery",
        "_expires_at",
        "_first",
        "_last_words",
        "_outlet",
        "_released",
        "_renew_at",
        "_task",
        "_topic",
        "_wrote_at",
        "merge",
        "place",
    )

    def __init__(
        self,
        delivery: Delivery,
        topic: Topic,
        place: Lease,
        outlet: Outlet,
        merge: Merge,
        first: bytes,
        expires_at: float,
    ) -> None:
        now = delivery.now()
        self.place = place
        self.merge = merge
        self._expires_at = expires_at
        self._renew_at = now + delivery.keepalive_seconds * random.uniform(0.5, 1)
        self._wrote_at = now
        self._first: bytes | None = first  # None once it is on its way
        self._delivery = delivery
        self._topic = topic
        self._outlet = outlet
        self._task: asyncio.Task[None] | None = None
        self._last_words: bytes | None = None
        self._released = False
        topic.readers.add(self)
        topic.let_go(self, merge.state)

    @property
    def id(self) -> str:
        """The connection's id."""
        return self.place.id

    async def serve(self, receive: Receive) -> None:
        """Streams until either side ends it, then gives everything back.

        Args:
            receive: ASGI's; says `http.disconnect` when the client has left.
        """
        self._delivery.watch(self, min(self._renew_at, self._expires_at))
        try:
            if self._delivery.draining:  # since it was let in
                self.end(wire.retry_frame(*wire.RETRY_DRAINED_MS))
            self._begin()
            if self._outlet.can_abort:
                await _until_disconnect(receive)
            else:
                await self._until_over(receive)
        finally:
            self._release()

    def send_now(self, message: Message) -> None:
        """Writes to a live reader; one whose socket is backed up goes its own way from here."""
        try:
            rest = self._outlet.write_now(message)
        except Exception:  # the server's edge: one broken response must not stop the others
            log.exception("a response can't be written to; it is cut")
            self._cut()
            return
        if rest is not None:
            self._topic.let_go(self, State.LEVEL)
            self._start(rest)

    def catch_up(self) -> None:
        """Goes back to the journal: called for a live reader that was sent back."""
        self._topic.tail.keep = True
        self._start(None)

    def end(self, last_words: bytes) -> None:
        """Ends the stream, from this side, with these frames, whatever it waits for just now."""
        if self._last_words is not None or self._released:
            return
        self._last_words = last_words
        self._topic.let_go(self, State.ENDED)
        if self._first is None:  # else it is not served yet, and ends after its first frames
            if self._task is not None:
                self._task.cancel()
            self._start(None)
        self._outlet.abort_after(END_SECONDS)

    def due(self) -> float | None:
        """What is due by time: the end, the lease, a keepalive. Returns when to look again."""
        now = self._delivery.now()
        if self._released or self._last_words is not None:
            return None
        if now >= self._expires_at:
            self.end(wire.EXPIRED + wire.retry_frame(*wire.RETRY_MS))
            return None
        keepalive_seconds = self._delivery.keepalive_seconds
        live = self.merge.state is State.LIVE
        silent_since = self._silent_since
        is_silent = live and now - silent_since >= keepalive_seconds
        if now >= self._renew_at - (keepalive_seconds / 2 if is_silent else 0):
            self._renew_at = now + keepalive_seconds
            self.place.renew(
                self.merge.position,
                lags=not live,
                observe=self._topic.observe,
                is_over=lambda: self.end(wire.ENDED),
            )
        if is_silent:
            self._wrote_at = silent_since = now
            self.send_now(KEEPALIVE)
        next_word = silent_since + keepalive_seconds if live else self._renew_at
        return min(self._renew_at, next_word, self._expires_at)

    def _begin(self) -> None:
        """Sends the first frames; most are live then, and need no task."""
        assert self._first is not None
        rest = self._outlet.write_now(body(self._first))
        self._first = None
        while rest is None and self.merge.state is State.LEVEL:
            if frames := self._topic.join(self):
                rest = self._outlet.write_now(body(frames))
        if self.merge.state is not State.LIVE:
            self._start(rest)

    def _start(self, unfinished: Awaitable[None] | None) -> None:
        self._task = asyncio.ensure_future(self._follow(unfinished))

    async def _follow(self, unfinished: Awaitable[None] | None) -> None:
        """Finishes a write that had to wait, and goes on until the reader is live, or over."""
        try:
            if unfinished is not None:
                await self._write(unfinished)
            await self._catch_up()
        except TimeoutError:
            log.info("a client does not read; its connection is cut")
            self._cut()
        except OSError:
            self._cut()  # the client has left: a server may say so in this way too
        except Exception:  # the task's edge
            log.exception("a stream failed; its connection is cut")
            self._cut()

    async def _catch_up(self) -> None:
        while self._last_words is None:
            match self.merge.state:
                case State.LIVE:
                    return
                case State.ENDED:
                    self._last_words = self._topic.journal.last_words()
                    break
                case State.LEVEL:
                    frames = self._topic.join(self)
                case State.CATCHING_UP:
                    frames = await self._next_page()
            if frames:
                await self._write(self._outlet.write(frames))
        await self._write(self._outlet.finish(self._last_words))
        # It may have to wait behind what a client does not read.
        self._outlet.abort_after(self._delivery.settings.sse_write_timeout_seconds)

    async def _next_page(self) -> bytes:
        try:
            page = await self._delivery.read_after(self.merge, self._topic)
        except (RedisUnavailable, PostgresUnavailable):
            await self._wait_for_journal()
            return b""
        return self.merge.page(page)

    async def _wait_for_journal(self) -> None:
        """The cursor stays, and the client hears every now and then that the stream lives."""
        keepalive_at = self._silent_since + self._delivery.keepalive_seconds
        await self._topic.journal.until_up(keepalive_at)
        if self._delivery.now() >= self._silent_since + self._delivery.keepalive_seconds:
            await self._write(self._outlet.write(wire.KEEPALIVE))

    @property
    def _silent_since(self) -> float:
        return max(self._wrote_at, self._topic.wrote_at)

    async def _write(self, writing: Awaitable[None]) -> None:
        async with asyncio.timeout(self._delivery.settings.sse_write_timeout_seconds):
            await writing
        self._wrote_at = self._delivery.now()

    async def _until_over(self, receive: Receive) -> None:
        """For a server whose connection can't be cut: a stream that is over returns by itself."""
        left = asyncio.ensure_future(_until_disconnect(receive))
        try:
            while not left.done() and self._last_words is None:
                await asyncio.wait({left}, timeout=END_SECONDS)
            if self._task is not None:
                await asyncio.wait({self._task}, timeout=END_SECONDS)
        finally:
            left.cancel()

    def _cut(self) -> None:
        if not self._released:
            self._last_words = b""
            self._topic.let_go(self, State.ENDED)
            self._outlet.abort()

    def _release(self) -> None:
        self._released = True
        if self._task is not None:
            self._task.cancel()
        self._topic.remove(self)
        self.place.give_back()
        self._delivery.hub.leave(self._topic)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
