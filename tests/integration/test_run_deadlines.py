"""Runs of which nothing is heard: when, and as what, they end, and what is asked before."""

from __future__ import annotations

import pytest
import redis

from shared import keys, runs
from shared.facts import Accepted, HandedOver, Passed, Progress, Report, Sent, Started
from shared.run_states import list_runs
from shared.runs import MANY, RunRef
from shared.settings import get_settings
from tests.run_facts import (
    GRACE_MS,
    USER,
    accepted,
    code,
    deadline_ms,
    due_now,
    idle_for_long,
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

HOUR_MS = 3_600_000


@pytest.fixture
def ref(client: redis.Redis) -> RunRef:
    return accepted()


def test_a_run_whose_next_step_never_comes_is_a_broken_chain(client: redis.Redis) -> None:
    ref = runs.new_run(USER, "source-1", "n", final="C")
    runs.accept(ref, Accepted(task="A", finals=["C"]))
    submit(ref, started("A"), succeeded("A"))
    assert look(ref).status == "running", "the next step has a minute"
    idle_for_long(client, ref)
    assert runs.lapse(ref, "show").status == "running", "nobody but the reaper ends a run"
    assert list(runs.lapse(ref, "ask").tasks) == ["C"]
    assert look(ref).status == "failed"
    assert code(client) == "chain_broken"
    assert last(client)["error"]["retryable"] is True


def test_a_run_is_idle_only_while_nothing_is_on_the_way(client: redis.Redis) -> None:
    ref = runs.new_run(USER, "source-1", "n", final="C")
    runs.accept(ref, Accepted(task="A", finals=["C"]))
    submit(ref, started("A"), succeeded("A"))
    idle_for_long(client, ref)
    submit(ref, Sent(task="celery's own"))
    assert look(ref).status == "running"
    submit(ref, Passed(task="celery's own"))
    idle_for_long(client, ref)
    submit(ref, started("C"))
    assert look(ref).status == "running"
    assert submit(ref, succeeded("C")).ended


def test_a_run_of_which_no_message_was_ever_sent_is_a_broken_chain(client: redis.Redis) -> None:
    ref = runs.new_run(USER, "source-1", "n", final="C")
    runs.accept(ref, Accepted(finals=["C"]))
    idle_for_long(client, ref)
    assert look(ref).status == "failed"
    assert code(client) == "chain_broken"


def test_a_last_step_that_only_the_backend_knows_of_completes_its_run(client: redis.Redis) -> None:
    ref = runs.new_run(USER, "source-1", "n", final="C")
    runs.accept(ref, Accepted(task="A", finals=["C"]))
    submit(ref, started("A"), succeeded("A"))
    idle_for_long(client, ref)
    assert look(ref, known=("C",)).status == "completed"


def test_what_is_not_to_start_before_its_eta_is_waited_for_from_then_on(
    client: redis.Redis,
) -> None:
    eta_ms = int(now(client) * 1000) + 48 * HOUR_MS
    timeout_ms = get_settings().ingest_queue_timeout_seconds * 1000
    ref = runs.new_run(USER, "source-1", "n", final="T")
    runs.accept(ref, Accepted(task="T", eta_ms=eta_ms))
    assert deadline_ms(client, ref) == eta_ms + timeout_ms
    submit(ref, started(), Sent(task="T", retries=1, eta_ms=eta_ms))
    assert deadline_ms(client, ref) == eta_ms + timeout_ms
    overdue(client, ref)
    assert look(ref).status == "failed"
    assert code(client) == "never_started"


def test_what_can_not_come_again_is_settled_soon_and_in_silence(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started(), interrupted(comes_again=False))
    assert types(client) == ["queued", "started"]
    assert 0 < deadline_ms(client, ref) / 1000 - now(client) <= runs.SETTLE_SECONDS
    assert look(ref).status == "running"
    overdue(client, ref)
    assert look(ref).status == "failed"
    assert (types(client), code(client)) == (["queued", "started", "failed"], "broken")


def test_what_comes_again_is_waited_for_as_long_as_its_grace(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started(), lost(comes_again=True))
    assert types(client)[-1] == "stalled"
    assert deadline_ms(client, ref) / 1000 - now(client) == pytest.approx(GRACE_MS / 1000, abs=5)
    assert look(ref).status == "stalled"
    submit(ref, lost(comes_again=True))
    assert types(client).count("stalled") == 1
    overdue(client, ref)
    assert look(ref).status == "failed"
    assert code(client) == "broken"


def test_a_lapsed_lease_is_a_loss_where_nothing_comes_again(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started(late=False))
    assert look(ref).status == "running"
    overdue(client, ref)
    assert look(ref).status == "failed"
    assert (types(client), code(client)) == (["queued", "started", "failed"], "worker_lost")


def test_a_reader_marks_a_silent_run_and_does_not_end_it(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started(late=False))
    overdue(client, ref)
    for _ in range(2):
        assert runs.lapse(ref, "show").status == "stalled"
    assert types(client) == ["queued", "started", "stalled"]
    submit(ref, Progress(task="T", nonce="n"))
    assert types(client)[-1] == "progress"


def test_the_backend_is_asked_before_anything_is_called_lost(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started())
    overdue(client, ref)
    assert look(ref, known=("T",)).status == "completed"
    assert types(client) == ["queued", "started", "completed"]


def test_a_lapsed_task_whose_deliveries_are_spent_fails_at_the_next_look(
    client: redis.Redis, ref: RunRef
) -> None:
    most = get_settings().ingest_max_deliveries
    for number in range(most):
        submit(ref, started(nonce=str(number)))
        overdue(client, ref)
        look(ref)
    assert types(client)[-2:] == ["started", "failed"], "never stalled for a whole grace"
    assert code(client) == "poison"


def test_a_redelivery_after_the_last_one_that_may_be_is_refused_and_ends_the_run(
    client: redis.Redis, ref: RunRef
) -> None:
    for number in range(get_settings().ingest_max_deliveries):
        submit(ref, started(nonce=str(number)), interrupted(str(number)))
    assert types(client)[-1] == "started", "the last one is settled soon, and in silence"
    assert submit(ref, started(nonce="one more")).verdict == "closed"
    assert (types(client)[-1], code(client)) == ("failed", "poison")


def test_one_delivery_that_is_spent_is_no_poison(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_MAX_DELIVERIES", "1")
    get_settings.cache_clear()
    ref = accepted()
    submit(ref, started())
    overdue(client, ref)
    assert look(ref).status == "failed"
    assert code(client) == "worker_lost"


def test_what_waits_is_not_given_up_while_others_of_its_run_are_at_work(
    client: redis.Redis,
) -> None:
    ref = runs.new_run(USER, "source-1", "n", final=MANY)
    runs.accept(ref, Accepted(finals=["A", "B"]))
    submit(ref, Sent(task="A"), Sent(task="B"), started("A"))
    overdue(client, ref, "B")
    assert look(ref).status == "running"
    submit(ref, succeeded("A"))
    client.hset(keys.run(USER, ref.run_id), "lease_ms", int(now(client) * 1000) + 30_000)
    assert look(ref).status == "running", "one was at work a moment ago"
    overdue(client, ref, "B")
    assert look(ref).status == "failed"
    assert code(client) == "never_started"


def test_who_put_others_in_its_place_waits_as_long_as_they_work(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started(), Sent(task="A"), HandedOver(task="T", nonce="n"), started("A", "a"))
    overdue(client, ref)
    submit(ref, Progress(task="A", nonce="a"))
    assert look(ref).status == "running"
    submit(ref, succeeded("A", "a"))
    overdue(client, ref)
    assert look(ref).status == "failed"
    assert code(client) == "chain_broken"


def test_a_look_says_when_the_next_one_is_worth_it(client: redis.Redis, ref: RunRef) -> None:
    timeout_seconds = get_settings().ingest_queue_timeout_seconds
    assert _next_seconds(client, ref) == pytest.approx(timeout_seconds, abs=5)
    submit(ref, started())
    assert _next_seconds(client, ref) == pytest.approx(30, abs=5)
    submit(ref, interrupted())
    assert _next_seconds(client, ref) == pytest.approx(GRACE_MS / 1000, abs=5)
    submit(ref, succeeded())
    assert runs.lapse(ref, "ask").next_ms is None


def _next_seconds(client: redis.Redis, ref: RunRef) -> float:
    next_ms = look(ref).next_ms
    assert next_ms is not None
    return next_ms / 1000 - now(client)


def test_what_was_held_back_is_told_before_a_run_is_stalled(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started(), Progress(task="T", nonce="n", reports=[Report("parse", 1, 4)]))
    submit(ref, Progress(task="T", nonce="n", reports=[Report("parse", 3, 4)]))
    submit(ref, lost(comes_again=True))
    assert types(client)[-2:] == ["progress", "stalled"]
    due_now(client, ref)
    submit(ref, retrying())
    assert types(client)[-1] == "retrying", "with nothing between that says it goes on"


def test_a_step_that_succeeds_after_all_wakes_its_run(client: redis.Redis) -> None:
    ref = runs.new_run(USER, "source-1", "n", final="C")
    runs.accept(ref, Accepted(task="A", finals=["C"]))
    submit(ref, started("A"))
    overdue(client, ref, "A")
    look(ref)
    assert types(client)[-1] == "stalled"
    submit(ref, Sent(task="C"), succeeded("A"))
    assert types(client)[-1] == "progress", "else its user would still read that it stalled"
    assert list_runs(USER)[1][0].status == "running"


def test_an_end_says_nothing_of_what_was_before(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started(), interrupted(), retrying(eta="2026-01-01T00:00:00.000Z"))
    state = list_runs(USER)[1][0]
    assert (state.status, state.reason) == ("retrying", None)
    submit(ref, started(nonce="second", retries=1), retrying(retries=1))
    overdue(client, ref)
    assert look(ref, known=("T",)).status == "completed"
    state = list_runs(USER)[1][0]
    assert (state.eta, state.reason, state.error) == (None, None, None)
    cancelled = accepted("source-2")
    submit(cancelled, started(), retrying(eta="2026-01-01T00:00:00.000Z"))
    runs.end(cancelled)
    state = list_runs(USER, "source-2")[1][0]
    assert (state.eta, state.reason, state.error) == (None, "cancelled", None)


def test_started_says_for_how_long_its_message_is_waited_for(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, Started(task="T", nonce="n", retries=0, nesting=0, late=True, grace_ms=HOUR_MS))
    overdue(client, ref)
    look(ref)
    assert deadline_ms(client, ref) / 1000 - now(client) == pytest.approx(3600, abs=5)
