"""A canvas as one run: a chain, group, chord or any nesting has one bar and one end.

Everything is known before the first message leaves: the tasks, what ends the run, the stages of
the bar. So a group's total is right from its first event on, and nothing is published for a run
that does not exist.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from celery.canvas import Signature
from kombu.exceptions import OperationalError

from shared.errors import EventStreamError
from shared.facts import Accepted, Failed
from shared.runs import HEADER, MANY, RunRef, accept, end, new_run, run_of_id, submit
from shared.steps import reachable_redis
from worker.canvas import IN_ONE_TASK, Canvas, copied, finals, options_of, parts, tree
from worker.execution import UNNAMED_STAGE
from worker.lifecycle import install
from worker.option import option
from worker.owners import application, task_named
from worker.publishing import PROTOCOL
from worker.sending import NOT_SENT

log = logging.getLogger(__name__)


class RunInProgress(EventStreamError):
    """This source is being processed already."""


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that was handed to the workers.

    `task_ids` are those of the canvas, as it is written, and of what is linked to them. A client
    that watches its user's stream from `cursor` on misses nothing. `result` is what Celery
    returned for the canvas.
    """

    run_id: str
    task_ids: tuple[str, ...]
    cursor: str
    result: Any


def start_ingest(
    canvas: Signature | dict[str, Any],
    *,
    user_id: str | int | UUID,
    source_id: str | int | UUID,
    name: str | None = None,
    unit: str | None = None,
    exclusive: bool = False,
) -> StartedRun:
    """Starts a canvas as one run, whose every task is tracked, with the `ingest` option or without.

    The run is completed when nothing of the canvas is left to do, and failed when one of its tasks
    is. A task shares the stages that its option names, one without any the stage `work`.

    Args:
        canvas: a signature, chain, group or chord, however they are nested. It stays as it is.
        user_id: whose stream tells of the run.
        source_id: what is ingested. An open run of the same source is cancelled as superseded.
        name: what the user calls it; the source's id by default.
        unit: what a task of a stage is, such as `files`.
        exclusive: leave an open run of the source alone, and refuse this one.

    Raises:
        TypeError: the canvas is no signature, an id none of the types above, or `name` or `unit`
            no text. Nothing was started.
        ValueError: the canvas has no tasks, or `chunks`, `map` or `starmap`, whose inner calls
            Celery tells nobody of; or an id is empty, or `task_protocol` is not 2. Nothing was
            started.
        RunInProgress: `exclusive`, and a run of the source is open. Nothing was started.
        RedisUnavailable: the run can't be accepted. Nothing was published.
        kombu.exceptions.OperationalError: the broker can't be reached; the run has ended as failed,
            with the code `not_sent`. As with any other error that Celery raises here.
    """
    user, source = _id("user_id", user_id), _id("source_id", source_id)
    title = _text("name", name) or source
    unit = _text("unit", unit)
    whole = _checked(canvas)
    install(whole.app)
    tasks = list(parts(whole, linked=True))
    ends = finals(whole, lambda part: True)
    final = ends[0] if len(ends) == 1 else MANY
    ref = new_run(user, source, title, final=final)
    plan = _plan(tasks)
    outcome = accept(ref, Accepted(finals=ends, stages=plan, unit=unit, exclusive=exclusive))
    if outcome.verdict == "running":
        raise RunInProgress
    _name_run(whole, ref)
    ids = tuple(str(options_of(task)["task_id"]) for task in tasks)
    try:
        result = whole.apply_async()
    except BaseException:
        submit(ref, Failed(task=ids[-1], error=NOT_SENT))  # of all, the last is surely not done
        raise
    return StartedRun(ref.run_id, ids, outcome.cursor, result)


def cancel(run_id: str) -> bool:
    """Ends a run as cancelled, once; whether this call did it: False where none of that id is open.

    What of it waits is not run any more, and what runs ends at its next step of `track()`. Its
    tasks are revoked besides, as far as workers can be reached through the current application.

    Raises:
        RedisUnavailable: Redis did not answer.
    """
    with reachable_redis():
        ref = run_of_id(run_id)
    if ref is None:
        return False
    outcome = end(ref)
    if outcome.ended and outcome.tasks:
        _revoke(list(outcome.tasks))
    return outcome.ended


def _id(name: str, value: object) -> str:
    """An id as text, as events and messages hold it."""
    if isinstance(value, bool) or not isinstance(value, (str, int, UUID)):
        raise TypeError(f"{name} is {value!r}: it takes a str, an int or a UUID")
    if value == "":
        raise ValueError(f"{name} is empty: a run needs a user_id and a source_id")
    return str(value)


def _text(name: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}: it takes a str")
    return value


def _checked(canvas: object) -> Signature:
    """A canvas of its own that can be a run; else TypeError or ValueError."""
    if not isinstance(canvas, dict) or not isinstance(canvas.get("task"), str):
        raise TypeError(
            "the canvas has to be a signature, such as task.s(...) or a chain, group or chord of "
            f"them; this is a {type(canvas).__name__}"
        )
    whole = copied(canvas)
    _check(whole)
    return whole


def _check(canvas: Signature) -> None:
    """Raises ValueError where a canvas can't be a run."""
    if canvas.app.conf.task_protocol != 2:
        raise ValueError(f"no run can be started: {PROTOCOL}")
    if next(iter(parts(canvas)), None) is None:
        raise ValueError("the canvas has no tasks")
    for signature in tree(canvas, linked=True):
        name, kind = signature.get("task"), signature.get("subtask_type")
        if name in IN_ONE_TASK:
            raise ValueError(
                f"{name} can't be tracked, since Celery runs it as one task: use a group"
            )
        if kind == "chord" and not signature["kwargs"].get("body"):
            raise ValueError("a chord of the canvas has no body")


def _plan(tasks: Sequence[Canvas]) -> dict[str, tuple[float, int]]:
    """For each stage its weight, and how many tasks share it; in the order of the canvas."""
    plan: dict[str, tuple[float, int]] = {}
    for task in tasks:
        stages = option(task_named(task.get("task"))).get("stages") or {UNNAMED_STAGE: 1}
        for stage, weight in stages.items():
            first_weight, number = plan.get(stage, (weight, 0))
            plan[stage] = first_weight, number + 1
    return plan


def _name_run(canvas: Canvas, ref: RunRef) -> None:
    """Puts the run into every message of a canvas; those that only report an error have none.

    Also into the options of chains, groups and chords, which replace those of their tasks.
    """
    for signature in tree(canvas, linked=True):
        options = signature["options"]
        options["headers"] = {**(options.get("headers") or {}), HEADER: ref.to_header()}


def _revoke(tasks: list[str]) -> None:
    app = application()
    connection = app.connection_for_write()
    errors: tuple[Any, ...] = (*connection.connection_errors, *connection.channel_errors)
    try:
        app.control.revoke(tasks)
    except (OperationalError, OSError, *errors) as error:
        log.warning("%d tasks of a cancelled run are not revoked: %s", len(tasks), error)
