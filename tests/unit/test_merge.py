"""The merge, driven with any interleaving: appends, trims, resets and pages; announcements that are
lost, late, doubled or batched; a connection that drops; several readers, some of them slow."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shared import wire
from shared.message_pages import page_of_message
from shared.pages import Page, Status, page_of
from web.merge import NO_CAP, RECENT_BYTES, Merge, State, Tail

CAP = 4


@dataclass
class Journal:
    """A model of a user stream: ids ascend, the oldest go, or all at once."""

    origin: ClassVar[str] = "0-0"
    cap: ClassVar[int] = CAP
    entries: list[tuple[str, str]] = field(default_factory=list)  # (prev, id)
    before: dict[str, str] = field(default_factory=dict)  # every id that there was: its prev
    life_of: dict[str, int] = field(default_factory=dict)
    count: int = 0
    life: int = 0

    @property
    def last(self) -> str:
        return self.entries[-1][1] if self.entries else self.origin

    def append(self) -> tuple[str, str]:
        self.count += 1
        prev, entry_id = self.last, f"{self.count}-0"
        self.entries.append((prev, entry_id))
        self.before[entry_id], self.life_of[entry_id] = prev, self.life
        return prev, entry_id

    def trim(self, number: int) -> None:
        del self.entries[: min(number, len(self.entries) - 1)]

    def reset(self) -> None:
        self.entries.clear()
        self.life += 1

    def read_after(self, cursor: str, limit: int) -> Page:
        """Asks as Redis is asked."""
        after = [row(*e) for e in self.entries if wire.cursor_key(e[1]) > wire.cursor_key(cursor)]
        oldest = [row(*e) for e in self.entries[:1]]
        at_cursor = [row(*e) for e in self.entries if e[1] == cursor]
        return page_of(cursor, limit, oldest, at_cursor, after[: limit + 1])


class Message(Journal):
    """A model of a message's journal: numbers from 0, without a gap, and none goes."""

    origin = "-1"
    cap = NO_CAP

    def append(self) -> tuple[str, str]:
        prev, entry_id = self.last, str(len(self.entries))
        self.entries.append((prev, entry_id))
        self.before[entry_id], self.life_of[entry_id] = prev, self.life
        return prev, entry_id

    def read_after(self, cursor: str, limit: int) -> Page:
        """Asks as Postgres is asked."""
        state = (len(self.entries) - 1, False, False)
        after = [(*state, int(e[1]), BODY.decode()) for e in self.entries[int(cursor) + 1 :]]
        return page_of_message(cursor, limit, after[:limit] or [(*state, None, None)])


BODY = b'{"type":"t"}'


def row(prev: str, entry_id: str) -> tuple[bytes, list[bytes]]:
    return entry_id.encode(), [b"p", prev.encode(), b"t", b"", b"e", BODY]


def frame(entry_id: str) -> bytes:
    return wire.event_frame(entry_id.encode(), BODY)


