"""A connection to Redis as a protocol of asyncio: commands out, replies and announcements in.

It speaks RESP3, where both come on one connection and in order. What the socket holds is parsed
at once; each reply is for the oldest command that has none yet. A subscription's is a push for each
of its channels, or the error that refuses it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection

from shared.errors import RedisUnavailable

_NOTHING = object()
# Refusals that mean another server has to be asked.
_ELSEWHERE = ("MOVED", "READONLY", "CLUSTERDOWN", "MASTERDOWN")
_STEP_ELSEWHERE = "-READONLY "  # how Redis 6 puts it where a step's own write is refused

TakeReply = Callable[[Any], None]
TakeRefusal = Callable[[str], None]


@dataclass(slots=True)
class _Confirmations:
    """What is still due to a command that is answered by pushes."""

    kind: bytes
    left: int
    refused: TakeRefusal


class Resp(asyncio.Protocol):
    """One connection, from when redis-py has authenticated it until it is lost.

    Args:
        connection: redis-py's; its socket is taken over.
        on_push: takes what Redis says unasked, such as an announcement.
        on_pause: called when all that was received at once has been taken.
        on_elsewhere: takes a refusal that means that another server has to be asked.
        on_lost: called once, with the reason.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        *,
        on_push: Callable[[Sequence[bytes]], None],
        on_pause: Callable[[], None],
        on_elsewhere: TakeRefusal,
        on_lost: Callable[[str], None],
    ) -> None:
        self._on_push = on_push
        self._on_pause = on_pause
        self._on_elsewhere = on_elsewhere
        self._on_lost = on_lost
        self._parser = hiredis.Reader(notEnoughData=_NOTHING)
        self._due: deque[TakeReply | _Confirmations] = deque()
        self._unsent: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._is_lost = False
        self._was_ended = False  # a subscription to a shard, and no reply has come since
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
        return bool(self._due)

    @property
    def silence_seconds(self) -> float:
        """How long nothing has been heard, and a reply may have been due."""
        return self._loop.time() - self.heard_at

    def send(self, command: Sequence[Any], take: TakeReply) -> None:
        """Sends a command; `take` gets its reply, or the error in its place."""
        self._write(tuple(map(_plain, command)), take)

    def push(self, command: Sequence[str], refused: TakeRefusal) -> None:
        """Sends a subscription to channels, or its end; `refused` gets the error, if any."""
        name, *channels = command
        self._write(command, _Confirmations(name.lower().encode(), len(channels), refused))

    def lose(self, why: str) -> None:
        """Ends the connection; whoever waits for a reply learns that none will come."""
        if self._is_lost:
            return
        self._is_lost = True
        self._transport.abort()
        due, self._due = self._due, deque()
        for take in due:
            if not isinstance(take, _Confirmations):
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
                    self._confirm(message[0])
                    self._on_push(message)
                else:
                    self._take_reply(message)
        except hiredis.ProtocolError as error:
            self.lose(f"it does not speak RESP3: {error}")
        self._on_pause()

    def connection_lost(self, exc: Exception | None) -> None:
        """Says so."""
        self.lose(str(exc or "it was closed"))

    def _write(self, command: Sequence[Any], due: TakeReply | _Confirmations) -> None:
        """Has a command sent with all others of this turn of the loop, in one write."""
        self._begins_to_owe = self._begins_to_owe or not self._due
        self._due.append(due)
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(hiredis.pack_command(tuple(command)))

    def _flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if self._begins_to_owe:
            self._begins_to_owe = False
            self.heard_at = self._loop.time()  # no reply could have come before
        if not self._is_lost:
            self._transport.write(data)

    def _confirm(self, kind: bytes) -> None:
        """Takes a push as one that is due, if it is; most are announcements."""
        due = self._due[0] if self._due else None
        if isinstance(due, _Confirmations) and due.kind == kind:
            due.left -= 1
            if not due.left:
                self._due.popleft()
                self._was_ended = kind == b"sunsubscribe"

    def _take_reply(self, message: Any) -> None:
        if not self._due:
            self.lose(f"it says what nobody asked for: {message!r:.60}")
            return
        refusal = str(message) if isinstance(message, hiredis.ReplyError) else ""
        if self._was_ended and refusal.startswith("MOVED"):
            # Whoever loses a slot ends its subscriptions unasked, and refuses to do it when asked.
            self.lose("it can't be told which command is refused")
            return
        self._was_ended = False
        due = self._due[0]
        if isinstance(due, _Confirmations):
            if refusal:
                self._due.popleft()
                due.refused(refusal)
            else:
                self.lose("it does not confirm a subscription")
            return
        if refusal.startswith(_ELSEWHERE) or _STEP_ELSEWHERE in refusal:
            self._on_elsewhere(refusal)
        if not self._is_lost:
            self._due.popleft()
            due(message)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, bytes, int, float)) else str(value)
