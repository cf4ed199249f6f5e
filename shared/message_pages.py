"""Pages of a message's journal: what to ask Postgres for, and what its rows say.

One statement each, so that the events and the state of the message are of one moment; for any
connection, also asyncio's. Each asserts who owns the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared import wire
from shared.pages import MOST_BYTES, Page, Status, how_many

DAY = "SELECT day FROM messages WHERE id = %(id)s AND user_id = %(user_id)s"

# Silence counts from the start of the server at the earliest, as in `END_STALE`.
_STATE = """
m.last_sequence, m.finished_at IS NOT NULL, m.status = 'writing'
    AND greatest(m.heartbeat_at, pg_postmaster_start_time())
        < now() - make_interval(secs => %(stale_seconds)s)
"""

# `day` never changes, and names the one partition to look at.
PAGE = f"""
SELECT {_STATE}, e.sequence_no, e.payload::text
FROM messages m
LEFT JOIN message_events e
    ON e.day = %(day)s AND e.message_id = m.id AND e.sequence_no > %(after)s
WHERE m.id = %(id)s AND m.user_id = %(user_id)s
ORDER BY e.sequence_no
LIMIT %(limit)s
"""

STATES = f"""
SELECT m.id::text, {_STATE}
FROM unnest(%(ids)s::uuid[], %(user_ids)s::text[]) AS wanted (id, user_id)
JOIN messages m ON m.id = wanted.id AND m.user_id = wanted.user_id
"""

TEXT = """
SELECT e.payload::text -- what is in it may be more than Postgres takes as text: NUL
FROM message_events e
WHERE e.day = %(day)s AND e.message_id = %(id)s AND e.event_type = 'answer'
    AND e.sequence_no <= %(last)s AND e.sequence_no > coalesce((
        SELECT max(sequence_no) FROM message_events
        WHERE day = %(day)s AND message_id = %(id)s AND event_type = 'restart'
            AND sequence_no <= %(last)s), -1)
ORDER BY e.sequence_no
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a message is. It is stale where nothing was heard of its writer for too long."""

    last_sequence: int
    finished: bool
    stale: bool


def standing_of(row: Sequence[Any]) -> Standing:
    """What a row's first columns say."""
    last_sequence, finished, stale = row[:3]
    return Standing(last_sequence, finished, stale and not finished)


def page_of_message(cursor: str, limit: int, rows: Sequence[Sequence[Any]]) -> Page:
    """The page after a cursor, of at most `limit` events and 1 MiB, unless the first is larger.

    Args:
        cursor: a sequence number, or `-1`.
        limit: what was asked for.
        rows: the answer to `PAGE`; none where the message is gone, and nothing follows.
    """
    if not rows:
        return _end(cursor)
    state = standing_of(rows[0])
    if int(cursor) > state.last_sequence:
        first, oldest = wire.BEFORE_FIRST, None if state.last_sequence < 0 else "0"
        return Page(Status.JOURNAL_RESET, first, oldest, 0, first, b"", more=True)
    events = [row[3:] for row in rows if row[3] is not None]
    frames = [wire.message_frame(number, payload.encode()) for number, payload in events]
    if sum(map(len, frames)) > MOST_BYTES:
        del frames[how_many(frames) :]
    number = len(frames)
    end = str(events[number - 1][0]) if number else cursor
    more = int(end) < state.last_sequence
    if more and not number:  # its day is just being pruned
        return _end(cursor)
    is_last = state.finished and not more
    return Page(Status.OK, cursor, None, number, end, b"".join(frames), more, is_last)


def _end(cursor: str) -> Page:
    return Page(Status.OK, cursor, None, 0, cursor, b"", more=False, is_last=True)
