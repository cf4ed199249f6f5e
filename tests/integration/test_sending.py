"""What is told of messages that can't be published, and of those that can't name a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Queue
from kombu.exceptions import OperationalError

from shared import keys
from worker import publishing
from worker.lifecycle import install
from worker.pipeline import start_ingest

NOWHERE = "redis://127.0.0.1:1/0"
INGEST = {"user": "user_id", "source": "source_id"}


@pytest.fixture
def app() -> Iterator[Celery]:
    """A producer, not installed yet, whose broker is away."""
    app = Celery("team", broker=NOWHERE, set_as_current=False)
    app.conf.update(task_publish_retry=False, broker_transport_options={"max_retries": 1})
    declare: Any = app.task

    def tracked(user_id: str, source_id: str) -> None: ...

    def plain() -> None: ...

    declare(name="tracked", ingest=INGEST, shared=False)(tracked)
    declare(name="plain", shared=False)(plain)
    yield app
    app.close()


def told(client: redis.Redis, user: str) -> list[str]:
    rows: Any = client.xrange(keys.stream(user))
    return [json.loads(fields[b"e"])["type"].split(".")[-1] for _, fields in rows]


def touch_nothing(app: Celery) -> None: ...


def touch_amqp(app: Celery) -> None:
    assert app.amqp


def touch_queues(app: Celery) -> None:
    app.amqp.queues.add(Queue("documents"))


def publish(app: Celery) -> None:
    with pytest.raises(OperationalError):
        app.tasks["plain"].delay()


@pytest.mark.parametrize("before", [touch_nothing, touch_amqp, touch_queues, publish])
def test_a_message_that_can_not_be_published_is_told_whatever_the_application_did_before(
    app: Celery, client: redis.Redis, before: Any
) -> None:
    before(app)
    for _ in range(2):
        install(app)
    with pytest.raises(OperationalError):
        app.tasks["tracked"].delay("alice", "s")
    assert told(client, "alice") == ["queued", "failed"]
    assert before is not touch_queues or "documents" in app.amqp.queues


def test_with_message_protocol_1_tracked_tasks_are_refused_once_and_others_left_alone(
    app: Celery, client: redis.Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.update(broker_url=redis_url, task_protocol=1)
    install(app)
    publishing._say_protocol.cache_clear()
    by_call: Any = {"eventstream": {"user": "alice", "source": "s"}}
    app.tasks["plain"].delay()
    assert errors(caplog) == []
    for _ in range(2):
        app.tasks["tracked"].delay("alice", "s")
        app.tasks["plain"].apply_async(headers=by_call)
    with pytest.raises(ValueError, match="message protocol 2"):
        start_ingest(app.tasks["plain"].si(), user_id="alice", source_id="s")
    assert errors(caplog) == [
        "no task is tracked here: that needs Celery's message protocol 2, and its setting "
        "task_protocol is another"
    ]
    assert (told(client, "alice"), client.llen("celery")) == ([], 5)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
