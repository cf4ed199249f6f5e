"""The days of the message journal: made ahead, and removed as a whole when they are old.

What a removal costs does not depend on the events of the day, nor on other days. A day goes in
three steps, its messages, its place in the journal, its table; one that broke off is gone on with
by the next removal. A day that holds an open message is left.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from shared.connections import postgres_session
from shared.errors import PostgresUnavailable

log = logging.getLogger(__name__)

DAYS_AHEAD = 3
TRIES = 3  # to remove a table that is in use
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
class OldDay:
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


def old_days(connection: Connection, before: date) -> list[OldDay]:
    """The days before `before` that are there, in the order in which they can be removed."""
    with connection.cursor(row_factory=class_row(OldDay)) as cursor:
        return cursor.execute(_OLD_DAYS, {"before": before, "mark": _MARK}).fetchall()


def remove(connection: Connection, old: OldDay) -> Day | None:
    """Removes a day, and returns what it held; None where it has to wait."""
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


def _forget_messages(connection: Connection, old: OldDay) -> tuple[int, int] | None:
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


def _drop(connection: Connection, old: OldDay) -> None:
    if old.table is None:
        return
    name = sql.Identifier(old.table)
    detach = "ALTER TABLE message_events DETACH PARTITION {} "
    if old.detaching:  # an earlier one broke off
        connection.execute(sql.SQL(detach + "FINALIZE").format(name))
    elif old.attached:
        connection.execute(sql.SQL(detach + "CONCURRENTLY").format(name))
    connection.execute(sql.SQL("DROP TABLE {}").format(name))


def _as_it_stands(connection: Connection, old: OldDay) -> OldDay:
    days = old_days(connection, old.day + timedelta(days=1))
    return next((one for one in days if one.day == old.day), old)
