"""The message journal: events appended to many messages in one statement, each exactly once.

Sequence numbers are allocated where the events are inserted. A part names the attempt that it is
of and the sequence number that it follows on, so an older writer is refused, and a part that is
tried again because nobody knows whether it was committed is not written twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import tuple_row

Connection = psycopg.Connection[Any]

# SQLSTATE classes of what is wrong with a row and stays so: data, integrity, a view's check, a
# limit of Postgres, a trigger that raised.
_REFUSALS = ("22", "23", "44", "54", "P0")


class NewEvent(NamedTuple):
    """An event to be written: `payload` is one line of ASCII JSON."""

    type: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """What one attempt has to write; with a `status` its message is over after it."""

    message_id: str
    attempt: int
    after: int  # the sequence number before its first event
    events: Sequence[NewEvent]
    status: str | None = None
    error_code: str | None = None


class Verdict(Enum):
    """What became of a part."""

    WRITTEN = "written"
    FENCED = "fenced"  # another attempt, or the reaper, has the message
    GONE = "gone"  # the message was deleted
    BUSY = "busy"  # somebody has its row locked: nothing was written, and it is to be tried again


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a part, and which of its events Postgres refused."""

    verdict: Verdict
    last: int = -1  # the message's last sequence number, where it was written to
    written: Sequence[NewEvent] = ()
    stop_requested: bool = False
    finished: bool = False
    refused: Sequence[tuple[NewEvent, psycopg.Error]] = field(default=())


# A row that somebody else has locked is left for the next time: whoever that is, and be it an
# earlier try of this one whose connection broke, no other message waits for it.
_APPEND = """
WITH batch AS (
    SELECT *, sum(events) OVER (ORDER BY place) - events AS skipped
    FROM unnest(
        %(ids)s::uuid[], %(attempts)s::int[], %(afters)s::bigint[], %(events)s::int[],
        %(statuses)s::text[], %(codes)s::text[]
    ) WITH ORDINALITY AS part(id, attempt, after, events, status, code, place)
), locked AS (
    SELECT batch.* FROM batch JOIN messages m ON m.id = batch.id
    WHERE m.attempt = batch.attempt AND m.last_sequence = batch.after AND m.finished_at IS NULL
    FOR NO KEY UPDATE OF m SKIP LOCKED
), taken AS (
    UPDATE messages m SET
        last_sequence = b.after + b.events,
        status = coalesce(b.status, 'writing'),
        error_code = b.code,
        finished_at = CASE WHEN b.status IS NOT NULL THEN now() END,
        heartbeat_at = now()
    FROM locked b WHERE m.id = b.id
    RETURNING m.day, m.stop_requested, b.*
), written AS (
    INSERT INTO message_events (day, message_id, sequence_no, event_type, payload)
    SELECT t.day, t.id, t.after + e.number - t.skipped, e.type, e.payload::json
    FROM unnest(
        string_to_array(%(types)s, E'\\n'), string_to_array(%(payloads)s, E'\\n'),
        string_to_array(%(places)s, ',')::int[]
    ) WITH ORDINALITY AS e(type, payload, place, number)
    JOIN taken t ON t.place = e.place
)
SELECT place, stop_requested FROM taken
"""

_STATES = """
SELECT id::text, attempt, last_sequence, stop_requested, finished_at IS NOT NULL
FROM messages WHERE id = ANY(%s::uuid[])
"""


def append(connection: Connection, parts: Sequence[Part]) -> list[Outcome]:
    """Writes what several attempts have, all in one transaction, and returns what became of each.

    Where Postgres refuses a row, the others are written: halves are tried until it is found. May be
    called again with the same parts after an exception.

    Args:
        connection: in autocommit mode.
        parts: each of another attempt.

    Raises:
        psycopg.Error: nothing of it was written, or nobody knows. Nothing is wrong with it.
    """
    try:
        return _append(connection, parts)
    except psycopg.Error as error:
        if not _is_refusal(error):
            raise
    with connection.transaction():
        return _append_good(connection, parts)


def _is_refusal(error: psycopg.Error) -> bool:
    return (error.sqlstate or "")[:2] in _REFUSALS


def _append_good(connection: Connection, parts: Sequence[Part]) -> list[Outcome]:
    """Writes what can be written, each try in a savepoint of its own."""
    try:
        with connection.transaction():
            return _append(connection, parts)
    except psycopg.Error as error:
        if not _is_refusal(error):
            raise
        refusal = error
    if len(parts) == 1:
        return [_append_halves(connection, parts[0], refusal)]
    middle = len(parts) // 2
    return [*_append_good(connection, parts[:middle]), *_append_good(connection, parts[middle:])]


