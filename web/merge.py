"""Snapshot and tail as one gapless sequence: pure state, no I/O.

Invariants: what goes out to a reader is strictly increasing; nothing is skipped and nothing sent
twice, or a truncation notice says so first. A reader goes live only where its position is proven
to be the tail's. Any doubt sends it back to the journal, from its own position.
"""

from __future__ import annotations

import sys
from collections import deque
from enum import Enum, auto
from typing import Any, Generic, Protocol, TypeVar

from shared import wire
from shared.pages import Page

RECENT_BYTES = 256 * 1024
NO_CAP = sys.maxsize


class State(Enum):
    """What a reader needs next."""

    CATCHING_UP = auto()  # the page after its position
    LEVEL = auto()  # to join the tail, which may be a little further by now
    LIVE = auto()  # nothing: its position is the tail's, and moves with it
    ENDED = auto()  # nothing: it or the journal is over, or a capped snapshot was not all


class Merge:
    """One reader's way through a journal.

    Args:
        position: a well-formed cursor.
        cap: the most entries in the first snapshot; later ones, which close gaps, are not capped.
            None where there is no first snapshot, `NO_CAP` where it may be of any length.
    """

    __slots__ = ("_first_left", "_position", "_tail", "state")

    def __init__(self, position: str, cap: int | None) -> None:
        self._position = position
        self._first_left = cap
        self._tail: Tail[Any] | None = None
        self.state = State.LEVEL if cap is None else State.CATCHING_UP

    @property
    def position(self) -> str:
        """The cursor up to which everything has been sent."""
        return self._position if self._tail is None else self._tail.sent

    def want(self, most: int) -> int:
        """How many entries the next page may have, where none has more than `most`."""
        return most if self._first_left is None else min(most, self._first_left)

    def page(self, page: Page) -> bytes:
        """Takes the page that was read after `position`; returns the frames to send."""
        self._position = page.end
        if self._first_left is not None:
            self._first_left -= page.number
        if not page.more:
            self._first_left = None
            if self.state is not State.ENDED:
                self.state = State.ENDED if page.is_last else State.LEVEL
        elif self._first_left is not None and self._first_left <= 0:
            self.state = State.ENDED
        return page.notice + page.frames

    def leave(self, state: State) -> None:
        """Keeps the position of the tail that it was live on, and needs something else next."""
        if self._tail is not None:
            self._position = self._tail.sent
            self._tail = None
        if self.state is not State.ENDED:
            self.state = state

    def reach(self, position: str) -> None:
        """Everything up to there is on its way."""
        self._position = position

    def follow(self, tail: Tail[Any]) -> None:
        """From here on its position is the tail's."""
        self.state, self._tail = State.LIVE, tail


class Merging(Protocol):
    """Somebody with a way through a journal."""

    merge: Merge


R = TypeVar("R", bound=Merging)


class Tail(Generic[R]):
    """The live end of one journal: what was announced, and the readers that are level with it.

    Whatever arrives at once is announced, then taken; readers join in between.
    `sent` is the position of its live readers; what was announced since waits in a batch. While
    `keep` is set, the latest entries are remembered, so that a reader that comes back from the
    journal finds what was announced meanwhile. Where it does not know its position, `sent` is ''.
    """

    __slots__ = ("_batch", "_position", "_recent", "_recent_bytes", "keep", "live", "sent")

    def __init__(self) -> None:
        self.sent = ""
        self.live: set[R] = set()
        self.keep = False
        self._position = ""
        self._batch: list[bytes] = []
        self._recent: deque[tuple[str, bytes]] | None = None  # (id before it, frame)
        self._recent_bytes = 0

    @property
    def position(self) -> str:
        """The position that announcements have reached, '' where it is not known."""
        return self._position

    def announce(self, prev: str, entry_id: str, frame: bytes) -> list[R]:
        """Takes a live entry; returns the readers that are sent back to the journal by a gap."""
        if prev == self._position:
            self._position = entry_id
            self._batch.append(frame)
            if self.keep:
                self._remember(prev, frame)
            return []
        if self._position and wire.cursor_key(entry_id) <= wire.cursor_key(self._position):
            return []  # again, or late
        return self._move(entry_id)

    def observe(self, last_id: str) -> list[R]:
        """Takes the journal's last id, as of now in the order of the announcements.

        Returns the readers that are sent back to the journal: something was not announced.
        """
        return [] if last_id == self._position else self._move(last_id)

    def reach(self, last_id: str) -> list[R]:
        """Takes a last id of some moment, in no order with the announcements: it may be old.

        Returns the readers that are sent back to the journal: something was not announced yet.
        """
        if self._position and wire.cursor_key(last_id) <= wire.cursor_key(self._position):
            return []
        return self._move(last_id)

    def lose(self) -> list[R]:
        """Announcements may be missed from here on; returns the readers that are sent back."""
        return self._move("")

    def take(self) -> bytes:
        """The batch to send to every live reader, whose position it moves."""
        frames = self._batch[0] if len(self._batch) == 1 else b"".join(self._batch)
        self._batch.clear()
        self.sent = self._position
        return frames

    def join(self, reader: R) -> bytes:
        """Makes a level reader live, or returns the frames to send it before the next try.

        Where what lies between can't be proven, it needs a page again.
        """
        frames = self._since(reader.merge.position)
        if frames is None:
            reader.merge.leave(State.CATCHING_UP)
            return b""
        if frames:
            reader.merge.reach(self.sent)
        else:
            reader.merge.follow(self)
            self.live.add(reader)
        return frames

    def leave(self, reader: R, state: State) -> None:
        """Lets go of a reader: LEVEL where its last batch is still on its way out."""
        self.live.discard(reader)
        reader.merge.leave(state)

    def forget(self) -> None:
        """Everybody is level: nothing needs to be remembered."""
        self.keep, self._recent, self._recent_bytes = False, None, 0

    def _since(self, position: str) -> bytes | None:
        """What follows on a position, up to `sent`; None where that can't be proven."""
        if position == self.sent:
            return b""
        frames: list[bytes] | None = None
        for prev, frame in self._recent or ():
            if prev == position:
                frames = []
            if frames is not None:
                frames.append(frame)
        return None if frames is None else b"".join(frames)

    def _remember(self, prev: str, frame: bytes) -> None:
        if self._recent is None:
            self._recent = deque()
        self._recent.append((prev, frame))
        self._recent_bytes += len(frame)
        while self._recent_bytes > RECENT_BYTES:
            self._recent_bytes -= len(self._recent.popleft()[1])

    def _move(self, position: str) -> list[R]:
        readers = list(self.live)
        for reader in readers:
            self.leave(reader, State.CATCHING_UP)  # from `sent`: the batch is not on its way yet
        self._batch.clear()
        self._recent, self._recent_bytes = None, 0
        self._position = self.sent = position
        return readers
