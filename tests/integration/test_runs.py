"""The state of runs on a real Redis: what facts do, in order and out of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import redis

from shared import keys, runs
from shared.facts import (
    ErrorInfo,
    Failed,
    HandedOver,
    Progress,
    Report,
    Revoked,
    Succeeded,
)
from shared.run_states import list_runs
from shared.runs import RunRef
from shared.settings import get_settings
from tests.run_facts import (
    BROKEN,
    USER,
    accepted,
    due_now,
    events,
    interrupted,
    lost,
    overdue,
    retrying,
    started,
    submit,
    types,
)


@pytest.fixture
def ref(client: redis.Redis) -> RunRef:
    return accepted()


def test_a_run_goes_from_queued_to_completed(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started())
    submit(ref, Progress(task="T", nonce="n", reports=[Report("parse", 1, 4, "pages")]))
    outcome = submit(ref, Succeeded(task="T", nonce="n", result={"files": 1, "percent": 3}))
    assert outcome.ended
    assert types(client) == ["queued", "started", "progress", "progress", "completed"]
    last = events(client)[-1]
    assert last["payload"] == {
        "run_id": ref.run_id,
        "name": 'a "file" <b>.pdf',
        "attempt": 1,
        "percent": 100,
        "seconds": last["payload"]["seconds"],
        "files": 1,
    }


def test_accepting_twice_changes_nothing_and_the_cursor_is_from_before(
    client: redis.Redis, redis_url: str
) -> None:
    ref = runs.new_run(USER, "source-1", "n", final="T")
    assert runs.accept(ref).cursor == "0-0"
    assert runs.accept(ref).verdict == "duplicate"
    assert types(client) == ["queued"]


def test_a_new_run_of_a_running_source_supersedes_the_first(
    client: redis.Redis, ref: RunRef
) -> None:
    second = runs.new_run(USER, "source-1", "again", final="T2")
    runs.accept(second)
    assert types(client) == ["queued", "cancelled", "queued"]
    assert events(client)[1]["payload"]["reason"] == "superseded"
    assert submit(ref, started()).verdict == "closed"


def test_progress_is_held_back_and_its_last_value_gets_out(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started())
    for done in range(50):
        outcome = submit(
            ref, Progress(task="T", nonce="n", reports=[Report("parse", done, 50, "pages")])
        )
    assert types(client).count("progress") == 1
    assert outcome.due_ms is not None and 0 < outcome.due_ms <= 250
    due_now(client, ref)
    submit(ref, Progress(task="T", nonce="n"))
    assert events(client)[-1]["payload"]["done"] == 49
    due_now(client, ref)
    submit(ref, Progress(task="T", nonce="n"))
    assert types(client).count("progress") == 2, "nothing visible changed"


def test_stages_weigh_into_one_percent_that_never_falls(client: redis.Redis, ref: RunRef) -> None:
    submit(
        ref,
        started(stages={"parse": 6, "index": 4}),
    )
    seen = []
    for report in [
        Report("parse", 1, 2, "pages"),
        Report("parse", 2, 2, "pages", complete=True),
        Report("index", 0, 10, "chunks"),
        Report("index", 5, 10, "chunks"),
        Report("index", 1, 10, "chunks"),
    ]:
        due_now(client, ref)
        submit(ref, Progress(task="T", nonce="n", reports=[report]))
        seen.append(events(client)[-1]["payload"]["percent"])
    assert seen == [30, 60, 60, 80, 80]


def test_a_fan_out_counts_each_member_once(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started())
    submit(ref, Progress(task="T", nonce="n", reports=[Report("parse", parts=3, unit="files")]))
    submit(ref, HandedOver(task="T", nonce="n"))
    for member in "abc":
        for nonce in ("first", "again"):  # redelivered in mid-work
            submit(ref, started(member, nonce + member, nesting=1))
            submit(
                ref,
                Progress(task=member, nonce=nonce + member, reports=[Report("parse", 1, 2)]),
            )
        submit(ref, Succeeded(task=member, nonce="again" + member))
        assert submit(ref, Succeeded(task=member, nonce="again" + member)).verdict == "duplicate"
    due_now(client, ref)
    submit(ref, started("T", "body", nesting=1))
    submit(ref, Progress(task="T", nonce="body", reports=[Report("index", 0, 1)]))
    shown = [e["payload"] for e in events(client) if e["type"].endswith("progress")]
    assert {(p["done"], p["total"], p["unit"]) for p in shown if p["stage"] == "parse"} <= {
        (done, 3, "files") for done in range(4)
    }
    submit(ref, Succeeded(task="T", nonce="body"))
    assert types(client)[-1] == "completed"


def test_a_replaced_tasks_body_is_not_another_attempt(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started("T", "root"))
    submit(ref, started("T", "body", nesting=1))  # it may start before the root's end is told
    assert submit(ref, HandedOver(task="T", nonce="root")).verdict == "stale"
    submit(ref, Succeeded(task="T", nonce="body"))
    assert types(client) == ["queued", "started", "completed"]
    assert events(client)[-1]["payload"]["attempt"] == 1


def test_a_started_whose_reply_was_lost_is_not_another_attempt(
    client: redis.Redis, ref: RunRef
) -> None:
    for _ in range(3):
        assert submit(ref, started()).verdict == "ok"
    submit(ref, Succeeded(task="T", nonce="n"))
    assert types(client) == ["queued", "started", "completed"]
    assert events(client)[-1]["payload"]["attempt"] == 1


def test_a_run_with_two_finals_ends_with_the_second(client: redis.Redis, ref: RunRef) -> None:
    runs.accept(replace(ref, final="U"))
    for task in "TU":
        submit(ref, started(task, "n" + task))
    assert not submit(ref, Succeeded(task="T", nonce="nT")).ended
    assert submit(ref, Succeeded(task="U", nonce="nU")).ended
    assert types(client) == ["queued", "started", "completed"]


def test_what_a_task_counted_last_is_told_before_it_fails(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started())
    submit(ref, Progress(task="T", nonce="n", reports=[Report("parse", 1, 10)]))
    submit(ref, Failed(task="T", nonce="n", error=BROKEN, reports=[Report("parse", 7, 10)]))
    assert types(client)[-2:] == ["progress", "failed"]
    assert events(client)[-2]["payload"]["done"] == 7


def test_an_ended_run_keeps_only_what_a_list_shows(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started())
    submit(ref, Progress(task="T", nonce="n", reports=[Report("parse", 1, 10)]))
    submit(ref, Succeeded(task="T", nonce="n"))
    names: Any = client.hkeys(keys.run(USER, ref.run_id))
    assert not [name for name in names if b":" in name]


def test_push_switched_off_keeps_states_and_appends_nothing(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENABLE_SSE_PUSH", "false")
    get_settings.cache_clear()
    ref = runs.new_run(USER, "source-1", "n", final="T")
    runs.accept(ref)
    submit(ref, started())
    submit(ref, Succeeded(task="T", nonce="n"))
    assert types(client) == []
    assert list_runs(USER)[1][0].status == "completed"


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), "x", '1,"percent":77', True, None])
def test_what_is_no_number_never_reaches_an_event(
    client: redis.Redis, ref: RunRef, odd: Any
) -> None:
    submit(ref, started())
    report = Report('a "stage"\n', done=odd, total=odd, parts=None)
    submit(ref, Progress(task="T", nonce="n", reports=[report]))
    payload = events(client)[-1]["payload"]
    assert (payload["done"], payload["total"], payload["percent"]) == (0, None, 0)


def test_an_overlong_sentence_is_cut(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started())
    submit(ref, Failed(task="T", nonce="n", error=ErrorInfo("long", "x" * 300_000)))
    assert len(json.dumps(events(client)[-1])) < 2000


def test_a_zombies_word_counts_for_nothing(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started(nonce="zombie"))
    submit(ref, started(nonce="alive"))
    assert submit(ref, Failed(task="T", nonce="zombie", error=BROKEN)).verdict == "stale"
    assert submit(ref, Succeeded(task="T", nonce="zombie")).verdict == "stale"
    assert submit(ref, Progress(task="T", nonce="zombie")).verdict == "stale"
    assert submit(ref, Succeeded(task="T", nonce="alive")).ended
    assert types(client) == ["queued", "started", "started", "completed"]


def test_a_late_retry_signal_does_not_undo_the_next_attempt(
    client: redis.Redis, ref: RunRef
) -> None:
    retry = retrying()
    submit(ref, started())
    submit(ref, started(nonce="second", retries=1))
    assert submit(ref, retry).verdict == "stale"
    assert submit(ref, started(nonce="late")).verdict == "stale"
    assert types(client) == ["queued", "started", "started"]


def test_a_retry_says_when_and_why(client: redis.Redis, ref: RunRef) -> None:
    eta = "2026-01-01T00:00:00.000Z"
    submit(ref, started())
    submit(ref, retrying(eta=eta))
    payload = events(client)[-1]["payload"]
    assert (payload["eta"], payload["error"]["code"]) == (eta, "broken")
    submit(ref, started(nonce="second", retries=1))
    assert [e["payload"]["attempt"] for e in events(client)][-1] == 2


def test_failed_carries_its_error_and_details(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started())
    details = {"failed_files": [{"name": "a", "code": "broken", "message": "m"}]}
    submit(ref, Failed(task="T", nonce="n", error=BROKEN, details=details))
    payload = events(client)[-1]["payload"]
    assert payload["error"] == {"code": "broken", "message": "It is broken.", "retryable": False}
    assert payload["failed_files"] == details["failed_files"]
    assert list_runs(USER)[1][0].error == payload["error"]


def test_a_lost_child_is_final_only_where_nothing_comes_again(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started())
    submit(ref, lost(comes_again=True))
    assert types(client)[-1] == "stalled"
    submit(ref, started(nonce="redelivered"))
    submit(ref, lost(comes_again=False))
    assert types(client)[-1] == "failed"


def test_what_lapses_is_stalled_first_where_it_may_come_again(
    client: redis.Redis, ref: RunRef
) -> None:
    submit(ref, started())
    assert runs.lapse(ref, "fail").status == "running"
    overdue(client, ref)
    assert runs.lapse(ref, "fail").status == "stalled"
    overdue(client, ref)
    assert runs.lapse(ref, "fail").status == "failed"
    assert types(client) == ["queued", "started", "stalled", "failed"]
    assert events(client)[-1]["payload"]["error"]["code"] == "worker_lost"


def test_a_run_that_never_starts_fails(client: redis.Redis, ref: RunRef) -> None:
    overdue(client, ref)
    assert runs.lapse(ref, "fail").status == "failed"
    assert events(client)[-1]["payload"]["error"]["code"] == "never_started"


def test_a_redelivery_wakes_a_stalled_run(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started())
    submit(ref, interrupted("n"))
    submit(ref, started(nonce="again"))
    submit(ref, Succeeded(task="T", nonce="again"))
    assert types(client) == ["queued", "started", "stalled", "started", "completed"]


def test_started_makes_a_run_that_redis_forgot(client: redis.Redis) -> None:
    ref = runs.new_run(USER, "source-1", "n", final="T")
    submit(ref, started())
    submit(ref, Succeeded(task="T", nonce="n"))
    assert types(client) == ["queued", "started", "completed"]


def test_the_list_says_what_the_events_said(client: redis.Redis, ref: RunRef) -> None:
    eta = "2026-01-01T00:00:00.000Z"
    submit(ref, started())
    submit(ref, retrying(eta=eta))
    state = list_runs(USER)[1][0]
    assert (state.status, state.eta, state.reason) == ("retrying", eta, None)
    assert state.error is not None and state.error["code"] == "broken"
    submit(ref, started(nonce="second", retries=1))
    state = list_runs(USER)[1][0]
    assert (state.status, state.eta, state.error, state.seconds) == ("running", None, None, None)
    submit(ref, interrupted("second"))
    assert list_runs(USER)[1][0].reason == "interrupted"
    submit(ref, Revoked(task="T", expired=False))
    state = list_runs(USER)[1][0]
    assert (state.status, state.reason) == ("cancelled", "revoked")
    assert state.seconds == events(client)[-1]["payload"]["seconds"]


def test_the_list_has_the_cursor_that_belongs_to_it(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started())
    submit(ref, Progress(task="T", nonce="n", reports=[Report("parse", 1, 4, "pages")]))
    runs.accept(runs.new_run(USER, "source-2", "other", final="U"))
    cursor, states = list_runs(USER)
    newest: Any = client.xrevrange(keys.stream(USER), count=1)
    assert cursor == newest[0][0].decode()
    assert [state.source_id for state in states] == ["source-2", "source-1"]
    assert (states[1].stage, states[1].done, states[1].total) == ("parse", 1, 4)
    assert list_runs("someone else") == ("0-0", [])
    assert [s.source_id for s in list_runs(USER, "source-2")[1]] == ["source-2"]


def test_a_result_too_large_for_an_event_is_left_out(client: redis.Redis, ref: RunRef) -> None:
    submit(ref, started())
    submit(ref, Succeeded(task="T", nonce="n", result={"big": "x" * 20_000}))
    assert "big" not in events(client)[-1]["payload"]
    assert types(client)[-1] == "completed"
