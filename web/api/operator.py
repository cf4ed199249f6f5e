"""`/api/operator`: everybody's streams and runs, for whoever looks after the whole.

Each reading is bounded, whatever there is, and at most a second old, so that ten pages that look
cost as much as one.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import date
from typing import Any

from flask import Blueprint, request

from shared.connections import postgres
from shared.encoding import now_iso
from shared.event_counts import BUCKET_SECONDS, read_event_counts
from shared.journal_size import JournalSize, Pruning, journal_size, last_pruning
from shared.open_runs import list_open_runs
from shared.run_states import run_status
from shared.runs import end, run_of_id
from shared.settings import get_settings
from shared.steps import reachable_redis
from web.api.user import require_operator
from web.audience import Audience, Audiences, Watching, watching_of
from web.connections import end_connection, told
from web.dispatch import revoke
from web.refusal import Refusal
from web.shared_reading import SharedReading

blueprint = Blueprint("operator", __name__)

MOST_CONNECTIONS = 50  # of one user that are told
MOST_RUNS = 200
STATES = ("queued", "running", "retrying", "stalled")


def _read_counts() -> tuple[float, dict[str, list[int]]]:
    with reachable_redis():
        return read_event_counts(time.time())


def _read_journal() -> tuple[JournalSize, Pruning | None]:
    with postgres() as connection:
        return journal_size(connection), last_pruning(connection)


_audience = SharedReading(Audiences().read)
_runs = SharedReading(list_open_runs)
_counts = SharedReading(_read_counts)
_journal = SharedReading(_read_journal)

blueprint.before_request(require_operator)


@blueprint.get("/api/operator/streams")
def get_streams() -> dict[str, Any]:
    """Users with open streams in all processes; with `user`, that one alone."""
    user_id = request.args.get("user", "")
    as_of, seen = _audience_of(user_id) if user_id else _audience.get()
    return {
        "success": True,
        "as_of": as_of,
        "users": seen.users,
        "streams": sum(len(each.connections) for each in seen.watching),
        "lagging": sum(each.lagging for each in seen.watching),
        "more": seen.more,
        "renewed_seconds": get_settings().sse_keepalive_seconds,
        "watching": [_watching(each) for each in seen.watching],
    }


@blueprint.delete("/api/operator/streams/<connection_id>")
def delete_stream(connection_id: str) -> dict[str, Any]:
    """Ends one stream of `user`; 404 where that user has no such one."""
    if not end_connection(request.args.get("user", ""), connection_id):
        raise Refusal(404, "not_found", "There is no such connection any more.")
    _audience.expire()
    return {"success": True}


@blueprint.get("/api/operator/runs")
def get_runs() -> dict[str, Any]:
    """The open runs of all users, a page of them, and how many are in which state."""
    as_of, found = _runs.get()
    state = request.args.get("state", "")
    matching = [run for run in found.runs if state in ("", run.status)]
    if request.args.get("order") == "newest":
        matching.sort(key=lambda run: (run.accepted_at, run.run_id), reverse=True)
    offset = _number("offset", 0, 10_000)
    limit = _number("limit", 50, MOST_RUNS)
    return {
        "success": True,
        "as_of": as_of,
        "counts": {each: sum(run.status == each for run in found.runs) for each in STATES},
        "more": found.more,
        "matching": len(matching),
        "offset": offset,
        "runs": [asdict(run) for run in matching[offset : offset + limit]],
    }


@blueprint.delete("/api/operator/runs/<run_id>")
def cancel_run(run_id: str) -> dict[str, Any]:
    """Cancels a run, wherever it is; one that is over stays as it is."""
    with reachable_redis():
        ref = run_of_id(run_id)
    outcome = end(ref) if ref is not None else None
    if ref is None or outcome is None or outcome.verdict == "missing":
        raise Refusal(404, "not_found", "There is no such run any more.")
    revoke(outcome.tasks)
    _runs.expire()
    return {"success": True, "status": run_status(ref.user_id, run_id) or outcome.status}


@blueprint.get("/api/operator/events")
def get_events() -> dict[str, Any]:
    """How many events of each type were appended in the last minute."""
    as_of, (part_of_first, counts) = _counts.get()
    of_minute = {n: sum(c) - c[0] * (1 - part_of_first) for n, c in counts.items()}
    types = [
        {
            "type": name,
            "per_second": round(of_minute[name] / 60, 3),
            "last_minute": round(of_minute[name]),
            "counts": numbers,
        }
        for name, numbers in counts.items()
    ]
    types.sort(key=lambda each: (-each["last_minute"], each["type"]))  # type: ignore[operator]
    return {
        "success": True,
        "as_of": as_of,
        "per_second": round(sum(of_minute.values()) / 60, 3),
        "bucket_seconds": BUCKET_SECONDS,
        "types": types,
    }


@blueprint.get("/api/operator/journal")
def get_journal() -> dict[str, Any]:
    """How large the message journal is, and what was last removed from it."""
    as_of, (size, pruned) = _journal.get()
    settings = get_settings()
    return {
        "success": True,
        "as_of": as_of,
        "days_kept": settings.message_events_retention_days,
        "pruned_every_seconds": settings.message_prune_every_seconds,
        "journal": _with_days(asdict(size)),
        "last_pruning": None if pruned is None else _with_days(asdict(pruned)),
    }


def _audience_of(user_id: str) -> tuple[str, Audience]:
    as_of, watching = now_iso(), watching_of([user_id])
    return as_of, Audience(len(watching), False, watching)


def _watching(watching: Watching) -> dict[str, Any]:
    return {
        "user_id": watching.user_id,
        "streams": len(watching.connections),
        "lagging": watching.lagging,
        "since": watching.since,
        "behind_ms": watching.behind_ms,
        "connections": [
            {**told(each), "behind_ms": each.behind_ms}
            for each in watching.connections[:MOST_CONNECTIONS]
        ],
    }


def _with_days(row: dict[str, Any]) -> dict[str, Any]:
    return {n: v.isoformat() if isinstance(v, date) else v for n, v in row.items()}


def _number(name: str, default: int, most: int) -> int:
    text = request.args.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refusal(400, "bad_number", f"'{name}' takes a whole number of 0 or more.")
    return min(int(text), most)
