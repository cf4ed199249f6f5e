"""Journal one as streams read it: a user's events in a Redis Stream, over the hub's link."""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import suppress
from typing import Any

from shared import keys, wire
from shared.errors import RedisUnavailable
from shared.pages import Page, page_commands, page_of
from web.hub import Hub
from web.journal import Tip

AGAIN_SECONDS = (0.3, 1.5)


class UserJournal:
    """The stream of one user."""

    __slots__ = ("_hub", "topic", "user_id")

    is_position = staticmethod(re.compile(rb"\d+-\d+").fullmatch)

    def __init__(self, hub: Hub, user_id: str) -> None:
        self._hub = hub
        self.user_id = user_id
        self.topic = keys.topic(user_id)

    async def read_after(self, position: str, limit: int, tip: Tip) -> Page:
        """Reads a page; where it reaches the end, `tip` learns so as the reply arrives."""

        def arrive(answers: list[Any]) -> Page:
            page = page_of(position, limit, *answers)
            if page.last_id is not None:
                tip.observe(page.last_id)
            return page

        link = self._hub.link(self.topic)
        async with link.pages:
            return await link.transaction(page_commands(self.user_id, position, limit), arrive)

    async def until_up(self, deadline: float) -> None:
        """Thousands may wait here: none of them looks before there is something to do."""
        try:
            is_up = self._hub.link(self.topic).up
        except RedisUnavailable:
            is_up = None  # its shard is not known
        if is_up is None or is_up.is_set():  # it refuses, as while it loads its data
            await asyncio.sleep(random.uniform(*AGAIN_SECONDS))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await is_up.wait()

    def last_words(self) -> bytes:
        """Its first snapshot was not all: come back soon."""
        return wire.retry_frame(*wire.RETRY_CAPPED_MS)
