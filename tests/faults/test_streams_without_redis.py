"""Open streams while Redis is away: all of them wait, and none asks for it again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from shared.outbox import outbox
from shared.pages import Page
from shared.publisher import publish_user_event
from shared.settings import get_settings
from tests.commands import wait_until
from tests.conftest import RunningRedis
from web import user_journal as module
from web.delivery import Delivery
from web.merge import Merge
from web.outlet import Message
from web.request import Request
from web.stream import open_stream
from web.topic import Topic

USER = "local"
STREAMS = 20
KEEPALIVES = 4  # that each hears while Redis is away
SETTINGS = {
    "ALLOW_ANONYMOUS": "true",
    "SSE_KEEPALIVE_SECONDS": "0.4",
    "SSE_MAX_CONCURRENT_PER_USER": "0",
}


@pytest.fixture
def server(
    redis_url: str, redis_server: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningRedis]:
    for name, value in {**SETTINGS, "REDIS_URL": redis_url}.items():
        monkeypatch.setenv(name, value)
    yield redis_server
    redis_server.start()


class Stream:
    """One stream's client, which stays until it is told to leave."""

    def __init__(self) -> None:
        self.body = b""
        self._left = asyncio.Event()

    @property
    def keepalives(self) -> int:
        return self.body.count(b": keepalive\n\n")

    async def send(self, message: Message) -> None:
        self.body += message.get("body", b"")

    async def receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def run(self, delivery: Delivery) -> None:
        reader = await open_stream(delivery, Request({"host": "localhost"}), self.send)
        assert reader is not None
        await reader.serve(self.receive)

    def leave(self) -> None:
        self._left.set()


class CountingDelivery(Delivery):
    """Knows how often a page was asked for."""

    reads = 0

    async def read_after(self, merge: Merge, topic: Topic) -> Page:
        self.reads += 1
        return await super().read_after(merge, topic)


async def until(condition: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what)


def publish_when_back() -> None:
    publish_user_event(USER, "test.event", {"n": 1})
    wait_until(lambda: outbox().flush() == 0, "delivered")


def test_nobody_polls_while_redis_is_away_and_all_get_what_comes_next(
    server: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", (0.001, 0.001))  # whoever polls, polls a lot

    async def check() -> None:
        delivery = CountingDelivery(get_settings())
        streams = [Stream() for _ in range(STREAMS)]
        running = [asyncio.ensure_future(stream.run(delivery)) for stream in streams]
        await until(lambda: all(b"id: " in stream.body for stream in streams), "live")
        await asyncio.to_thread(server.stop)
        heard = [stream.keepalives for stream in streams]

        def hear_on() -> bool:
            pairs = zip(streams, heard, strict=True)
            return all(stream.keepalives >= before + KEEPALIVES for stream, before in pairs)

        await until(hear_on, "keepalives, in spite of it")
        most = sum(stream.keepalives for stream in streams) + 2 * STREAMS
        assert STREAMS <= delivery.reads <= most, "one as it went, and one with each keepalive"
        server.start()  # not in a thread: Redis ends with the thread that started it
        await asyncio.to_thread(publish_when_back)
        await until(lambda: all(b'{"n":1}' in stream.body for stream in streams), "the event")
        for stream in streams:
            stream.leave()
        await asyncio.gather(*running)
        await delivery.aclose()

    asyncio.run(check())
