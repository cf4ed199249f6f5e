"""A connection to Redis: every reply to the command that it answers, whatever comes between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import hiredis
import pytest

from shared.errors import RedisUnavailable
from tests.scripted_redis import ScriptedRedis, number, push, refusal
from web.resp import Resp


class Wire:
    """A connection, and all that it tells, in the order in which it does."""

    def __init__(self) -> None:
        self.redis = ScriptedRedis()
        self.told: list[tuple[Any, ...]] = []
        self.resp = Resp(
            self.redis.connection,
            on_push=lambda message: self.told.append(("push", *message)),
            on_pause=lambda: None,
            on_elsewhere=lambda text: self.told.append(("elsewhere", text)),
            on_lost=lambda why: self.told.append(("lost", why)),
        )

    def ask(self, name: str) -> None:
        """Sends a command; what it is answered is told under its name."""
        self.resp.send((name,), partial(self._take, name))

    def subscribe(self, *channels: str, command: str = "SUBSCRIBE") -> None:
        refused = partial(self._take, f"{command} {' '.join(channels)}")
        self.resp.push((command, *channels), refused)

    def _take(self, name: str, value: Any) -> None:
        is_error = isinstance(value, (hiredis.ReplyError, RedisUnavailable))
        self.told.append((name, type(value) if is_error else value))


def on_a_wire(check: Callable[[Wire], Awaitable[None]]) -> None:
    async def go() -> None:
        await check(Wire())

    asyncio.run(go())


def test_a_refused_subscription_is_told_to_whoever_asked_for_it_and_to_nobody_else() -> None:
    async def check(wire: Wire) -> None:
        wire.ask("A")
        wire.subscribe("one")
        wire.ask("B")
        wire.redis.say(number(1), refusal("NOPERM no channel"), number(2))
        assert wire.told == [("A", 1), ("SUBSCRIBE one", "NOPERM no channel"), ("B", 2)]
        assert not wire.resp.owes

    on_a_wire(check)


def test_a_subscription_is_confirmed_once_for_each_of_its_channels() -> None:
    async def check(wire: Wire) -> None:
        wire.subscribe("one", "two", "three")
        for channel in ("one", "two"):
            wire.redis.say(push("subscribe", channel))
            assert wire.resp.owes
        wire.ask("A")
        wire.redis.say(push("subscribe", "three"), number(1))
        assert wire.told[-1] == ("A", 1)
        assert not wire.resp.owes

    on_a_wire(check)


def test_announcements_confirm_nothing() -> None:
    async def check(wire: Wire) -> None:
        wire.subscribe("one", "two")
        wire.subscribe("old", command="UNSUBSCRIBE")
        wire.redis.say(push("subscribe", "one"), push("message", "one", "x"))
        wire.redis.say(push("message", "one", "y"), push("subscribe", "two"))
        assert wire.resp.owes, "the end of the other one"
        wire.redis.say(push("unsubscribe", "old"))
        assert not wire.resp.owes

    on_a_wire(check)


@pytest.mark.parametrize("command", ["SSUBSCRIBE", ""])
def test_an_end_of_a_subscription_that_nobody_asked_for_disturbs_nothing_that_is_due(
    command: str,
) -> None:
    async def check(wire: Wire) -> None:
        if command:
            wire.subscribe("one", command=command)
        wire.ask("A")
        wire.redis.say(push("sunsubscribe", "moved"))
        assert wire.resp.owes
        if command:
            wire.redis.say(push("ssubscribe", "one"))
        wire.redis.say(number(1))
        assert wire.told[-1] == ("A", 1)
        assert not wire.resp.owes

    on_a_wire(check)


def test_a_slot_that_moves_while_its_subscription_is_being_ended_mixes_up_no_replies() -> None:
    """The server ends it unasked, then refuses to: the refusal is no reply to what follows."""

    async def check(wire: Wire) -> None:
        wire.subscribe("moved", command="SUNSUBSCRIBE")
        wire.ask("A")
        wire.ask("B")
        wire.redis.say(push("sunsubscribe", "moved"), refusal("MOVED 1 h:1"), number(1), number(2))
        assert wire.redis.is_cut
        assert ("A", RedisUnavailable) in wire.told
        assert ("B", RedisUnavailable) in wire.told

    on_a_wire(check)


def test_a_subscription_that_has_ended_casts_no_doubt_on_what_is_answered() -> None:
    async def check(wire: Wire) -> None:
        wire.subscribe("left", command="SUNSUBSCRIBE")
        wire.ask("A")
        wire.ask("B")
        wire.redis.say(push("sunsubscribe", "left"), number(1), refusal("MOVED 1 h:1"))
        assert not wire.redis.is_cut
        assert wire.told[1:] == [
            ("A", 1),
            ("elsewhere", "MOVED 1 h:1"),
            ("B", hiredis.ReplyError),
        ]

    on_a_wire(check)


@pytest.mark.parametrize("message", [number(1), refusal("ERR something")])
def test_a_reply_that_nobody_asked_for_ends_the_connection(message: bytes) -> None:
    async def check(wire: Wire) -> None:
        wire.redis.say(message)
        assert wire.redis.is_cut
        assert [kind for kind, *_ in wire.told] == ["lost"]

    on_a_wire(check)


def test_a_subscription_that_is_answered_with_something_else_ends_the_connection() -> None:
    async def check(wire: Wire) -> None:
        wire.subscribe("one")
        wire.ask("A")
        wire.redis.say(number(1), push("message", "x", "too late"))
        assert wire.redis.is_cut
        assert [kind for kind, *_ in wire.told] == ["A", "lost"]

    on_a_wire(check)


def test_whoever_waits_when_the_connection_ends_is_told_once() -> None:
    async def check(wire: Wire) -> None:
        wire.ask("A")
        wire.subscribe("one")
        wire.ask("B")
        wire.ask("C")
        wire.redis.say(number(1))
        wire.redis.hang_up()
        await turn()
        wire.resp.lose("again")
        wire.redis.say(number(2))
        assert wire.told == [
            ("A", 1),
            ("B", RedisUnavailable),
            ("C", RedisUnavailable),
            ("lost", "it was closed"),
        ]

    on_a_wire(check)


def test_what_no_server_of_this_protocol_says_ends_the_connection() -> None:
    async def check(wire: Wire) -> None:
        wire.ask("A")
        wire.redis.say(b"HTTP/1.1 400 Bad Request\r\n")
        assert wire.redis.is_cut
        assert wire.told[0] == ("A", RedisUnavailable)

    on_a_wire(check)


@pytest.mark.parametrize(
    "text",
    [
        "MOVED 8415 127.0.0.1:7001",
        "READONLY You can't write against a read only replica.",
        "CLUSTERDOWN The cluster is down",
        "ERR Error running script: -READONLY You can't write",
    ],
)
def test_a_refusal_that_points_to_another_server_is_told_apart_from_its_command(text: str) -> None:
    async def check(wire: Wire) -> None:
        wire.ask("A")
        wire.redis.say(refusal(text))
        assert wire.told == [("elsewhere", text), ("A", hiredis.ReplyError)]

    on_a_wire(check)


@pytest.mark.parametrize("text", ["ASK 8415 127.0.0.1:7001", "TRYAGAIN Multiple keys", "ERR no"])
def test_any_other_refusal_is_its_commands_alone(text: str) -> None:
    async def check(wire: Wire) -> None:
        wire.ask("A")
        wire.redis.say(refusal(text))
        assert wire.told == [("A", hiredis.ReplyError)]

    on_a_wire(check)


def test_a_loop_that_was_held_up_is_no_silence_of_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(wire: Wire) -> None:
        clock = stopped_clock(monkeypatch)
        clock.now += 100  # idle
        wire.ask("A")
        clock.now += 5  # held up before anything was written
        await turn()
        assert wire.redis.commands == [["A"]]
        assert wire.resp.silence_seconds == 0
        clock.now += 3
        assert wire.resp.silence_seconds == 3

    on_a_wire(check)


def test_more_commands_make_no_silent_redis_look_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(wire: Wire) -> None:
        clock = stopped_clock(monkeypatch)
        wire.subscribe("one")
        await turn()
        for _ in range(3):
            clock.now += 1
            wire.ask("A")
            await turn()
        assert wire.resp.silence_seconds == 3
        wire.redis.say(push("message", "x", "y"))
        assert wire.resp.silence_seconds == 0

    on_a_wire(check)


def test_what_is_sent_in_one_turn_of_the_loop_is_one_write_in_order() -> None:
    async def check(wire: Wire) -> None:
        wire.ask("A")
        wire.subscribe("one")
        wire.resp.send(("SET", "key", 1.5, b"raw"), lambda _: None)
        assert wire.redis.writes == []
        await turn()
        wire.ask("B")
        await turn()
        first = [["A"], ["SUBSCRIBE", "one"], ["SET", "key", "1.5", "raw"]]
        assert wire.redis.writes == [first, [["B"]]]

    on_a_wire(check)


def test_nothing_is_written_to_a_connection_that_has_ended() -> None:
    async def check(wire: Wire) -> None:
        wire.ask("A")
        wire.resp.lose("enough")
        await turn()
        assert wire.redis.writes == []

    on_a_wire(check)


async def turn() -> None:
    """One turn of the loop."""
    await asyncio.sleep(0)


class Clock:
    now: float


def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The running loop's clock, which stands until it is set on."""
    loop, clock = asyncio.get_running_loop(), Clock()
    clock.now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: clock.now)
    return clock
