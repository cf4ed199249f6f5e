"""The days of the message journal: made ahead, and removed as a whole when they are old.

What a removal costs does not depend on the events of the day, nor on other days. A day goes in
three steps, its messages, its place in the journal, its table; one that broke off is gone on with
by the next pruning. A day that holds an open message is left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from shared.connections import postgres_session
from shared.errors import PostgresUnavailable

log = logging.getLogger(__name__)

DAYS_AHEAD = 3
LOCK_MS = 2000  # that a removal waits for others, who would wait behind it
TRIES = 3
KEPT_DAYS = 90  # that the report of a pruning is kept
_LOCK = 0x7072756E65  # "prune": the advisory lock of whoever is at it
_MARK = "being pruned"  # the comment of a table that is on its way out

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the journal, with the number of its messages and events, and its size on disk."""

    day: date
    messages: int
    events: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a pruning removed, or a dry run would; `kept` are days that have to wait."""

    before: date
    removed: list[Day] = field(default_factory=list)
    kept: list[date] = field(default_factory=list)
    is_elsewhere: bool = False  # somebody else is at it, and nothing was done

    @property
    def messages(self) -> int:
        """The number of messages that were removed."""
        return sum(day.messages for day in self.removed)

    @property
    def events(self) -> int:
        """The number of their events."""
        return sum(day.events for day in self.removed)

    @property
    def bytes(self) -> int:
        """What they took on disk."""
        return sum(day.bytes for day in self.removed)


@dataclass(frozen=True, slots=True)
class _Old:
    """An old day as the catalogue has it; `table` is None where only messages are left."""

    day: date
    table: str | None
    attached: bool
    detaching: bool
    bytes: int


@contextmanager
def session(database_url: str) -> Iterator[Connection]:
    """A connection for prunings, in autocommit mode.

    Raises:
        PostgresUnavailable: it can't be had.
    """
    try:
        connection = postgres_session(database_url, "eventstream-retention")
    except psycopg.OperationalError as error:
        raise PostgresUnavailable(f"The database can't be reached: {error}") from error
    with connection:
        yield connection


def today(connection: Connection) -> date:
    """The day in UTC, by Postgres's clock."""
    row = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone()
    assert row is not None
    found: date = row[0]
    return found


def make_days_ahead(connection: Connection) -> int:
    """Makes today's partition and those of the next days; returns how many there were not."""
    row = connection.execute(
        "SELECT count(*) FILTER (WHERE make_message_day((now() AT TIME ZONE 'UTC')::date + n))"
        " FROM generate_series(0, %s) n",
        (DAYS_AHEAD,),
    ).fetchone()
    return int(row[0]) if row else 0


def prune(connection: Connection, before: date, *, dry_run: bool = False) -> Pruned:
    """Removes the days before `before`, with their messages; reports it in `message_prunings`.

    Any number may be at it: one is, the others do nothing.

    Args:
        connection: as `session` makes it.
        before: at most today, so that no new message can be of such a day.
        dry_run: only tells.

    Raises:
        ValueError: `before` is later than today.
        psycopg.Error: Postgres went away, or a right is missing.
    """
    if before > today(connection):
        raise ValueError("Days that are not over are not removed.")
    if dry_run:
        return _would_prune(connection, before)
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
    if not (row and row[0]):
        return Pruned(before, is_elsewhere=True)
    try:
        return _prune(connection, before)
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))


def _prune(connection: Connection, before: date) -> Pruned:
    began = time.monotonic()
    connection.execute(f"SET lock_timeout = {LOCK_MS}")
    pruned = Pruned(before)
    for old in _old_days(connection, before):
        removed = _remove(connection, old)
        if removed is None:
            pruned.kept.append(old.day)
        else:
            pruned.removed.append(removed)
    _report(connection, pruned, time.monotonic() - began)
    return pruned


_OLD_DAYS = """
WITH tables AS (
    SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day, c.relname::text AS table,
        i.inhrelid IS NOT NULL AS attached, coalesce(i.inhdetachpending, false) AS detaching,
        pg_total_relation_size(c.oid) AS bytes
    FROM pg_class c
    LEFT JOIN pg_inherits i
        ON i.inhrelid = c.oid AND i.inhparent = 'message_events'::regclass
    WHERE c.relkind = 'r' AND c.relname ~ '^message_events_[0-9]{8}$'
        AND c.relnamespace =
            (SELECT relnamespace FROM pg_class WHERE oid = 'message_events'::regclass)
        AND (i.inhrelid IS NOT NULL OR obj_description(c.oid, 'pg_class') = %(mark)s)
)
SELECT coalesce(t.day, m.day) AS day, t.table, coalesce(t.attached, false) AS attached,
    coalesce(t.detaching, false) AS detaching, coalesce(t.bytes, 0) AS bytes
FROM tables t
FULL JOIN (SELECT DISTINCT day FROM messages WHERE day < %(before)s) m ON m.day = t.day
WHERE coalesce(t.day, m.day) < %(before)s
ORDER BY 4 DESC, 1 -- one that is being detached stands in the way of others
"""


