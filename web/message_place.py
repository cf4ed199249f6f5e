"""A message stream's place among its user's connections, also while Redis is away."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from shared.errors import RedisUnavailable
from shared.settings import Settings
from web.admission import Observe, Place, too_many_connections


class MessagePlace:
    """The lease that all of a user's streams share; without Redis, a count within this process.

    Args:
        place: takes the lease.
        open_here: each user's message streams in this process.
        settings: the process's.
    """

    __slots__ = ("_is_counted", "_open_here", "_place", "_settings")

    def __init__(self, place: Place, open_here: Counter[str], settings: Settings) -> None:
        self._place = place
        self._open_here = open_here
        self._settings = settings
        self._is_counted = False

    @property
    def id(self) -> str:
        """The connection's id."""
        return self._place.id

    async def take(self, at: str) -> None:
        """Takes the place. Replays are not charged: no answer can be read without one.

        Raises:
            Refusal: 429, with the time after which to come back.
        """
        user_id = self._place.user_id
        self._open_here[user_id] += 1
        self._is_counted = True
        try:
            await self._place.take(None, _ignore, at)
        except RedisUnavailable:
            most = self._settings.sse_max_concurrent_per_user
            if most and self._open_here[user_id] > most:
                seconds = math.ceil(self._settings.sse_keepalive_seconds)
                raise too_many_connections(seconds) from None

    def renew(
        self, cursor: str, *, lags: bool, observe: Observe, is_over: Callable[[], None]
    ) -> None:
        """Keeps the lease; one that was not to be had at the start is taken now.

        What Redis tells with it is the end of the user's stream, not of this journal.
        """
        self._place.renew(cursor, lags=lags, observe=_ignore, is_over=is_over)

    def give_back(self) -> None:
        """Gives the place back."""
        self._place.give_back()
        if self._is_counted:
            self._is_counted = False
            self._open_here[self._place.user_id] -= 1
            if not self._open_here[self._place.user_id]:
                del self._open_here[self._place.user_id]


def _ignore(last_id: str) -> None:
    """The user stream's end."""
