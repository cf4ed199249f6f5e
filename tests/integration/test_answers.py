"""Answers, as their authors write them: what is journaled, how they end, and what is told live."""

from __future__ import annotations

import multiprocessing
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery.exceptions import Ignore, Retry

from shared import answers, errors, keys, message_pending
from shared.message_announcer import told
from shared.message_flusher import flusher
from shared.messages import create_message, end_stale, request_stop
from shared.settings import get_settings
from tests.commands import wait_until
from tests.journals import USER, Connection, events, journal, kinds, numbers, state
from worker import answer as author
from worker.answer import answer
from worker.ingest import IngestError

# On purpose: what happens to a child that is forked beside threads is what is tested.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


@pytest.fixture
def connection(
    redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Connection]:
    with journal(monkeypatch, redis_url, database_url) as opened:
        yield opened


def test_what_is_emitted_is_journaled_in_order_and_ends(connection: Connection) -> None:
    message_id = str(uuid4())
    with answer(message_id, USER) as a:
        for n in range(100):
            a.emit("answer", {"n": n})
        a.emit("tool_call", {"name": "search", "arguments": {"q": [1, None]}})
    found = events(connection, message_id)
    assert numbers(found) == list(range(100))
    assert found[-2:] == [
        {"type": "tool_call", "name": "search", "arguments": {"q": [1, None]}},
        {"type": "end"},
    ]
    assert (state(connection, message_id).status, state(connection, message_id).attempt) == (
        "finished",
        1,
    )


def test_an_event_is_journaled_while_its_author_is_silent(connection: Connection) -> None:
    message_id = str(uuid4())
    with answer(message_id, USER) as a:
        a.emit("thought", {"n": 1})
        wait_until(lambda: events(connection, message_id), "the event, in the midst of the block")


def test_what_is_told_live_is_what_is_journaled_byte_for_byte(
    connection: Connection, redis_url: str
) -> None:
    message_id = str(uuid4())
    with redis.Redis.from_url(redis_url) as client, client.pubsub() as channel:
        channel.subscribe(keys.message(message_id))
        channel.get_message(timeout=5)
        with answer(message_id, USER) as a:
            for n in range(50):
                a.emit("answer", {"n": n, "text": "\u0000 \ud800 ü"})
        said: list[bytes] = []

        def is_over() -> bool:
            message: Any = channel.get_message(timeout=1)
            if message:
                said.append(message["data"])
            return bool(said) and said[-1].startswith(b"!")

        wait_until(is_over, "the end")
    rows = connection.execute(
        "SELECT payload::text FROM message_events WHERE message_id = %s ORDER BY sequence_no",
        (message_id,),
    ).fetchall()
    ((_, whole), finished) = told(message_id, -1, [r[0].encode() for r in rows], finished=True)
    assert said.pop() == finished[1] == b"!finished 50"
    heads = [one.split(b" ", 2) for one in said]
    assert b"".join(frames for _, _, frames in heads) == whole.split(b" ", 2)[2]
    assert [int(prev) for prev, _, _ in heads] == [-1, *[int(last) for _, last, _ in heads][:-1]]


def test_an_exception_is_told_as_a_code_and_a_sentence_and_goes_on(
    connection: Connection,
) -> None:
    class NoCredit(IngestError):
        """The account has no credit."""

        code = "no_credit"

    for error, code, sentence in (
        (NoCredit(), "no_credit", "The account has no credit."),
        (ValueError("/secret/path"), "internal_error", "Something went wrong"),
    ):
        message_id = str(uuid4())
        with pytest.raises(type(error)), answer(message_id, USER) as a:
            a.emit("answer", {"n": 1})
            raise error
        last = events(connection, message_id)[-1]
        assert (last["type"], last["code"]) == ("error", code)
        assert last["error"].startswith(sentence) and "secret" not in last["error"]
        assert state(connection, message_id).error_code == code


