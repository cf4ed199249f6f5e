"""Celery's signals become facts: `install(app)`, for the producer, the worker and beat alike.

A task opts in with one option on its decorator that names the arguments which hold user and
source: `@shared_task(bind=True, ingest={"user": "user_id", "source": "source_id"})`. Other tasks
are none of our business. A tracked task that is published from within a run of the same source
joins that run. Beat holds the reaper.
"""

from __future__ import annotations

from functools import partial

from celery import Celery, signals

from worker import beginnings, endings, logs, owners, publishing, sending
from worker.reaper import ReaperThread


def install(app: Celery) -> None:
    """Makes an application's tracked tasks report their lifecycle. A second call changes nothing.

    Receivers are held strongly and by name: Celery drops weakly held closures in silence, and
    calls one that is connected twice twice.
    """
    logs.install()
    signals.after_setup_logger.connect(logs.install, weak=False, dispatch_uid="eventstream-logs")
    sending.watch_sending(app)
    owners.know(app)
    gate = partial(beginnings.gate_all, app)
    of_this_app = f"eventstream-{id(app)}"
    app.on_after_finalize.connect(beginnings.gate_all, weak=False, dispatch_uid=of_this_app)
    signals.worker_init.connect(lambda **_: gate(), weak=False, dispatch_uid=of_this_app)
    reaper = ReaperThread(app)
    for signal in (signals.beat_init, signals.beat_embedded_init):
        signal.connect(reaper.start, weak=False, dispatch_uid=of_this_app)
    for signal, receiver in (
        (signals.before_task_publish, publishing.on_publish),
        (signals.after_task_publish, publishing.on_published),
        (signals.task_success, endings.on_success),
        (signals.task_failure, endings.on_failure),
        (signals.task_retry, endings.on_retry),
        (signals.task_postrun, endings.on_postrun),
        (signals.task_revoked, endings.on_revoked),
        (signals.task_unknown, endings.on_unknown),
        (signals.task_rejected, endings.on_rejected),
        (signals.task_internal_error, endings.on_internal_error),
        (signals.worker_process_shutdown, endings.on_process_shutdown),
        (signals.worker_shutdown, endings.on_process_shutdown),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=f"eventstream-{receiver.__name__}")
