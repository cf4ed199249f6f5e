"""Real workers: what a client of the stream is told of tasks that do this and that."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from shared import keys, runs
from tests.conftest import RunningRedis
from tests.servers import celery_worker
from tests.tracked_tasks import count
from worker.lifecycle import install

USER, SOURCE = "alice", "source-1"
DEADLINE_SECONDS = 30.0
POOLS = {
    "prefork": ("--pool", "prefork", "--concurrency", "2"),
    "threads": ("--pool", "threads", "--concurrency", "2"),
    "solo": ("--pool", "solo"),
}
WHO = {"user_id": USER, "source_id": SOURCE}


class Lab:
    """A worker, its Redis, and what its user's stream holds."""

    def __init__(self, url: str, pool: str) -> None:
        self.pool = pool
        self.url = url
        self.client = redis.Redis.from_url(url)
        self.app = Celery("team", broker=url, backend=url, set_as_current=False)
        install(self.app)

    def send(self, name: str, **arguments: Any) -> str:
        """Publishes a tracked task as a team's own code would, and returns its id."""
        import tests.tracked_tasks  # noqa: F401

        return str(self.app.tasks[f"tests.{name}"].delay(**WHO, **arguments).id)

    def events(self) -> list[dict[str, Any]]:
        rows: Any = self.client.xrange(keys.stream(USER))
        return [json.loads(fields[b"e"]) for _, fields in rows]

    def told(self) -> list[str]:
        """The types of events until the run has ended, progress once for any number of it."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            kinds = [e["type"].removeprefix("source.ingest.") for e in self.events()]
            if kinds and kinds[-1] in ("completed", "failed", "cancelled"):
                return [k for i, k in enumerate(kinds) if k != "progress" or kinds[i - 1] != k]
            assert time.monotonic() < deadline, kinds
            time.sleep(0.02)

    @property
    def last(self) -> dict[str, Any]:
        payload: dict[str, Any] = self.events()[-1]["payload"]
        return payload


@pytest.fixture(scope="module", params=list(POOLS))
def worker(request: pytest.FixtureRequest, redis_server: RunningRedis) -> Iterator[Lab]:
    url = redis_server.url
    with celery_worker(
        url,
        "postgresql://nobody@127.0.0.1:1/none",
        *POOLS[request.param],
        WORKER_IMPORTS="tests.tracked_tasks",
        PYTHONPATH=str(Path(__file__).parents[2]),
    ):
        lab = Lab(url, request.param)
        yield lab
        lab.app.close()


@pytest.fixture
def lab(worker: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    worker.client.delete(*(worker.client.keys("user:*") or ["none"]))
    monkeypatch.setenv("REDIS_URL", worker.url)
    return worker


def test_a_task_that_succeeds(lab: Lab) -> None:
    lab.send("count", number=10)
    assert lab.told() == ["queued", "started", "progress", "completed"]
    assert lab.last["total"] == 45
    progress = [e["payload"] for e in lab.events() if e["type"].endswith("progress")]
    assert progress[0]["stage"] == "count"
    assert (progress[-1]["stage"], progress[-1]["percent"]) == ("sum", 99)


def test_a_task_that_raises_tells_nothing_of_its_inside(lab: Lab) -> None:
    lab.send("fail", secret="hunter2")
    assert lab.told() == ["queued", "started", "failed"]
    assert lab.last["error"]["code"] == "internal_error"
    assert "hunter2" not in json.dumps(lab.events())


def test_an_error_for_users_is_told_with_its_details(lab: Lab) -> None:
    lab.send("refuse")
    assert lab.told() == ["queued", "started", "failed"]
    assert lab.last["error"] == {
        "code": "unreadable",
        "message": "This file can't be read.",
        "retryable": False,
    }
    assert lab.last["failed_files"] == [{"name": "a"}]


def test_a_retry_is_not_a_failure_and_not_queued_again(lab: Lab) -> None:
    lab.send("retry_once")
    assert lab.told() == ["queued", "started", "retrying", "started", "completed"]
    assert [e["payload"]["attempt"] for e in lab.events()] == [0, 1, 1, 2, 2]


def test_retries_that_run_out_fail_once(lab: Lab) -> None:
    lab.send("give_up")
    assert lab.told() == ["queued", "started", "retrying", "started", "failed"]
    assert lab.last["error"]["code"] == "unreadable"


def test_a_chord_is_one_run(lab: Lab) -> None:
    lab.send("fan_out", number=6)
    assert lab.told() == ["queued", "started", "progress", "completed"]
    assert lab.last["total"] == sum(sum(range(n)) for n in range(6))
    assert lab.last["attempt"] == 1
    shown = [e["payload"] for e in lab.events() if e["type"].endswith("progress")]
    assert {p["total"] for p in shown if p["stage"] == "part"} == {6}
    percents = [p["percent"] for p in shown]
    assert percents == sorted(percents)


def test_a_chord_whose_member_fails_ends_at_once(lab: Lab) -> None:
    lab.send("member_fails")
    assert lab.told()[-1] == "failed"
    assert lab.last["error"]["code"] == "unreadable"


def test_a_revoked_task_is_not_run(lab: Lab) -> None:
    if lab.pool != "prefork":
        pytest.skip("threads and solo run revoked tasks")
    import tests.tracked_tasks  # noqa: F401

    task = lab.app.tasks["tests.count"]
    result = task.apply_async(kwargs={**WHO, "number": 1}, countdown=1)
    lab.app.control.revoke(result.id)
    assert lab.told() == ["queued", "cancelled"]


def test_a_killed_child_is_run_again_as_the_next_attempt(lab: Lab, tmp_path: Path) -> None:
    if lab.pool != "prefork":
        pytest.skip("only prefork has children to kill")
    lab.send("die_once", marker=str(tmp_path / "died"))
    assert lab.told() == ["queued", "started", "started", "completed"]
    assert [e["payload"]["attempt"] for e in lab.events()] == [0, 1, 2, 2]


def test_a_task_that_no_worker_knows_fails(lab: Lab) -> None:
    from web.dispatch import start_run

    ref = runs.new_run(USER, SOURCE, "n", final="5e7e3a2c-0000-4000-8000-000000000001")
    start_run(ref, "tests.nobody_knows_this", {})
    assert lab.told() == ["queued", "failed"]
    assert lab.last["error"]["code"] == "unknown_task"


def test_an_untracked_task_leaves_no_trace(lab: Lab) -> None:
    import tests.tracked_tasks  # noqa: F401

    assert lab.app.tasks["tests.untracked"].delay(4).get(timeout=DEADLINE_SECONDS) == 6
    assert lab.events() == []


def test_helpers_do_nothing_outside_of_a_worker() -> None:
    assert count(**WHO, number=4) == {"total": 6}
