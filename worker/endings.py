"""How an execution ends: each of Celery's signals as a thin adapter to a fact.

Signals are hints. Whether one counts is decided by the step in Redis, from the task's key and
the execution's nonce. In the process that ran the body there is an execution; elsewhere, as in
the worker's main process, the run is found by the message's header, or by the task's id alone.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import redis
from billiard.exceptions import TimeLimitExceeded
from celery.exceptions import Reject
from celery.utils.serialization import UnpickleableExceptionWrapper

from shared.facts import (
    Failed,
    Interrupted,
    Lost,
    Passed,
    Revoked,
)
from shared.message_flusher import close_flusher
from shared.outbox import outbox
from shared.runs import RunRef, run_of_task, submit
from worker import outcomes, redelivery
from worker.execution import Execution, current, enter
from worker.failures import INTERNAL, REJECTED, UNKNOWN_TASK, WORKER_LOST, describe
from worker.heartbeat import heartbeat
from worker.logs import suffix
from worker.publishing import CARRIED, run_in

log = logging.getLogger(__name__)


def _here(task_id: str | None) -> Execution | None:
    execution = current()
    return execution if execution is not None and execution.task_id == task_id else None


def _run_of(request: Any, task_id: str | None) -> RunRef | None:
    """The run of a task that does not run here; None also where it only carries one."""
    if task_id is None:
        return None
    if request is not None and request.id == task_id:
        ref, role = run_in(request.headers)
        return None if role == CARRIED else ref
    try:
        return run_of_task(task_id)  # Celery tells no more than the id
    except (redis.ConnectionError, redis.TimeoutError) as error:
        log.warning("the run of task %s can't be found now: %s", task_id, error)
        return None


def _attempt_of(request: Any, task_id: str) -> dict[str, Any]:
    """Which attempt a request is of, where Celery tells."""
    if request is None or request.id != task_id:
        return {"retries": None}
    return {"retries": request.retries, "nesting": request.replaced_task_nesting or 0}


def on_success(sender: Any, result: Any = None, **_: Any) -> None:
    """task_success: the body returned and its result is stored."""
    execution = _here(sender.request.id)
    if execution is not None:
        outcomes.succeed(execution, result)


def on_failure(sender: Any, task_id: str | None = None, exception: Any = None, **_: Any) -> None:
    """task_failure: by the task's own word, or seen from the worker's main process."""
    execution = _here(task_id)
    if execution is not None:
        if isinstance(exception, UnpickleableExceptionWrapper):
            exception = sys.exc_info()[1] or exception  # what could not be pickled says more
        if isinstance(exception, MemoryError) and redelivery.after_worker(sender):
            # The worker ends itself after this, and gives the message back.
            outcomes.interrupt(execution, sender, describe(exception)[0], comes_again=True)
        else:
            outcomes.fail(execution, exception)
        return
    request = sender.request
    ref = _run_of(request, task_id)
    if ref is None or task_id is None:
        return
    error, details = describe(exception)
    log.warning("task %s ended without a word of its own%s", task_id, suffix(ref))
    is_timeout = isinstance(exception, TimeLimitExceeded)
    submit(
        ref,
        Lost(
            task=task_id,
            error=error,
            details=details,
            # Of a lost worker Celery tells only where it does not give the message back.
            comes_again=is_timeout and redelivery.after_time_limit(sender),
            grace_ms=redelivery.grace_ms(sender.app),
            rejected=isinstance(exception, Reject),
            **_attempt_of(request, task_id),
        ),
    )


def on_retry(
    sender: Any, request: Any = None, reason: Any = None, einfo: Any = None, **_: Any
) -> None:
    """task_retry: an attempt failed and the next is on the way, or the worker says so falsely."""
    execution = _here(request.id)
    ref = execution.ref if execution else _run_of(request, request.id)
    if ref is None:
        return
    attempt = _attempt_of(request, request.id)
    if einfo is None or reason is None:  # a worker that shuts down at once
        submit(
            ref,
            Interrupted(
                task=request.id,
                error=WORKER_LOST,
                comes_again=redelivery.after_worker(sender),
                grace_ms=redelivery.grace_ms(sender.app),
                **attempt,
            ),
        )
        return
    if execution is None:
        submit(ref, outcomes.retrying(sender, request.id, reason, attempt))
    else:
        outcomes.retry(execution, sender, reason)


def on_postrun(
    sender: Any,
    task_id: str | None = None,
    state: str | None = None,
    retval: Any = None,
    **_: Any,
) -> None:
    """task_postrun: lets go of the execution, and reports an end that no signal told."""
    execution = _here(task_id)
    if execution is None:
        _pass_on(sender, task_id, state)
        return
    try:
        if not execution.is_over:
            outcomes.end_untold(execution, sender, state, retval)
    finally:
        enter(None)
        heartbeat().leave(execution)


def _pass_on(task: Any, task_id: str | None, state: str | None) -> None:
    """One of Celery's own, which sends the next task of a run, is over."""
    if task_id and task.name.startswith("celery.") and state != "RETRY":
        ref, role = run_in(task.request.headers)
        if ref is not None and role == CARRIED:
            submit(ref, Passed(task=task_id))


def on_revoked(sender: Any, request: Any = None, expired: Any = False, **_: Any) -> None:
    """task_revoked: it will not run, or was ended."""
    ref = _run_of(request, request.id)
    if ref is not None:
        attempt = _attempt_of(request, request.id)
        submit(ref, Revoked(task=request.id, expired=bool(expired), **attempt))


def on_unknown(message: Any = None, id: str | None = None, **_: Any) -> None:
    """task_unknown: no worker has a task of that name."""
    ref, role = run_in(message.headers)
    if ref is not None and id and role != CARRIED:
        submit(ref, Failed(task=id, error=UNKNOWN_TASK))


def on_rejected(message: Any = None, **_: Any) -> None:
    """task_rejected: a worker can't read the message."""
    ref, role = run_in(message.headers)
    task_id = (message.headers or {}).get("id")
    if ref is not None and task_id and role != CARRIED:
        submit(ref, Failed(task=task_id, error=REJECTED))


def on_internal_error(
    sender: Any, task_id: str | None = None, request: Any = None, **_: Any
) -> None:
    """task_internal_error: Celery failed, before the body or after it.

    Its message is gone; but a retry of it may be on the way, or its success be known.
    """
    if task_id is None or _here(task_id) is not None:
        return
    ref = _run_of(sender.request, task_id)
    if ref is not None:
        told = request or {}  # the message's headers; the task's own request may not be there yet
        submit(
            ref,
            Interrupted(
                task=task_id,
                error=INTERNAL,
                comes_again=False,
                grace_ms=redelivery.grace_ms(sender.app),
                retries=told.get("retries"),
                nesting=told.get("replaced_task_nesting") or 0,
            ),
        )


def on_process_shutdown(**_: Any) -> None:
    """worker_process_shutdown, worker_shutdown: what waits gets its last chance."""
    outbox().close()
    close_flusher()
