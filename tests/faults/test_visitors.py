"""Clients that come and go at any moment, and servers that stop while they do."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import struct
import threading
from contextlib import ExitStack, suppress

import psutil
import pytest
import redis

from shared import keys
from shared.publisher import publish_user_event
from tests.commands import wait_until
from tests.hosted import hosted
from tests.servers import WebServer, web_server
from tests.sse import watch

USER = "local"
VISITORS = 200
NO_LIMITS = {"SSE_MAX_CONCURRENT_PER_USER": "0", "EVENTS_REPLAY_BUDGET_REQUESTS_PER_WINDOW": "0"}
NO_TIMERS = {"SSE_KEEPALIVE_SECONDS": "3600", "SSE_WRITE_TIMEOUT_SECONDS": "3600"}
REQUEST = b"GET /api/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 0\r\n\r\n"


async def visit(port: int) -> None:
    """Asks for the stream, or for a part of it, and is gone within a moment."""
    chance = random.random()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST if chance < 0.9 else REQUEST[:30])
    with suppress(TimeoutError, ConnectionResetError):
        async with asyncio.timeout(random.uniform(0, 0.2)):
            while await reader.read(1000):
                pass
    if chance < 0.5:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    writer.transport.abort()


async def visit_all(port: int) -> None:
    await asyncio.gather(*[visit(port) for _ in range(VISITORS)])


def attack(url: str) -> None:
    """Visits all at once, three times over, while events are published."""
    stopped = threading.Event()

    def publish() -> None:
        while not stopped.wait(0.002):
            publish_user_event(USER, "test.event", {"text": "x" * 500})

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        for _ in range(3):
            asyncio.run(visit_all(int(url.rpartition(":")[2])))
    finally:
        stopped.set()
        publisher.join()


def wait_until_nothing_is_left(client: redis.Redis) -> None:
    kept = [keys.connections(USER), keys.connection_details(USER)]
    wait_until(lambda: client.exists(*kept) == 0, "all places given back")
    wait_until(lambda: client.pubsub_channels() == [], "all subscriptions ended")


def is_served(url: str) -> bool:
    with watch(url, "0") as reader:
        return bool(reader.response.status_code == 200)


@pytest.mark.parametrize("face", ["asgi", "wsgi"])
def test_visitors_that_leave_at_any_moment_leave_nothing_behind(
    client: redis.Redis, redis_url: str, face: str
) -> None:
    with web_server(face, redis_url, **NO_TIMERS, **NO_LIMITS) as web:
        wait_until(lambda: is_served(web.url), "a stream, once the server has its link")
        wait_until_nothing_is_left(client)
        process = psutil.Process(web.pid)
        files, threads = process.num_fds(), process.num_threads()
        attack(web.url)
        wait_until_nothing_is_left(client)
        # A few are the process's own, opened when first needed; a leak would be one a visitor.
        wait_until(lambda: process.num_fds() <= files + 5, "all sockets closed")
        wait_until(lambda: process.num_threads() <= threads, "all threads ended")
        publish_user_event(USER, "test.event", {"n": 1})
        with watch(web.url, "0") as reader:
            assert reader.events(1)


def tasks_of(loop: asyncio.AbstractEventLoop) -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks(loop)}


def test_visitors_that_leave_at_any_moment_leave_no_task_behind(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**NO_TIMERS, **NO_LIMITS}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ALLOW_ANONYMOUS", "true")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    with hosted() as web:
        with watch(web.url, "0") as reader:
            reader.block()
        wait_until_nothing_is_left(client)
        before = len(tasks_of(web.loop))
        attack(web.url)
        wait_until_nothing_is_left(client)
        wait_until(
            lambda: len(tasks_of(web.loop)) <= before, f"no more tasks: {tasks_of(web.loop)}"
        )


def test_what_is_under_way_at_sigterm_is_finished(client: redis.Redis, redis_url: str) -> None:
    with web_server("asgi", redis_url) as web, ExitStack() as sockets:
        port = int(web.url.rpartition(":")[2])
        asking = sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        asking.sendall(
            b"POST /api/events/ticket HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n{ "
        )
        stream = sockets.enter_context(watch(web.url))
        stream.block()
        os.kill(web.pid, signal.SIGTERM)
        assert stream.rest()[-1].fields["retry"], "the server is stopping"
        asking.sendall(b" }")
        assert asking.recv(1000).startswith(b"HTTP/1.1 200")
        web.wait()


def test_clients_of_a_server_that_stops_are_not_sent_back_all_at_once(
    client: redis.Redis, redis_url: str
) -> None:
    with web_server("asgi", redis_url, **NO_LIMITS) as web, ExitStack() as streams:
        readers = [streams.enter_context(watch(web.url)) for _ in range(40)]
        first = {reader.block().fields["retry"] for reader in readers}
        os.kill(web.pid, signal.SIGTERM)
        last = {reader.rest()[-1].fields["retry"] for reader in readers}
        assert min(len(first), len(last)) > 20, "times differ"
        assert max(map(int, last)) - min(map(int, last)) > 3000, "over several seconds"


def test_a_stream_that_is_opened_while_the_server_stops_is_ended_or_refused(
    client: redis.Redis, redis_url: str
) -> None:
    def come(web: WebServer) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as one:
            one.sendall(REQUEST)
            while one.recv(1000):
                pass

    with web_server("asgi", redis_url, **NO_LIMITS) as web:
        port = int(web.url.rpartition(":")[2])
        visitors = [threading.Thread(target=come, args=(web,)) for _ in range(60)]
        for number, visitor in enumerate(visitors):
            visitor.start()
            if number == 30:
                os.kill(web.pid, signal.SIGTERM)
        web.wait()
        for visitor in visitors:
            visitor.join(10)
            assert not visitor.is_alive()
    wait_until_nothing_is_left(client)
