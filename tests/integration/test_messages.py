"""Messages in a real PostgreSQL: owners, attempts, stops, and writers that are lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from shared.errors import (
    EventRefused,
    MalformedMessageId,
    MessageFinished,
    MessageGone,
    MessageTaken,
)
from shared.messages import (
    Ended,
    MessageState,
    begin_attempt,
    create_message,
    end_stale,
    message_id_of,
    message_state,
    release,
    request_stop,
)
from shared.settings import get_settings
from tests.commands import wait_until

Connection = psycopg.Connection[Any]

STALE_SECONDS = 0.05
NEVER = 3600.0
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


def state(connection: Connection, message_id: str) -> MessageState:
    found = message_state(connection, "alice", message_id)
    assert found is not None
    return found


def silent_for(connection: Connection, message_id: str) -> float:
    row = connection.execute(
        "SELECT extract(epoch FROM least(now() - heartbeat_at, now() - pg_postmaster_start_time()))"
        " FROM messages WHERE id = %s",
        (message_id,),
    ).fetchone()
    assert row is not None
    return float(row[0])


def events(connection: Connection, message_id: str) -> list[tuple[int, str, Any]]:
    rows = connection.execute(
        "SELECT sequence_no, event_type, payload::text FROM message_events"
        " WHERE message_id = %s ORDER BY sequence_no",
        (message_id,),
    )
    return [(number, kind, json.loads(payload)) for number, kind, payload in rows]


def ended(connection: Connection, seconds: float = STALE_SECONDS, **of: str) -> list[Ended]:
    """What is ended as stale, once there is something."""
    found: list[Ended] = []

    def look() -> bool:
        found.extend(end_stale(connection, seconds, **of))
        return bool(found)

    wait_until(look, "a stale message")
    return found


def test_a_new_message_waits_for_its_writer(connection: Connection) -> None:
    found = state(connection, create_message(connection, "alice"))
    assert (found.status, found.attempt, found.last_sequence) == ("waiting", 0, -1)
    assert not found.stop_requested and found.finished_at is None


def test_a_message_is_created_once_for_its_owner_and_never_for_another(
    connection: Connection,
) -> None:
    wanted = str(uuid4())
    assert create_message(connection, "alice", wanted.upper()) == wanted
    begin_attempt(connection, "alice", wanted)
    assert create_message(connection, "alice", wanted) == wanted
    assert state(connection, wanted).attempt == 1
    with pytest.raises(MessageTaken):
        create_message(connection, "bob", wanted)


@pytest.mark.parametrize("text", ["", "1", NOBODY.replace("-", ""), f"{{{NOBODY}}}", NOBODY + "0"])
def test_an_id_that_is_no_uuid_in_its_usual_form_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessageId):
        message_id_of(text)


@pytest.mark.parametrize("user_id", ["", "a\x00b", "a\ud800"])
def test_an_owner_that_postgres_cannot_keep_is_refused(
    connection: Connection, user_id: str
) -> None:
    with pytest.raises(EventRefused):
        create_message(connection, user_id)


def test_a_missing_day_is_made_when_a_message_is_created(connection: Connection) -> None:
    for (partition,) in connection.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'message_events'::regclass"
    ).fetchall():
        connection.execute(f"DROP TABLE {partition}")
    create_message(connection, "alice")
    assert connection.execute(
        "SELECT to_regclass(format('message_events_%s',"
        " to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')))"
    ).fetchone() != (None,)


def test_others_see_nothing_of_a_message(connection: Connection) -> None:
    message_id = create_message(connection, "alice")
    assert message_state(connection, "bob", message_id) is None
    assert request_stop(connection, "bob", message_id) is None
    with pytest.raises(MessageGone):
        begin_attempt(connection, "bob", message_id)
    assert not state(connection, message_id).stop_requested


def test_each_writer_of_an_open_message_is_another_attempt(connection: Connection) -> None:
    message_id = create_message(connection, "alice")
    first = begin_attempt(connection, "alice", message_id)
    second = begin_attempt(connection, "alice", message_id)
    assert (first.number, second.number) == (1, 2)
    assert not second.restarted
    assert state(connection, message_id).status == "writing"


def test_a_finished_message_is_not_begun_again_unless_it_is_restarted(
    connection: Connection,
) -> None:
    message_id = create_message(connection, "alice")
    begin_attempt(connection, "alice", message_id)
    ended(connection)
    with pytest.raises(MessageFinished):
        begin_attempt(connection, "alice", message_id)
    again = begin_attempt(connection, "alice", message_id, restart=True)
    assert (again.number, again.last_sequence, again.restarted) == (3, 1, True)
    assert events(connection, message_id)[1:] == [(1, "restart", {"type": "restart"})]
    found = state(connection, message_id)
    assert (found.status, found.finished_at, found.error_code) == ("writing", None, None)


def test_a_message_without_events_is_restarted_in_silence(connection: Connection) -> None:
    message_id = create_message(connection, "alice")
    begun = begin_attempt(connection, "alice", message_id, restart=True)
    assert (begun.last_sequence, begun.restarted) == (-1, False)
    assert events(connection, message_id) == []


def test_a_stop_is_marked_on_an_open_message_and_forgotten_when_it_is_restarted(
    connection: Connection,
) -> None:
    message_id = create_message(connection, "alice")
    begin_attempt(connection, "alice", message_id)
    found = request_stop(connection, "alice", message_id)
    assert found is not None and found.stop_requested
    assert begin_attempt(connection, "alice", message_id).stop_requested
    ended(connection)
    assert not begin_attempt(connection, "alice", message_id, restart=True).stop_requested


def test_a_message_that_is_over_is_not_marked(connection: Connection) -> None:
    message_id = create_message(connection, "alice")
    begin_attempt(connection, "alice", message_id)
    ended(connection)
    found = request_stop(connection, "alice", message_id)
    assert found is not None and (found.status, found.stop_requested) == ("failed", False)
    assert request_stop(connection, "alice", NOBODY) is None


def test_a_silent_writers_message_ends_with_an_error_and_its_attempt_is_over(
    connection: Connection,
) -> None:
    message_id = create_message(connection, "alice")
    begin_attempt(connection, "alice", message_id)
    assert end_stale(connection, NEVER) == []
    (told,) = ended(connection)
    assert (told.message_id, told.sequence_no) == (message_id, 0)
    ((number, kind, payload),) = events(connection, message_id)
    assert (number, kind, payload) == (0, "error", json.loads(told.payload))
    assert payload["code"] == "producer_lost" and payload["error"].endswith(".")
    found = state(connection, message_id)
    assert (found.status, found.attempt, found.error_code) == ("failed", 2, "producer_lost")
    assert found.finished_at is not None
    assert end_stale(connection, STALE_SECONDS) == []


def test_one_message_is_ended_where_one_is_asked_for(connection: Connection) -> None:
    first, second = (create_message(connection, "alice") for _ in range(2))
    for message_id in (first, second):
        begin_attempt(connection, "alice", message_id)
    assert [one.message_id for one in ended(connection, message_id=second)] == [second]
    assert state(connection, first).status == "writing"


def test_a_message_that_waits_ends_by_the_timeout_of_queues(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, released = (create_message(connection, "alice") for _ in range(2))
    release(connection, begin_attempt(connection, "alice", released))
    assert end_stale(connection, STALE_SECONDS) == []
    wait_until(
        lambda: min(silent_for(connection, one) for one in (fresh, released)) > 1, "a second"
    )
    monkeypatch.setenv("INGEST_QUEUE_TIMEOUT_SECONDS", "1")
    get_settings.cache_clear()
    found = ended(connection, NEVER)
    assert {one.message_id for one in found} == {fresh, released}
    assert state(connection, fresh).error_code == "never_started"


def test_an_older_attempt_releases_nothing(connection: Connection) -> None:
    message_id = create_message(connection, "alice")
    first = begin_attempt(connection, "alice", message_id)
    begin_attempt(connection, "alice", message_id)
    release(connection, first)
    assert state(connection, message_id).status == "writing"


def test_a_stale_message_ends_once_however_many_look(
    connection: Connection, database_url: str
) -> None:
    messages = [create_message(connection, "alice") for _ in range(20)]
    for message_id in messages:
        begin_attempt(connection, "alice", message_id)

    def look(_: int) -> list[Ended]:
        found: list[Ended] = []
        with psycopg.connect(database_url, autocommit=True) as own:

            def all_are_over() -> bool:
                found.extend(end_stale(own, STALE_SECONDS))
                return all(state(own, one).finished_at for one in messages)

            wait_until(all_are_over, "the end of all")
        return found

    with ThreadPoolExecutor(6) as pool:
        told = [one.message_id for found in pool.map(look, range(6)) for one in found]
    assert sorted(told) == sorted(messages)
    assert all(len(events(connection, message_id)) == 1 for message_id in messages)


def test_who_looks_while_another_ends_a_message_neither_waits_nor_ends_it_again(
    connection: Connection, database_url: str
) -> None:
    message_id = create_message(connection, "alice")
    begin_attempt(connection, "alice", message_id)
    wait_until(lambda: silent_for(connection, message_id) > STALE_SECONDS, "its silence")
    connection.execute("SET statement_timeout = '5s'")
    with psycopg.connect(database_url) as first:
        assert len(end_stale(first, STALE_SECONDS)) == 1
        assert end_stale(connection, STALE_SECONDS) == []
        first.commit()
    assert end_stale(connection, STALE_SECONDS) == []
    assert len(events(connection, message_id)) == 1
