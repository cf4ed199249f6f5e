"""Sending work to the workers by task name; web imports no task."""

from __future__ import annotations

from functools import cache
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from shared.facts import ErrorInfo, Failed
from shared.runs import HEADER, RunRef, accept, submit
from shared.settings import get_settings
from web.refusal import unavailable

NOT_SENT = ErrorInfo("not_sent", "This could not be handed to a worker. Please try again.", True)


def start_run(ref: RunRef, task_name: str, arguments: dict[str, Any]) -> str:
    """Accepts a run and publishes its task; returns the cursor from before `queued`.

    A client that watches from that cursor misses nothing. Starting a run that exists already
    publishes nothing.

    Raises:
        RedisUnavailable: the run could not be accepted.
        Refusal: 503, the broker did not take the message; the run has ended as failed.
    """
    outcome = accept(ref)
    if outcome.verdict == "duplicate":
        return outcome.cursor
    try:
        _celery().send_task(
            task_name, kwargs=arguments, task_id=ref.final, headers={HEADER: ref.to_header()}
        )
    except OperationalError as error:
        submit(ref, Failed(task=ref.final, error=NOT_SENT))
        raise unavailable("The task queue") from error
    return outcome.cursor


@cache
def _celery() -> Celery:
    app = Celery("web", broker=get_settings().broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0.1},
        broker_transport_options={"socket_connect_timeout": 1, "socket_timeout": 5},
    )
    return app