class Client:
    """Parses what it gets, and knows what may come next."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.cursor = journal.origin
        self.life = self.reading_life = journal.life
        self.told = ""  # the cursor of a notice whose prime frame has to follow
        self.merge = Merge(self.cursor, journal.cap)
        self.reading = False
        self.arrived: tuple[Page, int] | None = None
        self.unsent: bytes | None = None

    def connect(self) -> None:
        """Comes, or comes again, with its cursor."""
        self.merge = Merge(self.cursor, self.journal.cap)
        self.reading, self.arrived, self.unsent = False, None, None

    def read(self, page: Page, life: int) -> None:
        """Takes a page that was read in a life of the journal."""
        self.reading_life = life
        self.receive(self.merge.page(page))

    def receive(self, data: bytes) -> None:
        for part in data.split(b"\n\n"):
            fields = dict(line.split(b": ", 1) for line in part.split(b"\n") if b": " in line)
            if b"id" in fields and b"data" not in fields:
                assert fields[b"id"].decode() == self.told, "a prime frame follows its notice"
                self.cursor, self.told = self.told, ""
            elif b"id" in fields:
                got = fields[b"id"].decode()
                assert self.journal.before[got] == self.cursor, f"{self.cursor} -> {got}"
                self.cursor, self.life = got, self.journal.life_of[got]
            elif b"data" in fields:
                self.take_notice(json.loads(fields[b"data"])["payload"])

    def take_notice(self, payload: dict[str, str]) -> None:
        self.told = payload["cursor"]
        if self.life == self.reading_life:
            assert payload["reason"] == "trimmed"
            assert self.told != self.cursor, "nothing was lost"
        self.life = self.reading_life


@dataclass(frozen=True)
class Announcement:
    prev: str
    id: str
    frames: bytes


@dataclass(frozen=True)
class Reply:
    client: Client
    page: Page
    life: int


class World(RuleBasedStateMachine):
    """Redis, one connection to it on which everything goes in order, and three clients."""

    make_journal: ClassVar[type[Journal]] = Journal

    def __init__(self) -> None:
        super().__init__()
        self.journal = self.make_journal()
        for _ in range(3):
            self.journal.append()
        self.tail: Tail[Client] = Tail()
        self.clients = [Client(self.journal) for _ in range(3)]
        self.under_way: deque[Announcement | Reply | str] = deque()  # a text: the last id

    @rule(number=st.integers(1, 5), announced=st.booleans())
    def append(self, number: int, announced: bool) -> None:
        for _ in range(number):
            entry = self.journal.append()
            if announced:
                self.under_way.append(Announcement(*entry, frame(entry[1])))

    @rule(number=st.integers(1, 6))
    def trim(self, number: int) -> None:
        self.journal.trim(number)

    @rule()
    def reset(self) -> None:
        self.journal.reset()

    @rule()
    def renew(self) -> None:
        self.under_way.append(self.journal.last)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.under_way))
        if isinstance(item, Announcement):
            self.under_way.append(item)

    @rule(number=st.integers(0, 2))
    def read(self, number: int) -> None:
        client = self.clients[number]
        if client.merge.state is State.CATCHING_UP and not client.reading and not client.unsent:
            page = self.journal.read_after(client.merge.position, client.merge.want(200))
            self.under_way.append(Reply(client, page, self.journal.life))
            client.reading = True

    @rule(number=st.integers(1, 8), slow=st.sets(st.integers(0, 2)))
    def arrive(self, number: int, slow: set[int]) -> None:
        """So much arrives at once, and is sent on to whoever is live."""
        for _ in range(min(number, len(self.under_way))):
            match self.under_way.popleft():
                case Announcement(prev, entry_id, frames):
                    self.tail.announce(prev, entry_id, frames)
                case Reply(client, page, life):
                    if page.last_id is not None:
                        self.tail.observe(page.last_id)
                    client.arrived = page, life
                case last_id:
                    self.tail.observe(last_id)
        batch = self.tail.take()
        for client in list(self.tail.live):
            if self.clients.index(client) in slow and batch:
                client.unsent = batch
                self.tail.leave(client, State.LEVEL)
                self.tail.keep = True
            else:
                client.receive(batch)

    @rule(number=st.integers(0, 2))
    def go_on(self, number: int) -> None:
        """A client's own task gets a turn."""
        client = self.clients[number]
        if client.unsent is not None:
            client.receive(client.unsent)
            client.unsent = None
        elif client.arrived is not None:
            arrived, client.arrived, client.reading = client.arrived, None, False
            client.read(*arrived)
        elif client.merge.state is State.LEVEL:
            client.receive(self.tail.join(client))
        elif client.merge.state is State.ENDED:
            client.connect()

    @rule(number=st.integers(0, 2))
    def settle(self, number: int) -> None:
        """A client gets as many turns as it takes, with everything in time."""
        for _ in range(6):
            self.read(number)
            self.arrive(8, set())
            self.go_on(number)

    @rule(number=st.integers(0, 2))
    def come_again(self, number: int) -> None:
        client = self.clients[number]
        self.tail.leave(client, State.ENDED)
        # what was under way to it is for nobody
        replies = [i for i in self.under_way if isinstance(i, Reply) and i.client is client]
        for reply in replies:
            self.under_way.remove(reply)
        client.connect()

    @rule()
    def lose_the_connection(self) -> None:
        self.under_way.clear()
        for client in self.clients:
            if client.arrived is None:
                client.reading = False
        self.tail.lose()

    @rule()
    def forget(self) -> None:
        """Remembering what is recent saves reads, and nothing depends on it."""
        self.tail.forget()

    @invariant()
    def position_is_the_clients_cursor(self) -> None:
        for client in self.clients:
            if client.unsent is None:
                assert client.merge.position == client.cursor

    def teardown(self) -> None:
        """In the end, with nothing more happening, every client has everything."""
        for _ in range(2000):
            if not self.under_way:
                self.on_silence()
            self.arrive(8, set())
            for number in range(len(self.clients)):
                self.read(number)
                self.go_on(number)
            at_the_end = [c.cursor == self.journal.last for c in self.clients]
            if all(at_the_end) and all(c.merge.state is State.LIVE for c in self.clients):
                return
        raise AssertionError("a client never got everything")

    def on_silence(self) -> None:
        """A lease is renewed: the last entry may not have been announced."""
        self.renew()


