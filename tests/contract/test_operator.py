"""What an operator sees of everybody's streams, on both faces, in whichever process each is served,
and who is one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import redis

from shared import keys
from shared.publisher import NewEvent, publish_user_events
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.described import check_answer
from tests.servers import WebServer, web_server
from tests.signing import SECRET, bearer, hs256
from tests.sse import Reader, watch

KEEPALIVE_SECONDS = 0.5
JWT = {
    "AUTH_TYPE": "jwt",
    "JWT_SECRET_KEY": SECRET,
    "SSE_KEEPALIVE_SECONDS": str(KEEPALIVE_SECONDS),
    "CORS_ORIGINS": "*, https://app.example.com",
}
ENDPOINTS = [
    ("GET", "/api/operator/streams"),
    ("DELETE", "/api/operator/streams/0123456789abcdef?user=alice"),
    ("GET", "/api/operator/runs"),
    ("DELETE", "/api/operator/runs/0123"),
    ("GET", "/api/operator/events"),
    ("GET", "/api/operator/journal"),
]


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def server(request: pytest.FixtureRequest, redis_server: RunningRedis) -> Iterator[WebServer]:
    with web_server(request.param, redis_server.url, **JWT) as server:
        yield server


@pytest.fixture(scope="module")
def other(redis_server: RunningRedis) -> Iterator[WebServer]:
    """Another process, which the operator asks."""
    with web_server("asgi", redis_server.url, **JWT) as server:
        yield server


def ask(method: str, url: str, **headers: str) -> httpx.Response:
    return httpx.request(method, url, headers=headers, timeout=10, trust_env=False)


def as_operator(method: str, url: str) -> httpx.Response:
    answer = ask(method, url, **bearer("olga", operator=True))
    path = url.partition("/api/")[2].partition("?")[0]
    if path.startswith("operator/streams/"):
        path = "operator/streams/{connection_id}"
    check_answer(
        method.lower(), f"/api/{path}", answer.status_code, "application/json", answer.json()
    )
    return answer


def streams(server: WebServer, query: str = "") -> dict[str, Any]:
    answer = as_operator("GET", f"{server.url}/api/operator/streams{query}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def watched(server: WebServer) -> dict[str, int]:
    """How many streams each user has open."""
    return {each["user_id"]: each["streams"] for each in streams(server)["watching"]}


def live(reader: Reader) -> None:
    """Reads up to the cursor that a stream begins with."""
    while not reader.block().raw.startswith("id:"):
        pass


def index(client: redis.Redis) -> list[str]:
    """The users that the index names, once for each process."""
    entries: list[Any] = []
    for number in range(keys.OPEN_SHARDS):
        entries += client.zrange(keys.watchers(number), 0, -1)
    return sorted(entry.decode().partition(" ")[2] for entry in entries)


def test_all_users_with_open_streams_are_seen_from_any_process(
    client: redis.Redis, server: WebServer, other: WebServer
) -> None:
    odd = "Zoë {the} one: 100%"
    with ExitStack() as stack:
        places = ((server, "alice"), (server, "alice"), (other, "alice"), (server, odd))
        readers = [stack.enter_context(watch(at.url, **bearer(user))) for at, user in places]
        for reader in readers:  # one that is forgotten is closed
            live(reader)
        wait_until(lambda: watched(other) == {"alice": 3, odd: 1}, "seen")
        wanted = sorted(["alice", "alice", odd])
        wait_until(lambda: index(client) == wanted, "an entry for each process")
        seen = streams(other)
        assert (seen["users"], seen["streams"], seen["lagging"]) == (2, 4, 0)
        assert seen["more"] is False
        alice = seen["watching"][0]
        assert alice["since"] == min(each["since"] for each in alice["connections"])
        assert {each["user_agent"] for each in alice["connections"]} == {"python-httpx/0.28.1"}
        only = streams(other, "?user=alice")
        assert (only["users"], only["streams"], only["lagging"]) == (1, 3, 0)
        assert [each["streams"] for each in only["watching"]] == [3]
        nobody = streams(other, "?user=nobody")
        assert (nobody["users"], nobody["streams"], nobody["watching"]) == (0, 0, [])
    wait_until(lambda: watched(other) == {} and index(client) == [], "gone, and the index with it")


def test_the_index_outlives_the_longest_of_its_leases_while_streams_are_open(
    client: redis.Redis, server: WebServer, other: WebServer
) -> None:
    with watch(server.url, **bearer("alice")) as reader:
        live(reader)
        first = client.zrange(keys.watchers(keys.shard_of("alice")), 0, -1, withscores=True)
        later: Any = first
        while later == first:  # scored anew
            later = client.zrange(keys.watchers(keys.shard_of("alice")), 0, -1, withscores=True)
        ttl_ms = int(client.pttl(keys.watchers(keys.shard_of("alice"))))
        assert 0 < ttl_ms <= KEEPALIVE_SECONDS * 1000 * 6, "two leases, should all be killed"
        client.delete(keys.watchers(keys.shard_of("alice")))
        wait_until(lambda: watched(other) == {"alice": 1}, "a hint that was lost comes again")


@pytest.mark.parametrize("face", ["asgi", "wsgi"])
def test_the_streams_of_a_killed_process_are_gone_within_their_leases(
    client: redis.Redis, redis_server: RunningRedis, other: WebServer, face: str
) -> None:
    with (
        web_server(face, redis_server.url, **JWT) as killed,
        watch(killed.url, **bearer("alice")) as gone,
        watch(other.url, **bearer("bob")) as stays,
    ):
        live(gone)
        live(stays)
        wait_until(lambda: watched(other) == {"alice": 1, "bob": 1}, "seen")
        os.kill(killed.pid, signal.SIGKILL)
        wait_until(lambda: watched(other) == {"bob": 1}, "its leases have ended")
        wait_until(lambda: watched(other) and index(client) == ["bob"], "whoever reads cleans up")


def test_an_operator_ends_anybodys_stream(
    client: redis.Redis, server: WebServer, other: WebServer
) -> None:
    with watch(server.url, **bearer("alice")) as reader, watch(server.url, **bearer("bob")) as bobs:
        live(reader)
        live(bobs)
        wait_until(lambda: watched(other) == {"alice": 1, "bob": 1}, "seen")
        one = streams(other, "?user=alice")["watching"][0]["connections"][0]["id"]
        url = f"{other.url}/api/operator/streams/{one}"
        assert as_operator("DELETE", f"{url}?user=bob").status_code == 404, "not bob's"
        assert as_operator("DELETE", url).status_code == 404
        assert as_operator("DELETE", f"{url}?user=alice").status_code == 200
        assert watched(other) == {"bob": 1}, "seen at once"
        assert reader.rest()[-1].raw == ": ended"
        assert as_operator("DELETE", f"{url}?user=alice").status_code == 404


def test_how_far_a_slow_reader_is_behind_is_said(
    client: redis.Redis, server: WebServer, other: WebServer
) -> None:
    with watch(server.url, **bearer("alice")) as slow, watch(server.url, **bearer("bob")) as quick:
        live(slow)
        live(quick)
        publish_user_events("bob", [NewEvent("test.event", {})] * 3)
        quick.events(3)
        for _ in range(20):  # 15 MB, of which it reads nothing
            publish_user_events("alice", [NewEvent("test.event", {"text": "x" * 15_000})] * 50)

        def seen() -> dict[str, Any]:
            return {each["user_id"]: each for each in streams(other)["watching"]}

        wait_until(lambda: seen().keys() == {"alice", "bob"}, "seen")
        wait_until(lambda: seen()["alice"]["lagging"] == 1, "lagging")
        wait_until(lambda: seen()["alice"]["behind_ms"] > 0, "so far behind")
        both = streams(other)
        assert both["lagging"] == 1
        alice, bob = both["watching"]
        assert alice["user_id"] == "alice", "who lags comes first"
        assert alice["connections"][0]["behind_ms"] == alice["behind_ms"]
        assert (bob["lagging"], bob["behind_ms"]) == (0, 0)


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_only_who_has_the_claim_is_an_operator(
    client: redis.Redis, server: WebServer, method: str, path: str
) -> None:
    url = server.url + path
    for headers, refusal in (
        ({}, (401, "not_authenticated")),
        (bearer("alice"), (403, "not_operator")),
        (bearer("alice", operator="true"), (403, "not_operator")),
        (bearer("alice", operator=1), (403, "not_operator")),
        (bearer("alice", operator=[True]), (403, "not_operator")),
        (bearer("alice", operator=False), (403, "not_operator")),
        (bearer("alice", operator=True, ends_in=-60), (401, "token_expired")),
        ({"Authorization": "Bearer garbage"}, (401, "not_authenticated")),
    ):
        answer = ask(method, url, **headers)
        assert (answer.status_code, answer.json()["error"]) == refusal, headers
    good = ask(method, url, **bearer("olga", operator=True))
    has_none = {"DELETE": (404, "not_found"), "GET": (200, None)}[method]
    expected = (503, "unavailable") if path.endswith("/journal") else has_none
    assert (good.status_code, good.json().get("error")) == expected


def test_the_claim_may_have_another_name(redis_url: str, redis_server: RunningRedis) -> None:
    with web_server("asgi", redis_server.url, JWT_OPERATOR_CLAIM="admin", **JWT) as server:
        url = f"{server.url}/api/operator/runs"
        assert ask("GET", url, **bearer("olga", operator=True)).status_code == 403
        assert ask("GET", url, **bearer("olga", admin=True)).status_code == 200


def test_an_operators_cookie_is_an_operators_and_a_tickets_session_is_not(
    client: redis.Redis, server: WebServer
) -> None:
    url = f"{server.url}/api/operator/runs"
    for user, claims, status in (("olga", {"operator": True}, 200), ("alice", {}, 403)):
        cookie = f"eventstream_token={hs256(user, **claims)}"
        assert ask("GET", url, Cookie=cookie).status_code == status
        ticket = ask("POST", f"{server.url}/api/events/ticket", **bearer(user, **claims)).json()
        with watch(server.url, path=f"/api/events?ticket={ticket['ticket']}") as reader:
            reader.block()
            session = reader.response.headers["set-cookie"].partition(";")[0]
        answer = ask("GET", url, Cookie=session)
        assert (answer.status_code, answer.json()["error"]) == (403, "not_operator")


def test_pages_of_other_origins_read_nothing_of_it(client: redis.Redis, server: WebServer) -> None:
    for origin in ("https://app.example.com", "https://evil.test"):
        answer = ask(
            "GET",
            f"{server.url}/api/operator/runs",
            Origin=origin,
            **bearer("olga", operator=True),
        )
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    cookie = f"eventstream_token={hs256('olga', operator=True)}"
    url = f"{server.url}/api/operator/runs/0123"
    answer = ask("DELETE", url, Cookie=cookie, Origin="https://evil.test")
    assert (answer.status_code, answer.json()["error"]) == (403, "cross_origin")


def test_where_everyone_is_one_user_nobody_is_an_operator_unless_that_is_asked_for(
    client: redis.Redis, redis_server: RunningRedis
) -> None:
    with web_server("asgi", redis_server.url) as server:
        answer = ask("GET", f"{server.url}/api/operator/streams")
        assert (answer.status_code, answer.json()["error"]) == (403, "not_operator")
        assert "OPERATOR_ON_LOOPBACK" in answer.json()["message"]


@pytest.mark.parametrize("face", ["asgi", "wsgi"])
def test_where_everyone_is_one_user_an_operator_asks_from_the_machine_itself(
    client: redis.Redis, redis_server: RunningRedis, face: str
) -> None:
    asked_for = {"ALLOWED_HOSTS": "events.test", "OPERATOR_ON_LOOPBACK": "true"}
    with web_server(face, redis_server.url, **asked_for) as server:
        url = f"{server.url}/api/operator/streams"
        assert ask("GET", url).status_code == 200
        for headers in (
            {"X-Forwarded-For": "203.0.113.7"},
            {"X-Forwarded-For": "127.0.0.1"},
            {"Forwarded": "for=127.0.0.1"},
            {"Host": "events.test"},  # so a proxy passed the name on
        ):
            answer = ask("GET", url, **headers)
            assert (answer.status_code, answer.json()["error"]) == (403, "not_operator"), headers
        page = ask("GET", f"{server.url}/operator")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert "script-src 'self'" in page.headers["content-security-policy"]
