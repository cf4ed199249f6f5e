"""Runs as they stand: what a client fetches at page load and after a truncation.

Who reads the state of a run of which nothing is heard any more is the first to know, and says so:
it is marked `stalled` then, also where no reaper runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from shared import keys, payloads
from shared.encoding import to_iso
from shared.runs import MANY, RunRef, lapse
from shared.scripts import script
from shared.steps import reachable_redis

_Row = tuple[bytes, bytes, list[bytes]]  # source id, run id, and fields with their values

MOST = 200
MOST_SILENT = 20  # of those that one reading may mark
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
    "attempts",
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
    attempts: payloads.Attempts | None
    reason: payloads.Reason | None
    error: payloads.Error | None
    result: payloads.Result | None


def list_runs(user_id: str, source_id: str = "") -> tuple[str, list[RunState]]:
    """A user's newest runs, at most 200, or one source's, and the cursor that belongs to them.

    Watching from that cursor shows every later change, and none that the states already hold. A
    run that is said to be at work, but whose last lease has passed, is marked first.

    Raises:
        RedisUnavailable: Redis did not answer.
    """
    cursor, rows, silent = _read(user_id, source_id)
    if silent:
        for place in silent[:MOST_SILENT]:
            lapse(_ref(user_id, rows[place]), "show")
        cursor, rows, _ = _read(user_id, source_id)
    return cursor.decode(), [_state(*row) for row in rows]


def _read(user_id: str, source_id: str) -> tuple[bytes, list[_Row], list[int]]:
    run_keys = [keys.stream(user_id), keys.sources(user_id), keys.latest(user_id)]
    args = [keys.run(user_id, ""), MOST, source_id]
    with reachable_redis() as client:
        cursor, rows, silent = script("list_runs").run(client, run_keys, args)
    return cursor, rows, silent


def _ref(user_id: str, row: _Row) -> RunRef:
    state = _state(*row)
    return RunRef(user_id, state.source_id, state.run_id, MANY, state.name)


def run_status(user_id: str, run_id: str) -> str | None:
    """The status of one run; None where Redis does not know it.

    Raises:
        RedisUnavailable: Redis did not answer.
    """
    with reachable_redis() as client:
        status: Any = client.hget(keys.run(user_id, run_id), "status")
    return status.decode() if status else None


def _state(source_id: bytes, run_id: bytes, pairs: list[bytes]) -> RunState:
    row = {pairs[i].decode(): pairs[i + 1].decode() for i in range(0, len(pairs), 2)}
    return RunState(
        source_id=source_id.decode(),
        run_id=run_id.decode(),
        status=cast(RunStatus, row["status"]),
        accepted_at=moment(row["accepted_ms"]),
        updated_at=moment(row["updated_ms"]),
        # the rest is JSON text in the run's hash; empty is not there
        **{name: json.loads(row[name] or "null") for name in _JSON_FIELDS},
    )


def moment(ms: str) -> str:
    """A time in ms as events have it."""
    return to_iso(datetime.fromtimestamp(int(ms) / 1000, UTC))