def _append_halves(connection: Connection, part: Part, refusal: psycopg.Error) -> Outcome:
    """Writes what can be written of one part."""
    if len(part.events) < 2:
        return Outcome(Verdict.WRITTEN, part.after, refused=[(e, refusal) for e in part.events])
    middle = len(part.events) // 2
    front = replace(part, events=part.events[:middle], status=None, error_code=None)
    first = _append_good(connection, [front])[0]
    if first.verdict is not Verdict.WRITTEN:
        return first
    rest = replace(part, events=part.events[middle:], after=first.last)
    second = _append_good(connection, [rest])[0]
    return replace(
        second,
        written=[*first.written, *second.written],
        refused=[*first.refused, *second.refused],
    )


def _append(connection: Connection, parts: Sequence[Part]) -> list[Outcome]:
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(_APPEND, _values(parts)).fetchall()
        stops: dict[int, bool] = dict(rows)
        unknown = [part for place, part in enumerate(parts, 1) if place not in stops]
        states = _states(cursor, unknown) if unknown else {}
    return [
        _written(part, stops[place]) if place in stops else _found(part, states)
        for place, part in enumerate(parts, 1)
    ]


def _written(part: Part, stop_requested: bool) -> Outcome:
    last = part.after + len(part.events)
    return Outcome(
        Verdict.WRITTEN, last, part.events, stop_requested, finished=part.status is not None
    )


def _values(parts: Sequence[Part]) -> dict[str, Any]:
    """The values of the statement. Events go as lines of text: lists would take far longer."""
    events = [event for part in parts for event in part.events]
    places = [f"{place}," * len(part.events) for place, part in enumerate(parts, 1)]
    return {
        "ids": [part.message_id for part in parts],
        "attempts": [part.attempt for part in parts],
        "afters": [part.after for part in parts],
        "events": [len(part.events) for part in parts],
        "statuses": [part.status for part in parts],
        "codes": [part.error_code for part in parts],
        "types": "\n".join([event.type for event in events]),
        "payloads": b"\n".join([event.payload for event in events]).decode("ascii"),
        "places": "".join(places)[:-1],
    }


def _states(cursor: psycopg.Cursor[Any], parts: Sequence[Part]) -> dict[str, tuple[Any, ...]]:
    ids = [part.message_id for part in parts]
    return {row[0]: row[1:] for row in cursor.execute(_STATES, (ids,)).fetchall()}


def _found(part: Part, states: dict[str, tuple[Any, ...]]) -> Outcome:
    """What became of a part that was not written now: perhaps an earlier try was committed."""
    if part.message_id not in states:
        return Outcome(Verdict.GONE)
    attempt, last, stop_requested, is_over = states[part.message_id]
    if attempt != part.attempt or last < part.after or (is_over and last == part.after):
        return Outcome(Verdict.FENCED)
    if last == part.after:
        return Outcome(Verdict.BUSY, last, (), stop_requested)
    if last == part.after + len(part.events):
        return _written(part, stop_requested)
    # This attempt alone could write: it was committed, less what was refused, nobody knows what.
    return Outcome(Verdict.WRITTEN, last, (), stop_requested, finished=part.status is not None)


_BEAT = """
WITH alive AS (
    SELECT m.id FROM messages m
    JOIN unnest(%(ids)s::uuid[], %(attempts)s::int[]) AS w(id, attempt) USING (id)
    WHERE m.attempt = w.attempt AND m.finished_at IS NULL
    FOR NO KEY UPDATE OF m SKIP LOCKED
)
UPDATE messages m SET heartbeat_at = now() FROM alive WHERE m.id = alive.id
"""


def beat(connection: Connection, attempts: Sequence[tuple[str, int]]) -> None:
    """Says of the attempts of these messages that they are alive, in one statement."""
    ids, numbers = [one for one, _ in attempts], [number for _, number in attempts]
    connection.execute(_BEAT, {"ids": ids, "attempts": numbers})


def look(connection: Connection, attempts: Sequence[tuple[str, int]]) -> list[Outcome]:
    """Returns for attempts that write nothing just now whether they still may, and are to stop."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(_STATES, ([message_id for message_id, _ in attempts],)).fetchall()
    states = {message_id: (number, stop) for message_id, number, _, stop, _ in rows}
    return [_outlook(states.get(message_id), number) for message_id, number in attempts]


def _outlook(state: tuple[int, bool] | None, number: int) -> Outcome:
    if state is None:
        return Outcome(Verdict.GONE)
    verdict = Verdict.WRITTEN if state[0] == number else Verdict.FENCED
    return Outcome(verdict, stop_requested=state[1])
