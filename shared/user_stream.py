"""Journal one: a user's events in a Redis Stream, appended and read in atomic steps."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared import keys, wire
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

    @property
    def last_id(self) -> str | None:
        """The journal's last id; None where the page does not reach it."""
        if self.more:
            return None
        return self.entries[-1].id if self.entries else self.start


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


def page_of(reply: list[Any]) -> Page:
    """A page as the steps `read_after` and `open` return it."""
    status, start, oldest, rows, more = reply
    return Page(
        Status(status.decode()),
        start.decode(),
        oldest.decode() or None,
        [_entry(row) for row in rows],
        more=more == 1,
    )


def _entry(row: tuple[bytes, list[bytes]]) -> Entry:
    entry_id, fields = row[0].decode(), row[1]
    return Entry(entry_id, wire.event_frame(entry_id, fields[5]))
