"""Redis stops and comes back while events are published and streams are open."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest
import redis

from shared import keys, runs
from shared.connections import redis_client
from shared.errors import RedisUnavailable
from shared.facts import Progress, Report, Started, Succeeded
from shared.outbox import Outbox, outbox
from shared.publisher import publish_user_event
from shared.scripts import script
from shared.settings import get_settings
from shared.steps import Priority, Step
from shared.user_stream import append_step
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.servers import web_server
from tests.sse import watch

USER = "local"


@pytest.fixture
def server(
    redis_url: str, redis_server: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> RunningRedis:
    monkeypatch.setenv("REDIS_URL", redis_url)
    return redis_server


def publish_when_back(payload: dict[str, Any]) -> None:
    publish_user_event(USER, "test.event", payload)
    wait_until(lambda: outbox().flush() == 0, "delivered")


def stored(url: str, *, whole: bool = False) -> list[Any]:
    rows: Any = redis.Redis.from_url(url).xrange(keys.stream(USER))
    events = [json.loads(fields[b"e"]) for _, fields in rows]
    return events if whole else [event["payload"] for event in events]


def test_events_wait_in_order_while_redis_is_away(server: RunningRedis) -> None:
    publish_user_event(USER, "test.event", {"n": 0})
    server.stop()
    for n in range(1, 4):
        assert publish_user_event(USER, "test.event", {"n": n}) is None
    assert len(outbox()) == 3
    server.start()
    deadline = time.monotonic() + 10
    while outbox().flush():
        assert time.monotonic() < deadline
    assert [p["n"] for p in stored(server.url)][-3:] == [1, 2, 3]


def test_publishing_never_holds_up_a_task_for_long(server: RunningRedis) -> None:
    server.stop()
    began = time.monotonic()
    for n in range(200):
        publish_user_event(USER, "test.event", {"n": n})
    assert time.monotonic() - began < 5, "the circuit is open: most don't even try"
    server.start()
    publish_when_back({"n": -1})


def test_a_step_that_can_never_be_sent_does_not_block_the_others(server: RunningRedis) -> None:
    box = Outbox(lambda: redis_client(server.url))
    assert box.send(Step(script("append"), ["\ud800"], [])) is None
    assert box.send(append_step(get_settings(), USER, ['{"type":"t"}'])) is not None
    assert (len(box), box.lost) == (0, 1)


def test_what_redis_refuses_for_now_waits(server: RunningRedis) -> None:
    client = redis_client(server.url)
    box = Outbox(lambda: client)
    client.config_set("maxmemory", "1")
    assert box.send(append_step(get_settings(), USER, ['{"type":"t"}'])) is None
    client.config_set("maxmemory", "0")
    deadline = time.monotonic() + 10
    while box.flush():
        assert time.monotonic() < deadline
    assert (len(stored(server.url, whole=True)), box.lost) == (1, 0)


def test_a_hanging_redis_is_tried_once_a_second(server: RunningRedis) -> None:
    publish_user_event(USER, "test.event", {"n": 0})
    os.kill(server.pid, signal.SIGSTOP)
    began = time.monotonic()
    for n in range(60):
        publish_user_event(USER, "test.event", {"n": n})
    took = time.monotonic() - began
    os.kill(server.pid, signal.SIGCONT)
    assert took < 10, "each try alone takes a quarter of a second"
    publish_when_back({"n": -1})


def test_a_repeated_append_whose_reply_was_lost_is_done_once(server: RunningRedis) -> None:
    client = redis_client(server.url)
    step = append_step(get_settings(), USER, ['{"type":"t","payload":{"n":1}}'])
    assert step.run(client) == step.run(client)
    assert len(stored(server.url)) == 1


def test_a_full_outbox_drops_progress_first_and_ends_last(server: RunningRedis) -> None:
    server.stop()
    box = Outbox(lambda: redis_client(server.url), limit=4)
    ends = [Step(script("append"), ["k"], [], Priority.TERMINAL) for _ in range(3)]
    for step in [*ends[:2], Step(script("append"), ["k"], [], Priority.PROGRESS), ends[2]]:
        box.send(step)
    box.send(Step(script("append"), ["k"], [], Priority.NORMAL))
    kept = [step.priority for step in box._pending]
    assert kept == [Priority.TERMINAL] * 3 + [Priority.NORMAL]
    assert box.lost == 1
    server.start()


def test_a_run_whose_end_had_to_wait_still_ends(server: RunningRedis) -> None:
    ref = runs.new_run(USER, "s", "s", final="T")
    runs.accept(ref)
    runs.submit(ref, Started(task="T", nonce="n", retries=0, nesting=0, late=True, grace_ms=1000))
    server.stop()
    assert runs.submit(ref, Progress(task="T", nonce="n", reports=[Report("a", 1, 2)])) is None
    assert runs.submit(ref, Succeeded(task="T", nonce="n")) is None
    with pytest.raises(RedisUnavailable):
        runs.accept(runs.new_run(USER, "t", "t", final="U"))
    server.start()
    deadline = time.monotonic() + 10
    while outbox().flush():
        assert time.monotonic() < deadline
    rows: Any = redis.Redis.from_url(server.url).xrange(keys.stream(USER))
    assert json.loads(rows[-1][1][b"e"])["type"] == "source.ingest.completed"


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_open_streams_outlive_redis_and_are_told_what_it_lost(
    server: RunningRedis, how: str
) -> None:
    with web_server("asgi", server.url, SSE_KEEPALIVE_SECONDS="0.5") as web:
        publish_user_event(USER, "test.event", {"n": 0})
        with watch(web.url, "0") as reader:
            assert reader.events(1)[0]["payload"]["n"] == 0
            getattr(server, how)()
            server.start()
            survived = len(stored(server.url))
            publish_when_back({"n": 1})
            event = reader.events(1)[0]
            if event["type"] == "backlog.truncated":
                assert not survived and event["payload"]["reason"] == "journal_reset"
                event = reader.events(1)[0]
            assert event["payload"]["n"] == 1
