"""A client that leaves gives back its place, its subscription and its thread at once, in whichever
way web is served. Keepalives, whose failure would be noticed in the end, come too late here."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import psutil
import pytest
import redis

from shared import keys
from shared.publisher import NewEvent, publish_user_events
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.servers import WebServer, web_server
from tests.sse import watch

USER = "local"
FACES = ["asgi", "wsgi", "gunicorn-asgi", "gunicorn-wsgi"]
FIRST_BYTE_SECONDS = 10.0
POOL_THREADS = 8  # at most, as gunicorn's: begun one by one, when none is idle at a visit
NO_BUDGET = {"EVENTS_REPLAY_BUDGET_REQUESTS_PER_WINDOW": "0"}
GET = b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module", params=FACES)
def server(request: pytest.FixtureRequest, redis_server: RunningRedis) -> Iterator[WebServer]:
    url = redis_server.url
    with web_server(request.param, url, SSE_KEEPALIVE_SECONDS="60", **NO_BUDGET) as server:
        yield server


def held(client: redis.Redis) -> tuple[int, int, int]:
    """The places, their details and the subscriptions that are taken."""
    subscribers: Any = client.pubsub_numsub(keys.topic(USER))
    return (
        client.zcard(keys.connections(USER)),
        client.hlen(keys.connection_details(USER)),
        int(subscribers[0][1]),
    )


def all_given_back(client: redis.Redis, within_seconds: float = 10.0) -> None:
    began = time.monotonic()
    wait_until(lambda: held(client) == (0, 0, 0), "all given back")
    assert time.monotonic() - began < within_seconds


def threads(server: WebServer) -> int:
    root = psutil.Process(server.pid)
    return sum(process.num_threads() for process in [root, *root.children()])


def visitor(server: WebServer, request: bytes, *, receive_bytes: int = 0) -> socket.socket:
    """A connection on which a request has been sent; `receive_bytes` bounds what it takes."""
    connection = socket.socket()
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(FIRST_BYTE_SECONDS)
    connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    connection.sendall(request)
    return connection


def reset(connection: socket.socket) -> None:
    """Vanishes as a crash does: with a reset in place of a goodbye."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_live_client_that_leaves_gives_all_back_at_once(
    client: redis.Redis, server: WebServer
) -> None:
    with watch(server.url) as first, watch(server.url) as second:
        first.block()
        second.block()
        assert held(client) == (2, 4, 1)
    all_given_back(client)


def test_visits_in_any_number_use_up_neither_places_nor_threads(
    client: redis.Redis, server: WebServer
) -> None:
    for visit in range(20):
        with watch(server.url) as reader:
            assert reader.response.status_code == 200
            reader.block()
        all_given_back(client)
        if visit == 0:  # what is started with the first stream is there
            before = threads(server)
    wait_until(lambda: threads(server) <= before + POOL_THREADS, "no visit's thread is left behind")


@pytest.mark.parametrize("how", [socket.socket.close, reset])
def test_a_client_that_vanishes_in_mid_replay_gives_all_back_at_once(
    client: redis.Redis, server: WebServer, how: Any
) -> None:
    for _ in range(10):
        publish_user_events(USER, [NewEvent("test.event", {"text": "x" * 15_000})] * 20)
    for _ in range(10):
        replay = visitor(server, GET + b"Last-Event-ID: 0\r\n\r\n", receive_bytes=4096)
        assert replay.recv(12) == b"HTTP/1.1 200"
        assert held(client) == (1, 2, 1)
        how(replay)
        all_given_back(client)


@pytest.mark.parametrize("how", [socket.socket.close, reset])
def test_a_client_that_vanishes_before_the_first_byte_gives_all_back_at_once(
    client: redis.Redis, server: WebServer, how: Any
) -> None:
    with watch(server.url) as reader:  # what is started with the first stream is there
        reader.block()
    all_given_back(client)
    client.client_pause(250)  # nobody is let in meanwhile
    for _ in range(4):
        how(visitor(server, GET + b"\r\n"))
    client.ping()  # answered when the pause is over
    with watch(server.url) as reader:  # let in after them
        reader.block()
        wait_until(lambda: held(client) == (1, 2, 1), "only what is held by one")
    all_given_back(client)
    assert "Traceback" not in server.child.last_lines()
    with watch(server.url) as reader:
        assert reader.response.status_code == 200


def test_head_and_options_take_nothing(client: redis.Redis, server: WebServer) -> None:
    url = f"{server.url}/api/events"
    for method in ("HEAD", "OPTIONS"):
        headers = {"Last-Event-ID": "0"}
        answer = httpx.request(method, url, headers=headers, timeout=10, trust_env=False)
        assert (answer.status_code, answer.content) == (200, b"")
    assert client.keys("*") == []
    assert held(client) == (0, 0, 0)


def test_as_many_streams_as_there_are_threads_are_served_at_once(
    client: redis.Redis, server: WebServer
) -> None:
    with ExitStack() as streams:
        readers = [streams.enter_context(watch(server.url)) for _ in range(8)]
        assert [reader.response.status_code for reader in readers] == [200] * 8
    all_given_back(client)
