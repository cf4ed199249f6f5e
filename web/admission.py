"""Fairness among connections: a lease for each, and a budget for replays.

Both are exact across processes and machines, since Redis decides in one step. A lease that its
holder does not renew ends by itself: a killed process gives its places back within three
keepalives.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis
import redis.asyncio

from shared import keys
from shared.errors import RedisUnavailable
from shared.scripts import script
from shared.settings import Settings
from web.refusal import Refusal

log = logging.getLogger(__name__)

KEEPALIVES_PER_LEASE = 3
MESSAGES = {
    "connections": ("too_many_connections", "There are too many open streams already."),
    "replays": ("too_many_replays", "There were too many replays. Please wait a little."),
}


class Lease:
    """One connection's place among those of its user."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings, user_id: str) -> None:
        self._client = client
        self._settings = settings
        self._user_id = user_id
        self._id = secrets.token_hex(8)
        self._lease_ms = math.ceil(settings.sse_keepalive_seconds * KEEPALIVES_PER_LEASE * 1000)

    async def take(self, *, replay: bool) -> None:
        """Takes the place, and charges a replay.

        Raises:
            Refusal: 429, with the time after which to come back.
            RedisUnavailable: Redis did not answer.
        """
        settings = self._settings
        step_keys = [keys.connections(self._user_id), keys.replay(self._user_id)]
        args = [
            self._id,
            self._lease_ms,
            settings.sse_max_concurrent_per_user,
            "1" if replay else "0",
            settings.events_replay_budget_requests_per_window,
            settings.events_replay_budget_window_seconds * 1000,
        ]
        try:
            verdict, wait_ms = await script("admit").run_async(self._client, step_keys, args)
        except redis.RedisError as error:
            raise RedisUnavailable from error
        if verdict != b"ok":
            code, message = MESSAGES[verdict.decode()]
            raise Refusal(429, code, message, retry_after_seconds=math.ceil(wait_ms / 1000))

    async def renew(self) -> str | None:
        """Keeps the place; returns the last id of the user's stream, None when Redis is away."""
        step_keys = [keys.connections(self._user_id), keys.stream(self._user_id)]
        ttl_ms = self._settings.events_stream_ttl_seconds * 1000
        try:
            last: bytes = await script("renew").run_async(
                self._client, step_keys, [self._id, self._lease_ms, ttl_ms]
            )
        except redis.RedisError as error:
            log.info("a lease could not be renewed (%s)", error)
            return None
        return last.decode()

    async def give_back(self) -> None:
        """Gives the place back at once."""
        try:
            await self._client.zrem(keys.connections(self._user_id), self._id)
        except redis.RedisError as error:
            log.info("a lease ends by itself (%s)", error)


@asynccontextmanager
async def admitted(
    client: redis.asyncio.Redis, settings: Settings, user_id: str, *, replay: bool
) -> AsyncIterator[Lease]:
    """Holds a lease for the length of the block; see `Lease.take` for what it raises."""
    lease = Lease(client, settings, user_id)
    await lease.take(replay=replay)
    try:
        yield lease
    finally:
        await lease.give_back()
