"""What waits for Redis: how long it may hold up a call, and what becomes of it at the end."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import redis

from shared import keys
from shared.connections import redis_client
from shared.outbox import DRAIN_SECONDS, Outbox
from shared.scripts import script
from shared.settings import get_settings
from shared.steps import Priority, Step
from shared.user_stream import append_step
from tests.conftest import RunningRedis
from tests.servers import environment
from tests.slow_redis import SlowRedis

USER = "alice"

SCRIPT = """
import logging, sys
logging.basicConfig()
from shared.publisher import publish_user_event
for n in range(3):
    publish_user_event("alice", "test.event", {"n": n})
print("published", flush=True)
sys.stdin.readline()
"""


class InterruptedRedis:
    """A client that does a step, and whose caller's time is over then."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def execute_command(self, *args: Any) -> Any:
        self._client.eval(script("append").text, *args[2:])
        raise TimeIsOver


class TimeIsOver(Exception):
    """As Celery's SoftTimeLimitExceeded: raised in whatever a task is doing."""


def step() -> Step:
    return append_step(get_settings(), USER, ['{"type":"t"}'])


def length(url: str) -> int:
    found: Any = redis.Redis.from_url(url).xlen(keys.stream(USER))
    return int(found)


def test_a_long_backlog_does_not_hold_up_a_send(redis_url: str, redis_server: RunningRedis) -> None:
    client: Any = redis_client("redis://127.0.0.1:1")
    box = Outbox(lambda: client)
    for _ in range(50):
        box.send(step())
    client, box._closed_until = SlowRedis(redis_client(redis_url), 0.01), 0.0
    assert box.send(step()) is None, "it waits behind the others"
    assert 50 - DRAIN_SECONDS / 0.01 <= len(box) <= 50, "a tenth of a second, not all of them"
    while box.flush():
        pass
    assert length(redis_url) == 51


def test_a_step_that_is_dropped_for_others_gets_no_reply_of_theirs(
    redis_url: str, redis_server: RunningRedis
) -> None:
    client: Any = redis_client("redis://127.0.0.1:1")
    box = Outbox(lambda: client, limit=2)
    for _ in range(2):
        box.send(step())
    client, box._closed_until = redis_client(redis_url), 0.0
    assert box.send(dataclasses.replace(step(), priority=Priority.PROGRESS)) is None
    assert (len(box), box.lost, length(redis_url)) == (0, 1, 2)


def test_a_step_behind_others_gets_its_own_reply(
    redis_url: str, redis_server: RunningRedis
) -> None:
    client: Any = redis_client("redis://127.0.0.1:1")
    box = Outbox(lambda: client)
    box.send(step())
    client, box._closed_until = redis_client(redis_url), 0.0
    rows: Any = redis.Redis.from_url(redis_url)
    assert box.send(step()) == [rows.xrevrange(keys.stream(USER), count=1)[0][0]]


def test_a_time_limit_that_is_over_during_a_send_ends_the_task_and_doubles_nothing(
    redis_url: str,
) -> None:
    client: Any = InterruptedRedis(redis_client(redis_url))
    box = Outbox(lambda: client)
    with pytest.raises(TimeIsOver):
        box.send(step())
    assert len(box) == 1, "it may have been done or not"
    client = redis_client(redis_url)
    assert box.flush() == 0
    assert length(redis_url) == 1


def run_script(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=environment(REDIS_URL=url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_script_that_ends_delivers_what_waits(redis_url: str, redis_server: RunningRedis) -> None:
    redis_server.stop()
    with run_script(redis_url) as process:
        assert process.stdout is not None and process.stdout.readline() == "published\n"
        redis_server.start()
        _, errors = process.communicate("\n", timeout=60)
    assert "lost" not in errors
    assert length(redis_url) == 3


def test_a_script_that_ends_while_redis_is_away_says_what_is_lost(
    redis_url: str, redis_server: RunningRedis
) -> None:
    redis_server.stop()
    with run_script(redis_url) as process:
        assert process.stdout is not None and process.stdout.readline() == "published\n"
        began = time.monotonic()
        _, errors = process.communicate("\n", timeout=60)
    assert time.monotonic() - began < 20
    assert "3 steps are lost" in errors and "user:{alice}:stream (3)" in errors
    redis_server.start()


def test_a_hanging_redis_does_not_keep_a_script_from_ending(
    redis_url: str, redis_server: RunningRedis
) -> None:
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        with run_script(redis_url) as process:
            began = time.monotonic()
            _, errors = process.communicate("\n", timeout=60)
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    assert time.monotonic() - began < 20
    assert "3 steps are lost" in errors


def test_a_log_handler_that_publishes_does_not_go_round_in_circles(redis_url: str) -> None:

    box = Outbox(lambda: redis_client(redis_url))

    class Publishing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            box.send(step())

    handler, log = Publishing(), logging.getLogger("shared.outbox")
    log.addHandler(handler)
    try:
        assert box.send(Step(script("append"), ["\ud800"], [])) is None
    finally:
        log.removeHandler(handler)
    assert (len(box), box.lost, length(redis_url)) == (0, 1, 1)
