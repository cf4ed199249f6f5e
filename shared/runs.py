"""The state of runs: facts go in, one atomic Redis step each, events come out. No Celery in it.

A fact is what a signal, a heartbeat or the reaper reports; a hint, never the truth by itself. The
step (`lua/run_step.lua`) guards it, changes the run's state and appends the event, so duplicates,
late facts and two workers on one task are harmless by construction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from time import time
from typing import Any
from uuid import UUID, uuid4, uuid5

from shared import keys
from shared.connections import app_redis
from shared.encoding import envelope_head, now_iso, to_json
from shared.facts import Accepted, Cancel, Fact, Interrupted, Lapsed, Lost, Retrying, Sent, Started
from shared.outbox import outbox
from shared.payloads import LONGEST_TEXT
from shared.scripts import script
from shared.settings import Settings, get_settings
from shared.steps import Step, deliver

HEADER = "eventstream"  # the message header that holds a RunRef
_GROUPS = UUID("7b1f3c52-5f0c-4a37-9f5e-0d2f6f1f8b8e")
TERMINAL = frozenset({"completed", "failed", "cancelled"})
MANY = "*"  # the final of a run that waits for more than one task
SETTLE_SECONDS = 5  # as in the step: what can't come again is looked at after that
IDLE_SECONDS = 60  # as in the step: a run of which nothing is on the way is looked at after that


@dataclass(frozen=True, slots=True)
class RunRef:
    """Names a run, and travels in the headers of its tasks' messages.

    `final` is the id of the task whose success completes the run, `*` where there are several.
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

    `due_ms` says when held-back progress may go out; None for nothing held back. `cursor` is, for
    an acceptance, the stream's last id from before the run.
    `next_ms` is when a lapsed run's next deadline passes, of Unix time; None where there is none.
    `tasks` are those that a cancelled run leaves open, or that a lapsed one is in doubt of.
    """

    verdict: str
    status: str
    due_ms: int | None
    cursor: str
    ended: bool
    next_ms: int | None
    tasks: Sequence[str]


def new_run(
    user_id: str, source_id: str, name: str, *, final: str, group: str | None = None
) -> RunRef:
    """Names a new run; nothing is stored yet. One group's tasks for one source share a run."""
    run_id = uuid4() if group is None else uuid5(_GROUPS, f"{group} {user_id} {source_id}")
    return RunRef(user_id, source_id, str(run_id), final, name)


def accept(ref: RunRef, fact: Accepted | None = None) -> Outcome:
    """Makes the run exist, with its `queued` event, before its message is published.

    An open run of the same source is closed in the same step (cancelled, superseded). Accepting
    a run twice changes nothing, but that another final has to succeed too.

    Args:
        ref: the run.
        fact: what is known of it; by default that it is one task, its final.

    Raises:
        RedisUnavailable: Redis did not answer; the run may exist all the same.
    """
    return _outcome(deliver(_step(ref, fact or Accepted(task=ref.final))))


def submit(ref: RunRef, fact: Fact) -> Outcome | None:
    """Reports a fact. None when Redis is away: the fact then waits in this process's outbox."""
    reply = outbox().send(_step(ref, fact))
    return _outcome(reply) if reply is not None else None


def lapse(ref: RunRef, mode: str) -> Outcome:
    """Ends a run, or marks it stalled, where a deadline has passed; see `Lapsed` for the modes.

    Raises:
        RedisUnavailable: Redis did not answer.
    """
    return _outcome(deliver(_step(ref, Lapsed(mode=mode))))


def end(ref: RunRef) -> Outcome:
    """Cancels a run, and returns with its tasks that are not done.

    Raises:
        RedisUnavailable: Redis did not answer.
    """
    return _outcome(deliver(_step(ref, Cancel())))


def run_of_task(task_id: str) -> RunRef | None:
    """Finds the run of a bare task id by its hint; None where there is none."""
    return _pointed_to(keys.task_pointer(task_id))


def run_of_id(run_id: str) -> RunRef | None:
    """Finds a run by its bare id; None where there is none."""
    return _pointed_to(keys.run_pointer(run_id))


def _pointed_to(key: str) -> RunRef | None:
    text = app_redis().get(key)
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
        hints=_hints(ref, fact, settings),
        events=_appended,
    )


def _appended(reply: list[Any]) -> list[str]:
    return [f"source.ingest.{kind.decode()}" for kind in reply[7]]


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


def _hints(ref: RunRef, fact: Fact, settings: Settings) -> list[Sequence[Any]]:
    """What finds the run by the id of a task or its own, and tells the reaper when to look."""
    header = to_json(ref.to_header())
    hints: list[Sequence[Any]] = []
    pointers = [keys.task_pointer(fact.task)] if fact.task else []
    match fact:
        case Accepted():
            pointers.append(keys.run_pointer(ref.run_id))
            wait_seconds = settings.ingest_queue_timeout_seconds if fact.task else IDLE_SECONDS
        case Sent():
            wait_seconds = settings.ingest_queue_timeout_seconds
        case Retrying():
            pointers, wait_seconds = [], settings.ingest_queue_timeout_seconds
        case Started():
            pointers, wait_seconds = [], settings.ingest_lease_seconds
        case Lost() | Interrupted():
            pointers, wait_seconds = [], SETTLE_SECONDS
        case _:
            return []
    due_ms = int((time() + wait_seconds) * 1000)
    for pointer in pointers:
        hints.append(("SET", pointer, header, "EX", settings.ingest_state_ttl_seconds))
    # The earliest of what several tasks say; the reaper itself sets it to later ones.
    hints.append(("ZADD", keys.open_runs(ref.run_id), "LT", due_ms, header))
    return hints


def _outcome(reply: list[Any]) -> Outcome:
    verdict, status, due, cursor, ended, next_ms, tasks, _ = reply
    return Outcome(
        verdict.decode(),
        status.decode(),
        due if due >= 0 else None,
        cursor.decode(),
        ended == b"1",
        next_ms if next_ms >= 0 else None,
        [task.decode() for task in tasks],
    )
