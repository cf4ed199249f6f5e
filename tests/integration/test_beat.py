"""Real beat processes: what becomes of runs whose workers are gone, when no other worker is up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery, signals
from celery.beat import Service

import tests.liveness_tasks as tasks
from shared import keys, runs
from shared.facts import Accepted
from shared.messages import begin_attempt, create_message
from shared.settings import get_settings
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.integration.test_lifecycle import Lab
from tests.servers import celery_beat, celery_worker
from worker.app import configuration
from worker.lifecycle import install
from worker.message_reaper import MessageReaper
from worker.reaper import Reaper
from worker.retention import prune_messages

NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none"
LEASE_SECONDS = 1  # and so often a reaper looks, where that is less than ten seconds
MARGIN_SECONDS = 5  # for a busy machine
QUICK: dict[str, Any] = {"INGEST_LEASE_SECONDS": str(LEASE_SECONDS)}
TASKS: dict[str, Any] = {
    "WORKER_IMPORTS": "tests.liveness_tasks",
    "PYTHONPATH": str(Path(__file__).parents[2]),
}


@pytest.fixture
def lab(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    lab = Lab(redis_url, "solo")
    yield lab
    lab.app.close()


@contextmanager
def beat(lab: Lab, folder: Path, **settings: str) -> Iterator[None]:
    with celery_beat(lab.url, NO_DATABASE, folder / "schedule", **QUICK, **settings):
        yield


def killed(lab: Lab, name: str, path: Path, **settings: Any) -> float:
    """Has a worker begin a task, and kills all of it; returns when."""
    options = ("--pool", "prefork", "--concurrency", "1")
    with celery_worker(lab.url, NO_DATABASE, *options, **QUICK, **TASKS, **settings) as worker:
        lab.app.tasks[f"tests.{name}"].delay(user_id="alice", source_id="source-1", path=str(path))
        wait_until(lambda: tasks.read(path), "the task begins")
        worker.kill()
    return time.monotonic()


def test_a_killed_worker_is_told_within_a_lease_and_a_look(lab: Lab, tmp_path: Path) -> None:
    with beat(lab, tmp_path):
        since = killed(lab, "loop_early", tmp_path / "marks")
        lab.wait_for(lambda: lab.kinds()[-1] == "failed")
        assert time.monotonic() - since < 2 * LEASE_SECONDS + MARGIN_SECONDS
    assert [kind for kind in lab.kinds() if kind != "progress"] == ["queued", "started", "failed"]
    assert lab.last["error"]["code"] == "worker_lost"


def test_a_killed_worker_whose_message_may_come_again_is_told_as_soon(
    lab: Lab, tmp_path: Path
) -> None:
    with beat(lab, tmp_path):
        since = killed(lab, "loop_late", tmp_path / "marks")
        lab.wait_for(lambda: lab.kinds()[-1] == "stalled")
        assert time.monotonic() - since < 2 * LEASE_SECONDS + MARGIN_SECONDS


def test_what_does_not_come_again_fails_after_the_grace(lab: Lab, tmp_path: Path) -> None:
    with beat(lab, tmp_path):
        killed(lab, "loop_late", tmp_path / "marks", INGEST_REDELIVERY_GRACE_SECONDS="6")
        lab.wait_for(lambda: lab.kinds()[-1] == "failed")
    told = [kind for kind in lab.kinds() if kind != "progress"]
    assert told == ["queued", "started", "stalled", "failed"]


def test_beat_outlives_redis(lab: Lab, tmp_path: Path, redis_server: RunningRedis) -> None:
    with beat(lab, tmp_path):
        wait_until(lambda: lab.client.ping(), "Redis answers")
        redis_server.stop()
        redis_server.start()
        ref = runs.new_run("alice", "source-1", "n", final="T")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("INGEST_QUEUE_TIMEOUT_SECONDS", "1")
            get_settings.cache_clear()
            runs.accept(ref, Accepted(task="T"))
        lab.wait_for(lambda: lab.kinds()[-1] == "failed")
        assert lab.last["error"]["code"] == "never_started"


def test_a_worker_with_an_embedded_beat_reaps_too(lab: Lab, tmp_path: Path) -> None:
    options = ("--pool", "prefork", "--concurrency", "1", "-B", "-s", str(tmp_path / "schedule"))
    with celery_worker(lab.url, NO_DATABASE, *options, **QUICK, **TASKS):
        task = lab.app.tasks["tests.loop_early"]
        path = tmp_path / "marks"
        task.delay(user_id="alice", source_id="source-1", path=str(path))
        wait_until(lambda: tasks.read(path), "the task begins")
        os.kill(int(tasks.read(path)[0]), signal.SIGSTOP)
        lab.wait_for(lambda: lab.kinds()[-1] == "failed")
        os.kill(int(tasks.read(path)[0]), signal.SIGKILL)


def test_a_beat_process_has_one_reaper(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, url in (("REDIS_URL", "redis://127.0.0.1:1"), ("DATABASE_URL", NO_DATABASE)):
        monkeypatch.setenv(name, url)
    made: list[Celery] = []
    monkeypatch.setattr(Reaper, "__init__", lambda reaper, app: made.append(app))
    monkeypatch.setattr(Reaper, "run", lambda reaper: None)
    monkeypatch.setattr(MessageReaper, "run", lambda reaper: None)
    mine, other = (Celery(set_as_current=False) for _ in range(2))
    for app in (mine, mine, other):
        install(app)
    service = Service(mine)
    signals.beat_init.send(sender=service)
    signals.beat_embedded_init.send(sender=service)
    assert made == [mine]


def test_beat_ends_an_answer_whose_writer_is_lost(
    lab: Lab, tmp_path: Path, database_url: str
) -> None:
    quick = {**QUICK, "MESSAGE_STALE_SECONDS": "1"}
    with (
        psycopg.connect(database_url, autocommit=True) as connection,
        lab.client.pubsub() as channel,  # type: ignore[no-untyped-call]
        celery_beat(lab.url, database_url, tmp_path / "schedule", **quick),
    ):
        message_id = create_message(connection, "alice")
        channel.subscribe(keys.message(message_id))
        channel.get_message(timeout=5)
        begin_attempt(connection, "alice", message_id)
        told: list[bytes] = []

        def is_told() -> bool:
            message: Any = channel.get_message(timeout=1)
            told.extend([message["data"]] if message else [])
            return len(told) == 2

        wait_until(is_told, "both announcements")
    assert told[0].startswith(b'-1 0 id: 0\ndata: {"type":"error","code":"producer_lost"')
    assert told[1] == b"!finished 0"


def test_beat_has_days_removed_as_often_as_a_setting_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGE_PRUNE_EVERY_SECONDS", "60")
    get_settings.cache_clear()
    entry = configuration()["beat_schedule"]["prune-messages"]
    assert entry["schedule"] == 60
    assert entry["task"] == prune_messages.name
