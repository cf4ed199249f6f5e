"""Who is asking, over real HTTP on both faces: tokens, cookies, tickets, the host's function."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookies import Morsel, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from shared import keys
from shared.publisher import publish_user_event
from tests.commands import eventstream, wait_until
from tests.conftest import RunningRedis
from tests.servers import WebServer, web_server
from tests.signing import SECRET, hs256, key_server, rs256, rsa_jwk
from tests.sse import Reader

JWT = {"AUTH_TYPE": "jwt", "JWT_SECRET_KEY": SECRET}
NO_LIMITS = {"SSE_MAX_CONCURRENT_PER_USER": "0", "EVENTS_REPLAY_BUDGET_REQUESTS_PER_WINDOW": "0"}
COOKIE = "eventstream_session"
OURS = "https://app.example.com"
EVIL = {"Origin": "https://evil.test"}


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(face: str, redis_server: RunningRedis) -> Iterator[WebServer]:
    with web_server(face, redis_server.url, CORS_ORIGINS=OURS, **JWT, **NO_LIMITS) as server:
        yield server


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def ask(method: str, url: str, **headers: str) -> httpx.Response:
    return httpx.request(method, url, headers=headers, timeout=10, trust_env=False)


def ticket(server: WebServer, token: str) -> str:
    answer = ask("POST", f"{server.url}/api/events/ticket", **bearer(token))
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"success": True, "ticket": answer.json()["ticket"], "expires_in": 30}
    assert answer.headers["cache-control"] == "no-store"
    return str(answer.json()["ticket"])


def opened(url: str, query: str = "", **headers: str) -> httpx.Response:
    """The answer to a stream, whose body is read only where it is a refusal."""
    with (
        httpx.Client(timeout=10, trust_env=False) as client,
        client.stream("GET", f"{url}/api/events{query}", headers=headers) as response,
    ):
        if response.status_code == 200:
            Reader(response).block()
        else:
            response.read()
        return response


def cookie_of(response: httpx.Response) -> Morsel[str]:
    return SimpleCookie(response.headers["set-cookie"])[COOKIE]


def session(response: httpx.Response) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={cookie_of(response).value}"}


def refused(response: httpx.Response) -> tuple[int, str]:
    answer = response.json()
    assert answer["success"] is False
    return response.status_code, answer["error"]


def whose(url: str, query: str = "", **headers: str) -> str:
    """The user whose events a stream gives."""
    for user in ("alice", "bob"):
        publish_user_event(user, "test.event", {})
    headers["Last-Event-ID"] = "0"
    with (
        httpx.Client(timeout=10, trust_env=False) as client,
        client.stream("GET", f"{url}/api/events{query}", headers=headers) as response,
    ):
        assert response.status_code == 200
        return str(Reader(response).events(1)[0]["user_id"])


def test_a_token_in_the_header_gives_its_users_events(
    client: redis.Redis, server: WebServer
) -> None:
    assert whose(server.url, **bearer(hs256("alice"))) == "alice"
    assert whose(server.url, **bearer(hs256("bob"))) == "bob"
    answer = ask("GET", f"{server.url}/api/sources", **bearer(hs256("alice")))
    assert answer.status_code == 200


def test_a_token_in_its_cookie_gives_its_users_events(
    client: redis.Redis, server: WebServer
) -> None:
    cookie = f'odd={{"a": 1}}; eventstream_token={hs256("alice")}; broken[=;;'
    assert whose(server.url, Cookie=cookie) == "alice"
    assert whose(server.url, Cookie=cookie, **bearer(hs256("bob"))) == "bob", "the header first"


@pytest.mark.parametrize("path", ["/api/events", "/api/sources", "/api/search?q=x"])
def test_whoever_is_not_known_is_told_so(client: redis.Redis, server: WebServer, path: str) -> None:
    url = f"{server.url}{path}"
    for headers, error in (
        ({}, "not_authenticated"),
        (bearer("garbage"), "not_authenticated"),
        ({"Authorization": "Bearer"}, "not_authenticated"),
        ({"Authorization": "Basic YTpi"}, "not_authenticated"),
        ({"Cookie": "eventstream_token=garbage"}, "not_authenticated"),
        ({"Cookie": f"{COOKIE}=garbage\u00e9"}, "not_authenticated"),
        (bearer(hs256(ends_in=-60)), "token_expired"),
        ({"Cookie": f"eventstream_token={hs256(ends_in=-60)}"}, "token_expired"),
    ):
        sent = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        answer = httpx.get(url, headers=sent, timeout=10, trust_env=False)
        assert refused(answer) == (401, error), headers
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_bad_header_is_not_made_good_by_a_cookie(client: redis.Redis, server: WebServer) -> None:
    cookie = f"eventstream_token={hs256('alice')}"
    assert opened(server.url, Cookie=cookie, **bearer("garbage")).status_code == 401


@pytest.mark.parametrize("name", ["token", "access_token", "eventstream_token", "ticket"])
def test_a_token_in_the_address_is_never_taken(
    client: redis.Redis, server: WebServer, name: str
) -> None:
    assert opened(server.url, f"?{name}={hs256('alice')}").status_code == 401


def test_a_ticket_opens_the_stream_once(client: redis.Redis, server: WebServer) -> None:
    query = f"?ticket={ticket(server, hs256('alice'))}"
    assert whose(server.url, query) == "alice"
    answer = opened(server.url, query)
    assert refused(answer) == (401, "not_authenticated")
    assert "ticket" in answer.json()["message"]


def test_a_ticket_ends_by_itself(client: redis.Redis, server: WebServer) -> None:
    text = ticket(server, hs256("alice"))
    assert 29_000 < int(client.pttl(keys.ticket(text))) <= 30_000
    ticket_of_a_short_token = ask(
        "POST", f"{server.url}/api/events/ticket", **bearer(hs256("alice", ends_in=9))
    ).json()
    assert ticket_of_a_short_token["expires_in"] <= 9


def test_no_secret_is_kept_as_it_is(client: redis.Redis, server: WebServer) -> None:
    value = cookie_of(opened(server.url, f"?ticket={ticket(server, hs256())}")).value
    text = ticket(server, hs256())
    names: Any = client.keys("ticket:*") + client.keys("session:*")
    assert len(names) == 2
    kept = str([(name, client.get(name)) for name in names])
    assert "alice" in kept
    assert value not in kept
    assert text.partition(".")[0] not in kept


def test_a_ticket_is_for_the_stream_alone(client: redis.Redis, server: WebServer) -> None:
    text = ticket(server, hs256("alice"))
    assert ask("GET", f"{server.url}/api/sources?ticket={text}").status_code == 401
    assert ask("POST", f"{server.url}/api/events/ticket?ticket={text}").status_code == 401
    assert ask("HEAD", f"{server.url}/api/events?ticket={text}").status_code == 401
    assert opened(server.url, f"?ticket={text}").status_code == 200, "nothing has used it"


def test_a_tickets_use_opens_a_session_that_scripts_can_not_read(
    client: redis.Redis, server: WebServer
) -> None:
    cookie = cookie_of(opened(server.url, f"?ticket={ticket(server, hs256('alice'))}"))
    assert cookie["httponly"] and cookie["samesite"] == "Strict" and cookie["path"] == "/api"
    assert not cookie["secure"], "this is plain http"
    assert 590 < int(cookie["max-age"]) <= 600, "as long as the token"
    assert 590_000 < int(client.pttl(keys.session(cookie.value))) <= 600_000


def test_signing_out_ends_the_session_and_drops_its_cookie(
    client: redis.Redis, server: WebServer
) -> None:
    url = f"{server.url}/api/events/ticket"
    known = session(opened(server.url, f"?ticket={ticket(server, hs256('alice'))}"))
    assert refused(ask("DELETE", url, **known, **EVIL)) == (403, "cross_origin")
    assert opened(server.url, **known).status_code == 200
    for headers in (known, known, {}):
        answer = ask("DELETE", url, **headers)
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        cookie = cookie_of(answer)
        assert (cookie.value, cookie["path"], cookie["max-age"]) == ("", "/api", "0")
    assert client.keys("session:*") == []
    assert refused(opened(server.url, **known)) == (401, "not_authenticated")


def test_a_session_lives_no_longer_than_a_browser_keeps_its_cookie(
    client: redis.Redis, server: WebServer
) -> None:
    answer = opened(server.url, f"?ticket={ticket(server, hs256(ends_in=1e12))}")
    assert int(cookie_of(answer)["max-age"]) == 400 * 24 * 60 * 60


def test_a_session_without_an_end_of_its_own_lasts_a_day(
    client: redis.Redis, server: WebServer
) -> None:
    text = ticket(server, hs256("alice", ends_in=None))
    cookie = cookie_of(opened(server.url, f"?ticket={text}"))
    assert int(cookie["max-age"]) == 24 * 60 * 60


def test_a_reconnect_goes_on_by_the_session_though_its_ticket_is_used(
    client: redis.Redis, server: WebServer
) -> None:
    query = f"?ticket={ticket(server, hs256('alice'))}"
    first = opened(server.url, query)
    again = opened(server.url, query, **session(first))
    assert again.status_code == 200
    assert "set-cookie" not in again.headers
    assert whose(server.url, query, **session(first)) == "alice"
    assert whose(server.url, "?ticket=made-up", **session(first)) == "alice"
    assert whose(server.url, **session(first)) == "alice"
    assert ask("GET", f"{server.url}/api/sources", **session(first)).status_code == 200


def test_a_session_ends_with_its_token(client: redis.Redis, server: WebServer) -> None:
    query = f"?ticket={ticket(server, hs256('alice'))}"
    first = opened(server.url, query)
    client.pexpire(keys.session(cookie_of(first).value), 1)
    wait_until(lambda: opened(server.url, query, **session(first)).status_code == 401, "its end")
    assert refused(opened(server.url, **session(first))) == (401, "not_authenticated")


def test_a_new_ticket_goes_before_the_cookies_of_another_user(
    client: redis.Redis, server: WebServer
) -> None:
    bobs = opened(server.url, f"?ticket={ticket(server, hs256('bob'))}")
    for cookie in (session(bobs), {"Cookie": f"eventstream_token={hs256('bob')}"}):
        query = f"?ticket={ticket(server, hs256('alice'))}"
        assert whose(server.url, query, **cookie) == "alice"


def test_a_used_ticket_never_goes_on_as_another_user(
    client: redis.Redis, server: WebServer
) -> None:
    query = f"?ticket={ticket(server, hs256('alice'))}"
    opened(server.url, query)
    bobs = opened(server.url, f"?ticket={ticket(server, hs256('bob'))}")
    for cookie in (session(bobs), {"Cookie": f"eventstream_token={hs256('bob')}"}):
        assert refused(opened(server.url, query, **cookie)) == (401, "not_authenticated")


def test_an_old_cookie_of_one_kind_spoils_no_other(client: redis.Redis, server: WebServer) -> None:
    first = opened(server.url, f"?ticket={ticket(server, hs256('alice'))}")
    both = f"eventstream_token={hs256(ends_in=-60)}; {session(first)['Cookie']}"
    assert whose(server.url, Cookie=both) == "alice"


def test_cookies_write_from_our_own_pages_only(client: redis.Redis, server: WebServer) -> None:
    url = f"{server.url}/api/events/ticket"
    first = opened(server.url, f"?ticket={ticket(server, hs256('alice'))}")
    for cookie in (session(first), {"Cookie": f"eventstream_token={hs256('alice')}"}):
        assert ask("POST", url, **cookie).status_code == 200
        assert ask("POST", url, **cookie, Origin=server.url).status_code == 200
        assert ask("POST", url, **cookie, Origin=OURS).status_code == 200
        assert refused(ask("POST", url, **cookie, **EVIL)) == (403, "cross_origin")
        cross_site = {"Sec-Fetch-Site": "cross-site"}
        assert refused(ask("POST", url, **cookie, **cross_site)) == (403, "cross_origin")
    assert ask("POST", url, **bearer(hs256("alice")), **EVIL).status_code == 200


def test_every_answer_says_which_origin_may_read_it(client: redis.Redis, server: WebServer) -> None:
    events, known = f"{server.url}/api/events", bearer(hs256("alice"))
    answers = [
        opened(server.url, Origin=OURS, **known),
        opened(server.url, Origin=OURS),
        ask("HEAD", events, Origin=OURS, **known),
        ask("GET", f"{server.url}/api/sources", Origin=OURS, **known),
        ask("GET", f"{server.url}/api/sources", Origin=OURS),
        ask("GET", f"{server.url}/api/nowhere", Origin=OURS, **known),
        ask("POST", f"{events}/ticket", Origin=OURS, **known),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 200, 200, 401, 404, 200]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == OURS
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["access-control-expose-headers"] == "Retry-After"
        assert answer.headers["vary"] == "Origin"
    for answer in (opened(server.url, **EVIL, **known), ask("GET", events, **EVIL)):
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/api/events", "/api/events/ticket", "/api/sources"])
def test_a_preflight_is_answered_and_takes_nothing(
    client: redis.Redis, server: WebServer, path: str
) -> None:
    wants = {"Access-Control-Request-Method": "POST", "Origin": OURS}
    answer = ask("OPTIONS", f"{server.url}{path}", **wants)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == OURS
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert "POST" in answer.headers["access-control-allow-methods"]
    foreign = ask("OPTIONS", f"{server.url}{path}", **{**wants, **EVIL})
    assert "access-control-allow-origin" not in foreign.headers
    assert client.keys("*") == []


def test_a_cookie_is_secure_where_the_request_was(redis_url: str) -> None:
    with web_server("asgi", redis_url, **JWT) as server:
        query = f"?ticket={ticket(server, hs256('alice'))}"
        assert cookie_of(opened(server.url, query, **{"X-Forwarded-Proto": "https"}))["secure"]


def test_public_keys_are_fetched_once_and_stay_good_where_their_server_fails(
    face: str, redis_url: str
) -> None:
    with (
        key_server(rsa_jwk("one")) as published,
        web_server(face, redis_url, AUTH_TYPE="jwt", JWT_JWKS_URL=published.url) as server,
    ):
        assert opened(server.url, **bearer(rs256("one"))).status_code == 200
        assert refused(opened(server.url, **bearer(rs256("two")))) == (401, "not_authenticated")
        published.status = 500
        assert opened(server.url, **bearer(rs256("one"))).status_code == 200
        assert published.asked == 1


def test_where_the_keys_are_away_it_is_said_and_when_to_come_back(
    face: str, redis_url: str
) -> None:
    away = "http://127.0.0.1:1/jwks.json"
    with web_server(face, redis_url, AUTH_TYPE="jwt", JWT_JWKS_URL=away) as server:
        for answer in (
            opened(server.url, **bearer(rs256("one"))),
            ask("GET", f"{server.url}/api/sources", **bearer(rs256("one"))),
        ):
            assert refused(answer) == (503, "unavailable")
            assert answer.headers["retry-after"] == "2"
        assert opened(server.url).status_code == 401


def test_while_redis_hangs_everybody_is_told_soon(
    face: str, redis_url: str, redis_server: RunningRedis
) -> None:
    def answer(number: int) -> tuple[httpx.Response, float]:
        began = time.monotonic()
        known = {"Cookie": f"{COOKIE}=any{number}"}
        return client.get(f"{web.url}/api/events", headers=known), time.monotonic() - began

    many = httpx.Limits(max_connections=None)
    with (
        web_server(face, redis_url, **JWT) as web,
        httpx.Client(timeout=20, trust_env=False, limits=many) as client,
        ThreadPoolExecutor(80) as pool,
    ):
        assert answer(0)[0].status_code == 401
        os.kill(redis_server.pid, signal.SIGSTOP)
        try:
            answers = list(pool.map(answer, range(80)))
        finally:
            os.kill(redis_server.pid, signal.SIGCONT)
        for response, _ in answers:
            assert refused(response) == (503, "unavailable")
            assert response.headers["retry-after"] == "2"
        assert max(seconds for _, seconds in answers) < 5
        wait_until(lambda: answer(0)[0].status_code == 401, "Redis is asked again")


def test_what_redis_refuses_for_good_is_our_fault_and_said_in_json(
    client: redis.Redis, server: WebServer
) -> None:
    client.rpush(keys.session("odd"), "no session")
    client.set(keys.stream("alice"), "no stream")
    for answer in (
        opened(server.url, Cookie=f"{COOKIE}=odd", Origin=OURS),
        ask("GET", f"{server.url}/api/sources", Cookie=f"{COOKIE}=odd", Origin=OURS),
        opened(server.url, **bearer(hs256("alice")), Origin=OURS),
    ):
        assert refused(answer) == (500, "internal_server_error")
        assert answer.headers["access-control-allow-origin"] == OURS


def answer_before_the_body(server: WebServer, path: str, size: int, **headers: str) -> str:
    """The status and all else that is said to a write whose body never comes."""
    address = urlsplit(server.url)
    sent = {"Host": address.netloc, "Content-Length": str(size), **headers}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    with socket.create_connection((str(address.hostname), int(address.port or 80)), 10) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        return client.recv(4096).decode().removeprefix("HTTP/1.1 ")


def test_whoever_is_refused_by_the_headers_uploads_nothing(
    client: redis.Redis, server: WebServer
) -> None:
    cookie = {"Cookie": f"eventstream_token={hs256('alice')}"}
    for path, size, headers, status in (
        ("/api/sources", 1_000_000, {}, "401"),
        ("/api/sources", 1_000_000, bearer("garbage"), "401"),
        ("/api/sources", 1_000_000, {**cookie, **EVIL}, "403"),
        ("/api/sources", 60_000_000, bearer(hs256("alice")), "413"),
        ("/api/events/ticket", 70_000, bearer(hs256("alice")), "413"),
        ("/api/nowhere", 70_000, {}, "413"),
    ):
        assert answer_before_the_body(server, path, size, **headers).startswith(status), path


def test_only_an_upload_may_be_large_also_where_its_size_is_not_said(redis_url: str) -> None:
    with web_server("asgi", redis_url, **JWT) as server:
        address, known = f"{server.url}/api/events/ticket", bearer(hs256("alice"))
        pieces = iter([b"x" * 40_000] * 2)
        answer = httpx.post(address, content=pieces, headers=known, timeout=10, trust_env=False)
    assert refused(answer) == (413, "too_large")
    assert "64 KiB" in answer.json()["message"]


def test_under_a_prefix_the_cookie_is_for_that(redis_url: str) -> None:
    with web_server("asgi", redis_url, UVICORN_ROOT_PATH="/live", **JWT) as server:
        query = f"?ticket={ticket(server, hs256('alice'))}"
        first = opened(server.url, query)
        assert cookie_of(first)["path"] == "/live/api"
        signed_out = ask("DELETE", f"{server.url}/api/events/ticket", **session(first))
        assert cookie_of(signed_out)["path"] == "/live/api"


def test_where_redis_is_away_a_ticket_is_not_called_wrong(face: str) -> None:
    with web_server(face, "redis://127.0.0.1:1/0", **JWT) as server:
        for answer in (
            opened(server.url, "?ticket=any"),
            opened(server.url, Cookie=f"{COOKIE}=any"),
            ask("POST", f"{server.url}/api/events/ticket", **bearer(hs256("alice"))),
        ):
            assert refused(answer) == (503, "unavailable")
            assert answer.headers["retry-after"] == "2"


def test_the_host_application_says_who_it_is(
    face: str, client: redis.Redis, redis_server: RunningRedis
) -> None:
    host = {"AUTH_TYPE": "callable", "AUTH_CALLABLE": "tests.host_application:current_user"}
    with web_server(face, redis_server.url, **host) as server:
        alice = {"Cookie": "host_session=alice"}
        assert whose(server.url, **alice) == "alice"
        assert refused(opened(server.url)) == (401, "not_authenticated")
        assert refused(opened(server.url, Cookie="host_session=broken")) == (
            500,
            "authentication_failed",
        )
        tickets = f"{server.url}/api/events/ticket"
        assert refused(ask("POST", tickets, **alice, **EVIL)) == (403, "cross_origin")
        assert refused(ask("POST", tickets, **alice)) == (404, "not_found")


def test_where_everyone_is_one_user_a_ticket_is_given_and_not_needed(
    face: str, redis_url: str
) -> None:
    with web_server(face, redis_url) as server:
        answer = ask("POST", f"{server.url}/api/events/ticket")
        text = answer.json()["ticket"]
        for _ in range(2):
            again = opened(server.url, f"?ticket={text}")
            assert again.status_code == 200
            assert "set-cookie" not in again.headers


def test_no_secret_is_logged(face: str, redis_url: str) -> None:
    token, stale = hs256("alice"), hs256(ends_in=-60)
    with web_server(face, redis_url, **JWT) as server:
        text = ticket(server, token)
        cookie = cookie_of(opened(server.url, f"?ticket={text}")).value
        opened(server.url, **bearer(stale))
        opened(server.url, Cookie=f"eventstream_token={stale}; {COOKIE}={cookie}")
        wait_until(lambda: server.child.last_lines().count("/api/events") == 4, "the access log")
        said = server.child.last_lines()
    for secret in (token, stale, cookie, SECRET):
        assert secret not in said


def test_tail_watches_with_a_token_and_says_where_one_is_missing(
    client: redis.Redis, server: WebServer
) -> None:
    publish_user_event("alice", "test.event", {})
    follow = ("tail", "alice", "--since", "0", "--url", server.url)
    with eventstream(*follow, EVENTSTREAM_TOKEN=hs256("alice")) as tail:
        assert '"user_id":"alice"' in tail.wait_for("test.event")
    for token, reason in (("", "This needs a token"), (hs256(ends_in=-60), "has expired")):
        with eventstream(*follow, EVENTSTREAM_TOKEN=token) as tail:
            assert tail.wait() == 1
            assert reason in tail.output
            assert "--token or EVENTSTREAM_TOKEN" in tail.output
    with eventstream(*follow, EVENTSTREAM_TOKEN=hs256("bob")) as tail:
        publish_user_event("bob", "test.event", {})
        assert "the events of 'bob', not those of 'alice'" in tail.wait_for("Error")
