"""Publishing to a real Redis: one event, batches, and from forked processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from celery.exceptions import SoftTimeLimitExceeded

from shared import keys
from shared.connections import app_redis, redis_client
from shared.outbox import Outbox, outbox
from shared.publisher import NewEvent, publish_user_event, publish_user_events
from shared.settings import get_settings
from shared.user_stream import STEP_BYTES, STEP_EVENTS, append_step, in_steps
from tests.conftest import RunningRedis

USER = "alice"

# On purpose: what happens to a child that is forked beside threads is what is tested.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


def rows(client: redis.Redis) -> list[Any]:
    found: Any = client.xrange(keys.stream(USER))
    return list(found)


def payloads(client: redis.Redis) -> list[Any]:
    return [json.loads(fields[b"e"])["payload"] for _, fields in rows(client)]


def numbered(count: int) -> list[NewEvent]:
    return [NewEvent("test.event", {"n": n}) for n in range(count)]


def in_child(work: Callable[[], object]) -> object:
    """What a forked child made of it; None for a child that hangs or fails."""
    receive, send = multiprocessing.get_context("fork").Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        try:
            send.send(work())
        finally:
            os._exit(0)
    answer: object = receive.recv() if receive.poll(20) else None
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    receive.close()
    send.close()
    return answer


def test_a_batch_is_journaled_in_order_and_gives_the_ids(client: redis.Redis) -> None:
    ids = publish_user_events(USER, numbered(100))
    assert ids == [row[0].decode() for row in rows(client)]
    assert payloads(client) == [{"n": n} for n in range(100)]


def test_a_batch_is_one_round_trip(client: redis.Redis) -> None:
    publish_user_events(USER, numbered(1))
    before: Any = client.info("stats")
    publish_user_events(USER, numbered(100))
    after: Any = client.info("stats")
    assert after["total_reads_processed"] - before["total_reads_processed"] == 2, "and INFO itself"


def test_each_event_of_a_batch_is_announced_as_if_it_came_alone(client: redis.Redis) -> None:
    with client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(keys.topic(USER))
        pubsub.get_message(timeout=5)
        publish_user_event(USER, "test.event", {})
        publish_user_events(USER, numbered(2))
        texts = [pubsub.get_message(timeout=5)["data"] for _ in range(3)]
    previous = b"0-0"
    for text, (entry_id, fields) in zip(texts, rows(client), strict=True):
        frame = b'id: %b\ndata: {"id":"%b",%b\n\n' % (entry_id, entry_id, fields[b"e"][1:])
        assert text == b"%b %b %b" % (previous, entry_id, frame)
        assert fields[b"p"] == previous
        previous = entry_id


def test_a_batch_whose_reply_was_lost_is_done_once_and_gives_the_same_ids(
    client: redis.Redis,
) -> None:
    step = append_step(get_settings(), USER, ['{"n":1}', '{"n":2}', '{"n":3}'])
    first = step.run(client)
    publish_user_event(USER, "test.event", {})
    assert step.run(client) == first
    assert len(first) == 3 and len(rows(client)) == 4


def test_a_batch_whose_beginning_was_trimmed_meanwhile_is_done_once(client: redis.Redis) -> None:
    step = append_step(get_settings(), USER, ['{"n":1}', '{"n":2}', '{"n":3}'])
    first = step.run(client)
    client.xtrim(keys.stream(USER), maxlen=1, approximate=False)
    assert step.run(client) == [b"", b"", first[2]]


def test_a_bad_event_of_a_batch_is_named_and_the_others_go(
    client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    events: Any = [("a.b", {"n": 0}), ("c.d", {"n": b"x"}), "nonsense", ("e.f", {"n": 3})]
    ids = publish_user_events(USER, events)
    assert [entry_id is not None for entry_id in ids] == [True, False, False, True]
    assert payloads(client) == [{"n": 0}, {"n": 3}]
    assert "event 1 of a batch, 'c.d' for user 'alice' refused" in caplog.text
    assert "bytes has no JSON form" in caplog.text
    assert "event 2 of a batch, 'nonsense'" in caplog.text


@dataclass
class Unset:
    """As a payload's own code that fails: this raises AttributeError."""

    field: int = field(init=False)


