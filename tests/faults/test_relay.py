"""The relay is killed, hangs, or loses one of its servers while events are enqueued."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import redis

from shared import event_outbox, keys
from shared import relay as relay_module
from shared.connections import AnyRedis, app_redis
from shared.event_outbox import enqueue_user_event
from shared.relay import Relay
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.servers import celery_worker
from tests.slow_redis import SlowRedis

USER = "alice"
ACTIVE = "this worker relays the event outbox"
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'eventstream-relay'"


@pytest.fixture
def connection(
    redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[psycopg.Connection[Any]]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("DATABASE_URL", database_url)
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


@contextmanager
def relaying(database_url: str, client: Callable[[], AnyRedis] = app_redis) -> Iterator[None]:
    relay = Relay(database_url, client)
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        yield
    finally:
        relay.stop()
        thread.join()


def enqueue(connection: psycopg.Connection[Any], numbers: range) -> None:
    for n in numbers:
        enqueue_user_event(connection, USER, "test.event", {"n": n})


def journaled(url: str) -> list[int]:
    with redis.Redis.from_url(url) as client:
        rows: Any = client.xrange(keys.stream(USER))
    return [json.loads(fields[b"e"])["payload"]["n"] for _, fields in rows]


def value(connection: psycopg.Connection[Any], query: Any) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_another_worker_takes_over_from_one_that_is_killed_or_hangs(
    connection: psycopg.Connection[Any], redis_url: str, database_url: str, number: int
) -> None:
    options = ("--concurrency", "2")
    with celery_worker(redis_url, database_url, *options) as first:
        wait_until(lambda: ACTIVE in first.last_lines(), "the first")
        with celery_worker(redis_url, database_url, *options) as second:
            wait_until(lambda: value(connection, SESSIONS) == 2, "a relay for each worker")
            assert ACTIVE not in second.last_lines()
            enqueue(connection, range(300))
            wait_until(lambda: journaled(redis_url), "the first of them")
            os.kill(first.pid, number)
            began = time.monotonic()
            enqueue(connection, range(300, 400))
            wait_until(lambda: len(journaled(redis_url)) >= 400, "all of them")
            assert time.monotonic() - began < (10 if number == signal.SIGKILL else 25)
            wait_until(
                lambda: value(connection, "SELECT count(*) FROM event_outbox") == 0, "no rows"
            )
            if number == signal.SIGSTOP:
                os.kill(first.pid, signal.SIGCONT)
                wait_until(lambda: value(connection, SESSIONS) == 2, "its return, standing by")
            assert journaled(redis_url) == list(range(400))


def test_events_wait_in_order_while_redis_is_away(
    connection: psycopg.Connection[Any],
    redis_url: str,
    redis_server: RunningRedis,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "shared.relay")
    with relaying(database_url):
        enqueue(connection, range(10))
        wait_until(lambda: len(journaled(redis_url)) == 10, "the first ten")
        redis_server.stop()
        enqueue(connection, range(10, 250))
        wait_until(lambda: "the relay waits for Redis" in caplog.text, "the relay to notice")
        redis_server.start()
        enqueue(connection, range(250, 300))
        wait_until(lambda: "Redis is back" in caplog.text, "the relay to go on")
        wait_until(lambda: value(connection, "SELECT count(*) FROM event_outbox") == 0, "no rows")
    found = journaled(redis_url)
    assert found == sorted(set(found)) and set(found) >= set(range(10, 300))
    assert caplog.text.count("the relay waits for Redis") == 1


def test_events_wait_while_redis_has_no_memory_left(
    connection: psycopg.Connection[Any],
    redis_url: str,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with redis.Redis.from_url(redis_url) as client, relaying(database_url):
        client.config_set("maxmemory", "1")
        enqueue(connection, range(3))
        wait_until(lambda: "the relay waits for Redis" in caplog.text, "the relay to notice")
        client.config_set("maxmemory", "0")
        wait_until(lambda: journaled(redis_url) == [0, 1, 2], "the relay to go on")


def test_the_relay_comes_back_after_it_lost_postgres(
    connection: psycopg.Connection[Any],
    redis_url: str,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with relaying(database_url):
        wait_until(lambda: value(connection, SESSIONS) == 1, "its session")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'eventstream-relay'"
        )
        enqueue(connection, range(3))
        wait_until(lambda: journaled(redis_url) == [0, 1, 2], "its return")
    assert caplog.text.count("the relay waits for Postgres") == 1


def test_a_database_that_is_not_migrated_yet_is_said_once(
    connection: psycopg.Connection[Any],
    redis_url: str,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries: list[object] = []
    ask = event_outbox.identity

    def identity(session: Any) -> str:
        tries.append(session)
        return ask(session)

    monkeypatch.setattr(event_outbox, "identity", identity)
    caplog.set_level(logging.INFO, "shared.relay")
    connection.execute("ALTER TABLE event_outbox RENAME TO another")
    connection.execute("ALTER TABLE event_outbox_identity RENAME TO other")
    with relaying(database_url):
        wait_until(lambda: caplog.text, "a word of it")
        wait_until(lambda: len(tries) > 1, "another try")
        connection.execute("ALTER TABLE another RENAME TO event_outbox")
        connection.execute("ALTER TABLE other RENAME TO event_outbox_identity")
        enqueue(connection, range(3))
        wait_until(lambda: journaled(redis_url) == [0, 1, 2], "its begin")
    assert caplog.text.count("the relay waits for Postgres") == 1
    assert '"event_outbox_identity" does not exist' in caplog.text


def test_a_batch_that_takes_longer_than_a_session_may_be_idle_is_published_and_deleted(
    connection: psycopg.Connection[Any],
    redis_url: str,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "IDLE_SECONDS", 1.0)
    monkeypatch.setattr(relay_module, "SLICE_SECONDS", 0.1)
    for n in range(40):
        enqueue_user_event(connection, f"user {n}", "test.event", {})
    client: Any = SlowRedis(app_redis(), 0.05)
    with relaying(database_url, lambda: client):
        wait_until(
            lambda: (
                value(connection, "SELECT count(*) FROM event_outbox") == 0
                or "waits for Postgres" in caplog.text
            ),
            "no rows",
        )
    assert "waits for Postgres" not in caplog.text


def test_a_postgres_that_refuses_to_delete_is_asked_ever_more_rarely_and_said_once(
    connection: psycopg.Connection[Any],
    redis_url: str,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "shared.relay")
    connection.execute(
        "CREATE SEQUENCE tries MINVALUE 0;"
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM nextval('tries'); RAISE EXCEPTION 'not today'; END$$;"
        "CREATE TRIGGER refuse BEFORE DELETE ON event_outbox EXECUTE FUNCTION refuse()"
    )
    enqueue(connection, range(3))
    with relaying(database_url):
        wait_until(lambda: value(connection, "SELECT last_value FROM tries") >= 3, "some tries")
        connection.execute("DROP TRIGGER refuse ON event_outbox")
        wait_until(lambda: "Postgres is back" in caplog.text, "the relay to go on")
    assert value(connection, "SELECT count(*) FROM event_outbox") == 0
    assert caplog.text.count("the relay waits for Postgres") == 1
    assert caplog.text.count("Postgres is back") == 1
    assert journaled(redis_url) == [0, 1, 2]
