"""`eventstream dev` is killed, and started again on the same folder."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis
from celery import Celery

from tests.commands import Command, alive, eventstream, wait_until
from worker.cli.embedded import free_port

# Waits for a key of Redis, and counts how often it was begun.
SLOW_TASKS = """
import os, time
import redis
from celery import shared_task

@shared_task(name="slow.wait")
def wait() -> None:
    client = redis.Redis.from_url(os.environ["REDIS_URL"])
    client.incr("begun")
    while not client.exists("go"):
        time.sleep(0.02)
    client.incr("done")
"""


class Stack:
    """A running `eventstream dev`."""

    def __init__(self, command: Command, data: Path) -> None:
        self.command = command
        command.wait_for("ready http")
        self.place: dict[str, Any] = json.loads((data / "stack.json").read_text())
        self.processes = command.descendants()
        self.redis = redis.Redis.from_url(self.place["redis_url"])

    def publish(self) -> None:
        with closing(Celery("team", broker=self.place["redis_url"], set_as_current=False)) as app:
            app.send_task("slow.wait")

    def count(self, key: str) -> int:
        value: Any = self.redis.get(key)
        return int(value or 0)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "slow_tasks.py").write_text(SLOW_TASKS)
    yield tmp_path


def dev(folder: Path) -> Any:
    data = str(folder / "data")
    port = str(free_port())
    return eventstream(
        "dev", "--data", data, "--port", port, cwd=folder, WORKER_IMPORTS="slow_tasks"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next start sweeps")
def test_nothing_runs_on_when_it_is_killed(folder: Path) -> None:
    with dev(folder) as command:
        stack = Stack(command, folder / "data")
        assert len(stack.processes) > 5
        command.send(signal.SIGKILL)
        wait_until(lambda: not alive(stack.processes), "the end of all children")


def test_after_a_kill_it_starts_again_and_goes_on_where_it_was(folder: Path) -> None:
    with dev(folder) as command:
        before = Stack(command, folder / "data")
        before.redis.set("kept", 1)
        with psycopg.connect(before.place["database_url"]) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        before.publish()
        wait_until(lambda: before.count("begun"), "the begin of the task")
        command.send(signal.SIGKILL)
        command.wait()
    with dev(folder) as command:
        after = Stack(command, folder / "data")
        assert not alive(before.processes)
        assert after.count("kept") == 1
        with psycopg.connect(after.place["database_url"]) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (1,)
        wait_until(lambda: after.count("begun") == 2, "the second begin of the task")
        after.redis.set("go", 1)
        wait_until(lambda: after.count("done"), "the end of the task")
        assert after.count("done") == 1


def test_what_a_killed_owner_left_running_is_ended_at_the_next_start(folder: Path) -> None:
    """As on a system without parent-death signals, or when one process hangs."""
    data = folder / "data"
    data.mkdir()
    with dev(folder) as command:
        Stack(command, data)
        command.send(signal.SIGTERM)
        assert command.wait() == 0
    with psutil.Popen([sys.executable, "-c", "input()"], stdin=-1, start_new_session=True) as left:
        rows = [["worker", left.pid, left.create_time()], ["web", left.pid, 1.0]]
        (data / "procs.json").write_text(json.dumps(rows))
        with dev(folder) as command:
            Stack(command, data)
            assert left.wait(5) == -signal.SIGKILL


def test_a_process_that_only_has_the_same_id_is_left_alone(folder: Path) -> None:
    data = folder / "data"
    data.mkdir()
    with psutil.Popen([sys.executable, "-c", "input()"], stdin=-1, start_new_session=True) as other:
        (data / "procs.json").write_text(json.dumps([["worker", other.pid, 1.0]]))
        with dev(folder) as command:
            Stack(command, data)
            assert other.is_running()
        other.kill()
