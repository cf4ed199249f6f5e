"""The reaper on a real Redis: what it closes, what it leaves, what it survives."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from shared import keys, runs
from shared.facts import Started
from shared.run_states import run_status
from shared.runs import Outcome, RunRef
from worker import app
from worker.reaper import LOOK_AGAIN_SECONDS, Reaper

USER = "alice"


@pytest.fixture
def client(client: redis.Redis, redis_url: str) -> redis.Redis:
    app.conf.update(result_backend=redis_url)
    return client


def overdue(client: redis.Redis, source: str) -> RunRef:
    """A run that waits, and whose deadline has passed."""
    ref = runs.new_run(USER, source, source, final=f"task-{source}")
    runs.accept(ref)
    key, field = keys.run(USER, ref.run_id), f"task:{ref.final}"
    words = (client.hget(key, field) or b"").split()
    client.hset(key, field, b" ".join([*words[:-1], b"1"]))
    look_now(client, ref)
    return ref


def look_now(client: redis.Redis, ref: RunRef) -> None:
    shard = keys.open_runs(ref.run_id)
    members: Any = client.zrange(shard, 0, -1)
    for member in members:
        if ref.run_id.encode() in member:
            client.zadd(shard, {member: 1})


def test_what_never_started_is_failed_and_looked_at_no_more(client: redis.Redis) -> None:
    ref = overdue(client, "s")
    assert Reaper(app).reap() == 1
    assert run_status(USER, ref.run_id) == "failed"
    assert Reaper(app).reap() == 0
    assert client.zcard(keys.open_runs(ref.run_id)) == 0


def test_what_is_alive_is_left_and_looked_at_again(client: redis.Redis) -> None:
    ref = runs.new_run(USER, "s", "s", final="T")
    runs.accept(ref)
    started = Started(task="T", nonce="n", retries=0, nesting=0, late=True, grace_ms=1000)
    runs.submit(ref, started)
    look_now(client, ref)
    Reaper(app).reap()
    assert run_status(USER, ref.run_id) == "running"
    scores: Any = client.zrange(keys.open_runs(ref.run_id), 0, -1, withscores=True)
    assert 0 < scores[0][1] / 1000 - time.time() <= LOOK_AGAIN_SECONDS


def test_a_result_whose_signal_was_lost_completes_its_run(client: redis.Redis) -> None:
    ref = overdue(client, "s")
    app.backend.store_result(ref.final, {"files": 3}, "SUCCESS")
    Reaper(app).reap()
    assert run_status(USER, ref.run_id) == "completed"


def test_one_run_that_can_not_be_looked_at_keeps_no_other_open(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [overdue(client, f"s{n}") for n in range(4)]
    look_at = Reaper.look_at

    def trip(reaper: Reaper, ref: RunRef) -> Outcome:
        if ref == refs[1]:
            raise RuntimeError("the backend holds something odd")
        return look_at(reaper, ref)

    monkeypatch.setattr(Reaper, "look_at", trip)
    Reaper(app).reap()
    statuses = [run_status(USER, ref.run_id) for ref in refs]
    assert statuses == ["failed", "queued", "failed", "failed"]
    assert client.zcard(keys.open_runs(refs[1].run_id)) == 1
