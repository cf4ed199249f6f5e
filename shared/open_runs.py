"""The open runs of all users, for whoever looks after the whole: what state they are in, and where.

The sets of open runs are hints by next deadline, and each run's own hash says how it stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

from shared import keys, payloads
from shared.connections import AnyRedis, ask_each
from shared.run_states import moment
from shared.runs import TERMINAL, RunRef
from shared.settings import get_settings
from shared.steps import reachable_redis

PAGE = 64  # members of a set that are looked at together
ENOUGH = 64  # open runs of a set: about a thousand in all
MOST_MEMBERS = 1000  # of a set that are looked at, whatever they are
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


@dataclass(slots=True)
class _Shard:
    """One of the sets, as far as it was read; `place` is that of the next member."""

    key: str
    place: int = 0
    seen: int = 0
    is_read: bool = False
    runs: dict[str, OpenRun] = field(default_factory=dict)

    @property
    def goes_on(self) -> bool:
        """Whether more of it is wanted."""
        return not self.is_read and len(self.runs) < ENOUGH and self.seen < MOST_MEMBERS

    def take(self, found: Sequence[OpenRun | None], *, over: int) -> None:
        """A page of it, of which so many members are taken out."""
        self.runs |= {run.run_id: run for run in found if run is not None}
        self.seen += len(found)
        self.place += len(found) - over
        self.is_read = len(found) < PAGE


def list_open_runs() -> OpenRuns:
    """The open runs of all users, about a thousand: those whose next deadline comes first.

    A run that is over stays in its set until that deadline, before those that wait in a queue: it
    is taken out, as the reaper would.

    Raises:
        RedisUnavailable: Redis did not answer.
    """
    shards = [_Shard(keys.open_shard(number)) for number in range(keys.OPEN_SHARDS)]
    with reachable_redis() as client:
        while unread := [shard for shard in shards if shard.goes_on]:
            _read_on(client, unread)
    found = [run for shard in shards for run in shard.runs.values()]
    found.sort(key=lambda run: (run.heard_at, run.run_id))
    return OpenRuns(found, any(not shard.is_read for shard in shards))


def _read_on(client: AnyRedis, shards: Sequence[_Shard]) -> None:
    wanted = [("ZRANGE", shard.key, shard.place, shard.place + PAGE - 1) for shard in shards]
    pages = ask_each(client, wanted)
    states = _states(client, {member for page in pages for member in page})
    removals: list[tuple[Any, ...]] = []
    for shard, page in zip(shards, pages, strict=True):
        # One that is not there at all may be about to begin: its deadline is set before.
        over = [member for member in page if states[member].status in TERMINAL]
        shard.take([states[member].run for member in page], over=len(over))
        if over:
            removals.append(("ZREM", shard.key, *over))
    if removals:
        ask_each(client, removals)


class _State(NamedTuple):
    """How a member's run stands: `run` where it is open, `status` empty where there is none."""

    status: str
    run: OpenRun | None


def _states(client: AnyRedis, members: Iterable[bytes]) -> dict[bytes, _State]:
    states = dict.fromkeys(members, _State("", None))
    named = {member: RunRef.from_header(json.loads(member)) for member in states}
    refs = [(member, ref) for member, ref in named.items() if ref is not None]
    fields = (*_JSON_FIELDS, *_OTHERS)
    commands = [("HMGET", keys.run(ref.user_id, ref.run_id), *fields) for _, ref in refs]
    rows = ask_each(client, commands) if commands else []
    for (member, ref), row in zip(refs, rows, strict=True):
        state = {f: "" if v is None else v.decode() for f, v in zip(fields, row, strict=True)}
        status = state["status"]
        is_open = status and status not in TERMINAL
        states[member] = _State(status, _open_run(ref, state) if is_open else None)
    return states


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
