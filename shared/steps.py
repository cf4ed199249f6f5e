"""A step on its way to Redis: what one run of a Lua step needs, and what a failure of it means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import redis
from redis.exceptions import NoScriptError

from shared.connections import AnyRedis, app_redis, ask_together
from shared.errors import RedisUnavailable
from shared.event_counts import event_counts
from shared.scripts import Script

# Refusals that pass: memory, a failover, a full disk, a long script, loading, a missing right.
_PASSING = (
    "OOM",
    "READONLY",
    "MISCONF",
    "BUSY",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOPERM",
    "ASK ",
    "MOVED ",
)
_PASSING_ERRORS = (
    redis.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.NoPermissionError,
    redis.exceptions.ClusterDownError,  # redis-py leaves their first words out
    redis.exceptions.MasterDownError,
    redis.exceptions.TryAgainError,
)


def is_away(error: Exception) -> bool:
    """Whether Redis can't do a step now, but may later."""
    if isinstance(error, redis.ResponseError):
        return isinstance(error, _PASSING_ERRORS) or any(word in str(error) for word in _PASSING)
    return isinstance(error, (redis.ConnectionError, redis.TimeoutError))


class Priority(IntEnum):
    """What is dropped first when the outbox overflows: the lowest."""

    PROGRESS = 0
    NORMAL = 1
    TERMINAL = 2


def _no_events(reply: Any) -> Iterable[str]:
    return ()


@dataclass(slots=True)
class Step:
    """One run of a Lua step. `retry_args` replaces `args` from the second try on."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Any]
    priority: Priority = Priority.NORMAL
    retry_args: Sequence[Any] | None = None
    hints: Sequence[Sequence[Any]] = ()  # commands sent along, whose loss does no harm
    events: Callable[[Any], Iterable[str]] = _no_events  # the types its reply says it appended
    tried: bool = False

    def run(self, client: AnyRedis) -> Any:
        """Runs the step now, in one round trip, and returns its reply; raises redis-py's errors."""
        reply = self._run(client)
        event_counts().add(self.events(reply))
        return reply

    def _run(self, client: AnyRedis) -> Any:
        args = self.retry_args if self.tried and self.retry_args is not None else self.args
        self.tried = True  # from here on it may have been done, whatever comes back
        if not self.hints:
            return self.script.run(client, self.keys, args)
        if isinstance(client, redis.RedisCluster):  # a hint may be another shard's
            for hint in self.hints:
                client.execute_command(*hint)  # type: ignore[no-untyped-call]
            return self.script.run(client, self.keys, args)
        run = ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *args)
        reply = ask_together(client, [*self.hints, run])[-1]
        if isinstance(reply, NoScriptError):
            return self.script.run(client, self.keys, args)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def size_bytes(self) -> int:
        """About what it takes in memory while it waits."""
        return sum(len(arg) if isinstance(arg, str) else 8 for arg in self.args)


def deliver(step: Step) -> Any:
    """Runs a step now, for callers who must know, and returns its reply; nothing is kept for later.

    Raises:
        RedisUnavailable: Redis did not answer. The step may have been done all the same.
    """
    with reachable_redis() as client:
        return step.run(client)


@contextmanager
def reachable_redis() -> Iterator[AnyRedis]:
    """Lends the client of the application's Redis.

    Raises:
        RedisUnavailable: Redis can't do what it was asked now, but may later.
    """
    try:
        yield app_redis()
    except redis.RedisError as error:
        if is_away(error):
            raise RedisUnavailable from error
        raise
