"""The other end of a link's connection: it keeps what it gets, and says what it is told to say."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection


class ScriptedRedis:
    """One connection. Each of `writes` has the commands that came at once."""

    def __init__(self) -> None:
        self.writes: list[list[list[str]]] = []
        self.is_cut = False
        self._protocol: asyncio.Protocol | None = None
        self._parser = hiredis.Reader(encoding="utf-8")

    @property
    def connection(self) -> AbstractConnection:
        """What redis-py would hand over: its socket's transport is this."""
        writer = SimpleNamespace(transport=self)
        return cast(AbstractConnection, SimpleNamespace(_writer=writer))

    @property
    def commands(self) -> list[list[str]]:
        """All that it was sent."""
        return [command for write in self.writes for command in write]

    def say(self, *messages: bytes) -> None:
        """Has these arrive at once."""
        assert self._protocol is not None
        self._protocol.data_received(b"".join(messages))

    def hang_up(self) -> None:
        """Closes the connection, as asyncio tells of it: in the loop's next turn."""
        assert self._protocol is not None
        asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        self._parser.feed(data)
        commands: list[Any] = []
        while (command := self._parser.gets()) is not False:
            commands.append(command)
        self.writes.append(commands)

    def abort(self) -> None:
        self.is_cut = True
        self.hang_up()


def push(*parts: str) -> bytes:
    """A push of RESP3."""
    items = (f"${len(part)}\r\n{part}\r\n" for part in parts)
    return f">{len(parts)}\r\n{''.join(items)}".encode()


def refusal(text: str) -> bytes:
    """An error in a reply's place."""
    return f"-{text}\r\n".encode()


OK = b"+OK\r\n"


def number(value: int) -> bytes:
    """A reply that is a number."""
    return f":{value}\r\n".encode()
