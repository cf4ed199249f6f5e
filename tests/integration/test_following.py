"""Following a user's events: from a real Redis Stream, and from a server that misbehaves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

import pytest
import redis

from shared import keys
from shared.errors import RedisUnavailable
from tests.commands import wait_until
from tests.conftest import RunningRedis
from worker.cli import following
from worker.cli.following import StreamRefused, follow_http, follow_journal


def append(client: redis.Redis, entry_id: str, before: str, number: int = 0) -> None:
    body = json.dumps({"type": "test", "payload": {"n": number}}, separators=(",", ":"))
    fields: dict[str, str] = {"p": before, "t": "token", "e": body}
    client.xadd(keys.stream("alice"), fields, id=entry_id)  # type: ignore[arg-type]


def first(lines: Iterator[str], number: int) -> list[dict[str, object]]:
    return [json.loads(line) for line in islice(lines, number)]


def test_the_journal_is_followed_from_a_cursor_and_then_live(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        append(client, "1-0", "0-0", 1)
        append(client, "2-0", "1-0", 2)
        lines = follow_journal(redis_url, "alice", "1-0")
        assert next(lines) == '{"id":"2-0","type":"test","payload":{"n":2}}'
        append(client, "3-0", "2-0", 3)
        assert json.loads(next(lines))["id"] == "3-0"


@pytest.mark.parametrize(
    ("cursor", "before", "reason"),
    [
        ("1-0", "4-0", "trimmed"),
        ("0-0", "4-0", "trimmed"),
        ("4-5", "0-0", "journal_reset"),
    ],
)
def test_what_is_gone_is_said(redis_url: str, cursor: str, before: str, reason: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        append(client, "5-0", before)
    notice, event = first(follow_journal(redis_url, "alice", cursor), 2)
    assert notice["type"] == "backlog.truncated"
    assert notice["payload"] == {"reason": reason, "cursor": before}
    assert event["id"] == "5-0"


def test_the_journal_is_followed_through_a_restart_of_redis(
    redis_server: RunningRedis, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        append(client, "1-0", "0-0")
        lines = follow_journal(redis_url, "alice", "0-0")
        assert [event["id"] for event in first(lines, 1)] == ["1-0"]
        append(client, "2-0", "1-0")
        redis_server.kill()
        redis_server.start()
        append(client, "3-0", "2-0")
        assert [event["id"] for event in first(lines, 2)] == ["2-0", "3-0"]


def test_an_unreachable_redis_is_said_at_the_start() -> None:
    with pytest.raises(RedisUnavailable, match="can't be reached"):
        next(follow_journal("redis://127.0.0.1:1", "alice", None))


Answer = Callable[[BaseHTTPRequestHandler], None]


class Scripted(ThreadingHTTPServer):
    """Gives each request the next answer, and keeps the cursors that were sent."""

    def __init__(self, answers: list[Answer]) -> None:
        self.cursors: list[str | None] = []
        script = iter(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:
                self.cursors.append(handler.headers.get("Last-Event-ID"))
                next(script)(handler)

            def log_message(handler, *arguments: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(*answers: Answer) -> Iterator[Scripted]:
    with Scripted(list(answers)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def stream(text: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.end_headers()
        handler.wfile.write(text.encode())

    return answer


def refusal(status: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(b'{"success":false,"message":"Not now.","error":"code"}')

    return answer


def test_a_cut_stream_goes_on_from_its_cursor_after_the_time_the_server_gave() -> None:
    begin = "retry: 1\n\n: connected\n\nid: 7-0\n\n"
    with serving(
        stream(begin),
        stream('id: 8-0\ndata: {"id":"8-0"}\n\n: keepalive\n\n'),
        refusal(503, Retry_After="0"),
        stream('data: {"type":"backlog.truncated"}\n\nid: 9-0\n\n'),
        stream('id: 10-0\ndata: {"id":"10-0"}\n\n'),
    ) as server:
        lines = follow_http(server.url, None, trust_env=False)
        assert list(islice(lines, 3)) == [
            '{"id":"8-0"}',
            '{"type":"backlog.truncated"}',
            '{"id":"10-0"}',
        ]
        assert server.cursors == [None, "7-0", "8-0", "8-0", "9-0"]


def test_a_server_that_fails_after_the_begin_is_waited_for() -> None:
    with serving(
        stream("retry: 1\n\n"),
        *(refusal(status, Retry_After="0") for status in (500, 502, 504)),
        stream('data: {"n":1}\n\n'),
    ) as server:
        assert next(follow_http(server.url, None, trust_env=False)) == '{"n":1}'


def test_a_server_that_fails_at_the_begin_is_said() -> None:
    with serving(refusal(502)) as server, pytest.raises(StreamRefused, match=r"^Not now\.$"):
        next(follow_http(server.url, None, trust_env=False))


@pytest.mark.parametrize("given", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "nan", "soon", "1" * 400])
def test_a_time_to_come_back_that_is_no_number_does_not_end_it(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_FIRST_RETRY_MS", 1)
    monkeypatch.setattr(following, "_LONGEST_WAIT_SECONDS", 0.01)
    with serving(refusal(503, Retry_After=given), stream('data: {"n":1}\n\n')) as server:
        assert next(follow_http(server.url, None, trust_env=False)) == '{"n":1}'


def test_a_server_may_be_silent_for_some_keepalives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_SILENCE_SECONDS", 0.05)
    monkeypatch.setenv("SSE_KEEPALIVE_SECONDS", "10")
    gone = threading.Event()

    def keep_silent(handler: BaseHTTPRequestHandler) -> None:
        stream("retry: 1\n\n")(handler)
        gone.wait(0.3)
        handler.wfile.write(b'data: {"n":1}\n\n')

    with serving(keep_silent, stream('data: {"n":2}\n\n')) as server:
        assert next(follow_http(server.url, None, trust_env=False)) == '{"n":1}'


def test_a_refusal_is_said_in_the_servers_words() -> None:
    with (
        serving(refusal(403)) as server,
        pytest.raises(StreamRefused, match=r"^Not now\.$"),
    ):
        next(follow_http(server.url, None, trust_env=False))


def test_where_a_token_is_wanted_it_is_said_how_to_give_one() -> None:
    with (
        serving(refusal(401)) as server,
        pytest.raises(StreamRefused, match=r"^Not now\. .*--token or EVENTSTREAM_TOKEN"),
    ):
        next(follow_http(server.url, None, trust_env=False))


def test_a_server_that_is_not_there_is_said_at_the_start() -> None:
    with pytest.raises(StreamRefused, match="can't be reached"):
        next(follow_http("http://127.0.0.1:1", None, trust_env=False))


def test_opening_is_told_before_the_first_event() -> None:
    opened = threading.Event()
    with serving(stream('id: 1-0\ndata: {"id":"1-0"}\n\n')) as server:
        lines = follow_http(server.url, None, opened=opened.set, trust_env=False)
        next(lines)
        wait_until(opened.is_set, "the call of opened")
