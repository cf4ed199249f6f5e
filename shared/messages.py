"""Messages, chat answers: who owns one, who may write to it, whether it is over.

What is written goes through `shared/message_journal.py`. An attempt is one writer's: the latest
alone may write. All moments are by Postgres's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import class_row, tuple_row

from shared.encoding import to_json
from shared.errors import (
    EventRefused,
    MalformedMessageId,
    MessageFinished,
    MessageGone,
    MessageTaken,
)
from shared.settings import get_settings
from shared.text import is_storable

PRODUCER_LOST = "producer_lost"
NEVER_STARTED = "never_started"
RESTART = "restart"
RESTART_PAYLOAD = to_json({"type": RESTART})

Connection = psycopg.Connection[Any]

_SENTENCES = {
    PRODUCER_LOST: "The answer stopped unexpectedly. Please ask again.",
    NEVER_STARTED: "Nothing took up this question in time. Please ask again.",
}
_STATE = (
    "id::text, status, day, attempt, last_sequence, stop_requested,"
    " created_at, heartbeat_at, finished_at, error_code"
)


@dataclass(frozen=True, slots=True)
class MessageState:
    """A message as it stands. Statuses: waiting, writing, finished, stopped, failed."""

    id: str
    status: str
    day: date  # its events' partition
    attempt: int
    last_sequence: int  # -1 while it has no event
    stop_requested: bool
    created_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None
    error_code: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """The right to write to a message, until somebody else gets it."""

    message_id: str
    number: int
    last_sequence: int
    stop_requested: bool
    restarted: bool  # a `restart` event was written, at `last_sequence`


@dataclass(frozen=True, slots=True)
class Ended:
    """A message that Postgres ended, and the terminal event that it got."""

    message_id: str
    sequence_no: int
    payload: str


def message_id_of(text: str | UUID) -> str:
    """Returns a message id in lower case.

    Raises:
        MalformedMessageId: it is no UUID in its usual form of 36 characters.
    """
    try:
        found = str(UUID(str(text)))
    except ValueError as error:
        raise MalformedMessageId from error
    if found != str(text).lower():
        raise MalformedMessageId
    return found


def create_message(
    connection: Connection, user_id: str, message_id: str | UUID | None = None
) -> str:
    """Makes a message that waits for a writer, and returns its id.

    One that is there, of the same user, is left as it is. The partition of its day is made if it
    is missing.

    Raises:
        MessageTaken: the id is that of another user's message.
        MalformedMessageId: the id is no UUID.
        EventRefused: the user id is empty, or no text that Postgres can keep.
    """
    if not (user_id and is_storable(user_id)):
        raise EventRefused("A message needs a user id: text that is not empty, without NUL.")
    wanted = message_id_of(message_id or uuid4())
    with connection.transaction():
        made = connection.execute(
            "INSERT INTO messages (id, user_id) VALUES (%s, %s) ON CONFLICT (id) DO NOTHING"
            " RETURNING make_message_day(day)",
            (wanted, user_id),
        ).fetchone()
        if made is None and message_state(connection, user_id, wanted) is None:
            raise MessageTaken
    return wanted


def message_state(connection: Connection, user_id: str, message_id: str) -> MessageState | None:
    """Returns a message as it stands; None where it is not there, or another user's."""
    with connection.cursor(row_factory=class_row(MessageState)) as cursor:
        return cursor.execute(
            f"SELECT {_STATE} FROM messages WHERE id = %s AND user_id = %s", (message_id, user_id)
        ).fetchone()


def request_stop(connection: Connection, user_id: str, message_id: str) -> MessageState | None:
    """Marks an open message, whose writer learns of it within a second; one that is over stays.

    Returns the state then; None where the message is not there, or another user's.
    """
    with connection.cursor(row_factory=class_row(MessageState)) as cursor:
        marked = cursor.execute(
            "UPDATE messages SET stop_requested = true"
            f" WHERE id = %s AND user_id = %s AND finished_at IS NULL RETURNING {_STATE}",
            (message_id, user_id),
        ).fetchone()
    return marked or message_state(connection, user_id, message_id)


# With `restart` a message that holds events gets a `restart` event, in the same step: no reader
# sees it open again and not be told to clear.
_BEGIN = """
WITH begun AS (
    UPDATE messages SET
        attempt = attempt + 1,
        status = 'writing',
        last_sequence = last_sequence + (%(restart)s AND last_sequence >= 0)::int,
        stop_requested = stop_requested AND finished_at IS NULL,
        heartbeat_at = now(),
        finished_at = NULL,
        error_code = NULL
    WHERE id = %(id)s AND user_id = %(user_id)s AND (finished_at IS NULL OR %(restart)s)
    RETURNING id, day, attempt, last_sequence, stop_requested,
        %(restart)s AND last_sequence >= 0 AS restarted
), told AS (
    INSERT INTO message_events (day, message_id, sequence_no, event_type, payload)
    SELECT day, id, last_sequence, %(type)s, %(payload)s::json FROM begun WHERE restarted
)
SELECT id::text AS message_id, attempt AS number, last_sequence, stop_requested, restarted
FROM begun
"""


