"""An outlet: writes without a task where the server's `send` need not wait."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from typing import Any

import pytest

from web.outlet import Message, Outlet, body


class Server:
    """A server's response: `send` waits while it is full, as uvicorn's does."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.written: list[bytes] = []
        self.room = asyncio.Event()
        self.room.set()
        self.transport = self
        self.aborted = asyncio.Event()

    async def send(self, message: Message) -> None:
        await self.wait()
        self.headers += message.get("headers", [])
        self.written += [message["body"]] if "body" in message else []
        await self.wait()

    async def wait(self) -> None:
        if not self.room.is_set():
            await self.room.wait()

    def abort(self) -> None:
        self.aborted.set()


class Known(Server):
    pass


class Threaded(Server):
    pass


Known.__module__ = "uvicorn.protocols.http.httptools_impl"
Threaded.__module__ = "web.pipe"


def test_what_need_not_wait_is_written_at_once() -> None:
    async def go() -> None:
        server = Known()
        assert Outlet(server.send).write_now(body(b"a")) is None
        assert server.written == [b"a"]

    asyncio.run(go())


def test_what_has_to_wait_is_finished_in_a_task_and_written_once() -> None:
    async def go() -> None:
        server = Known()
        server.room.clear()
        rest = Outlet(server.send).write_now(body(b"a"))
        assert rest is not None
        task = asyncio.ensure_future(finish(rest))
        await asyncio.sleep(0)
        assert server.written == []
        server.room.set()
        await task
        assert server.written == [b"a"]

    asyncio.run(go())


def test_a_write_that_is_given_up_leaves_nothing_behind() -> None:
    async def go() -> None:
        server = Known()
        server.room.clear()
        rest = Outlet(server.send).write_now(body(b"a"))
        assert rest is not None
        task = asyncio.ensure_future(finish(rest))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.room.set()
        await asyncio.sleep(0)
        assert server.written == []
        unfinished = Outlet(server.send).write_now(body(b"b"))
        del unfinished
        gc.collect()  # warnings are errors

    asyncio.run(go())


def test_the_send_of_an_unknown_server_is_left_to_a_task() -> None:
    async def go() -> None:
        server = Server()
        outlet = Outlet(server.send)
        rest = outlet.write_now(body(b"a"))
        assert rest is not None
        assert server.written == []
        await rest
        assert server.written == [b"a"]
        assert not outlet.can_abort

    asyncio.run(go())


def test_only_a_known_server_is_cut() -> None:
    async def go() -> None:
        known, unknown = Known(), Server()
        Outlet(known.send).abort()
        Outlet(unknown.send).abort()
        assert (known.aborted.is_set(), unknown.aborted.is_set()) == (True, False)

    asyncio.run(go())


def test_what_is_not_taken_in_time_is_cut_by_a_known_server_alone() -> None:
    async def go() -> None:
        known, threaded, unknown = Known(), Threaded(), Server()
        for server in (unknown, threaded, known):
            Outlet(server.send).abort_after(0)
        assert not known.aborted.is_set()
        async with asyncio.timeout(10):
            await known.aborted.wait()
            await threaded.aborted.wait()
        assert not unknown.aborted.is_set()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("server_class", "ends"), [(Known, True), (Threaded, False), (Server, False)]
)
def test_the_connection_ends_with_a_last_response_where_that_is_ours_to_say(
    server_class: type[Server], ends: bool
) -> None:
    """A WSGI application must not (PEP 3333), and HTTP/2 has no such header."""

    async def go() -> None:
        server, refusing = server_class(), server_class()
        await Outlet(server.send).start(200, {"X-Test": "1"}, is_last=True)
        await Outlet(refusing.send).start(403, {"X-Test": "1"})
        close = [(b"connection", b"close")] if ends else []
        assert server.headers == [(b"x-test", b"1"), *close]
        assert refusing.headers == [(b"x-test", b"1")]

    asyncio.run(go())


async def finish(rest: Awaitable[Any]) -> None:
    await rest
