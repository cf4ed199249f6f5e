"""A link: it is made again whatever ends it, for as long as nobody closes it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from redis.asyncio.connection import AbstractConnection

from shared.errors import RedisUnavailable
from shared.scripts import Script
from tests.scripted_redis import OK, ScriptedRedis, number, push, refusal
from web import link as module
from web.link import RECONNECT_SECONDS, STEADY_SECONDS, Link

STEP = Script("return 1", "5tep")
DEADLINE_SECONDS = 10


class Pauses:
    """Stands in for chance: no pause takes any time, and the longest that each may be is kept."""

    def __init__(self) -> None:
        self.longest: list[float] = []

    def uniform(self, least: float, most: float) -> float:
        self.longest.append(most)
        return 0


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    pauses = Pauses()
    monkeypatch.setattr(module, "random", pauses)
    monkeypatch.setattr(module, "HEALTH_CHECK_SECONDS", 1000)  # nor does that come to its help
    return pauses


class Redises:
    """Where a link connects to. Each server of `made` is of one connection."""

    def __init__(self) -> None:
        self.made: list[ScriptedRedis] = []
        self.tries = 0
        self.refuses_for = 0
        self.told: list[Any] = []
        self.fails_at: str | None = None

    async def connect(self) -> AbstractConnection:
        self.tries += 1
        if self.tries <= self.refuses_for:
            raise redis.ConnectionError("refused")
        self.made.append(ScriptedRedis())
        return self.made[-1].connection

    def tell(self, what: str, *more: Any) -> None:
        self.told.append((what, *more))
        if what == self.fails_at:
            self.fails_at = None
            raise ValueError("broken")

    def link(self, connect: Callable[[], Awaitable[AbstractConnection]] | None = None) -> Link:
        return Link(
            connect or self.connect,
            on_push=lambda channel, data: self.tell("push", channel, data),
            on_pause=lambda: None,
            on_up=lambda: self.tell("up"),
            on_down=lambda: self.tell("down"),
            on_moved=lambda channel: self.tell("moved", channel),
        )

    async def server(self, number: int) -> ScriptedRedis:
        """The server of a connection, once it has been made."""
        await until(lambda: len(self.made) > number and self.told.count(("up",)) > number)
        return self.made[number]


def in_a_loop(check: Callable[[], Awaitable[None]]) -> None:
    async def go() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await check()

    asyncio.run(go())


async def until(condition: Callable[[], object]) -> None:
    """Gives the loop as many turns as it takes."""
    while not condition():
        await asyncio.sleep(0)


async def turns(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_a_callback_that_fails_when_the_link_is_up_does_not_end_it_for_good(
    pauses: Pauses, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        redises = Redises()
        redises.fails_at = "up"
        link = redises.link()
        await redises.server(1)
        assert redises.told == [("up",), ("down",), ("up",)]
        assert redises.made[0].is_cut
        assert link.up.is_set()
        await link.aclose()

    in_a_loop(check)
    assert "the link to Redis failed; it is made anew" in caplog.text


@contextmanager
def over_a_socket() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


@pytest.mark.parametrize("fails_at", ["push", "moved"])
def test_a_callback_that_fails_at_an_announcement_does_not_end_the_link_for_good(
    pauses: Pauses, fails_at: str
) -> None:
    """Over a real socket: it is the event loop that meets the exception."""

    async def check() -> None:
        redises = Redises()

        async def connect() -> AbstractConnection:
            if redises.tries:
                return await redises.connect()
            redises.tries += 1
            redises.made.append(ScriptedRedis())
            _, writer = await asyncio.open_connection(sock=ours)
            return cast(AbstractConnection, SimpleNamespace(_writer=writer))

        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failures.append(what))
        link = redises.link(connect)
        await redises.server(0)
        redises.fails_at = fails_at
        theirs.sendall(push("message", "one", "x") + push("sunsubscribe", "two"))
        await redises.server(1)
        assert [what for what, *_ in redises.told if what in ("up", "down")] == ["up", "down", "up"]
        assert isinstance(failures[0]["exception"], ValueError), "it is told of"
        await link.aclose()

    with over_a_socket() as (ours, theirs):
        in_a_loop(check)


def test_a_server_that_is_away_is_met_with_growing_pauses(pauses: Pauses) -> None:
    async def check() -> None:
        redises = Redises()
        redises.refuses_for = 8
        link = redises.link()
        await redises.server(0)
        await link.aclose()

    in_a_loop(check)
    assert pauses.longest[:8] == growing(8)


def test_a_server_that_accepts_and_closes_at_once_is_met_with_growing_pauses(
    pauses: Pauses,
) -> None:
    async def check() -> None:
        redises = Redises()
        link = redises.link()
        for n in range(8):
            (await redises.server(n)).hang_up()
        await redises.server(8)
        await link.aclose()

    in_a_loop(check)
    assert pauses.longest[:8] == growing(8)


def test_a_server_that_refuses_what_it_is_asked_is_met_with_growing_pauses(pauses: Pauses) -> None:
    async def check() -> None:
        redises = Redises()
        link = redises.link()
        for n in range(8):
            server = await redises.server(n)
            link.push("SUBSCRIBE", "one")
            server.say(refusal("NOPERM no channel"))
        await redises.server(8)
        await link.aclose()

    in_a_loop(check)
    assert pauses.longest[:8] == growing(8)


def growing(number: int) -> list[float]:
    first, longest = RECONNECT_SECONDS
    return [min(longest, first * 2**n) for n in range(number)]


def test_a_connection_that_stood_for_long_is_made_again_soon(
    pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        time, ahead = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: time() + ahead)
        redises = Redises()
        redises.refuses_for = 4
        link = redises.link()
        server = await redises.server(0)
        ahead = STEADY_SECONDS + 1
        server.hang_up()
        await redises.server(1)
        await link.aclose()

    in_a_loop(check)
    assert pauses.longest[:5] == [*growing(4), RECONNECT_SECONDS[0]]


def test_a_closed_link_keeps_nobody_waiting(pauses: Pauses) -> None:
    async def check() -> None:
        redises = Redises()
        redises.refuses_for = 1000
        link = redises.link()
        waiting = asyncio.ensure_future(link.up.wait())
        await until(lambda: redises.tries)
        assert not link.up.is_set()
        link.close()
        await waiting
        asking = asyncio.ensure_future(link.run(STEP, [], [], int))
        await turns()
        assert asking.done(), "at once, although it was lost only a moment ago"
        with pytest.raises(RedisUnavailable):
            await asking

    in_a_loop(check)


def test_whoever_waits_for_a_reply_learns_that_the_link_was_closed(pauses: Pauses) -> None:
    async def check() -> None:
        redises = Redises()
        link = redises.link()
        await redises.server(0)
        asking = asyncio.ensure_future(link.run(STEP, [], [], int))
        await turns()
        link.close()
        with pytest.raises(RedisUnavailable):
            await asking
        await until(link.up.is_set)
        assert redises.made[0].is_cut

    in_a_loop(check)


def test_a_link_is_closed_although_connecting_swallows_the_cancellation(pauses: Pauses) -> None:
    async def check() -> None:
        tries = 0

        async def connect() -> AbstractConnection:
            nonlocal tries
            tries += 1
            if tries > 1:
                await asyncio.Event().wait()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                raise redis.ConnectionError("cancelled") from error
            raise AssertionError

        redises = Redises()
        link = redises.link(connect)
        await until(lambda: tries)
        link.close()
        await turns()
        assert link.up.is_set()
        assert tries == 1
        assert link._task.done()

    in_a_loop(check)


def test_a_step_is_loaded_before_its_first_run_on_each_connection(pauses: Pauses) -> None:
    load, run = ["SCRIPT", "LOAD", STEP.text], ["EVALSHA", STEP.sha, "1", "key", "x"]

    async def check() -> None:
        redises = Redises()
        link = redises.link()
        for n in range(2):
            server = await redises.server(n)
            link.post(STEP, ["key"], ["x"], lambda _: None)
            link.send("ZREM", "key", "x")
            second = asyncio.ensure_future(link.run(STEP, ["key"], ["x"], int))
            await turns()
            assert server.commands == [load, run, ["ZREM", "key", "x"], run]
            server.say(OK, number(1), number(1), number(7))
            assert await second == 7
            server.hang_up()
            await until(lambda: not link.up.is_set())
        await redises.server(2)
        await link.aclose()

    in_a_loop(check)


def test_a_step_that_the_server_has_forgotten_is_sent_whole(pauses: Pauses) -> None:
    async def check() -> None:
        redises = Redises()
        link = redises.link()
        server = await redises.server(0)
        asking = asyncio.ensure_future(link.run(STEP, ["key"], ["x"], int))
        await turns()
        server.say(OK, refusal("NOSCRIPT No matching script."))
        await turns()
        assert server.commands[2:] == [["EVAL", STEP.text, "1", "key", "x"]]
        server.say(number(7))
        assert await asking == 7
        await link.aclose()

    in_a_loop(check)


def test_a_key_that_is_elsewhere_is_told_of_and_leaves_the_link_to_its_other_users(
    pauses: Pauses,
) -> None:
    async def check() -> None:
        redises = Redises()
        link = redises.link()
        server = await redises.server(0)
        link.push("SSUBSCRIBE", "gone")
        asking = asyncio.ensure_future(link.run(STEP, ["key"], ["x"], int))
        other = asyncio.ensure_future(link.run(STEP, ["other"], ["x"], int))
        await turns()
        moved = refusal("MOVED 8415 127.0.0.1:7001")
        server.say(moved, OK, moved, number(7))
        with pytest.raises(RedisUnavailable):
            await asking
        assert await other == 7
        assert redises.told == [("up",), ("moved", b"gone"), ("moved", None)]
        assert not server.is_cut
        await link.aclose()

    in_a_loop(check)


@pytest.mark.parametrize("text", ["READONLY replica", "CLUSTERDOWN The cluster is down"])
def test_a_server_that_can_do_nothing_for_anybody_is_left(pauses: Pauses, text: str) -> None:
    async def check() -> None:
        redises = Redises()
        link = redises.link()
        server = await redises.server(0)
        asking = asyncio.ensure_future(link.run(STEP, ["key"], ["x"], int))
        await turns()
        server.say(OK, refusal(text))
        with pytest.raises(RedisUnavailable):
            await asking
        await redises.server(1)
        assert server.is_cut
        await link.aclose()

    in_a_loop(check)
