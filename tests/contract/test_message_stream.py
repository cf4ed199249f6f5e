"""`GET /api/messages/<id>/events` over real HTTP: the same through uvicorn and `flask run`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis

from shared import keys
from tests.answers import USER, Writing, text_of
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.described import check_message_event
from tests.servers import WebServer, web_server
from tests.sse import Reader, watch
from web.topic import FINISHED

SETTINGS = {
    "SSE_KEEPALIVE_SECONDS": "0.5",
    "SSE_MAX_CONCURRENT_PER_USER": "3",
    "EVENTS_REPLAY_BUDGET_REQUESTS_PER_WINDOW": "1",
    "MESSAGE_STALE_SECONDS": "5",
}


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def server(
    request: pytest.FixtureRequest, redis_server: RunningRedis, shared_database_url: str
) -> Iterator[WebServer]:
    with web_server(request.param, redis_server.url, shared_database_url, **SETTINGS) as server:
        yield server


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    """The server's."""
    return shared_database_url


@pytest.fixture
def answer(server: WebServer, database_url: str, client: redis.Redis) -> Writing:
    """A message that is being written."""
    writing = Writing(database_url, client)
    writing.begin()
    return writing


def events(reader: Reader) -> list[dict[str, Any]]:
    """All that comes until the stream ends, each with its id."""
    blocks = [block for block in reader.rest() if block.event]
    for block in blocks:
        check_message_event(block.event or {})
    return [{"id": block.fields.get("id"), **(block.event or {})} for block in blocks]


def test_an_answer_is_sent_from_its_start_and_live_until_it_ends(
    server: WebServer, answer: Writing
) -> None:
    answer.say("The ", "heron ")
    with watch(server.url, path=answer.path) as reader:
        assert reader.response.status_code == 200
        assert reader.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert [e["answer"] for e in reader.events(2)] == ["The ", "heron "]
        answer.say("stands.")
        assert reader.events(1) == [{"type": "answer", "answer": "stands."}]
        answer.end()
        assert [(e["id"], e["type"]) for e in events(reader)] == [("3", "end")]


@pytest.mark.parametrize("how", ["header", "query"])
def test_a_cursor_gets_what_came_after_it(server: WebServer, answer: Writing, how: str) -> None:
    answer.say(*"abcdef")
    answer.end()
    path = answer.path + ("?last_event_id=3" if how == "query" else "")
    with watch(server.url, "3" if how == "header" else None, path=path) as reader:
        assert [e["id"] for e in events(reader)] == ["4", "5", "6"]


def test_live_and_replayed_frames_are_the_same_bytes(server: WebServer, answer: Writing) -> None:
    answer.say("x")
    odd = {"type": "metadata", "z": 1, "a": [], "big": 2**60, "nul": "\u0000", "é": "\u2028"}
    with watch(server.url, path=answer.path) as live:
        live.events(1)
        answer.write(odd)
        was_live = live.block().raw
        answer.end()
        live.rest()
    with watch(server.url, "0", path=answer.path) as replayed:
        blocks = replayed.rest()
    assert was_live in [block.raw for block in blocks]


def test_a_finished_answer_is_replayed_and_closed(server: WebServer, answer: Writing) -> None:
    answer.say(*["w "] * 450)
    answer.end()
    with watch(server.url, path=answer.path) as reader:
        got = events(reader)
    assert [int(e["id"]) for e in got] == list(range(451))
    assert got[-1]["type"] == "end"
    with watch(server.url, "450", path=answer.path) as reader:
        assert events(reader) == []


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        ("99", "journal_reset"),
        ("-1", "malformed_cursor"),
        ("-5", "malformed_cursor"),
        ("words", "malformed_cursor"),
        ("1.5", "malformed_cursor"),
        ("1-0", "malformed_cursor"),
        ("9" * 19, "malformed_cursor"),
        ("9" * 20, "malformed_cursor"),
    ],
)
def test_a_cursor_of_rubbish_is_told_and_gets_everything(
    server: WebServer, answer: Writing, cursor: str, reason: str
) -> None:
    answer.say("a", "b")
    answer.end()
    with watch(server.url, cursor, path=answer.path) as reader:
        notice, *rest = events(reader)
    assert (notice["id"], notice["type"]) == (None, "backlog.truncated")
    assert (notice["payload"]["reason"], notice["payload"]["cursor"]) == (reason, None)
    assert [e["id"] for e in rest] == ["0", "1", "2"]


def test_refusals_say_why_before_the_stream_opens(
    server: WebServer, answer: Writing, database_url: str
) -> None:
    theirs = Writing(database_url, None, user_id="somebody-else")

    def refused(message_id: str) -> tuple[int, str]:
        with watch(server.url, path=f"/api/messages/{message_id}/events") as reader:
            reader.response.read()
            return reader.response.status_code, reader.response.json()["error"]

    assert refused("7") == (400, "bad_message_id")
    assert refused(answer.id.replace("-", "")) == (400, "bad_message_id")
    assert refused(str(uuid4())) == (404, "not_found")
    assert refused(theirs.id) == (404, "not_found")
    answer.end()
    with watch(server.url, path=f"/api/messages/{answer.id.upper()}/events") as reader:
        assert len(events(reader)) == 1


