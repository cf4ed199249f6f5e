"""The built-in producer and the seam for another one, with a real journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery.exceptions import Ignore

from shared.connections import postgres
from shared.messages import begin_attempt, create_message, message_state, request_stop
from shared.settings import get_settings
from tests.answers import USER, text_of
from tests.described import check_message_event
from tests.ingested import ingest
from worker.chat import Event, Piece, Question
from worker.chat.tasks import answer_question

MANY = 100_000


@pytest.fixture(autouse=True)
def environment(redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("CHAT_WORDS_PER_SECOND", "100000")
    get_settings.cache_clear()


@pytest.fixture
def message_id() -> str:
    with postgres() as connection:
        return create_message(connection, USER)


def events(message_id: str) -> list[dict[str, Any]]:
    with postgres() as connection:
        rows = connection.execute(
            "SELECT payload::text FROM message_events WHERE message_id = %s ORDER BY sequence_no",
            (message_id,),
        ).fetchall()
    found = [json.loads(row[0]) for row in rows]
    for event in found:
        check_message_event(event)
    return found


def ask(message_id: str, question: str = "?") -> None:
    answer_question(message_id=message_id, user_id=USER, question=question)


def produce_and_break(question: Question) -> Iterator[Piece]:
    yield "as far as "
    raise ValueError("secret detail")


def produce_for_ever(question: Question) -> Iterator[Piece]:
    with postgres() as connection:
        request_stop(connection, question.user_id, question.message_id)
    for number in range(MANY):
        yield f"{number} "


def produce_with_thoughts(question: Question) -> Iterator[Piece]:
    yield Event("thought", {"thought": question.text})
    yield "yes"


def plug_in(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("CHAT_PRODUCER", f"{__name__}:{name}")
    get_settings.cache_clear()


def test_an_answer_cites_the_users_own_sources_and_quotes_them(message_id: str) -> None:
    ingest({"heron.md": b"A heron stands still in the water for hours. It is grey."}, user=USER)
    ingest({"secret.md": b"A heron stands on the secret of somebody else."}, user="alice")
    ask(message_id, "How long does the heron stand still?")
    source, *words, end = events(message_id)
    assert (source["type"], source["document_name"], source["number"]) == ("source", "heron.md", 1)
    assert len(words) > 3
    assert text_of(words).strip() == "A heron stands still in the water for hours. [1]"
    assert end == {"type": "end"}


def test_a_question_that_nothing_answers_is_told_so(message_id: str) -> None:
    ask(message_id, "the \x00 \ud800 (( ?")
    *words, end = events(message_id)
    assert text_of(words).startswith("Nothing in your sources")
    assert end == {"type": "end"}


def test_a_teams_own_producer_answers_with_events_of_any_type(
    message_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(monkeypatch, "produce_with_thoughts")
    ask(message_id, "why?")
    assert [event["type"] for event in events(message_id)] == ["thought", "answer", "end"]


def test_a_producer_that_breaks_ends_the_answer_without_its_secrets(
    message_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(monkeypatch, "produce_and_break")
    with pytest.raises(ValueError, match="secret"):
        ask(message_id)
    said, error = events(message_id)
    assert (said["answer"], error["type"], error["code"]) == (
        "as far as ",
        "error",
        "internal_error",
    )
    assert "secret" not in error["error"]


def test_an_answer_that_is_stopped_ends_soon(
    message_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(monkeypatch, "produce_for_ever")
    ask(message_id)
    *words, end = events(message_id)
    assert end == {"type": "end", "stopped": True}
    assert len(words) < MANY


def test_an_attempt_after_one_that_died_tells_readers_to_clear(
    message_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(monkeypatch, "produce_with_thoughts")
    with postgres() as connection:
        begin_attempt(connection, USER, message_id)
    ask(message_id)
    types = [event["type"] for event in events(message_id)]
    assert types == ["restart", "thought", "answer", "end"]


def test_an_answer_that_is_finished_is_not_written_again(
    message_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(monkeypatch, "produce_with_thoughts")
    ask(message_id)
    with pytest.raises(Ignore):
        ask(message_id)
    assert len(events(message_id)) == 3
    with postgres() as connection:
        state = message_state(connection, USER, message_id)
    assert state is not None
    assert state.status == "finished"
