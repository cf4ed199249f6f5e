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
    on_reply: Callable[[Any], None] | None = None  # called with the reply, however late it comes

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
            delivered = self._drain()
        self._tell(delivered)
        return delivered[-1][1] if delivered and delivered[-1][0] is step else None

    def flush(self) -> int:
        """Tries to deliver what waits; returns how many steps still do."""
        with self._lock:
            delivered = self._drain()
        self._tell(delivered)
        return len(self._pending)

    def _drain(self) -> list[tuple[Step, Any]]:
        """Delivers in order until one can't be; returns what was delivered, with the replies."""
        delivered: list[tuple[Step, Any]] = []
        while self._pending and time.monotonic() >= self._closed_until:
            step = self._pending[0]
            try:
                delivered.append((step, step.run(self._client())))
            except (redis.ConnectionError, redis.TimeoutError) as error:
                self._closed_until = time.monotonic() + CIRCUIT_SECONDS
                if step.retry_args is not None:
                    step.args = step.retry_args
                log.warning("Redis is away (%s); %d steps wait", error, len(self._pending))
                break
            except redis.ResponseError:
                self.lost += 1
                log.exception("Redis refused a step; it is lost")
            self._pending.popleft()
        return delivered

    @staticmethod
    def _tell(delivered: list[tuple[Step, Any]]) -> None:
        for step, reply in delivered:
            if step.on_reply is not None:
                step.on_reply(reply)

    def _drop_one(self) -> None:
        lowest = min(step.priority for step in self._pending)
        for index, step in enumerate(self._pending):
            if step.priority == lowest:
                del self._pending[index]
                break
        self.lost += 1
        log.error("The outbox is full: %d steps lost so far", self.lost)


def deliver(step: Step) -> Any:
    """Runs a step now, for callers who must know, and returns its reply; nothing is kept for later.

    Raises:
        RedisUnavailable: Redis did not answer. The step may have been done all the same.
    """
    try:
        reply = step.run(redis_client(get_settings().require_redis_url()))
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise RedisUnavailable from error
    if step.on_reply is not None:
        step.on_reply(reply)
    return reply


def outbox() -> Outbox:
    """Returns this process's outbox. A forked child has its own: its parent keeps what waits."""
    return _outbox(os.getpid())


@cache
def _outbox(pid: int) -> Outbox:
    return Outbox(lambda: redis_client(get_settings().require_redis_url()))
