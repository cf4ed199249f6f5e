"""A connection to Redis as a protocol of asyncio: commands out, replies and announcements in.

It speaks RESP3, where both come on one connection and in order. What the socket holds is parsed
at once; each reply is for the oldest command that has none yet.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection

from shared.errors import RedisUnavailable

_NOTHING = object()
# Refusals that mean another server has to be asked.
_ELSEWHERE = ("MOVED", "READONLY", "CLUSTERDOWN", "MASTERDOWN")
_STEP_ELSEWHERE = "-READONLY "  # how Redis 6 puts it where a step's own write is refused

TakeReply = Callable[[Any], None]


class Resp(asyncio.Protocol):
    """One connection, from when redis-py has authenticated it until it is lost.

    Args:
        connection: redis-py's; its socket is taken over.
        on_push: takes what Redis says unasked, such as an announcement.
        on_pause: called when all that was received at once has been taken.
        on_lost: called once, with the reason.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        *,
        on_push: Callable[[Sequence[bytes]], None],
        on_pause: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._on_push = on_push
        self._on_pause = on_pause
        self._on_lost = on_lost
        self._parser = hiredis.Reader(notEnoughData=_NOTHING)
        self._replies: deque[TakeReply] = deque()
        self._unsent: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._is_lost = False
        self._begins_to_owe = False
        self.heard_at = self._loop.time()  # or when it began to owe a reply
        writer = connection._writer
        assert writer is not None
        connection._writer = None  # else redis-py warns of it when it is collected
        self._writer = writer  # kept: its end would close the socket
        self._transport = cast(asyncio.Transport, writer.transport)
        self._transport.set_protocol(self)

    @property
    def owes(self) -> bool:
        """Whether a reply is due."""
        return bool(self._replies)

    @property
    def silence_seconds(self) -> float:
        """How long nothing has been heard, and a reply may have been due."""
        return self._loop.time() - self.heard_at

    def send(self, command: Sequence[Any], take: TakeReply) -> None:
        """Sends a command; `take` gets its reply, or the error in its place."""
        self._begins_to_owe = self._begins_to_owe or not self._replies
        self._replies.append(take)
        self._write(tuple(map(_plain, command)))

    def push(self, command: Sequence[Any]) -> None:
        """Sends a command that is answered by pushes only: a subscription, or its end."""
        self._write(tuple(command))

    def lose(self, why: str) -> None:
        """Ends the connection; whoever waits for a reply learns that none will come."""
        if self._is_lost:
            return
        self._is_lost = True
        self._transport.abort()
        replies, self._replies = self._replies, deque()
        for take in replies:
            take(RedisUnavailable())
        self._on_lost(why)

    def data_received(self, data: bytes) -> None:
        """Takes what the socket held."""
        self.heard_at = self._loop.time()
        parser = self._parser
        parser.feed(data)
        try:
            while not self._is_lost and (message := parser.gets()) is not _NOTHING:
                if isinstance(message, hiredis.PushNotification):
                    self._on_push(message)
                else:
                    self._take_reply(message)
        except hiredis.ProtocolError as error:
            self.lose(f"it does not speak RESP3: {error}")
        self._on_pause()

    def connection_lost(self, exc: Exception | None) -> None:
        """Says so."""
        self.lose(str(exc or "it was closed"))

    def _write(self, command: tuple[Any, ...]) -> None:
        """Has a command sent with all others of this turn of the loop, in one write."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(hiredis.pack_command(command))

    def _flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if self._begins_to_owe:
            self._begins_to_owe = False
            self.heard_at = self._loop.time()  # no reply could have come before
        if not self._is_lost:
            self._transport.write(data)

    def _take_reply(self, message: Any) -> None:
        if isinstance(message, hiredis.ReplyError):
            text = str(message)
            is_elsewhere = text.startswith(_ELSEWHERE) or _STEP_ELSEWHERE in text
            # A refused subscription has no place among the replies: they no longer match.
            if is_elsewhere or "channel" in text or "subscribe" in text or not self._replies:
                self.lose(text)
                return
        self._replies.popleft()(message)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, bytes, int, float)) else str(value)
