"""A server that is asked to stop: every stream is told when to come back, and nothing holds it up.

Each way in which web is served, since each server stops in its own way.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import psutil
import pytest
import redis

from shared import keys
from shared.publisher import NewEvent, publish_user_events
from shared.settings import get_settings
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.servers import WebServer, web_server
from tests.signing import key_server, rs256, rsa_jwk
from tests.sse import Reader, watch
from web.delivery import Delivery
from web.outlet import Message
from web.request import Request
from web.stream import open_stream

USER = "local"
FACES = ["asgi", "wsgi", "gunicorn-asgi", "gunicorn-wsgi"]
STOP_SECONDS = 5.0  # gunicorn's threads wait two seconds for more from connections that are kept
ENDED_SECONDS = 2.0
TWO = ("--workers", "2")


@pytest.fixture
def client(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    monkeypatch.setenv("ALLOW_ANONYMOUS", "true")
    return client


@dataclass
class Stop:
    """How a stop goes: `seconds` since it was asked for."""

    began: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


def ask_to_stop(server: WebServer, number: signal.Signals = signal.SIGTERM) -> Stop:
    os.kill(server.pid, number)
    return Stop(time.monotonic())


def ended_cleanly(server: WebServer, stop: Stop) -> None:
    server.wait()
    assert stop.seconds < STOP_SECONDS
    assert server.child.exit_code in (0, -signal.SIGTERM), server.child.last_lines()
    assert "Traceback" not in server.child.last_lines()


def opened(streams: ExitStack, server: WebServer, number: int) -> list[Reader]:
    readers = [streams.enter_context(watch(server.url)) for _ in range(number)]
    for reader in readers:
        while not reader.block().raw.startswith("id:"):
            pass
    return readers


def last_retry(reader: Reader) -> int:
    """The reconnection time that a whole response ended with; one that is cut raises."""
    return int(reader.rest()[-1].fields["retry"])


def is_let_go(kept: httpx.Client) -> bool:
    """Whether a server ends the connection that it has kept, as one that stops does."""
    try:
        answer = kept.get("/openapi.json")
    except httpx.TimeoutException:
        return False  # busy
    except httpx.TransportError:
        return True
    return str(answer.headers.get("connection")) == "close"


@contextmanager
def replay_that_nobody_reads(server: WebServer) -> Iterator[socket.socket]:
    """A replay of 3 MB, of which only the first bytes are read."""
    with socket.socket() as visitor:
        visitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        visitor.settimeout(10)
        visitor.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        visitor.sendall(b"GET /api/events?last_event_id=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert visitor.recv(12) == b"HTTP/1.1 200"
        yield visitor


def publish_much() -> None:
    for _ in range(10):
        publish_user_events(USER, [NewEvent("test.event", {"text": "x" * 15_000})] * 20)


@pytest.mark.parametrize(
    ("face", "options"),
    [*((face, ()) for face in FACES), *((face, TWO) for face in FACES if face != "wsgi")],
)
def test_a_stop_ends_every_stream_with_a_time_to_come_back(
    client: redis.Redis, redis_url: str, face: str, options: tuple[str, ...]
) -> None:
    with (
        web_server(face, redis_url, options=options) as server,
        ExitStack() as streams,
    ):
        readers = opened(streams, server, 6)
        stop = ask_to_stop(server)
        times = [last_retry(reader) for reader in readers]
        assert stop.seconds < ENDED_SECONDS
        assert all(1000 <= ms <= 10_000 for ms in times)
        assert len(set(times)) > 1, "not all in the same second"
        ended_cleanly(server, stop)
    assert client.zcard(keys.connections(USER)) == 0, "every place is given back"


@pytest.mark.parametrize("face", FACES)
def test_a_client_that_reads_nothing_holds_up_no_stop(
    client: redis.Redis, redis_url: str, face: str
) -> None:
    publish_much()
    with (
        web_server(face, redis_url) as server,
        replay_that_nobody_reads(server),
        ExitStack() as streams,
    ):
        reader = opened(streams, server, 1)[0]
        stop = ask_to_stop(server)
        assert 1000 <= last_retry(reader) <= 10_000
        ended_cleanly(server, stop)


@pytest.mark.parametrize("face", FACES)
def test_a_redis_that_is_away_holds_up_no_stop(
    client: redis.Redis, redis_server: RunningRedis, face: str
) -> None:
    with web_server(face, redis_server.url) as server, ExitStack() as streams:
        readers = opened(streams, server, 2)
        redis_server.stop()
        wait_until(
            lambda: httpx.get(f"{server.url}/api/events", trust_env=False).status_code == 503,
            "noticed",
        )
        stop = ask_to_stop(server)
        assert all(1000 <= last_retry(reader) <= 10_000 for reader in readers)
        ended_cleanly(server, stop)


@pytest.mark.parametrize("face", [face for face in FACES if face != "wsgi"])
def test_who_is_let_in_only_while_the_server_stops_is_told_to_come_back(
    client: redis.Redis, redis_url: str, face: str
) -> None:
    with (
        key_server(rsa_jwk("one")) as published,
        web_server(face, redis_url, AUTH_TYPE="jwt", JWT_JWKS_URL=published.url) as server,
        ThreadPoolExecutor(1) as pool,
        httpx.Client(base_url=server.url, timeout=2, trust_env=False) as kept,
    ):
        wait_until(lambda: not is_let_go(kept), "it answers")
        published.gate.clear()
        known = {"Authorization": f"Bearer {rs256('one')}"}
        asking = pool.submit(
            httpx.get, f"{server.url}/api/events", headers=known, timeout=10, trust_env=False
        )
        wait_until(lambda: published.asked, "it is asked who that is")
        stop = ask_to_stop(server)
        wait_until(lambda: is_let_go(kept), "its worker has heard of the stop")
        published.gate.set()
        answer = asking.result()
        assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
        assert answer.headers["retry-after"] == "2"
        ended_cleanly(server, stop)
    assert client.zcard(keys.connections("alice")) == 0


def test_a_stream_that_begins_at_that_very_moment_ends_too(client: redis.Redis) -> None:
    sent: list[Message] = []

    async def stop_meanwhile() -> None:
        delivery = Delivery(get_settings())

        async def send(message: Message) -> None:
            sent.append(message)
            if message["type"] == "http.response.start":
                delivery.drain()

        reader = await open_stream(delivery, Request({"host": "localhost"}), send)
        assert reader is not None
        async with asyncio.timeout(ENDED_SECONDS):
            await reader.serve(asyncio.Queue[Message]().get)  # the client stays
        await delivery.aclose()

    asyncio.run(stop_meanwhile())
    start, *bodies = sent
    assert start["status"] == 200
    assert bodies[0]["body"].startswith(b"retry: ")
    assert bodies[-1]["body"].startswith(b"retry: ")
    assert [body.get("more_body", False) for body in bodies] == [True, False]
    assert client.zcard(keys.connections(USER)) == 0


@pytest.mark.parametrize("face", ["asgi", "wsgi"])
def test_ctrl_c_is_a_stop_too(client: redis.Redis, redis_url: str, face: str) -> None:
    with web_server(face, redis_url) as server, ExitStack() as streams:
        readers = opened(streams, server, 2)
        stop = ask_to_stop(server, signal.SIGINT)
        assert all(1000 <= last_retry(reader) <= 10_000 for reader in readers)
        server.wait()
        assert stop.seconds < STOP_SECONDS


@pytest.mark.parametrize("face", ["gunicorn-asgi", "gunicorn-wsgi"])
def test_new_workers_take_over_while_the_old_ones_streams_come_back(
    client: redis.Redis, redis_url: str, face: str
) -> None:
    with web_server(face, redis_url) as server, ExitStack() as streams:
        old = opened(streams, server, 2)
        workers = psutil.Process(server.pid).children()
        ask_to_stop(server, signal.SIGHUP)
        assert all(1000 <= last_retry(reader) <= 10_000 for reader in old)
        wait_until(lambda: not any(map(psutil.Process.is_running, workers)), "the old one's end")
        opened(streams, server, 1)
