"""When the reaper looks, whom it asks, and what it makes of the answer; on a real Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import ChordError

import tests.liveness_tasks as tasks
from shared import keys, runs
from shared.errors import RedisUnavailable
from shared.facts import Accepted, Started, Succeeded
from shared.run_states import RunState, list_runs, run_status
from shared.runs import Outcome, RunRef
from worker import reaper as reapers
from worker import results as backends
from worker.reaper import Reaper
from worker.results import Results

USER = "alice"
FIRST_MS = 1.0


class Open:
    """Open runs, and an application whose result backend holds what a test puts there."""

    def __init__(self, url: str, backend: str | None = None) -> None:
        self.client = redis.Redis.from_url(url)
        self.app = Celery("team", broker=url, backend=backend or url, set_as_current=False)
        self.reaper = Reaper(self.app)

    def early(self, source: str, *, task: str = "T") -> RunRef:
        """A run whose one execution is at work, its message acknowledged."""
        ref = runs.new_run(USER, source, source, final=task)
        runs.accept(ref)
        fact = Started(task=task, nonce=source, retries=0, nesting=0, late=False, grace_ms=1000)
        runs.submit(ref, fact)
        return ref

    def overdue(self, source: str, *, task: str = "T") -> RunRef:
        """The same, but nothing was heard of it for long."""
        ref = self.early(source, task=task)
        self.lapse(ref, task)
        return ref

    def lapse(self, ref: RunRef, task: str) -> None:
        """Has a task's deadline be long past, and the run be due."""
        key, field = keys.run(USER, ref.run_id), f"task:{task}"
        words = (self.client.hget(key, field) or b"").split()
        self.client.hset(key, field, b" ".join([*words[:-1], b"1"]))
        self.due(ref)

    def due(self, ref: RunRef) -> None:
        self.client.zadd(keys.open_runs(ref.run_id), {self.member(ref): FIRST_MS})

    def member(self, ref: RunRef) -> bytes:
        rows: Any = self.client.zrange(keys.open_runs(ref.run_id), 0, -1)
        members: list[bytes] = [row for row in rows if ref.run_id.encode() in row]
        return members[0]

    def score(self, ref: RunRef) -> float | None:
        score: Any = self.client.zscore(keys.open_runs(ref.run_id), self.member(ref))
        return None if score is None else float(score)

    def now_ms(self) -> int:
        seconds, microseconds = self.client.time()
        return int(seconds * 1000 + microseconds // 1000)

    def ends(self) -> list[tuple[bytes, bytes]]:
        rows: Any = self.client.xrange(keys.stream(USER))
        return [e for e in (row[b"e"] for _, row in rows) if b'"seconds"' in e]


def state(source: str) -> RunState:
    return list_runs(USER, source)[1][0]


@pytest.fixture
def opened(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    yield Open(redis_url)


def test_it_looks_again_at_the_next_deadline(opened: Open) -> None:
    ref = opened.early("s")
    opened.due(ref)
    before = opened.now_ms()
    assert opened.reaper.reap() == 1
    lease_ms = 30_000
    assert before + lease_ms - 1000 < (opened.score(ref) or 0) <= before + lease_ms
    words: Any = (opened.client.hget(keys.run(USER, ref.run_id), "task:T") or b"").split()
    assert opened.score(ref) == int(words[-1])


def test_it_looks_again_soon_where_the_deadline_is_far(opened: Open) -> None:
    ref = runs.new_run(USER, "s", "s", final="T")
    runs.accept(ref)
    opened.due(ref)
    opened.reaper.reap()
    seconds = ((opened.score(ref) or 0) - opened.now_ms()) / 1000
    assert 0 < seconds <= reapers.LOOK_AGAIN_SECONDS


def test_an_earlier_deadline_that_came_meanwhile_is_kept(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = opened.early("s")
    opened.due(ref)
    sooner = opened.now_ms() + 5000
    look_at = Reaper.look_at

    def and_a_fact(reaper: Reaper, ref: RunRef) -> Outcome:
        outcome = look_at(reaper, ref)
        shard = keys.open_runs(ref.run_id)
        opened.client.zadd(shard, {opened.member(ref): sooner}, lt=True)
        return outcome

    monkeypatch.setattr(Reaper, "look_at", and_a_fact)
    opened.reaper.reap()
    assert opened.score(ref) == sooner


def test_a_reaper_that_dies_while_it_looks_leaves_the_run_to_another(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = opened.overdue("s")

    def die(reaper: Reaper, ref: RunRef) -> Outcome:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Reaper, "look_at", die)
        with pytest.raises(KeyboardInterrupt):
            opened.reaper.reap()
    assert opened.now_ms() < (opened.score(ref) or 0)
    opened.due(ref)
    opened.reaper.reap()
    assert run_status(USER, ref.run_id) == "failed"


def test_more_than_a_batch_is_done_in_one_round(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reapers, "BATCH", 2)
    for number in range(100):
        opened.overdue(f"s{number}")
    assert opened.reaper.reap() == 100
    assert len(opened.ends()) == 100


def test_two_reapers_side_by_side_tell_each_end_once(opened: Open) -> None:
    refs = [opened.overdue(f"s{number}") for number in range(200)]
    both = threading.Barrier(2)

    def reap() -> None:
        reaper = Reaper(opened.app)
        both.wait()
        reaper.reap()

    threads = [threading.Thread(target=reap) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {run_status(USER, ref.run_id) for ref in refs} == {"failed"}
    assert len(opened.ends()) == 200


class Over(BaseException):
    """A test has seen enough."""


def rounds(opened: Open, monkeypatch: pytest.MonkeyPatch, *raised: Exception | None) -> list[str]:
    """What a reaper's thread does, one round after another, where looks raise these."""
    did: list[str] = []
    left = list(raised)

    def sleep(seconds: float) -> None:
        if not left:
            raise Over
        did.append("wait")

    def reap(reaper: Reaper) -> int:
        did.append("look")
        if error := left.pop(0):
            raise error
        return 0

    monkeypatch.setattr(reapers, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(Reaper, "reap", reap)
    with pytest.raises(Over):
        opened.reaper.run()
    return did


def test_after_redis_was_away_it_waits_for_who_is_at_work(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    did = rounds(opened, monkeypatch, None, RedisUnavailable(), None)
    assert did == ["wait", "look", "wait", "look", "wait", "wait", "look"]


def test_it_survives_what_it_does_not_expect(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    did = rounds(opened, monkeypatch, RuntimeError("odd"), None)
    assert did == ["wait", "look"] * 2


def test_a_failure_whose_signal_was_lost_is_told_as_what_it_was(opened: Open) -> None:
    opened.overdue("s")
    opened.app.backend.store_result("T", tasks.Unreadable(), "FAILURE")
    opened.reaper.reap()
    error = state("s").error
    assert error is not None
    assert error["code"] == "unreadable"
    assert error["message"] == "This file can't be read."


def test_a_stored_end_that_can_not_be_told_keeps_no_run_open(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(exception: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(reapers, "describe", refuse)
    opened.overdue("s")
    opened.app.backend.store_result("T", ValueError("x"), "FAILURE")
    opened.reaper.reap()
    error = state("s").error
    assert error is not None
    assert error["code"] == "worker_lost"


def test_a_step_that_an_earlier_one_keeps_from_running_is_told_as_such(opened: Open) -> None:
    ref = runs.new_run(USER, "s", "s", final="last")
    runs.accept(ref, Accepted(task="first", finals=["last"]))
    runs.submit(ref, Succeeded(task="first"))
    opened.client.hset(keys.run(USER, ref.run_id), "idle", "1")
    opened.due(ref)
    opened.app.backend.store_result("last", ChordError("Dependency first raised"), "FAILURE")
    opened.reaper.reap()
    error = state("s").error
    assert error is not None
    assert error["code"] == "chain_broken"


def test_a_last_step_whose_word_was_lost_completes_the_run(opened: Open) -> None:
    ref = runs.new_run(USER, "s", "s", final="last")
    runs.accept(ref, Accepted(task="first", finals=["last"]))
    runs.submit(ref, Succeeded(task="first"))
    opened.client.hset(keys.run(USER, ref.run_id), "idle", "1")
    opened.due(ref)
    opened.app.backend.store_result("last", {"files": 3}, "SUCCESS")
    opened.reaper.reap()
    assert (state("s").status, state("s").result) == ("completed", {"files": 3})


@pytest.mark.parametrize("backend", ["disabled://", "redis://127.0.0.1:1/0", "no.such:Backend"])
def test_a_backend_that_does_not_tell_keeps_no_run_open(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setattr(backends, "ANSWER_SECONDS", 0.5)
    opened = Open(redis_url, backend)
    ref = opened.overdue("s")
    opened.reaper.reap()
    assert run_status(USER, ref.run_id) == "failed"
    error = state("s").error
    assert error is not None
    assert error["code"] == "worker_lost"


def test_a_backend_that_hangs_is_not_asked_again_for_a_while(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    over = threading.Event()

    def hang(task: str) -> Any:
        asked.append(task)
        over.wait(60)
        raise RuntimeError

    monkeypatch.setattr(opened.app, "AsyncResult", hang)
    monkeypatch.setattr(backends, "ANSWER_SECONDS", 0.1)
    began = time.monotonic()
    for number in range(20):
        opened.overdue(f"s{number}", task=f"T{number}")
    opened.reaper.reap()
    over.set()
    assert len(asked) == 1
    assert time.monotonic() - began < 10
    assert len(opened.ends()) == 20


def test_a_backend_that_answers_again_is_asked_again(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    results = Results(opened.app)
    with monkeypatch.context() as patch:
        patch.setattr(backends, "ANSWER_SECONDS", 0.1)
        patch.setattr(backends, "REST_SECONDS", 0.0)
        patch.setattr(opened.app, "AsyncResult", lambda task: over.wait(60))
        assert results.ending_of("T") is None
    over.set()
    opened.app.backend.store_result("T", 7, "SUCCESS")
    assert results.ending_of("T") == ("SUCCESS", 7)
