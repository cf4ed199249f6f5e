"""What tests of answers see: the journal in Postgres, and a flusher of the test's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from shared import message_flusher
from shared.connections import close_pools
from shared.message_flusher import close_flusher
from shared.messages import MessageState, message_state
from shared.settings import get_settings

Connection = psycopg.Connection[Any]
USER = "alice"


@contextmanager
def journal(patch: pytest.MonkeyPatch, redis_url: str, database_url: str) -> Iterator[Connection]:
    """A connection to the database that answers are written to, within the block."""
    patch.setenv("REDIS_URL", redis_url)
    patch.setenv("DATABASE_URL", database_url)
    get_settings.cache_clear()
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection
        close_flusher()
        message_flusher._flushers.clear()
        close_pools()


def events(connection: Connection, message_id: str) -> list[dict[str, Any]]:
    """The payloads of a message, whose sequence numbers are contiguous from 0."""
    rows = connection.execute(
        "SELECT sequence_no, event_type, payload::text FROM message_events"
        " WHERE message_id = %s ORDER BY sequence_no",
        (message_id,),
    ).fetchall()
    assert [number for number, _, _ in rows] == list(range(len(rows)))
    found = [json.loads(payload) for _, _, payload in rows]
    assert [kind for _, kind, _ in rows] == [payload["type"] for payload in found]
    return found


def kinds(connection: Connection, message_id: str) -> list[str]:
    """The types of a message's events."""
    return [payload["type"] for payload in events(connection, message_id)]


def numbers(payloads: Sequence[dict[str, Any]]) -> list[int]:
    """The `n` of the payloads that have one."""
    return [payload["n"] for payload in payloads if "n" in payload]


def state(connection: Connection, message_id: str) -> MessageState:
    """A message of `USER` that is there."""
    found = message_state(connection, USER, message_id)
    assert found is not None
    return found
