"""What a stream promises where others have failed, on both faces: order, time, and its own end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import httpx
import pytest
import redis
from redis.client import PubSub

from shared import keys
from shared.outbox import Outbox
from shared.pages import Status
from shared.publisher import publish_user_event
from shared.settings import get_settings
from shared.user_stream import append_step
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.servers import WebServer, web_server
from tests.signing import SECRET, hs256
from tests.sse import watch
from web.delivery import Delivery
from web.topic import Topic
from web.user_journal import UserJournal

USER = "local"
NO_LIMITS = {"SSE_MAX_CONCURRENT_PER_USER": "0", "EVENTS_REPLAY_BUDGET_REQUESTS_PER_WINDOW": "0"}
AN_HOUR = {"SSE_KEEPALIVE_SECONDS": "3600"}


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(face: str, redis_server: RunningRedis) -> Iterator[WebServer]:
    """Where no timer helps: what is not sent at once is never sent."""
    with web_server(face, redis_server.url, **NO_LIMITS, **AN_HOUR) as server:
        yield server


def publish(n: int) -> str:
    entry_id = publish_user_event(USER, "test.event", {"n": n})
    assert entry_id is not None
    return entry_id


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["payload"]["n"] for event in events]


@contextmanager
def announcements(client: redis.Redis) -> Iterator[PubSub]:
    """A subscription to what is announced to the user."""
    subscription: PubSub = client.pubsub(  # type: ignore[no-untyped-call]
        ignore_subscribe_messages=True
    )
    with closing(subscription):
        subscription.subscribe(keys.topic(USER))
        subscription.get_message(timeout=5)
        yield subscription


def test_a_replay_waits_for_no_timer(client: redis.Redis, server: WebServer) -> None:
    publish(0)
    with watch(server.url, "0") as reader:
        assert numbers(reader.events(1)) == [0]
        publish(1)
        assert numbers(reader.events(1)) == [1]


def test_what_several_publishers_announce_is_announced_in_the_order_of_the_journal(
    client: redis.Redis,
) -> None:
    def publish_fifty(_: int) -> None:
        with redis.Redis.from_url(get_settings().require_redis_url()) as own:
            box = Outbox(lambda: own)
            for _ in range(50):
                assert box.send(append_step(get_settings(), USER, ['{"type":"t"}']))

    with announcements(client) as subscription:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(publish_fifty, range(6)))
        announced = [subscription.get_message(timeout=5) for _ in range(300)]
    parts = [message["data"].split(b" ", 2) for message in announced if message]
    rows: Any = client.xrange(keys.stream(USER))
    assert [entry_id for _, entry_id, _ in parts] == [entry_id for entry_id, _ in rows]
    assert [prev for prev, _, _ in parts] == [b"0-0", *[entry_id for entry_id, _ in rows[:-1]]]


def test_an_announcement_that_is_repeated_or_old_is_no_second_event(
    client: redis.Redis, server: WebServer
) -> None:
    with announcements(client) as subscription, watch(server.url, "0") as reader:
        for n in range(3):
            publish(n)
        assert numbers(reader.events(3)) == [0, 1, 2]
        said = [subscription.get_message(timeout=5) for _ in range(3)]
        for message in said:
            assert message is not None
            client.publish(keys.topic(USER), message["data"])
        publish(3)
        assert numbers(reader.events(1)) == [3]


@pytest.mark.parametrize("junk", [b"%b zzz x", b"%b 9 x", b" a b", b"0-0 99999999999999-0 x"])
def test_what_a_stranger_announces_costs_no_event(
    client: redis.Redis, server: WebServer, junk: bytes
) -> None:
    with watch(server.url, "0") as reader:
        last = publish(0)
        reader.events(1)
        client.publish(keys.topic(USER), junk.replace(b"%b", last.encode()))
        for n in range(1, 4):
            publish(n)
        assert numbers(reader.events(3)) == [1, 2, 3]


def test_trimming_while_a_client_reads_is_never_silent(client: redis.Redis, face: str) -> None:
    """The journal is so short that it is trimmed all the time; a hole has its notice."""
    stopped = threading.Event()
    settings = get_settings().model_copy(update={"events_stream_maxlen": 100})
    published = 0

    def run() -> None:
        nonlocal published
        box = Outbox(lambda: client)
        while not stopped.is_set():
            body = f'{{"type":"test.event","payload":{{"n":{published}}}}}'
            assert box.send(append_step(settings, USER, [body]))
            published += 1

    publisher = threading.Thread(target=run)
    publisher.start()
    notices, last, cursor = 0, -1, "0"
    few = {"EVENTS_REPLAY_MAX_PER_REQUEST": "20"}
    try:
        with web_server(face, get_settings().require_redis_url(), **NO_LIMITS, **few) as web:
            while notices < 5:
                told = False
                with watch(web.url, cursor) as reader:
                    for block in reader.rest():
                        event = block.event
                        if event and event["type"] == "backlog.truncated":
                            assert event["payload"]["reason"] == "trimmed"
                            cursor, told = event["payload"]["cursor"], True
                            notices += 1
                        elif event:
                            n = event["payload"]["n"]
                            assert n > last + 1 if told else n == last + 1
                            last, cursor, told = n, event["id"], False
                goal = published + 250
                wait_until(lambda goal=goal: published > goal, "more")  # type: ignore[misc]
    finally:
        stopped.set()
        publisher.join()


def test_whether_a_cursor_stands_is_checked_in_the_step_that_reads(client: redis.Redis) -> None:
    """What the cursor stands on is trimmed all the time; a page that follows on it has no hole."""
    stopped = threading.Event()

    def run() -> None:
        box, n = Outbox(lambda: client), 0
        while not stopped.is_set():
            body = f'{{"type":"test.event","payload":{{"n":{n}}}}}'
            assert box.send(append_step(get_settings(), USER, [body]))
            client.xtrim(keys.stream(USER), maxlen=3, approximate=False)
            n += 1

    async def read() -> int:
        delivery = Delivery(get_settings())
        journal = UserJournal(delivery.hub, USER)
        tip = Topic(journal)
        followed = 0
        for _ in range(1000):
            oldest = await journal.read_after("0-0", 1, tip)
            page = await journal.read_after(oldest.end, 10, tip)
            if page.status is Status.OK and page.number:
                assert number_in(page.frames) == number_in(oldest.frames) + 1
                followed += 1
        await delivery.aclose()
        return followed

    publish(-1)
    publisher = threading.Thread(target=run)
    publisher.start()
    try:
        assert asyncio.run(read()) > 0, "else nothing was checked"
    finally:
        stopped.set()
        publisher.join()


def number_in(frames: bytes) -> int:
    """The number in the first of them."""
    return int(frames.partition(b'"n":')[2].partition(b"}")[0])


def test_what_came_while_a_connection_was_lost_needs_no_later_event(
    client: redis.Redis, server: WebServer
) -> None:
    with watch(server.url, "0") as reader:
        reader.block()
        for n in range(5):
            wait_until(lambda: client.client_kill_filter(_type="pubsub"), "a connection to cut")
            publish(n)
            assert numbers(reader.events(1)) == [n]


def test_a_stream_ends_with_its_token(client: redis.Redis, face: str) -> None:
    signed_in = {"AUTH_TYPE": "jwt", "JWT_SECRET_KEY": SECRET, "SSE_KEEPALIVE_SECONDS": "1"}
    with web_server(face, get_settings().require_redis_url(), **signed_in) as web:
        token = hs256(USER, ends_in=3)
        with watch(web.url, Authorization=f"Bearer {token}") as reader:
            assert reader.response.status_code == 200
            *_, last_but_one, last = reader.rest()
        assert last_but_one.raw == ": token_expired"
        assert "retry" in last.fields
        wait_until(lambda: client.zcard(keys.connections(USER)) == 0, "its lease, given back")


def test_a_stream_is_not_silent_while_redis_is_away(
    client: redis.Redis, face: str, redis_server: RunningRedis
) -> None:
    with (
        web_server(face, redis_server.url, SSE_KEEPALIVE_SECONDS="0.3") as web,
        watch(web.url) as reader,
    ):
        for _ in range(3):
            reader.block()
        redis_server.stop()
        try:
            assert [reader.block().raw for _ in range(5)] == [": keepalive"] * 5
        finally:
            redis_server.start()


def test_a_stream_is_not_silent_while_redis_is_there_and_refuses_to_read(
    client: redis.Redis, face: str
) -> None:
    with (
        web_server(face, get_settings().require_redis_url(), SSE_KEEPALIVE_SECONDS="0.3") as web,
        watch(web.url) as reader,
    ):
        for _ in range(3):
            reader.block()
        client.config_set("replica-serve-stale-data", "no")
        client.replicaof("127.0.0.1", "1")
        try:
            assert [reader.block().raw for _ in range(8)] == [": keepalive"] * 8
        finally:
            client.replicaof("NO", "ONE")
            client.config_set("replica-serve-stale-data", "yes")
        publish(1)
        assert numbers(reader.events(1)) == [1]


def test_old_announcements_do_not_pass_for_keepalives(client: redis.Redis, face: str) -> None:
    stopped = threading.Event()

    def repeat(message: bytes) -> None:
        while not stopped.wait(0.05):
            client.publish(keys.topic(USER), message)

    with (
        announcements(client) as subscription,
        web_server(face, get_settings().require_redis_url(), SSE_KEEPALIVE_SECONDS="0.5") as web,
        watch(web.url, "0") as reader,
    ):
        publish(0)
        reader.events(1)
        message = subscription.get_message(timeout=5)
        assert message is not None
        stranger = threading.Thread(target=repeat, args=(message["data"],))
        stranger.start()
        try:
            assert reader.block().raw == ": keepalive"
        finally:
            stopped.set()
            stranger.join()


@pytest.mark.parametrize("when", ["at the start", "live"])
def test_a_key_of_another_type_ends_a_stream_and_is_logged(
    client: redis.Redis, face: str, when: str
) -> None:
    url = get_settings().require_redis_url()
    with web_server(face, url, SSE_KEEPALIVE_SECONDS="0.5") as web:
        if when == "live":
            publish(0)
            with watch(web.url, "0") as reader:
                reader.events(1)
                client.delete(keys.stream(USER))
                client.set(keys.stream(USER), "not a stream")
                began = time.monotonic()
                with pytest.raises((httpx.TransportError, StopIteration)):
                    while time.monotonic() - began < 8:
                        assert "id" not in reader.block().fields, "the cursor stays"
        else:
            client.set(keys.stream(USER), "not a stream")
            with watch(web.url, "0") as reader:
                assert reader.response.status_code == 500
        wait_until(lambda: "WRONGTYPE" in web.child.last_lines(), "a line in the log")
        wait_until(lambda: client.zcard(keys.connections(USER)) == 0, "its lease, given back")
        client.delete(keys.stream(USER))
        publish(1)
        with watch(web.url, "0") as reader:
            assert numbers(reader.events(1)) == [1]


def test_ten_tabs_share_eight_places(client: redis.Redis, face: str) -> None:
    with (
        web_server(face, get_settings().require_redis_url()) as web,
        ExitStack() as others,
        ExitStack() as first,
    ):
        tabs = [first.enter_context(watch(web.url))]
        tabs += [others.enter_context(watch(web.url)) for _ in range(9)]
        answers = [tab.response.status_code for tab in tabs]
        assert answers == [200] * 8 + [429] * 2
        assert all(int(tab.response.headers["retry-after"]) >= 1 for tab in tabs[8:])
        publish(1)
        assert [numbers(tab.events(1)) for tab in tabs[:8]] == [[1]] * 8
        first.close()
        wait_until(lambda: client.zcard(keys.connections(USER)) == 7, "a place")
        with watch(web.url) as tab:
            assert tab.response.status_code == 200


def test_a_hundred_streams_use_one_connection_to_redis(
    client: redis.Redis, server: WebServer
) -> None:
    before = len(client.client_list())
    with ExitStack() as streams:
        for _ in range(100 if server.child.name == "web-asgi" else 30):
            streams.enter_context(watch(server.url, "0")).block()
        assert len(client.client_list()) <= before + 1
