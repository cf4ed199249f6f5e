"""Steps on their way to Redis: in order, once each, without ever holding up or failing a task.

A step that can't be delivered waits in memory, everything after it queues behind, and all leave
with the next send, the heartbeat, or when the process ends. The wait is bounded in number and in
bytes: progress is dropped first, the ends of runs last, and what is lost is counted and logged.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import cache
from typing import Any

import redis

from shared.connections import AnyRedis, app_redis
from shared.errors import EventStreamError
from shared.steps import Step, is_away

log = logging.getLogger(__name__)

LIMIT = 10_000
LIMIT_BYTES = 32 * 1024 * 1024
CIRCUIT_SECONDS = 1.0
DRAIN_SECONDS = 0.1  # that one call spends on what waited before it
CLOSE_SECONDS = 2.0

# What a step raises that can't be delivered as it is. A time limit's exception is none of these
# and passes: it is meant for the task.
_REFUSALS = (redis.RedisError, EventStreamError, OSError, TypeError, ValueError)


class Outbox:
    """The steps of one process that are not delivered yet. Thread-safe."""

    def __init__(
        self,
        client: Callable[[], AnyRedis],
        limit: int = LIMIT,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        self._client = client
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._pending: deque[Step] = deque()
        self._bytes = 0
        self._lock = threading.RLock()
        self._closed_until = 0.0  # the circuit: no try before then (monotonic seconds)
        self.lost = 0

    def __len__(self) -> int:
        return len(self._pending)

    def send(self, step: Step) -> Any | None:
        """Delivers a step after all that wait, and returns its reply; None when it has to wait.

        Waiting steps take at most about `DRAIN_SECONDS` of a call; the rest goes with the next.
        """
        with self._lock:
            if self._pending:
                self._keep(step)
                return self._drain(step)
            done, reply = False, None
            try:
                if self._closed_until <= time.monotonic():
                    done, reply = self._try(step)
            finally:  # also where a time limit's exception passes
                if not done:
                    self._keep(step, first=True)
            return reply

    def flush(self) -> int:
        """Tries to deliver what waits, as long as a send would; returns how many still do."""
        with self._lock:
            self._drain()
            return len(self._pending)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Delivers what waits before the process ends, within `seconds`; logs what is lost."""
        deadline = time.monotonic() + seconds
        while self.flush() and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, max(0.0, self._closed_until - time.monotonic())))
        with self._lock:
            if self._pending:
                log.error(
                    "%d steps are lost, since Redis is away and this process ends: %s",
                    len(self._pending),
                    _summary(self._pending),
                )
                self.lost += len(self._pending)
                self._pending.clear()
                self._bytes = 0

    def _keep(self, step: Step, *, first: bool = False) -> None:
        """Has a step wait; `first` where it was tried before what waits by now was sent."""
        if first:
            self._pending.appendleft(step)
        else:
            self._pending.append(step)
        self._bytes += step.size_bytes()
        while len(self._pending) > self._limit or self._bytes > self._limit_bytes:
            self._drop_one()

    def _drain(self, wanted: Step | None = None) -> Any | None:
        """Returns the reply to the wanted step, None when it was dropped or has to wait."""
        found = None
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._pending and self._closed_until <= time.monotonic() < deadline:
            step = self._pending.popleft()  # a log handler that publishes must not find it
            done = False
            try:
                done, reply = self._try(step)
            finally:
                if done:
                    self._bytes -= step.size_bytes()
                else:
                    self._pending.appendleft(step)
            if step is wanted:
                found = reply
        return found

    def _try(self, step: Step) -> tuple[bool, Any | None]:
        """Returns whether the step is over, and its reply: None for one that was refused."""
        try:
            return True, step.run(self._client())
        except _REFUSALS as error:
            if is_away(error):
                self._closed_until = time.monotonic() + CIRCUIT_SECONDS
                log.warning("Redis is away (%s); %d steps wait", error, len(self._pending) + 1)
                return False, None
            self.lost += 1
            log.exception("a step can't be delivered as it is; it is lost")
            return True, None

    def _drop_one(self) -> None:
        lowest = min(step.priority for step in self._pending)
        index = next(i for i, step in enumerate(self._pending) if step.priority == lowest)
        self._bytes -= self._pending[index].size_bytes()
        del self._pending[index]
        self.lost += 1
        if self.lost == 1 or self.lost % 1000 == 0:
            log.error("The outbox is full: %d steps lost so far", self.lost)


def _summary(steps: deque[Step]) -> str:
    """Whose steps they are: `user:{alice}:stream (3), ...`."""
    owners = Counter(step.keys[0] for step in steps)
    shown = [f"{key} ({count})" for key, count in owners.most_common(20)]
    return ", ".join(shown + (["..."] if len(owners) > len(shown) else []))


@cache
def outbox() -> Outbox:
    """Returns this process's outbox. A forked child has its own: its parent keeps what waits."""
    return Outbox(app_redis)


def _close_at_exit() -> None:
    if outbox.cache_info().currsize:
        outbox().close()


# A child's outbox, and its lock, are new: a thread of the parent may have held the old one.
os.register_at_fork(after_in_child=outbox.cache_clear)
atexit.register(_close_at_exit)
