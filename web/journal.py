"""What a stream reads from: one journal of a user or of a message, behind one small protocol.

The driver (`web/stream.py`, `reader`, `merge`, `hub`) knows no more of it than is said here.
"""

from __future__ import annotations

from typing import Protocol

from shared.pages import Page


class Tip(Protocol):
    """Who has to learn where a journal ends, as soon as that is read."""

    ended_at: str

    def observe(self, last_id: str) -> None:
        """Takes the last id, in the order of the announcements."""

    def reach(self, last_id: str) -> None:
        """Takes the last id of some moment."""

    def finish(self, last_id: str) -> None:
        """Takes the last id, on which nothing follows."""


class Journal(Protocol):
    """A journal. What reads of it raise is RedisUnavailable or PostgresUnavailable."""

    @property
    def topic(self) -> str:
        """The channel that announces its entries."""

    def is_position(self, text: bytes, /) -> object:
        """Whether an announcement may name its entry so."""

    async def read_after(self, position: str, limit: int, tip: Tip) -> Page:
        """Reads at most `limit` entries, and 1 MiB, past a well-formed cursor, at one moment."""

    async def until_up(self, deadline: float) -> None:
        """Waits, at most until then (the loop's clock), for a moment to read again."""

    def last_words(self) -> bytes:
        """What is said to a reader that has got all it gets."""
