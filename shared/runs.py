"""The state of runs: facts go in, one atomic Redis step each, events come out. No Celery in it.

A fact is what a signal, a heartbeat or the reaper reports; a hint, never the truth by itself. The
step (`lua/run_step.lua`) guards it, changes the run's state and appends the event, so duplicates,
late facts and two workers on one task are harmless by construction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from time import time
from typing import Any
from uuid import UUID, uuid4, uuid5

from shared import keys
from shared.connections import app_redis
from shared.encoding import envelope_head, now_iso, to_json
from shared.facts import Accepted, Fact, Lapsed, Started
from shared.outbox import outbox
from shared.payloads import LONGEST_TEXT
from shared.scripts import script
from shared.settings import Settings, get_settings
from shared.steps import Step, deliver

HEADER = "eventstream"  # the message header that holds a RunRef
_GROUPS = UUID("7b1f3c52-5f0c-4a37-9f5e-0d2f6f1f8b8e")
TERMINAL = frozenset({"completed", "failed", "cancelled"})
REDELIVERY_GRACE_MS = 3_900_000  # Redis redelivers after an hour, and sweeps within five minutes


@dataclass(frozen=True, slots=True)
class RunRef:
    """Names a run, and travels in the headers of its tasks' messages.

    `final` is the id of the task whose success completes the run.
    """

    user_id: str
    source_id: str
    run_id: str
    final: str
    name: str

    def to_header(self) -> dict[str, str]:
        """The form in a message's headers."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_header(cls, header: object) -> RunRef | None:
        """Reads `to_header`'s form; None where the header is absent or something else."""
        if not isinstance(header, Mapping):
            return None
        values = [v for f in fields(cls) if isinstance(v := header.get(f.name), str) and v]
        return cls(*values) if len(values) == len(fields(cls)) else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the step made of a fact.

    `due_ms` says when held-back progress may go out; None for nothing held back. `cursor` is the
    stream's last id from before the step, and for an acceptance from before the run's first one.
    """

    verdict: str
    status: str
    due_ms: int | None
    cursor: str
    ended: bool


def new_run(
    user_id: str, source_id: str, name: str, *, final: str, group: str | None = None
) -> RunRef:
    """Names a new run; nothing is stored yet. One group's tasks for one source share a run."""
    run_id = uuid4() if group is None else uuid5(_GROUPS, f"{group} {user_id} {source_id}")
    return RunRef(user_id, source_id, str(run_id), final, name)


def accept(ref: RunRef) -> Outcome:
    """Makes the run exist, with its `queued` event, before its message is published.

    An open run of the same source is closed in the same step (cancelled, superseded). Accepting
    a run twice changes nothing, but that another `final` has to succeed too.

    Raises:
        RedisUnavailable: Redis did not answer; the run may exist all the same.
    """
    return _outcome(deliver(_step(ref, Accepted())))


def submit(ref: RunRef, fact: Fact) -> Outcome | None:
    """Reports a fact. None when Redis is away: the fact then waits in this process's outbox."""
    reply = outbox().send(_step(ref, fact))
    return _outcome(reply) if reply is not None else None


def lapse(ref: RunRef) -> Outcome:
    """Closes a run, or marks it stalled, where a deadline has passed.

    Raises:
        RedisUnavailable: Redis did not answer.
    """
    return _outcome(deliver(_step(ref, Lapsed())))


def point_to(ref: RunRef, task_id: str) -> None:
    """Writes the hint from a bare task id to its run, before the message is published."""
    settings = get_settings()
    app_redis().set(
        keys.task_pointer(task_id), to_json(ref.to_header()), ex=settings.ingest_state_ttl_seconds
    )


def resolve(task_id: str) -> RunRef | None:
    """Finds the run of a bare task id by its hint; None where there is none."""
    text = app_redis().get(keys.task_pointer(task_id))
    return RunRef.from_header(json.loads(text)) if isinstance(text, bytes) else None


def _step(ref: RunRef, fact: Fact) -> Step:
    settings = get_settings()
    values = [*_ref_values(ref), *fact.values()]
    args = [*_head(settings, ref), fact.kind, len(values) // 2, *values]
    for report in fact.reports:
        args += report.values()
    step_keys = [
        keys.run(ref.user_id, ref.run_id),
        keys.stream(ref.user_id),
        keys.sources(ref.user_id),
        keys.latest(ref.user_id),
    ]
    return Step(script("run_step"), step_keys, args, fact.priority, hint=_hint(ref, fact, settings))


def _head(settings: Settings, ref: RunRef) -> list[Any]:
    return [
        keys.topic(ref.user_id),
        settings.publish_command if settings.enable_sse_push else "",
        settings.events_stream_maxlen,
        settings.events_stream_ttl_seconds * 1000,
        settings.ingest_state_ttl_seconds * 1000,
        settings.ingest_lease_seconds * 1000,
        settings.ingest_queue_timeout_seconds * 1000,
        settings.ingest_max_deliveries,
        REDELIVERY_GRACE_MS,
        now_iso(),
        keys.run(ref.user_id, ""),
        ref.run_id,
    ]


def _ref_values(ref: RunRef) -> list[str]:
    scope = {"kind": "source", "id": ref.source_id}
    name = to_json(ref.name[:LONGEST_TEXT])
    head = (
        f'{envelope_head(ref.user_id, scope)},"payload":'
        f'{{"run_id":{to_json(ref.run_id)},"name":{name}'
    )
    return ["source", ref.source_id, "name", name, "final", ref.final, "head", head]


def _hint(ref: RunRef, fact: Fact, settings: Settings) -> tuple[str, dict[str, int]] | None:
    """What tells the reaper when to look at this run."""
    if isinstance(fact, Accepted):
        wait_seconds = settings.ingest_queue_timeout_seconds
    elif isinstance(fact, Started):
        wait_seconds = settings.ingest_lease_seconds
    else:
        return None
    due_ms = int((time() + wait_seconds) * 1000)
    return keys.open_runs(ref.run_id), {to_json(ref.to_header()): due_ms}


def _outcome(reply: list[Any]) -> Outcome:
    verdict, status, due, cursor, ended = reply
    return Outcome(
        verdict.decode(),
        status.decode(),
        due if due >= 0 else None,
        cursor.decode(),
        ended == b"1",
    )