def test_a_gap_is_filled_from_the_journal(server: WebServer, answer: Writing) -> None:
    answer.say("a")
    with watch(server.url, path=answer.path) as reader:
        reader.events(1)
        answer.say("b", "c", announced=False)
        answer.say("d")
        assert text_of(reader.events(3)) == "bcd"


def test_doubled_and_late_announcements_disturb_nobody(server: WebServer, answer: Writing) -> None:
    with watch(server.url, path=answer.path) as reader:
        for n in range(20):
            answer.say(str(n))
            answer.announce([{"type": "answer", "answer": str(n)}], n)
            answer.announce([{"type": "answer", "answer": str(n // 2)}], n // 2)
        answer.end()
        assert [int(e["id"]) for e in events(reader)] == list(range(21))


@pytest.mark.parametrize("junk", [b"", b"x", b"1", b"0-0 1-0 x", b"!finished ", b"!finished x"])
def test_what_a_stranger_announces_costs_no_event(
    server: WebServer, answer: Writing, junk: bytes
) -> None:
    answer.say("a")
    with watch(server.url, path=answer.path) as reader:
        reader.events(1)
        answer.tell(junk)
        answer.say("b")
        answer.end()
        assert [e["id"] for e in events(reader)] == ["1", "2"]


def test_a_lost_last_announcement_is_noticed(server: WebServer, answer: Writing) -> None:
    with watch(server.url, path=answer.path) as reader:
        answer.say("a", announced=False)
        assert text_of(reader.events(1)) == "a"
        answer.end(announced=False)
        assert [e["type"] for e in events(reader)] == ["end"]


def test_a_last_event_without_the_word_that_it_is_the_last_ends_the_stream_too(
    server: WebServer, answer: Writing
) -> None:
    with watch(server.url, path=answer.path) as reader:
        answer.end(announced=False)
        answer.announce([{"type": "end"}], 0)
        assert [e["type"] for e in events(reader)] == ["end"]


def test_a_terminal_event_in_the_middle_ends_nothing_and_a_restart_goes_on(
    server: WebServer, answer: Writing
) -> None:
    answer.say("old")
    answer.end()
    answer.begin()
    answer.say("new")
    with watch(server.url, path=answer.path) as reader:
        assert [e["type"] for e in reader.events(4)] == ["answer", "end", "restart", "answer"]
        answer.tell(FINISHED + b"1")  # late, of the attempt before
        answer.say("er")
        answer.end()
        assert text_of(events(reader)) == "er"


def test_replays_are_free_and_connections_are_counted_with_those_of_the_user(
    server: WebServer, answer: Writing, client: redis.Redis
) -> None:
    answer.say("a")
    for _ in range(4):
        with watch(server.url, "0", path=answer.path) as reader:
            assert reader.response.status_code == 200
    wait_until(lambda: client.zcard(keys.connections(USER)) == 0, "leases given back")
    with ExitStack() as streams:
        paths = ("/api/events", answer.path, answer.path)
        readers = [streams.enter_context(watch(server.url, path=path)) for path in paths]
        for reader in readers:  # held on to: one that is forgotten is closed
            reader.block()
        with httpx.Client(trust_env=False) as http:
            listed = http.get(f"{server.url}/api/connections").json()["connections"]
        ours = [c for c in listed if c.get("message_id") == answer.id]
        assert len(ours) == 2
        assert {c["cursor"] for c in ours} <= {"-1", "0"}, "as it was when its lease was renewed"
        for path in ("/api/events", answer.path):
            with watch(server.url, path=path) as refused:
                assert refused.response.status_code == 429
                assert refused.response.headers["retry-after"].isdigit()


def test_a_stream_that_its_user_ends_is_ended(
    server: WebServer, answer: Writing, client: redis.Redis
) -> None:
    with watch(server.url, path=answer.path) as reader, httpx.Client(trust_env=False) as http:
        reader.block()
        [connection] = http.get(f"{server.url}/api/connections").json()["connections"]
        http.delete(f"{server.url}/api/connections/{connection['id']}").raise_for_status()
        assert ": ended" in [block.raw for block in reader.rest()]


def test_a_head_opens_no_stream(server: WebServer, answer: Writing, client: redis.Redis) -> None:
    with httpx.Client(trust_env=False) as http:
        assert http.head(server.url + answer.path).status_code == 200
        assert http.head(f"{server.url}/api/messages/{uuid4()}/events").status_code == 404
    assert client.zcard(keys.connections(USER)) == 0


def test_an_answer_whose_writer_is_lost_is_ended_once_however_many_look(
    server: WebServer, answer: Writing
) -> None:
    answer.say("a")
    with ExitStack() as streams:
        live = [streams.enter_context(watch(server.url, path=answer.path)) for _ in range(2)]
        for reader in live:
            reader.events(1)
        answer.fall_silent()
        for reader in (*live, streams.enter_context(watch(server.url, "0", path=answer.path))):
            [error] = events(reader)
            assert (error["id"], error["type"], error["code"]) == ("1", "error", "producer_lost")
            assert error["error"]
