"""Days of the message journal are made ahead and removed as a whole, on a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from shared import message_days, message_pruning
from shared.message_days import make_days_ahead, session, today
from shared.message_pruning import Pruned, prune
from shared.messages import begin_attempt
from shared.settings import get_settings
from shared.signals import messages_pruned
from tests.commands import eventstream
from tests.conftest import RunningPostgres
from worker.retention import prune_messages, run_retention

Connection = psycopg.Connection[Any]
USER = "alice"


@pytest.fixture
def connection(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    get_settings.cache_clear()
    with session(database_url) as opened:
        yield opened


def back(connection: Connection, days: int) -> date:
    return today(connection) - timedelta(days=days)


def day_of(connection: Connection, days: int, events: int = 3, *, open: bool = False) -> str:
    """A message of so many days ago, with its events; returns its id."""
    message_id, day = str(uuid4()), back(connection, days)
    connection.execute("SELECT make_message_day(%s)", (day,))
    connection.execute(
        "INSERT INTO messages (id, user_id, day, status, last_sequence, finished_at)"
        " VALUES (%s, %s, %s, %s, %s, CASE WHEN NOT %s THEN now() END)",
        (message_id, USER, day, "writing" if open else "finished", events - 1, open),
    )
    connection.execute(
        "INSERT INTO message_events SELECT %s, %s, n, 'answer', '{}' FROM generate_series(0, %s) n",
        (day, message_id, events - 1),
    )
    return message_id


def tables(connection: Connection) -> set[str]:
    rows = connection.execute("SELECT relname FROM pg_class WHERE relname ~ '^message_events_2'")
    return {name for (name,) in rows if not name.endswith("_pkey")}


def table_of(day: date) -> str:
    return f"message_events_{day:%Y%m%d}"


def days_of(pruned: Pruned) -> list[date]:
    return [day.day for day in pruned.removed]


def test_days_are_made_ahead_once(connection: Connection) -> None:
    make_days_ahead(connection)
    assert make_days_ahead(connection) == 0
    for ahead in range(message_days.DAYS_AHEAD + 1):
        assert table_of(back(connection, -ahead)) in tables(connection)
    connection.execute(f"DROP TABLE {table_of(back(connection, -2))}")
    assert make_days_ahead(connection) == 1


def test_whole_days_that_are_old_are_removed_with_their_messages(connection: Connection) -> None:
    ages = (30, 16, 15, 14, 1, 0)
    ids = {age: day_of(connection, age) for age in ages}
    pruned = prune(connection, back(connection, 14))
    assert days_of(pruned) == [back(connection, age) for age in (30, 16, 15)]
    assert (pruned.messages, pruned.events, pruned.kept) == (3, 9, [])
    assert pruned.bytes > 0
    rows = connection.execute("SELECT id::text FROM messages").fetchall()
    assert {one for (one,) in rows} == {ids[age] for age in (14, 1, 0)}
    assert not {table_of(back(connection, age)) for age in (30, 16, 15)} & tables(connection)
    assert connection.execute("SELECT count(*) FROM message_events").fetchone() == (9,)
    assert prune(connection, back(connection, 14)).removed == []


def test_a_day_that_holds_an_open_message_is_left_for_the_next_run(
    connection: Connection,
) -> None:
    day_of(connection, 20)
    day_of(connection, 19)
    open_id = day_of(connection, 19, open=True)
    pruned = prune(connection, back(connection, 14))
    assert (days_of(pruned), pruned.kept) == ([back(connection, 20)], [back(connection, 19)])
    assert connection.execute("SELECT count(*) FROM message_events").fetchone() == (6,)
    assert begin_attempt(connection, USER, open_id).number == 1
    connection.execute("UPDATE messages SET finished_at = now(), status = 'finished'")
    assert days_of(prune(connection, back(connection, 14))) == [back(connection, 19)]


def test_a_dry_run_tells_the_same_and_changes_nothing(connection: Connection) -> None:
    day_of(connection, 20)
    day_of(connection, 19, open=True)
    would = prune(connection, back(connection, 14), dry_run=True)
    assert connection.execute("SELECT count(*) FROM message_events").fetchone() == (6,)
    assert connection.execute("SELECT count(*) FROM message_prunings").fetchone() == (0,)
    assert prune(connection, back(connection, 14)) == would


def test_a_day_that_is_not_over_is_never_removed(connection: Connection) -> None:
    with pytest.raises(ValueError, match="not over"):
        prune(connection, back(connection, -1))


def test_a_removal_that_broke_off_is_gone_on_with(
    connection: Connection, database_url: str
) -> None:
    """At each step: the messages are gone, the detachment is half done, the table is detached."""
    for age in (20, 19, 18):
        day_of(connection, age)
    old = message_days.old_days(connection, back(connection, 14))
    for day in old:
        message_days._forget_messages(connection, day)
    half, detached = table_of(back(connection, 19)), table_of(back(connection, 18))
    detach = "ALTER TABLE message_events DETACH PARTITION {} CONCURRENTLY"
    connection.execute(sql.SQL(detach).format(sql.Identifier(detached)))
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT FROM message_events")
        connection.execute("SET lock_timeout = 100")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            connection.execute(sql.SQL(detach).format(sql.Identifier(half)))
    pruned = prune(connection, back(connection, 14))
    assert sorted(days_of(pruned)) == [back(connection, age) for age in (20, 19, 18)]
    assert not {day.table for day in old} & tables(connection)


def test_a_table_that_somebody_else_detached_is_left_alone(connection: Connection) -> None:
    day_of(connection, 20)
    name = table_of(back(connection, 20))
    connection.execute(f"ALTER TABLE message_events DETACH PARTITION {name}")
    prune(connection, back(connection, 14))
    assert name in tables(connection)


def test_a_day_that_somebody_reads_waits_and_holds_up_nobody(
    connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_pruning, "LOCK_MS", 100)
    day_of(connection, 20)
    day_of(connection, 0)
    with psycopg.connect(database_url) as reader, ThreadPoolExecutor() as pool:
        reader.execute("SELECT FROM message_events WHERE day = %s", (back(connection, 20),))
        pruning = pool.submit(prune, connection, back(connection, 14))
        with psycopg.connect(database_url, autocommit=True) as writer:
            while not pruning.done():
                writer.execute("SET statement_timeout = 5000")
                day_of(writer, 0, events=1)
        assert pruning.result().kept == [back(connection, 20)]
    assert days_of(prune(connection, back(connection, 14))) == [back(connection, 20)]


def test_two_at_once_do_no_harm(connection: Connection, database_url: str) -> None:
    for age in range(15, 25):
        day_of(connection, age)

    def one(_: int) -> Pruned:
        with session(database_url) as own:
            return prune(own, back(own, 14))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    removed = [day for pruned in found for day in days_of(pruned)]
    assert sorted(removed) == [back(connection, age) for age in range(24, 14, -1)]


def test_a_run_after_a_week_catches_up_and_tells_of_it(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "worker.retention")
    for age in range(12, 22):
        day_of(connection, age)
    heard: list[Pruned] = []

    def hear(sender: Any, pruned: Pruned) -> None:
        heard.append(pruned)

    with messages_pruned.connected_to(hear):
        assert prune_messages() == 7
    assert len(heard[0].removed) == 7
    assert "7 of them removed, with 21 events, in 7 days; 0 days kept" in caplog.text
    row = connection.execute(
        "SELECT before, removed, kept, messages, events FROM message_prunings"
    ).fetchone()
    ages = range(21, 14, -1)
    assert row == (back(connection, 14), [back(connection, age) for age in ages], [], 7, 21)
    assert table_of(back(connection, -message_days.DAYS_AHEAD)) in tables(connection)


def test_the_retention_is_a_setting(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESSAGE_EVENTS_RETENTION_DAYS", "2")
    get_settings.cache_clear()
    for age in (4, 3, 2):
        day_of(connection, age)
    assert days_of(run_retention()) == [back(connection, 4), back(connection, 3)]


@pytest.mark.parametrize("rest", [["--days", "3"], ["--before", "{before}"], []])
def test_the_command_tells_and_removes(
    connection: Connection, database_url: str, rest: list[str]
) -> None:
    for age in (20, 4, 3):
        day_of(connection, age)
    day_of(connection, 18, open=True)
    rest = [word.format(before=back(connection, 3)) for word in rest]
    old = [20, 4] if rest else [20]
    with eventstream("prune", "--dry-run", *rest, DATABASE_URL=database_url) as command:
        assert command.wait() == 0, command.output
    for age in old:
        assert f"{back(connection, age)}: 1 answers, 3 events, " in command.output
    assert f"{back(connection, 18)}: kept" in command.output
    assert "would be removed" in command.output
    with eventstream("prune", *rest, DATABASE_URL=database_url) as command:
        assert command.wait() == 0, command.output
    assert command.output.count(": removed") == len(old)
    assert connection.execute("SELECT count(*) FROM messages").fetchone() == (4 - len(old),)


def test_the_command_refuses_a_day_that_is_not_over(database_url: str) -> None:
    with eventstream("prune", "--before", "2999-01-01", DATABASE_URL=database_url) as command:
        assert command.wait() == 2
    assert "today in UTC" in command.output


def test_the_command_says_what_postgres_lacks(postgres_server: RunningPostgres) -> None:
    with eventstream("prune", DATABASE_URL=postgres_server.url) as command:
        assert command.wait() == 1
    assert "Postgres did not do it: " in command.output
    assert "Traceback" not in command.output


def test_a_message_is_read_in_one_partition_however_many_there_are(
    connection: Connection,
) -> None:
    for age in range(30):
        day_of(connection, age)
    row = connection.execute(
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT payload FROM message_events"
        " WHERE day = %s AND message_id = %s AND sequence_no > 0 ORDER BY sequence_no LIMIT 200",
        (back(connection, 7), str(uuid4())),
    ).fetchone()
    assert row is not None
    plan = json.dumps(row[0])
    assert plan.count('"Relation Name"') == 1 and table_of(back(connection, 7)) in plan
