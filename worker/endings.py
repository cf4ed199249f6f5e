"""How an execution ends: each of Celery's signals as a thin adapter to a fact.

Signals are hints. Whether one counts is decided by the step in Redis, from the task's key and
the execution's nonce.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import redis
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery.exceptions import Reject

from shared.encoding import to_iso
from shared.errors import PostgresUnavailable, RedisUnavailable
from shared.facts import (
    ErrorInfo,
    Failed,
    HandedOver,
    Interrupted,
    Lost,
    Retrying,
    Revoked,
    Succeeded,
)
from shared.outbox import outbox
from shared.runs import HEADER, RunRef, resolve, submit
from worker.beginnings import option
from worker.execution import Execution, current, enter
from worker.heartbeat import heartbeat
from worker.ingest import IngestError

log = logging.getLogger(__name__)

INTERNAL = ErrorInfo("internal_error", "Something went wrong while this was being processed.")
AWAY = ErrorInfo("unavailable", "A server that this needs can't be reached just now.", True)
TOO_LONG = ErrorInfo("time_limit", "Processing took too long and was stopped.", retryable=True)
WORKER_LOST = ErrorInfo("worker_lost", "Processing stopped unexpectedly. Please try again.", True)
UNKNOWN_TASK = ErrorInfo("unknown_task", "No worker knows how to process this.")


def _here(task_id: str | None) -> Execution | None:
    execution = current()
    return execution if execution is not None and execution.task_id == task_id else None


def on_success(sender: Any, result: Any = None, **_: Any) -> None:
    """task_success: the body returned and its result is stored."""
    execution = _here(sender.request.id)
    if execution is not None:
        _succeed(execution, result)


def _succeed(execution: Execution, result: Any) -> None:
    produced = result if isinstance(result, Mapping) else {}
    execution.send_end(
        lambda reports: Succeeded(
            task=execution.task_id, nonce=execution.nonce, reports=reports, result=produced
        )
    )


def on_failure(sender: Any, task_id: str | None = None, exception: Any = None, **_: Any) -> None:
    """task_failure: by the task's own word, or seen from the worker's main process."""
    if task_id is None or not option(sender):
        return
    error, details = describe(exception)
    execution = _here(task_id)
    if execution is not None:
        execution.send_end(
            lambda reports: Failed(
                task=task_id,
                nonce=execution.nonce,
                reports=reports,
                error=error,
                details=details,
            )
        )
        return
    ref = _find(task_id)
    if ref is not None:  # seen from the worker's main process
        error, cause = WORKER_LOST, "lost"
        if isinstance(exception, TimeLimitExceeded):
            error, cause = TOO_LONG, "timeout"
        elif isinstance(exception, Reject):
            error, cause = INTERNAL, "rejected"
        submit(ref, Lost(task=task_id, error=error, cause=cause))


def on_retry(
    sender: Any, request: Any = None, reason: Any = None, einfo: Any = None, **_: Any
) -> None:
    """task_retry: an attempt failed and the next is on the way, or the worker says so falsely."""
    if not option(sender):
        return
    execution = _here(request.id)
    ref = execution.ref if execution else _find(request.id)
    if ref is None:
        return
    if einfo is None or reason is None:  # a worker that shuts down at once: nothing comes again
        submit(ref, Interrupted(task=request.id))
        return
    eta = _eta(getattr(reason, "when", None))
    fact = Retrying(
        task=request.id,
        retries=request.retries,
        nesting=execution.nesting if execution else 0,
        eta=to_iso(eta) if eta else None,
        eta_ms=int(eta.timestamp() * 1000) if eta else None,
        error=describe(getattr(reason, "exc", None) or reason)[0],
    )
    if execution is None:
        submit(ref, fact)
    else:
        execution.send_end(lambda reports: replace(fact, reports=reports))


def _eta(when: Any) -> datetime | None:
    if isinstance(when, datetime):
        return when if when.tzinfo else when.replace(tzinfo=UTC)
    return datetime.now(UTC) + timedelta(seconds=when) if isinstance(when, (int, float)) else None


def on_postrun(
    task_id: str | None = None, state: str | None = None, retval: Any = None, **_: Any
) -> None:
    """task_postrun: lets go of the execution, and reports an end that no signal told."""
    execution = _here(task_id)
    if execution is None:
        return
    heartbeat().leave(execution)
    enter(None)
    if execution.reported:
        return
    if state == "SUCCESS":  # the backend failed after the body: its signal never came
        _succeed(execution, retval)
    elif state == "IGNORED" and execution.dispatched:
        execution.send_end(
            lambda reports: HandedOver(
                task=execution.task_id, nonce=execution.nonce, reports=reports
            )
        )
    else:
        execution.send_end(
            lambda reports: Interrupted(
                task=execution.task_id,
                nonce=execution.nonce,
                reports=reports,
                comes_again=state != "IGNORED",
            )
        )


def on_revoked(sender: Any, request: Any = None, expired: Any = False, **_: Any) -> None:
    """task_revoked: it will not run, or was ended."""
    ref = _find(request.id) if option(sender) else None
    if ref is not None:
        submit(ref, Revoked(task=request.id, expired=bool(expired)))


def on_unknown(message: Any = None, id: str | None = None, **_: Any) -> None:
    """task_unknown: no worker has a task of that name."""
    ref = RunRef.from_header((message.headers or {}).get(HEADER))
    if ref is not None and id:
        submit(ref, Failed(task=id, error=UNKNOWN_TASK))


def on_internal_error(sender: Any, task_id: str | None = None, **_: Any) -> None:
    """task_internal_error: Celery could not run the task at all."""
    if task_id is None or not option(sender) or _here(task_id) is not None:
        return
    ref = _find(task_id)
    if ref is not None:  # the body never began
        submit(ref, Failed(task=task_id, error=INTERNAL))


def on_process_shutdown(**_: Any) -> None:
    """worker_process_shutdown, worker_shutdown: what waits gets its last chance."""
    outbox().close()


def _find(task_id: str) -> RunRef | None:
    try:
        return resolve(task_id)
    except (redis.ConnectionError, redis.TimeoutError) as error:
        log.warning("the run of task %s can't be found now: %s", task_id, error)
        return None


def describe(exception: Any) -> tuple[ErrorInfo, dict[str, Any]]:
    """An exception as its user may see it, and details for the payload. The rest is for the log."""
    if isinstance(exception, IngestError):
        error = ErrorInfo(exception.code, str(exception), exception.retryable)
        return error, exception.details
    if isinstance(exception, SoftTimeLimitExceeded):
        return TOO_LONG, {}
    if isinstance(exception, (PostgresUnavailable, RedisUnavailable, psycopg.OperationalError)):
        return AWAY, {}
    return INTERNAL, {}