def test_without_a_worker_an_exception_is_an_internal_error(connection: Connection) -> None:
    message_id = str(uuid4())
    with pytest.raises(ZeroDivisionError), answers.answer(message_id, USER):
        raise ZeroDivisionError
    assert events(connection, message_id)[-1]["code"] == "internal_error"


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("answer", {"x": float("nan")}),
        ("answer", {"x": object()}),
        ("answer", {"x": "y" * 20_000}),
        ("answer", ["no object"]),
        ("answer", {"type": "other"}),
        ("", {}),
        ("two words", {}),
        ("a\x00b", {}),
        ("end", {}),
        ("error", {}),
        ("backlog.truncated", {}),
    ],
)
def test_an_event_that_cannot_be_written_is_refused_and_no_other_is_lost(
    connection: Connection, kind: str, payload: Any
) -> None:
    message_id = str(uuid4())
    with answer(message_id, USER) as a:
        a.emit("answer", {"n": 1})
        with pytest.raises(errors.EventRefused):
            a.emit(kind, payload)
        a.emit("answer", {"n": 2})
    assert numbers(events(connection, message_id)) == [1, 2]


def test_nothing_is_written_behind_the_end(connection: Connection) -> None:
    message_id = str(uuid4())
    with answer(message_id, USER) as a:
        a.emit("answer", {"n": 1})
    with pytest.raises(errors.EventStreamError, match="over"):
        a.emit("answer", {"n": 2})
    assert kinds(connection, message_id) == ["answer", "end"]


def test_nul_and_lone_surrogates_survive(connection: Connection) -> None:
    message_id = str(uuid4())
    text = "\u0000 \ud83d \U0001f600 \r\n \x85 \u2028"
    with answer(message_id, USER) as a:
        a.emit("answer", {"answer": text})
    assert events(connection, message_id)[0] == {"type": "answer", "answer": text}


def refuse(connection: Connection, what: str) -> None:
    """Has Postgres refuse rows, as no author could know."""
    for (partition,) in connection.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'message_events'::regclass"
    ).fetchall():
        connection.execute(f"ALTER TABLE {partition} ADD CHECK ({what})")


def test_a_row_that_postgres_refuses_is_told_to_its_writer_and_takes_no_other_with_it(
    connection: Connection,
) -> None:
    refuse(connection, "payload::text NOT LIKE '%bad%'")
    ids = [str(uuid4()) for _ in range(3)]
    with answer(ids[0], USER) as a, answer(ids[1], USER) as b, answer(ids[2], USER) as c:
        for n in range(30):
            a.emit("answer", {"n": n})
            b.emit("answer", {"bad": n} if n == 10 else {"n": n})
            c.emit("answer", {"n": n})
            if n == 10:
                with pytest.raises(errors.EventRefused, match="violates check constraint"):
                    wait_until(lambda: b.emit("answer", {"m": 1}), "the refusal")
    assert numbers(events(connection, ids[0])) == numbers(events(connection, ids[2]))
    assert numbers(events(connection, ids[0])) == list(range(30))
    assert numbers(events(connection, ids[1])) == [n for n in range(30) if n != 10]


def test_an_author_is_stopped_within_a_second_and_the_answer_says_so(
    connection: Connection,
) -> None:
    message_id = str(uuid4())
    went_on = False
    with answer(message_id, USER) as a:
        a.emit("answer", {"n": 1})
        wait_until(lambda: events(connection, message_id), "its event")
        request_stop(connection, USER, message_id)
        began = time.monotonic()
        wait_until(a.stopped, "the word, though nothing is emitted")
        assert time.monotonic() - began < 10
        a.emit("answer", {"n": 2})
        went_on = True
    assert not went_on
    assert events(connection, message_id)[1:] == [{"type": "end", "stopped": True}]
    assert state(connection, message_id).status == "stopped"


def test_an_author_that_emits_is_stopped_as_soon(connection: Connection) -> None:
    message_id = str(uuid4())
    with answer(message_id, USER) as a:
        request_stop(connection, USER, message_id)
        wait_until(lambda: a.emit("answer", {}), "the word")
    assert kinds(connection, message_id)[-1] == "end"
    assert state(connection, message_id).status == "stopped"


