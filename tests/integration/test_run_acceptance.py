"""How runs begin, are asked for again, are found and cancelled; and what Redis forgot of them."""

from __future__ import annotations

import pytest
import redis

from shared import keys, runs
from shared.facts import Accepted, Fact, Failed, Progress, Report, Sent, Succeeded
from shared.run_states import list_runs
from shared.runs import MANY, RunRef
from tests.described import check_event
from tests.run_facts import (
    BROKEN,
    USER,
    accepted,
    code,
    events,
    idle_for_long,
    interrupted,
    last,
    look,
    retrying,
    started,
    submit,
    succeeded,
    types,
)

AGAIN = Accepted(task="T", repeat_state=True)


@pytest.fixture
def ref(client: redis.Redis) -> RunRef:
    return accepted()


def test_an_exclusive_run_is_refused_while_another_of_its_source_is_open(
    client: redis.Redis, ref: RunRef
) -> None:
    second = runs.new_run(USER, "source-1", "n", final="U")
    exclusive = Accepted(task="U", exclusive=True)
    assert runs.accept(second, exclusive).verdict == "running"
    assert types(client) == ["queued"]
    assert look(second).status == "", "it never was"
    submit(ref, started(), succeeded())
    assert runs.accept(second, exclusive).verdict == "ok"
    assert runs.accept(second, exclusive).verdict == "duplicate", "it is its own"
    elsewhere = runs.new_run(USER, "source-2", "n", final="V")
    assert runs.accept(elsewhere, Accepted(task="V", exclusive=True)).verdict == "ok"


def test_a_run_that_is_asked_for_again_says_its_state_once_more(
    client: redis.Redis, ref: RunRef
) -> None:
    report = Report("parse", 1, 4, "pages")
    said = [
        repeated(client, ref),
        *(
            repeated(client, ref, fact)
            for fact in (
                started(),
                Progress(task="T", nonce="n", reports=[report]),
                interrupted(),
                retrying(eta="2026-01-01T00:00:00.000Z"),
                started(nonce="second", retries=1),
                Failed(task="T", nonce="second", error=BROKEN, details={"files": ["a"]}),
            )
        ),
    ]
    assert said == [
        "queued",
        "started",
        "progress",
        "stalled",
        "retrying",
        "started",
        "failed",
    ]
    done = accepted()
    end = Succeeded(task="T", nonce="n", result={"files": 1})
    assert repeated(client, done, started(), end) == "completed"
    cancelled = accepted()
    runs.end(cancelled)
    assert repeated(client, cancelled) == "cancelled"


def repeated(client: redis.Redis, ref: RunRef, *facts: Fact) -> str:
    """Asks for the run again; the event that is said twice, which fits its schema."""
    for fact in facts:
        submit(ref, fact)
    told, before = events(client)[-1], list_runs(USER)[1][0]
    outcome = runs.accept(ref, AGAIN)
    assert (outcome.verdict, outcome.cursor) == (
        "duplicate",
        "0-0" if outcome.cursor == "0-0" else outcome.cursor,
    )
    again = events(client)[-1]
    assert again["payload"].pop("repeated") is True
    assert (again["type"], again["payload"]) == (told["type"], told["payload"])
    if again["payload"].get("reason") != "cancelled":
        check_event({"id": "1-0", **again})
    after = list_runs(USER)[1][0]
    assert (after.status, after.percent, after.seconds) == (
        before.status,
        before.percent,
        before.seconds,
    )
    return str(told["type"]).removeprefix("source.ingest.")


def test_asking_again_starts_nothing_that_is_over(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started(), succeeded())
    runs.accept(ref, AGAIN)
    assert submit(ref, started(nonce="again")).verdict == "closed"
    assert types(client) == ["queued", "started", "completed", "completed"]


def test_cancelling_names_the_tasks_that_are_not_done(client: redis.Redis) -> None:
    ref = runs.new_run(USER, "source-1", "n", final="C")
    runs.accept(ref, Accepted(finals=["C"]))
    submit(ref, started("A"), Sent(task="B"), Sent(task="C"), succeeded("A"))
    outcome = runs.end(ref)
    assert sorted(outcome.tasks) == ["B", "C"]
    assert outcome.ended
    assert (types(client)[-1], last(client)["reason"]) == ("cancelled", "cancelled")
    for fact in (started("B"), Sent(task="B", retries=1), succeeded("C")):
        assert submit(ref, fact).verdict == "closed"
    again = runs.end(ref)
    assert (again.verdict, list(again.tasks), again.ended) == ("closed", [], False)
    assert types(client).count("cancelled") == 1


