"""The event outbox: events that commit, or roll back, with a caller's own Postgres transaction.

A row gets its position at commit, so positions rise in the order of commits (see
`migrations/0002_event_outbox.sql`). The active relay publishes the rows and deletes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row, tuple_row

from shared.encoding import encode_body
from shared.errors import EventRefused
from shared.settings import get_settings
from shared.text import is_storable

CHANNEL = "event_outbox"  # notified at each commit with events

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A committed event that is not published yet."""

    position: int
    user_id: str
    body: str


def enqueue_user_event(
    conn: Connection | psycopg.Cursor[Any],
    user_id: str,
    event_type: str,
    payload: Mapping[str, Any],
    *,
    scope: Mapping[str, Any] | None = None,
) -> None:
    """Publishes an event to a user if, and when, the caller's transaction commits.

    Inserts one row and never commits. The active relay publishes it within tens of milliseconds
    of the commit, once, and events of several transactions in the order of their commits. With
    `ENABLE_SSE_PUSH=false` nothing is inserted.

    Args:
        conn: a psycopg connection to `DATABASE_URL`, or a cursor of one, whose own result is
            left alone.
        user_id: whose stream.
        event_type: a dotted name, such as `tool.approval.required`.
        payload: a JSON object; datetimes, UUIDs, Decimals, enums and dataclasses are encoded.
        scope: what the event is about, such as `{"kind": "source", "id": "..."}`.

    Raises:
        EventRefused: the event can't be published as it is; the database was not touched.
        psycopg.Error: the row can't be inserted.
    """
    connection = conn.connection if isinstance(conn, psycopg.Cursor) else conn
    if not isinstance(connection, psycopg.Connection):  # asyncio's would do nothing, in silence
        raise TypeError(f"conn is a psycopg.Connection or Cursor, not {type(conn).__name__}.")
    settings = get_settings()
    body = encode_body(
        user_id, event_type, payload, scope=scope, max_bytes=settings.event_max_bytes
    )
    if not is_storable(user_id):
        raise EventRefused("A user id with a NUL can't be kept in Postgres.")
    if settings.enable_sse_push:
        # A cursor of psycopg's own kind, whatever factories the connection has.
        psycopg.Cursor(connection, row_factory=tuple_row).execute(
            "INSERT INTO event_outbox (user_id, body) VALUES (%s, %s)", (user_id, body)
        )


def identity(connection: Connection) -> str:
    """The name of this database's outbox, unlike any other's."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT id::text FROM event_outbox_identity").fetchone()
    if row is None:
        raise psycopg.DataError("The table event_outbox_identity is empty")
    return str(row[0])


def waiting(connection: Connection, limit: int) -> list[Waiting]:
    """The committed events to be published next, in order."""
    with connection.cursor(row_factory=class_row(Waiting)) as cursor:
        return cursor.execute(
            "SELECT position, user_id, body FROM event_outbox"
            " WHERE refused IS NULL AND position IS NOT NULL ORDER BY position LIMIT %s",
            (limit,),
        ).fetchall()


def forget(connection: Connection, published: Sequence[Waiting]) -> None:
    """Deletes what is published; what was set aside stays."""
    connection.execute(
        "DELETE FROM event_outbox WHERE position = ANY(%s) AND refused IS NULL",
        ([event.position for event in published],),
    )


def set_aside(connection: Connection, event: Waiting, reason: str) -> None:
    """Keeps an event that Redis will never take, with the reason, and out of the others' way."""
    connection.execute(
        "UPDATE event_outbox SET refused = %s WHERE position = %s", (reason, event.position)
    )
