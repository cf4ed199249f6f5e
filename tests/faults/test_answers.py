"""Answers whose writer is killed, or loses one of its servers, in the midst of them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from celery import Celery

from shared import answers, errors
from shared.message_announcer import Announcer
from shared.messages import begin_attempt, create_message, end_stale
from shared.migrate import migrate
from shared.settings import get_settings
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.journals import USER, Connection, events, journal, kinds, numbers, state
from tests.servers import celery_worker, environment
from worker.cli import postgres_server as server_module
from worker.cli.embedded import wait_until_answering
from worker.cli.postgres_server import PostgresServer
from worker.message_reaper import MessageReaper

STALE_SECONDS = 1
SCRIPT = """
import sys, time
from shared.answers import answer
with answer(sys.argv[1], "alice") as a:
    for n in range(1_000_000):
        a.emit("answer", {"n": n})
        time.sleep(0.001)
"""
# Forked while the parent writes, and not while it connects: OpenSSL's locks are no concern of ours.
FORKING = """
import os, sys, threading
from shared.answers import answer

def write(message_id, count, begin=lambda: None):
    with answer(message_id, "alice") as a:
        a.emit("answer", {"n": 0})
        a._flusher.pending.wait_until_written(30)
        begin()
        for n in range(1, count):
            a.emit("answer", {"n": n})

begun = threading.Barrier(5)
writers = [threading.Thread(target=write, args=(one, 5000, begun.wait)) for one in sys.argv[1:5]]
for writer in writers:
    writer.start()
begun.wait()
children = []
for one in sys.argv[5:]:
    child = os.fork()
    if not child:
        write(one, 100)
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
for writer in writers:
    writer.join()
