"""A message that can't be published ends its run: no signal of Celery's tells of that."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

from celery import Celery
from celery.utils.imports import symbol_by_name
from kombu.utils.objects import cached_property

from shared.facts import ErrorInfo, Failed, Passed
from shared.runs import submit
from worker.publishing import run_in

NOT_SENT = ErrorInfo("not_sent", "This could not be handed to a worker. Please try again.", True)


def watch_sending(app: Celery) -> None:
    """Has a run end whose message can't be published: no signal tells of that.

    The application's AMQP may be in use already, and it keeps the function that sends.
    """
    app.amqp_cls = cast(Any, _telling(symbol_by_name(cast(Any, app.amqp_cls))))
    amqp = vars(app).get("amqp")
    if amqp is None or getattr(amqp, "tells_runs", False):
        return
    amqp.__class__ = _telling(type(amqp))
    if send := vars(amqp).get("send_task_message"):
        amqp.send_task_message = _telling_sender(send)


def _telling(base: Any) -> Any:
    """The AMQP class whose failures to publish are told."""
    if getattr(base, "tells_runs", False):
        return base

    class TellingAMQP(base):  # type: ignore[misc]
        tells_runs = True

        @cached_property
        def send_task_message(self) -> Any:
            return _telling_sender(self._create_task_sender())

    return TellingAMQP


def _telling_sender(send: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(send)
    def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
        try:
            return send(producer, name, message, **options)
        except Exception:
            _not_sent(message.headers)
            raise

    return send_task_message


def _not_sent(headers: Mapping[str, Any]) -> None:
    ref, role = run_in(headers)
    if (
        ref is None
        or "id" not in headers
        or headers.get("retries")
        or headers.get("replaced_task_nesting")
    ):
        return  # what fails to publish its own next attempt says so itself
    task = headers["id"]
    submit(ref, Passed(task=task) if role else Failed(task=task, error=NOT_SENT))
