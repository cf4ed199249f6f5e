"""A canvas as one run: a chain, group, chord or any nesting has one bar and one end.

Everything is known before the first message leaves: the tasks, what ends the run, the stages of
the bar. So a group's total is right from its first event on, and nothing is published for a run
that does not exist.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    canvas: Signature | Mapping[str, Any],
    *,
    user_id: str,
    source_id: str,
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
        ValueError: the canvas has no tasks, or `chunks`, `map` or `starmap`, whose inner calls
            Celery tells nobody of; or an id is empty. Nothing was started.
        RunInProgress: `exclusive`, and a run of the source is open. Nothing was started.
        RedisUnavailable: the run can't be accepted. Nothing was published.
        kombu.exceptions.OperationalError: the broker can't be reached; the run has ended as failed,
            with the code `not_sent`. As with any other error that Celery raises here.
    """
    whole = copied(canvas)
    _check(whole, user_id, source_id)
    install(whole.app)
    tasks = list(parts(whole, linked=True))
    ends = finals(whole, lambda part: True)
    final = ends[0] if len(ends) == 1 else MANY
    ref = new_run(user_id, source_id, name or source_id, final=final)
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


def _check(canvas: Canvas, user_id: str, source_id: str) -> None:
    """Raises ValueError where a canvas can't be a run."""
    if not user_id or not source_id:
        raise ValueError("a run needs a user_id and a source_id")
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
