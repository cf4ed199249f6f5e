"""The open runs of all users, for whoever looks after the whole: what state they are in, and where.

The sets of open runs are hints by next deadline, and each run's own hash says how it stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from shared import keys, payloads
from shared.connections import ask_each
from shared.run_states import moment
from shared.runs import TERMINAL, RunRef
from shared.settings import get_settings
from shared.steps import reachable_redis

MOST_OF_A_SHARD = 64  # that are looked at: about a thousand in all
OpenStatus = Literal["queued", "running", "retrying", "stalled"]
_JSON_FIELDS = (
    *("name", "attempt", "stage", "done", "total", "unit", "note", "percent"),
    *("eta", "attempts", "reason", "error"),
)
_OTHERS = ("status", "accepted_ms", "updated_ms", "lease_ms", "alive", "worker")


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that is not over. What there is nothing to say of is null.

    `worker` is the one that was the last to begin a task of it; `at_work` is how many of its tasks
    have an execution that is alive. `heard_at` is when the last was heard of it.
    """

    user_id: str
    source_id: str
    run_id: str
    name: payloads.Name
    status: OpenStatus
    attempt: payloads.Attempt
    attempts: payloads.Attempts | None
    stage: payloads.Stage | None
    done: payloads.Done | None
    total: payloads.Total | None
    unit: payloads.Unit | None
    note: payloads.Note | None
    percent: payloads.Percent
    worker: str | None
    at_work: int
    accepted_at: payloads.Moment
    heard_at: payloads.Moment
    eta: payloads.Eta | None
    reason: payloads.Reason | None
    error: payloads.Error | None


@dataclass(frozen=True, slots=True)
class OpenRuns:
    """The open runs that were looked at, the stalest first; `more` where there are others."""

    runs: list[OpenRun]
    more: bool


def list_open_runs() -> OpenRuns:
    """The open runs of all users, about a thousand: those whose next deadline comes first.

    Raises:
        RedisUnavailable: Redis did not answer.
    """
    shards = [keys.open_shard(number) for number in range(keys.OPEN_SHARDS)]
    with reachable_redis() as client:
        sizes = ask_each(client, [("ZCARD", shard) for shard in shards])
        members = ask_each(client, [("ZRANGE", s, 0, MOST_OF_A_SHARD - 1) for s in shards])
        refs = _refs(member for of_shard in members for member in of_shard)
        fields = (*_JSON_FIELDS, *_OTHERS)
        commands = [("HMGET", keys.run(ref.user_id, ref.run_id), *fields) for ref in refs]
        rows = ask_each(client, commands) if commands else []
    found = []
    for ref, row in zip(refs, rows, strict=True):
        state = {f: "" if v is None else v.decode() for f, v in zip(fields, row, strict=True)}
        if state["status"] and state["status"] not in TERMINAL:
            found.append(_open_run(ref, state))
    found.sort(key=lambda run: (run.heard_at, run.run_id))
    return OpenRuns(found, any(size > MOST_OF_A_SHARD for size in sizes))


def _refs(members: Any) -> list[RunRef]:
    """The runs, each once: its tasks may name it by several finals."""
    found = [RunRef.from_header(json.loads(member)) for member in members]
    return list({ref.run_id: ref for ref in found if ref is not None}.values())


def _open_run(ref: RunRef, state: Mapping[str, str]) -> OpenRun:
    lease_ms = get_settings().ingest_lease_seconds * 1000
    heard_ms = max(int(state["updated_ms"]), int(state["lease_ms"] or 0) - lease_ms)
    return OpenRun(
        user_id=ref.user_id,
        source_id=ref.source_id,
        run_id=ref.run_id,
        status=cast(OpenStatus, state["status"]),
        worker=state["worker"] or None,
        at_work=int(state["alive"] or 0),
        accepted_at=moment(state["accepted_ms"]),
        heard_at=moment(str(heard_ms)),
        # the rest is JSON text in the run's hash; empty is not there
        **{name: json.loads(state[name] or "null") for name in _JSON_FIELDS},
    )
