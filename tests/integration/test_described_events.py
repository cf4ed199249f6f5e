"""Every event that a run really writes, against the schema of its type."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from jsonschema import ValidationError

from shared import keys, runs, wire
from shared.facts import (
    Accepted,
    Failed,
    Interrupted,
    Progress,
    Report,
    Retrying,
    Revoked,
    Succeeded,
)
from shared.publisher import publish_user_event
from shared.runs import RunRef
from tests.described import check_event
from tests.run_facts import BROKEN, GRACE_MS, USER, overdue, started, submit
from worker.documents.indexing import failures

ETA = "2026-01-01T00:00:00.000Z"


def accepted(source: str = "source-1") -> RunRef:
    ref = runs.new_run(USER, source, 'a "file" <b>.pdf', final="T")
    runs.accept(ref)
    return ref


def journaled(client: redis.Redis) -> list[dict[str, Any]]:
    rows: Any = client.xrange(keys.stream(USER))
    frames = [wire.event_frame(entry_id, fields[b"e"]) for entry_id, fields in rows]
    return [json.loads(frame.decode().partition("data: ")[2]) for frame in frames]


def checked_types(client: redis.Redis) -> list[str]:
    events = journaled(client)
    for event in events:
        check_event(event)
    return [event["type"].removeprefix("source.ingest.") for event in events]


def interrupted(nonce: str) -> Interrupted:
    return Interrupted(task="T", nonce=nonce, error=BROKEN, comes_again=True, grace_ms=GRACE_MS)


def test_the_events_of_a_run_that_is_retried_stalls_and_completes_fit_their_schemas(
    client: redis.Redis,
) -> None:
    ref = accepted()
    submit(ref, started())
    submit(ref, Progress(task="T", nonce="n", reports=[Report("parse", 1, 4, "pages")]))
    submit(
        ref, Retrying(task="T", retries=0, nesting=0, attempts=4, eta=ETA, eta_ms=1, error=BROKEN)
    )
    submit(ref, started(nonce="second", retries=1))
    submit(ref, interrupted("second"))
    submit(ref, started(nonce="third", retries=1))
    submit(ref, Progress(task="T", nonce="third", reports=[Report("index", 1)]))
    submit(ref, Succeeded(task="T", nonce="third", result={"files": 1, "chunks": [], "run_id": 7}))
    seen = checked_types(client)
    assert {"queued", "started", "progress", "retrying", "stalled", "completed"} == set(seen)


def test_an_unknown_eta_and_a_progress_before_any_stage_fit_their_schemas(
    client: redis.Redis,
) -> None:
    ref = accepted()
    submit(ref, started())
    submit(ref, interrupted("n"))
    submit(ref, Progress(task="T", nonce="n"))
    submit(
        ref,
        Retrying(task="T", retries=0, nesting=0, attempts=4, eta=None, eta_ms=None, error=BROKEN),
    )
    assert checked_types(client)[-3:] == ["stalled", "progress", "retrying"]
    assert journaled(client)[-2]["payload"]["stage"] is None


def test_every_failed_end_fits_its_schema(client: redis.Redis) -> None:
    details = failures([{"name": "a", "code": "empty", "message": "It has no text."}])
    told = accepted("told")
    submit(told, started())
    submit(told, Failed(task="T", nonce="n", error=BROKEN, details=details))
    lost = accepted("lost")
    submit(lost, started())
    for _ in range(2):
        overdue(client, lost)
        runs.lapse(lost, "fail")
    never = accepted("never started")
    overdue(client, never)
    runs.lapse(never, "fail")
    expired = accepted("expired")
    submit(expired, Revoked(task="T", expired=True))
    poison = accepted("poison")
    for execution in range(5):
        submit(poison, started(nonce=str(execution)))
    overdue(client, poison)
    runs.lapse(poison, "fail")
    assert checked_types(client).count("failed") == 5
    assert {"failed_files"} <= {
        name for event in journaled(client) for name in event["payload"]
    }  # what a task says of its failure stands beside the fixed members


def test_every_cancelled_end_fits_its_schema(client: redis.Redis) -> None:
    accepted()
    submit(accepted(), Revoked(task="T", expired=False))
    assert checked_types(client) == ["queued", "cancelled", "queued", "cancelled"]
    reasons = [e["payload"].get("reason") for e in journaled(client)]
    assert reasons == [None, "superseded", None, "revoked"]


def test_a_member_that_is_not_described_would_be_noticed(client: redis.Redis) -> None:
    accepted()
    event = journaled(client)[0]
    for changed in ({**event, "more": 1}, {**event, "payload": {**event["payload"], "more": 1}}):
        with pytest.raises(ValidationError, match="'more' was unexpected"):
            check_event(changed)


def test_a_catalogued_type_is_published_whatever_its_payload(client: redis.Redis) -> None:
    assert publish_user_event(USER, "tool.approval.required", {"not": "described"})
    assert journaled(client)[0]["payload"] == {"not": "described"}


def test_every_state_that_is_said_once_more_fits_its_schema_and_says_so(
    client: redis.Redis,
) -> None:
    ref = accepted()
    progress = Progress(task="T", nonce="n", reports=[Report("parse", 1, 4, "pages")])
    again = Retrying(task="T", retries=0, nesting=0, attempts=4, eta=ETA, eta_ms=1, error=BROKEN)
    details = failures([{"name": "a", "code": "empty", "message": "It has no text."}])
    steps = [
        started(),
        progress,
        interrupted("n"),
        again,
        started(nonce="second", retries=1),
        Failed(task="T", nonce="second", error=BROKEN, details=details),
    ]
    repeat = Accepted(task="T", repeat_state=True)
    for step in [None, *steps]:
        if step is not None:
            submit(ref, step)
        told = journaled(client)[-1]["payload"]
        runs.accept(ref, repeat)
        said = journaled(client)[-1]["payload"]
        # Once it is in a stage, a run that began again is shown with its bar.
        assert {**told, "repeated": True}.items() <= said.items()
    for end in (Revoked(task="T", expired=False), Succeeded(task="T", result={"files": 1})):
        ref = accepted()
        submit(ref, end)
        runs.accept(ref, repeat)
    seen = checked_types(client)
    assert {"queued", "started", "progress", "stalled", "retrying", "failed"} <= set(seen)
    assert seen[-1] == seen[-2] == "completed"
