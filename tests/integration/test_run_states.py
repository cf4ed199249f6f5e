"""The state that a client fetches, where nobody else notices that a worker is gone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import redis

from shared import keys, run_states, runs
from shared.facts import ErrorInfo, Progress, Report, Retrying, Started, Succeeded
from shared.run_states import RunState, list_runs
from shared.runs import RunRef

USER = "alice"
LATE = {"late": True, "grace_ms": 60_000}
EARLY = {"late": False, "grace_ms": 0}


def running(source: str = "s", *, late: bool = True) -> RunRef:
    """A run that is at work."""
    ref = runs.new_run(USER, source, source, final="T")
    runs.accept(ref)
    message: Any = LATE if late else EARLY
    runs.submit(ref, Started(task="T", nonce="n", retries=0, nesting=0, **message))
    return ref


def fall_silent(client: redis.Redis, *refs: RunRef) -> None:
    """Lets the leases of runs pass."""
    for ref in refs:
        key = keys.run(USER, ref.run_id)
        words = (client.hget(key, "task:T") or b"").split()
        client.hset(key, mapping={"task:T": b" ".join([*words[:-1], b"1"]), "lease_ms": 1})


def types(client: redis.Redis) -> list[str]:
    rows: Any = client.xrange(keys.stream(USER))
    events = [json.loads(fields[b"e"])["type"] for _, fields in rows]
    return [each.removeprefix("source.ingest.") for each in events]


def state() -> RunState:
    (found,) = list_runs(USER)[1]
    return found


@pytest.mark.parametrize("late", [True, False])
def test_the_first_reader_of_a_silent_run_marks_it_stalled(client: redis.Redis, late: bool) -> None:
    ref = running(late=late)
    assert state().status == "running"
    fall_silent(client, ref)
    cursor, (found,) = list_runs(USER)
    assert (found.status, found.reason) == ("stalled", "worker_lost")
    entries: Any = client.xrevrange(keys.stream(USER), count=1)
    assert cursor == entries[0][0].decode()
    assert list_runs(USER, "s")[1] == [found]
    assert types(client) == ["queued", "started", "stalled"]


def test_a_run_that_speaks_again_is_running_again(client: redis.Redis) -> None:
    ref = running()
    fall_silent(client, ref)
    assert state().status == "stalled"
    runs.submit(ref, Progress(task="T", nonce="n"))
    assert state().status == "running"


def test_a_reader_never_ends_a_run(client: redis.Redis) -> None:
    fall_silent(client, running(late=False))
    for _ in range(3):
        assert state().status == "stalled"


def test_a_run_whose_next_task_waits_for_a_worker_is_left_alone(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = runs.new_run(USER, "s", "s", final="later")
    runs.accept(ref)
    runs.submit(ref, Started(task="T", nonce="n", retries=0, nesting=0, **LATE))  # type: ignore[arg-type]
    runs.submit(ref, Succeeded(task="T", nonce="n"))
    client.hset(keys.run(USER, ref.run_id), "lease_ms", 1)
    monkeypatch.setattr(run_states, "lapse", lambda *_: pytest.fail("nobody is at work"))
    assert state().status == "running"


def test_one_reading_marks_so_many_and_the_next_ones_the_rest(client: redis.Redis) -> None:
    refs = [running(f"s{n}") for n in range(run_states.MOST_SILENT + 5)]
    fall_silent(client, *refs)
    for stalled in (run_states.MOST_SILENT, len(refs)):
        found = list_runs(USER)[1]
        assert sum(each.status == "stalled" for each in found) == stalled


def test_a_state_says_how_many_attempts_there_may_be(client: redis.Redis) -> None:
    ref = running()
    assert state().attempts is None
    error = ErrorInfo("away", "The store was away.")
    retrying = {"retries": 0, "nesting": 0, "eta": None, "eta_ms": None, "error": error}
    runs.submit(ref, Retrying(task="T", attempts=3, **retrying))  # type: ignore[arg-type]
    assert (state().status, state().attempts) == ("retrying", 3)


def test_a_task_counts_as_finished_when_its_stage_is_complete_and_not_at_its_last_item(
    client: redis.Redis,
) -> None:
    ref = running()
    whole = Report("parse", 2, 2, "pages")
    told = [(Report("parse", parts=4, unit="files"), 0), (whole, 0)]
    told += [(replace(whole, complete=True), 1)]
    for report, finished in told:
        runs.submit(ref, Progress(task="T", nonce="n", reports=[report]))
        assert (state().done, state().total) == (finished, 4)
