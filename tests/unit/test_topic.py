from __future__ import annotations

import pytest

from shared import keys
from shared.errors import RedisUnavailable
from shared.pages import Page
from web.journal import Tip
from web.merge import NO_CAP, Merge, State
from web.outlet import Message
from web.topic import Topic

TOPIC = keys.message("m")


class Numbers:
    """A journal of numbers, which nobody reads here."""

    topic = TOPIC

    def is_position(self, text: bytes, /) -> object:
        return text.isdigit()

    async def read_after(self, position: str, limit: int, tip: Tip) -> Page:
        raise RedisUnavailable

    async def until_up(self, deadline: float) -> None:
        raise NotImplementedError

    def last_words(self) -> bytes:
        return b""


class Reader:
    """Knows what it was told."""

    id = "r"

    def __init__(self, topic: Topic, position: str) -> None:
        self.merge = Merge(position, NO_CAP)
        self.merge.state = State.LEVEL
        self.sent: list[Message] = []
        self.turned = 0
        topic.readers.add(self)

    def send_now(self, message: Message) -> None:
        self.sent.append(message)

    def catch_up(self) -> None:
        self.turned += 1

    def end(self, last_words: bytes) -> None:
        raise NotImplementedError


@pytest.fixture
def topic() -> Topic:
    made = Topic(Numbers())
    made.reach("1")
    return made


def live(topic: Topic) -> Reader:
    reader = Reader(topic, "1")
    assert topic.join(reader) == b""
    assert reader.merge.state is State.LIVE
    return reader


def test_a_live_reader_gets_the_last_event_before_it_is_over(topic: Topic) -> None:
    reader = live(topic)
    assert topic.take(b"1 2 frame")
    topic.take(b"!finished 2")
    assert reader.merge.state is State.LIVE
    topic.flush(0.0)
    assert [message["body"] for message in reader.sent] == [b"frame"]
    assert (reader.merge.state, reader.turned) == (State.ENDED, 1)


def test_a_reader_that_gets_level_with_a_journal_that_is_over_is_over(topic: Topic) -> None:
    reader = Reader(topic, "1")
    topic.take(b"!finished 1")
    assert topic.join(reader) == b""
    assert reader.merge.state is State.ENDED


def test_an_end_further_on_sends_a_live_reader_to_the_journal(topic: Topic) -> None:
    reader = live(topic)
    topic.take(b"!finished 5")
    assert (reader.merge.state, reader.turned) == (State.CATCHING_UP, 1)


def test_the_end_of_an_attempt_before_ends_nobody_who_is_further(topic: Topic) -> None:
    reader = live(topic)
    topic.take(b"1 2 restart")
    topic.flush(0.0)
    topic.take(b"!finished 1")
    topic.flush(0.0)
    assert reader.merge.state is State.LIVE


@pytest.mark.parametrize("data", [b"!finished ", b"!finished x", b"!", b"1-0 2-0 x", b"1 2", b""])
def test_what_has_another_form_is_left_out(topic: Topic, data: bytes) -> None:
    reader = live(topic)
    assert not topic.take(data)
    assert (reader.merge.state, topic.tail.position) == (State.LIVE, "1")
