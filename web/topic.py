"""A topic: the channel of one journal, and everybody in this process who reads it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

from shared import wire
from web.journal import Journal
from web.merge import Merging, State, Tail
from web.outlet import Message, body

log = logging.getLogger(__name__)

# What announcements begin with that are no event's: one asks for the end of a connection, by its
# id; one says on which position of a journal nothing follows.
END = b"!end "
FINISHED = b"!finished "


class Streaming(Merging, Protocol):
    """A reader as the hub sees it."""

    @property
    def id(self) -> str:
        """The connection's id."""

    def send_now(self, message: Message) -> None:
        """Writes to it while it is live."""

    def catch_up(self) -> None:
        """Goes back to the journal: it was live, and was sent back."""

    def end(self, last_words: bytes) -> None:
        """Ends the stream."""


class Topic:
    """One journal's channel: its tail, and everybody who reads it.

    `ended_at` is the position on which nothing follows, '' while that is not known.
    """

    __slots__ = ("ended_at", "interested", "journal", "readers", "tail", "wrote_at")

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.ended_at = ""
        self.interested = 0
        self.readers: set[Streaming] = set()
        self.tail: Tail[Streaming] = Tail()
        self.wrote_at = 0.0  # to all live readers, of the loop's clock

    def take(self, data: bytes) -> bool:
        """Takes an announcement; returns whether it is an event's, to be flushed."""
        if data.startswith(b"!"):
            self._take_word(data)
            return False
        try:
            prev, entry_id, frame = data.split(b" ", 2)
            if not self.journal.is_position(entry_id):
                raise ValueError(entry_id)
            sent_back = self.tail.announce(prev.decode("ascii"), entry_id.decode("ascii"), frame)
        except ValueError:
            _leave_out(data)
            return False
        _send_back(sent_back)
        return True

    def _take_word(self, data: bytes) -> None:
        if data.startswith(END):
            connection_id = data.removeprefix(END).decode()
            for reader in list(self.readers):
                if reader.id == connection_id:
                    reader.end(wire.ENDED)
        elif data.startswith(FINISHED) and self.journal.is_position(data.removeprefix(FINISHED)):
            self.finish(data.removeprefix(FINISHED).decode())
        else:
            _leave_out(data)

    def observe(self, last_id: str) -> None:
        """Takes the journal's last id at the moment when Redis's reply with it arrives."""
        _send_back(self.tail.observe(last_id))

    def reach(self, last_id: str) -> None:
        """Takes a last id that was read in no order with the announcements."""
        _send_back(self.tail.reach(last_id))

    def lose(self) -> None:
        """Announcements may have been missed."""
        _send_back(self.tail.lose())

    def finish(self, last_id: str) -> None:
        """The journal ends there: whoever has all of it is done."""
        self.ended_at = last_id
        self.reach(last_id)
        self._end_if_over()

    def join(self, reader: Streaming) -> bytes:
        """Makes a level reader live, or returns what to send it first; see `Tail.join`."""
        frames = self.tail.join(reader)
        if self.ended_at and reader.merge.position == self.ended_at and not frames:
            self.tail.leave(reader, State.ENDED)
        self._forget_if_level()
        return frames

    def let_go(self, reader: Streaming, state: State) -> None:
        """Lets a reader go its own way; what is announced meanwhile is remembered for it."""
        self.tail.leave(reader, state)
        self.tail.keep = True

    def remove(self, reader: Streaming) -> None:
        """Forgets a reader that has ended."""
        self.readers.discard(reader)
        self.tail.leave(reader, State.ENDED)
        self._forget_if_level()

    def flush(self, now: float) -> None:
        """Sends what was announced to every live reader, in one write each."""
        frames = self.tail.take()
        if frames:  # else silence goes on
            self.wrote_at = now
            message = body(frames)
            for reader in list(self.tail.live):
                reader.send_now(message)
        if self.ended_at:
            self._end_if_over()

    def _end_if_over(self) -> None:
        if self.tail.sent != self.ended_at:
            return
        for reader in list(self.tail.live):
            self.tail.leave(reader, State.ENDED)
            reader.catch_up()

    def _forget_if_level(self) -> None:
        if len(self.tail.live) == len(self.readers):
            self.tail.forget()


def _send_back(readers: Iterable[Streaming]) -> None:
    for reader in readers:
        reader.catch_up()


def _leave_out(data: bytes) -> None:
    log.warning("an announcement of another form is left out: %.60r", data)
