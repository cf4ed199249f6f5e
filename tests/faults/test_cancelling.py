"""A run is cancelled over HTTP, wherever it is: one `cancelled`, and no body that still begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from celery import Celery

from shared import keys
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.lingering_tasks import linger
from tests.servers import celery_worker, web_server
from worker.lifecycle import install

USER = "local"
NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none"
POOLS = {
    "prefork": ("--pool", "prefork", "--concurrency", "1"),
    "threads": ("--pool", "threads", "--concurrency", "1"),
    "solo": ("--pool", "solo"),
}


class Lab:
    """A web process, a team's producer, and what the user's stream holds."""

    def __init__(self, redis_url: str, web_url: str, folder: Path) -> None:
        self.client = redis.Redis.from_url(redis_url)
        self.folder = folder
        self._redis_url = redis_url
        self._web_url = web_url
        self._app = Celery("team", broker=redis_url, backend=redis_url, set_as_current=False)
        install(self._app)

    def close(self) -> None:
        self._app.close()
        self.client.close()

    def send(self, source: str, **options: Any) -> None:
        who = {"user_id": USER, "source_id": source, "folder": str(self.folder)}
        self._app.tasks[linger.name].apply_async(kwargs=who, **options)

    @contextmanager
    def worker(self, pool: str) -> Iterator[None]:
        with celery_worker(
            self._redis_url,
            NO_DATABASE,
            *POOLS[pool],
            WORKER_IMPORTS="tests.lingering_tasks",
            PYTHONPATH=str(Path(__file__).parents[2]),
        ):
            yield

    def cancel(self, source: str) -> str:
        """Cancels over HTTP; returns the status that the answer tells."""
        url = f"{self._web_url}/api/sources/{source}"
        answer = httpx.delete(url, timeout=10, trust_env=False)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["source"]["status"])

    def kinds(self, source: str) -> list[str]:
        """The types of a source's events, progress once for any number of it."""
        rows: Any = self.client.xrange(keys.stream(USER))
        events = [json.loads(fields[b"e"]) for _, fields in rows]
        kinds = [e["type"].rpartition(".")[2] for e in events if e["scope"]["id"] == source]
        return [k for i, k in enumerate(kinds) if k != "progress" or kinds[i - 1] != k]

    def begun(self, source: str) -> bool:
        return (self.folder / f"{source}.begun").exists()

    def run_another(self) -> None:
        """Returns when a run that was sent after all others has completed, and the worker rests."""
        (self.folder / "go").touch()
        self.send("another")
        wait_until(lambda: self.kinds("another")[-1:] == ["completed"], "another run")
        wait_until(lambda: not self.client.hlen("unacked"), "all messages are acknowledged")


@pytest.fixture
def lab(
    redis_url: str, redis_server: RunningRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lab]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    with web_server("asgi", redis_url) as server:
        made = Lab(redis_url, server.url, tmp_path)
        yield made
        made.close()


@pytest.mark.parametrize("pool", POOLS)
def test_what_was_cancelled_while_no_worker_was_up_is_not_run_by_one_that_comes(
    lab: Lab, pool: str
) -> None:
    lab.send("early")
    assert lab.cancel("early") == "cancelled"
    with lab.worker(pool):
        lab.run_another()
    assert not lab.begun("early")
    assert lab.kinds("early") == ["queued", "cancelled"]


@pytest.mark.parametrize("pool", POOLS)
def test_what_waits_for_its_time_in_a_worker_is_cancelled(lab: Lab, pool: str) -> None:
    with lab.worker(pool):
        lab.send("delayed", countdown=2)
        wait_until(lambda: lab.client.hlen("unacked"), "the worker has taken the message")
        assert lab.cancel("delayed") == "cancelled"
        wait_until(lambda: not lab.client.hlen("unacked"), "its time has come and gone")
        lab.run_another()
    assert not lab.begun("delayed")
    assert lab.kinds("delayed") == ["queued", "cancelled"]


@pytest.mark.parametrize("pool", POOLS)
def test_what_runs_is_cancelled_once_and_says_no_more(lab: Lab, pool: str) -> None:
    with lab.worker(pool):
        lab.send("running")
        wait_until(lambda: "progress" in lab.kinds("running"), "it is under way")
        assert lab.cancel("running") == "cancelled"
        assert lab.cancel("running") == "cancelled"
        lab.run_another()
    assert lab.begun("running")
    assert lab.kinds("running") == ["queued", "started", "progress", "cancelled"]


def test_what_waits_behind_a_run_that_is_at_work_is_cancelled_and_the_other_goes_on(
    lab: Lab,
) -> None:
    with lab.worker("prefork"):
        lab.send("running")
        wait_until(lambda: lab.begun("running"), "it is under way")
        lab.send("behind")
        assert lab.cancel("behind") == "cancelled"
        lab.run_another()
    assert not lab.begun("behind")
    assert lab.kinds("behind") == ["queued", "cancelled"]
    assert lab.kinds("running")[-1] == "completed"
