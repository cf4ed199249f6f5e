"""Who may read an answer, and for how long: by token and by ticket, on both faces."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import redis

from tests.answers import Writing, text_of
from tests.conftest import RunningRedis
from tests.servers import WebServer, web_server
from tests.signing import SECRET, bearer
from tests.sse import watch


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def server(
    request: pytest.FixtureRequest, redis_server: RunningRedis, shared_database_url: str
) -> Iterator[WebServer]:
    jwt = {"AUTH_TYPE": "jwt", "JWT_SECRET_KEY": SECRET, "SSE_KEEPALIVE_SECONDS": "0.5"}
    with web_server(request.param, redis_server.url, shared_database_url, **jwt) as server:
        yield server


@pytest.fixture
def answer(server: WebServer, shared_database_url: str, client: redis.Redis) -> Writing:
    writing = Writing(shared_database_url, client, user_id="alice")
    writing.begin()
    writing.say("hers")
    return writing


def test_an_answer_is_its_owners_alone(server: WebServer, answer: Writing) -> None:
    with watch(server.url, path=answer.path, **bearer("alice")) as reader:
        assert text_of(reader.events(1)) == "hers"
    with watch(server.url, path=answer.path, **bearer("bob")) as reader:
        reader.response.read()
        assert (reader.response.status_code, reader.response.json()["error"]) == (404, "not_found")
    with watch(server.url, path=answer.path) as reader:
        reader.response.read()
        assert reader.response.status_code == 401
        assert reader.response.json()["error"] == "not_authenticated"


def test_nobody_is_told_whether_an_id_is_one_before_it_is_known_who_asks(
    server: WebServer, answer: Writing
) -> None:
    with watch(server.url, path="/api/messages/7/events") as reader:
        assert reader.response.status_code == 401


def test_a_ticket_opens_an_answer_where_no_header_can_be_sent(
    server: WebServer, answer: Writing
) -> None:
    with httpx.Client(trust_env=False, headers=bearer("alice")) as http:
        ticket = http.post(f"{server.url}/api/events/ticket").json()["ticket"]
    with watch(server.url, path=f"{answer.path}?ticket={ticket}") as reader:
        assert reader.response.status_code == 200
        assert text_of(reader.events(1)) == "hers"
    with watch(server.url, path=f"{answer.path}?ticket={ticket}") as reader:
        assert reader.response.status_code == 401, "it is good once"


def test_a_stream_ends_with_its_token(server: WebServer, answer: Writing) -> None:
    with watch(server.url, path=answer.path, **bearer("alice", ends_in=2)) as reader:
        assert ": token_expired" in [block.raw for block in reader.rest()]
