"""Snapshot and tail as one gapless sequence: pure state, no I/O.

Invariants: what goes out is strictly increasing; nothing is skipped and nothing sent twice, or a
truncation notice says so first. A stream goes live only when its last page proved to be level.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from shared import wire
from shared.user_stream import Page, Status


class State(Enum):
    """What a merge needs next."""

    CATCHING_UP = auto()  # the page after its position
    LIVE = auto()  # the next announcement
    ENDED = auto()  # nothing: a capped snapshot ended with entries remaining


@dataclass(frozen=True, slots=True)
class Announcement:
    """A live entry: its id, the id of the entry before it, and its frame."""

    prev: str
    id: str
    frame: bytes


class Merge:
    """One reader's way through a journal.

    Args:
        position: a well-formed cursor.
        cap: the most entries in the first snapshot; later ones, which close gaps, are not capped.
    """

    PAGE = 200

    def __init__(self, position: str, cap: int) -> None:
        self.position = position
        self.state = State.CATCHING_UP
        self._first_left: int | None = cap

    @property
    def want(self) -> int:
        """How many entries the next page may have."""
        return min(self.PAGE, self._first_left or self.PAGE)

    def page(self, page: Page) -> bytes:
        """Takes the page that was read after `position`; returns the frames to send."""
        frames = []
        if page.status is not Status.OK:
            frames.append(wire.truncated_frame(page.status, page.oldest_id, page.start))
            frames.append(wire.prime_frame(page.start))
            self.position = page.start
        for entry in page.entries:
            frames.append(entry.frame)
            self.position = entry.id
        if self._first_left is not None:
            self._first_left -= len(page.entries)
        if not page.more:
            self.state, self._first_left = State.LIVE, None
        elif self._first_left is not None and self._first_left <= 0:
            self.state = State.ENDED
        return b"".join(frames)

    def announce(self, announcement: Announcement) -> bytes:
        """Takes a live entry; returns its frame, or nothing where it is old or shows a gap."""
        if self.state is not State.LIVE:
            return b""
        if wire.cursor_key(announcement.id) <= wire.cursor_key(self.position):
            return b""
        if announcement.prev != self.position:
            self.doubt()
            return b""
        self.position = announcement.id
        return announcement.frame

    def doubt(self) -> None:
        """Something may have been missed: back to the journal, from the reader's own position."""
        if self.state is State.LIVE:
            self.state = State.CATCHING_UP
