"""Real workers with a short lease: who is taken for dead, and who is told to stop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tests.liveness_tasks as tasks
from shared import runs
from shared.facts import Started
from shared.run_states import list_runs
from shared.runs import RunRef
from tests.conftest import RunningRedis
from tests.integration.test_lifecycle import POOLS, SOURCE, USER, WHO, Lab
from tests.servers import celery_worker
from worker.reaper import Reaper

LEASE_SECONDS = 1


class Ward(Lab):
    """A lab with a reaper that looks as often as it can, and the worker's log."""

    def __init__(self, url: str, pool: str, log: list[str]) -> None:
        super().__init__(url, pool)
        self.reaper = Reaper(self.app)
        self.reaps = True
        self.log = log

    def wait_for(self, condition: Any) -> None:
        def looked() -> bool:
            if self.reaps:
                self.reaper.reap()
            return bool(condition())

        super().wait_for(looked)

    def send(self, name: str, **arguments: Any) -> str:
        return str(self.app.tasks[f"tests.{name}"].delay(**WHO, **arguments).id)

    def run(self) -> RunRef:
        """The one run."""
        pointers: Any = self.client.keys("run:*")
        ref = runs.run_of_id(pointers[0].decode().removeprefix("run:"))
        assert ref is not None
        return ref

    def lines(self, text: str) -> list[str]:
        return [line for line in list(self.log) if text in line]


@pytest.fixture(scope="module", params=list(POOLS))
def worker(request: pytest.FixtureRequest, redis_server: RunningRedis) -> Iterator[Ward]:
    redis_server.start()
    log: list[str] = []
    with celery_worker(
        redis_server.url,
        "postgresql://nobody@127.0.0.1:1/none",
        *POOLS[request.param],
        sink=lambda name, line: log.append(line),
        WORKER_IMPORTS="tests.liveness_tasks",
        INGEST_LEASE_SECONDS=str(LEASE_SECONDS),
        PYTHONPATH=str(Path(__file__).parents[2]),
    ):
        ward = Ward(redis_server.url, request.param, log)
        yield ward
        ward.app.close()


@pytest.fixture
def ward(worker: Ward, monkeypatch: pytest.MonkeyPatch) -> Ward:
    worker.settle()
    names = [name for kind in ("user", "task", "run", "open") for name in _names(worker, kind)]
    worker.client.delete(*names, "none")
    monkeypatch.setenv("REDIS_URL", worker.url)
    monkeypatch.setenv("INGEST_LEASE_SECONDS", str(LEASE_SECONDS))
    return worker


def _names(ward: Ward, kind: str) -> Any:
    return ward.client.keys(f"{kind}:*")


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("way", list(tasks.RELEASED))
def test_a_long_silent_task_is_not_taken_for_dead(ward: Ward, way: str) -> None:
    ward.send("silent", way=way, seconds=3 * LEASE_SECONDS)
    assert ward.told() == ["queued", "started", "completed"]


def test_c_code_that_holds_the_gil_for_long_is_taken_for_dead(ward: Ward) -> None:
    ward.send("silent", way="held", seconds=3 * LEASE_SECONDS)
    assert ward.told() == ["queued", "started", "failed"]
    assert ward.last["error"]["code"] == "worker_lost"


