"""Runs as they stand: what a client fetches at page load and after a truncation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

import redis

from shared import keys, payloads
from shared.connections import app_redis
from shared.encoding import to_iso
from shared.errors import RedisUnavailable
from shared.scripts import script

MOST = 200
RunStatus = Literal["queued", "running", "retrying", "stalled", "completed", "failed", "cancelled"]
_JSON_FIELDS = (
    "name",
    "attempt",
    "stage",
    "done",
    "total",
    "unit",
    "note",
    "percent",
    "seconds",
    "eta",
    "reason",
    "error",
    "result",
)


@dataclass(frozen=True, slots=True)
class RunState:
    """One source's latest run as it stands. What there is nothing to say of is null."""

    source_id: str
    run_id: str
    name: payloads.Name
    status: RunStatus
    attempt: payloads.Attempt
    stage: payloads.Stage | None
    done: payloads.Done | None
    total: payloads.Total | None
    unit: payloads.Unit | None
    note: payloads.Note | None
    percent: payloads.Percent
    accepted_at: payloads.Moment
    updated_at: payloads.Moment
    seconds: payloads.Seconds | None
    eta: payloads.Eta | None
    reason: payloads.Reason | None
    error: payloads.Error | None
    result: payloads.Result | None


def list_runs(user_id: str, source_id: str = "") -> tuple[str, list[RunState]]:
    """A user's newest runs, at most 200, or one source's, and the cursor that belongs to them.

    Watching from that cursor shows every later change, and none that the states already hold.

    Raises:
        RedisUnavailable: Redis did not answer.
    """
    client = app_redis()
    run_keys = [keys.stream(user_id), keys.sources(user_id), keys.latest(user_id)]
    try:
        cursor, rows = script("list_runs").run(
            client, run_keys, [keys.run(user_id, ""), MOST, source_id]
        )
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise RedisUnavailable from error
    return cursor.decode(), [_state(*row) for row in rows]


def run_status(user_id: str, run_id: str) -> str | None:
    """The status of one run; None where Redis does not know it.

    Raises:
        RedisUnavailable: Redis did not answer.
    """
    client = app_redis()
    try:
        status: Any = client.hget(keys.run(user_id, run_id), "status")
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise RedisUnavailable from error
    return status.decode() if status else None


def _state(source_id: bytes, run_id: bytes, pairs: list[bytes]) -> RunState:
    row = {pairs[i].decode(): pairs[i + 1].decode() for i in range(0, len(pairs), 2)}
    return RunState(
        source_id=source_id.decode(),
        run_id=run_id.decode(),
        status=cast(RunStatus, row["status"]),
        accepted_at=_moment(row["accepted_ms"]),
        updated_at=_moment(row["updated_ms"]),
        # the rest is JSON text in the run's hash; empty is not there
        **{name: json.loads(row[name] or "null") for name in _JSON_FIELDS},
    )


def _moment(ms: str) -> str:
    return to_iso(datetime.fromtimestamp(int(ms) / 1000, UTC))
