"""`GET /api/events` over real HTTP: the same behaviour through uvicorn and through `flask run`."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from shared import keys
from shared.publisher import publish_user_event
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.servers import WebServer, web_server
from tests.sse import Reader, watch

USER = "local"
NO_LIMITS = {"SSE_MAX_CONCURRENT_PER_USER": "0", "EVENTS_REPLAY_BUDGET_REQUESTS_PER_WINDOW": "0"}


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def server(request: pytest.FixtureRequest, redis_server: RunningRedis) -> Iterator[WebServer]:
    url = redis_server.url
    with web_server(request.param, url, SSE_KEEPALIVE_SECONDS="0.5", **NO_LIMITS) as server:
        yield server


def publish(number: int = 1, start: int = 0) -> list[str]:
    ids = [publish_user_event(USER, "test.event", {"n": start + i}) for i in range(number)]
    assert all(ids)
    return [str(entry_id) for entry_id in ids]


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["payload"]["n"] for event in events]


def subscribers(client: redis.Redis) -> int:
    counted: Any = client.pubsub_numsub(keys.topic(USER))
    return int(counted[0][1])


def test_a_fresh_connection_is_primed_and_then_live(client: redis.Redis, server: WebServer) -> None:
    last = publish(3)[-1]
    with watch(server.url) as reader:
        assert reader.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reader.response.headers["cache-control"] == "no-store"
        assert reader.response.headers["x-accel-buffering"] == "no"
        assert 2000 <= int(reader.block().fields["retry"]) <= 5000
        assert reader.block().raw == ": connected"
        assert reader.block().raw == f"id: {last}"
        publish(1, start=10)
        assert numbers(reader.events(1)) == [10]


def test_an_empty_journal_primes_with_the_position_before_its_first_entry(
    client: redis.Redis, server: WebServer
) -> None:
    with watch(server.url) as reader:
        assert [reader.block().raw for _ in range(3)][2] == "id: 0-0"


@pytest.mark.parametrize("how", ["header", "query"])
def test_a_cursor_gets_what_came_after_it(client: redis.Redis, server: WebServer, how: str) -> None:
    ids = publish(5)
    url, cursor = server.url, ids[1]
    with httpx.Client(timeout=10, trust_env=False) as http:
        query = f"?last_event_id={cursor}" if how == "query" else ""
        headers = {"Last-Event-ID": cursor} if how == "header" else {}
        with http.stream("GET", f"{url}/api/events{query}", headers=headers) as response:
            assert numbers(Reader(response).events(3)) == [2, 3, 4]


def test_live_and_replayed_frames_are_the_same_bytes(
    client: redis.Redis, server: WebServer
) -> None:
    with watch(server.url) as live:
        for _ in range(3):
            live.block()
        publish_user_event(USER, "test.event", {"n": 1, "list": [], "big": 2**60, "é": "\u2028"})
        was_live = live.block().raw
    with watch(server.url, "0") as replayed:
        replayed.block()
        replayed.block()
        assert replayed.block().raw == was_live


def test_nothing_is_missed_between_snapshot_and_tail(
    client: redis.Redis, server: WebServer
) -> None:
    publish(150)
    with watch(server.url, "0-0") as reader:
        publish(100, start=150)
        assert numbers(reader.events(250)) == list(range(250))


def test_a_capped_snapshot_ends_the_response_and_the_next_one_goes_on(
    client: redis.Redis, server: WebServer
) -> None:
    first = publish(450)[0]
    with watch(server.url, first) as reader:
        blocks = reader.rest()
    events = [block.event for block in blocks if block.event]
    assert numbers(events) == list(range(1, 201))
    assert 100 <= int(blocks[-1].fields["retry"]) <= 300
    with watch(server.url, events[-1]["id"]) as reader:
        events = [block.event for block in reader.rest() if block.event]
    assert numbers(events) == list(range(201, 401))
    with watch(server.url, events[-1]["id"]) as reader:
        publish(1, start=450)
        assert numbers(reader.events(50)) == list(range(401, 451))


@pytest.mark.parametrize("cursor", ["garbage", "-5", "1-2-3", "9" * 21])
def test_a_malformed_cursor_is_told_and_the_stream_is_live(
    client: redis.Redis, server: WebServer, cursor: str
) -> None:
    last = publish(2)[-1]
    with watch(server.url, cursor) as reader:
        notice = reader.events(1)[0]
        assert notice["type"] == "backlog.truncated"
        assert notice["payload"] == {
            "reason": "malformed_cursor",
            "oldest_retained_id": None,
            "cursor": last,
        }
        assert reader.block().raw == f"id: {last}"
        publish(1, start=9)
        assert numbers(reader.events(1)) == [9]


def test_a_trimmed_cursor_is_told_once_and_what_is_retained_follows(
    client: redis.Redis, server: WebServer
) -> None:
    ids = publish(10)
    client.xtrim(keys.stream(USER), maxlen=4, approximate=False)
    with watch(server.url, ids[2]) as reader:
        notice, *events = reader.events(5)
        assert notice["payload"] == {
            "reason": "trimmed",
            "oldest_retained_id": ids[6],
            "cursor": ids[5],
        }
        assert numbers(events) == [6, 7, 8, 9]
    with watch(server.url, ids[5]) as reader:  # on the very edge: nothing was lost
        assert numbers(reader.events(4)) == [6, 7, 8, 9]


def test_a_cursor_of_another_life_of_the_stream_is_told(
    client: redis.Redis, server: WebServer
) -> None:
    publish(2)
    with watch(server.url, "99999999999999-0") as reader:
        notice, *events = reader.events(3)
        assert notice["payload"]["reason"] == "journal_reset"
        assert numbers(events) == [0, 1]


def test_silence_is_filled_with_keepalives(client: redis.Redis, server: WebServer) -> None:
    with watch(server.url) as reader:
        for _ in range(3):
            reader.block()
        assert [reader.block().raw for _ in range(2)] == [": keepalive"] * 2


def test_a_client_that_leaves_releases_its_subscription(
    client: redis.Redis, server: WebServer
) -> None:
    with watch(server.url) as reader, watch(server.url) as second:
        reader.block()
        second.block()
        assert subscribers(client) == 1, "one subscription per process"
    wait_until(lambda: subscribers(client) == 0, "unsubscribed")


def test_clients_that_leave_at_once_leave_nothing_behind(
    client: redis.Redis, server: WebServer
) -> None:
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    request = b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for n in range(300):
        with socket.create_connection(address) as visitor:
            visitor.sendall(request)
            visitor.settimeout(0.0005 * (n % 12) + 0.0001)
            with suppress(TimeoutError):
                visitor.recv(100)
        if n % 10 == 0:
            publish()
    wait_until(lambda: subscribers(client) == 0, "all unsubscribed")


def test_many_first_visitors_at_once_are_all_served(
    client: redis.Redis, redis_server: RunningRedis
) -> None:
    for face, number in (("wsgi", 8), ("asgi", 150)):
        with (
            web_server(face, redis_server.url, **NO_LIMITS) as fresh,
            ThreadPoolExecutor(number) as pool,
            ExitStack() as open_streams,
        ):
            watches = [watch(fresh.url, "0") for _ in range(number)]
            readers = list(pool.map(open_streams.enter_context, watches))
            assert {reader.response.status_code for reader in readers} == {200}


def test_what_is_no_announcement_harms_no_stream(client: redis.Redis, server: WebServer) -> None:
    with watch(server.url, "0") as reader:
        publish()
        reader.events(1)
        for junk in (b"garbage", b"", b"a b c", "1-0 \u00e9 x".encode()):
            client.publish(keys.topic(USER), junk)
        publish(1, start=1)
        assert numbers(reader.events(1)) == [1]


def test_pages_are_bounded_by_bytes_and_nothing_is_missed(
    client: redis.Redis, server: WebServer
) -> None:
    for n in range(150):
        publish_user_event(USER, "test.event", {"n": n, "text": "x" * 16_000})
    with watch(server.url, "0") as reader:
        assert numbers(reader.events(150)) == list(range(150))


def test_head_and_options_open_no_stream(client: redis.Redis, server: WebServer) -> None:
    wait_until(lambda: subscribers(client) == 0, "the test before has left")
    head = httpx.head(f"{server.url}/api/events", timeout=10, trust_env=False)
    options = httpx.options(f"{server.url}/api/events", timeout=10, trust_env=False)
    assert (head.status_code, options.status_code) == (200, 200)
    assert head.headers["content-type"].startswith("text/event-stream")
    assert subscribers(client) == 0


def test_a_lost_pubsub_connection_loses_no_event(client: redis.Redis, server: WebServer) -> None:
    with watch(server.url, "0") as reader:
        publish(5)
        assert numbers(reader.events(5)) == list(range(5))
        client.client_kill_filter(_type="pubsub")
        publish(20, start=5)
        assert numbers(reader.events(20)) == list(range(5, 25))


def test_push_can_be_switched_off(redis_url: str) -> None:
    with (
        web_server("asgi", redis_url, ENABLE_SSE_PUSH="false") as server,
        watch(server.url) as reader,
    ):
        assert [block.raw for block in reader.rest()] == [": push_disabled"]


def test_sigterm_ends_open_streams_with_a_time_to_come_back(redis_url: str) -> None:
    with web_server("asgi", redis_url) as server, watch(server.url) as reader:
        for _ in range(3):
            reader.block()
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        rest = reader.rest()
        assert 1000 <= int(rest[-1].fields["retry"]) <= 10_000
        server.wait()
        assert time.monotonic() - began < 10


def test_a_lost_last_announcement_is_noticed_at_the_next_keepalive(
    client: redis.Redis, server: WebServer
) -> None:
    with watch(server.url, "0") as reader:
        publish()
        reader.events(1)
        silent: Any = {"p": "x", "t": "", "e": '{"type":"test.event","payload":{"n":7}}'}
        client.xadd(keys.stream(USER), silent)  # appended, and announced to nobody
        assert numbers(reader.events(1)) == [7]


def test_a_body_in_chunks_is_taken(redis_url: str, database_url: str) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    pieces = [head, b"hello " * 200_000, b"\r\n--x--\r\n"]
    with web_server("asgi", redis_url, database_url, UPLOAD_MAX_BYTES="2000000") as server:
        statuses = [
            httpx.post(
                f"{server.url}/api/sources",
                content=iter([pieces[0], *[pieces[1]] * times, pieces[2]]),
                headers={"Content-Type": "multipart/form-data; boundary=x"},
                trust_env=False,
                timeout=30,
            ).status_code
            for times in (1, 3)
        ]
    assert statuses == [202, 413]


def test_slow_uploaders_hold_up_nobody(redis_url: str, database_url: str) -> None:
    with (
        web_server("asgi", redis_url, database_url) as server,
        ExitStack() as slow,
    ):
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        for _ in range(40):
            uploader = slow.enter_context(socket.create_connection(address))
            uploader.sendall(
                b"POST /api/sources HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x"
            )
        answer = httpx.get(f"{server.url}/healthz", trust_env=False, timeout=5)
        assert answer.status_code == 200


def test_an_unreachable_redis_is_never_an_empty_success(tmp_path: Path) -> None:
    with web_server("asgi", "redis://127.0.0.1:1/0") as server:
        answer = httpx.get(f"{server.url}/api/events", timeout=10, trust_env=False)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert answer.json() == {
        "success": False,
        "message": "The event stream can't be reached just now. Please try again.",
        "error": "unavailable",
    }


def test_a_redis_that_refuses_to_read_is_never_an_empty_success(
    client: redis.Redis, server: WebServer
) -> None:
    publish(3)
    client.acl_setuser("default", enabled=True, commands=["-xrange"])
    try:
        with watch(server.url, "0") as reader:
            reader.response.read()
            assert reader.response.status_code == 503
            assert reader.response.headers["retry-after"] == "2"
        wait_until(lambda: client.zcard(keys.connections(USER)) == 0, "given back")
    finally:
        client.acl_setuser("default", enabled=True, commands=["+xrange"])
    with watch(server.url, "0") as reader:
        assert numbers(reader.events(3)) == [0, 1, 2]


def test_web_does_not_start_where_a_setting_is_wrong() -> None:
    import subprocess

    environment = {"PATH": os.environ["PATH"], "REDIS_URL": "redis://127.0.0.1:1/0"}
    command = [sys.executable, "-m", "uvicorn", "web.asgi:app", "--port", "0"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode != 0
    assert "ALLOW_ANONYMOUS" in done.stderr
    assert "Traceback" not in done.stderr
