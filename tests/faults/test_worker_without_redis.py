"""A worker's Redis goes away while it is at work, and comes back: the worker is still there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from shared import keys
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.lingering_tasks import linger
from tests.servers import celery_worker
from worker.lifecycle import install

USER = "alice"
NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none"
LOST = "Connection to broker lost"


def kinds(client: redis.Redis, source: str) -> list[str]:
    """The types of a source's events, progress left out."""
    rows: Any = client.xrange(keys.stream(USER))
    events = [json.loads(fields[b"e"]) for _, fields in rows]
    found = [e["type"].rpartition(".")[2] for e in events if e["scope"]["id"] == source]
    return [kind for kind in found if kind != "progress"]


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_outlives_its_redis_with_a_task_at_work(
    client: redis.Redis,
    redis_server: RunningRedis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pool: str,
) -> None:
    url = redis_server.url
    monkeypatch.setenv("REDIS_URL", url)
    app = Celery("team", broker=url, set_as_current=False)
    install(app)

    def send(source: str) -> None:
        app.tasks[linger.name].apply_async((USER, source, str(tmp_path)))

    said: list[str] = []
    with celery_worker(
        url,
        NO_DATABASE,
        *("--pool", pool, "--concurrency", "2"),  # one is free: the worker asks for more
        sink=lambda name, line: said.append(line),
        WORKER_IMPORTS="tests.lingering_tasks",
        PYTHONPATH=str(Path(__file__).parents[2]),
    ) as worker:
        send("first")
        wait_until(lambda: "started" in kinds(client, "first"), "it is at work")
        redis_server.stop()
        if pool != "solo":  # which is at work itself, and sees it later
            wait_until(lambda: any(LOST in line for line in said), "the worker has noticed")
            wait_until(lambda: any("Trying again in" in line for line in said), "it tries again")
        redis_server.start()
        (tmp_path / "go").touch()
        wait_until(lambda: "completed" in kinds(client, "first"), "the first completes")
        send("second")
        wait_until(lambda: "completed" in kinds(client, "second"), "so does another")
        wait_until(lambda: not client.hlen("unacked"), "both messages are acknowledged")
        assert worker.running
    assert kinds(client, "first") == ["queued", "started", "completed"]
    app.close()
