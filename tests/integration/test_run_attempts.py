"""Which execution of a task counts: attempts in any order, twins, and what is told of neither."""

from __future__ import annotations

import pytest
import redis

from shared import runs
from shared.facts import Accepted, Failed, HandedOver, Progress, Report, Revoked, Sent
from shared.runs import RunRef
from tests.run_facts import (
    BROKEN,
    accepted,
    code,
    deadline_ms,
    events,
    interrupted,
    last,
    look,
    lost,
    now,
    overdue,
    retrying,
    started,
    submit,
    succeeded,
    types,
)

BEAT = Progress(task="T", nonce="second")


@pytest.fixture
def ref(client: redis.Redis) -> RunRef:
    return accepted()


@pytest.mark.parametrize(
    "order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
)
def test_a_retrys_facts_may_come_in_any_order(
    client: redis.Redis, ref: RunRef, order: tuple[int, ...]
) -> None:
    submit(ref, started())
    facts = [Sent(task="T", retries=1), retrying(), started(nonce="second", retries=1)]
    submit(ref, *(facts[number] for number in order))
    assert submit(ref, Progress(task="T", nonce="n")).verdict == "stale"
    assert submit(ref, succeeded(nonce="second")).ended
    seen = types(client)
    assert seen[:2] == ["queued", "started"] and seen[-2:] == ["started", "completed"]
    assert last(client)["attempt"] == 2
    assert seen.count("retrying") == (order.index(1) < order.index(2))


def test_a_retry_that_does_not_throw_completes_with_its_last_attempt(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started(), Sent(task="T", retries=1))
    assert submit(ref, succeeded()).verdict == "stale"
    submit(ref, started(nonce="second", retries=1))
    assert submit(ref, succeeded(nonce="second")).ended


def test_a_retry_of_a_replacement_counts_as_its_second_execution(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, *(started(nonce=str(number)) for number in range(5)))
    submit(ref, Sent(task="T", nesting=1), started(nonce="body", nesting=1))
    submit(ref, started(nonce="again", retries=1, nesting=1))
    assert submit(ref, succeeded(nonce="again")).ended


def test_a_new_attempt_forgets_what_the_last_one_was_at(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started(), Progress(task="T", nonce="n", reports=[Report("parse", 3, 4)]))
    submit(ref, retrying(), started(nonce="second", retries=1))
    assert (last(client)["attempt"], last(client)["percent"]) == (2, 0)
    runs.accept(ref, Accepted(repeat_state=True))
    assert types(client)[-1] == "started", "in no stage yet"


def test_an_end_seen_of_one_of_two_executions_is_not_believed_while_one_beats(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started(), started(nonce="second"))
    for told in (
        lost(retries=0),  # its hard limit, which Celery tells twice
        lost(),
        lost(rejected=True),
        interrupted("", comes_again=False, retries=0),
        Failed(task="T", error=BROKEN),
    ):
        submit(ref, told, BEAT)
        assert look(ref).status == "running"
    assert submit(ref, succeeded(nonce="second")).ended
    assert types(client) == ["queued", "started", "started", "completed"]


def test_an_end_seen_of_one_of_two_executions_is_believed_when_a_lease_has_passed(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started(), started(nonce="second"), lost(retries=0))
    assert 0 < deadline_ms(client, ref) / 1000 - now(client) <= 30
    overdue(client, ref)
    assert look(ref).status == "failed"
    assert code(client) == "broken"


def test_what_is_told_after_all_of_an_execution_that_was_given_up_is_another_ones(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started())
    overdue(client, ref)
    look(ref)  # its lease has passed, but it may only have been cut off
    submit(ref, started(nonce="second"), lost(retries=0))
    assert look(ref).status == "running"


def test_a_child_that_dies_after_its_redelivery_fails_the_run_at_once(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started(), lost(comes_again=True), started(nonce="second"), lost(retries=0))
    assert types(client)[-1] == "failed"


def test_an_end_without_its_attempt_may_be_of_the_one_before(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started(), Sent(task="T", retries=1))
    waits_until = deadline_ms(client, ref)
    for told in (lost(), lost(comes_again=True), interrupted("", comes_again=False)):
        assert submit(ref, told).status == "running"
    assert deadline_ms(client, ref) == waits_until, "the retry is on the way"
    submit(ref, started(nonce="second", retries=1), lost(), BEAT)
    assert look(ref).status == "running"
    assert types(client) == ["queued", "started", "started"]


def test_an_end_of_an_attempt_that_has_been_replaced_counts_for_nothing(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started(), started(nonce="second", retries=1))
    assert submit(ref, lost(retries=0)).verdict == "stale"
    assert submit(ref, interrupted("", retries=0)).verdict == "stale"
    assert submit(ref, Revoked(task="T", expired=True, retries=0)).verdict == "stale"


def test_a_child_that_dies_before_it_could_say_that_it_began_fails_the_run(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, lost(retries=0))
    assert types(client) == ["queued", "failed"]


def test_a_message_that_celery_can_not_run_is_settled_soon(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, interrupted("", comes_again=False))
    assert deadline_ms(client, ref) / 1000 - now(client) <= runs.SETTLE_SECONDS
    overdue(client, ref)
    assert look(ref).status == "failed"
    assert (types(client), code(client)) == (["queued", "failed"], "broken")


def test_a_copy_that_expires_is_no_end_of_who_is_at_work(client: redis.Redis, ref: RunRef) -> None:
    expired = Revoked(task="T", expired=True, retries=0)
    submit(ref, started())
    assert submit(ref, expired).verdict == "stale"
    submit(ref, interrupted())
    assert submit(ref, expired).ended
    assert code(client) == "expired"


def test_a_rejected_message_ends_its_run(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started(), Sent(task="T", retries=1))  # and the retry can't be published
    assert submit(ref, lost(rejected=True)).ended
    assert types(client)[-1] == "failed"


def test_who_put_others_in_its_place_is_not_executed_again(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started("T", "root"), HandedOver(task="T", nonce="root"))
    for told in (
        started("T", "root again"),
        lost(),
        lost(retries=0),
        interrupted("", retries=0),
        Revoked(task="T", expired=True),
    ):
        assert submit(ref, told).verdict == "stale"
    submit(ref, started("T", "body", nesting=1))
    assert submit(ref, succeeded(nonce="body")).ended
    assert types(client) == ["queued", "started", "completed"]


def test_a_delivery_too_many_leaves_who_is_at_work_alone(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, *(started(nonce=str(number)) for number in range(5)))
    assert submit(ref, started(nonce="5")).verdict == "stale"
    assert submit(ref, succeeded(nonce="4")).ended


def test_retries_are_no_deliveries_too_many(client: redis.Redis, ref: RunRef) -> None:
    for retries in range(8):
        verdict = submit(ref, started(nonce=str(retries), retries=retries)).verdict
        assert verdict == "ok"
    assert [event["payload"]["attempt"] for event in events(client)] == list(range(9))


def test_a_beat_clears_a_suspicion_and_its_error(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started(nonce="second"), lost(comes_again=True))
    assert types(client)[-1] == "stalled"
    submit(ref, BEAT)
    assert types(client)[-1] == "progress"
    for _ in range(2):
        overdue(client, ref)
        look(ref)
    assert code(client) == "worker_lost", "not what was told of it before"


def _now(client: redis.Redis) -> float:
    seconds, microseconds = client.time()
    return float(seconds) + float(microseconds) / 1_000_000
