"""Fairness among connections: a place for each, held by a lease, and a budget for replays.

Both are exact across processes and machines, since Redis decides in one step. A lease that its
holder does not renew ends by itself: a killed process gives its places back within three
keepalives.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis

from shared import keys
from shared.encoding import now_iso, to_json
from shared.errors import RedisUnavailable
from shared.scripts import script
from shared.settings import Settings
from web.hub import Hub
from web.link import Link, checked
from web.refusal import Refusal
from web.request import Request
from web.watchers import Watchers

log = logging.getLogger(__name__)

KEEPALIVES_PER_LEASE = 3
LONGEST_AGENT = 200

Observe = Callable[[str], None]


def lease_ms(settings: Settings) -> int:
    """How long a place is kept without being renewed."""
    return math.ceil(settings.sse_keepalive_seconds * KEEPALIVES_PER_LEASE * 1000)


def too_many_connections(seconds: int) -> Refusal:
    """429: the user has as many open streams as there may be."""
    message = "There are too many open streams already."
    return Refusal(429, "too_many_connections", message, retry_after_seconds=seconds)


def too_many_replays(seconds: int) -> Refusal:
    """429: the user's budget is spent, until then."""
    message = "There were too many replays. Please wait a little."
    return Refusal(429, "too_many_replays", message, retry_after_seconds=seconds)


def details(request: Request, **more: str) -> str:
    """What is known of a connection at its start, as JSON."""
    agent = request.headers.get("user-agent", "")[:LONGEST_AGENT]
    known = {"since": now_iso(), "address": request.address, "user_agent": agent}
    return to_json(known | more)


class Place:
    """One connection's place among those of its user.

    Args:
        hub: knows the server that holds the user's keys.
        settings: the process's.
        user_id: whose connection it is.
        details: what is known of it at its start, as JSON.
        watchers: is told of it, from its admission until it is given back.
    """

    __slots__ = (
        "_details",
        "_hub",
        "_is_told",
        "_settings",
        "_taken",
        "_watchers",
        "id",
        "user_id",
    )

    def __init__(
        self, hub: Hub, settings: Settings, user_id: str, details: str, watchers: Watchers
    ) -> None:
        self.id = secrets.token_hex(8)
        self.user_id = user_id
        self._hub = hub
        self._settings = settings
        self._details = details
        self._watchers = watchers
        self._is_told = False
        self._taken = False

    async def take(self, cursor: str | None, observe: Observe, at: str = "") -> str:
        """Takes the place, and charges a replay where there is a cursor.

        Args:
            cursor: a well-formed one, or None to begin at the journal's end.
            observe: takes the user stream's last id as the reply arrives.
            at: where it stands, to be shown to its user, if not at the cursor.

        Returns:
            The user stream's last id.

        Raises:
            Refusal: 429, with the time after which to come back.
            RedisUnavailable: Redis did not answer.
        """
        settings = self._settings
        args = [
            self.id,
            lease_ms(settings),
            settings.sse_max_concurrent_per_user,
            settings.events_replay_budget_requests_per_window,
            settings.events_replay_budget_window_seconds * 1000,
            cursor or "",
            self._details,
            at,
        ]
        step_keys = [*self._keys(), keys.replay(self.user_id), keys.stream(self.user_id)]

        def arrive(reply: list[Any]) -> str:
            verdict, answer = reply
            if verdict != b"ok":
                self._taken = False
                refuse = {b"connections": too_many_connections, b"replays": too_many_replays}
                raise refuse[verdict](math.ceil(answer / 1000))
            self._tell()
            last_id: str = answer.decode()
            observe(last_id)
            return last_id

        self._taken = True  # as far as we know: a reply that is lost may have been a yes
        return await self.link.run(script("admit"), step_keys, args, arrive)

    def renew(
        self, cursor: str, *, lags: bool, observe: Observe, is_over: Callable[[], None]
    ) -> None:
        """Keeps the place, without waiting.

        Args:
            cursor: where it stands, to be shown to its user.
            lags: whether it is catching up.
            observe: takes the user stream's last id as the reply arrives.
            is_over: called where somebody asked for the end of this connection.
        """
        settings = self._settings
        mark = keys.ended_connection(self.user_id, self.id)
        step_keys = [*self._keys(), keys.stream(self.user_id), mark]
        ttl_ms = settings.events_stream_ttl_seconds * 1000

        def take(reply: Any) -> None:
            try:
                last_id, is_ended = checked(reply)
            except RedisUnavailable as error:
                log.info("a place could not be renewed (%s)", error)
            except redis.ResponseError as error:
                log.warning("a place can't be renewed (%s)", error)
                observe("")  # where the journal ends is not known: whoever is live reads it
            else:
                self._tell()  # one that could not be taken at the start is now
                observe(last_id.decode())
                if is_ended:
                    is_over()

        args = [self.id, lease_ms(settings), ttl_ms, f"{cursor} {int(lags)}", self._details]
        with suppress(RedisUnavailable):  # the next one is soon enough
            self.link.post(script("renew"), step_keys, args, take)

    def give_back(self) -> None:
        """Gives the place back at once; while Redis is away, the lease ends by itself."""
        if self._is_told:
            self._is_told = False
            self._watchers.leave(self.user_id)
        if not self._taken:
            return
        self._taken = False
        connections, details = self._keys()
        with suppress(RedisUnavailable):
            self.link.send("ZREM", connections, self.id)
            self.link.send("HDEL", details, self.id, f"{self.id}.at")

    def _tell(self) -> None:
        if self._taken and not self._is_told:  # else it was given back before the reply came
            self._is_told = True
            self._watchers.enter(self.user_id)

    @property
    def link(self) -> Link:
        """The link to the server that holds the user's keys; raises RedisUnavailable."""
        return self._hub.link(keys.topic(self.user_id))

    def _keys(self) -> list[str]:
        return [keys.connections(self.user_id), keys.connection_details(self.user_id)]
