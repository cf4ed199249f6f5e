"""What is asked of a message's journal: one statement each, and never another user's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from shared import wire
from shared.message_pages import DAY, PAGE, STATES, page_of_message
from shared.pages import MOST_BYTES, Page, Status
from tests.answers import USER, Writing

Connection = psycopg.Connection[Any]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def answer(database_url: str) -> Writing:
    writing = Writing(database_url, None)
    writing.begin()
    return writing


def values(connection: Connection, answer: Writing, **more: Any) -> dict[str, Any]:
    day = connection.execute("SELECT day FROM messages WHERE id = %s", (answer.id,)).fetchone()
    assert day is not None
    known = {"id": answer.id, "user_id": USER, "day": day[0], "after": -1, "limit": 200}
    return {**known, "stale_seconds": 90, **more}


def read(connection: Connection, answer: Writing, cursor: str, limit: int = 200) -> Page:
    asked = values(connection, answer, after=int(cursor), limit=limit)
    return page_of_message(cursor, limit, connection.execute(PAGE, asked).fetchall())


def test_no_statement_says_anything_of_another_users_message(
    connection: Connection, answer: Writing
) -> None:
    answer.say("mine")
    for statement in (DAY, PAGE):
        asked = values(connection, answer, user_id="somebody-else")
        assert connection.execute(statement, asked).fetchall() == []
        assert connection.execute(statement, {**asked, "user_id": USER}).fetchall() != []
    for user_id, number in (("somebody-else", 0), (USER, 1)):
        asked = {"ids": [answer.id], "user_ids": [user_id], "stale_seconds": 90}
        assert len(connection.execute(STATES, asked).fetchall()) == number


def test_pages_follow_one_another_until_the_end(connection: Connection, answer: Writing) -> None:
    answer.say(*"abcde")
    first = read(connection, answer, "-1", 2)
    assert (first.number, first.end, first.more, first.is_last) == (2, "1", True, False)
    second = read(connection, answer, "1", 3)
    assert (second.number, second.end, second.more, second.is_last) == (3, "4", False, False)
    answer.end()
    assert read(connection, answer, "3", 1).is_last is False
    assert read(connection, answer, "4").is_last
    assert read(connection, answer, "5") == Page(
        Status.OK, "5", None, 0, "5", b"", more=False, is_last=True
    )


def test_a_page_has_at_most_a_mebibyte_or_one_event(
    connection: Connection, answer: Writing
) -> None:
    answer.say(*["x" * 400_000] * 4)
    page = read(connection, answer, "-1")
    assert (page.number, page.more) == (2, True)
    assert len(page.frames) < MOST_BYTES
    answer.say("y" * 2_000_000)
    assert read(connection, answer, "3").number == 1


def test_a_cursor_past_the_end_is_told_and_everything_follows(
    connection: Connection, answer: Writing
) -> None:
    nothing = read(connection, answer, "0")
    assert (nothing.status, nothing.end, nothing.oldest_id) == (Status.JOURNAL_RESET, "-1", None)
    answer.say("a")
    page = read(connection, answer, "7")
    assert (page.status, page.end, page.more) == (Status.JOURNAL_RESET, "-1", True)
    assert page.notice == wire.truncated_frame("journal_reset", "0", None)


def test_a_message_whose_events_are_gone_has_no_more(
    connection: Connection, answer: Writing
) -> None:
    answer.say("a")
    connection.execute("DELETE FROM message_events")
    assert read(connection, answer, "-1").is_last


def test_a_read_looks_at_one_partition(connection: Connection, answer: Writing) -> None:
    answer.say("a")
    plan = connection.execute("EXPLAIN " + PAGE, values(connection, answer)).fetchall()
    text = "\n".join(row[0] for row in plan)
    assert len(set(re.findall(r"message_events_\d{8}", text))) == 1, text
