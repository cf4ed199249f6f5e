"""The shop's own Celery application. `celery -A team` finds it."""

import os

from celery import Celery

from worker.lifecycle import install

app = Celery(
    "team",
    broker=os.environ["REDIS_URL"],
    backend=os.environ["REDIS_URL"],  # chords need one
    include=["team.tasks"],
)
app.conf.update(
    # A killed worker's message comes again, and INGEST_MAX_DELIVERIES ends a deadly one.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_consumer="worker.consumer:Consumer",  # it outlives a Redis that goes away
)
app.set_default()  # for the threads of a web server, too
install(app)  # in the producer, the worker and beat: all of them import this module
