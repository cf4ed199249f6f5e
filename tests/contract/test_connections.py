"""One's own open streams: seen and ended on both faces, in whichever process each is served; and
the end of a stream whose token has ended."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis

from shared import keys
from shared.publisher import NewEvent, publish_user_event, publish_user_events
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.servers import WebServer, web_server
from tests.signing import SECRET, bearer
from tests.sse import Reader, watch

KEEPALIVE_SECONDS = 0.5
JWT = {
    "AUTH_TYPE": "jwt",
    "JWT_SECRET_KEY": SECRET,
    "SSE_KEEPALIVE_SECONDS": str(KEEPALIVE_SECONDS),
    "SSE_MAX_CONCURRENT_PER_USER": "2",
    "EVENTS_REPLAY_BUDGET_REQUESTS_PER_WINDOW": "0",
}


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def server(request: pytest.FixtureRequest, redis_server: RunningRedis) -> Iterator[WebServer]:
    with web_server(request.param, redis_server.url, **JWT) as server:
        yield server


@pytest.fixture(scope="module")
def other(redis_server: RunningRedis) -> Iterator[WebServer]:
    """Another process, which serves none of the streams."""
    with web_server("asgi", redis_server.url, **JWT) as server:
        yield server


def ask(method: str, url: str, user: str = "alice") -> httpx.Response:
    return httpx.request(method, url, headers=bearer(user), timeout=10, trust_env=False)


def connections(server: WebServer, user: str = "alice") -> list[dict[str, Any]]:
    answer = ask("GET", f"{server.url}/api/connections", user)
    assert answer.status_code == 200
    assert set(answer.json()) == {"success", "connections"}
    return list(answer.json()["connections"])


def end(server: WebServer, connection_id: str, user: str = "alice") -> tuple[int, str | None]:
    answer = ask("DELETE", f"{server.url}/api/connections/{connection_id}", user)
    return answer.status_code, answer.json().get("error")


def live(reader: Reader) -> None:
    """Reads up to the cursor that a stream begins with."""
    while not reader.block().raw.startswith("id:"):
        pass


def test_open_streams_are_listed_with_what_is_known_of_them(
    client: redis.Redis, server: WebServer, other: WebServer
) -> None:
    last = publish_user_event("alice", "test.event", {})
    agent = "a browser " + "x" * 300
    with watch(server.url, **bearer("alice"), **{"User-Agent": agent}) as reader:
        live(reader)
        (found,) = connections(other)
        assert re.fullmatch("[0-9a-f]{16}", found.pop("id"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("since"))
        assert found == {
            "address": "127.0.0.1",
            "user_agent": agent[:200],
            "cursor": last,
            "lagging": False,
        }
    wait_until(lambda: connections(other) == [], "gone")


def test_a_streams_cursor_is_as_of_its_last_renewal(client: redis.Redis, server: WebServer) -> None:
    with watch(server.url, **bearer("alice")) as reader:
        live(reader)
        (before,) = connections(server)
        last = publish_user_event("alice", "test.event", {})
        wait_until(lambda: connections(server)[0]["cursor"] == last, "renewed")
        (now,) = connections(server)
        assert {**now, "cursor": before["cursor"]} == before


def test_a_stream_that_does_not_keep_up_is_said_to_lag(
    client: redis.Redis, server: WebServer
) -> None:
    with watch(server.url, **bearer("alice")) as reader:
        live(reader)
        assert connections(server)[0]["lagging"] is False
        bulk = [NewEvent("test.event", {"text": "x" * 15_000})] * 50
        for _ in range(20):  # 15 MB, of which it reads nothing
            publish_user_events("alice", bulk)
        wait_until(lambda: connections(server)[0]["lagging"], "lagging")


@pytest.mark.parametrize("face", ["asgi", "wsgi"])
def test_a_stream_in_another_process_is_ended_at_once_and_its_place_is_free(
    client: redis.Redis, redis_server: RunningRedis, other: WebServer, face: str
) -> None:
    seldom = {**JWT, "SSE_KEEPALIVE_SECONDS": "60"}  # no renewal comes to its help
    with (
        web_server(face, redis_server.url, **seldom) as server,
        watch(server.url, **bearer("alice")) as first,
        watch(server.url, **bearer("alice")) as second,
    ):
        live(first)
        live(second)
        oldest = min(connections(other), key=lambda found: str(found["since"]))
        began = time.monotonic()
        assert end(other, oldest["id"]) == (200, None)
        assert oldest not in connections(other)
        with watch(other.url, **bearer("alice")) as third:
            assert third.response.status_code == 200, "its place is free"
            live(third)
            assert first.rest()[-1].raw == ": ended"
            assert time.monotonic() - began < 20
            assert end(other, oldest["id"]) == (404, "not_found")
            publish_user_event("alice", "test.event", {"n": 1})
            assert second.events(1)[0]["payload"] == {"n": 1}, "the others go on"


def test_an_end_that_was_not_heard_comes_with_the_next_renewal(
    client: redis.Redis, server: WebServer, other: WebServer
) -> None:
    with watch(server.url, **bearer("alice")) as reader:
        live(reader)
        one = connections(other)[0]["id"]
        # As the step does, and no announcement.
        client.zrem(keys.connections("alice"), one)
        client.hdel(keys.connection_details("alice"), one, f"{one}.at")
        client.set(keys.ended_connection("alice", one), "1", px=60_000)
        assert reader.rest()[-1].raw == ": ended"
    wait_until(lambda: not client.zcard(keys.connections("alice")), "its place is free")


def test_nobody_sees_or_ends_another_users_stream(client: redis.Redis, server: WebServer) -> None:
    with watch(server.url, **bearer("alice")) as reader:
        live(reader)
        one = connections(server)[0]["id"]
        assert connections(server, "bob") == []
        assert end(server, one, "bob") == (404, "not_found")
        publish_user_event("alice", "test.event", {"n": 1})
        assert reader.events(1)[0]["payload"] == {"n": 1}
        # Whoever knows the channel announces in vain: an id is one's own user's alone.
        client.publish(keys.topic("bob"), f"!end {one}")
        publish_user_event("alice", "test.event", {"n": 2})
        assert reader.events(1)[0]["payload"] == {"n": 2}
        assert [found["id"] for found in connections(server)] == [one]
    anonymous = httpx.get(f"{server.url}/api/connections", timeout=10, trust_env=False)
    assert anonymous.status_code == 401


@pytest.mark.parametrize("name", ["0123456789abcdef", "x.at", "%7B%7D", "%C3%A9", "a" * 2000])
def test_the_end_of_what_is_not_there_is_not_found(
    client: redis.Redis, server: WebServer, name: str
) -> None:
    assert end(server, name) == (404, "not_found")
    assert client.keys("*") == []


def test_a_stream_ends_with_its_token_and_its_place_is_free(
    client: redis.Redis, server: WebServer
) -> None:
    began = time.monotonic()
    with watch(server.url, **bearer("alice", ends_in=2)) as reader:
        blocks = [block.raw for block in reader.rest()]
    assert 1 < time.monotonic() - began < 10
    assert blocks[-2] == ": token_expired"
    assert 2000 <= int(blocks[-1].removeprefix("retry: ")) <= 5000
    wait_until(lambda: not client.zcard(keys.connections("alice")), "its place is free")
    with watch(server.url, **bearer("alice", ends_in=-60)) as reader:
        reader.response.read()
        assert reader.response.status_code == 401
        assert reader.response.json()["error"] == "token_expired"


def test_a_stream_that_still_replays_ends_with_its_token_too(
    client: redis.Redis, server: WebServer
) -> None:
    for _ in range(10):
        publish_user_events("alice", [NewEvent("test.event", {"text": "x" * 15_000})] * 20)
    with watch(server.url, "0", **bearer("alice", ends_in=2)) as reader:
        reader.block()
        wait_until(lambda: client.zcard(keys.connections("alice")) == 0, "its place is free")
