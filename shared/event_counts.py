"""How many events were appended, by type, for whoever looks after the whole.

What a process appends it counts in memory; every two seconds of which something was counted, its
counts go into a hash that all processes share, one for each ten seconds. What a process has not
handed on when it is killed, or while Redis is away, is not counted.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable
from functools import cache

import redis

from shared import keys
from shared.connections import app_redis, ask_each, pairs

log = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0
BUCKET_SECONDS = 10
BUCKETS = 6  # that are read: the last minute
KEPT_SECONDS = 180
MOST_TYPES = 200  # that one process tells apart, and as many are told of all processes
OTHERS = "others"


class EventCounts:
    """The counts of one process that are not handed on yet. Thread-safe."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def add(self, types: Iterable[str]) -> None:
        """Counts events; never fails, since what is counted is done. A thread hands them on."""
        with self._lock:
            for event_type in types:
                is_known = event_type in self._counts or len(self._counts) < MOST_TYPES
                self._counts[event_type if is_known else OTHERS] += 1
            if self._counts and self._timer is None:
                self._timer = self._started_timer()

    def flush(self) -> None:
        """Hands the counts on. Where Redis is away they are dropped: a rate is of now."""
        with self._lock:
            counts, self._counts, self._timer = self._counts, Counter(), None
        if counts:
            self._hand_on(counts)

    def forget(self) -> None:
        """Drops the counts, and hands nothing on."""
        with self._lock:
            self._counts.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _started_timer(self) -> threading.Timer | None:
        timer = threading.Timer(FLUSH_SECONDS, self.flush)
        timer.daemon = True
        timer.name = "eventstream-counts"
        try:
            timer.start()
        except RuntimeError:  # no more threads, or the interpreter ends: they wait for the next
            return None  # without a line: a log handler that publishes would find the lock held
        return timer

    def _hand_on(self, counts: Counter[str]) -> None:
        key = keys.event_counts(_bucket_of(time.time()))
        commands = [("HINCRBY", key, name, number) for name, number in counts.items()]
        try:
            ask_each(app_redis(), [*commands, ("EXPIRE", key, KEPT_SECONDS)])
        except (redis.RedisError, OSError) as error:
            log.info("events are not counted, since Redis is away: %s", error)


def read_event_counts(now: float) -> tuple[float, dict[str, list[int]]]:
    """The events of the last minute, by type, in stretches of ten seconds, the oldest first.

    The last one is not over, and the first one began before: the first value says how much of it is
    of the last minute. The types that are not among the most frequent are counted together.

    Raises:
        redis.RedisError: Redis did not answer.
    """
    latest = _bucket_of(now)
    wanted = range(latest - BUCKETS, latest + 1)
    commands = [("HGETALL", keys.event_counts(bucket)) for bucket in wanted]
    found: dict[str, list[int]] = {}
    for place, reply in enumerate(ask_each(app_redis(), commands)):
        for name, number in pairs(reply):
            found.setdefault(name.decode(), [0] * len(wanted))[place] = int(number)
    return latest + 1 - now / BUCKET_SECONDS, _most_frequent(found)


def _most_frequent(counts: dict[str, list[int]]) -> dict[str, list[int]]:
    others = counts.pop(OTHERS, None)
    by_number = sorted(counts, key=lambda name: (-sum(counts[name]), name))
    together = [counts[name] for name in by_number[MOST_TYPES:]] + ([others] if others else [])
    kept = {name: counts[name] for name in by_number[:MOST_TYPES]}
    return kept | (
        {OTHERS: [sum(numbers) for numbers in zip(*together, strict=True)]} if together else {}
    )


def _bucket_of(moment: float) -> int:
    return int(moment // BUCKET_SECONDS)


@cache
def event_counts() -> EventCounts:
    """Returns this process's counts."""
    return EventCounts()


def _flush_at_exit() -> None:
    if event_counts.cache_info().currsize:
        event_counts().flush()


# A child's counts, and their lock, are new: a thread of the parent may have held the old one.
os.register_at_fork(after_in_child=event_counts.cache_clear)
atexit.register(_flush_at_exit)