"""


@pytest.fixture
def connection(
    redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Connection]:
    with journal(monkeypatch, redis_url, database_url) as opened:
        yield opened


def write(message_id: str, count: int) -> float:
    """Writes an answer; returns the seconds."""
    began = time.monotonic()
    with answers.answer(message_id, USER) as a:
        for n in range(count):
            a.emit("answer", {"n": n})
    return time.monotonic() - began


@pytest.mark.parametrize("on_redelivery", ["skip", "restart"])
def test_a_killed_writers_answer_ends_once_and_its_next_attempt_does_as_was_chosen(
    connection: Connection,
    redis_url: str,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    on_redelivery: Any,
) -> None:
    message_id = str(uuid4())
    env = environment(REDIS_URL=redis_url, DATABASE_URL=database_url)
    with subprocess.Popen([sys.executable, "-c", SCRIPT, message_id], env=env) as writer:
        wait_until(lambda: len(events(connection, message_id)) > 100, "some of it")
        writer.kill()
    monkeypatch.setenv("MESSAGE_STALE_SECONDS", str(STALE_SECONDS))
    get_settings.cache_clear()
    reapers = [MessageReaper() for _ in range(4)]
    found: list[int] = []

    def reap() -> bool:
        threads = [threading.Thread(target=lambda r=r: found.append(r.reap())) for r in reapers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(found) > 0

    wait_until(reap, "its end")
    assert sum(found) == 1
    told = events(connection, message_id)
    assert numbers(told) == list(range(len(told) - 1))
    assert told[-1]["code"] == "producer_lost"
    if on_redelivery == "skip":
        with pytest.raises(errors.MessageFinished), answers.answer(message_id, USER):
            raise AssertionError("its body runs")
        assert events(connection, message_id) == told
    else:
        with answers.answer(message_id, USER, "restart") as a:
            a.emit("answer", {"n": 0})
        assert kinds(connection, message_id)[len(told) :] == ["restart", "answer", "end"]


@pytest.mark.parametrize("on_redelivery", ["skip", "restart"])
def test_a_killed_workers_task_comes_again_and_goes_on(
    connection: Connection, redis_url: str, database_url: str, on_redelivery: str
) -> None:
    message_id = create_message(connection, USER)
    tasks: dict[str, Any] = {
        "WORKER_IMPORTS": "tests.answer_tasks",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    app = Celery(broker=redis_url, backend=redis_url, set_as_current=False)
    with celery_worker(redis_url, database_url, "--concurrency", "1", **tasks):
        app.send_task("tests.dies_once", args=(message_id, USER, on_redelivery))
        wait_until(lambda: state(connection, message_id).status == "finished", "its end")
    app.close()
    restart = ["restart"] if on_redelivery == "restart" else []
    assert kinds(connection, message_id) == ["answer"] * 3 + restart + ["answer"] * 3 + ["end"]
    assert state(connection, message_id).attempt == 2


def test_lost_connections_lose_and_double_nothing(
    connection: Connection, database_url: str
) -> None:
    """Sessions are ended at random moments: nobody knows then what was committed."""
    ids = [str(uuid4()) for _ in range(3)]
    done = threading.Event()

    def slowly(message_id: str) -> None:
        with answers.answer(message_id, USER) as a:
            for n in range(3000):
                a.emit("answer", {"n": n})
                if n % 10 == 0:
                    time.sleep(0.005)

    def cut() -> None:
        with psycopg.connect(database_url, autocommit=True) as own:
            while not done.wait(random.uniform(0.02, 0.1)):
                own.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'eventstream-flusher'"
                )

    cutter = threading.Thread(target=cut)
    writers = [threading.Thread(target=slowly, args=(one,)) for one in ids]
    for thread in (cutter, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    cutter.join()
    for message_id in ids:
        assert numbers(events(connection, message_id)) == list(range(3000))
        assert kinds(connection, message_id)[-1] == "end"


def check_that_silence_counts_from_the_start(url: str, message_id: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT extract(epoch FROM now() - heartbeat_at)::float,"
            " extract(epoch FROM now() - pg_postmaster_start_time())::float"
            " FROM messages WHERE id = %s",
            (message_id,),
        ).fetchone()
        assert row is not None
        silent_seconds, up_seconds = row
        assert end_stale(connection, (silent_seconds + up_seconds) / 2, message_id) == []
        assert len(end_stale(connection, 0, message_id)) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_postgres_that_is_restarted_or_crashes_loses_and_doubles_nothing(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tmp_path.chmod(0o755)
    server = PostgresServer(tmp_path, "secret")
    server.launch()
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    try:
        wait_until_answering(server)
        migrate(server.url)
        message_id = str(uuid4())
        with journal(monkeypatch, redis_url, server.url) as connection:
            silent = begin_attempt(connection, USER, create_message(connection, USER)).message_id
            with answers.answer(message_id, USER) as a:
                for n in range(2000):
                    a.emit("answer", {"n": n})
                    if n == 1000:
                        os.kill(server.child.pid, number)
                        wait_until(lambda: not server.child.running, "its end")
                        monkeypatch.setattr(server_module, "free_port", lambda: port)
                    if n == 1200:
                        server.launch()
                        wait_until_answering(server)
                        check_that_silence_counts_from_the_start(server.url, silent)
        with psycopg.connect(server.url, autocommit=True) as connection:
            assert numbers(events(connection, message_id)) == list(range(2000))
            assert kinds(connection, message_id)[-1] == "end"
    finally:
        server.child.kill()


def test_an_answer_is_written_as_fast_while_redis_is_away(
    connection: Connection, redis_server: RunningRedis, caplog: pytest.LogCaptureFixture
) -> None:
    usual = write(str(uuid4()), 3000)
    redis_server.stop()
    message_id = str(uuid4())
    assert write(message_id, 3000) < 2 * usual + 0.5
    assert numbers(events(connection, message_id)) == list(range(3000))
    assert caplog.text.count("are not announced") == 1


def test_a_redis_that_hangs_is_asked_rarely(
    connection: Connection, redis_server: RunningRedis
) -> None:
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        announcer = Announcer()
        began = time.monotonic()
        while time.monotonic() - began < 3:
            announcer.announce([("message:1", b"-1 0 x")])
            time.sleep(0.001)
        took = []
        for _ in range(3):
            began = time.monotonic()
            announcer.announce([("message:1", b"-1 0 x")])
            took.append(time.monotonic() - began)
        assert min(took) < 0.1
        message_id = str(uuid4())
        assert write(message_id, 3000) < 5
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    assert numbers(events(connection, message_id)) == list(range(3000))


def test_children_that_are_forked_under_load_share_nothing(
    connection: Connection, redis_url: str, database_url: str
) -> None:
    ids = [str(uuid4()) for _ in range(20)]
    env = environment(REDIS_URL=redis_url, DATABASE_URL=database_url)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, *ids],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for message_id in ids[:4]:
        assert numbers(events(connection, message_id)) == list(range(5000))
    for message_id in ids[4:]:
        assert numbers(events(connection, message_id)) == list(range(100))


def test_a_script_that_ends_in_the_midst_of_a_flush_loses_nothing(
    connection: Connection, redis_url: str, database_url: str
) -> None:
    message_id = str(uuid4())
    program = (
        "import sys\nfrom shared.answers import answer\n"
        "block = answer(sys.argv[1], 'alice')\na = block.__enter__()\n"
        "for n in range(500): a.emit('answer', {'n': n})\n"
    )
    env = environment(REDIS_URL=redis_url, DATABASE_URL=database_url)
    subprocess.run([sys.executable, "-c", program, message_id], env=env, check=True, timeout=60)
    assert numbers(events(connection, message_id)) == list(range(500))


def test_a_reaper_without_a_database_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MessageReaper().reap() == 0
