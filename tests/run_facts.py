"""What tests of the state of runs report, and what they then see. Their user's name is odd."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import redis

from shared import keys, runs
from shared.facts import ErrorInfo, Fact, Interrupted, Lost, Retrying, Started, Succeeded
from shared.runs import RunRef

USER = "al{i}ce"
BROKEN = ErrorInfo("broken", "It is broken.")
GRACE_MS = 60_000


def accepted(source: str = "source-1", final: str = "T") -> RunRef:
    """A run of one task, which waits."""
    ref = runs.new_run(USER, source, 'a "file" <b>.pdf', final=final)
    runs.accept(ref)
    return ref


def started(
    task: str = "T",
    nonce: str = "n",
    retries: int = 0,
    nesting: int = 0,
    *,
    late: bool = True,
    stages: Mapping[str, float] | None = None,
) -> Started:
    return Started(
        task=task,
        nonce=nonce,
        retries=retries,
        nesting=nesting,
        late=late,
        grace_ms=GRACE_MS,
        stages=stages or {},
    )


def succeeded(task: str = "T", nonce: str = "n") -> Succeeded:
    return Succeeded(task=task, nonce=nonce)


def lost(
    task: str = "T",
    *,
    comes_again: bool = False,
    retries: int | None = None,
    rejected: bool = False,
) -> Lost:
    """What the worker's main process says."""
    return Lost(
        task=task,
        error=BROKEN,
        comes_again=comes_again,
        grace_ms=GRACE_MS,
        retries=retries,
        rejected=rejected,
    )


def interrupted(
    nonce: str = "n", task: str = "T", *, comes_again: bool = True, retries: int | None = None
) -> Interrupted:
    return Interrupted(
        task=task,
        nonce=nonce,
        error=BROKEN,
        comes_again=comes_again,
        grace_ms=GRACE_MS,
        retries=retries,
    )


def retrying(task: str = "T", retries: int = 0, eta: str | None = None) -> Retrying:
    return Retrying(
        task=task,
        retries=retries,
        nesting=0,
        attempts=4,
        eta=eta,
        eta_ms=1 if eta else None,
        error=BROKEN,
    )


def submit(ref: RunRef, *facts: Fact) -> runs.Outcome:
    """Reports facts in order; the outcome of the last."""
    outcome = [runs.submit(ref, fact) for fact in facts][-1]
    assert outcome is not None
    return outcome


def events(client: redis.Redis, source: str = "source-1") -> list[dict[str, Any]]:
    rows: Any = client.xrange(keys.stream(USER))
    found = [json.loads(fields[b"e"]) for _, fields in rows]
    return [event for event in found if event["scope"]["id"] == source]


def types(client: redis.Redis, source: str = "source-1") -> list[str]:
    return [e["type"].removeprefix("source.ingest.") for e in events(client, source)]


def last(client: redis.Redis) -> dict[str, Any]:
    """The payload of the newest event."""
    payload: dict[str, Any] = events(client)[-1]["payload"]
    return payload


def code(client: redis.Redis) -> str:
    """Why the run failed."""
    return str(last(client)["error"]["code"])


def due_now(client: redis.Redis, ref: RunRef) -> None:
    """Lets the time that progress is held back for have passed."""
    client.hset(keys.run(USER, ref.run_id), "progress_ms", "0")


def deadline_ms(client: redis.Redis, ref: RunRef, task: str = "T") -> int:
    """Until when a task is waited for, of Unix time."""
    return int((client.hget(keys.run(USER, ref.run_id), f"task:{task}") or b"0").split()[-1])


def overdue(client: redis.Redis, ref: RunRef, task: str = "T") -> None:
    """Lets a task's deadline have passed, and every lease."""
    key, field = keys.run(USER, ref.run_id), f"task:{task}"
    words = (client.hget(key, field) or b"").split()
    client.hset(key, mapping={field: b" ".join([*words[:-1], b"1"]), "lease_ms": "1"})


def idle_for_long(client: redis.Redis, ref: RunRef) -> None:
    """Lets the time have passed for which nothing may be on the way."""
    key = keys.run(USER, ref.run_id)
    assert int(client.hget(key, "idle") or 0) > 0, "something is on the way"
    client.hset(key, "idle", "1")


def look(ref: RunRef, known: tuple[str, ...] = ()) -> runs.Outcome:
    """What the reaper does, with a result backend that knows of these successes."""
    outcome = runs.lapse(ref, "ask")
    for task in outcome.tasks:
        if task in known:
            submit(ref, Succeeded(task=task))
    return runs.lapse(ref, "fail") if outcome.tasks else outcome


def now(client: redis.Redis) -> float:
    """Redis's clock, in seconds of Unix time."""
    seconds, microseconds = client.time()
    return float(seconds) + float(microseconds) / 1_000_000
