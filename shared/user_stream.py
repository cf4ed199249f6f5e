"""Journal one: a user's events in a Redis Stream, appended and read in atomic steps."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared import keys, wire
from shared.outbox import Step
from shared.scripts import script
from shared.settings import Settings

PUBLISH = "PUBLISH"


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


def append_step(settings: Settings, user_id: str, body: str) -> Step:
    """The step that appends an encoded event and announces it; a repetition appends nothing."""
    token = secrets.token_hex(8)
    head = [
        keys.topic(user_id),
        PUBLISH,
        settings.events_stream_maxlen,
        settings.events_stream_ttl_seconds * 1000,
        token,
    ]
    return Step(
        script("append"),
        [keys.stream(user_id)],
        [*head, "", body],
        retry_args=[*head, "1", body],
    )


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
