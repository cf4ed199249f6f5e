"""Readers of an answer while Redis, Postgres, or they themselves come and go."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import redis

from tests.answers import Writing, text_of
from tests.commands import wait_until
from tests.conftest import RunningPostgres, RunningRedis
from tests.servers import WebServer, web_server
from tests.sse import Block, watch

SETTINGS = {
    "SSE_KEEPALIVE_SECONDS": "1",
    "SSE_MAX_CONCURRENT_PER_USER": "4",
    "MESSAGE_STALE_SECONDS": "5",
}
EVENTS = 5000
KILLS = 50


@pytest.fixture(params=["asgi", "wsgi"])
def server(
    request: pytest.FixtureRequest, redis_server: RunningRedis, redis_url: str, database_url: str
) -> Iterator[WebServer]:
    with web_server(request.param, redis_url, database_url, **SETTINGS) as server:
        yield server


@pytest.fixture
def asgi(redis_server: RunningRedis, redis_url: str, database_url: str) -> Iterator[WebServer]:
    limits = {**SETTINGS, "SSE_MAX_CONCURRENT_PER_USER": "0"}
    with web_server("asgi", redis_url, database_url, **limits) as server:
        yield server


@pytest.fixture
def answer(database_url: str, client: redis.Redis) -> Writing:
    """A message that is being written."""
    writing = Writing(database_url, client)
    writing.begin()
    return writing


class Reading:
    """A client that keeps what it got, and comes again with its cursor."""

    def __init__(self, server: WebServer, path: str) -> None:
        self.url, self.path = server.url, path
        self.cursor: str | None = None
        self.events: list[dict[str, str]] = []
        self.comments: list[str] = []

    def read(self, most: int) -> None:
        """Reads until so many more events have come, or the answer is over."""
        wanted = len(self.events) + most
        with watch(self.url, self.cursor, path=self.path) as reader:
            while len(self.events) < wanted and not self.is_over:
                self.take(reader.block())

    def take(self, block: Block) -> None:
        if block.raw.startswith(":"):
            self.comments.append(block.raw)
        if block.event is None:
            return
        number = int(block.fields["id"])
        assert number == len(self.events), "each once, in order"
        self.cursor = str(number)
        self.events.append(block.event)

    @property
    def is_over(self) -> bool:
        return bool(self.events) and self.events[-1]["type"] in ("end", "error")


def test_a_reader_killed_and_resumed_at_random_gets_exactly_what_was_written(
    asgi: WebServer, answer: Writing
) -> None:
    words = [f"{n} " for n in range(EVENTS - 1)]

    def write() -> None:
        for start in range(0, len(words), 25):
            answer.say(*words[start : start + 25], announced=random.random() < 0.9)
        answer.end()

    writer = threading.Thread(target=write)
    reading = Reading(asgi, answer.path)
    writer.start()
    try:
        for _ in range(KILLS):
            reading.read(random.randint(0, 2 * EVENTS // KILLS))
        reading.read(EVENTS)
    finally:
        writer.join()
    assert text_of(reading.events) == "".join(words)
    assert len(reading.events) == EVENTS


def test_a_reader_that_comes_at_any_moment_sees_all_of_it_once(
    asgi: WebServer, answer: Writing
) -> None:
    """Before the first event, between a commit and its announcement, and at the very end."""
    readings = [Reading(asgi, answer.path) for _ in range(15)]
    with ThreadPoolExecutor(len(readings)) as threads:
        coming = iter(readings)
        reads = [threads.submit(next(coming).read, 100)]
        for n in range(6):
            reads.append(threads.submit(next(coming).read, 100))
            answer.say(f"{n} ", announced=False)
            reads.append(threads.submit(next(coming).read, 100))
            answer.announce([{"type": "answer", "answer": f"{n} "}], n)
        reads.append(threads.submit(next(coming).read, 100))
        answer.end(announced=False)
        reads.append(threads.submit(next(coming).read, 100))
        answer.announce([{"type": "end"}], answer.last)
        answer.tell(b"!finished %d" % answer.last)
        for read in reads:
            read.result()
    for reading in readings:
        assert text_of(reading.events) == "0 1 2 3 4 5 "
        assert reading.is_over


def test_redis_away_during_a_whole_answer(
    server: WebServer, answer: Writing, redis_server: RunningRedis
) -> None:
    redis_server.stop()
    try:
        reading = Reading(server, answer.path)
        with watch(server.url, path=answer.path) as reader:
            silent = Writing(answer._url, None)
            silent.id, silent.last = answer.id, answer.last
            for n in range(3):
                silent.say(f"{n} ")
                while len(reading.events) <= n:
                    reading.take(reader.block())
            silent.end()
            for block in reader.rest():
                reading.take(block)
        assert text_of(reading.events) == "0 1 2 "
        assert reading.is_over
        assert ": polling" in reading.comments
    finally:
        redis_server.start()


def test_without_redis_a_users_streams_are_counted_in_each_process(
    server: WebServer, answer: Writing, redis_server: RunningRedis
) -> None:
    redis_server.stop()
    try:
        streams = [watch(server.url, path=answer.path) for _ in range(5)]
        readers = [stream.__enter__() for stream in streams]
        assert [reader.response.status_code for reader in readers] == [200] * 4 + [429]
        for stream in streams:
            stream.__exit__(None, None, None)

        def is_let_in() -> bool:
            with watch(server.url, path=answer.path) as again:
                return again.response.status_code == 200

        wait_until(is_let_in, "a place")
    finally:
        redis_server.start()


def test_a_stream_goes_on_by_announcements_when_redis_is_back(
    server: WebServer, answer: Writing, redis_server: RunningRedis, client: redis.Redis
) -> None:
    reading = Reading(server, answer.path)
    with watch(server.url, path=answer.path) as reader:
        answer.say("a")
        while not reading.events:
            reading.take(reader.block())
        redis_server.stop()
        answer.say("b", announced=False)
        while len(reading.events) < 2:
            reading.take(reader.block())
        redis_server.start()
        answer.say("c", announced=False)
        while len(reading.events) < 3:
            reading.take(reader.block())
        name = f"message:{answer.id}"
        wait_until(lambda: dict(client.pubsub_numsub(name))[name.encode()] == 1, "a subscription")
        answer.say("d")
        answer.end()
        for block in reader.rest():
            reading.take(block)
    assert text_of(reading.events) == "abcd"
    assert ": polling" in reading.comments


def test_postgres_away_refuses_new_streams_and_open_ones_wait(
    server: WebServer, answer: Writing, postgres_server: RunningPostgres
) -> None:
    reading = Reading(server, answer.path)
    answer.say("a")
    with watch(server.url, path=answer.path) as reader:
        while not reading.events:
            reading.take(reader.block())
        with postgres_server.away():
            with watch(server.url, path=answer.path) as refused:
                assert refused.response.status_code == 503
                assert refused.response.headers["retry-after"].isdigit()
            answer.announce([{"type": "answer", "answer": "?"}], 7)  # a gap, which can't be filled
            while reading.comments.count(": keepalive") < 2:
                reading.take(reader.block())
        wait_until(lambda: _writes(answer), "Postgres")
        answer.end()
        for block in reader.rest():
            reading.take(block)
    assert text_of(reading.events) == "ab"
    assert reading.is_over


def _writes(answer: Writing) -> bool:
    try:
        answer.say("b")
    except psycopg.OperationalError:
        return False
    return True


def test_a_lost_writer_is_told_once_however_many_readers_race(
    asgi: WebServer, answer: Writing, database_url: str
) -> None:
    answer.say("a")
    answer.fall_silent()
    readings = [Reading(asgi, answer.path) for _ in range(20)]
    with ThreadPoolExecutor(len(readings)) as threads:
        list(threads.map(lambda reading: reading.read(100), readings))
    assert all(len(r.events) == 2 and r.events[-1]["code"] == "producer_lost" for r in readings)
    with psycopg.connect(database_url) as connection:
        [(number,)] = connection.execute("SELECT count(*) FROM message_events").fetchall()
    assert number == 2
