"""A link: one connection to a Redis on which everything of an event loop goes, in order.

It speaks RESP3, where announcements and replies share a connection: a read that is sent after a
subscription is answered after it, and what was announced before a reply was made arrives before
that reply. So whoever sees the replies as they arrive knows whether an announcement was lost.
redis-py connects and authenticates; from then on bytes are parsed here, a socket's worth at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import hiredis
import redis
from redis.asyncio.connection import AbstractConnection

from shared.errors import RedisUnavailable
from shared.scripts import Script
from shared.steps import is_away

log = logging.getLogger(__name__)

ANSWER_SECONDS = 0.75  # a Redis that answers nothing for so long is away
HEALTH_CHECK_SECONDS = 10.0
RECONNECT_SECONDS = (0.05, 1.0)
# Answers of up to 4 MiB: Redis cuts a subscriber's connection that holds more than 32 MiB.
PAGES_AT_ONCE = 7
_TICK_SECONDS = 0.25
_NOTHING = object()
# Refusals that no reply slot is waiting for, or that mean another server must be asked.
_MISPLACED = ("MOVED", "ASK", "READONLY", "CLUSTERDOWN", "MASTERDOWN")

T = TypeVar("T")
_Reply = Callable[[Any], None]


class Link(asyncio.Protocol):
    """The connection, made again whenever it is lost.

    Args:
        connect: makes an authenticated redis-py connection that speaks RESP3.
        on_push: takes each announcement: channel and data.
        on_pause: called when all that was received at once has been taken.
        on_up: called when the connection stands, to subscribe on it.
        on_down: called when it is lost: announcements may be missed from here on.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[AbstractConnection]],
        *,
        on_push: Callable[[bytes, bytes], None],
        on_pause: Callable[[], None],
        on_up: Callable[[], None],
        on_down: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._on_push = on_push
        self._on_pause = on_pause
        self._on_up = on_up
        self._on_down = on_down
        self._loop = asyncio.get_running_loop()
        self._writer: asyncio.StreamWriter | None = None  # kept: its end would close the socket
        self._transport: asyncio.Transport | None = None
        self._replies: deque[_Reply] = deque()
        self._parser = hiredis.Reader(notEnoughData=_NOTHING)
        self._lost = asyncio.Event()
        self._down_since = self._loop.time()
        self._heard_at = 0.0
        self.up = asyncio.Event()
        self.pages = asyncio.Semaphore(PAGES_AT_ONCE)
        self._task = self._loop.create_task(self._run(), name="eventstream-link")

    async def run(
        self, step: Script, keys: Sequence[str], args: Sequence[Any], take: Callable[[Any], T]
    ) -> T:
        """Runs a Lua step and returns what `take` makes of its reply.

        Args:
            step: the step.
            keys: its keys.
            args: its other arguments.
            take: called at the moment the reply arrives, in order with the announcements.

        Raises:
            RedisUnavailable: Redis can't be reached, or can't do this just now.
        """
        await self._until_up()
        answer: asyncio.Future[T] = self._loop.create_future()
        self.post(step, keys, args, partial(_settle, answer, take))
        return await answer

    async def transaction(
        self, commands: Sequence[Sequence[Any]], take: Callable[[list[Any]], T]
    ) -> T:
        """Runs commands at one moment and returns what `take` makes of their replies.

        Raises:
            RedisUnavailable: Redis can't be reached, or can't do this just now.
        """
        await self._until_up()
        answer: asyncio.Future[T] = self._loop.create_future()
        for command in (("MULTI",), *commands):
            self._send(command, _ignore)
        self._send(("EXEC",), partial(_settle, answer, take))
        return await answer

    def post(
        self, step: Script, keys: Sequence[str], args: Sequence[Any], take: Callable[[Any], None]
    ) -> None:
        """Runs a Lua step without waiting; `take` gets its reply, or the error in its place."""

        def reply(value: Any) -> None:
            if isinstance(value, hiredis.ReplyError) and str(value).startswith("NOSCRIPT"):
                self._send(("EVAL", step.text, len(keys), *keys, *args), take)
            else:
                take(value)

        self._send(("EVALSHA", step.sha, len(keys), *keys, *args), reply)

    def send(self, *command: Any) -> None:
        """Sends a command whose reply nobody needs; while the link is down, nothing."""
        self._send(command, _ignore)

    def push(self, *command: Any) -> None:
        """Sends a command that is answered by pushes only: a subscription, or its end."""
        if self._transport is not None:
            self._transport.write(hiredis.pack_command(command))

    async def aclose(self) -> None:
        """Waits, for a moment, for what is under way, and ends the connection."""
        deadline = self._loop.time() + ANSWER_SECONDS
        while self._replies and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def data_received(self, data: bytes) -> None:
        """Takes what the socket held: announcements and replies, in order."""
        self._heard_at = self._loop.time()
        parser = self._parser
        parser.feed(data)
        try:
            while (message := parser.gets()) is not _NOTHING and self._transport is not None:
                if isinstance(message, hiredis.PushNotification):
                    if message[0] in (b"message", b"smessage"):
                        self._on_push(message[1], message[2])
                else:
                    self._take_reply(message)
        except hiredis.ProtocolError as error:
            self._drop(f"it does not speak RESP3: {error}")
        self._on_pause()

    def connection_lost(self, exc: Exception | None) -> None:
        """Makes `_run` connect again."""
        self._lost.set()

    def _take_reply(self, message: Any) -> None:
        if isinstance(message, hiredis.ReplyError):
            text = str(message)
            if text.startswith(_MISPLACED) or not self._replies or "channel" in text:
                # A refused subscription has no reply slot: the replies no longer match.
                self._drop(text)
                return
        if self._replies:
            self._replies.popleft()(message)

    def _send(self, command: Sequence[Any], reply: _Reply) -> None:
        if self._transport is None:
            reply(RedisUnavailable())
            return
        if not self._replies:
            self._heard_at = self._loop.time()  # from here on an answer is due
        self._replies.append(reply)
        self._transport.write(hiredis.pack_command(tuple(map(_plain, command))))

    async def _until_up(self) -> None:
        """Waits for a link that was lost a moment ago; one that is down longer fails at once."""
        if self._transport is not None:
            return
        left = self._down_since + ANSWER_SECONDS - self._loop.time()
        try:
            async with asyncio.timeout(max(0.0, left)):
                await self.up.wait()
        except TimeoutError as error:
            raise RedisUnavailable from error

    async def _run(self) -> None:
        pause, longest = RECONNECT_SECONDS
        try:
            while True:
                try:
                    connection = await self._connect()
                except (redis.RedisError, OSError) as error:
                    log.warning("Redis can't be reached (%s)", error)
                else:
                    pause = RECONNECT_SECONDS[0]
                    self._take_over(connection)
                    await self._watch()
                    self._down()
                await asyncio.sleep(random.uniform(pause / 2, pause))
                pause = min(longest, pause * 2)
        finally:
            self._down()

    def _take_over(self, connection: AbstractConnection) -> None:
        writer = connection._writer
        assert writer is not None
        connection._writer = None  # the socket is ours from here on
        self._writer, self._transport = writer, cast(asyncio.Transport, writer.transport)
        self._parser = hiredis.Reader(notEnoughData=_NOTHING)
        self._lost.clear()
        self._heard_at = self._loop.time()
        writer.transport.set_protocol(self)
        self.up.set()
        self._on_up()

    async def _watch(self) -> None:
        """Returns once the connection is lost; ends one that answers nothing."""
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                silence = self._loop.time() - self._heard_at
                if self._replies and silence > ANSWER_SECONDS - _TICK_SECONDS:
                    self._drop("it does not answer")
                    self._down_since -= ANSWER_SECONDS  # whoever waited has waited long enough
                elif silence > HEALTH_CHECK_SECONDS:
                    self.send("PING")

    def _drop(self, why: str) -> None:
        log.warning("the link to Redis is dropped: %s", why)
        self._down()
        self._lost.set()

    def _down(self) -> None:
        """Lets go of the connection, and tells everybody who waits."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        self._down_since = self._loop.time()
        self.up.clear()
        transport.abort()
        self._writer = None
        replies, self._replies = self._replies, deque()
        for reply in replies:
            reply(RedisUnavailable())
        self._on_down()


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, bytes, int, float)) else str(value)


def _ignore(value: Any) -> None:
    if isinstance(value, hiredis.ReplyError):
        log.warning("Redis refused: %s", value)


def _settle(answer: asyncio.Future[T], take: Callable[[Any], T], value: Any) -> None:
    if answer.done():
        return  # nobody waits any more
    try:
        answer.set_result(take(_checked(value)))
    except Exception as error:  # whoever waits gets it
        answer.set_exception(error)


def _checked(value: Any) -> Any:
    """The reply, if it is no error and holds none."""
    for each in (value, *value) if isinstance(value, list) else (value,):
        if isinstance(each, hiredis.ReplyError):
            refused = redis.ResponseError(str(each))
            raise RedisUnavailable(str(each)) if is_away(refused) else refused
    if isinstance(value, Exception):
        raise value
    return value
