"""Sending work to the workers by task name, and having them drop it; web imports no task."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from shared.errors import RedisUnavailable
from shared.facts import Accepted, ErrorInfo, Failed
from shared.outbox import outbox
from shared.runs import HEADER, Outcome, RunRef, accept, submit
from shared.settings import get_settings
from web.refusal import Refusal, unavailable

log = logging.getLogger(__name__)

NOT_SENT = ErrorInfo("not_sent", "This could not be handed to a worker. Please try again.", True)
# What a broker that can't be used just now raises: kombu's own, or what its transport lets through.
_BROKER_AWAY = (OperationalError, redis.RedisError, OSError)


def start_run(
    ref: RunRef, task_name: str, arguments: dict[str, Any], *, is_new: bool = True
) -> str:
    """Accepts a run and publishes its task; returns the cursor from before `queued`.

    A client that watches from that cursor misses nothing. Starting a run that exists already
    publishes nothing, and says its state once more.

    Raises:
        RedisUnavailable, Refusal: as `accept_run` and `send_run`.
    """
    outcome = accept_run(ref, is_new=is_new)
    send_run(ref, task_name, arguments, outcome)
    return outcome.cursor


def accept_run(ref: RunRef, *, is_new: bool) -> Outcome:
    """Makes a run exist, unless another one of its source is open.

    Args:
        ref: the run, of one task.
        is_new: nobody can have heard of it; where it isn't known whether it was accepted, it ends
            as failed as soon as Redis is back.

    Raises:
        RedisUnavailable: the run could not be accepted.
        Refusal: 409, another run of the source is open.
    """
    outbox().flush()
    try:
        outcome = accept(ref, Accepted(task=ref.final, exclusive=True, repeat_state=True))
    except RedisUnavailable:
        if is_new:
            not_sent(ref)
        raise
    if outcome.verdict == "running":
        raise Refusal(409, "already_running", "This source is being ingested already.")
    return outcome


def send_run(ref: RunRef, task_name: str, arguments: dict[str, Any], outcome: Outcome) -> None:
    """Publishes the task of a run that was accepted with this outcome, if it is the first time.

    Raises:
        Refusal: 503, the broker did not take the message; the run has ended as failed.
    """
    if outcome.verdict != "ok":
        return
    try:
        _celery().send_task(
            task_name, kwargs=arguments, task_id=ref.final, headers={HEADER: ref.to_header()}
        )
    except Exception as error:  # whatever it is, nobody will run this
        not_sent(ref)
        if isinstance(error, _BROKER_AWAY):
            raise unavailable("The task queue") from error
        raise


def send_task(task_name: str, arguments: dict[str, Any]) -> None:
    """Publishes a task that is of no run.

    Raises:
        Refusal: 503, the broker did not take the message.
    """
    try:
        _celery().send_task(task_name, kwargs=arguments)
    except _BROKER_AWAY as error:
        raise unavailable("The task queue") from error


def not_sent(ref: RunRef) -> None:
    """Ends a run that no worker will hear of; later, where Redis is away."""
    submit(ref, Failed(task=ref.final, error=NOT_SENT))


def revoke(tasks: Sequence[str]) -> None:
    """Has the workers that are up drop tasks which wait.

    A courtesy: a run that has ended runs no body, whether this arrives or not. So a broker that
    is away is no error.
    """
    if not tasks:
        return
    try:
        _celery().control.revoke(list(tasks))
    except _BROKER_AWAY as error:
        log.warning("tasks of a run that was cancelled are not revoked: %s", error)


@cache
def _celery() -> Celery:
    app = Celery("web", broker=get_settings().broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0.1},
        broker_transport_options={
            "socket_connect_timeout": 1,
            "socket_timeout": 5,
            "max_retries": 1,  # of a broadcast, which knows no policy
            "interval_start": 0.1,
        },
    )
    return app