def test_an_author_that_asks_and_leaves_was_stopped_as_well(connection: Connection) -> None:
    message_id = str(uuid4())
    with answer(message_id, USER) as a:
        assert not a.stopped()
        request_stop(connection, USER, message_id)
        wait_until(a.stopped, "the word")
    assert events(connection, message_id) == [{"type": "end", "stopped": True}]


def test_a_finished_answer_is_skipped(connection: Connection) -> None:
    message_id = str(uuid4())
    with answer(message_id, USER) as a:
        a.emit("answer", {"n": 1})
    with pytest.raises(author.MessageFinished) as raised, answer(message_id, USER):
        raise AssertionError("its body runs")
    assert isinstance(raised.value, Ignore)
    with pytest.raises(errors.MessageFinished), answers.answer(message_id, USER):
        raise AssertionError("its body runs")
    assert len(events(connection, message_id)) == 2


def test_a_finished_answer_is_restarted_where_its_author_chose_so(connection: Connection) -> None:
    message_id = str(uuid4())
    for n in range(2):
        with answer(message_id, USER, on_redelivery="restart") as a:
            a.emit("answer", {"n": n})
            assert a.attempt == n + 1
    assert kinds(connection, message_id) == ["answer", "end", "restart", "answer", "end"]


def test_a_retry_leaves_the_answer_open_for_the_next_attempt(connection: Connection) -> None:
    message_id = str(uuid4())
    with pytest.raises(Retry), answer(message_id, USER) as a:
        a.emit("answer", {"n": 1})
        raise Retry
    assert state(connection, message_id).status == "waiting"
    with answer(message_id, USER) as a:
        assert a.attempt == 2
        a.emit("answer", {"n": 2})
    assert numbers(events(connection, message_id)) == [1, 2]


def test_of_two_writers_the_older_is_told_and_only_it(connection: Connection) -> None:
    message_id, other_id = str(uuid4()), str(uuid4())
    with answer(other_id, USER) as other:
        with pytest.raises(author.TakenOver) as raised, answer(message_id, USER) as old:
            old.emit("answer", {"n": 1})
            wait_until(lambda: events(connection, message_id), "its first event")
            with answer(message_id, USER) as new:
                new.emit("answer", {"n": 2})
                old.emit("answer", {"n": -1})
                with pytest.raises(errors.TakenOver):
                    wait_until(lambda: old.emit("answer", {"n": -1}), "the word")
                other.emit("answer", {"n": 3})
            old.emit("answer", {"n": -1})
        assert isinstance(raised.value, Ignore)
        other.emit("answer", {"n": 4})
    assert numbers(events(connection, message_id)) == [1, 2]
    assert events(connection, message_id)[-1] == {"type": "end"}
    assert numbers(events(connection, other_id)) == [3, 4]