class AnnouncingWorld(World):
    """Where every entry is announced, and lost only with the connection, nobody needs renewals.

    The end of a journal is announced by nobody; what is appended next tells of it.
    """

    @rule(number=st.integers(1, 5))
    def append_and_announce(self, number: int) -> None:
        super().append(number, announced=True)

    @rule()
    def reset_and_append(self) -> None:
        super().reset()
        super().append(1, announced=True)

    @rule()
    def settle_all(self) -> None:
        """From here on no page that another one reads tells where the journal ends."""
        for number in range(len(self.clients)):
            self.settle(number)

    def append(self, number: int, announced: bool) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        raise NotImplementedError

    def renew(self) -> None:
        raise NotImplementedError

    def on_silence(self) -> None:
        """Nothing comes to anybody's help."""


class MessageWorld(World):
    """Postgres, whose answers are in no order with what Redis announces, commit by commit."""

    make_journal = Message

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Reply] = []

    @rule(number=st.integers(1, 5), announced=st.booleans())
    def append(self, number: int, announced: bool) -> None:
        entries = [self.journal.append() for _ in range(number)]
        if announced:
            frames = b"".join(wire.message_frame(int(e[1]), BODY) for e in entries)
            self.under_way.append(Announcement(entries[0][0], entries[-1][1], frames))

    @rule(number=st.integers(0, 2))
    def read(self, number: int) -> None:
        asked = len(self.under_way)
        super().read(number)
        while len(self.under_way) > asked:
            reply = self.under_way.pop()
            assert isinstance(reply, Reply)
            self.answers.append(reply)

    @precondition(lambda self: self.answers)
    @rule(place=st.integers(0, 2))
    def answer(self, place: int) -> None:
        reply = self.answers.pop(place % len(self.answers))
        if reply.page.last_id is not None:
            self.tail.reach(reply.page.last_id)
        reply.client.arrived = reply.page, reply.life

    @rule(late=st.integers(0, 2))
    def look(self, late: int) -> None:
        """What is said of the end may be of a while ago."""
        self.tail.reach(str(max(-1, int(self.journal.last) - late)))

    @rule(number=st.integers(0, 2))
    def come_again(self, number: int) -> None:
        self.answers = [a for a in self.answers if a.client is not self.clients[number]]
        super().come_again(number)

    @rule()
    def lose_the_connection(self) -> None:
        """The one to Redis: Postgres answers all the same."""
        self.under_way.clear()
        self.tail.lose()

    @rule(number=st.integers(0, 2))
    def settle(self, number: int) -> None:
        for _ in range(6):
            self.read(number)
            while self.answers:
                self.answer(0)
            self.arrive(8, set())
            self.go_on(number)

    @rule()
    def trim(self, number: int = 0) -> None:
        """Nothing goes."""

    @rule()
    def reset(self) -> None:
        """Nothing goes."""

    def on_silence(self) -> None:
        while self.answers:
            self.answer(0)
        self.tail.reach(self.journal.last)


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestAnnouncingWorld = AnnouncingWorld.TestCase
TestAnnouncingWorld.settings = TestWorld.settings
TestMessageWorld = MessageWorld.TestCase
TestMessageWorld.settings = TestWorld.settings


class One:
    """The simplest reader there is."""

    def __init__(self, merge: Merge) -> None:
        self.merge = merge


def pages(journal: Journal, merge: Merge) -> int:
    sent = 0
    while merge.state is State.CATCHING_UP:
        sent += merge.page(journal.read_after(merge.position, merge.want(200))).count(b"data:")
    return sent


def filled(number: int) -> Journal:
    journal = Journal()
    for _ in range(number):
        journal.append()
    return journal


def live(journal: Journal, tail: Tail[One]) -> One:
    reader = One(Merge(journal.last, None))
    tail.observe(journal.last)
    assert tail.join(reader) == b""
    assert reader.merge.state is State.LIVE
    return reader


