"""Journal two as streams read it: a message's events, in Postgres."""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import replace
from datetime import date

from shared import keys, wire
from shared.pages import Page
from web.hub import Hub
from web.journal import Tip
from web.message_table import MessageTable

AGAIN_SECONDS = (0.3, 1.5)


class MessageJournal:
    """The events of one message, asked for by its owner."""

    __slots__ = ("_day", "_hub", "_table", "message_id", "topic", "user_id")

    is_position = staticmethod(re.compile(rb"\d+").fullmatch)

    def __init__(
        self, hub: Hub, table: MessageTable, user_id: str, message_id: str, day: date
    ) -> None:
        self._hub = hub
        self._table = table
        self._day = day
        self.user_id = user_id
        self.message_id = message_id
        self.topic = keys.message(message_id)

    async def read_after(self, position: str, limit: int, tip: Tip) -> Page:
        """Reads a page, and says so in a comment where announcements can't be heard just now.

        Postgres's answers are in no order with the announcements: `tip` learns what was the end
        at some moment.
        """
        ended_at = tip.ended_at
        page = await self._table.read_after(
            self.user_id, self.message_id, self._day, position, limit
        )
        if page.is_last:
            tip.finish(page.end)
        elif not page.more:
            if tip.ended_at == ended_at:  # it was restarted, unless it has ended since
                tip.ended_at = ""
            tip.reach(page.end)
        if self._hub.hears(self.topic):
            return page
        return replace(page, frames=wire.POLLING + page.frames)

    async def until_up(self, deadline: float) -> None:
        """Waits for a moment in which others may go first."""
        await asyncio.sleep(random.uniform(*AGAIN_SECONDS))

    def last_words(self) -> bytes:
        """The terminal event has said it."""
        return b""