def test_a_frozen_process_is_taken_for_dead_and_stays_so(ward: Ward, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    ward.send("loop_early", path=str(path))
    ward.wait_for(lambda: tasks.read(path))
    began = time.monotonic()
    with frozen(int(tasks.read(path)[0])):
        ward.wait_for(lambda: ward.kinds()[-1] == "failed")
        assert time.monotonic() - began < LEASE_SECONDS + 5
        assert ward.last["error"]["code"] == "worker_lost"
    ward.wait_for(lambda: "Cancelled" in tasks.read(path))
    assert ward.told()[-1] == "failed"


def test_a_frozen_process_whose_message_may_come_again_is_stalled_until_it_wakes(
    ward: Ward, tmp_path: Path
) -> None:
    path = tmp_path / "marks"
    ward.send("loop_late", path=str(path))
    ward.wait_for(lambda: tasks.read(path))
    with frozen(int(tasks.read(path)[0])):
        ward.wait_for(lambda: ward.kinds()[-1] == "stalled")
        assert ward.last["reason"] == "worker_lost"
    ward.wait_for(lambda: ward.kinds()[-1] == "progress")
    assert list_runs(USER)[1][0].status == "running"
    runs.end(ward.run())
    assert ward.told()[-1] == "cancelled"


def test_a_zombies_words_count_for_nothing(ward: Ward, tmp_path: Path) -> None:
    """It wakes when another execution has its place."""
    path = tmp_path / "marks"
    task = ward.send("loop_late", path=str(path))
    ward.wait_for(lambda: tasks.read(path))
    ref = ward.run()
    with frozen(int(tasks.read(path)[0])):
        ward.wait_for(lambda: ward.kinds()[-1] == "stalled")
        fact = Started(task=task, nonce="other", retries=0, nesting=0, late=True, grace_ms=9)
        runs.submit(ref, fact)
    ward.wait_for(lambda: "Cancelled" in tasks.read(path))
    ward.settle()
    assert ward.kinds()[-1] == "started"
    assert ward.last["attempt"] == 2
    runs.end(ref)


@pytest.mark.parametrize("name", ["loop_early", "loop_late", "loop_asking"])
def test_a_cancelled_task_stops_and_is_no_failure(ward: Ward, tmp_path: Path, name: str) -> None:
    path = tmp_path / "marks"
    task = ward.send(name, path=str(path))
    ward.wait_for(lambda: tasks.read(path))
    runs.end(ward.run())
    assert ward.told()[-1] == "cancelled"
    ward.wait_for(lambda: tasks.read(path)[1:] == ["Cancelled"])
    said = "succeeded" if name == "loop_asking" else "ignored"
    ward.wait_for(lambda: said in ward.lines(task)[-1])
    assert ward.app.AsyncResult(task).state in ("PENDING", "SUCCESS")


@pytest.mark.parametrize("ending", ["completed", "failed", "retrying"])
def test_an_end_is_told_though_a_soft_time_limit_interrupts_its_report(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    if ward.pool != "prefork":
        pytest.skip("only prefork has soft time limits")
    monkeypatch.setattr(ward, "reaps", False)  # the limit is about as long as the lease
    path = tmp_path / "marks"
    ward.send("interrupted_end", ending=ending, path=str(path))
    told = ward.told()
    assert tasks.read(path) == ["SoftTimeLimitExceeded"]
    rest = ["retrying", "started", "completed"] if ending == "retrying" else [ending]
    assert told == ["queued", "started", *rest]


def test_a_forked_process_is_no_execution(ward: Ward) -> None:
    ward.send("forks")
    assert ward.told() == ["queued", "started", "completed"]
    assert ward.last["harmless"] is True


def test_log_lines_of_a_tracked_task_say_its_run(ward: Ward) -> None:
    task = ward.send("logs", fails=True)
    assert ward.told()[-1] == "failed"
    run = f" run={ward.run().run_id} source={SOURCE} user={USER}"
    for text in (
        "a line of a module's logger",
        "a line of a task's logger",
        "a line with a user of its own",
        "a line on standard output",
    ):
        assert ward.lines(text)[-1].endswith(text + run if "own" not in text else "mine")
    failure = ward.lines(task)[-1]
    assert "raised unexpected: RuntimeError('it fails')" in failure
    assert failure.endswith(run)
    assert ward.lines("RuntimeError: it fails")  # the traceback follows


def test_log_lines_of_other_tasks_say_none(ward: Ward) -> None:
    ward.app.tasks["tests.logs_untracked"].delay()
    ward.wait_for(lambda: ward.lines("a line of an untracked task"))
    assert ward.lines("a line of an untracked task")[-1].endswith("a line of an untracked task")
