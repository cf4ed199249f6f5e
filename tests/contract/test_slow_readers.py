"""Clients that read slowly, or not at all, or are far behind: on both faces, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import psutil
import pytest
import redis

from shared import keys
from shared.publisher import publish_user_event
from shared.settings import get_settings
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.servers import WebServer, web_server
from tests.small_socket import small_socket
from tests.sse import watch
from web import portal
from web.delivery import Delivery
from web.outlet import Message
from web.request import Request
from web.stream import open_stream

USER = "local"
LARGE = "x" * 15_000
EVENTS = 800  # of 15 kB each: more than the kernel holds for a connection
WRITE_TIMEOUT_SECONDS = 5
SETTINGS = {
    "SSE_MAX_CONCURRENT_PER_USER": "0",
    "EVENTS_REPLAY_BUDGET_REQUESTS_PER_WINDOW": "0",
    "SSE_KEEPALIVE_SECONDS": "60",  # so that no lease ends by itself
    "SSE_WRITE_TIMEOUT_SECONDS": str(WRITE_TIMEOUT_SECONDS),
}
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def server(request: pytest.FixtureRequest, redis_server: RunningRedis) -> Iterator[WebServer]:
    with web_server(request.param, redis_server.url, **SETTINGS) as server:
        yield server


def publish(number: int, start: int = 0, text: str = "") -> str:
    """Publishes numbered events; returns the first one's id."""
    ids = [
        publish_user_event(USER, "test.event", {"n": n, "text": text})
        for n in range(start, start + number)
    ]
    assert all(ids)
    return str(ids[0])


def leases(client: redis.Redis) -> int:
    found: Any = client.zcard(keys.connections(USER))
    return int(found)


def resident(server: WebServer) -> int:
    return int(psutil.Process(server.pid).memory_info().rss)


def test_whoever_does_not_read_is_cut_holds_nobody_up_and_costs_little(
    client: redis.Redis, server: WebServer
) -> None:
    with ExitStack() as streams:
        idle = [streams.enter_context(small_socket(server.url)) for _ in range(5)]
        reader = streams.enter_context(watch(server.url))
        reader.block()
        before = resident(server)
        publisher = threading.Thread(target=publish, args=(EVENTS, 0, LARGE))
        publisher.start()
        got = [event["payload"]["n"] for event in reader.events(EVENTS)]
        publisher.join()
        assert got == list(range(EVENTS))
        assert leases(client) == 6, "one that reads waits for none that doesn't"
        assert resident(server) - before < 30 * MEGABYTE, "not 12 MB for each that doesn't read"
        wait_until(lambda: leases(client) == 1, "five leases, given back long before their end")
        for small in idle:
            while not small.over:
                small.read()
            assert small.numbers == list(range(len(small.numbers)))
            assert len(small.numbers) < EVENTS


def test_a_slow_reader_gets_everything_once_and_in_order(
    client: redis.Redis, server: WebServer
) -> None:
    published = 0

    def run() -> None:
        nonlocal published
        for n in range(EVENTS):
            publish(1, n, LARGE)
            published = n + 1

    publisher = threading.Thread(target=run)
    with small_socket(server.url) as small:
        publisher.start()
        for goal in range(0, EVENTS, 20):
            wait_until(partial(lambda goal: published > goal, goal), "more events")
            small.read()
        publisher.join()
        assert len(small.numbers) < EVENTS // 2, "it is slow"
        small.read_until(b'"n":%d,' % (EVENTS - 1))
        assert small.numbers == list(range(EVENTS))


def test_a_client_far_behind_catches_up_while_more_is_published(
    client: redis.Redis, server: WebServer
) -> None:
    cursor = publish(450)
    stopped = threading.Event()

    def run() -> None:
        n = 450
        while not stopped.wait(0.005):
            publish(1, n)
            n += 1

    publisher = threading.Thread(target=run)
    publisher.start()
    got: list[int] = []
    try:
        for _ in range(2):
            with watch(server.url, cursor) as reader:
                events = [block.event for block in reader.rest() if block.event]
            assert len(events) == 200
            got += [event["payload"]["n"] for event in events]
            cursor = events[-1]["id"]
        with watch(server.url, cursor) as reader:
            got += [event["payload"]["n"] for event in reader.events(200)]
    finally:
        stopped.set()
        publisher.join()
    assert got == list(range(1, 601))


@pytest.fixture
def capped_request(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Request:
    """Asks for more than one response may have, where writing may take two seconds."""
    monkeypatch.setenv("ALLOW_ANONYMOUS", "true")
    monkeypatch.setenv("SSE_WRITE_TIMEOUT_SECONDS", "2")
    get_settings.cache_clear()
    headers = {"host": "localhost", "last-event-id": publish(300)}
    return Request(headers, {}, "GET", "/api/events", "http", "127.0.0.1")


def test_a_slow_client_is_given_time_for_the_end_of_a_capped_snapshot_too(
    capped_request: Request,
) -> None:
    pieces: list[bytes] = []

    async def answer() -> None:
        over = asyncio.Event()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await asyncio.sleep(1.5)  # until the client has read what came before
                over.set()
            pieces.append(message.get("body", b""))

        async def receive() -> Message:
            await over.wait()
            return {"type": "http.disconnect"}

        delivery = Delivery(get_settings())
        reader = await open_stream(delivery, capped_request, send)
        assert reader is not None
        async with asyncio.timeout(10):
            await reader.serve(receive)
        await delivery.aclose()

    asyncio.run(answer())
    assert b"".join(pieces[:-1]).count(b"data: ") == 200
    assert pieces[-1].startswith(b"retry: "), "an end, and no cut"


def test_a_thread_that_is_stuck_behind_the_end_of_a_capped_snapshot_is_freed(
    capped_request: Request, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portal, "_loops", {})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answer = portal.answer_stream(capped_request, ours)
        assert answer.status == 200
        theirs.settimeout(10)
        assert theirs.recv(1) == b"", "cut, though nobody takes what waits in the pipe"
        answer.body.close()
        wait_until(lambda: leases(client) == 0, "its lease, given back")
    [loop] = portal._loops.values()
    loop.portal.call(loop.delivery.aclose)
    loop.portal.call(loop.portal.stop)