def begin_attempt(
    connection: Connection, user_id: str, message_id: str, *, restart: bool = False
) -> Attempt:
    """Gives the right to write to a message, and takes it from whoever had it.

    Args:
        connection: the attempt begins when its transaction commits.
        user_id: the owner.
        message_id: one that was created.
        restart: opens a finished message again, and tells readers to clear what they have by a
            `restart` event, where there is any event.

    Raises:
        MessageFinished: it is over, and not to be restarted.
        MessageGone: it is not there, or another user's.
    """
    values = {"id": message_id, "user_id": user_id, "restart": restart}
    values |= {"type": RESTART, "payload": RESTART_PAYLOAD}
    with connection.cursor(row_factory=class_row(Attempt)) as cursor:
        begun = cursor.execute(_BEGIN, values).fetchone()
    if begun is not None:
        return begun
    raise MessageGone if message_state(connection, user_id, message_id) is None else MessageFinished


def release(connection: Connection, attempt: Attempt) -> None:
    """Gives a message back that another attempt will go on with, some time later.

    Until then it waits, and nobody's heartbeat is missed.
    """
    connection.execute(
        "UPDATE messages SET status = 'waiting', heartbeat_at = now()"
        " WHERE id = %s AND attempt = %s AND finished_at IS NULL",
        (attempt.message_id, attempt.number),
    )


# One statement, for any connection, also asyncio's; `stale_parameters` has its values. Whoever
# comes second finds the row locked, or finished. Silence counts from the start of the server at the
# earliest: while it was away, no writer could be heard.
END_STALE = """
WITH stale AS (
    SELECT id, CASE status WHEN 'waiting' THEN %(never_started)s ELSE %(producer_lost)s END AS code
    FROM messages
    WHERE finished_at IS NULL AND (%(message_id)s::uuid IS NULL OR id = %(message_id)s::uuid)
        AND greatest(heartbeat_at, pg_postmaster_start_time()) < now() - make_interval(
            secs => CASE status WHEN 'waiting' THEN %(waiting_seconds)s ELSE %(stale_seconds)s END)
    ORDER BY id LIMIT 500
    FOR UPDATE SKIP LOCKED
), ended AS (
    UPDATE messages m SET
        attempt = m.attempt + 1,
        status = 'failed',
        last_sequence = m.last_sequence + 1,
        finished_at = now(),
        error_code = stale.code
    FROM stale WHERE m.id = stale.id
    RETURNING m.id, m.day, m.last_sequence AS sequence_no,
        %(payloads)s::json ->> m.error_code AS payload
), told AS (
    INSERT INTO message_events (day, message_id, sequence_no, event_type, payload)
    SELECT day, id, sequence_no, 'error', payload::json FROM ended
)
SELECT id::text AS message_id, sequence_no, payload FROM ended
"""


def stale_parameters(stale_seconds: float, message_id: str | None = None) -> Mapping[str, Any]:
    """The values of `END_STALE`, for one message or for all."""
    return {
        "message_id": message_id,
        "stale_seconds": float(stale_seconds),
        "waiting_seconds": float(get_settings().ingest_queue_timeout_seconds),
        "producer_lost": PRODUCER_LOST,
        "never_started": NEVER_STARTED,
        "payloads": to_json({code: error_payload(code, of) for code, of in _SENTENCES.items()}),
    }


def end_stale(
    connection: Connection, stale_seconds: float, message_id: str | None = None
) -> list[Ended]:
    """Ends open messages whose writer is lost, once however many ask, and returns what they got.

    One that is being written lapses `stale_seconds` after its last heartbeat, one that waits for a
    writer `INGEST_QUEUE_TIMEOUT_SECONDS` after it began to wait. The attempt moves on, so that a
    writer which is alive after all writes no more.

    Args:
        connection: they are ended when its transaction commits; they are to be announced then.
        stale_seconds: as `MESSAGE_STALE_SECONDS`.
        message_id: ends this one alone, if it is stale.

    Returns:
        At most 500.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(END_STALE, stale_parameters(stale_seconds, message_id)).fetchall()
    return [Ended(*row) for row in rows]


def error_payload(code: str, sentence: str) -> str:
    """The payload of a terminal `error`."""
    return to_json({"type": "error", "code": code, "error": sentence})
