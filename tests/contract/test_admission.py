"""Fairness: how many streams a user may have, and how many replays, on both faces."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
import redis

from shared import keys
from shared.publisher import publish_user_event
from shared.settings import get_settings
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.servers import WebServer, web_server
from tests.sse import Reader, watch

USER = "local"
LIMITS = {
    "SSE_KEEPALIVE_SECONDS": "0.5",
    "SSE_MAX_CONCURRENT_PER_USER": "3",
    "EVENTS_REPLAY_BUDGET_REQUESTS_PER_WINDOW": "4",
    "EVENTS_REPLAY_BUDGET_WINDOW_SECONDS": "3",
}


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def server(request: pytest.FixtureRequest, redis_server: RunningRedis) -> Iterator[WebServer]:
    with web_server(request.param, redis_server.url, **LIMITS) as server:
        yield server


def status(url: str, cursor: str | None = None) -> tuple[int, str | None, str | None]:
    """How a new stream is answered: status, error code, Retry-After."""
    with watch(url, cursor) as reader:
        response = reader.response
        if response.status_code == 200:
            reader.block()
            return 200, None, None
        response.read()
        return response.status_code, response.json()["error"], response.headers.get("Retry-After")


def fill(streams: ExitStack, url: str) -> list[Reader]:
    """Opens as many streams as are taken; they end when their readers are let go."""
    readers = [streams.enter_context(watch(url)) for _ in range(3)]
    for reader in readers:
        reader.block()
    return readers


def test_one_stream_too_many_is_told_when_to_come_back(
    client: redis.Redis, server: WebServer
) -> None:
    with ExitStack() as streams:
        held = fill(streams, server.url)
        code, error, retry_after = status(server.url)
        assert (code, error) == (429, "too_many_connections")
        assert 1 <= int(retry_after or 0) <= 2
        assert client.zcard(keys.connections(USER)) == len(held), "a refusal takes nothing"
    wait_until(lambda: client.zcard(keys.connections(USER)) == 0, "all given back")
    assert status(server.url)[0] == 200


def test_leases_last_for_as_long_as_their_streams(client: redis.Redis, server: WebServer) -> None:
    with watch(server.url) as reader:
        reader.block()
        lease, *_ = client.zrange(keys.connections(USER), 0, -1)
        began = time.monotonic()
        while time.monotonic() - began < 2.5:  # five keepalives
            reader.block()
        assert lease in client.zrange(keys.connections(USER), 0, -1)


@pytest.mark.parametrize("face", ["asgi", "wsgi"])
def test_replays_are_counted_and_live_connections_are_not(client: redis.Redis, face: str) -> None:
    publish_user_event(USER, "test.event", {})
    any_number = {**LIMITS, "SSE_MAX_CONCURRENT_PER_USER": "0"}
    with web_server(face, get_settings().require_redis_url(), **any_number) as server:
        assert [status(server.url, "0")[0] for _ in range(4)] == [200] * 4
        began = time.monotonic()
        code, error, retry_after = status(server.url, "0")
        assert (code, error) == (429, "too_many_replays")
        assert 1 <= int(retry_after or 0) <= 3
        assert status(server.url)[0] == 200, "a connection without a cursor replays nothing"
        assert status(server.url, "garbage")[0] == 200, "nor does one with a malformed cursor"
        wait_until(lambda: status(server.url, "0")[0] == 200, "let in again")
        assert time.monotonic() - began < 10, "what was refused renewed nothing"


def test_a_killed_process_gives_its_places_back_within_three_keepalives(
    redis_url: str, redis_server: RunningRedis
) -> None:
    with (
        web_server("asgi", redis_server.url, **LIMITS) as first,
        web_server("asgi", redis_server.url, **LIMITS) as second,
        ExitStack() as streams,
    ):
        held = fill(streams, first.url)
        assert status(second.url)[0] == 429, "the cap holds across processes"
        os.kill(first.pid, signal.SIGKILL)
        began = time.monotonic()
        wait_until(lambda: status(second.url)[0] == 200, "let in again")
        assert time.monotonic() - began < 3 * 0.5 + 5
        assert len(held) == 3


def test_head_takes_no_place(client: redis.Redis, server: WebServer) -> None:
    assert httpx.head(f"{server.url}/api/events", trust_env=False).status_code == 200
    assert client.zcard(keys.connections(USER)) == 0
    with ExitStack() as streams:
        fill(streams, server.url)
        head = httpx.head(f"{server.url}/api/events", trust_env=False, timeout=10)
        assert head.status_code == 200, "it needs none either"
