"""What writers have pending, without a Postgres: who waits for whom, and who learns what."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from shared import message_pending
from shared.errors import EventRefused, PostgresUnavailable, TakenOver
from shared.message_journal import NewEvent, Outcome, Part, Verdict
from shared.message_pending import Pending, Writing
from shared.messages import Attempt

EVENT = NewEvent("answer", b"{}")
END = NewEvent("end", b'{"type":"end"}')


def begun(pending: Pending, name: str = "a") -> Writing:
    writing = Writing(Attempt(name, 1, -1, False, False), -1)
    pending.add(writing)
    return writing


def written(part: Part, **more: Any) -> Outcome:
    last = part.after + len(part.events)
    return Outcome(Verdict.WRITTEN, last, part.events, finished=part.status is not None, **more)


def flush(pending: Pending) -> None:
    taken = pending.take()
    pending.settle(taken, [written(part) for _, part in taken])


def test_what_all_writings_have_is_taken_at_once_and_in_order() -> None:
    pending = Pending()
    first, second = begun(pending, "a"), begun(pending, "b")
    for n, writing in enumerate((first, second, first)):
        pending.put(writing, NewEvent("answer", b"%d" % n))
    parts = [part for _, part in pending.take()]
    assert [(part.message_id, [event.payload for event in part.events]) for part in parts] == [
        ("a", [b"0", b"2"]),
        ("b", [b"1"]),
    ]
    assert pending.take() == []


def test_a_part_follows_on_the_one_before() -> None:
    pending = Pending()
    writing = begun(pending)
    for expected in (-1, 1, 3):
        pending.put(writing, EVENT)
        pending.put(writing, EVENT)
        taken = pending.take()
        assert taken[0][1].after == expected
        pending.settle(taken, [written(part) for _, part in taken])


def test_a_batch_is_limited_and_the_rest_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_pending, "BATCH_LIMITS", (4, 1_000_000))
    pending = Pending()
    for name in "abc":
        writing = begun(pending, name)
        for _ in range(3):
            pending.put(writing, EVENT)
    assert [part.message_id for _, part in pending.take()] == ["a", "b"]
    assert [part.message_id for _, part in pending.take()] == ["c"]


@pytest.mark.parametrize("name", ["MESSAGE_LIMITS", "PROCESS_LIMITS"])
@pytest.mark.parametrize("limits", [(2, 1_000_000), (1000, 403)])
def test_a_writer_waits_for_room_and_is_told_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, name: str, limits: tuple[int, int]
) -> None:
    monkeypatch.setattr(message_pending, name, limits)
    monkeypatch.setattr(message_pending, "WAIT_SECONDS", 0.01)
    pending = Pending()
    writing = begun(pending)
    pending.put(writing, EVENT)
    pending.put(writing, EVENT)
    pending.trouble = psycopg.OperationalError("the disk is full")
    with pytest.raises(PostgresUnavailable, match="the disk is full"):
        pending.put(writing, EVENT)
    flush(pending)
    pending.put(writing, EVENT)


def test_what_is_on_the_way_still_takes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_pending, "MESSAGE_LIMITS", (1, 1_000_000))
    monkeypatch.setattr(message_pending, "WAIT_SECONDS", 0.01)
    pending = Pending()
    writing = begun(pending)
    pending.put(writing, EVENT)
    pending.take()
    with pytest.raises(PostgresUnavailable):
        pending.put(writing, EVENT)


def test_a_writer_that_was_taken_over_has_nothing_pending_and_others_go_on() -> None:
    pending = Pending()
    old, other = begun(pending, "a"), begun(pending, "b")
    pending.put(old, EVENT)
    pending.put(other, EVENT)
    taken = pending.take()
    pending.put(old, EVENT)
    pending.settle(taken, [Outcome(Verdict.FENCED), written(taken[1][1])])
    with pytest.raises(TakenOver):
        pending.put(old, EVENT)
    assert pending.take() == []
    assert pending.wait_until_written(0) == 0
    pending.put(other, EVENT)


def test_what_was_not_written_since_somebody_had_the_row_comes_first_the_next_time() -> None:
    pending = Pending()
    writing = begun(pending)
    first, second = NewEvent("answer", b"1"), NewEvent("answer", b"2")
    pending.put(writing, first)
    taken = pending.take()
    pending.put(writing, second)
    pending.settle(taken, [Outcome(Verdict.BUSY)])
    assert [part.events for _, part in pending.take()] == [[first, second]]


def refused(part: Part, event: NewEvent) -> Outcome:
    kept = [one for one in part.events if one is not event]
    return written(
        Part(part.message_id, part.attempt, part.after, kept, part.status),
        refused=[(event, psycopg.DataError("bad"))],
    )


def test_a_refusal_is_told_once_and_its_writer_is_still_alive() -> None:
    pending = Pending()
    writing = begun(pending)
    pending.put(writing, EVENT)
    taken = pending.take()
    pending.settle(taken, [refused(taken[0][1], EVENT)])
    assert pending.silent(0) == [writing]
    with pytest.raises(EventRefused, match="bad"):
        pending.put(writing, EVENT)
    pending.put(writing, EVENT)


def finishing(pending: Pending, writing: Writing) -> tuple[threading.Thread, list[Exception]]:
    raised: list[Exception] = []

    def finish() -> None:
        try:
            pending.finish(writing, END, "finished", None, 30)
        except EventRefused as error:
            raised.append(error)

    thread = threading.Thread(target=finish)
    thread.start()
    pending.wait_for_work(30)
    return thread, raised


def test_an_event_that_is_refused_beside_the_end_does_not_undo_it() -> None:
    pending = Pending()
    writing = begun(pending)
    pending.put(writing, EVENT)
    taken = pending.take()
    thread, raised = finishing(pending, writing)
    pending.settle(taken, [refused(taken[0][1], EVENT)])
    flush(pending)
    thread.join()
    assert writing.finished and raised == []


def test_an_end_that_is_refused_is_told() -> None:
    pending = Pending()
    writing = begun(pending)
    thread, raised = finishing(pending, writing)
    taken = pending.take()
    refusal = [(END, psycopg.DataError("bad"))]
    pending.settle(taken, [Outcome(Verdict.WRITTEN, -1, refused=refusal)])
    thread.join()
    assert len(raised) == 1 and not writing.finished
