"""A connection's place, and who is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from shared.settings import Settings
from web.admission import Place
from web.hub import Hub
from web.refusal import Refusal
from web.watchers import Watchers


class Server:
    """A hub, its only link, and the index of watchers; answers as it is told."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.told: list[str] = []

    def link(self, topic: str) -> Server:
        return self

    async def run(self, step: Any, keys: Any, args: Any, take: Callable[[Any], str]) -> str:
        return take(self.replies.pop(0))

    def post(self, step: Any, keys: Any, args: Any, take: Callable[[Any], None]) -> None:
        self.late = take

    def send(self, *command: Any) -> None:
        self.told.append(command[0])

    def enter(self, user_id: str) -> None:
        self.told.append("enter")

    def leave(self, user_id: str) -> None:
        self.told.append("leave")


def place(server: Server) -> Place:
    hub, watchers = cast(Hub, server), cast(Watchers, server)
    return Place(hub, Settings(), "alice", "{}", watchers)


def test_one_that_is_refused_is_told_of_to_nobody() -> None:
    server = Server([b"connections", 1000])
    refused = place(server)
    with pytest.raises(Refusal):
        asyncio.run(refused.take(None, lambda last_id: None))
    refused.give_back()
    assert server.told == []


def test_one_that_is_admitted_is_told_of_until_it_is_given_back() -> None:
    server = Server([b"ok", b"1-0"])
    admitted = place(server)
    asyncio.run(admitted.take(None, lambda last_id: None))
    assert server.told == ["enter"]
    admitted.renew("1-0", lags=False, observe=lambda last_id: None, is_over=lambda: None)
    admitted.give_back()
    server.late([b"1-0", 0])
    assert server.told == ["enter", "leave", "ZREM", "HDEL"]
