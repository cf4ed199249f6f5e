"""What removing a day of the message journal costs: by dropping its table, and by DELETE."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date, timedelta

import psycopg

from shared.message_days import prune, session, today

EVENTS_OF_AN_ANSWER = 2000
AGE_DAYS = 40
SHARE = 100  # of the smaller day: so many times fewer rows


def prune_cost(url: str, rows: int, say: Callable[[str], None]) -> dict[str, float]:
    """A day of so many rows, and one of a hundredth, each beside another day that stays."""
    with session(url) as connection:
        before = today(connection) - timedelta(days=AGE_DAYS - 1)
        day = before - timedelta(days=1)
        _fill(connection, day, rows, say)
        began = time.perf_counter()
        connection.execute("DELETE FROM message_events WHERE day = %s", (day,))
        connection.execute("DELETE FROM messages WHERE day = %s", (day,))
        delete_s = time.perf_counter() - began
        _prune_s(connection, before)
        seconds = []
        for number in (rows // SHARE, rows):
            _fill(connection, day, number, say)
            seconds.append(_prune_s(connection, before))
    return {
        "prune.rows": rows,
        "prune.drop_s": seconds[1],
        "prune.hundredth_s": seconds[0],
        "prune.times": seconds[1] / seconds[0],
        "prune.delete_s": delete_s,
    }


def _prune_s(connection: psycopg.Connection[tuple[object, ...]], before: date) -> float:
    began = time.perf_counter()
    assert len(prune(connection, before).removed) == 1
    return time.perf_counter() - began


def _fill(
    connection: psycopg.Connection[tuple[object, ...]],
    day: date,
    rows: int,
    say: Callable[[str], None],
) -> None:
    """Makes a day of finished answers, in order, as they are written."""
    began = time.perf_counter()
    answers = max(1, rows // EVENTS_OF_AN_ANSWER)
    connection.execute("SELECT make_message_day(%s)", (day,))
    connection.execute(
        "INSERT INTO messages (id, user_id, day, status, last_sequence, finished_at)"
        " SELECT gen_random_uuid(), 'benchmark', %s, 'finished', %s, now()"
        " FROM generate_series(1, %s)",
        (day, rows // answers - 1, answers),
    )
    connection.execute(
        "INSERT INTO message_events (day, message_id, sequence_no, event_type, payload)"
        ' SELECT day, id, n, \'answer\', \'{"type":"answer","answer":"word by word"}\''
        " FROM messages, generate_series(0, last_sequence) n WHERE day = %s",
        (day,),
    )
    connection.execute("CHECKPOINT")
    say(f"a day of {rows:,} rows made in {time.perf_counter() - began:.1f} s")
