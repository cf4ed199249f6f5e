"""How a task in a run begins: the start gate before its body.

`before_start` is the one place in Celery that can keep a body from running.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from celery import Celery
from celery.exceptions import Ignore

from shared.facts import Started
from shared.payloads import LONGEST_TEXT
from shared.runs import HEADER, RunRef, submit
from worker import option, redelivery
from worker.execution import Execution, current, enter, insist
from worker.heartbeat import heartbeat
from worker.publishing import ASIDE, CARRIED, run_in

log = logging.getLogger(__name__)

_HERE = "eventstream_execution"  # on a task's request: its gate has been passed


def gate_all(sender: Celery, **_: Any) -> None:
    """Puts the start gate before every task of the application, and says what options are wrong."""
    tasks = list(sender.tasks.values())
    for task in tasks:
        if not getattr(type(task).before_start, "is_gate", False):
            _gate(type(task))
    for task in tasks:
        option.tell_wrong(task)


def _gate(task_class: Any) -> None:
    own_start, own_replace = task_class.before_start, task_class.on_replace

    @functools.wraps(own_start)
    def before_start(task: Any, task_id: str, args: Any, kwargs: Any) -> None:
        request = task.request
        if HEADER in (request.headers or ()) and not hasattr(request, _HERE):
            _begin(task, request, task_id)
        own_start(task, task_id, args, kwargs)

    @functools.wraps(own_replace)
    def on_replace(task: Any, sig: Any) -> Any:
        execution = current()
        if execution is not None and execution.task_id == task.request.id:
            execution.replaced = True
        return own_replace(task, sig)

    before_start.is_gate = True  # type: ignore[attr-defined]
    before_start.__module__ = __name__  # Celery skips what comes from its own module
    task_class.before_start, task_class.on_replace = before_start, on_replace


def _begin(task: Any, request: Any, task_id: str) -> None:
    ref, role = run_in(request.headers)
    if ref is None or role == CARRIED:
        return
    beat = heartbeat()
    execution = Execution(
        ref,
        task_id,
        request.retries,
        request.replaced_task_nesting or 0,
        beat.flush_later,
        aside=role == ASIDE,
    )
    setattr(request, _HERE, execution)
    if not _may_run(ref, task, execution):
        log.info("task %s is not run: its run %s goes on without it", task_id, ref.run_id)
        raise Ignore
    if not execution.closed:
        enter(execution)
        beat.watch(execution)


def _may_run(ref: RunRef, task: Any, execution: Execution) -> bool:
    """Reports the start; whether the body is to run."""
    fact = Started(
        task=execution.task_id,
        nonce=execution.nonce,
        retries=execution.retries,
        nesting=execution.nesting,
        late=redelivery.after_worker(task),
        grace_ms=redelivery.grace_ms(task.app),
        worker=str(task.request.hostname or "")[:LONGEST_TEXT],
        stages=option.option(task).get("stages") or {},
    )
    outcome = insist(lambda: submit(ref, fact))
    if outcome is None or outcome.verdict == "ok":
        return True
    # Sent off within a run that did not wait for it: it runs, and says nothing.
    execution.closed = True
    return outcome.verdict == "closed" and outcome.status == "completed" and execution.aside
