"""The state of runs: facts go in, one atomic Redis step each, events come out. No Celery in it.

A fact is what a signal, a heartbeat or the reaper reports; a hint, never the truth by itself. The
step (`lua/run_step.lua`) guards it, changes the run's state and appends the event, so duplicates,
late facts and two workers on one task are harmless by construction.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from time import time
from typing import Any
from uuid import uuid4

from shared import keys
from shared.connections import redis_client
from shared.events import envelope_head, now_iso, to_json
from shared.facts import Accepted, Fact, Lapsed, Started
from shared.outbox import Step, deliver, outbox
from shared.scripts import script
from shared.settings import Settings, get_settings
from shared.signals import run_ended
from shared.user_stream import PUBLISH

log = logging.getLogger(__name__)

HEADER = "eventstream"  # the message header that holds a RunRef
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

    `due_ms` says when held-back progress may go out, `deadline_ms` (a Unix time) when the reaper
    should look again; None for never. `cursor` is the stream's last id from before the step.
    """

    verdict: str
    status: str
    due_ms: int | None
    deadline_ms: int | None
    cursor: str
    ended: bool


def new_run(user_id: str, source_id: str, name: str, *, final: str) -> RunRef:
    """Names a new run; nothing is stored yet."""
    return RunRef(user_id, source_id, str(uuid4()), final, name)


def accept(ref: RunRef) -> Outcome:
    """Makes the run exist, with its `queued` event, before its message is published.

    An open run of the same source is closed in the same step (cancelled, superseded). Accepting
    a run twice changes nothing.

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
    redis_client(settings.require_redis_url()).set(
        keys.task_pointer(task_id), to_json(ref.to_header()), ex=settings.ingest_state_ttl_seconds
    )


def resolve(task_id: str) -> RunRef | None:
    """Finds the run of a bare task id by its hint; None where there is none."""
    text = redis_client(get_settings().require_redis_url()).get(keys.task_pointer(task_id))
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
    return Step(
        script("run_step"),
        step_keys,
        args,
        fact.priority,
        hint=_hint(ref, fact, settings),
        on_reply=partial(_announce_end, ref),
    )


def _head(settings: Settings, ref: RunRef) -> list[Any]:
    return [
        keys.topic(ref.user_id),
        PUBLISH,
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
    head = (
        f'{envelope_head(ref.user_id, scope)},"payload":'
        f'{{"run_id":{to_json(ref.run_id)},"name":{to_json(ref.name)}'
    )
    return ["source", ref.source_id, "name", to_json(ref.name), "final", ref.final, "head", head]


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
    verdict, status, due, deadline, cursor, ended = reply
    return Outcome(
        verdict.decode(),
        status.decode(),
        due if due >= 0 else None,
        int(deadline) if int(deadline) >= 0 else None,
        cursor.decode(),
        ended == b"1",
    )


def _announce_end(ref: RunRef, reply: list[Any]) -> None:
    """Sends `run_ended` where the step whose reply this is ended the run."""
    outcome = _outcome(reply)
    if not outcome.ended:
        return
    for receiver in run_ended.receivers_for(ref):
        try:
            receiver(ref, status=outcome.status)
        except Exception:  # a receiver's fault is its own
            log.exception("a receiver of run_ended failed for run %s", ref.run_id)
