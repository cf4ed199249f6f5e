"""Real workers: what a client of the stream is told of tasks that do this and that."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chord, group

from shared import keys, runs
from shared.facts import Revoked
from shared.run_states import list_runs
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
TERMINAL = {"completed", "failed", "cancelled"}
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

    def kinds(self, source: str = SOURCE) -> list[str]:
        events = [e for e in self.events() if e["scope"]["id"] == source]
        return [e["type"].removeprefix("source.ingest.") for e in events]

    def told(self, source: str = SOURCE) -> list[str]:
        """The types of events up to the run's end, progress once for any number of it.

        Waits for the worker to be done with it all: nothing may follow the end.
        """
        self.wait_for(lambda: bool(set(self.kinds(source)) & TERMINAL))
        self.settle()
        kinds = self.kinds(source)
        assert sum(kind in TERMINAL for kind in kinds) == 1, kinds
        assert kinds[-1] in TERMINAL, kinds
        return [k for i, k in enumerate(kinds) if k != "progress" or kinds[i - 1] != k]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.kinds()
            time.sleep(0.02)

    def has_ended(self, times: int) -> bool:
        return self.kinds().count("completed") == times

    def settle(self) -> None:
        """Returns when the worker has nothing more to do.

        A message on its way from the queue to a worker is in neither for a moment: it takes
        several looks in a row.
        """
        deadline = time.monotonic() + DEADLINE_SECONDS
        idle = 0
        while idle < 8:
            busy = self.client.llen("celery") or self.client.hlen("unacked")
            idle = 0 if busy else idle + 1
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @property
    def last(self) -> dict[str, Any]:
        payload: dict[str, Any] = self.events()[-1]["payload"]
        return payload

    def attempts(self) -> list[int | None]:
        """How many attempts each retry says there may be."""
        retries = [e["payload"] for e in self.events() if e["type"].endswith("retrying")]
        return [payload["attempts"] for payload in retries]


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
    worker.settle()
    worker.client.delete(*worker.client.keys("user:*"), *worker.client.keys("task:*"), "none")
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


def test_a_retry_says_how_many_attempts_its_own_call_allows(lab: Lab) -> None:
    # One process may have them all, and Celery keeps on the task what a call has said.
    for number, limit in enumerate((9, None, 1), start=1):
        lab.send("retry_within", limit=limit)
        lab.wait_for(partial(lab.has_ended, number))
    assert lab.attempts() == [10, 4, 2]


def test_a_retry_that_celery_makes_says_how_many_attempts_its_options_allow(lab: Lab) -> None:
    lab.send("retry_by_itself")
    assert lab.told() == ["queued", "started", "retrying", "started", "failed"]
    assert lab.attempts() == [2]


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


def test_a_chain_is_one_run_that_its_last_task_ends(lab: Lab, tmp_path: Path) -> None:
    path = str(tmp_path / "marks")
    tasks = lab.app.tasks
    (tasks["tests.count"].si(**WHO, number=3) | tasks["tests.mark"].si(**WHO, path=path)).delay()
    assert lab.told() == ["queued", "started", "progress", "completed"]
    assert lab.last["marked"] == path
    assert Path(path).read_text() == "source-1\n"


def test_a_chord_from_the_producer_is_one_run_that_its_body_ends(lab: Lab) -> None:
    tasks = lab.app.tasks
    members = [tasks["tests.part"].s(**WHO, number=n) for n in range(4)]
    chord(members, tasks["tests.join"].s(**WHO)).delay()
    assert [kind for kind in lab.told() if kind != "progress"] == ["queued", "started", "completed"]
    assert lab.last["total"] == sum(sum(range(n)) for n in range(4))


def test_a_group_over_sources_is_a_run_for_each(lab: Lab, tmp_path: Path) -> None:
    path = str(tmp_path / "marks")
    mark = lab.app.tasks["tests.mark"]
    group(mark.si(user_id=USER, source_id=f"s{n}", path=path) for n in range(3)).delay()
    for n in range(3):
        assert lab.told(f"s{n}") == ["queued", "started", "completed"]


def test_a_group_over_one_source_runs_every_member(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    mark = lab.app.tasks["tests.mark"]
    group(mark.si(**WHO, path=str(path)) for _ in range(5)).delay()
    lab.wait_for(lambda: path.exists() and path.read_text() == "source-1\n" * 5)
    lab.settle()
    ends = [e["payload"]["run_id"] for e in lab.events() if e["type"].endswith("completed")]
    assert len(ends) == len(set(ends)) == lab.kinds().count("queued")


def test_a_member_published_after_its_group_has_ended_is_a_run_of_its_own(
    lab: Lab, tmp_path: Path
) -> None:
    path = tmp_path / "marks"
    mark: Any = lab.app.tasks["tests.mark"]
    for number in (1, 2):
        mark.apply_async(kwargs={**WHO, "path": str(path)}, group_id="a-group")
        lab.wait_for(partial(lab.has_ended, number))
    assert path.read_text() == "source-1\n" * 2
    assert lab.kinds() == ["queued", "started", "completed"] * 2


def test_a_member_published_after_its_group_has_failed_is_not_run(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    fail: Any = lab.app.tasks["tests.fail"]
    mark: Any = lab.app.tasks["tests.mark"]
    fail.apply_async(kwargs={**WHO, "secret": "x"}, group_id="failed-group")
    lab.wait_for(lambda: "failed" in lab.kinds())
    mark.apply_async(kwargs={**WHO, "path": str(path)}, group_id="failed-group")
    assert lab.told() == ["queued", "started", "failed"]
    assert not path.exists()


def test_a_group_that_failed_and_is_published_again_is_another_run(
    lab: Lab, tmp_path: Path
) -> None:
    fail: Any = lab.app.tasks["tests.fail"]
    again = {"group_id": f"group-{tmp_path}", "task_id": f"first-{tmp_path}"}
    for _ in range(2):
        fail.apply_async(kwargs={**WHO, "secret": "x"}, **again)
        lab.wait_for(lambda: lab.kinds()[-1:] == ["failed"])
        lab.settle()
    assert lab.kinds() == ["queued", "started", "failed"] * 2


def test_a_task_that_is_sent_off_and_not_waited_for_still_runs(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    lab.send("send_off", path=str(path))
    assert lab.told() == ["queued", "started", "completed"]
    assert path.read_text() == "source-1\n"


def test_the_body_of_a_run_that_was_cancelled_does_not_run(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    lab.app.tasks["tests.mark"].apply_async(kwargs={**WHO, "path": str(path)}, countdown=1)
    pointers: Any = lab.client.keys("task:*")
    ref = runs.run_of_task(pointers[0].decode().removeprefix("task:"))
    assert ref is not None
    runs.submit(ref, Revoked(task=ref.final, expired=False))
    assert lab.told() == ["queued", "cancelled"]
    assert not path.exists()


def test_a_slow_task_is_seen_moving(lab: Lab) -> None:
    lab.send("slow")
    assert lab.told() == ["queued", "started", "progress", "completed"]
    seen = [e["payload"]["done"] for e in lab.events() if e["type"].endswith("progress")]
    assert seen == sorted(seen)
    assert set(seen) == {0, 1, 2, 3, 4}


def test_odd_numbers_and_results_harm_nothing(lab: Lab) -> None:
    lab.send("odd_numbers")
    assert lab.told() == ["queued", "started", "progress", "completed"]
    assert (lab.last["good"], lab.last["percent"]) == (1, 100)
    assert "bad" not in lab.last and "worse" not in lab.last
    for event in lab.events():
        done, total = event["payload"].get("done"), event["payload"].get("total")
        assert done is None or (done >= 0 and (total is None or done <= total))
    assert list_runs(USER)[1][0].status == "completed"


def test_an_untracked_task_leaves_no_trace(lab: Lab) -> None:
    import tests.tracked_tasks  # noqa: F401

    assert lab.app.tasks["tests.untracked"].delay(4).get(timeout=DEADLINE_SECONDS) == 6
    assert lab.events() == []


def test_helpers_do_nothing_outside_of_a_worker() -> None:
    assert count(**WHO, number=4) == {"total": 6}
