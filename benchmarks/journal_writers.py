"""The writers of `benchmarks/journal.py`: one process that writes many answers at a steady rate.

Three ways: ours; one commit an event; one batch an answer, of 16 events or 100 ms, whichever comes
first. All announce after the commit. An event carries the moment at which it was due.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Protocol
from uuid import uuid4

import psycopg

from shared.answers import Answer, answer
from shared.connections import app_redis, postgres
from shared.message_announcer import told
from shared.messages import create_message
from shared.settings import get_settings

USER = "benchmark"
WORDS = "and so it goes on, word by word,"
BATCH_EVENTS = 16
BATCH_SECONDS = 0.1
PEER_THREADS = 8  # each with a connection
OUR_THREADS = 2


class Way(Protocol):
    """How one thread's answers are written."""

    def emit(self, index: int, due_ns: int) -> None: ...
    def written(self) -> int: ...
    def close(self) -> None: ...


class Ours:
    """Answers as any author writes them."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._blocks = [answer(message_id, USER) for message_id in ids]
        self._answers: list[Answer] = [block.__enter__() for block in self._blocks]
        self._count = 0

    def emit(self, index: int, due_ns: int) -> None:
        self._answers[index].emit("answer", {"answer": WORDS, "at": due_ns})
        self._count += 1

    def written(self) -> int:
        return self._count - sum(a._writing.amount.events for a in self._answers)

    def close(self) -> None:
        for block in self._blocks:
            block.__exit__(None, None, None)


class Batches:
    """A batch for each answer; of one event, that is one commit an event."""

    def __init__(self, ids: Sequence[str], events: int, seconds: float) -> None:
        self._ids = ids
        self._events, self._seconds = events, seconds
        self._connection = psycopg.connect(get_settings().require_database_url(), autocommit=True)
        self._pending: list[list[str]] = [[] for _ in ids]
        self._since = [0.0] * len(ids)
        self._last = [-1] * len(ids)
        self._count = 0

    def emit(self, index: int, due_ns: int) -> None:
        pending, now = self._pending[index], time.monotonic()
        if not pending:
            self._since[index] = now
        pending.append(f'{{"type":"answer","answer":"{WORDS}","at":{due_ns}}}')
        if len(pending) >= self._events or now - self._since[index] >= self._seconds:
            self._flush(index)

    def _flush(self, index: int) -> None:
        payloads, self._pending[index] = self._pending[index], []
        last, message_id = self._last[index], self._ids[index]
        self._connection.execute(
            "INSERT INTO message_events (day, message_id, sequence_no, event_type, payload)"
            " SELECT (now() AT TIME ZONE 'UTC')::date, %s, %s + n, 'answer', payload::json"
            " FROM unnest(%s::text[]) WITH ORDINALITY AS e(payload, n)",
            (message_id, last, payloads),
        )
        ((channel, said),) = told(message_id, last, [text.encode() for text in payloads])
        app_redis().publish(channel, said)
        self._last[index] = last + len(payloads)
        self._count += len(payloads)

    def written(self) -> int:
        return self._count

    def close(self) -> None:
        self._connection.close()


def make(way: str, ids: Sequence[str]) -> Way:
    """The way of that name."""
    match way:
        case "ours":
            return Ours(ids)
        case "events":
            return Batches(ids, 1, 0.0)
        case "batches":
            return Batches(ids, BATCH_EVENTS, BATCH_SECONDS)
    raise ValueError(way)


def drive(way: Way, own: range, answers: int, rate: float, began: float, seconds: float) -> None:
    """Emits each event when it is due, or as soon as the way takes it, until the time is over."""
    for n in range(int(rate * seconds)):
        for place, number in enumerate(own):
            due = began + (n + number / answers) / rate
            now = time.monotonic()
            if now > began + seconds:
                return
            if due > now:
                time.sleep(due - now)
            way.emit(place, int(due * 1e9))


def write(name: str, answers: int, rate: float, seconds: float) -> dict[str, float]:
    """Writes so many answers for so long."""
    with postgres() as connection:
        ids = [create_message(connection, USER, uuid4()) for _ in range(answers)]
    threads = min(answers, OUR_THREADS if name == "ours" else PEER_THREADS)
    shares = [range(answers)[n::threads] for n in range(threads)]
    ways = [make(name, [ids[number] for number in share]) for share in shares]
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    drivers = [
        threading.Thread(target=drive, args=(way, share, answers, rate, began, seconds))
        for way, share in zip(ways, shares, strict=True)
    ]
    for driver in drivers:
        driver.start()
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    written = sum(way.written() for way in ways)
    took = time.monotonic() - began
    print(json.dumps({"events_per_s": written / took}), flush=True)
    sys.stdin.readline()
    for driver in drivers:
        driver.join()
    for way in ways:
        way.close()
    return {}


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
