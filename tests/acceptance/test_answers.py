"""A question and its answer through real processes: web, a worker, Redis and Postgres."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from shared.settings import get_settings
from tests.answers import USER, text_of
from tests.ingested import ingest
from tests.servers import WebServer, celery_worker, web_server
from tests.sse import watch
from worker.cli.children import Child

SENTENCES = [f"Heron number {n} waits patiently at the pond for its fish." for n in range(20)]
QUESTION = {"question": "What does the heron wait for?"}


@pytest.fixture
def server(
    redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WebServer]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("DATABASE_URL", database_url)
    get_settings.cache_clear()
    ingest({"herons.txt": " ".join(SENTENCES).encode()}, user=USER)
    with web_server("asgi", redis_url, database_url) as server:
        yield server


@contextmanager
def answering(redis_url: str, database_url: str, words_per_second: int) -> Iterator[Child]:
    pace = str(words_per_second)
    with celery_worker(
        redis_url, database_url, "--concurrency", "1", CHAT_WORDS_PER_SECOND=pace
    ) as worker:
        yield worker


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10, trust_env=False) as client:
        yield client


def ask(http: httpx.Client, server: WebServer) -> str:
    answer = http.post(f"{server.url}/api/messages", json=QUESTION)
    assert answer.status_code == 202
    return f"{server.url}/api/messages/{answer.json()['message_id']}"


def events_of(url: str, cursor: str | None = None) -> list[dict[str, Any]]:
    """All events until the stream ends."""
    with watch(url, cursor, path="/events") as reader:
        return [block.event for block in reader.rest() if block.event]


def test_a_question_is_answered_and_a_dropped_connection_resumed(
    server: WebServer, http: httpx.Client, redis_url: str, database_url: str
) -> None:
    with answering(redis_url, database_url, words_per_second=40):
        url = ask(http, server)
        with watch(url, path="/events") as reader:
            first = reader.events(8)
        rest = events_of(url, "7")
        assert first[0]["type"] == "source"
        assert rest[-1] == {"type": "end"}
        assert [*first, *rest] == events_of(url)
        state = http.get(url).json()
        assert state["status"] == "finished"
        assert state["text"] == text_of([*first, *rest])
        assert "waits patiently at the pond" in state["text"]


def test_an_answer_is_stopped_while_it_is_written(
    server: WebServer, http: httpx.Client, redis_url: str, database_url: str
) -> None:
    with answering(redis_url, database_url, words_per_second=5):
        url = ask(http, server)
        with watch(url, path="/events") as reader:
            reader.events(3)
            assert http.delete(url).json()["status"] == "writing"
            ended = reader.until("end")[-1]
            assert ended == {"type": "end", "stopped": True}
            assert reader.rest() == []
        assert http.get(url).json()["status"] == "stopped"


def test_an_answer_whose_worker_child_is_killed_begins_anew(
    server: WebServer, http: httpx.Client, redis_url: str, database_url: str
) -> None:
    with answering(redis_url, database_url, words_per_second=40) as worker:
        url = ask(http, server)
        with watch(url, path="/events") as reader:
            reader.events(8)
            [child] = psutil.Process(worker.pid).children()
            os.kill(child.pid, signal.SIGKILL)
            got = reader.until("end")
            reader.rest()
    assert [event["type"] for event in got].count("restart") == 1
    assert text_of(got) == http.get(url).json()["text"]
    with psycopg.connect(database_url) as connection:
        attempts = connection.execute("SELECT attempt FROM messages").fetchone()
    assert attempts == (2,)
