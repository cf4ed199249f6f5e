"""Events in a caller's own transaction, and the relay that publishes them, on real servers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
import redis
from psycopg.rows import dict_row, namedtuple_row

from shared import event_outbox, keys
from shared.connections import app_redis
from shared.errors import EventRefused
from shared.event_outbox import Waiting, enqueue_user_event
from shared.migrate import migrate
from shared.relay import POLL_SECONDS, Relay
from shared.settings import get_settings
from tests.commands import wait_until

USER = "alice"


@pytest.fixture
def client(client: redis.Redis, database_url: str, monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    monkeypatch.setenv("DATABASE_URL", database_url)
    return client


@pytest.fixture
def connect(database_url: str) -> Iterator[Callable[..., psycopg.Connection[Any]]]:
    with ExitStack() as opened:
        yield lambda **options: opened.enter_context(psycopg.connect(database_url, **options))


@contextmanager
def relaying(database_url: str) -> Iterator[Relay]:
    relay = Relay(database_url, app_redis)
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        yield relay
    finally:
        relay.stop()
        thread.join()


@pytest.fixture
def relay(client: redis.Redis, database_url: str) -> Iterator[Relay]:
    with relaying(database_url) as running:
        yield running


def enqueue(conn: Any, n: int, user: str = USER) -> None:
    enqueue_user_event(conn, user, "test.event", {"n": n})


def journaled(client: redis.Redis, user: str = USER) -> list[int]:
    rows: Any = client.xrange(keys.stream(user))
    return [json.loads(fields[b"e"])["payload"]["n"] for _, fields in rows]


def count(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT count(*) FROM event_outbox").fetchone()
    assert row is not None
    return int(row[0])


def test_events_are_published_in_the_order_of_commits(
    client: redis.Redis, connect: Any, relay: Relay
) -> None:
    first, second = connect(), connect()
    enqueue(first, 1)
    enqueue(first, 2)
    enqueue(second, 3)
    second.commit()
    wait_until(lambda: journaled(client), "the event of who committed first")
    first.commit()
    wait_until(lambda: len(journaled(client)) == 3, "the others")
    assert journaled(client) == [3, 1, 2]


def test_a_reader_that_sees_a_position_sees_all_before_it(
    client: redis.Redis, connect: Any
) -> None:
    """The second committer waits until the first one's rows can be seen."""
    first, second, watcher = connect(), connect(), connect(autocommit=True)
    enqueue(first, 1)
    first.execute("SET CONSTRAINTS ALL IMMEDIATE")  # as in the midst of its commit
    enqueue(second, 2)
    committing = threading.Thread(target=second.commit)
    committing.start()
    wait_until(
        lambda: (
            watcher.execute(
                "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            ).fetchone()
            is not None
        ),
        "the second to wait",
    )
    assert event_outbox.waiting(watcher, 10) == []
    first.commit()
    committing.join()
    bodies = [json.loads(event.body)["payload"]["n"] for event in event_outbox.waiting(watcher, 9)]
    assert bodies == [1, 2]


def test_what_is_rolled_back_is_never_published(
    client: redis.Redis, connect: Any, relay: Relay
) -> None:
    conn = connect()
    enqueue(conn, 1)
    conn.rollback()
    with conn.transaction():
        enqueue(conn, 2)
        with conn.transaction(force_rollback=True):
            enqueue(conn, 3)
        enqueue(conn, 4)
    wait_until(lambda: len(journaled(client)) == 2, "what was committed")
    assert journaled(client) == [2, 4]
    wait_until(lambda: count(conn) == 0, "no row to be left")


def test_each_user_gets_their_own_in_order(client: redis.Redis, connect: Any, relay: Relay) -> None:
    with connect() as conn:
        for n in range(500):
            enqueue(conn, n, f"user {n % 3}")
    users = [f"user {n}" for n in range(3)]
    wait_until(lambda: sum(len(journaled(client, user)) for user in users) == 500, "all of them")
    for first, user in enumerate(users):
        assert journaled(client, user) == list(range(first, 500, 3))


def test_an_event_is_published_soon_after_its_commit(
    client: redis.Redis, connect: Any, relay: Relay
) -> None:
    conn = connect()
    took = []
    for n in range(1, 11):
        enqueue(conn, n)
        conn.commit()
        began = time.monotonic()
        while len(journaled(client)) < n:
            assert time.monotonic() - began < 10
        took.append(time.monotonic() - began)
    assert sorted(took)[5] < POLL_SECONDS / 5, "notified, not polled"


def test_a_caller_may_have_a_cursor_of_any_kind(client: redis.Redis, connect: Any) -> None:
    conn = connect(row_factory=dict_row)
    conn.cursor_factory = psycopg.RawCursor
    with conn.cursor(row_factory=namedtuple_row) as cursor:
        cursor.execute("SELECT 7 AS mine")
        enqueue(cursor, 1)
        assert cursor.fetchone().mine == 7, "the caller's own result is left alone"
    enqueue(conn, 2)
    conn.commit()
    assert len(event_outbox.waiting(connect(), 10)) == 2


@pytest.fixture
def poor(client: redis.Redis, connect: Any) -> Iterator[psycopg.Connection[Any]]:
    """A session of a role that may insert, and nothing else."""
    owner, conn = connect(autocommit=True), connect()
    owner.execute("DROP ROLE IF EXISTS poor")
    owner.execute("CREATE ROLE poor")
    owner.execute("GRANT INSERT ON event_outbox TO poor")
    conn.execute("SET ROLE poor")
    conn.commit()
    yield conn
    conn.close()
    owner.execute("DROP OWNED BY poor")
    owner.execute("DROP ROLE poor")


def test_who_may_insert_may_enqueue(poor: psycopg.Connection[Any], connect: Any) -> None:
    enqueue(poor, 1)
    poor.commit()
    assert len(event_outbox.waiting(connect(), 10)) == 1


def test_who_may_insert_runs_nothing_as_the_owner(
    poor: psycopg.Connection[Any], connect: Any
) -> None:
    """A temporary table of the outbox's name does not get between."""
    poor.execute(
        "CREATE TEMP TABLE taken (by text);"
        "CREATE TEMP TABLE event_outbox (id bigint, position bigint);"
        "CREATE FUNCTION pg_temp.take() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO pg_temp.taken VALUES (current_user); RETURN NULL; END';"
        "CREATE TRIGGER take BEFORE UPDATE ON pg_temp.event_outbox EXECUTE FUNCTION pg_temp.take()"
    )
    poor.execute(
        "INSERT INTO public.event_outbox (user_id, body) VALUES (%s, %s)", (USER, '{"type":"t"}')
    )
    poor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert poor.execute("SELECT by FROM pg_temp.taken").fetchall() == []
    poor.commit()
    assert len(event_outbox.waiting(connect(), 10)) == 1


def test_who_may_insert_moves_no_events_of_others(poor: psycopg.Connection[Any]) -> None:
    """With a trigger on a table of their own, whose rows have the ids of others' events."""
    poor.execute("CREATE TEMP TABLE mine (id bigint)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        poor.execute(
            "CREATE TRIGGER move AFTER INSERT ON mine"
            " FOR EACH ROW EXECUTE FUNCTION place_in_event_outbox()"
        )
    poor.rollback()


def test_events_go_in_any_schema(client: redis.Redis, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("""CREATE SCHEMA "Team's" """)
    url = f"{database_url}?options=-csearch_path%3D%22Team's%22"
    migrate(url)
    with psycopg.connect(url, autocommit=True) as conn:
        enqueue(conn, 1)
        assert len(event_outbox.waiting(conn, 10)) == 1


@pytest.mark.parametrize(
    ("user", "payload", "reason"),
    [
        ("", {}, "needs a user id"),
        ("a\x00", {}, "NUL"),
        (USER, {"x": b"y"}, "bytes has no JSON form"),
        (USER, {"x": "y" * 20_000}, "EVENT_MAX_BYTES allows 16384"),
    ],
)
def test_a_bad_event_is_the_callers_error_and_their_transaction_lives_on(
    client: redis.Redis, connect: Any, user: str, payload: Any, reason: str
) -> None:
    conn = connect()
    conn.execute("CREATE TABLE mine (n int)")
    with pytest.raises(EventRefused, match=reason):
        enqueue_user_event(conn, user, "test.event", payload)
    conn.execute("INSERT INTO mine VALUES (1)")
    assert count(conn) == 0


def test_a_connection_of_another_kind_is_refused(client: redis.Redis) -> None:
    wrong: Any = object()
    with pytest.raises(TypeError, match=r"a psycopg\.Connection or Cursor, not object"):
        enqueue(wrong, 1)


def test_what_was_published_before_a_crash_is_not_published_again(
    client: redis.Redis, connect: Any, database_url: str
) -> None:
    """The crash came between publishing and deleting."""
    with connect() as conn:
        for n in range(3):
            enqueue(conn, n)
    conn = connect(autocommit=True)
    events = event_outbox.waiting(conn, 10)
    crashed = Relay(database_url, app_redis)
    crashed._append(event_outbox.identity(conn), events[:2])
    with relaying(database_url):
        wait_until(lambda: count(conn) == 0, "the rest")
    assert journaled(client) == [0, 1, 2]


def test_a_relay_that_was_held_up_appends_nothing_behind_its_successor(
    client: redis.Redis, connect: Any, database_url: str
) -> None:
    conn = connect(autocommit=True)
    enqueue(conn, 0)
    stale = event_outbox.waiting(conn, 10)
    enqueue(conn, 1)
    with relaying(database_url):
        wait_until(lambda: count(conn) == 0, "the successor")
    Relay(database_url, app_redis)._append(event_outbox.identity(conn), stale)
    assert journaled(client) == [0, 1]


def test_a_restored_database_goes_on_above_what_redis_has_seen(
    client: redis.Redis, connect: Any, relay: Relay
) -> None:
    conn = connect(autocommit=True)
    enqueue(conn, 0)
    wait_until(lambda: journaled(client) == [0], "the first")
    conn.execute("ALTER SEQUENCE event_outbox_position RESTART")
    enqueue(conn, 1)
    wait_until(lambda: journaled(client) == [0, 1], "the second")


def test_the_memory_of_positions_lives_as_long_as_the_stream(
    client: redis.Redis, connect: Any, relay: Relay
) -> None:
    enqueue(connect(autocommit=True), 0)
    wait_until(lambda: journaled(client), "the event")
    stream: Any = client.pttl(keys.stream(USER))
    relayed: Any = client.pttl(keys.relayed(USER))
    assert relayed > 0 and abs(stream - relayed) < 1000


def test_an_event_that_redis_never_takes_is_set_aside_and_the_others_go(
    client: redis.Redis, connect: Any, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    client.set(keys.stream("broken"), "no stream")
    with connect() as conn:
        enqueue(conn, 0, "broken")
        enqueue(conn, 1)
        enqueue(conn, 2, "broken")
    watcher = connect(autocommit=True)
    enqueue(watcher, 3)
    wait_until(lambda: journaled(client) == [1, 3], "the others")
    wait_until(lambda: count(watcher) == 2, "the deletion of what was published")
    reasons = watcher.execute("SELECT refused FROM event_outbox").fetchall()
    assert all("WRONGTYPE" in reason for (reason,) in reasons)
    assert "is set aside" in caplog.text


def test_nothing_piles_up_with_push_turned_off(
    client: redis.Redis, connect: Any, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn = connect(autocommit=True)
    enqueue(conn, 0)
    monkeypatch.setenv("ENABLE_SSE_PUSH", "false")
    get_settings.cache_clear()
    enqueue(conn, 1)
    assert count(conn) == 1, "this one was not even inserted"
    with relaying(database_url):
        wait_until(lambda: count(conn) == 0, "the drop")
    assert journaled(client) == []


def test_two_outboxes_of_one_redis_do_not_hide_each_others_events(
    client: redis.Redis, database_url: str
) -> None:
    relay = Relay(database_url, app_redis)
    relay._append("one", [Waiting(9, USER, '{"type":"t","payload":{"n":1}}')])
    relay._append("two", [Waiting(5, USER, '{"type":"t","payload":{"n":2}}')])
    assert journaled(client) == [1, 2]
