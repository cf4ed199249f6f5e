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

from shared import keys
from shared.errors import RedisUnavailable
from shared.pages import Page, page_commands, page_of
from shared.scripts import script
from shared.settings import Settings
from web.hub import Hub
from web.link import Link
from web.refusal import Refusal

log = logging.getLogger(__name__)

KEEPALIVES_PER_LEASE = 3
MESSAGES = {
    "connections": ("too_many_connections", "There are too many open streams already."),
    "replays": ("too_many_replays", "There were too many replays. Please wait a little."),
}

Observe = Callable[[str], None]


def lease_ms(settings: Settings) -> int:
    """How long a place is kept without being renewed."""
    return math.ceil(settings.sse_keepalive_seconds * KEEPALIVES_PER_LEASE * 1000)


class Place:
    """One connection's place among those of its user.

    Args:
        hub: knows the server that holds the user's keys.
        settings: the process's.
        user_id: whose connection it is.
        details: what is known of it at its start, as JSON.
    """

    __slots__ = ("_details", "_hub", "_settings", "_taken", "id", "user_id")

    def __init__(self, hub: Hub, settings: Settings, user_id: str, details: str) -> None:
        self.id = secrets.token_hex(8)
        self.user_id = user_id
        self._hub = hub
        self._settings = settings
        self._details = details
        self._taken = False

    async def take(self, cursor: str | None, observe: Observe) -> str:
        """Takes the place, and charges a replay where there is a cursor.

        Args:
            cursor: a well-formed one, or None to begin at the journal's end.
            observe: takes the journal's last id as the reply arrives.

        Returns:
            The journal's last id.

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
        ]
        step_keys = [*self._keys(), keys.replay(self.user_id), keys.stream(self.user_id)]

        def arrive(reply: list[Any]) -> str:
            verdict, answer = reply
            if verdict != b"ok":
                self._taken = False
                code, message = MESSAGES[verdict.decode()]
                raise Refusal(429, code, message, retry_after_seconds=math.ceil(answer / 1000))
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
            observe: takes the journal's last id as the reply arrives.
            is_over: called where somebody asked for the end of this connection.
        """
        settings = self._settings
        mark = keys.ended_connection(self.user_id, self.id)
        step_keys = [*self._keys(), keys.stream(self.user_id), mark]
        ttl_ms = settings.events_stream_ttl_seconds * 1000

        def take(reply: Any) -> None:
            if isinstance(reply, Exception):
                log.info("a place could not be renewed (%s)", reply)
                return
            observe(reply[0].decode())
            if reply[1]:
                is_over()

        args = [self.id, lease_ms(settings), ttl_ms, f"{cursor} {int(lags)}", self._details]
        with suppress(RedisUnavailable):  # the next one is soon enough
            self.link.post(script("renew"), step_keys, args, take)

    def give_back(self) -> None:
        """Gives the place back at once; while Redis is away, the lease ends by itself."""
        if not self._taken:
            return
        connections, details = self._keys()
        with suppress(RedisUnavailable):
            self.link.send("ZREM", connections, self.id)
            self.link.send("HDEL", details, self.id, f"{self.id}.at")

    @property
    def link(self) -> Link:
        """The link to the server that holds the user's keys; raises RedisUnavailable."""
        return self._hub.link(keys.topic(self.user_id))

    def _keys(self) -> list[str]:
        return [keys.connections(self.user_id), keys.connection_details(self.user_id)]


async def read_after(link: Link, user_id: str, cursor: str, limit: int, observe: Observe) -> Page:
    """Reads at most `limit` entries, and 1 MiB, past a well-formed cursor, at one moment.

    Raises:
        RedisUnavailable: Redis did not answer.
    """

    def arrive(answers: list[Any]) -> Page:
        page = page_of(cursor, limit, *answers)
        if page.last_id is not None:
            observe(page.last_id)
        return page

    async with link.pages:
        return await link.transaction(page_commands(user_id, cursor, limit), arrive)
