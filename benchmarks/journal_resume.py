"""How long a whole answer takes to be read again, over HTTP, until its last byte."""

from __future__ import annotations

import json
import socket
import time
from statistics import median

import psycopg

from benchmarks.eventstream import ANONYMOUS, NOBODY_SIGNS_IN, web
from benchmarks.systems import http_get
from shared.message_journal import NewEvent, Part, append
from shared.messages import begin_attempt, create_message
from worker.cli.embedded import LOOPBACK

EVENTS = 2000
TIMES = 50
TEXT = "x" * 180  # makes events of about 256 bytes


def resume_cost(database_url: str, redis_url: str) -> dict[str, float]:
    """An answer that is over, read from its beginning; one client at a time."""
    message_id = _write_answer(database_url)
    request = http_get(f"/api/messages/{message_id}/events", 0)
    with web(redis_url, NOBODY_SIGNS_IN, database_url) as (_, port):
        seconds = [_read_all(port, request) for _ in range(TIMES)]
    return {"resume.events": EVENTS, "resume.ms": 1000 * median(seconds)}


def _write_answer(database_url: str) -> str:
    words = json.dumps({"type": "answer", "answer": TEXT}, separators=(",", ":")).encode()
    events = [NewEvent("answer", words)] * (EVENTS - 1) + [NewEvent("end", b'{"type":"end"}')]
    with psycopg.connect(database_url, autocommit=True) as connection:
        message_id = create_message(connection, ANONYMOUS)
        attempt = begin_attempt(connection, ANONYMOUS, message_id)
        append(connection, [Part(message_id, attempt.number, -1, events, status="finished")])
    return message_id


def _read_all(port: int, request: bytes) -> float:
    """Seconds from connecting until the server has closed the connection."""
    began = time.perf_counter()
    with socket.create_connection((LOOPBACK, port)) as client:
        client.sendall(request)
        received = b"".join(iter(lambda: client.recv(262_144), b""))
    took = time.perf_counter() - began
    arrived = received.count(b"\ndata: ")
    if arrived != EVENTS:
        raise AssertionError(f"{arrived} of {EVENTS} events arrived")
    return took