def _old_days(connection: Connection, before: date) -> list[_Old]:
    with connection.cursor(row_factory=class_row(_Old)) as cursor:
        return cursor.execute(_OLD_DAYS, {"before": before, "mark": _MARK}).fetchall()


def _would_prune(connection: Connection, before: date) -> Pruned:
    pruned = Pruned(before)
    for old in _old_days(connection, before):
        row = connection.execute(
            "SELECT count(*), coalesce(sum(last_sequence + 1), 0),"
            " count(*) FILTER (WHERE finished_at IS NULL) FROM messages WHERE day = %s",
            (old.day,),
        ).fetchone()
        messages, events, unfinished = row or (0, 0, 0)
        if unfinished:
            pruned.kept.append(old.day)
        else:
            pruned.removed.append(Day(old.day, int(messages), int(events), old.bytes))
    return pruned


def _remove(connection: Connection, old: _Old) -> Day | None:
    """Removes a day; None where it has to wait."""
    try:
        found = _forget_messages(connection, old)
    except psycopg.errors.LockNotAvailable:
        return None
    if found is None:
        return None
    for _ in range(TRIES):
        try:
            _drop(connection, old)
            return Day(old.day, *found, old.bytes)
        except psycopg.errors.LockNotAvailable as error:
            log.info("the events of %s are in use: %s", old.day, error)
            old = _as_it_stands(connection, old)
    return None


def _forget_messages(connection: Connection, old: _Old) -> tuple[int, int] | None:
    """Deletes a day's messages, so that nobody reads or writes them any more, and marks its table.

    Returns their number and that of their events; None where one of them is open.
    """
    found: tuple[int, int] | None = None
    with connection.transaction() as transaction:
        if _holds_messages(connection, old.day, "finished_at IS NULL"):
            return None
        row = connection.execute(
            "WITH gone AS (DELETE FROM messages WHERE day = %s AND finished_at IS NOT NULL"
            " RETURNING last_sequence + 1 AS events)"
            " SELECT count(*), coalesce(sum(events), 0) FROM gone",
            (old.day,),
        ).fetchone()
        if _holds_messages(connection, old.day, "true"):  # it was restarted meanwhile
            raise psycopg.Rollback(transaction)
        if old.attached and not old.detaching and old.table:
            mark = sql.SQL("COMMENT ON TABLE {} IS {}")
            connection.execute(mark.format(sql.Identifier(old.table), sql.Literal(_MARK)))
        messages, events = row or (0, 0)
        found = int(messages), int(events)
    return found


def _holds_messages(connection: Connection, day: date, condition: LiteralString) -> bool:
    query = f"SELECT FROM messages WHERE day = %s AND {condition} LIMIT 1"
    return connection.execute(query, (day,)).fetchone() is not None


def _drop(connection: Connection, old: _Old) -> None:
    if old.table is None:
        return
    name = sql.Identifier(old.table)
    detach = "ALTER TABLE message_events DETACH PARTITION {} "
    if old.detaching:  # an earlier one broke off
        connection.execute(sql.SQL(detach + "FINALIZE").format(name))
    elif old.attached:
        connection.execute(sql.SQL(detach + "CONCURRENTLY").format(name))
    connection.execute(sql.SQL("DROP TABLE {}").format(name))


def _as_it_stands(connection: Connection, old: _Old) -> _Old:
    days = _old_days(connection, old.day + timedelta(days=1))
    return next((one for one in days if one.day == old.day), old)


def _report(connection: Connection, pruned: Pruned, seconds: float) -> None:
    connection.execute(
        "INSERT INTO message_prunings (before, removed, kept, messages, events, bytes, seconds)"
        " VALUES (%s, %s::date[], %s::date[], %s, %s, %s, %s)",
        (
            pruned.before,
            [day.day for day in pruned.removed],
            pruned.kept,
            pruned.messages,
            pruned.events,
            pruned.bytes,
            seconds,
        ),
    )
    connection.execute(
        "DELETE FROM message_prunings WHERE ran_at < now() - make_interval(days => %s)",
        (KEPT_DAYS,),
    )
