"""What an execution says of its own end: the facts that leave with its last reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from traceback import walk_tb
from typing import Any

from celery import Task
from celery.exceptions import Ignore, Reject

from shared.encoding import to_iso
from shared.facts import ErrorInfo, Failed, HandedOver, Interrupted, Retrying, Succeeded
from worker import redelivery
from worker.execution import Execution
from worker.failures import REJECTED, WORKER_LOST, describe


def succeed(execution: Execution, result: Any) -> None:
    """The body returned; a mapping is what the run produced."""
    produced = result if isinstance(result, Mapping) else {}
    execution.send_end(
        lambda reports: Succeeded(
            task=execution.task_id, nonce=execution.nonce, reports=reports, result=produced
        )
    )


def fail(execution: Execution, exception: Any) -> None:
    """The task has failed, for good."""
    error, details = describe(exception)
    execution.send_end(
        lambda reports: Failed(
            task=execution.task_id,
            nonce=execution.nonce,
            reports=reports,
            error=error,
            details=details,
        )
    )


def interrupt(execution: Execution, task: Any, error: ErrorInfo, *, comes_again: bool) -> None:
    """It did not get to its end; whether its message comes again is the caller's to know."""
    execution.send_end(
        lambda reports: Interrupted(
            task=execution.task_id,
            nonce=execution.nonce,
            reports=reports,
            error=error,
            comes_again=comes_again,
            grace_ms=redelivery.grace_ms(task.app),
            retries=execution.retries,
            nesting=execution.nesting,
        )
    )


def retry(execution: Execution, task: Any, reason: Any) -> None:
    """The attempt has failed, and the next is on the way."""
    attempt = {"retries": execution.retries, "nesting": execution.nesting}
    fact = retrying(task, execution.task_id, reason, attempt)
    execution.send_end(lambda reports: replace(fact, reports=reports))


def retrying(task: Any, task_id: str, reason: Any, attempt: Mapping[str, Any]) -> Retrying:
    """What Celery's `Retry` says, as a fact; `attempt` has the `retries` and the `nesting`."""
    eta = _eta(getattr(reason, "when", None))
    most = _most_retries(task, reason)
    return Retrying(
        task=task_id,
        attempts=None if most is None else most + 1,
        eta=to_iso(eta) if eta else None,
        eta_ms=int(eta.timestamp() * 1000) if eta else None,
        error=describe(getattr(reason, "exc", None) or reason)[0],
        **attempt,
    )


def _most_retries(task: Any, reason: Any) -> int | None:
    """The limit of the very call of `retry()`.

    What Celery keeps of it on the task (`override_max_retries`) stays there for the tasks after it,
    and those of other threads: only the frame that raised knows.
    """
    for frame, _ in walk_tb(getattr(reason, "__traceback__", None)):
        if frame.f_code is Task.retry.__code__:
            most: int | None = frame.f_locals.get("max_retries", task.max_retries)
            return most
    return task.max_retries  # type: ignore[no-any-return]


def end_untold(execution: Execution, task: Any, state: str | None, retval: Any) -> None:
    """Reports an end that no other signal told, or whose receiver was interrupted."""
    comes_again = redelivery.after_worker(task)
    match state:
        case "SUCCESS":  # as where the backend failed after the body
            succeed(execution, retval)
        case "FAILURE":
            fail(execution, retval)
        case "RETRY":
            retry(execution, task, retval)
        case "IGNORED" if execution.replaced:
            execution.send_end(
                lambda reports: HandedOver(
                    task=execution.task_id, nonce=execution.nonce, reports=reports
                )
            )
        case "IGNORED":
            interrupt(execution, task, describe(Ignore())[0], comes_again=False)
        case "REJECTED" if not getattr(retval, "requeue", False):
            fail(execution, Reject())
        case "REJECTED":
            interrupt(execution, task, REJECTED, comes_again=comes_again)
        case _:
            interrupt(execution, task, WORKER_LOST, comes_again=comes_again)


def _eta(when: Any) -> datetime | None:
    if isinstance(when, datetime):
        return when if when.tzinfo else when.replace(tzinfo=UTC)
    return datetime.now(UTC) + timedelta(seconds=when) if isinstance(when, (int, float)) else None