def test_what_is_not_there_can_not_be_cancelled(client: redis.Redis) -> None:
    assert runs.end(runs.new_run(USER, "source-1", "n", final="T")).verdict == "missing"


def test_a_run_is_found_by_its_id_and_by_its_tasks(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, Sent(task="U"))
    assert runs.run_of_id(ref.run_id) == ref
    assert runs.run_of_task("T") == runs.run_of_task("U") == ref
    assert runs.run_of_id("another") is None
    assert runs.run_of_task("another") is None


def test_a_member_that_starts_before_it_is_accepted_is_waited_for(client: redis.Redis) -> None:
    ref = runs.new_run(USER, "source-1", "n", final=MANY)
    submit(ref, started("A"), started("B"))
    runs.accept(ref, Accepted(task="A"))  # the producer could not reach Redis until now
    submit(ref, succeeded("A"))
    runs.accept(ref, Accepted(task="B"))
    submit(ref, succeeded("B"))
    assert types(client)[-1] == "started", "there may be more of them"
    idle_for_long(client, ref)
    assert look(ref).status == "completed"


def test_of_a_run_that_redis_forgot_nobody_knows_how_many_are_missing(
    client: redis.Redis,
) -> None:
    ref = runs.new_run(USER, "source-1", "n", final=MANY)
    submit(ref, started("A"), started("B"))
    for member in "AB":
        assert not submit(ref, succeeded(member)).ended
    assert submit(ref, started("C")).verdict == "ok", "another one, which was still waiting"
    submit(ref, succeeded("C"))
    idle_for_long(client, ref)
    assert runs.lapse(ref, "show").status == "running"
    assert look(ref).status == "completed"


def test_a_forgotten_run_of_one_final_ends_with_that(client: redis.Redis) -> None:
    ref = runs.new_run(USER, "source-1", "n", final="B")
    submit(ref, started("A"), Sent(task="B"), succeeded("A"), started("B"))
    assert submit(ref, succeeded("B")).ended


def test_a_retry_makes_a_run_that_redis_forgot(client: redis.Redis) -> None:
    ref = runs.new_run(USER, "source-1", "n", final="T")
    submit(ref, retrying())
    assert types(client) == ["queued", "retrying"]
    for fact in (Sent(task="T"), succeeded(), interrupted(), Progress(task="T", nonce="n")):
        other = runs.new_run(USER, "source-2", "n", final="T")
        assert submit(other, fact).verdict == "missing", "what is over by now makes none"


def test_a_forgotten_run_does_not_take_the_place_of_a_newer_one(client: redis.Redis) -> None:
    forgotten = runs.new_run(USER, "source-1", "n", final="T")
    newer = runs.new_run(USER, "source-1", "n", final="U")
    runs.accept(newer)
    assert submit(forgotten, started()).verdict == "closed"
    assert types(client) == ["queued"]
    submit(newer, started("U"), Failed(task="U", nonce="n", error=BROKEN))
    assert code(client) == "broken"
    assert submit(forgotten, started()).verdict == "ok", "the newer one is over"


def test_events_of_one_step_name_each_other_as_the_one_before(client: redis.Redis) -> None:
    accepted()
    accepted()  # ends the first in the same step
    rows: list[tuple[bytes, dict[bytes, bytes]]] = client.xrange(keys.stream(USER))  # type: ignore[assignment]
    assert len(rows) == 3
    assert [fields[b"p"] for _, fields in rows] == [b"0-0", rows[0][0], rows[1][0]]


def test_what_a_superseded_run_knew_of_its_tasks_is_forgotten(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started())
    runs.accept(runs.new_run(USER, "source-1", "again", final="U"))
    fields = client.hkeys(keys.run(USER, ref.run_id))
    assert not [field for field in fields if b":" in field]
    assert client.ttl(keys.run(USER, ref.run_id)) > 0