def test_a_first_snapshot_ends_at_its_cap_when_more_remain() -> None:
    journal = filled(450)
    merge = Merge("1-0", cap=200)
    assert pages(journal, merge) == 200
    assert merge.state is State.ENDED
    again = Merge(merge.position, cap=200)
    assert pages(journal, again) == 200
    last = Merge(again.position, cap=200)
    assert pages(journal, last) == 49
    assert last.state is State.LEVEL


def test_a_snapshot_of_exactly_the_cap_goes_on() -> None:
    merge = Merge("0-0", cap=200)
    assert pages(filled(200), merge) == 200
    assert merge.state is State.LEVEL


def test_a_cap_over_a_page_is_sent_in_pages() -> None:
    merge = Merge("0-0", cap=500)
    assert pages(filled(700), merge) == 500
    assert merge.state is State.ENDED


def test_a_page_that_comes_too_late_brings_nobody_back_who_has_ended() -> None:
    journal = filled(3)
    for cap in (CAP, None):
        merge = Merge("1-0", cap)
        merge.leave(State.ENDED)
        merge.page(journal.read_after("1-0", 200))
        assert merge.state is State.ENDED


def test_recovery_is_not_capped() -> None:
    journal, tail = filled(1), Tail[One]()
    merge = Merge("0-0", cap=10)
    pages(journal, merge)
    tail.observe(journal.last)
    reader = One(merge)
    tail.join(reader)
    for _ in range(500):
        journal.append()
    assert tail.lose() == [reader]
    assert pages(journal, merge) == 500
    assert merge.state is State.LEVEL


def test_a_gap_sends_readers_back_to_before_what_was_not_sent_yet() -> None:
    journal, tail = filled(3), Tail[One]()
    reader = live(journal, tail)
    tail.announce(*journal.append(), b"4")
    journal.append()
    sent_back = tail.announce(*journal.append(), b"6")
    assert sent_back == [reader]
    assert reader.merge.position == "3-0"
    assert tail.take() == b"", "what came before the gap is read from the journal too"


def test_whoever_is_level_when_announcements_may_be_lost_reads_before_it_is_live() -> None:
    journal, tail = filled(3), Tail[One]()
    tail.observe(journal.last)
    reader = One(Merge(journal.last, None))
    journal.append()
    assert tail.lose() == []
    assert tail.join(reader) == b""
    assert reader.merge.state is State.CATCHING_UP


def test_a_late_announcement_disturbs_nobody() -> None:
    journal, tail = filled(3), Tail[One]()
    reader = live(journal, tail)
    assert tail.announce("1-0", "2-0", b"2") == []
    assert tail.announce(*journal.append(), b"4") == []
    assert (tail.take(), reader.merge.position) == (b"4", "4-0")


def test_what_was_announced_during_a_read_is_remembered() -> None:
    journal, tail = filled(3), Tail[One]()
    tail.observe(journal.last)
    tail.keep = True
    reader = One(Merge("3-0", None))
    for _ in range(3):
        tail.announce(*journal.append(), b"x")
    tail.take()
    assert tail.join(reader) == b"xxx"
    assert tail.join(reader) == b""
    assert reader.merge.state is State.LIVE


def test_what_is_remembered_is_bounded_by_bytes() -> None:
    journal, tail = filled(1), Tail[One]()
    tail.observe(journal.last)
    tail.keep = True
    reader = One(Merge("1-0", None))
    for _ in range(20):
        tail.announce(*journal.append(), bytes(RECENT_BYTES // 10))
        tail.take()
    assert tail.join(reader) == b""
    assert reader.merge.state is State.CATCHING_UP, "too far behind: back to the journal"


def test_what_was_the_end_a_while_ago_disturbs_nobody_and_what_is_further_sends_back() -> None:
    tail, journal = Tail[One](), Message()
    for _ in range(3):
        journal.append()
    tail.reach("2")
    reader = One(Merge("2", None))
    assert tail.join(reader) == b""
    assert tail.reach("0") == tail.reach("2") == []
    assert reader.merge.state is State.LIVE
    assert tail.reach("3") == [reader]
    assert tail.announce("2", "3", b"x") == [], "late: it is read from the journal"


def test_a_page_after_which_nothing_follows_ends_the_reader() -> None:
    page = Page(Status.OK, "1", None, 1, "2", b"x", more=False, is_last=True)
    merge = Merge("1", NO_CAP)
    assert merge.page(page) == b"x"
    assert merge.state is State.ENDED
