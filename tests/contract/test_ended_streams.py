"""A stream that is over, whose client reads nothing: its connection doesn't outlast it for long."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
import redis

from shared import keys
from shared.publisher import publish_user_event
from tests.commands import wait_until
from tests.hosted import Hosted, hosted
from tests.small_socket import SmallSocket, small_socket
from web.connections import end_connection, list_connections

USER = "local"
LARGE = "x" * 15_000
EVENTS = 3  # less than the server holds for a client before it waits, more than the kernel does
LITTLE_BYTES = 4096
AN_HOUR = "3600"


@pytest.fixture
def client(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    settings = {
        "REDIS_URL": redis_url,
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "ALLOW_ANONYMOUS": "true",
        "SSE_KEEPALIVE_SECONDS": AN_HOUR,
        "SSE_WRITE_TIMEOUT_SECONDS": AN_HOUR,
        "EVENTS_REPLAY_MAX_PER_REQUEST": str(EVENTS),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with redis.Redis.from_url(redis_url) as client:
        yield client


def publish(number: int) -> None:
    for n in range(number):
        assert publish_user_event(USER, "test.event", {"n": n, "text": LARGE})


def end_by_its_user(web: Hosted) -> None:
    (connection,) = list_connections(USER)
    assert end_connection(USER, connection.id)


def drain(web: Hosted) -> None:
    web.loop.call_soon_threadsafe(web.delivery.drain)


def is_cut(web: Hosted, small: SmallSocket, client: redis.Redis) -> None:
    """Without the client's help: it only finds that it did not get all."""
    wait_until(lambda: not web.server.server_state.connections, "no connection is left")
    wait_until(lambda: client.zcard(keys.connections(USER)) == 0, "its place, given back")
    while not small.over:
        small.read()
    assert not small.complete
    assert len(small.body) < EVENTS * len(LARGE)


@pytest.mark.parametrize("end", [end_by_its_user, drain], ids=["its user's", "the server's"])
def test_a_stream_that_is_ended_is_cut_where_its_client_reads_nothing(
    client: redis.Redis, end: Callable[[Hosted], None]
) -> None:
    with hosted(LITTLE_BYTES) as web, small_socket(web.url, room_bytes=LITTLE_BYTES) as small:
        publish(EVENTS)
        wait_until(lambda: max(web.unsent_bytes) > len(LARGE), "something waits for the client")
        end(web)
        is_cut(web, small, client)


def test_a_capped_snapshot_is_cut_where_its_client_reads_nothing(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSE_WRITE_TIMEOUT_SECONDS", "1")
    publish(EVENTS + 1)
    with hosted(LITTLE_BYTES) as web, small_socket(web.url, "0", LITTLE_BYTES) as small:
        is_cut(web, small, client)


def test_a_stream_is_the_last_answer_on_its_connection(client: redis.Redis) -> None:
    with hosted() as web:
        with small_socket(web.url) as small:
            assert small.headers["connection"] == "close"
            end_by_its_user(web)
            while not small.over:
                small.read()
            assert small.complete
            assert small.body.endswith(b": ended\n\n")
            small.read()  # the end of the connection too
        refused = httpx.get(f"{web.url}/api/events", headers={"Host": "elsewhere"}, trust_env=False)
        assert refused.status_code == 403
        assert "connection" not in refused.headers, "whoever is refused may go on"
