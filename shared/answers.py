"""An answer being written, event by event: what its author uses, in any process.

Events are journaled in the background, in order; leaving the block writes the terminal event and
waits until it is committed. So whoever reads learns how it ended, whatever became of the author.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal
from uuid import UUID

from shared.connections import postgres
from shared.encoding import to_json
from shared.errors import (
    EventRefused,
    EventStreamError,
    MessageGone,
    PostgresUnavailable,
    Stopped,
    TakenOver,
)
from shared.facts import ErrorInfo
from shared.message_flusher import Flusher, flusher
from shared.message_journal import NewEvent
from shared.message_pending import Writing
from shared.messages import begin_attempt, create_message, error_payload, release
from shared.payloads import LONGEST_TEXT
from shared.settings import get_settings

log = logging.getLogger(__name__)

OnRedelivery = Literal["skip", "restart"]

FINISH_SECONDS = 30.0  # that leaving the block waits for Postgres
_OWN_TYPES = {"end", "error", "backlog.truncated"}
_TYPE = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_INTERNAL = ErrorInfo("internal_error", "Something went wrong while this was being answered.")


class Answer:
    """A message that this process writes. Not to be used in a child that was forked meanwhile."""

    def __init__(self, flusher: Flusher, writing: Writing) -> None:
        self.message_id = writing.attempt.message_id
        self.attempt = writing.attempt.number
        self.heard_stop = False  # its author was told to stop
        self._flusher = flusher
        self._writing = writing
        self._max_bytes = get_settings().event_max_bytes

    def emit(self, event_type: str, payload: Mapping[str, Any]) -> None:
        """Adds an event. Returns at once, unless Postgres doesn't keep up.

        Args:
            event_type: such as `answer`, `thought`, `source`, `tool_call`: letters, digits, `_`,
                `.` and `-`. `end` and `error` are what leaving the block writes.
            payload: a JSON object without `type`; datetimes, UUIDs, Decimals, enums and dataclasses
                are encoded.

        Raises:
            EventRefused: this event can't be written as it is, or Postgres refused one before. No
                other is lost.
            Stopped: somebody asked the answer to stop.
            TakenOver, MessageGone: nothing more can be written.
            PostgresUnavailable: it has taken nothing for 30 seconds. The event is not written.
        """
        event = NewEvent(event_type, _encode(event_type, payload, self._max_bytes))
        if self.stopped():
            raise Stopped
        self._check_process()
        self._flusher.pending.put(self._writing, event)

    def stopped(self) -> bool:
        """Whether somebody asked the answer to stop. Its author then leaves the block soon."""
        self.heard_stop |= self._writing.stop_requested
        return self.heard_stop

    @property
    def is_mine(self) -> bool:
        """Whether this is the process that writes it."""
        return self._flusher.process == os.getpid()

    def finish_well(self) -> None:
        """Writes `end`, which says whether the author was stopped, and waits for the commit."""
        if self.heard_stop:
            self.finish("stopped", to_json({"type": "end", "stopped": True}))
        else:
            self.finish("finished", to_json({"type": "end"}))

    def finish(self, status: str, payload: str, code: str | None = None) -> None:
        """Writes the terminal event, and waits until it is committed."""
        event = NewEvent("error" if code else "end", payload.encode("ascii"))
        self._flusher.pending.finish(self._writing, event, status, code, FINISH_SECONDS)

    def give_back(self) -> None:
        """Writes what is pending; the message waits for another attempt."""
        self._flusher.pending.settle_down(self._writing, FINISH_SECONDS)
        with postgres() as connection:
            release(connection, self._writing.attempt)

    def leave(self) -> None:
        """Is no longer watched."""
        self._flusher.pending.remove(self._writing)

    def _check_process(self) -> None:
        if not self.is_mine:
            raise EventStreamError("An answer is written by the process that began it.")


def internal_error(error: BaseException) -> ErrorInfo:
    """What a user is told of an exception that nobody has described."""
    return _INTERNAL


class Block:
    """The block that an answer is written in. One that is never left is taken for lost in time."""

    def __init__(
        self,
        message_id: str | UUID,
        user_id: str,
        on_redelivery: OnRedelivery,
        describe: Callable[[BaseException], ErrorInfo],
        comes_again: Callable[[BaseException], bool],
    ) -> None:
        self._message_id = message_id
        self._user_id = user_id
        self._restart = on_redelivery == "restart"
        self._describe = describe
        self._comes_again = comes_again
        self._answer: Answer | None = None

    def __enter__(self) -> Answer:
        with postgres() as connection:
            message_id = create_message(connection, self._user_id, self._message_id)
            attempt = begin_attempt(connection, self._user_id, message_id, restart=self._restart)
        own = flusher()
        self._answer = Answer(own, own.open(attempt))
        return self._answer

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        found, self._answer = self._answer, None
        if found is None or not found.is_mine or isinstance(error, (TakenOver, MessageGone)):
            return False
        try:
            if error is None or isinstance(error, Stopped):
                found.finish_well()
                return True
            self._fail(found, error)
            return False
        finally:
            found.leave()

    def _fail(self, found: Answer, error: BaseException) -> None:
        """Tells readers of an exception, which goes on whatever becomes of that."""
        try:
            if self._comes_again(error):
                found.give_back()
                return
            info = self._describe(error)
            payload = error_payload(info.code, info.message[:LONGEST_TEXT])
            found.finish("failed", payload, info.code)
        except (PostgresUnavailable, TakenOver, MessageGone) as trouble:
            log.error("the end of message %s is not written: %s", found.message_id, trouble)


def answer(
    message_id: str | UUID,
    user_id: str,
    on_redelivery: OnRedelivery = "skip",
    *,
    describe: Callable[[BaseException], ErrorInfo] = internal_error,
    comes_again: Callable[[BaseException], bool] = lambda error: False,
) -> Block:
    """Lends a message to be written, event by event, for the length of a `with` block.

    Makes the message unless it is there. Leaving the block writes `end`; an exception writes
    `error`, with a code and a sentence, and goes on. `Stopped` ends the block, and the answer with
    `end`, `{"stopped": true}`, and does not go on.

    Args:
        message_id: a UUID.
        user_id: the owner.
        on_redelivery: where an earlier attempt has written events, `restart` begins anew: a
            `restart` event tells readers to clear what they have. With `skip`, a message that is
            finished stays so, and one that is open is continued.
        describe: says what a user is told of an exception.
        comes_again: says of an exception that the message will be written by another attempt, so
            that it stays open.

    Entering and leaving raise:
        MessageFinished: it is finished, and `on_redelivery` is `skip`.
        MessageTaken: it is another user's.
        PostgresUnavailable: it can't be begun, or its end was not committed within 30 seconds.
    """
    return Block(message_id, user_id, on_redelivery, describe, comes_again)


def _encode(event_type: str, payload: Mapping[str, Any], max_bytes: int) -> bytes:
    if not (isinstance(event_type, str) and _TYPE.fullmatch(event_type)):
        raise EventRefused(
            "An event's type has up to 100 letters, digits, '_', '.' and '-', unlike "
            f"{event_type!r}."
        )
    if event_type in _OWN_TYPES:
        raise EventRefused(f"{event_type} is what ends an answer: leave the block instead.")
    if not isinstance(payload, Mapping):
        raise EventRefused(f"A payload is a mapping, not {type(payload).__name__}.")
    if "type" in payload:
        raise EventRefused("A payload has no member 'type': that is the event's own.")
    text = to_json({"type": event_type, **payload})
    if len(text) > max_bytes:
        raise EventRefused(
            f"The event {event_type} has {len(text)} bytes; EVENT_MAX_BYTES allows {max_bytes}."
        )
    return text.encode("ascii")
