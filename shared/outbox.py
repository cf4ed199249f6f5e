"""Steps on their way to Redis: in order, once each, without ever holding up or failing a task.

A step that can't be delivered waits in memory, everything after it queues behind, and all leave
with the next send, the heartbeat, or at shutdown. The wait is bounded: progress is dropped first,
the ends of runs last, and what is lost is counted and logged.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

import redis
from redis.exceptions import NoScriptError

from shared.connections import redis_client
from shared.errors import RedisUnavailable
from shared.scripts import Script
from shared.settings import get_settings

log = logging.getLogger(__name__)

LIMIT = 10_000
CIRCUIT_SECONDS = 1.0


# Refusals that pass by themselves: memory, a failover, a full disk, a long script, loading.
_PASSING = (
    "OOM",
    "READONLY",
    "MISCONF",
    "BUSY",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
)


def is_away(error: Exception) -> bool:
    """Whether Redis can't do a step now, but may later."""
    if isinstance(error, redis.ResponseError):
        return any(word in str(error) for word in _PASSING) or isinstance(
            error, (redis.ReadOnlyError, redis.exceptions.OutOfMemoryError)
        )
    return isinstance(error, (redis.ConnectionError, redis.TimeoutError))


class Priority(IntEnum):
    """What is dropped first when the outbox overflows: the lowest."""

    PROGRESS = 0
    NORMAL = 1
    TERMINAL = 2


@dataclass(slots=True)
class Step:
    """One run of a Lua step. `retry_args` replaces `args` after a try whose reply was lost."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Any]
    priority: Priority = Priority.NORMAL
    retry_args: Sequence[Any] | None = None
    hint: tuple[str, dict[str, int]] | None = None  # a ZADD sent along, whose loss does no harm

    def run(self, client: redis.Redis) -> Any:
        """Runs the step now, in one round trip, and returns its reply; raises redis-py's errors."""
        if self.hint is None:
            return self.script.run(client, self.keys, self.args)
        pipeline = client.pipeline(transaction=False)
        pipeline.zadd(*self.hint)
        pipeline.evalsha(self.script.sha, len(self.keys), *self.keys, *self.args)
        reply = pipeline.execute(raise_on_error=False)[1]
        if isinstance(reply, NoScriptError):
            return self.script.run(client, self.keys, self.args)
        if isinstance(reply, Exception):
            raise reply
        return reply


class Outbox:
    """The steps of one process that are not delivered yet. Thread-safe."""

    def __init__(self, client: Callable[[], redis.Redis], limit: int = LIMIT) -> None:
        self._client = client
        self._limit = limit
        self._pending: deque[Step] = deque()
        self._lock = threading.RLock()
        self._closed_until = 0.0  # the circuit: no try before then (monotonic seconds)
        self.lost = 0

    def __len__(self) -> int:
        return len(self._pending)

    def send(self, step: Step) -> Any | None:
        """Delivers a step after all that wait, and returns its reply; None when it has to wait."""
        with self._lock:
            self._pending.append(step)
            if len(self._pending) > self._limit:
                self._drop_one()
            return self._drain()

    def flush(self) -> int:
        """Tries to deliver what waits; returns how many steps still do."""
        with self._lock:
            self._drain()
            return len(self._pending)

    def _drain(self) -> Any | None:
        """Returns the reply to the last pending step, None when it was not delivered."""
        reply = None
        while self._pending and time.monotonic() >= self._closed_until:
            step = self._pending[0]
            try:
                reply = step.run(self._client())
            except Exception as error:  # the publisher's edge: nothing here may fail a task
                if is_away(error):
                    self._wait(step, error)
                    return None
                reply = None
                self.lost += 1
                log.exception("a step can't be delivered as it is; it is lost")
            self._pending.popleft()
        return None if self._pending else reply

    def _wait(self, step: Step, error: Exception) -> None:
        self._closed_until = time.monotonic() + CIRCUIT_SECONDS
        if step.retry_args is not None:
            step.args = step.retry_args
        log.warning("Redis is away (%s); %d steps wait", error, len(self._pending))

    def _drop_one(self) -> None:
        lowest = min(step.priority for step in self._pending)
        for index, step in enumerate(self._pending):
            if step.priority == lowest:
                del self._pending[index]
                break
        self.lost += 1
        if self.lost == 1 or self.lost % 1000 == 0:
            log.error("The outbox is full: %d steps lost so far", self.lost)


def deliver(step: Step) -> Any:
    """Runs a step now, for callers who must know, and returns its reply; nothing is kept for later.

    Raises:
        RedisUnavailable: Redis did not answer. The step may have been done all the same.
    """
    try:
        return step.run(redis_client(get_settings().require_redis_url()))
    except redis.RedisError as error:
        if is_away(error):
            raise RedisUnavailable from error
        raise


def outbox() -> Outbox:
    """Returns this process's outbox. A forked child has its own: its parent keeps what waits."""
    return _outbox(os.getpid())


@cache
def _outbox(pid: int) -> Outbox:
    return Outbox(lambda: redis_client(get_settings().require_redis_url()))