class Lazy(Mapping[str, Any]):
    """A payload that computes its members, and raises."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getitem__(self, key: str) -> Any:
        raise self._error

    def __iter__(self) -> Iterator[str]:
        return iter(["member"])

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    "payload", [{"x": Unset()}, Lazy(LookupError("no row")), {"x": Lazy(RuntimeError("no row"))}]
)
def test_a_payload_that_raises_is_logged_with_its_traceback_and_fails_no_task(
    client: redis.Redis, caplog: pytest.LogCaptureFixture, payload: Any
) -> None:
    assert publish_user_event(USER, "a.b", payload) is None
    assert "event 'a.b' for user 'alice' refused" in caplog.text
    assert "Traceback" in caplog.text
    ids = publish_user_events(USER, [NewEvent("a.b", payload), NewEvent("c.d", {"n": 1})])
    assert [entry_id is not None for entry_id in ids] == [False, True]
    assert payloads(client) == [{"n": 1}]


def test_a_time_limit_that_is_over_while_a_payload_is_encoded_is_the_tasks(
    client: redis.Redis,
) -> None:
    class Ours(SoftTimeLimitExceeded):
        pass

    for error in (SoftTimeLimitExceeded(), Ours()):
        with pytest.raises(SoftTimeLimitExceeded):
            publish_user_event(USER, "a.b", Lazy(error))
        with pytest.raises(SoftTimeLimitExceeded):
            publish_user_events(USER, [NewEvent("a.b", Lazy(error))])


def test_a_batch_that_is_too_much_for_one_step_goes_in_several(client: redis.Redis) -> None:
    ids = publish_user_events(USER, numbered(STEP_EVENTS + 1))
    assert len(set(ids)) == STEP_EVENTS + 1
    assert publish_user_events(USER, []) == []


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([1] * 3, [3]),
        ([1] * (STEP_EVENTS + 1), [STEP_EVENTS, 1]),
        ([STEP_BYTES, 1], [1, 1]),
        ([STEP_BYTES - 1, 1, 1], [2, 1]),
        ([2 * STEP_BYTES], [1]),
        ([], []),
    ],
)
def test_a_step_appends_so_many_events_and_bytes(sizes: list[int], parts: list[int]) -> None:
    assert [len(part) for part in in_steps(["x" * size for size in sizes])] == parts


def test_nothing_is_published_with_push_turned_off(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENABLE_SSE_PUSH", "false")
    get_settings.cache_clear()
    assert publish_user_events(USER, numbered(2)) == [None, None]
    assert rows(client) == []


def test_a_child_that_is_forked_while_a_lock_is_held_publishes_all_the_same(
    client: redis.Redis,
) -> None:
    publish_user_event(USER, "test.event", {"n": 0})
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        pool = redis_client(get_settings().require_redis_url()).connection_pool
        with outbox()._lock, pool._lock:
            held.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    answer = in_child(lambda: publish_user_event(USER, "test.event", {"n": 1}))
    release.set()
    thread.join()
    assert isinstance(answer, str)
    assert payloads(client) == [{"n": 0}, {"n": 1}]


def test_a_child_leaves_what_waits_to_its_parent(
    client: redis.Redis, redis_server: RunningRedis
) -> None:
    redis_server.stop()
    assert publish_user_event(USER, "test.event", {"n": "of the parent"}) is None
    redis_server.start()

    def publish() -> object:
        publish_user_event(USER, "test.event", {"n": "of the child"})
        outbox().close()
        return len(outbox())

    assert in_child(publish) == 0
    assert payloads(client) == [{"n": "of the child"}]
    outbox().close()
    assert payloads(client) == [{"n": "of the child"}, {"n": "of the parent"}]


def test_a_child_has_a_socket_of_its_own(client: redis.Redis) -> None:
    publish_user_event(USER, "test.event", {})
    mine = app_redis().client_id()
    assert in_child(lambda: app_redis().client_id()) not in (None, mine)
    assert app_redis().client_id() == mine, "and its end closes nothing here"


def test_what_waits_is_bounded_in_bytes(client: redis.Redis, redis_server: RunningRedis) -> None:
    redis_server.stop()
    box = Outbox(app_redis, limit_bytes=5000)
    for n in range(10):
        box.send(append_step(get_settings(), USER, [str(n) * 1000]))
    assert [step.args[-1][0] for step in box._pending] == ["6", "7", "8", "9"]
    assert box.lost == 6
