"""The statement that appends to many messages: exactly once, and each writer for itself."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from shared.message_journal import NewEvent, Part, Verdict, append
from shared.messages import Attempt, begin_attempt, create_message, end_stale
from tests.commands import wait_until

Connection = psycopg.Connection[Any]
USER = "alice"


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


def begun(connection: Connection) -> Attempt:
    return begin_attempt(connection, USER, create_message(connection, USER))


def part(attempt: Attempt, numbers: range, after: int = -1, status: str | None = None) -> Part:
    events = [NewEvent("answer", b'{"type":"answer","n":%d}' % n) for n in numbers]
    return Part(attempt.message_id, attempt.number, after, events, status)


def journaled(connection: Connection, attempt: Attempt) -> list[int]:
    rows = connection.execute(
        "SELECT sequence_no, (payload ->> 'n')::int FROM message_events"
        " WHERE message_id = %s ORDER BY sequence_no",
        (attempt.message_id,),
    ).fetchall()
    assert [number for number, _ in rows] == list(range(len(rows)))
    return [n for _, n in rows]


def test_parts_of_many_messages_are_numbered_each_for_itself(connection: Connection) -> None:
    attempts = [begun(connection) for _ in range(10)]
    first = append(connection, [part(a, range(n)) for n, a in enumerate(attempts, 1)])
    assert [outcome.last for outcome in first] == list(range(10))
    second = [part(a, range(n, n + 3), n - 1) for n, a in enumerate(attempts, 1)]
    append(connection, second[::-1])
    for n, attempt in enumerate(attempts, 1):
        assert journaled(connection, attempt) == list(range(n + 3))


def test_what_was_committed_is_not_written_again(connection: Connection) -> None:
    attempt, other = begun(connection), begun(connection)
    ending = part(attempt, range(5), status="finished")
    append(connection, [ending])
    again = append(connection, [ending, part(other, range(2))])
    assert [(outcome.verdict, outcome.last) for outcome in again] == [
        (Verdict.WRITTEN, 4),
        (Verdict.WRITTEN, 1),
    ]
    assert again[0].finished
    assert journaled(connection, attempt) == list(range(5))


def test_events_of_an_open_message_are_not_written_again(connection: Connection) -> None:
    attempt = begun(connection)
    first, second = part(attempt, range(5)), part(attempt, range(5, 8), 4)
    append(connection, [first])
    for once_more in (first, second, second):
        (outcome,) = append(connection, [once_more])
        assert (outcome.verdict, outcome.refused) == (Verdict.WRITTEN, ())
    assert journaled(connection, attempt) == list(range(8))


def test_a_statement_that_still_runs_is_not_overtaken(
    connection: Connection, database_url: str
) -> None:
    """A connection breaks while its server still works; the same is tried on another."""
    attempt, other = begun(connection), begun(connection)
    both = [part(attempt, range(5)), part(other, range(3))]
    with psycopg.connect(database_url) as first:
        append(first, both[:1])
        verdicts = [outcome.verdict for outcome in append(connection, both)]
        assert verdicts == [Verdict.BUSY, Verdict.WRITTEN]
        first.commit()
    (outcome,) = append(connection, both[:1])
    assert (outcome.verdict, outcome.last) == (Verdict.WRITTEN, 4)
    assert journaled(connection, attempt) == list(range(5))
    assert journaled(connection, other) == list(range(3))


def test_a_row_that_somebody_has_locked_is_written_later(
    connection: Connection, database_url: str
) -> None:
    attempt = begun(connection)
    with psycopg.connect(database_url) as admin:
        admin.execute("UPDATE messages SET stop_requested = true")
        assert append(connection, [part(attempt, range(2))])[0].verdict is Verdict.BUSY
        admin.commit()
    outcome = append(connection, [part(attempt, range(2))])[0]
    assert (outcome.verdict, outcome.stop_requested) == (Verdict.WRITTEN, True)


def test_an_older_attempt_and_a_deleted_message_take_no_other_with_them(
    connection: Connection,
) -> None:
    old, gone, good, ended = (begun(connection) for _ in range(4))
    begin_attempt(connection, USER, old.message_id)
    connection.execute("DELETE FROM messages WHERE id = %s", (gone.message_id,))
    wait_until(lambda: end_stale(connection, 0.01, ended.message_id), "its end")
    outcomes = append(connection, [part(a, range(3)) for a in (old, gone, good, ended)])
    verdicts = [outcome.verdict for outcome in outcomes]
    assert verdicts == [Verdict.FENCED, Verdict.GONE, Verdict.WRITTEN, Verdict.FENCED]
    assert journaled(connection, good) == [0, 1, 2]
    assert journaled(connection, old) == []


def test_a_row_that_is_refused_is_found_among_many(connection: Connection) -> None:
    attempts = [begun(connection) for _ in range(8)]
    parts = [part(attempt, range(50)) for attempt in attempts]
    bad = list(parts[3].events)
    bad[17] = NewEvent("answer", b"no json")
    bad[49] = NewEvent("answer", b"{")
    parts[3] = replace(parts[3], events=bad)
    outcomes = append(connection, parts)
    assert [event.payload for event, _ in outcomes[3].refused] == [b"no json", b"{"]
    assert outcomes[3].last == 47
    for n, attempt in enumerate(attempts):
        expected = [i for i in range(50) if n != 3 or i not in (17, 49)]
        assert journaled(connection, attempt) == expected
    again = append(connection, parts)
    assert {outcome.verdict for outcome in again} == {Verdict.WRITTEN}
    assert [outcome.last for outcome in again] == [outcome.last for outcome in outcomes]


def test_two_processes_that_write_the_same_messages_never_wait_for_each_other(
    connection: Connection, database_url: str
) -> None:
    """Both have all of them, in opposite orders: of each message one is the older attempt."""
    ids = [create_message(connection, USER) for _ in range(50)]
    first = [begin_attempt(connection, USER, one) for one in ids]
    second = [begin_attempt(connection, USER, one) for one in ids]

    def write(attempts: list[Attempt]) -> set[Verdict]:
        verdicts = set()
        with psycopg.connect(database_url, autocommit=True) as own:
            for n in range(40):
                parts = [part(a, range(n, n + 1), n - 1) for a in attempts]
                verdicts |= {outcome.verdict for outcome in append(own, parts)}
        return verdicts

    with ThreadPoolExecutor() as pool:
        told = list(pool.map(write, [first, second[::-1]]))
    assert told == [{Verdict.FENCED}, {Verdict.WRITTEN}]
    assert all(journaled(connection, attempt) == list(range(40)) for attempt in second)
