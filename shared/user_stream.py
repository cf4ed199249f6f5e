"""Journal one: a user's events in a Redis Stream, appended and read in atomic steps."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import redis
import redis.asyncio

from shared import keys, wire
from shared.errors import RedisUnavailable
from shared.scripts import script
from shared.settings import Settings
from shared.steps import Step

PUBLISH = "PUBLISH"
STEP_EVENTS = 500
STEP_BYTES = 1024 * 1024


class Status(StrEnum):
    """What a journal says of a cursor."""

    OK = "ok"
    TRIMMED = "trimmed"
    JOURNAL_RESET = "journal_reset"


@dataclass(frozen=True, slots=True)
class Entry:
    """One journaled event: its id and its frame."""

    id: str
    frame: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Entries past a position, and whether more remain.

    `start` is the position that the entries follow: the cursor asked for, unless status says
    that what lies between is gone.
    """

    status: Status
    start: str
    oldest_id: str | None
    entries: list[Entry]
    more: bool


def append_step(settings: Settings, user_id: str, bodies: Sequence[str]) -> Step:
    """The step that appends encoded events and announces them; a repetition appends nothing.

    Its reply holds their ids. Not more at once than `in_steps` allows.
    """
    head = [*stream_args(settings, user_id), secrets.token_hex(8)]
    return Step(
        script("append"),
        [keys.stream(user_id)],
        [*head, "", *bodies],
        retry_args=[*head, "1", *bodies],
    )


def stream_args(settings: Settings, user_id: str) -> list[Any]:
    """What a step that appends to a user's stream is told of it: `to` in `append_entry.lua`."""
    return [
        keys.topic(user_id),
        PUBLISH,
        settings.events_stream_maxlen,
        settings.events_stream_ttl_seconds * 1000,
    ]


def in_steps(bodies: Sequence[str]) -> Iterator[range]:
    """Cuts encoded events, by their places, into what one step may append.

    Redis does nothing else meanwhile: at most 500 events, and about 1 MiB.
    """
    start, size = 0, 0
    for place, body in enumerate(bodies):
        if place > start and (place - start == STEP_EVENTS or size + len(body) > STEP_BYTES):
            yield range(start, place)
            start, size = place, 0
        size += len(body)
    if bodies:
        yield range(start, len(bodies))


class UserStream:
    """The reading side, from asyncio."""

    def __init__(self, client: redis.asyncio.Redis, user_id: str) -> None:
        self._client = client
        self._key = keys.stream(user_id)
        self.topic = keys.topic(user_id)

    async def last_id(self) -> str:
        """The id of the newest entry, `0-0` for an empty stream.

        Raises:
            RedisUnavailable: Redis did not answer.
        """
        with _redis_errors():
            newest: Any = await self._client.xrevrange(self._key, count=1)
        return newest[0][0].decode() if newest else wire.ORIGIN

    async def read_after(self, cursor: str, limit: int) -> Page:
        """Reads at most `limit` entries, and about 1 MiB, past a well-formed cursor.

        Whether the cursor still stands is checked in the same step.

        Raises:
            RedisUnavailable: Redis did not answer.
        """
        with _redis_errors():
            reply = await script("read_after").run_async(self._client, [self._key], [cursor, limit])
        status, start, oldest, rows, more = reply
        return Page(
            Status(status.decode()),
            start.decode(),
            oldest.decode() or None,
            [_entry(row) for row in rows],
            more=more == 1,
        )


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _entry(row: tuple[bytes, list[bytes]]) -> Entry:
    entry_id, fields = row[0].decode(), row[1]
    return Entry(entry_id, wire.event_frame(entry_id, fields[5]))
