"""Pages of a user stream: what to ask Redis for, and what its answers say.

The answers have to be of one moment (MULTI): trimming between the check and the read would be
silent. Plain commands, since Lua takes ten times as long to hand on two hundred entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

from shared import keys, wire

MOST_ENTRIES = 200
MOST_BYTES = 1024 * 1024
ANSWER_BYTES = 4 * 1024 * 1024

Row = tuple[bytes, Sequence[bytes]]  # id, and the fields p, t, e with their values
Rows = Sequence[Row]


class Status(StrEnum):
    """What a journal says of a cursor."""

    OK = "ok"
    TRIMMED = "trimmed"
    JOURNAL_RESET = "journal_reset"


@dataclass(frozen=True, slots=True)
class Page:
    """Entries past a position, and whether more remain.

    `start` is the position that the entries follow: the cursor asked for, unless status says
    that what lies between is gone. `end` is the position after them, `frames` what to send.
    `is_last` where nothing can follow on `end`.
    """

    status: Status
    start: str
    oldest_id: str | None
    number: int
    end: str
    frames: bytes
    more: bool
    is_last: bool = False

    @property
    def notice(self) -> bytes:
        """What a client is told first: that something is gone, and the position to go on from."""
        if self.status is Status.OK:
            return b""
        if self.start == wire.BEFORE_FIRST:  # no client can have it as its cursor
            return wire.truncated_frame(self.status, self.oldest_id, None)
        notice = wire.truncated_frame(self.status, self.oldest_id, self.start)
        return notice + wire.prime_frame(self.start)

    @property
    def last_id(self) -> str | None:
        """The journal's last id; None where the page does not reach it."""
        return None if self.more else self.end


def most_entries(event_max_bytes: int) -> int:
    """How many entries a page may have, so that Redis's answer stays within 4 MiB."""
    return max(1, min(MOST_ENTRIES, ANSWER_BYTES // event_max_bytes - 1))


def page_commands(user_id: str, cursor: str, limit: int) -> list[tuple[str | int, ...]]:
    """What to ask for the page after a well-formed cursor: the answers are for `page_of`."""
    key = keys.stream(user_id)
    if cursor == wire.ORIGIN:
        first = "-"
    elif cursor == wire.LARGEST:
        first = cursor  # nothing can follow it, and Redis refuses to look
    else:
        first = f"({cursor}"
    return [
        ("XRANGE", key, "-", "+", "COUNT", 1),
        ("XRANGE", key, cursor, cursor),
        ("XRANGE", key, first, "+", "COUNT", limit + 1),
    ]


def page_of(cursor: str, limit: int, oldest: Rows, at_cursor: Rows, after: Rows) -> Page:
    """The page after a cursor, of at most `limit` entries and 1 MiB, unless the first is larger.

    Args:
        cursor: the well-formed cursor that was asked for.
        limit: the most entries.
        oldest: the oldest entry retained, if any.
        at_cursor: the entry at the cursor, if it is retained.
        after: the entries after the cursor, one more than `limit` if there are so many.
    """
    if not oldest:
        status = Status.OK if cursor == wire.ORIGIN else Status.JOURNAL_RESET
        return Page(status, wire.ORIGIN, None, 0, wire.ORIGIN, b"", more=False)
    oldest_id, edge = oldest[0][0].decode(), oldest[0][1][1].decode()
    if cursor == edge or at_cursor:
        return _filled(Status.OK, cursor, oldest_id, after, limit)
    if wire.cursor_key(cursor) < wire.cursor_key(edge):
        return _filled(Status.TRIMMED, edge, oldest_id, after, limit)
    # Of another life of the stream. What follows on such a cursor is not all that is retained.
    return Page(Status.JOURNAL_RESET, edge, oldest_id, 0, edge, b"", more=True)


def _filled(status: Status, start: str, oldest_id: str, rows: Rows, limit: int) -> Page:
    frames = [wire.event_frame(entry_id, fields[5]) for entry_id, fields in rows[:limit]]
    if sum(map(len, frames)) > MOST_BYTES:
        del frames[how_many(frames) :]
    number = len(frames)
    end = rows[number - 1][0].decode() if number else start
    return Page(status, start, oldest_id, number, end, b"".join(frames), more=len(rows) > number)


def how_many(frames: Sequence[bytes]) -> int:
    """How many of the first frames are within the bytes of a page: at least one."""
    sizes = accumulate(map(len, frames))
    return max(1, sum(size <= MOST_BYTES for size in sizes))
