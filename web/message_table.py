"""What streams ask Postgres about messages, and the end of one whose writer is lost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import date

from shared.errors import RedisUnavailable
from shared.message_announcer import told_of_ended
from shared.message_pages import (
    DAY,
    PAGE,
    STATES,
    Standing,
    page_of_message,
    standing_of,
)
from shared.messages import END_STALE, Ended, stale_parameters
from shared.pages import Page
from shared.settings import Settings
from shared.text import is_storable
from web.hub import Hub
from web.postgres import Postgres


class MessageTable:
    """The messages of one database. Everything here may raise PostgresUnavailable."""

    def __init__(self, settings: Settings, hub: Hub, postgres: Postgres) -> None:
        self._hub = hub
        self._postgres = postgres
        self._publish = settings.publish_command
        self._stale_seconds = settings.message_stale_seconds

    async def day(self, user_id: str, message_id: str) -> date | None:
        """The day of a message's partition; None where it is not there, or another user's."""
        if not is_storable(user_id):  # such an id can own nothing
            return None
        rows = await self._postgres.rows(DAY, {"id": message_id, "user_id": user_id})
        return rows[0][0] if rows else None

    async def read_after(
        self, user_id: str, message_id: str, day: date, position: str, limit: int
    ) -> Page:
        """The page after a cursor. A message whose writer is lost is ended first."""
        values = {
            "id": message_id,
            "user_id": user_id,
            "day": day,
            "after": int(position),
            "limit": limit,
            "stale_seconds": self._stale_seconds,
        }
        rows = await self._postgres.rows(PAGE, values)
        if rows and standing_of(rows[0]).stale:
            await self.end_stale(message_id)
            rows = await self._postgres.rows(PAGE, values)
        return page_of_message(position, limit, rows)

    async def standings(self, messages: Sequence[tuple[str, str]]) -> dict[str, Standing]:
        """How far messages are, by id; those that are gone are left out.

        Args:
            messages: the id and the user of each.
        """
        ids, user_ids = [message[0] for message in messages], [message[1] for message in messages]
        values = {"ids": ids, "user_ids": user_ids, "stale_seconds": self._stale_seconds}
        rows = await self._postgres.rows(STATES, values)
        return {row[0]: standing_of(row[1:]) for row in rows}

    async def end_stale(self, message_id: str) -> None:
        """Has Postgres end a message whose writer is lost, and says so to all who read it."""
        values = dict(stale_parameters(self._stale_seconds, message_id))
        ended = [Ended(*row) for row in await self._postgres.rows(END_STALE, values)]
        with suppress(RedisUnavailable):  # whoever reads it looks itself, now and then
            for channel, said in told_of_ended(ended):
                self._hub.link(channel).send(self._publish, channel, said)
