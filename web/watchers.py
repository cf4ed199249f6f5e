"""Which users this process serves streams to, told to whoever looks after all processes.

An index of hints: a user's own leases are the truth. Each process has an entry of its own for each
of its users, which it takes back when the last of the user's streams ends, and which ends by
itself when the process is killed. A user's first stream costs two commands and the last one's end
one; a renewal costs none: the entries of one set after the other are scored anew, each in three.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from contextlib import suppress

from shared import keys
from shared.errors import RedisUnavailable
from web.hub import Hub


class Watchers:
    """Made inside the loop that it serves; `stop` it there.

    Args:
        hub: knows the servers that hold the index.
        keepalive_seconds: how often each entry is scored anew.
        lease_ms: how long an entry lives that is not.
    """

    def __init__(self, hub: Hub, keepalive_seconds: float, lease_ms: int) -> None:
        self._hub = hub
        self._lease_ms = lease_ms
        self._pause_seconds = keepalive_seconds / keys.OPEN_SHARDS
        self._process = secrets.token_hex(4)
        self._streams: list[Counter[str]] = [Counter() for _ in range(keys.OPEN_SHARDS)]
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0  # the set that is scored next

    def enter(self, user_id: str) -> None:
        """A stream of this user's was admitted."""
        number = keys.shard_of(user_id)
        self._streams[number][user_id] += 1
        if self._streams[number][user_id] == 1:
            self._score(number, [user_id])
        if self._timer is None:
            self._timer = self._loop.call_later(self._pause_seconds, self._turn)

    def leave(self, user_id: str) -> None:
        """One has ended."""
        number = keys.shard_of(user_id)
        self._streams[number][user_id] -= 1
        if not self._streams[number][user_id]:
            del self._streams[number][user_id]
            self._send("ZREM", keys.watchers(number), self._entry(user_id))

    def stop(self) -> None:
        """Scores nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        number, self._next = self._next, (self._next + 1) % keys.OPEN_SHARDS
        if self._streams[number]:
            self._score(number, list(self._streams[number]))
            lapsed_ms = _now_ms() - self._lease_ms  # clocks may differ by so much
            self._send("ZREMRANGEBYSCORE", keys.watchers(number), "-inf", lapsed_ms)
        is_needed = any(self._streams)
        self._timer = self._loop.call_later(self._pause_seconds, self._turn) if is_needed else None

    def _score(self, number: int, users: list[str]) -> None:
        ends_at = _now_ms() + self._lease_ms
        scored = [value for user_id in users for value in (ends_at, self._entry(user_id))]
        self._send("ZADD", keys.watchers(number), *scored)
        self._send("PEXPIRE", keys.watchers(number), 2 * self._lease_ms)

    def _entry(self, user_id: str) -> str:
        return f"{self._process} {user_id}"

    def _send(self, command: str, key: str, *values: object) -> None:
        with suppress(RedisUnavailable):  # a hint: the next turn is soon enough
            self._hub.link(key).send(command, key, *values)


def _now_ms() -> int:
    return int(time.time() * 1000)
