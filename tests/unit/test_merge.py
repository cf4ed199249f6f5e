"""The merge, driven with any interleaving of appends, trims, pages, losses and slow readers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shared import wire
from shared.user_stream import Entry, Page, Status
from web.merge import Announcement, Merge, State


@dataclass
class Journal:
    """A model of a user stream: ids ascend, the oldest go, nothing else changes."""

    entries: list[tuple[str, str]] = field(default_factory=list)  # (prev, id)
    last: str = "0-0"
    count: int = 0

    def append(self) -> Announcement:
        self.count += 1
        prev, self.last = self.last, f"{self.count}-0"
        self.entries.append((prev, self.last))
        return Announcement(prev, self.last, frame(self.last))

    def trim(self, number: int) -> None:
        del self.entries[: min(number, len(self.entries) - 1)]

    def read_after(self, cursor: str, limit: int) -> Page:
        if not self.entries:
            status = Status.OK if cursor == "0-0" else Status.JOURNAL_RESET
            return Page(status, "0-0", None, [], False)
        edge = self.entries[0][0]
        known = cursor == edge or any(cursor == entry_id for _, entry_id in self.entries)
        status, start = Status.OK, cursor
        if not known:
            before = wire.cursor_key(cursor) < wire.cursor_key(edge)
            status, start = (Status.TRIMMED if before else Status.JOURNAL_RESET), edge
        rest = [i for _, i in self.entries if wire.cursor_key(i) > wire.cursor_key(start)]
        page = [Entry(i, frame(i)) for i in rest[:limit]]
        return Page(status, start, self.entries[0][1], page, len(rest) > limit)


def frame(entry_id: str) -> bytes:
    return wire.event_frame(entry_id, b'{"type":"t"}')


class Reader(RuleBasedStateMachine):
    """A client that parses what it gets and knows what it should have got."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = Journal()
        for _ in range(3):
            self.journal.append()
        self.merge = Merge("0-0", cap=4)
        self.buffer: list[Announcement] = []
        self.connected = True
        self.cursor = 0  # of the client
        self.capped = 0

    def receive(self, data: bytes) -> None:
        for part in data.split(b"\n\n"):
            fields = dict(line.split(b": ", 1) for line in part.split(b"\n") if b": " in line)
            if b"id" in fields and b"data" not in fields:
                moved = int(fields[b"id"].split(b"-")[0])
                assert moved >= self.cursor, "a notice never moves a client back"
                self.cursor = moved
            elif b"id" in fields:
                got = int(fields[b"id"].split(b"-")[0])
                assert got == self.cursor + 1, f"skipped or repeated: {self.cursor} -> {got}"
                self.cursor = got
            elif b"data" in fields:
                payload = json.loads(fields[b"data"])["payload"]
                assert payload["reason"] == "trimmed"
                assert int(payload["cursor"].split("-")[0]) > self.cursor, "nothing was lost"

    @rule(number=st.integers(1, 5))
    def append(self, number: int) -> None:
        for _ in range(number):
            announcement = self.journal.append()
            if self.connected:
                self.buffer.append(announcement)

    @rule(number=st.integers(1, 6))
    def trim(self, number: int) -> None:
        self.journal.trim(number)

    @rule()
    def lose_connection(self) -> None:
        self.connected = False

    @precondition(lambda self: not self.connected)
    @rule()
    def connect_again(self) -> None:
        self.connected = True
        self.buffer.clear()
        self.merge.doubt()

    @precondition(lambda self: self.buffer)
    @rule()
    def overflow(self) -> None:
        self.buffer.clear()
        self.merge.doubt()

    @precondition(lambda self: self.buffer)
    @rule()
    def repeat_an_announcement(self) -> None:
        self.buffer.insert(0, self.buffer[0])

    @precondition(lambda self: len(self.buffer) > 1)
    @rule()
    def lose_an_announcement(self) -> None:
        del self.buffer[0]

    @precondition(lambda self: self.merge.state is State.CATCHING_UP)
    @rule()
    def read(self) -> None:
        page = self.journal.read_after(self.merge.position, self.merge.want)
        self.receive(self.merge.page(page))

    @precondition(lambda self: self.merge.state is State.LIVE and self.buffer)
    @rule()
    def take(self) -> None:
        for announcement in self.buffer:
            self.receive(self.merge.announce(announcement))
        self.buffer.clear()

    @precondition(lambda self: self.merge.state is State.ENDED)
    @rule()
    def reconnect_after_a_capped_snapshot(self) -> None:
        self.merge = Merge(f"{self.cursor}-0", cap=4)
        self.buffer.clear()
        self.connected = True

    @invariant()
    def position_is_the_clients_cursor(self) -> None:
        assert int(self.merge.position.split("-")[0]) == self.cursor

    def teardown(self) -> None:
        """In the end, with nothing more happening, the client has everything."""
        for _ in range(1000):
            if self.merge.state is State.LIVE:
                self.merge.doubt()
                page = self.journal.read_after(self.merge.position, self.merge.want)
                self.receive(self.merge.page(page))
                if not page.more:
                    break
            elif self.merge.state is State.ENDED:
                self.reconnect_after_a_capped_snapshot()
            else:
                self.read()
        assert self.cursor == self.journal.count


TestReader = Reader.TestCase
TestReader.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def pages(journal: Journal, merge: Merge) -> int:
    sent = 0
    while merge.state is State.CATCHING_UP:
        sent += merge.page(journal.read_after(merge.position, merge.want)).count(b"data:")
    return sent


def test_a_first_snapshot_ends_at_its_cap_when_more_remain() -> None:
    journal = Journal()
    for _ in range(450):
        journal.append()
    merge = Merge("1-0", cap=200)
    assert pages(journal, merge) == 200
    assert merge.state is State.ENDED
    again = Merge(merge.position, cap=200)
    assert pages(journal, again) == 200
    last = Merge(again.position, cap=200)
    assert pages(journal, last) == 49
    assert last.state is State.LIVE


def test_a_snapshot_of_exactly_the_cap_goes_live() -> None:
    journal = Journal()
    for _ in range(200):
        journal.append()
    merge = Merge("0-0", cap=200)
    assert pages(journal, merge) == 200
    assert merge.state is State.LIVE


def test_a_cap_over_a_page_is_sent_in_pages() -> None:
    journal = Journal()
    for _ in range(700):
        journal.append()
    merge = Merge("0-0", cap=500)
    assert pages(journal, merge) == 500
    assert merge.state is State.ENDED


def test_recovery_is_not_capped() -> None:
    journal = Journal()
    journal.append()
    merge = Merge("0-0", cap=10)
    pages(journal, merge)
    for _ in range(500):
        journal.append()
    merge.doubt()
    assert pages(journal, merge) == 500
    assert merge.state is State.LIVE
