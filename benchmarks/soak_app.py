"""A team's own application, with the tasks of the soak: they work, fail, try again, fan out.

`celery -A benchmarks.soak_app worker` and `... beat`; `REDIS_URL` names the Redis for everything.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

from celery import Celery, chord, group, signals

from benchmarks import soak_chords
from shared.connections import app_redis
from worker.canvas import copied
from worker.ingest import IngestError, track
from worker.lifecycle import install

VISIBILITY_SECONDS = 8
MOST_SECONDS = 0.06  # that a task's body takes

INGEST = {"user": "user_id", "source": "source_id"}


class SoakFailure(IngestError):
    """This one is meant to fail."""

    code = "meant_to_fail"


app = Celery("soak", broker=os.environ.get("REDIS_URL"), backend=os.environ.get("REDIS_URL"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_serializer="json",
    result_expires=3600,
    broker_connection_retry_on_startup=True,
    broker_transport="benchmarks.soak_broker:Transport",
    broker_transport_options={
        "priority_steps": [0],
        "visibility_timeout": VISIBILITY_SECONDS,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_restore_limit": 1000,
        "unacked_mutex_expire": 2,  # its holder may be killed
    },
)
install(app)


def note_published(headers: Any = None, **_: Any) -> None:
    """after_task_publish."""
    soak_chords.note_published(app_redis(), headers)


signals.after_task_publish.connect(note_published, weak=False)


def work() -> None:
    """A while of something to count."""
    for _ in track(range(3)):
        time.sleep(random.uniform(0, MOST_SECONDS) / 3)


@app.task(name="soak.step", ingest=INGEST)
def step(user_id: str, source_id: str) -> dict[str, str]:
    work()
    return {"source": source_id}


@app.task(name="soak.plain")
def plain(user_id: str, source_id: str) -> None:
    """Without the option."""
    work()


@app.task(name="soak.fail", ingest=INGEST)
def fail(user_id: str, source_id: str) -> None:
    work()
    raise SoakFailure


@app.task(bind=True, name="soak.retry", ingest=INGEST, max_retries=5)
def retry(self: Any, user_id: str, source_id: str, times: int) -> None:
    """Fails so often before it succeeds."""
    work()
    if self.request.retries < times:
        raise self.retry(exc=SoakFailure(), countdown=random.uniform(0, 0.5))


@app.task(bind=True, name="soak.replace", ingest=INGEST)
def replace(self: Any, user_id: str, source_id: str, members: int) -> None:
    """Puts a chord, or a group, in its own place."""
    work()
    header = [copied(step.si(user_id, source_id)) for _ in range(members)]
    ids = [member.options["task_id"] for member in header]
    nesting = self.request.replaced_task_nesting + 1
    soak_chords.note_replaced(app_redis(), source_id, ids, self.request.id, nesting)
    if members % 2:
        raise self.replace(group(header))
    raise self.replace(chord(header, step.si(user_id, source_id)))
