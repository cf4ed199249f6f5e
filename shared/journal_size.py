"""How large the message journal is, and what was last removed from it.

Read from Postgres's own statistics and from its files, so it costs the same whatever there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg
from psycopg.rows import class_row

from shared.encoding import to_iso

_Connection = psycopg.Connection[Any]

WAIT_MS = 500  # for a day that is being removed just now


@dataclass(frozen=True, slots=True)
class JournalSize:
    """The message journal: `events` and `messages` are Postgres's estimates.

    `oldest_day` is the first of its days, which may hold nothing.
    """

    days: int
    oldest_day: date | None
    newest_day: date | None
    events: int
    messages: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Pruning:
    """One pruning: the days before `before` were to go; `kept` are those that have to wait."""

    at: str
    before: date
    removed: int
    kept: int
    messages: int
    events: int
    bytes: int
    seconds: float


def journal_size(connection: _Connection) -> JournalSize:
    """The journal as it stands; raises psycopg.OperationalError where a day can't be looked at."""
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = {WAIT_MS}")
        with connection.cursor(row_factory=class_row(JournalSize)) as cursor:
            found = cursor.execute(_SIZE).fetchone()
    assert found is not None
    return found


def last_pruning(connection: _Connection) -> Pruning | None:
    """The last pruning that is on record; None where there is none."""
    row = connection.execute(
        "SELECT ran_at, before, cardinality(removed), cardinality(kept), messages, events, bytes,"
        " seconds FROM message_prunings ORDER BY id DESC LIMIT 1"
    ).fetchone()
    return None if row is None else Pruning(to_iso(row[0]), *row[1:])


# Not analyzed yet, reltuples is -1: then what the statistics have seen being written counts.
_SIZE = """
WITH tables AS (
    SELECT c.oid, c.reltuples, c.relname, i.inhparent IS NOT NULL AS is_day
    FROM pg_class c
    LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
    WHERE i.inhparent = 'message_events'::regclass OR c.oid = 'messages'::regclass
), sizes AS (
    SELECT t.is_day, t.relname, pg_total_relation_size(t.oid) AS bytes,
        greatest(t.reltuples, s.n_live_tup, 0)::bigint AS rows
    FROM tables t LEFT JOIN pg_stat_user_tables s ON s.relid = t.oid
)
SELECT count(*) FILTER (WHERE is_day)::int AS days,
    min(to_date(right(relname, 8), 'YYYYMMDD')) FILTER (WHERE is_day) AS oldest_day,
    max(to_date(right(relname, 8), 'YYYYMMDD')) FILTER (WHERE is_day) AS newest_day,
    coalesce(sum(rows) FILTER (WHERE is_day), 0)::bigint AS events,
    coalesce(sum(rows) FILTER (WHERE NOT is_day), 0)::bigint AS messages,
    coalesce(sum(bytes), 0)::bigint AS bytes
FROM sizes
"""