def test_a_message_that_is_deleted_midstream_is_said_once_and_its_writer_stops(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    message_id = str(uuid4())
    with pytest.raises(author.MessageGone), answer(message_id, USER) as a:
        connection.execute("DELETE FROM messages WHERE id = %s", (message_id,))
        for _ in range(3):
            with pytest.raises(errors.MessageGone):
                wait_until(lambda: a.emit("answer", {}), "the word")
        a.emit("answer", {})
    assert caplog.text.count("was deleted") == 1


def test_a_silent_writer_is_alive(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGE_STALE_SECONDS", "1")
    get_settings.cache_clear()
    message_id = str(uuid4())
    with answer(message_id, USER):
        first = state(connection, message_id).heartbeat_at

        def has_beaten_thrice() -> bool:
            assert end_stale(connection, 3) == []
            return (state(connection, message_id).heartbeat_at - first).total_seconds() > 3

        wait_until(has_beaten_thrice, "heartbeats")


def test_a_writer_that_was_taken_for_dead_is_fenced(connection: Connection) -> None:
    message_id = str(uuid4())
    with pytest.raises(author.TakenOver), answer(message_id, USER) as a:
        a.emit("answer", {"n": 1})
        wait_until(lambda: events(connection, message_id), "its event")
        wait_until(lambda: end_stale(connection, 0.01, message_id), "its end")
        wait_until(lambda: a.emit("answer", {"n": 2}), "the word")
    assert kinds(connection, message_id) == ["answer", "error"]


def test_a_writer_is_slowed_then_told_where_postgres_does_not_keep_up(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_pending, "MESSAGE_LIMITS", (10, 1_000_000))
    monkeypatch.setattr(message_pending, "WAIT_SECONDS", 0.3)
    message_id = str(uuid4())
    with answer(message_id, USER) as a:
        a.emit("answer", {"n": 0})
        with connection.transaction():
            connection.execute("SELECT FROM messages FOR UPDATE")
            with pytest.raises(errors.PostgresUnavailable, match=r"for 0\.3 seconds"):
                wait_until(lambda: a.emit("answer", {"n": -1}), "the word")
        monkeypatch.setattr(message_pending, "WAIT_SECONDS", 30)
        for n in range(1, 200):
            a.emit("answer", {"n": n})
    found = numbers(events(connection, message_id))
    assert [n for n in found if n >= 0] == list(range(200))
    assert 9 <= found.count(-1) <= 10


def test_a_message_that_somebody_has_locked_holds_up_no_other(connection: Connection) -> None:
    locked, other = str(uuid4()), str(uuid4())
    with answer(locked, USER) as a:
        with connection.transaction():
            connection.execute("SELECT FROM messages FOR UPDATE")
            a.emit("answer", {"n": 1})
            with answer(other, USER) as b:
                b.emit("answer", {"n": 2})
        a.emit("answer", {"n": 3})
    assert numbers(events(connection, locked)) == [1, 3]


def test_many_writers_in_threads_lose_nothing(connection: Connection) -> None:
    ids = [str(uuid4()) for _ in range(20)]

    def write(message_id: str) -> None:
        with answers.answer(message_id, USER) as a:
            for n in range(200):
                a.emit("answer", {"n": n})

    threads = [threading.Thread(target=write, args=(message_id,)) for message_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(numbers(events(connection, one)) == list(range(200)) for one in ids)
    assert [t.name for t in threading.enumerate()].count("eventstream-flusher") >= 1


def test_a_forked_child_shares_nothing_and_ends_nothing(connection: Connection) -> None:
    mine, its = str(uuid4()), str(uuid4())

    def child() -> None:
        with pytest.raises(errors.EventStreamError, match="process that began it"):
            a.emit("answer", {"n": -1})
        with answers.answer(its, USER) as own:
            own.emit("answer", {"n": 1})
        assert flusher().process == os.getpid()

    with answer(mine, USER) as a:
        a.emit("answer", {"n": 1})
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 0
        a.emit("answer", {"n": 2})
    assert numbers(events(connection, mine)) == [1, 2]
    assert numbers(events(connection, its)) == [1]


def test_another_users_message_is_not_written(connection: Connection) -> None:
    message_id = create_message(connection, USER)
    with pytest.raises(errors.MessageTaken), answer(message_id, "bob"):
        raise AssertionError("its body runs")


def test_with_push_turned_off_nothing_is_announced_and_all_is_journaled(
    connection: Connection, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENABLE_SSE_PUSH", "false")
    get_settings.cache_clear()
    message_id = str(uuid4())
    with redis.Redis.from_url(redis_url) as client, client.pubsub() as channel:
        channel.subscribe(keys.message(message_id))
        channel.get_message(timeout=5)
        with answer(message_id, USER) as a:
            a.emit("answer", {"n": 1})
        assert channel.get_message(timeout=0.1) is None
    assert numbers(events(connection, message_id)) == [1]


def test_the_examples_of_the_guide_do_what_it_says(connection: Connection) -> None:
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "write-an-answer.md"
    task, script = re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)
    page = SimpleNamespace(title="A guide", url="/guide")
    names: dict[str, Any] = {"search": lambda question: [page], "model": str.split}
    exec(task, names)
    message_id = create_message(connection, USER)
    names["reply"](message_id, USER, "what is it")
    assert kinds(connection, message_id) == ["source", "answer", "answer", "answer", "end"]
    exec(script, names)
    rows = connection.execute("SELECT user_id, status FROM messages").fetchall()
    assert rows == [(USER, "finished")] * 2
