"""A link: the one connection to a Redis on which everything of an event loop goes, in order.

A read that is sent after a subscription is answered after it, and what was announced before a
reply was made arrives before that reply. So whoever takes the replies as they arrive knows whether
an announcement was lost. The link connects again whenever it is lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import hiredis
import redis
from redis.asyncio.connection import AbstractConnection

from shared.errors import RedisUnavailable
from shared.scripts import Script
from shared.steps import is_away
from web.resp import Resp, TakeReply

log = logging.getLogger(__name__)

ANSWER_SECONDS = 0.75  # a Redis that answers nothing for so long is away
HEALTH_CHECK_SECONDS = 10.0
RECONNECT_SECONDS = (0.05, 1.0)
STEADY_SECONDS = 5.0  # a connection that stood for so long is no sign of trouble
# Answers of up to 4 MiB: Redis cuts a subscriber's connection that holds more than 32 MiB.
PAGES_AT_ONCE = 7
_TICK_SECONDS = 0.25
_GRACE_SECONDS = 0.02  # a loop that was held up runs its timers before it looks at its sockets

T = TypeVar("T")


class Link:
    """Made inside the loop that it serves; `aclose` it there.

    Args:
        connect: makes an authenticated redis-py connection that speaks RESP3.
        on_push: takes each announcement: channel and data.
        on_pause: called when all that was received at once has been taken.
        on_up: called when the connection stands, to subscribe on it.
        on_down: called when it is lost: announcements may be missed from here on.
        on_moved: on a cluster, takes each channel whose subscription ended here, asked for or
            not, and None where the server says that something is elsewhere.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[AbstractConnection]],
        *,
        on_push: Callable[[bytes, bytes], None],
        on_pause: Callable[[], None],
        on_up: Callable[[], None],
        on_down: Callable[[], None],
        on_moved: Callable[[bytes | None], None] | None = None,
    ) -> None:
        self._connect = connect
        self._on_push = on_push
        self._on_pause = on_pause
        self._on_up = on_up
        self._on_down = on_down
        self._on_moved = on_moved
        self._loop = asyncio.get_running_loop()
        self._resp: Resp | None = None
        self._loaded: set[str] = set()  # the steps that this connection's server knows
        self._lost = asyncio.Event()
        self._down_since = self._loop.time()
        self._is_closed = False
        self.up = asyncio.Event()  # set for good when the link is closed: look for another
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
        refusals: list[Any] = []  # that of a command says more than EXEC's

        def queued(reply: Any) -> None:
            if isinstance(reply, Exception):
                refusals.append(reply)

        def done(reply: Any) -> None:
            _settle(answer, take, refusals[0] if refusals else reply)

        for command in (("MULTI",), *commands):
            self._send(command, queued)
        self._send(("EXEC",), done)
        return await answer

    def post(self, step: Script, keys: Sequence[str], args: Sequence[Any], take: TakeReply) -> None:
        """Runs a Lua step without waiting; `take` gets its reply, or the error in its place."""

        def reply(value: Any) -> None:
            if isinstance(value, hiredis.ReplyError) and str(value).startswith("NOSCRIPT"):
                self._send(("EVAL", step.text, len(keys), *keys, *args), take)
            else:
                take(value)

        if step.sha not in self._loaded:  # else what is sent after it would be done before it
            self._loaded.add(step.sha)
            self._send(("SCRIPT", "LOAD", step.text), lambda _: None)
        self._send(("EVALSHA", step.sha, len(keys), *keys, *args), reply)

    def send(self, *command: Any) -> None:
        """Sends a command whose reply nobody needs; while the link is down, nothing."""
        self._send(command, _ignore)

    async def ping(self) -> None:
        """Returns once all that was sent has arrived: subscriptions stand.

        Raises:
            RedisUnavailable: Redis can't be reached, or can't do this just now.
        """
        await self._until_up()
        answer: asyncio.Future[None] = self._loop.create_future()
        self._send(("PING",), partial(_settle, answer, lambda _: None))
        await answer

    def push(self, *command: str) -> None:
        """Sends a subscription to channels, or its end; while the link is down, nothing."""
        if self._resp is not None:
            self._resp.push(command, partial(self._refused, command))

    async def aclose(self) -> None:
        """Waits, for a moment, for what is under way, and ends the connection."""
        deadline = self._loop.time() + ANSWER_SECONDS
        while self._resp is not None and self._resp.owes and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        self.close()
        await asyncio.wait({self._task}, timeout=ANSWER_SECONDS)

    def close(self) -> None:
        """Ends the connection, for good."""
        self._is_closed = True  # redis-py loses a cancellation that comes while it connects
        self._task.cancel()

    def _send(self, command: Sequence[Any], take: TakeReply) -> None:
        if self._resp is None:
            take(RedisUnavailable())
        else:
            self._resp.send(command, take)

    async def _until_up(self) -> None:
        """Waits for a link that was lost a moment ago; one that is down longer fails at once."""
        if self._resp is not None:
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
            while not self._is_closed:
                began = self._loop.time()
                try:
                    await self._watch(self._begin(await self._connect()))
                except (redis.RedisError, OSError) as error:
                    log.warning("Redis can't be reached (%s)", error)
                except Exception:  # the task's edge
                    log.exception("the link to Redis failed; it is made anew")
                    self._lose("it failed")
                if self._loop.time() - began > STEADY_SECONDS:
                    pause = RECONNECT_SECONDS[0]
                await asyncio.sleep(random.uniform(pause / 2, pause))
                pause = min(longest, pause * 2)
        finally:
            self._lose("it is closed")
            self.up.set()

    def _begin(self, connection: AbstractConnection) -> Resp:
        self._lost.clear()
        self._loaded.clear()
        self._resp = resp = Resp(
            connection,
            on_push=self._take_push,
            on_pause=self._on_pause,
            on_elsewhere=self._elsewhere,
            on_lost=self._end,
        )
        self.up.set()
        self._on_up()
        return resp

    async def _watch(self, resp: Resp) -> None:
        """Returns once the connection is lost; ends one that answers nothing."""
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                if _is_silent(resp):
                    await asyncio.sleep(_GRACE_SECONDS)  # what lies in the socket is read first
                if _is_silent(resp):
                    resp.lose("it does not answer")
                    self._down_since -= ANSWER_SECONDS  # whoever waited has waited long enough
                elif resp.silence_seconds > HEALTH_CHECK_SECONDS:
                    self.send("PING")

    def _lose(self, why: str) -> None:
        if self._resp is not None:
            self._resp.lose(why)

    def _end(self, why: str) -> None:
        if not self._is_closed:
            log.warning("the link to Redis is lost: %s", why)
        self._resp = None
        self._down_since = self._loop.time()
        self.up.clear()
        self._lost.set()
        self._on_down()

    def _take_push(self, message: Sequence[bytes]) -> None:
        if message[0] in (b"message", b"smessage"):
            self._on_push(message[1], message[2])
        elif message[0] == b"sunsubscribe" and self._on_moved is not None:
            self._on_moved(message[1])

    def _refused(self, command: Sequence[str], refusal: str) -> None:
        if refusal.startswith("MOVED") and self._on_moved is not None:
            for channel in command[1:]:
                self._on_moved(channel.encode())
        else:
            self._lose(f"{command[0]} was refused: {refusal}")

    def _elsewhere(self, refusal: str) -> None:
        if refusal.startswith("MOVED") and self._on_moved is not None:
            self._on_moved(None)
        else:
            self._lose(refusal)


def _is_silent(resp: Resp) -> bool:
    return resp.owes and resp.silence_seconds > ANSWER_SECONDS - _TICK_SECONDS


def _ignore(value: Any) -> None:
    if isinstance(value, hiredis.ReplyError):
        log.warning("Redis refused: %s", value)


def _settle(answer: asyncio.Future[T], take: Callable[[Any], T], value: Any) -> None:
    if answer.done():
        return  # nobody waits any more
    try:
        answer.set_result(take(checked(value)))
    except Exception as error:  # whoever waits gets it
        answer.set_exception(error)


def checked(value: Any) -> Any:
    """The reply; raises what it tells of, RedisUnavailable where Redis can't do it just now."""
    for each in (value, *value) if isinstance(value, list) else (value,):
        if isinstance(each, hiredis.ReplyError):
            refused = redis.ResponseError(str(each))
            raise RedisUnavailable(str(each)) if is_away(refused) else refused
    if isinstance(value, Exception):
        raise value
    return value
